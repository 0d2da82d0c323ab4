"""The record of one picture: DeepLab's tf.Example schema, key for key, written and read here only.

| key | value |
|---|---|
| image/encoded | JPEG or PNG bytes |
| image/filename | name |
| image/format | "jpeg" or "png" |
| image/height, image/width, image/channels | int64; channels is 3 |
| image/segmentation/class/encoded | PNG bytes, one channel of class indices |
| image/segmentation/class/format | "png" |

A picture without label has none of the last two.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from nas_seg import common
from nas_seg.datasets import pictures
from nas_seg.utils.errors import InputError

ENCODED = "image/encoded"
FILENAME = "image/filename"
FORMAT = "image/format"
HEIGHT = "image/height"
WIDTH = "image/width"
CHANNELS = "image/channels"
LABEL_ENCODED = "image/segmentation/class/encoded"
LABEL_FORMAT = "image/segmentation/class/format"

# Of the keys that are read: the kind of list that holds their one value.
_KINDS = {
    ENCODED: "bytes_list",
    FILENAME: "bytes_list",
    HEIGHT: "int64_list",
    WIDTH: "int64_list",
    LABEL_ENCODED: "bytes_list",
}


class Record(NamedTuple):
    """A decoded record: uint8 RGB [H, W, 3], its label [H, W] or None, and the name of the picture."""

    image: np.ndarray
    label: np.ndarray | None
    name: str


def encode(image: bytes, label: bytes | None, *, name: str, image_format: str, size: tuple[int, int]) -> bytes:
    """Serialises one picture.

    Args:
        image: encoded image.
        label: encoded PNG label of one channel, or None.
        name: what the picture is called.
        image_format: "jpeg" or "png".
        size: (height, width).

    Returns:
        The serialised tf.Example; equal arguments give equal bytes.
    """
    feature = {
        ENCODED: _bytes(image),
        FILENAME: _bytes(name.encode()),
        FORMAT: _bytes(image_format.encode()),
        HEIGHT: _int64(size[0]),
        WIDTH: _int64(size[1]),
        CHANNELS: _int64(3),
    }
    if label is not None:
        feature |= {LABEL_ENCODED: _bytes(label), LABEL_FORMAT: _bytes(b"png")}
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    return example.SerializeToString(deterministic=True)


def parse(serialized: tf.Tensor, *, has_label: bool, ignore_label: int) -> dict[str, tf.Tensor]:
    """Reads one record inside a tf.data graph.

    JPEG is decoded with the accurate integer DCT: the same pixels as libjpeg's own default and Pillow's, for 0.4 ms
    more a 360x480 picture. TensorFlow's default is "whatever the build prefers", and features cached by one build
    should be found again by another.

    Args:
        serialized: scalar string.
        has_label: whether to read the label; without it the label is `ignore_label` everywhere.
        ignore_label: see `has_label`.

    Returns:
        common.IMAGE uint8 [H, W, 3], common.LABEL uint8 [H, W], common.IMAGE_NAME string.

    Raises:
        tf.errors.InvalidArgumentError: when run, on a missing key, bytes that are no picture, or a label of another
            size; `records.translate_data_errors` turns it into an InputError that names file and record.
    """
    features = {ENCODED: tf.io.FixedLenFeature([], tf.string), FILENAME: tf.io.FixedLenFeature([], tf.string, "")}
    if has_label:
        features[LABEL_ENCODED] = tf.io.FixedLenFeature([], tf.string)
    parsed = tf.io.parse_single_example(serialized, features)
    # decode_jpeg reads PNG as well, told apart by the first bytes; image/format need not be trusted.
    image = tf.io.decode_jpeg(parsed[ENCODED], channels=3, dct_method="INTEGER_ACCURATE")
    if has_label:
        label = tf.io.decode_png(parsed[LABEL_ENCODED], channels=1)[..., 0]
        same = tf.debugging.assert_equal(tf.shape(label), tf.shape(image)[:2], "the label has not its image's size")
        with tf.control_dependencies([same] if same is not None else []):
            label = tf.identity(label)
    else:
        label = tf.fill(tf.shape(image)[:2], tf.constant(ignore_label, tf.uint8))
    return {common.IMAGE: image, common.LABEL: label, common.IMAGE_NAME: parsed[FILENAME]}


def decode(serialized: bytes, where: object) -> Record:
    """Reads one record in Python, checking everything.

    Raises:
        InputError: naming `where`, on a missing key, bytes that are no picture, or sizes that disagree.
    """
    try:
        feature = tf.train.Example.FromString(serialized).features.feature
    except DecodeError:
        raise InputError(f"{where}: expected a tf.Example, received other bytes") from None
    values = {key: _only(feature, key, where) for key in _KINDS if key in feature}
    for key in (ENCODED, HEIGHT, WIDTH):
        if values.get(key) is None:
            raise InputError(f"{where}: key {key!r} is missing")
    image = pictures.decode_image(values[ENCODED], f"{where}: {ENCODED}").array
    said = (values[HEIGHT], values[WIDTH])
    if said != image.shape[:2]:
        raise InputError(f"{where}: {HEIGHT}, {WIDTH} say {said[0]}x{said[1]}, the image is {_by(image)}")
    label = None
    # DeepLab's builders write the key with no bytes where there is no label.
    if values.get(LABEL_ENCODED):
        picture = pictures.decode_label(values[LABEL_ENCODED], f"{where}: {LABEL_ENCODED}")
        if picture.mode != "L" or picture.note:
            # `parse` would give a palette's luminance, and stretch values of fewer bits.
            raise InputError(
                f"{where}: {LABEL_ENCODED}: expected a grey PNG of 8 bits, received mode {picture.mode} "
                f"{picture.note}".rstrip()
            )
        label = picture.array
        if label.shape != image.shape[:2]:
            raise InputError(f"{where}: expected a label of {_by(image)} as its image, received {_by(label)}")
    return Record(image, label, (values.get(FILENAME) or b"").decode(errors="replace"))


def _only(feature: Any, key: str, where: object) -> bytes | int | None:
    """The one value of a key as `parse` takes it; None where nothing is said, or where a label has no bytes at all."""
    kind = feature[key].WhichOneof("kind")
    if kind is None:
        return None
    values = getattr(feature[key], kind).value
    if not values and key == LABEL_ENCODED:
        return None
    if kind != _KINDS[key] or len(values) != 1:
        raise InputError(f"{where}: {key}: expected one value of {_KINDS[key]}, received {len(values)} of {kind}")
    return values[0]


def read_size(serialized: bytes) -> tuple[int, int]:
    """The (height, width) that a record of `encode` says."""
    feature = tf.train.Example.FromString(serialized).features.feature
    return feature[HEIGHT].int64_list.value[0], feature[WIDTH].int64_list.value[0]


def _by(array: np.ndarray) -> str:
    return f"{array.shape[0]}x{array.shape[1]}"


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _int64(value: int) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
