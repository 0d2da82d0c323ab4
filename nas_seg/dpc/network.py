"""A segmentation network whose context module is a dense prediction cell."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import keras

from nas_seg.core import backbones, encoder_decoder
from nas_seg.core.backbones import BackboneConfig
from nas_seg.core.checkpoint import names_of
from nas_seg.core.decoder import DecoderConfig
from nas_seg.dpc.cell import DensePredictionCell, check_output_stride
from nas_seg.dpc.genotype import DPCGenotype
from nas_seg.utils.errors import InputError

_CELL = "dense_prediction_cell"
_SCOPE = "meta_architecture"


@dataclasses.dataclass(frozen=True)
class DPCConfig:
    """Backbone + dense prediction cell + perhaps a decoder + logits.

    Attributes:
        genotype: the cell.
        backbone: its output_stride is 8 or 16; at 8 the cell's rates double.
        filters: channels of every branch.
        concat_filters: channels of the projection.
        dropout_rate: before the projection.
        crop_size: (height, width) in input pixels that the pyramid pooling windows come from; None takes the
            map itself.
        pooling_crop_size: the same for the pooling windows alone (image_pooling_crop_size).
        decoder: None for none.
        image_pyramid: scales of the image whose logits are merged; empty for the image as it is. All scales share
            every layer; DeepLab's code makes the cell anew for each, by mistake.
        merge_method: "max" or "avg" of them.
    """

    KIND: ClassVar[str] = "dpc"

    genotype: DPCGenotype
    backbone: BackboneConfig = BackboneConfig()
    filters: int = 256
    concat_filters: int = 256
    dropout_rate: float = 0.1
    crop_size: tuple[int, int] | None = None
    pooling_crop_size: tuple[int, int] | None = None
    decoder: DecoderConfig | None = None
    image_pyramid: tuple[float, ...] = ()
    merge_method: str = "max"

    def __post_init__(self):
        check_output_stride(self.backbone.output_stride)
        for name in ("filters", "concat_filters"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: expected at least 1, received {getattr(self, name)}")
        encoder_decoder.check(self)


def head(config: DPCConfig, num_classes: int, features, low_level=()):
    """Features [B, h, w, C] (and low-level ones for a decoder) -> logits [B, h, w, num_classes]."""
    return _make_head(config, num_classes)(features, low_level)


def connect(config: DPCConfig, num_classes: int, images):
    """Normalised images [B, H, W, 3] -> logits at the network's own stride, as tensors of one graph."""
    return encoder_decoder.connect(config, images, _make_head(config, num_classes))


def _make_head(config: DPCConfig, num_classes: int) -> Callable:
    cell = DensePredictionCell(
        config.genotype,
        config.filters,
        config.concat_filters,
        config.dropout_rate,
        config.backbone.output_stride,
        config.crop_size,
        config.pooling_crop_size,
        name=_CELL,
    )

    def context(features, scale):
        crop = None if scale == 1.0 else encoder_decoder.pooling_crop(config, scale)
        return cell(features, pooling_crop_size=crop) if crop else cell(features)

    return encoder_decoder.make_head(config, num_classes, context)


def tf1_names(model: keras.Model, config: DPCConfig) -> dict:
    """DeepLab's TF1 variable name -> variable, every one of a model built from `config`."""
    names = backbones.tf1_names(model.get_layer("backbone"), config.backbone)
    for layer in model.layers:
        if isinstance(layer, DensePredictionCell):
            names |= cell_tf1_names(layer, layer.name.replace(_CELL, _SCOPE))
    return names | encoder_decoder.tf1_names(model)


def cell_tf1_names(cell: DensePredictionCell, scope: str = _SCOPE) -> dict:
    """DeepLab's TF1 variable name -> variable of a built cell."""
    names = names_of(cell.projection, f"{scope}/concat_projection")
    for i, branch in enumerate(cell.branches):
        names |= names_of(branch, f"{scope}/branch{i}")
    return names
