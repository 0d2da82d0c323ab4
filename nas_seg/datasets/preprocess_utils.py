"""Picture operations of the input pipeline, as TensorFlow ops: align-corners resizing, padding, random draws.

Corners are aligned throughout (DeepLab's convention): pixel i of an axis scaled from n to m samples stands at
i * (n - 1) / (m - 1) of the original, so the first and the last pixels keep their places. Random draws are stateless:
equal seeds give equal results.
"""

from __future__ import annotations

import tensorflow as tf

# The colour that padding has: gray, which the models' normalisation maps to 0.
MEAN_PIXEL = (127.5, 127.5, 127.5)

Size = tuple[int, int] | tf.Tensor


def resize_image(image: tf.Tensor, size: Size) -> tf.Tensor:
    """Bilinear resize of [H, W, C] to `size` (height, width), corners aligned; float32."""
    # The op itself: tf.compat.v1.image.resize_bilinear is the same with a notice on every use.
    return tf.raw_ops.ResizeBilinear(images=image[None], size=size, align_corners=True)[0]


def resize_label(label: tf.Tensor, size: Size) -> tf.Tensor:
    """Nearest-neighbour resize of [H, W] to `size`, corners aligned; the type stays."""
    resized = tf.raw_ops.ResizeNearestNeighbor(images=label[None, ..., None], size=size, align_corners=True)
    return resized[0, ..., 0]


def random_scale(seed: tf.Tensor, minimum: float, maximum: float, step: float) -> tf.Tensor:
    """Draws a scale from minimum, minimum + step, ..., maximum; from the whole range if `step` is 0. Scalar float32."""
    if minimum == maximum:
        return tf.constant(minimum, tf.float32)
    if step == 0:
        return tf.random.stateless_uniform([], seed, minimum, maximum)
    scales = tf.linspace(float(minimum), float(maximum), int((maximum - minimum) / step + 1))
    return tf.gather(tf.cast(scales, tf.float32), tf.random.stateless_uniform([], seed, 0, scales.shape[0], tf.int32))


