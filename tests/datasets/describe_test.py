"""Shards that DeepLab's own builders wrote, which have no dataset.json; and ours, read by DeepLab's parser."""

import numpy as np
import pytest
import tensorflow as tf
from small_data import CLASSES, build, coded_picture, pairs

from nas_seg.datasets import data_generator, describe, pictures
from nas_seg.datasets.descriptors import FILE_NAME, read_descriptor
from nas_seg.utils.errors import InputError


def bytes_of(value: bytes):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def number(value: int):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


def deeplab_record(image: np.ndarray, label: bytes, name="leftImg8bit/a.png", image_format=b"jpeg") -> bytes:
    """One picture as `image_seg_to_tfexample` of DeepLab's datasets/build_data.py has it."""
    encoded = pictures.encode_jpeg(image) if image_format == b"jpeg" else pictures.encode_png(image)
    feature = {
        "image/encoded": bytes_of(encoded),
        "image/filename": bytes_of(name.encode()),
        "image/format": bytes_of(image_format),
        "image/height": number(image.shape[0]),
        "image/width": number(image.shape[1]),
        "image/channels": number(3),
        "image/segmentation/class/encoded": bytes_of(label),
        "image/segmentation/class/format": bytes_of(b"png"),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def write_shards(folder, split: str, shards: list[list[bytes]]):
    folder.mkdir(exist_ok=True)
    for i, content in enumerate(shards):
        with tf.io.TFRecordWriter(str(folder / f"{split}-{i:05d}-of-{len(shards):05d}.tfrecord")) as writer:
            for record in content:
                writer.write(record)
    return folder


def drawn(count: int):
    rng = np.random.default_rng(3)
    return [coded_picture(rng, 8 + i, 12) for i in range(count)]


@pytest.mark.parametrize("image_format", [b"jpeg", b"png"])
def test_deeplabs_shards_become_a_data_set_and_nothing_else_is_written(tmp_path, image_format):
    given = drawn(5)
    made = [deeplab_record(image, pictures.encode_png(label), image_format=image_format) for image, label in given]
    folder = write_shards(tmp_path / "shards", "train_aug", [made[:2], made[2:]])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    descriptor = describe.write_descriptor(folder, CLASSES)
    info = descriptor.split("train_aug")
    assert (info.num_images, info.num_shards, info.has_labels) == (5, 2, True)
    assert (info.min_size, info.max_size) == ((8, 12), (12, 12))
    assert read_descriptor(folder) == descriptor
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != FILE_NAME} == before
    for batch, (_, label) in zip(data_generator.eval_dataset(folder, "train_aug"), given, strict=True):
        np.testing.assert_array_equal(batch["label"][0], label)


def test_a_split_whose_labels_are_empty_has_none(tmp_path):
    folder = write_shards(tmp_path / "shards", "test", [[deeplab_record(image, b"") for image, _ in drawn(2)]])
    assert not describe.write_descriptor(folder, CLASSES).split("test").has_labels
    assert len(list(data_generator.eval_dataset(folder, "test"))) == 2


def test_our_records_are_read_by_deeplabs_parser(tmp_path):
    given = pairs([(6, 8), (9, 7)])
    folder = build(tmp_path / "out", num_shards=1, train=given)
    keys = {
        "image/encoded": tf.io.FixedLenFeature((), tf.string, default_value=""),
        "image/filename": tf.io.FixedLenFeature((), tf.string, default_value=""),
        "image/format": tf.io.FixedLenFeature((), tf.string, default_value="jpeg"),
        "image/height": tf.io.FixedLenFeature((), tf.int64, default_value=0),
        "image/width": tf.io.FixedLenFeature((), tf.int64, default_value=0),
        "image/segmentation/class/encoded": tf.io.FixedLenFeature((), tf.string, default_value=""),
        "image/segmentation/class/format": tf.io.FixedLenFeature((), tf.string, default_value="png"),
    }
    found = list(tf.data.TFRecordDataset(tf.io.gfile.glob(f"{folder}/train-*")))
    for serialized, pair in zip(found, given, strict=True):
        parsed = tf.io.parse_single_example(serialized, keys)
        image = tf.image.decode_png(parsed["image/encoded"], channels=3).numpy()
        label = tf.image.decode_png(parsed["image/segmentation/class/encoded"], channels=1).numpy()
        np.testing.assert_array_equal(image, pictures.decode_image(pair.image, "x").array)
        np.testing.assert_array_equal(label[..., 0], pictures.decode_label(pair.label, "x").array)
        assert (parsed["image/height"], parsed["image/width"]) == image.shape[:2]
        assert (parsed["image/filename"], parsed["image/format"]) == (pair.name, "png")


def palette_png(label: np.ndarray) -> bytes:
    import io

    from PIL import Image

    picture = Image.fromarray(label).convert("P")
    picture.putpalette([7, 90, 200] * 256)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        ([], "expected shards such as train-00000-of-00004.tfrecord, found nothing"),
        ([[]], "train-.*: expected records, found none"),
        ([[b"\xff\xff"]], "train-00000-of-00001.tfrecord: record 0: expected a tf.Example"),
        (
            [[deeplab_record(*drawn(1)[0][:1], pictures.encode_png(drawn(1)[0][1] + 9))]],
            "record 0: expected label values 0 to 3 or ignore_label 255, received",
        ),
        (
            [[deeplab_record(*drawn(1)[0][:1], palette_png(drawn(1)[0][1]))]],
            "image/segmentation/class/encoded: expected a grey PNG of 8 bits, received mode P",
        ),
        (
            [
                [
                    deeplab_record(image, pictures.encode_png(label) if i else b"")
                    for i, (image, label) in enumerate(drawn(2))
                ]
            ],
            "record 1: expected all or no records of 'train' with a label",
        ),
    ],
)
def test_what_is_wrong_with_shards_is_named_and_no_file_is_written(tmp_path, shards, message):
    folder = write_shards(tmp_path / "shards", "train", shards)
    with pytest.raises(InputError, match=message):
        describe.write_descriptor(folder, CLASSES)
    assert not (folder / FILE_NAME).exists()


def test_a_missing_shard_is_named_and_a_descriptor_is_replaced_only_when_asked(tmp_path):
    folder = build(tmp_path / "out", num_shards=2, train=pairs([(6, 8)] * 3))
    with pytest.raises(InputError, match=r"dataset\.json: is there already; --overwrite replaces it"):
        describe.write_descriptor(folder, CLASSES)
    # A description of our own records is what building them wrote.
    built = read_descriptor(folder)
    assert describe.write_descriptor(folder, CLASSES, overwrite=True) == built
    (folder / "train-00001-of-00002.tfrecord").unlink()
    with pytest.raises(InputError, match="train-00001-of-00002.tfrecord: expected a TFRecord file, it cannot be read"):
        describe.write_descriptor(folder, CLASSES, overwrite=True)
    assert read_descriptor(folder) == built
