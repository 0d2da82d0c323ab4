"""The recorded networks' weights by the names that they were recorded under, PyTorch's, in PyTorch's layout."""

from __future__ import annotations

import re
from collections.abc import Mapping

import keras
import numpy as np

from nas_seg.core.conv import BatchNorm, ConvNorm
from nas_seg.template.ops import (
    ChannelWeightedSum,
    ProjectedGlobalPool,
    ProjectedMaxPool,
    RepeatedSeparableConv,
)

# Axes of a PyTorch kernel in the order of ours: [out, in, h, w] and, depthwise, [channels, 1, h, w].
_FULL, _DEPTHWISE = (2, 3, 1, 0), (2, 3, 0, 1)
# A buffer of PyTorch's batch normalisation that no output depends on.
_COUNTER = "num_batches_tracked"
# (stage, unit) of each inverted residual, and the places of its three convolutions in a unit.
_UNITS = ((2, 0), (3, 0), (3, 1), (4, 0), (4, 1), (4, 2))
_PARTS = {"expand": 0, "depthwise": 3, "project": 6}


def assign(model: keras.Model, arrays: Mapping[str, np.ndarray]) -> None:
    """Fills a model of `nas_seg.template.network.build_network` with recorded weights, all of them and no others."""
    table = names(model)
    recorded = {name for name in arrays if not name.endswith(_COUNTER)}
    if recorded != set(table):
        raise ValueError(f"other weights: missing {set(table) - recorded}, unknown {recorded - set(table)}")
    for name, (variable, axes) in table.items():
        variable.assign(np.transpose(arrays[name], axes) if axes else arrays[name])


def names(model: keras.Model) -> dict:
    """Recorded name -> (variable, axes that bring the recorded array into its layout), of every weight of a model."""
    table = {}
    for layer in model.get_layer("backbone").layers:
        if isinstance(layer, ConvNorm):
            table |= conv_norm(layer, *_encoder_places(layer.name))
    for layer in model.layers:
        place = re.fullmatch(r"layer(\d+)_application(\d+)_(\w+)", layer.name)
        if place:
            number, application, what = place.groups()
            slot = 3 * int(application) + {"op1": 0, "op2": 1}.get(what, 2)
            table |= layer_names(layer, f"decoder._ops.{number}.{slot}.", what)
    table |= conv_norm(model.get_layer("before_logits"), "decoder.pre_clf.0", "decoder.pre_clf.1")
    logits = model.get_layer("logits")
    table |= {"decoder.conv_clf.weight": (logits.kernel, _FULL), "decoder.conv_clf.bias": (logits.bias, None)}
    return table


def layer_names(layer: keras.layers.Layer, prefix: str, what: str) -> dict:
    """The names below `prefix` of one layer of the decoder; `what` is the end of its name."""
    if isinstance(layer, RepeatedSeparableConv):
        table = {}
        for i, (depthwise, pointwise) in enumerate(zip(layer.depthwise, layer.pointwise, strict=True)):
            table[f"{prefix}op.sep_{i}.0.weight"] = (depthwise.kernel, _DEPTHWISE)
            table |= conv_norm(pointwise, f"{prefix}op.sep_{i}.1", f"{prefix}op.sep_{i}.2")
        return table
    if isinstance(layer, (ProjectedMaxPool, ProjectedGlobalPool)):
        return conv_norm(layer.projection, f"{prefix}conv1x1.0", f"{prefix}conv1x1.1")
    if isinstance(layer, ChannelWeightedSum):
        return {f"{prefix}a": (layer.a, None), f"{prefix}b": (layer.b, None)}
    if isinstance(layer, ConvNorm):
        branch = int(what.removeprefix("adapt")) - 1
        return conv_norm(layer, f"{prefix}adapt.conv{branch}.0", f"{prefix}adapt.conv{branch}.1")
    if isinstance(layer, BatchNorm):
        return _norm(layer, f"{prefix}conv1x1.0")
    if isinstance(layer, keras.layers.Conv2D):
        return {f"{prefix}conv1x1.2.weight": (layer.kernel, _FULL)}
    return {}


def conv_norm(layer: ConvNorm, conv: str, norm: str) -> dict:
    """The names of a convolution and its batch normalisation."""
    axes = _DEPTHWISE if layer.filters is None else _FULL
    return {f"{conv}.weight": (layer.conv.kernel, axes)} | _norm(layer.norm, norm)


def _norm(layer: BatchNorm, name: str) -> dict:
    return {
        f"{name}.weight": (layer.gamma, None),
        f"{name}.bias": (layer.beta, None),
        f"{name}.running_mean": (layer.moving_mean, None),
        f"{name}.running_var": (layer.moving_variance, None),
    }


def _encoder_places(name: str) -> tuple[str, str]:
    if name == "Conv":
        return "encoder.layer1.0", "encoder.layer1.1"
    index, part = re.fullmatch(r"expanded_conv(?:_(\d+))?_(\w+)", name).groups()
    stage, unit = _UNITS[int(index or 0)]
    place = f"encoder.layer{stage}.{unit}.conv."
    return f"{place}{_PARTS[part]}", f"{place}{_PARTS[part] + 1}"


def random_arrays(model: keras.Model, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights drawn as those of the recorded networks were, by name and in PyTorch's layout."""
    random, arrays = np.random.default_rng(seed), {}
    for name, (variable, axes) in names(model).items():
        shape, leaf = tuple(variable.shape), name.rsplit(".", 1)[-1]
        if axes:
            fan_in = np.prod(shape[:2] if axes == _DEPTHWISE else shape[:3])
            value = np.transpose(random.normal(0.0, np.sqrt(2.0 / fan_in), shape), np.argsort(axes))
        elif leaf in ("weight", "running_var", "a", "b"):
            value = random.uniform(0.5, 1.5, shape)
        else:
            value = random.normal(0.0, 0.1, shape)
        arrays[name] = value.astype(np.float32)
    return arrays
