"""ResNet-v1-50 and 101 (He et al., 2015) as DeepLabv3 uses them.

The stride of a block is in its last unit, in the 3x3 convolution. The "beta" networks have three 3x3 convolutions in
place of the first 7x7 one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import keras

from nas_seg.core.backbones.atrous import atrous_plan
from nas_seg.core.conv import ConvNorm

# Units of blocks 1 to 4 by depth of the network (table 1 of the paper).
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
# (name, filters, kernel, stride) of the convolutions before the pooling.
_STEM = (("conv1", 64, 7, 2),)
_STEM_BETA = (("conv1_1", 64, 3, 2), ("conv1_2", 64, 3, 1), ("conv1_3", 128, 3, 1))
_ROOT_STRIDE = 4
# DeepLab's decay for these networks; the epsilon is the paper's implementation's.
_NORM = {"momentum": 0.95, "epsilon": 1e-5}


class _Unit(NamedTuple):
    scope: str
    filters: int
    stride: int
    rate: int


def features(depth: int, beta: bool, images, output_stride: int, multi_grid: tuple[int, int, int] | None):
    """Normalised images [B, H, W, 3] to features [B, H / output_stride, W / output_stride, 2048].

    Args:
        depth: a key of `BLOCKS`.
        beta: three 3x3 convolutions at the beginning, else one of 7x7.
        images: a tensor of a graph.
        output_stride: from the unit on where this stride is reached strides become rates.
        multi_grid: rates of the last block's three units, on top of the rate that the stride asks for; DeepLab's
            ImageNet checkpoints are meant for (1, 2, 4).
    """
    x = images
    for name, filters, kernel_size, strides in _STEM_BETA if beta else _STEM:
        x = _conv(name, filters, kernel_size, strides)(x)
    x = keras.layers.MaxPooling2D(3, 2, padding="same", name="pool1")(x)
    units = list(_units(depth, multi_grid or (1, 1, 1)))
    plan = atrous_plan((unit.stride for unit in units), output_stride // _ROOT_STRIDE)
    for unit, (stride, rate) in zip(units, plan, strict=True):
        x = _bottleneck(x, unit, stride, rate * unit.rate)
    return x


def low_level(depth: int) -> dict[int, str]:
    """Stride -> scope of the convolution whose output DeepLab's decoder takes.

    It is the last convolution, before the sum, of the last unit of a block that still has the block's stride (the
    table in DeepLab's feature extractor).
    """
    units = BLOCKS[depth]
    return {4 * 2**i: f"block{i + 1}/unit_{units[i] - 1}/bottleneck_v1/conv3" for i in range(3)}


def scopes(depth: int, beta: bool) -> list[str]:
    """Scopes of the network's convolutions in TF1 checkpoints, below the network's name without "_beta"."""
    names = [name for name, *_ in (_STEM_BETA if beta else _STEM)]
    for unit in _units(depth, (1, 1, 1)):
        # The first unit of a block changes the depth, so its shortcut is a convolution.
        parts = ("shortcut",) if "/unit_1/" in unit.scope else ()
        names += [f"{unit.scope}/{part}" for part in (*parts, "conv1", "conv2", "conv3")]
    return names


def _units(depth: int, multi_grid: tuple[int, int, int]) -> Iterator[_Unit]:
    last = len(BLOCKS[depth])
    for block, count in enumerate(BLOCKS[depth], start=1):
        for unit in range(1, count + 1):
            stride = 2 if unit == count and block < last else 1
            rate = multi_grid[unit - 1] if block == last else 1
            yield _Unit(f"block{block}/unit_{unit}/bottleneck_v1", 32 * 2**block, stride, rate)


def _bottleneck(inputs, unit: _Unit, stride: int, rate: int):
    prefix, depth = unit.scope.replace("/", "_"), 4 * unit.filters
    if inputs.shape[-1] != depth:
        shortcut = _conv(f"{unit.scope}/shortcut", depth, 1, stride, activation=None)(inputs)
    elif stride > 1:
        shortcut = keras.layers.MaxPooling2D(1, stride, name=f"{prefix}_subsample")(inputs)
    else:
        shortcut = inputs
    x = _conv(f"{unit.scope}/conv1", unit.filters)(inputs)
    x = _conv(f"{unit.scope}/conv2", unit.filters, 3, stride, rate)(x)
    x = _conv(f"{unit.scope}/conv3", depth, activation=None)(x)
    x = keras.layers.Add(name=f"{prefix}_add")([shortcut, x])
    return keras.layers.Activation("relu", name=f"{prefix}_relu")(x)


def _conv(scope, filters, kernel_size=1, strides=1, rate=1, activation="relu") -> ConvNorm:
    return ConvNorm(
        filters,
        kernel_size,
        strides,
        rate,
        activation,
        initializer="he_normal",
        explicit_padding=True,
        name=scope.replace("/", "_"),
        **_NORM,
    )