def scaled_size(size: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """The size of a scaled picture, int32 [2]: trunc(size * scale), at least one pixel."""
    return tf.maximum(tf.cast(tf.cast(size, tf.float32) * scale, tf.int32), 1)


def random_offset(seed: tf.Tensor, size: tf.Tensor, crop_size: Size) -> tf.Tensor:
    """Draws where a crop begins in a picture of `size`, int32 [2]; 0 along an axis that the crop covers whole."""
    room = tf.maximum(size - crop_size, 0)
    return tf.random.stateless_uniform([2], seed, maxval=tf.int32.max, minval=0, dtype=tf.int32) % (room + 1)


def crop_scaled_image(
    image: tf.Tensor, size: tf.Tensor, offset: tf.Tensor, crop: tf.Tensor, flip: tf.Tensor | bool = False
) -> tf.Tensor:
    """What `resize_image(image, size)[offset : offset + crop]` is, computing the crop alone.

    Args:
        image: [H, W, C].
        size: int32 [2], the scaled picture, which is never made.
        offset: int32 [2], where the crop begins in it.
        crop: int32 [2], with offset + crop <= size.
        flip: boolean, mirror the crop left to right.

    Returns:
        float32 [*crop, C], equal to the crop of the scaled picture up to float32 rounding.
    """
    channels = image.shape[-1]
    top, bottom, down = _neighbours(tf.shape(image)[0], size[0], offset[0], crop[0])
    left, right, across = (_mirror(axis, flip) for axis in _neighbours(tf.shape(image)[1], size[1], offset[1], crop[1]))
    first_row, first_column = top[0], tf.reduce_min(left)
    window = image[first_row : bottom[-1] + 1, first_column : tf.reduce_max(right) + 1]
    height, width = tf.shape(window)[0], tf.shape(window)[1]
    # A gather of single pixels takes as long as all the rest. With columns as rows, and channels among them, what is
    # gathered are whole rows, of bytes as long as possible.
    columns = tf.transpose(tf.reshape(window, [height, width * channels]))
    left, right = (
        tf.gather(columns, tf.reshape((at - first_column)[:, None] * channels + tf.range(channels), [-1]))
        for at in (left, right)
    )
    across = tf.repeat(across, channels)[:, None]
    mixed = tf.transpose(_mix(tf.cast(left, tf.float32), tf.cast(right, tf.float32), across))
    rows = _mix(tf.gather(mixed, top - first_row), tf.gather(mixed, bottom - first_row), down[:, None])
    return tf.reshape(rows, [crop[0], crop[1], channels])


def crop_scaled_label(
    label: tf.Tensor, size: tf.Tensor, offset: tf.Tensor, crop: tf.Tensor, flip: tf.Tensor | bool = False
) -> tf.Tensor:
    """What `resize_label(label, size)[offset : offset + crop]` is, computing the crop alone; as for the image."""
    # Half is rounded up, as the nearest-neighbour resize does.
    rows = tf.floor(_positions(tf.shape(label)[0], size[0], offset[0], crop[0]) + 0.5)
    columns = _mirror(tf.floor(_positions(tf.shape(label)[1], size[1], offset[1], crop[1]) + 0.5), flip)
    picked = tf.gather(label, tf.cast(rows, tf.int32))
    return tf.transpose(tf.gather(tf.transpose(picked), tf.cast(columns, tf.int32)))


def pad_to(
    picture: tf.Tensor,
    size: tuple[int, int],
    value: float | int | tuple[float, ...],
    flipped: tf.Tensor | bool = False,
) -> tf.Tensor:
    """Pads [H, W] or [H, W, C] to `size` with `value`, or with one for each channel.

    At the bottom and on the right; on the left where the picture is `flipped`, as padding before would have given.
    """
    across = size[1] - tf.shape(picture)[1]
    room = [[0, size[0] - tf.shape(picture)[0]], tf.where(flipped, [across, 0], [0, across])]
    room += [[0, 0]] * (picture.shape.rank - 2)
    values = value if isinstance(value, tuple) else (value,)
    if len(set(values)) == 1:
        # One pass over the picture in place of three.
        padded = tf.pad(picture, room, constant_values=tf.cast(values[0], picture.dtype))
    else:
        inside = tf.pad(tf.ones_like(picture, tf.bool), room)
        padded = tf.where(inside, tf.pad(picture, room), tf.cast(value, picture.dtype))
    return tf.ensure_shape(padded, [*size, *picture.shape[2:]])


def draw_flip(seed: tf.Tensor) -> tf.Tensor:
    """Draws whether to mirror a picture, scalar boolean: with probability one half."""
    return tf.random.stateless_uniform([], seed) < 0.5


def _mirror(axis: tf.Tensor, flip: tf.Tensor | bool) -> tf.Tensor:
    return tf.where(flip, tf.reverse(axis, [0]), axis)


def _positions(count: tf.Tensor, scaled: tf.Tensor, offset: tf.Tensor, crop: tf.Tensor) -> tf.Tensor:
    """Places in an axis of `count` pixels that samples offset .. offset + crop - 1 of its scaled form stand at."""
    last, steps = tf.cast(count - 1, tf.float32), tf.cast(scaled - 1, tf.float32)
    # An axis scaled to one sample keeps its first pixel.
    return tf.minimum(tf.cast(tf.range(crop) + offset, tf.float32) * tf.math.divide_no_nan(last, steps), last)


def _neighbours(
    count: tf.Tensor, scaled: tf.Tensor, offset: tf.Tensor, crop: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    positions = _positions(count, scaled, offset, crop)
    low = tf.floor(positions)
    index = tf.cast(low, tf.int32)
    return index, tf.minimum(index + 1, count - 1), positions - low


def _mix(first: tf.Tensor, second: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    return first + (second - first) * weight
