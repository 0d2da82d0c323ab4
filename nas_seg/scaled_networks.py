"""A network at other scales of the picture: what of it depends on the size, and which sizes it can take."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras

from nas_seg import eval as evaluation
from nas_seg import model as model_lib
from nas_seg.auto_deeplab.genotype import FINEST_STRIDE
from nas_seg.auto_deeplab.network import AutoDeepLabBackbone
from nas_seg.core.encoder_decoder import scaled
from nas_seg.inference_config import InferenceConfig
from nas_seg.model import ModelConfig
from nas_seg.utils.errors import InputError

# Fields of a network's configuration that are sizes in input pixels.
_SIZES = ("crop_size", "pooling_crop_size")


def predictor(model: keras.Model, config: ModelConfig, inference: InferenceConfig) -> Callable[[Any], Any]:
    """`nas_seg.eval.predictor` of a network built from `config`, with those that it is at other scales.

    Raises:
        InputError: for a crop that at some scale has a size which the network cannot take.
    """
    check_sizes(config, inference)
    return evaluation.predictor(model, inference, variants(model, config, inference))


def variants(model: keras.Model, config: ModelConfig, inference: InferenceConfig) -> dict[float, keras.Model]:
    """Scale -> network with the weights of `model`, for the scales at which it is not `model` itself.

    As in DeepLab's model.py (multi_scale_logits) pooling windows that are fixed in pixels are scaled with the
    picture, and several scales take the place of those of an image pyramid.
    """
    if inference.eval_scales == (1.0,):
        return {}
    found = {scale: _variant(config, scale) for scale in inference.eval_scales}
    return {scale: _twin(model, config, other) for scale, other in found.items() if other != config}


def _variant(config: ModelConfig, scale: float) -> ModelConfig:
    network, own = config.network, {field.name for field in dataclasses.fields(config.network)}
    changes = {name: scaled(getattr(network, name), scale) for name in _SIZES if name in own}
    if "image_pyramid" in own:
        changes["image_pyramid"] = ()
    return dataclasses.replace(config, network=dataclasses.replace(network, **changes))


def _twin(model: keras.Model, config: ModelConfig, other: ModelConfig) -> keras.Model:
    twin, weights = model_lib.build(other), model_lib.tf1_names(model, config)
    for name, variable in model_lib.tf1_names(twin, other).items():
        variable.assign(weights[name])
    return twin


def check_sizes(config: ModelConfig, inference: InferenceConfig) -> None:
    """InputError for a crop size that at some scale is none that the network can take.

    A network that a search has found goes down and up again between strides, and its maps meet only on pictures of
    k * stride + 1 pixels of its coarsest stride.
    """
    backbone = config.network.backbone
    if inference.crop_size is None or not isinstance(backbone, AutoDeepLabBackbone):
        return
    stride = FINEST_STRIDE * 2 ** max(backbone.scale(level) for level in backbone.genotype.path)
    for scale in inference.eval_scales:
        size = scaled(inference.crop_size, scale)
        if any(side % stride != 1 for side in size):
            crop = ",".join(map(str, inference.crop_size))
            raise InputError(
                f"eval_scales: expected sizes of k * {stride} + 1 pixels for {backbone.name}, scale {scale:g} of the "
                f"crop {crop} is {size[0]} x {size[1]}; without a crop size every scale is padded to such a one"
            )
