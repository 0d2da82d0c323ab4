"""DeepLabv3+ by hand, and what came before it: the baselines that every search is measured by."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import keras

from nas_seg.core import backbones, encoder_decoder
from nas_seg.core.aspp import ASPP, check_gate
from nas_seg.core.backbones import BackboneConfig
from nas_seg.core.checkpoint import names_of
from nas_seg.core.decoder import DecoderConfig
from nas_seg.core.pyramid_pooling import GATES
from nas_seg.deeplab.logits import AtrousLogits
from nas_seg.utils.errors import InputError, unknown

HEADS = ("aspp", "none", "deeplab_v2")


@dataclasses.dataclass(frozen=True)
class DeepLabConfig:
    """Backbone + head + perhaps a decoder + logits.

    Attributes:
        backbone: which one, and its output stride.
        head: "aspp"; "none" for logits straight from the features (aspp_with_batch_norm=False); or "deeplab_v2" for
            logits that are the sum of one atrous convolution a rate (the same with atrous_rates).
        atrous_rates: rates at the backbone's output stride: 6, 12, 18 at 16 and twice that at 8. For ASPP, empty
            leaves image pooling and the 1x1 branch; for "none" they are empty.
        add_image_level_feature: whether ASPP pools the image.
        aspp_with_separable_conv: separable 3x3 branches, else dense ones.
        filters: channels of ASPP (aspp_convs_filters).
        crop_size: (height, width) in input pixels that the image pooling's window comes from; None pools the
            whole map.
        pooling_crop_size: the same, for image pooling alone (image_pooling_crop_size).
        image_pooling_stride: (vertical, horizontal) steps of that window in map pixels.
        aspp_with_concat_projection: False leaves ASPP's projection and dropout out.
        squeeze_and_excitation: None, or "sigmoid" (aspp_with_squeeze_and_excitation) or "quantized_sigmoid"
            (image_se_uses_qsigmoid): the pooled image gates ASPP's result instead of being a branch.
        logits_kernel_size: of the convolutions of head "deeplab_v2".
        decoder: None for none.
        image_pyramid: scales of the image whose logits are merged; empty for the image as it is.
        merge_method: "max" or "avg" of them.
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
    image_pooling_stride: tuple[int, int] = (1, 1)
    aspp_with_concat_projection: bool = True
    squeeze_and_excitation: str | None = None
    logits_kernel_size: int = 1
    decoder: DecoderConfig | None = None
    image_pyramid: tuple[float, ...] = ()
    merge_method: str = "max"

    def __post_init__(self):
        if self.head not in HEADS:
            raise unknown("head", self.head, HEADS)
        if any(rate < 1 for rate in self.atrous_rates):
            raise InputError(f"atrous_rates: expected rates of at least 1, received {list(self.atrous_rates)}")
        if self.filters < 1:
            raise InputError(f"filters: expected at least 1, received {self.filters}")
        if min(self.image_pooling_stride) < 1:
            received = list(self.image_pooling_stride)
            raise InputError(f"image_pooling_stride: expected steps of at least 1, received {received}")
        if self.squeeze_and_excitation not in (None, *GATES):
            raise unknown("squeeze_and_excitation", self.squeeze_and_excitation, GATES)
        _check_rates(self)
        check_gate(
            self.squeeze_and_excitation,
            self.add_image_level_feature,
            self.aspp_with_concat_projection,
            self.atrous_rates,
        )
        encoder_decoder.check(self)


def _check_rates(config: DeepLabConfig) -> None:
    rates, by_rate = list(config.atrous_rates), config.head == "deeplab_v2"
    if config.head == "none" and rates:
        raise InputError(
            f"atrous_rates: expected none with head 'none', received {rates}; heads with rates: aspp, deeplab_v2"
        )
    if by_rate and not rates:
        raise InputError("atrous_rates: expected at least one with head 'deeplab_v2', received none")
    if config.logits_kernel_size < 1 or (config.logits_kernel_size > 1 and not by_rate):
        expected = "at least 1" if by_rate else f"1 with head {config.head!r}"
        raise InputError(f"logits_kernel_size: expected {expected}, received {config.logits_kernel_size}")
    if by_rate and config.decoder and config.decoder.output_is_logits:
        raise InputError("decoder_output_is_logits: expected False with head 'deeplab_v2', whose logits are its own")


def head(config: DeepLabConfig, num_classes: int, features, low_level=()):
    """Features [B, h, w, C] (and low-level ones for a decoder) -> logits [B, h, w, num_classes]."""
    return _make_head(config, num_classes)(features, low_level)


def connect(config: DeepLabConfig, num_classes: int, images):
    """Normalised images [B, H, W, 3] -> logits at the network's own stride, as tensors of one graph."""
    return encoder_decoder.connect(config, images, _make_head(config, num_classes))


def _make_head(config: DeepLabConfig, num_classes: int) -> Callable:
    logits = None
    if config.head == "deeplab_v2":
        logits = AtrousLogits(num_classes, config.atrous_rates, config.logits_kernel_size, name=encoder_decoder.LOGITS)
    return encoder_decoder.make_head(config, num_classes, _context(config), logits)


def _context(config: DeepLabConfig) -> Callable:
    """(features, scale of the image) -> features."""
    if config.head != "aspp":
        return lambda features, scale: features
    aspp = ASPP(
        config.filters,
        config.atrous_rates,
        config.add_image_level_feature,
        config.aspp_with_separable_conv,
        _pooling_window(config),
        config.dropout_rate,
        pooling_strides=config.image_pooling_stride,
        concat_projection=config.aspp_with_concat_projection,
        squeeze_and_excitation=config.squeeze_and_excitation,
        activation=encoder_decoder.activation(config),
        name="aspp",
    )

    def context(features, scale):
        window = None if scale == 1.0 else _pooling_window(config, scale)
        return aspp(features, pooling_window=window) if window else aspp(features)

    return context


def _pooling_window(config: DeepLabConfig, scale: float = 1.0) -> tuple[int, int] | None:
    """(height, width) of the image pooling in map pixels, for an image of this scale."""
    crop = encoder_decoder.pooling_crop(config, scale)
    return encoder_decoder.scaled(crop, 1.0 / config.backbone.output_stride)


def tf1_names(model: keras.Model, config: DeepLabConfig) -> dict:
    """DeepLab's TF1 variable name -> variable, every one of a model built from `config`."""
    return backbones.tf1_names(model.get_layer("backbone"), config.backbone) | head_tf1_names(model)


def head_tf1_names(model: keras.Model) -> dict:
    """The same of what follows the backbone, which may be anything."""
    names = encoder_decoder.tf1_names(model)
    for layer in model.layers:
        if isinstance(layer, ASPP):
            for part in filter(None, (*layer.branches, layer.excitation, layer.projection)):
                names |= names_of(part, part.name)
    return names
