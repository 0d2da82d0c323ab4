"""The model zoo: one row a name."""

from __future__ import annotations

import dataclasses
import os

import keras

from nas_seg import model as model_lib
from nas_seg.core.backbones import BackboneConfig
from nas_seg.deeplab.network import DeepLabConfig
from nas_seg.dpc.genotype import published
from nas_seg.dpc.network import DPCConfig
from nas_seg.model import ModelConfig
from nas_seg.utils.errors import InputError, unknown

_MOBILENET = BackboneConfig("mobilenet_v2", output_stride=16)
# Channels in multiples of 8, so that keras.applications' ImageNet weights fit.
_MOBILENET_035 = BackboneConfig("mobilenet_v2", output_stride=16, depth_multiplier=0.35, divisible_by=8)
_TOP1 = published("cityscapes_top1")

_PRESETS = {
    "dpc_mobilenet_v2": DPCConfig(_TOP1, _MOBILENET),
    "dpc_mobilenet_v2_035": DPCConfig(_TOP1, _MOBILENET_035),
    "deeplabv3_mobilenet_v2": DeepLabConfig(_MOBILENET),
    "deeplabv3_mobilenet_v2_035": DeepLabConfig(_MOBILENET_035),
    "deeplabv3_mobilenet_v2_no_rates": DeepLabConfig(_MOBILENET, atrous_rates=()),
    "mobilenet_v2": DeepLabConfig(_MOBILENET, head="none", atrous_rates=()),
    "mobilenet_v2_035": DeepLabConfig(_MOBILENET_035, head="none", atrous_rates=()),
}


def list_presets() -> list[str]:
    """Names that `from_preset` takes."""
    return sorted(_PRESETS)


def network(name: str) -> DeepLabConfig | DPCConfig:
    """The network of a preset, without its number of classes."""
    if name not in _PRESETS:
        raise unknown("preset", name, _PRESETS)
    return _PRESETS[name]


def from_preset(
    name: str, num_classes: int, weights: str | None = None, backbone_weights: str | None = None
) -> keras.Model:
    """A network of the zoo.

    Args:
        name: one of `list_presets()`.
        num_classes: channels of the logits.
        weights: None for fresh weights, or a `.weights.h5` file or a run folder with this very network.
        backbone_weights: None, "imagenet", an .h5 file in keras.applications' layout, or a run folder.

    Returns:
        A keras.Model: RGB [B, H, W, 3] in [0, 255] -> float32 logits [B, H, W, num_classes].
    """
    config = ModelConfig(num_classes, network(name))
    model = model_lib.build(config)
    model_lib.load_backbone_weights(model, config, backbone_weights)
    if weights is not None:
        model_lib.load_weights(model, weights)
    return model


def network_config(
    num_classes: int,
    *,
    genotype: str | os.PathLike | None = None,
    preset: str | None = None,
    backbone_weights: str | None = None,
    **overrides,
) -> ModelConfig:
    """A ModelConfig from a genotype file of any family, or from a preset, with some fields replaced.

    Args:
        num_classes: channels of the logits.
        genotype: a file that a search wrote, or DeepLab's JSON list of a dense prediction cell.
        preset: a name of `list_presets()`. Exactly one of the two is given.
        backbone_weights: where it is a run folder, a genotype's network takes over its backbone.
        overrides: fields of the family's configuration or of its backbone to replace, such as crop_size or
            output_stride; those that are None stay as they are.
    """
    if (genotype is None) == (preset is None):
        raise InputError("expected exactly one of --genotype and --preset")
    if preset is not None:
        config = network(preset)
    else:
        config = model_lib.read_genotype(genotype)
        if backbone_weights and os.path.isdir(backbone_weights):
            trained = model_lib.read_config(backbone_weights).network.backbone
            config = dataclasses.replace(config, backbone=trained)
    own = {field.name for field in dataclasses.fields(config)}
    of_backbone = {field.name for field in dataclasses.fields(BackboneConfig)}
    given = {name: value for name, value in overrides.items() if value is not None}
    for name in given:
        if name not in own | of_backbone:
            raise InputError(f"{name}: a network of kind {config.KIND!r} has no such field")
    backbone = dataclasses.replace(config.backbone, **{k: v for k, v in given.items() if k in of_backbone})
    config = dataclasses.replace(config, backbone=backbone, **{k: v for k, v in given.items() if k in own})
    return ModelConfig(num_classes, config)
