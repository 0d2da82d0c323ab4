"""MobileNet-v2 (Sandler et al., 2018) at any output stride, as slim builds it for DeepLab.

The last layer is the 320-channel projection; the 1280-channel convolution of the classifier is not built. Strided
convolutions are padded TensorFlow's way (SAME), unlike those of the other networks.
"""

from __future__ import annotations

from collections.abc import Iterator

import keras

from nas_seg.core.backbones.atrous import atrous_plan
from nas_seg.core.conv import ConvNorm, truncated_normal

# (filters, stride, expansion, repeats): Table 2 of the paper, without its last two rows.
BLOCKS = ((16, 1, 1, 1), (24, 2, 6, 2), (32, 2, 6, 3), (64, 2, 6, 4), (96, 1, 6, 3), (160, 2, 6, 3), (320, 1, 6, 1))
_STEM_FILTERS, _STEM_STRIDE = 32, 2
# Expanded features, after their activation, of slim's layers 4, 7 and 14.
LOW_LEVEL = {4: "expanded_conv_2/depthwise", 8: "expanded_conv_5/depthwise", 16: "expanded_conv_12/depthwise"}
# slim's batch_norm decay for this network, and slim's default epsilon.
_NORM = {"momentum": 0.997, "epsilon": 1e-3}


def features(images, output_stride: int, depth_multiplier: float = 1.0, divisible_by: int | None = None):
    """Images normalised to [-1, 1], [B, H, W, 3], to features [B, H / output_stride, W / output_stride, C].

    Args:
        images: a tensor of a graph.
        output_stride: from the layer on where this stride is reached strides become rates.
        depth_multiplier: scales the channels of every layer.
        divisible_by: channels are rounded to multiples of it. None: 8 at depth multiplier 1, else 1, as
            DeepLab does; keras.applications' weights for other multipliers need 8.
    """
    full = depth_multiplier == 1.0
    divisor = divisible_by or (8 if full else 1)

    def scaled(filters: int) -> int:
        # slim's min_depth: 8, and 1 for other depth multipliers, whatever the divisor.
        return make_divisible(filters * depth_multiplier, divisor, 8 if full else 1)

    x = _conv(scaled(_STEM_FILTERS), 3, _STEM_STRIDE, 1, "relu6", "Conv")(images)
    units = list(_units())
    plan = atrous_plan((own for _, _, _, own in units), output_stride // _STEM_STRIDE)
    for (scope, filters, expansion, _), (stride, rate) in zip(units, plan, strict=True):
        x = _inverted_residual(x, scope, scaled(filters), expansion, stride, rate)
    return x


def scopes() -> list[str]:
    """Scopes of the network's convolutions in TF1 checkpoints, below "MobilenetV2"."""
    names = ["Conv"]
    for scope, _, expansion, _ in _units():
        parts = ("expand", "depthwise", "project") if expansion > 1 else ("depthwise", "project")
        names += [f"{scope}/{part}" for part in parts]
    return names


def _units() -> Iterator[tuple[str, int, int, int]]:
    """Yields (scope, filters, expansion, stride) of each inverted residual."""
    index = 0
    for filters, first_stride, expansion, repeats in BLOCKS:
        for repeat in range(repeats):
            scope = f"expanded_conv_{index}" if index else "expanded_conv"
            yield scope, filters, expansion, 1 if repeat else first_stride
            index += 1


def _inverted_residual(x, scope: str, filters: int, expansion: int, stride: int, rate: int):
    inputs, depth = x, x.shape[-1]
    if expansion > 1:
        x = _conv(make_divisible(depth * expansion, 8), 1, 1, 1, "relu6", f"{scope}_expand")(x)
    x = _conv(None, 3, stride, rate, "relu6", f"{scope}_depthwise")(x)
    x = _conv(filters, 1, 1, 1, None, f"{scope}_project")(x)
    return keras.layers.Add(name=f"{scope}_add")([inputs, x]) if stride == 1 and depth == filters else x


def _conv(filters, kernel_size, strides, rate, activation, name) -> ConvNorm:
    initializer = truncated_normal(0.09)
    return ConvNorm(filters, kernel_size, strides, rate, activation, initializer=initializer, name=name, **_NORM)


def make_divisible(value: float, divisor: int, minimum: int | None = None) -> int:
    """Rounds channels to a multiple of `divisor`, to `minimum` (or the divisor) at least, never down by more than a
    tenth (slim)."""
    rounded = max(minimum or divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def applications_names() -> dict[str, tuple[str, str]]:
    """Our layer name -> (convolution, batch norm) layer names of keras.applications.MobileNetV2."""
    names = {"Conv": ("Conv1", "bn_Conv1")}
    for index in range(sum(block[3] for block in BLOCKS)):
        ours = f"expanded_conv_{index}" if index else "expanded_conv"
        theirs = f"block_{index}" if index else "expanded_conv"
        parts = ("expand", "depthwise", "project") if index else ("depthwise", "project")
        names |= {f"{ours}_{part}": (f"{theirs}_{part}", f"{theirs}_{part}_BN") for part in parts}
    return names
