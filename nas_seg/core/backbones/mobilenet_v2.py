"""MobileNet-v2 (Sandler et al., 2018) at any output stride, as slim builds it for DeepLab.

The last layer is the 320-channel projection; the 1280-channel convolution of the classifier is not built.
Layers are named after slim's scopes: `Conv`, then `expanded_conv[_1 .. _16]_{expand,depthwise,project}`.
"""

from __future__ import annotations

from collections.abc import Iterator

import keras

from nas_seg.core.conv import ConvNorm, truncated_normal

# (filters, stride, expansion, repeats): Table 2 of the paper, without its last two rows.
BLOCKS = ((16, 1, 1, 1), (24, 2, 6, 2), (32, 2, 6, 3), (64, 2, 6, 4), (96, 1, 6, 3), (160, 2, 6, 3), (320, 1, 6, 1))
_STEM_FILTERS = 32
# slim's batch_norm decay for this network, and slim's default epsilon.
_NORM = {"momentum": 0.997, "epsilon": 1e-3}


def build_mobilenet_v2(output_stride: int, depth_multiplier: float, divisible_by: int | None) -> keras.Model:
    """Images normalised to [-1, 1], [B, H, W, 3], to features [B, H / output_stride, W / output_stride, C].

    Args:
        output_stride: 8, 16 or 32. From the layer on where this stride is reached strides become rates.
        depth_multiplier: scales the channels of every layer.
        divisible_by: channels are rounded to multiples of it. None: 8 at depth multiplier 1, else 1, as
            DeepLab does; keras.applications' weights for other multipliers need 8.
    """
    divisor = divisible_by or (8 if depth_multiplier == 1.0 else 1)
    images = keras.Input((None, None, 3), name="images")
    x = _conv(make_divisible(_STEM_FILTERS * depth_multiplier, divisor), 3, 2, 1, "relu6", "Conv")(images)
    for name, filters, expansion, stride, rate in _plan(output_stride):
        x = _inverted_residual(x, name, make_divisible(filters * depth_multiplier, divisor), expansion, stride, rate)
    return keras.Model(images, x, name="backbone")


def _plan(output_stride: int) -> Iterator[tuple[str, int, int, int, int]]:
    """Yields (name, filters, expansion, stride, rate) of each block after atrous conversion."""
    stride, rate, index = 2, 1, 0
    for filters, first_stride, expansion, repeats in BLOCKS:
        for repeat in range(repeats):
            own = first_stride if repeat == 0 else 1
            name = f"expanded_conv_{index}" if index else "expanded_conv"
            if stride == output_stride:
                # The unit that would stride keeps the present rate; those after it see a rate grown by it.
                yield name, filters, expansion, 1, rate
                rate *= own
            else:
                yield name, filters, expansion, own, 1
                stride *= own
            index += 1


def _inverted_residual(x, name: str, filters: int, expansion: int, stride: int, rate: int):
    inputs, depth = x, x.shape[-1]
    if expansion > 1:
        x = _conv(make_divisible(depth * expansion, 8), 1, 1, 1, "relu6", f"{name}_expand")(x)
    x = _conv(None, 3, stride, rate, "relu6", f"{name}_depthwise")(x)
    x = _conv(filters, 1, 1, 1, None, f"{name}_project")(x)
    # Where atrous conversion took the stride of a block its depth still changes, so no residual appears.
    return keras.layers.Add(name=f"{name}_add")([inputs, x]) if stride == 1 and depth == filters else x


def _conv(filters, kernel_size, strides, rate, activation, name) -> ConvNorm:
    initializer = truncated_normal(0.09)
    return ConvNorm(filters, kernel_size, strides, rate, activation, initializer=initializer, name=name, **_NORM)


def make_divisible(value: float, divisor: int) -> int:
    """Rounds channels to a multiple of `divisor`, never down by more than a tenth (slim)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
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
