"""DeepLabv3 by hand: the baseline that every search is measured by."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import keras

from nas_seg.core.aspp import ASPP
from nas_seg.core.backbones import BackboneConfig, build_backbone
from nas_seg.core.checkpoint import mobilenet_v2_names, names_of
from nas_seg.core.conv import logits_layer
from nas_seg.utils.dimension import scale_dimension
from nas_seg.utils.errors import InputError, unknown

HEADS = ("aspp", "none")


@dataclasses.dataclass(frozen=True)
class DeepLabConfig:
    """Backbone + ASPP (or nothing) + logits.

    Attributes:
        backbone: which one, and its output stride.
        head: "aspp", or "none" for logits straight from the backbone (aspp_with_batch_norm=False).
        atrous_rates: rates of ASPP's 3x3 branches at the backbone's output stride: 6, 12, 18 at 16 and twice
            that at 8; empty leaves image pooling and the 1x1 branch.
        add_image_level_feature: whether ASPP pools the image.
        aspp_with_separable_conv: separable 3x3 branches, else dense ones.
        filters: channels of ASPP (aspp_convs_filters).
        crop_size: (height, width) in input pixels that the image pooling's window comes from; None pools the
            whole map.
        pooling_crop_size: the same, for image pooling alone (image_pooling_crop_size).
    """

    KIND: ClassVar[str] = "deeplab"

    backbone: BackboneConfig = BackboneConfig()
    head: str = "aspp"
    atrous_rates: tuple[int, ...] = (6, 12, 18)
    add_image_level_feature: bool = True
    aspp_with_separable_conv: bool = True
    filters: int = 256
    dropout_rate: float = 0.1
    crop_size: tuple[int, int] | None = None
    pooling_crop_size: tuple[int, int] | None = None

    def __post_init__(self):
        if self.head not in HEADS:
            raise unknown("head", self.head, HEADS)
        if any(rate < 1 for rate in self.atrous_rates):
            raise InputError(f"atrous_rates: expected rates of at least 1, received {list(self.atrous_rates)}")


def head(config: DeepLabConfig, num_classes: int, features):
    """Features [B, h, w, C] -> logits [B, h, w, num_classes]."""
    if config.head == "aspp":
        crop = config.pooling_crop_size or config.crop_size
        stride = config.backbone.output_stride
        features = ASPP(
            config.filters,
            config.atrous_rates,
            config.add_image_level_feature,
            config.aspp_with_separable_conv,
            crop and tuple(scale_dimension(c, 1.0 / stride) for c in crop),
            config.dropout_rate,
            name="aspp",
        )(features)
    return logits_layer(num_classes)(features)


def connect(config: DeepLabConfig, num_classes: int, images):
    """Normalised images [B, H, W, 3] -> logits at the backbone's output stride, as tensors of one graph."""
    return head(config, num_classes, build_backbone(config.backbone)(images))


def tf1_names(model: keras.Model) -> dict:
    """DeepLab's TF1 variable name -> variable, of a model built from a DeepLabConfig."""
    names = mobilenet_v2_names(model.get_layer("backbone"))
    names |= names_of(model.get_layer("logits"), "logits/semantic")
    for aspp in (layer for layer in model.layers if isinstance(layer, ASPP)):
        for branch in (*aspp.branches, aspp.projection):
            names |= names_of(branch, branch.name)
    return names
