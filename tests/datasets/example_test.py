import numpy as np
import pytest
import tensorflow as tf

from nas_seg import common
from nas_seg.datasets import example, pictures
from nas_seg.utils.errors import InputError

RNG = np.random.default_rng(1)
IMAGE = RNG.integers(0, 256, (9, 13, 3)).astype(np.uint8)
LABEL = RNG.integers(0, 4, (9, 13)).astype(np.uint8)
KEYS = {
    "image/encoded",
    "image/filename",
    "image/format",
    "image/height",
    "image/width",
    "image/channels",
    "image/segmentation/class/encoded",
    "image/segmentation/class/format",
}


def encode(image=IMAGE, label=LABEL, size=(9, 13), encoder=pictures.encode_png) -> bytes:
    label = None if label is None else pictures.encode_png(label)
    image_format = "jpeg" if encoder is pictures.encode_jpeg else "png"
    return example.encode(encoder(image), label, name="street_1", image_format=image_format, size=size)


def without(serialized: bytes, *keys: str) -> bytes:
    proto = tf.train.Example.FromString(serialized)
    for key in keys:
        del proto.features.feature[key]
    return proto.SerializeToString()


def test_the_keys_and_types_are_deeplabs():
    features = tf.train.Example.FromString(encode()).features.feature
    assert set(features) == KEYS
    assert features["image/height"].int64_list.value[:] == [9]
    assert features["image/width"].int64_list.value[:] == [13]
    assert features["image/channels"].int64_list.value[:] == [3]
    assert features["image/format"].bytes_list.value[:] == [b"png"]
    assert features["image/segmentation/class/format"].bytes_list.value[:] == [b"png"]
    assert features["image/filename"].bytes_list.value[:] == [b"street_1"]


def test_without_a_label_its_keys_are_left_out():
    assert set(tf.train.Example.FromString(encode(label=None)).features.feature) == {
        key for key in KEYS if "segmentation" not in key
    }


def test_equal_pictures_give_equal_bytes():
    assert encode() == encode()


def test_parse_and_decode_read_back_what_was_encoded():
    parsed = example.parse(tf.constant(encode()), has_label=True, ignore_label=255)
    np.testing.assert_array_equal(parsed[common.IMAGE], IMAGE)
    np.testing.assert_array_equal(parsed[common.LABEL], LABEL)
    assert parsed[common.IMAGE_NAME].numpy() == b"street_1"
    record = example.decode(encode(), "here")
    np.testing.assert_array_equal(record.image, IMAGE)
    np.testing.assert_array_equal(record.label, LABEL)
    assert record.name == "street_1"


def test_without_labels_parse_gives_the_ignored_one_everywhere():
    parsed = example.parse(tf.constant(encode(label=None)), has_label=False, ignore_label=11)
    assert parsed[common.LABEL].shape == (9, 13)
    assert set(parsed[common.LABEL].numpy().ravel()) == {11}


def test_jpeg_pixels_are_those_of_the_accurate_transform():
    # Smooth enough for chroma subsampling; Pillow uses libjpeg's accurate integer DCT, so every pixel must agree.
    image = np.clip(np.add.outer(np.arange(48) * 3, np.arange(64) * 2)[..., None] + [0, 20, 60], 0, 255)
    serialized = encode(image.astype(np.uint8), label=None, size=(48, 64), encoder=pictures.encode_jpeg)
    parsed = example.parse(tf.constant(serialized), has_label=False, ignore_label=255)
    np.testing.assert_array_equal(parsed[common.IMAGE], example.decode(serialized, "x").image)


def test_parse_fails_on_a_missing_key_and_on_a_label_of_another_size():
    with pytest.raises(tf.errors.InvalidArgumentError, match="image/encoded"):
        example.parse(tf.constant(without(encode(), "image/encoded")), has_label=True, ignore_label=255)
    with pytest.raises(tf.errors.InvalidArgumentError, match="the label has not its image's size"):
        example.parse(tf.constant(encode(label=LABEL[1:])), has_label=True, ignore_label=255)


@pytest.mark.parametrize("key", ["image/encoded", "image/height", "image/width"])
def test_decode_names_the_missing_key(key):
    with pytest.raises(InputError, match=f"shard: record 3: key '{key}' is missing"):
        example.decode(without(encode(), key), "shard: record 3")


def test_decode_names_what_disagrees():
    with pytest.raises(InputError, match="here: expected a label of 9x13 as its image, received 8x13"):
        example.decode(encode(label=LABEL[1:]), "here")
    with pytest.raises(InputError, match="here: image/height, image/width say 9x12, the image is 9x13"):
        example.decode(encode(size=(9, 12)), "here")
    with pytest.raises(InputError, match="here: expected a tf.Example"):
        example.decode(b"\xff\xff\xff", "here")
    broken = example.encode(b"no picture", None, name="x", image_format="png", size=(1, 1))
    with pytest.raises(InputError, match="here: image/encoded: expected a JPEG or PNG picture"):
        example.decode(broken, "here")
