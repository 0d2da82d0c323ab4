"""TF1 variable names of DeepLab's checkpoints -> our Keras variables.

A table maps names to variables; each backbone and each family's network.py makes its own with the rows below.
"""

from __future__ import annotations

import keras

from nas_seg.core.conv import ConvNorm, SplitSeparableConv
from nas_seg.core.pyramid_pooling import PyramidPooling
from nas_seg.utils.errors import InputError


def names_of(layer: keras.layers.Layer, scope: str) -> dict:
    """TF1 name -> variable of one building block under a TF1 scope such as "meta_architecture/branch0"."""
    if isinstance(layer, SplitSeparableConv):
        return names_of(layer.depthwise, f"{scope}_depthwise") | names_of(layer.pointwise, f"{scope}_pointwise")
    if isinstance(layer, PyramidPooling):
        return names_of(layer.conv, scope)
    if isinstance(layer, ConvNorm):
        kernel = "depthwise_weights" if layer.filters is None else "weights"
        norm = {
            "gamma": layer.norm.gamma,
            "beta": layer.norm.beta,
            "moving_mean": layer.norm.moving_mean,
            "moving_variance": layer.norm.moving_variance,
        }
        return {f"{scope}/{kernel}": layer.conv.kernel} | {f"{scope}/BatchNorm/{k}": v for k, v in norm.items()}
    if isinstance(layer, keras.layers.Conv2D):
        return {f"{scope}/weights": layer.kernel, f"{scope}/biases": layer.bias}
    raise TypeError(f"{type(layer).__name__} has no TF1 names")


def assign(names: dict, arrays: dict) -> None:
    """Fills every variable of a table from arrays by TF1 name.

    Raises:
        InputError: naming the variable that is missing or has another shape. Nothing is changed then.
    """
    for name, variable in names.items():
        if name not in arrays:
            raise InputError(f"{name}: expected in the checkpoint, found none")
        if tuple(arrays[name].shape) != tuple(variable.shape):
            raise InputError(f"{name}: expected shape {tuple(variable.shape)}, received {tuple(arrays[name].shape)}")
    for name, variable in names.items():
        variable.assign(arrays[name])
