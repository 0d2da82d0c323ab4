import numpy as np
import pytest
import tensorflow as tf
from small_data import CLASSES, build, pairs, save

from nas_seg.datasets import build_data, example, pictures, records
from nas_seg.datasets.descriptors import read_descriptor
from nas_seg.datasets.source import Pair, Source
from nas_seg.utils.errors import InputError

IMAGE = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
LABEL = np.arange(48, dtype=np.uint8).reshape(6, 8) % 4


def write(tmp_path, image, label, **kwargs) -> None:
    source = Source(CLASSES, {"train": [*pairs([(6, 8)]), Pair("bad", image, label)]})
    build_data.build(source, tmp_path / "out", **kwargs)


def read(folder, split="train") -> list[example.Record]:
    opened = records.open_split(folder, split)
    return [example.decode(serialized, where) for where, serialized in records.read_records(opened)]


def test_shards_have_deeplabs_names_and_keep_the_order(tmp_path):
    build(tmp_path / "out", num_shards=3, train=pairs([(6, 8)] * 7), val=pairs([(6, 8)] * 2))
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [
        "dataset.json",
        "train-00000-of-00003.tfrecord",
        "train-00001-of-00003.tfrecord",
        "train-00002-of-00003.tfrecord",
        # One picture a shard at least: no empty files.
        "val-00000-of-00002.tfrecord",
        "val-00001-of-00002.tfrecord",
    ]
    assert [record.name for record in read(tmp_path / "out")] == [f"p{i:03d}" for i in range(7)]


def test_dataset_json_says_what_was_written(tmp_path):
    build(tmp_path / "out", num_shards=2, train=pairs([(6, 8), (9, 7), (5, 11)]), test=pairs([(6, 8)], labels=False))
    descriptor = read_descriptor(tmp_path / "out")
    train, test = descriptor.split("train"), descriptor.split("test")
    assert (train.num_images, train.num_shards, train.has_labels) == (3, 2, True)
    assert (train.min_size, train.max_size) == ((5, 7), (9, 11))
    assert (test.num_images, test.num_shards, test.has_labels) == (1, 1, False)


def test_the_digest_depends_on_the_pictures_alone(tmp_path):
    one = build(tmp_path / "a", num_shards=1, train=pairs([(6, 8)] * 3))
    two = build(tmp_path / "b", num_shards=3, train=pairs([(6, 8)] * 3))
    other = build(tmp_path / "c", num_shards=1, train=pairs([(6, 8)] * 3, seed=1))
    digests = [read_descriptor(folder).split("train").digest for folder in (one, two, other)]
    assert digests[0] == digests[1] != digests[2]


def test_image_bytes_are_stored_as_they_are(tmp_path):
    data = pictures.encode_jpeg(IMAGE, quality=71)
    write(tmp_path, data, pictures.encode_png(LABEL))
    stored = next(iter(tf.data.TFRecordDataset(str(tmp_path / "out" / "train-00001-of-00002.tfrecord")))).numpy()
    features = tf.train.Example.FromString(stored).features.feature
    assert features["image/encoded"].bytes_list.value[0] == data
    assert features["image/format"].bytes_list.value[0] == b"jpeg"


def test_a_palette_label_is_stored_as_gray_indices(tmp_path):
    path = save(tmp_path / "label.png", LABEL, palette=True)
    write(tmp_path, pictures.encode_png(IMAGE), path)
    stored = next(iter(tf.data.TFRecordDataset(str(tmp_path / "out" / "train-00001-of-00002.tfrecord"))))
    # Read as training reads it: TensorFlow's own decoder would give a palette's luminance.
    np.testing.assert_array_equal(example.parse(stored, has_label=True, ignore_label=255)["label"], LABEL)


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        (b"no picture", LABEL, r"bad\.png: expected a JPEG or PNG picture, received something else"),
        (IMAGE, b"", r"label\.png: expected a JPEG or PNG picture, the file is empty"),
        (IMAGE, LABEL[1:], r"label\.png: expected 6x8 as .*bad\.png has, received 5x8"),
        (IMAGE, LABEL + 2, r"label\.png: expected label values 0 to 3 or ignore_label 255, received 4, 5"),
        (IMAGE, IMAGE, r"label\.png: expected a label of one channel of class indices, received colours \(mode RGB\)"),
    ],
)
def test_a_bad_pair_is_named_and_nothing_is_left_behind(tmp_path, image, label, message):
    paths = []
    for name, content in (("bad.png", image), ("label.png", label)):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else pictures.encode_png(content))
        paths.append(path)
    with pytest.raises(InputError, match=message):
        write(tmp_path, *paths)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.png", "label.png"]


