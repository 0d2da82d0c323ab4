import numpy as np
import pytest
import tensorflow as tf
from small_data import build, pairs

from nas_seg.datasets import data_generator, example, records
from nas_seg.utils.errors import InputError


@pytest.fixture
def folder(tmp_path):
    return build(tmp_path / "data", num_shards=2, train=pairs([(6, 8)] * 5))


SHARD = "train-00001-of-00002.tfrecord"


def drain(folder):
    with records.translate_data_errors(folder, "train"):
        return list(data_generator.eval_dataset(folder, "train"))


def rewrite(folder, change) -> None:
    """Replaces record 1 of the second shard by `change(record)`, checksums right."""
    path = str(folder / SHARD)
    kept = [record.numpy() for record in tf.data.TFRecordDataset(path)]
    kept[1] = change(kept[1])
    with tf.io.TFRecordWriter(path) as writer:
        for record in kept:
            writer.write(record)


def test_any_record_is_read_by_its_place(folder):
    opened = records.open_split(folder, "train")
    in_order = [serialized for _, serialized in records.read_records(opened)]
    assert [opened.read(tf.constant(i, tf.int64)).numpy() for i in (4, 0, 3, 1, 2)] == [
        in_order[i] for i in (4, 0, 3, 1, 2)
    ]


def test_a_truncated_shard_is_named_before_anything_is_read(folder):
    data = (folder / SHARD).read_bytes()
    for size in (len(data) - 1, len(data) - 40, 5):
        (folder / SHARD).write_bytes(data[:size])
        with pytest.raises(
            InputError, match=f"{SHARD}: expected a whole TFRecord file, it is truncated or damaged: record"
        ):
            data_generator.eval_dataset(folder, "train")


def test_a_missing_shard_and_a_missing_record_are_named(folder):
    data = (folder / SHARD).read_bytes()
    offsets = records.record_offsets(folder / SHARD)
    (folder / SHARD).write_bytes(data[: offsets[1]])
    with pytest.raises(InputError, match=r"train-\*: expected 5 records as dataset\.json says, found 4"):
        records.open_split(folder, "train")
    (folder / SHARD).unlink()
    with pytest.raises(InputError, match=f"{SHARD}: expected a TFRecord file, it cannot be read"):
        records.open_split(folder, "train")


def test_damaged_bytes_within_a_record_become_an_error_that_names_it(folder):
    data = bytearray((folder / SHARD).read_bytes())
    data[records.record_offsets(folder / SHARD)[1] + 100] ^= 1
    (folder / SHARD).write_bytes(data)
    with pytest.raises(InputError, match=f"{SHARD}: record 1: expected whole bytes, its checksum does not fit"):
        drain(folder)


def test_a_record_that_cannot_be_parsed_is_named(folder):
    def spoil(record: bytes) -> bytes:
        proto = tf.train.Example.FromString(record)
        proto.features.feature[example.ENCODED].bytes_list.value[0] = b"no picture"
        return proto.SerializeToString()

    rewrite(folder, spoil)
    with pytest.raises(InputError, match=f"{SHARD}: record 1: image/encoded: expected a JPEG or PNG picture"):
        drain(folder)


def test_a_record_without_its_label_is_named(folder):
    def spoil(record: bytes) -> bytes:
        proto = tf.train.Example.FromString(record)
        del proto.features.feature[example.LABEL_ENCODED]
        return proto.SerializeToString()

    rewrite(folder, spoil)
    with pytest.raises(InputError, match=f"{SHARD}: record 1: key 'image/segmentation/class/encoded' is missing"):
        drain(folder)


def test_an_error_from_elsewhere_stays_what_it_was(folder):
    with pytest.raises(tf.errors.InvalidArgumentError), records.translate_data_errors(folder, "train"):
        tf.linalg.inv(np.zeros((2, 2)))


def test_verify_accepts_good_records_and_finds_a_label_outside_the_classes(folder):
    records.verify(folder, "train")

    def spoil(record: bytes) -> bytes:
        proto = tf.train.Example.FromString(record)
        label = tf.io.encode_png(np.full((6, 8, 1), 77, np.uint8)).numpy()
        proto.features.feature[example.LABEL_ENCODED].bytes_list.value[0] = label
        return proto.SerializeToString()

    rewrite(folder, spoil)
    with pytest.raises(InputError, match="record 1: expected label values 0 to 3 or ignore_label 255, received 77"):
        records.verify(folder, "train")


def test_an_unknown_split_names_the_file_and_the_nearest(folder):
    with pytest.raises(InputError, match=r"dataset\.json: unknown split 'trains'.*Did you mean 'train'"):
        records.open_split(folder, "trains")
