"""DeepLab's augmentation as one stateless function: random scale, pad, random crop, random flip.

In the original order the whole picture is scaled and then cropped. Here the scale and the crop are drawn first and only
the crop is computed, from the same pixels with the same weights, mirrored where it is read: the result is the same, the
cost is the crop's.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from nas_seg.datasets import preprocess_utils as ops
from nas_seg.utils.errors import InputError


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What is drawn for a training picture; the defaults are DeepLab's.

    Attributes:
        min_scale_factor: smallest scale.
        max_scale_factor: largest scale.
        scale_factor_step_size: distance between the scales drawn from; 0 draws from the whole range.
        flip: mirror half of the pictures left to right.
        mean_pixel: RGB that a crop is padded with where the picture ends.
    """

    min_scale_factor: float = 0.5
    max_scale_factor: float = 2.0
    scale_factor_step_size: float = 0.25
    flip: bool = True
    mean_pixel: tuple[float, float, float] = ops.MEAN_PIXEL

    def __post_init__(self):
        if not 0 < self.min_scale_factor <= self.max_scale_factor:
            raise InputError(
                "min_scale_factor, max_scale_factor: expected 0 < min <= max, "
                f"received {self.min_scale_factor}, {self.max_scale_factor}"
            )
        if self.scale_factor_step_size < 0:
            raise InputError(f"scale_factor_step_size: expected 0 or more, received {self.scale_factor_step_size}")


def augment(
    image: tf.Tensor,
    label: tf.Tensor,
    seed: tf.Tensor,
    *,
    crop_size: tuple[int, int],
    ignore_label: int,
    augmentation: Augmentation,
    base_size: ops.Size | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws one training crop of a picture.

    Args:
        image: [H, W, 3], 0..255.
        label: [H, W].
        seed: integers [2]; equal seeds draw equal crops.
        crop_size: (height, width) of the result.
        ignore_label: what padding is labelled.
        augmentation: what is drawn.
        base_size: size of the picture at scale 1; None for its own.

    Returns:
        float32 [*crop_size, 3] in 0..255, padded with the mean pixel of `augmentation`, and int32 [*crop_size].
    """
    scale_seed, offset_seed, flip_seed = tf.unstack(tf.random.split(seed, 3))
    scale = ops.random_scale(
        scale_seed,
        augmentation.min_scale_factor,
        augmentation.max_scale_factor,
        augmentation.scale_factor_step_size,
    )
    size = ops.scaled_size(tf.shape(label) if base_size is None else base_size, scale)
    offset = ops.random_offset(offset_seed, size, crop_size)
    crop = tf.minimum(size, crop_size)
    flip = ops.draw_flip(flip_seed) if augmentation.flip else False
    image = ops.crop_scaled_image(image, size, offset, crop, flip)
    label = ops.crop_scaled_label(label, size, offset, crop, flip)
    image = ops.pad_to(image, crop_size, augmentation.mean_pixel, flip)
    label = ops.pad_to(label, crop_size, ignore_label, flip)
    return image, tf.cast(label, tf.int32)


def resize(image: tf.Tensor, label: tf.Tensor, size: tuple[int, int]) -> tuple[tf.Tensor, tf.Tensor]:
    """Resizes a whole picture: float32 [*size, 3] (bilinear) and int32 [*size] (nearest), corners aligned."""
    return ops.resize_image(image, size), tf.cast(ops.resize_label(label, size), tf.int32)