def test_the_ignored_label_may_lie_outside_the_classes(tmp_path):
    write(tmp_path, pictures.encode_png(IMAGE), pictures.encode_png(np.where(LABEL == 3, 255, LABEL).astype(np.uint8)))
    assert 255 in read(tmp_path / "out")[1].label


def test_pictures_with_and_without_labels_do_not_mix(tmp_path):
    with pytest.raises(InputError, match="image bad: expected all or no pictures of 'train' with a label"):
        write(tmp_path, pictures.encode_png(IMAGE), None)


def test_records_are_replaced_only_when_asked_and_only_records(tmp_path):
    out = build(tmp_path / "out", train=pairs([(6, 8)] * 2))
    source = Source(CLASSES, {"train": pairs([(6, 8)] * 5)})
    with pytest.raises(InputError, match="out: holds records already; --overwrite replaces them"):
        build_data.build(source, out)
    assert len(read(out)) == 2
    build_data.build(source, out, overwrite=True)
    assert len(read(out)) == 5
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"out: expected an empty folder or one of records alone, found 'notes\.txt'"):
        build_data.build(source, out, overwrite=True)
    assert (out / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failed_overwrite_keeps_the_old_records(tmp_path):
    out = build(tmp_path / "out", train=pairs([(6, 8)] * 2))
    with pytest.raises(InputError):
        write(tmp_path, b"no picture", None, overwrite=True)
    assert len(read(out)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_splits_must_have_pictures_and_plain_names(tmp_path):
    with pytest.raises(InputError, match="split 'val': expected at least one picture, found none"):
        build(tmp_path / "out", val=[])
    with pytest.raises(InputError, match="split '../x': expected a name of letters"):
        build(tmp_path / "out", **{"../x": pairs([(6, 8)])})
    with pytest.raises(InputError, match="num_shards: expected 1 or more, received 0"):
        build(tmp_path / "out", num_shards=0, train=pairs([(6, 8)]))


@pytest.mark.parametrize(
    ("array", "note"),
    [
        (LABEL * 60, "gray"),
        (LABEL.astype(np.uint16) * 9000, "16-bit gray"),
        (np.dstack([IMAGE, LABEL]), "alpha"),
    ],
)
def test_images_that_are_not_rgb_of_8_bits_are_stored_as_such_and_told(tmp_path, array, note):
    told, data = [], pictures.encode_png(array)
    write(tmp_path, data, pictures.encode_png(LABEL), tell=told.append)
    assert told == [f"train: 1 images converted to RGB of 8 bits, stored as PNG: {note} (bad, ...)"]
    stored = next(iter(tf.data.TFRecordDataset(str(tmp_path / "out" / "train-00001-of-00002.tfrecord")))).numpy()
    features = tf.train.Example.FromString(stored).features.feature
    assert features["image/format"].bytes_list.value[0] == b"png"
    again = pictures.decode_image(features["image/encoded"].bytes_list.value[0], "x")
    assert (again.mode, again.note) == ("RGB", "")
    np.testing.assert_array_equal(again.array, pictures.decode_image(data, "x").array)


def test_corrupt_pictures_are_left_out_listed_and_counted_when_asked(tmp_path):
    good = pairs([(6, 8), (9, 7), (5, 5)])
    bad = [Pair("broken", b"no picture", good[0].label), Pair("small", good[0].image, good[1].label)]
    given, told = [good[0], bad[0], good[1], bad[1], good[2]], []
    build_data.build(
        Source(CLASSES, {"train": given}), tmp_path / "out", num_shards=2, skip_corrupt=True, tell=told.append
    )
    assert told[0] == "train: skipped 2 of 5 pictures"
    assert told[1].startswith("  image broken: expected a JPEG or PNG picture")
    assert told[2].startswith("  label small: expected 6x8")
    build_data.build(Source(CLASSES, {"train": good}), tmp_path / "clean", num_shards=2)
    for path in (tmp_path / "clean").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    with pytest.raises(InputError, match="split 'train': expected at least one picture, found none"):
        build_data.build(Source(CLASSES, {"train": bad}), tmp_path / "none", skip_corrupt=True)
