"""Template networks: encoder and decoder, and the logits at the decoder's own stride."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import keras

from nas_seg.core.backbones import build_backbone
from nas_seg.template.decoder import decode
from nas_seg.template.encoder import TemplateEncoder
from nas_seg.template.genotype import TemplateGenotype
from nas_seg.template.plan import ENCODER_MAPS, check
from nas_seg.utils.errors import InputError


@dataclasses.dataclass(frozen=True)
class TemplateConfig:
    """The first stages of MobileNet-v2 and a genotype's decoder.

    Attributes:
        genotype: the decoder.
        backbone: the encoder.
        agg_size: channels before the last convolution; 64 in the published networks, 48 in their search.
        sep_repeats: how often a separable convolution is applied in a row; 2, and 1 in the search.
        stride_rule: "peer": every application of a striding layer's template, and in it every repeat of a separable
            convolution, strides, as in the published networks; "once": the first alone.
    """

    KIND: ClassVar[str] = "template"

    genotype: TemplateGenotype
    backbone: TemplateEncoder = TemplateEncoder()
    agg_size: int = 64
    sep_repeats: int = 2
    stride_rule: str = "peer"

    def __post_init__(self):
        check(self.sep_repeats, self.stride_rule, self.agg_size)


def build_network(
    genotype: TemplateGenotype,
    num_classes: int,
    agg_size: int = 64,
    sep_repeats: int = 2,
    encoder: str = "peer",
    stride_rule: str = "peer",
) -> keras.Model:
    """A network with fresh weights.

    Args:
        genotype: the decoder.
        num_classes: channels of the logits.
        agg_size, sep_repeats, stride_rule: see `TemplateConfig`.
        encoder: "peer" or "keras", see `TemplateEncoder`; it says how images are normalised.

    Returns:
        A keras.Model, normalised images [B, H, W, 3] -> float32 logits at the stride of the finest map that no layer
        reads, 4 for the published networks.
    """
    if num_classes < 1:
        raise InputError(f"num_classes: expected at least 1, received {num_classes}")
    config = TemplateConfig(genotype, TemplateEncoder(encoder), agg_size, sep_repeats, stride_rule)
    images = keras.Input((None, None, 3), name="image")
    return keras.Model(images, connect(config, num_classes, images))


def connect(config: TemplateConfig, num_classes: int, images):
    """Normalised images [B, H, W, 3] -> logits at the network's own stride, as tensors of one graph."""
    fine, coarse = (m.stride for m in ENCODER_MAPS)
    maps = dict(zip((coarse, fine), build_backbone(config.backbone, (fine,))(images), strict=True))
    return head(config, num_classes, (maps[fine], maps[coarse]))


def head(config: TemplateConfig, num_classes: int, maps):
    """The encoder's maps at strides 4 and 8 -> logits."""
    return decode(config.genotype, maps, num_classes, config.agg_size, config.sep_repeats, config.stride_rule)


def tf1_names(model: keras.Model, config: TemplateConfig) -> dict:
    """There are none: InputError."""
    return config.backbone.tf1_names(model)
