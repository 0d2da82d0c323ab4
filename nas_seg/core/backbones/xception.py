"""Xception-41, 65 and 71 (Chollet, 2017) as DeepLabv3+ changed them: deeper, strided depthwise convolutions in place
of pooling, batch normalisation after every convolution (Chen et al., 2018, section 3.2 and figure 4).

A unit is three separable convolutions, ReLU -> depthwise -> BN -> pointwise -> BN, the third with the stride, and a
shortcut from the unit's bare input. The last block has its activations after the convolutions and no shortcut.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import keras

from nas_seg.core.backbones.atrous import atrous_plan
from nas_seg.core.conv import ConvNorm, truncated_normal

# (depth, stride) of the entry flow's blocks.
_ENTRY = ((128, 2), (256, 2), (728, 2))
_ENTRY_71 = ((128, 2), (256, 1), (256, 2), (728, 1), (728, 2))
# Name -> entry flow, units of the middle flow.
NETWORKS = {"xception_41": (_ENTRY, 8), "xception_65": (_ENTRY, 16), "xception_71": (_ENTRY_71, 16)}
_ROOT_STRIDE = 2
_NORM = {"momentum": 0.9997, "epsilon": 1e-3}


class _Unit(NamedTuple):
    scope: str
    depths: tuple[int, int, int]
    shortcut: str
    stride: int


def features(
    name: str, images, output_stride: int, multi_grid: tuple[int, int, int] | None, use_bounded_activation: bool
):
    """Images normalised to [-1, 1], [B, H, W, 3], to features [B, H / output_stride, W / output_stride, 2048].

    Args:
        name: a key of `NETWORKS`.
        images: a tensor of a graph.
        output_stride: from the unit on where this stride is reached strides become rates.
        multi_grid: rates of the last unit's three convolutions, on top of the rate that the stride asks for.
        use_bounded_activation: ReLU6, and everything that has no activation cut to [-6, 6], which lends itself
            to quantisation; strided units are then padded TensorFlow's way (SAME).
    """
    relu = "relu6" if use_bounded_activation else "relu"
    x = _conv("entry_flow/conv1_1", 32, 3, _ROOT_STRIDE, activation=relu)(images)
    x = _conv("entry_flow/conv1_2", 64, 3, activation=relu)(x)
    units = list(_units(name))
    plan = atrous_plan((unit.stride for unit in units), output_stride // _ROOT_STRIDE)
    for unit, (stride, rate) in zip(units, plan, strict=True):
        grid = (multi_grid or (1, 1, 1)) if unit.shortcut == "none" else (1, 1, 1)
        x = _unit(x, unit, stride, [rate * r for r in grid], use_bounded_activation)
    return x


def low_level(name: str) -> dict[int, str]:
    """Stride -> scope of the convolution whose output DeepLabv3+'s decoder takes; before the next activation."""
    blocks = {4: "entry_flow/block2", 8: "entry_flow/block3", 16: "exit_flow/block1"}
    if name == "xception_71":
        blocks |= {4: "entry_flow/block3", 8: "entry_flow/block5"}
    return {stride: f"{block}/unit_1/xception_module/separable_conv2_pointwise" for stride, block in blocks.items()}


def scopes(name: str) -> list[str]:
    """Scopes of the network's convolutions in TF1 checkpoints, below the network's name."""
    names = ["entry_flow/conv1_1", "entry_flow/conv1_2"]
    for unit in _units(name):
        names += [f"{unit.scope}/separable_conv{i}_{part}" for i in (1, 2, 3) for part in ("depthwise", "pointwise")]
        if unit.shortcut == "conv":
            names.append(f"{unit.scope}/shortcut")
    return names


def _units(name: str) -> Iterator[_Unit]:
    entry, middle = NETWORKS[name]
    for block, (depth, stride) in enumerate(entry, start=1):
        yield _Unit(f"entry_flow/block{block}/unit_1/xception_module", (depth,) * 3, "conv", stride)
    for unit in range(1, middle + 1):
        yield _Unit(f"middle_flow/block1/unit_{unit}/xception_module", (728,) * 3, "sum", 1)
    yield _Unit("exit_flow/block1/unit_1/xception_module", (728, 1024, 1024), "conv", 2)
    yield _Unit("exit_flow/block2/unit_1/xception_module", (1536, 1536, 2048), "none", 1)


def _unit(x, unit: _Unit, stride: int, rates: list[int], bounded: bool):
    inputs, relu, prefix = x, "relu6" if bounded else "relu", unit.scope.replace("/", "_")
    activation_inside = unit.shortcut == "none"
    after = relu if activation_inside else "clip6" if bounded else None
    shared = {"activation": after, "explicit_padding": not bounded}
    for i, (depth, rate) in enumerate(zip(unit.depths, rates, strict=True), start=1):
        if not activation_inside:
            x = keras.layers.Activation(relu, name=f"{prefix}_relu{i}")(x)
        strides = stride if i == len(unit.depths) else 1
        x = _conv(f"{unit.scope}/separable_conv{i}_depthwise", None, 3, strides, rate, **shared)(x)
        x = _conv(f"{unit.scope}/separable_conv{i}_pointwise", depth, **shared)(x)
    if unit.shortcut == "none":
        return x
    if unit.shortcut == "conv":
        # Only cut to [-6, 6] where activations are bounded: what goes into a sum is never rectified.
        inputs = _conv(f"{unit.scope}/shortcut", unit.depths[-1], 1, stride, activation=after)(inputs)
    x = keras.layers.Add(name=f"{prefix}_add")([inputs, x])
    return keras.layers.Activation(relu, name=f"{prefix}_relu")(x) if bounded else x


def _conv(scope, filters, kernel_size=1, strides=1, rate=1, activation=None, explicit_padding=True) -> ConvNorm:
    return ConvNorm(
        filters,
        kernel_size,
        strides,
        rate,
        activation,
        initializer=truncated_normal(0.09),
        explicit_padding=explicit_padding,
        name=scope.replace("/", "_"),
        **_NORM,
    )
