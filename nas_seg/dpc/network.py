"""A segmentation network whose context module is a dense prediction cell."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import keras

from nas_seg.core.backbones import BackboneConfig, build_backbone
from nas_seg.core.checkpoint import mobilenet_v2_names, names_of
from nas_seg.core.conv import logits_layer
from nas_seg.dpc.cell import DensePredictionCell, check_output_stride
from nas_seg.dpc.genotype import DPCGenotype


@dataclasses.dataclass(frozen=True)
class DPCConfig:
    """Backbone + dense prediction cell + logits.

    Attributes:
        genotype: the cell.
        backbone: its output_stride is 8 or 16; at 8 the cell's rates double.
        filters: channels of every branch.
        concat_filters: channels of the projection.
        dropout_rate: before the projection.
        crop_size: (height, width) in input pixels that the pyramid pooling windows come from; None takes the
            map itself.
        pooling_crop_size: the same for the pooling windows alone (image_pooling_crop_size).
    """

    KIND: ClassVar[str] = "dpc"

    genotype: DPCGenotype
    backbone: BackboneConfig = BackboneConfig()
    filters: int = 256
    concat_filters: int = 256
    dropout_rate: float = 0.1
    crop_size: tuple[int, int] | None = None
    pooling_crop_size: tuple[int, int] | None = None

    def __post_init__(self):
        check_output_stride(self.backbone.output_stride)


def head(config: DPCConfig, num_classes: int, features):
    """Features [B, h, w, C] -> logits [B, h, w, num_classes]."""
    cell = DensePredictionCell(
        config.genotype,
        config.filters,
        config.concat_filters,
        config.dropout_rate,
        config.backbone.output_stride,
        config.crop_size,
        config.pooling_crop_size,
        name="dense_prediction_cell",
    )
    return logits_layer(num_classes)(cell(features))


def connect(config: DPCConfig, num_classes: int, images):
    """Normalised images [B, H, W, 3] -> logits at the backbone's output stride, as tensors of one graph."""
    return head(config, num_classes, build_backbone(config.backbone)(images))


def tf1_names(model: keras.Model) -> dict:
    """DeepLab's TF1 variable name -> variable, of a model built from a DPCConfig."""
    cell = model.get_layer("dense_prediction_cell")
    names = mobilenet_v2_names(model.get_layer("backbone")) | cell_tf1_names(cell)
    return names | names_of(model.get_layer("logits"), "logits/semantic")


def cell_tf1_names(cell: DensePredictionCell) -> dict:
    """DeepLab's TF1 variable name -> variable of a built cell."""
    names = names_of(cell.projection, "meta_architecture/concat_projection")
    for i, branch in enumerate(cell.branches):
        names |= names_of(branch, f"meta_architecture/branch{i}")
    return names
