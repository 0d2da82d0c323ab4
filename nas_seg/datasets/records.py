"""Shards on disk: their names, where each record starts, and what is wrong with them when reading fails."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import struct
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from nas_seg.datasets import example
from nas_seg.datasets.descriptors import FILE_NAME, DatasetDescriptor, SplitInfo, read_descriptor
from nas_seg.utils.errors import InputError

# A TFRecord frame: length (8 bytes), its checksum (4), the record, its checksum (4).
_LENGTH_BYTES, _HEADER_BYTES, _FOOTER_BYTES = 8, 12, 4
# What TensorFlow raises when records are not what the graph expects, or have gone.
READ_ERRORS = (
    tf.errors.DataLossError,
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.OutOfRangeError,
    # Its message quotes the bytes that are no tf.Example, and they need not be text.
    UnicodeDecodeError,
)


def shard_name(split: str, shard: int, num_shards: int) -> str:
    """DeepLab's name of a shard: `train-00000-of-00004.tfrecord`."""
    return f"{split}-{shard:05d}-of-{num_shards:05d}.tfrecord"


@dataclasses.dataclass(frozen=True)
class Split:
    """A split that was found whole: its files and the place of each record.

    Attributes:
        descriptor: the dataset's.
        info: the split's part of the descriptor.
        paths: shard files in order.
        shard: int64 [N], index into `paths` of each record.
        offset: int64 [N], byte at which the frame of each record starts.
    """

    descriptor: DatasetDescriptor
    info: SplitInfo
    paths: tuple[str, ...]
    shard: np.ndarray
    offset: np.ndarray

    def read(self, index: tf.Tensor) -> tf.Tensor:
        """Reads record `index` (scalar int64) inside a tf.data graph, its checksum checked; scalar string."""
        path = tf.gather(tf.constant(self.paths), tf.gather(tf.constant(self.shard), index))
        return _read_at(path, tf.gather(tf.constant(self.offset), index))


def open_split(dataset_dir: str | os.PathLike, split: str) -> Split:
    """Finds every record of a split, reading frame headers only.

    Raises:
        InputError: naming the folder, the split or the shard that is missing, truncated or of another length.
    """
    descriptor = read_descriptor(dataset_dir)
    try:
        info = descriptor.split(split)
    except InputError as problem:
        raise InputError(f"{pathlib.Path(dataset_dir) / FILE_NAME}: {problem}") from None
    paths, shard, offset = find_records(dataset_dir, split, info.num_shards)
    if len(offset) != info.num_images:
        raise InputError(
            f"{pathlib.Path(dataset_dir) / split}-*: expected {info.num_images} records as {FILE_NAME} says, "
            f"found {len(offset)}"
        )
    return Split(descriptor, info, paths, shard, offset)


def find_records(
    dataset_dir: str | os.PathLike, split: str, num_shards: int
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """The shards of a split, and of each record the shard and the offset, see `Split`."""
    paths, shard, offset = [], [], []
    for i in range(num_shards):
        path = pathlib.Path(dataset_dir) / shard_name(split, i, num_shards)
        offsets = record_offsets(path)
        paths.append(str(path))
        shard.extend([i] * len(offsets))
        offset.extend(offsets)
    return tuple(paths), np.array(shard, np.int64), np.array(offset, np.int64)


def record_offsets(path: str | os.PathLike) -> list[int]:
    """The byte at which each record's frame starts; an InputError if the file is missing or ends within a record."""
    offsets, position = [], 0
    try:
        size = os.path.getsize(path)
        with open(path, "rb", buffering=0) as file:
            while position < size:
                file.seek(position)
                header = file.read(_HEADER_BYTES)
                length = struct.unpack("<Q", header[:_LENGTH_BYTES])[0] if len(header) == _HEADER_BYTES else 0
                end = position + _HEADER_BYTES + length + _FOOTER_BYTES
                if end > size:
                    raise InputError(
                        f"{path}: expected a whole TFRecord file, it is truncated or damaged: "
                        f"record {len(offsets)} should end at byte {end}, the file at {size}"
                    )
                offsets.append(position)
                position = end
    except OSError as error:
        raise InputError(f"{path}: expected a TFRecord file, it cannot be read ({error.strerror})") from None
    return offsets


def read_records(split: Split, damaged: Callable[[str, str], None] | None = None) -> Iterator[tuple[str, bytes]]:
    """Yields (where, serialised record) in order, for checking; `where` names shard file and record.

    Args:
        split: what to read.
        damaged: told where and what is wrong with a record whose checksum does not fit, which is left out then.

    Raises:
        InputError: at such a record, without `damaged`.
    """
    for i, path in enumerate(split.paths):
        yield from read_shard(path, split.offset[split.shard == i], damaged)


def read_shard(
    path: str | os.PathLike, offsets: Sequence[int], damaged: Callable[[str, str], None] | None = None
) -> Iterator[tuple[str, bytes]]:
    """The records of one shard that begin at `offsets`, as `read_records` has them."""
    stream = iter(tf.data.TFRecordDataset(str(path)))
    for index, offset in enumerate(offsets):
        where = f"{path}: record {index}"
        try:
            record = _read_at(tf.constant(str(path)), tf.constant(offset, tf.int64)) if stream is None else next(stream)
        except tf.errors.DataLossError:
            problem = f"{where}: expected whole bytes, its checksum does not fit"
            if damaged is None:
                raise InputError(problem) from None
            damaged(where, problem)
            # The stream cannot go on beyond it; what comes is read by its place.
            stream = None
        else:
            yield where, record.numpy()


def read_bytes(split: Split) -> Iterator[tuple[str, bytes]]:
    """As `read_records`, but checksums are not looked at and nothing of TensorFlow is started."""
    for i, path in enumerate(split.paths):
        with open(path, "rb") as file:
            for index, offset in enumerate(split.offset[split.shard == i].tolist()):
                file.seek(offset)
                (length,) = struct.unpack("<Q", file.read(_HEADER_BYTES)[:_LENGTH_BYTES])
                yield f"{path}: record {index}", file.read(length)


def _read_at(path: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """The record whose frame begins at byte `offset` (scalar int64) of a file, its checksum checked; scalar string."""
    frames = tf.raw_ops.TFRecordDatasetV2(
        filenames=path[None],
        compression_type="",
        # Enough for most records in one read, not so much that every record drags its neighbours in.
        buffer_size=tf.constant(1 << 16, tf.int64),
        byte_offsets=offset[None],
    )
    dataset = tf.data.experimental.from_variant(frames, tf.TensorSpec([], tf.string))
    return dataset.take(1).get_single_element()


def verify(dataset_dir: str | os.PathLike, split: str) -> None:
    """Reads a whole split in Python and raises an InputError naming the first bad shard and record."""
    opened = open_split(dataset_dir, split)
    descriptor = opened.descriptor
    for where, serialized in read_records(opened):
        label = example.decode(serialized, where).label
        if label is None and opened.info.has_labels:
            raise InputError(f"{where}: key {example.LABEL_ENCODED!r} is missing")
        if label is not None:
            check_range(label, descriptor, where)


def check_range(label: np.ndarray, descriptor: DatasetDescriptor, where: object) -> None:
    """Raises an InputError naming `where` and the values that are neither a class nor the ignored label."""
    outside = values_outside(np.unique(label), descriptor)
    if len(outside):
        shown = ", ".join(str(value) for value in outside[:8]) + (", ..." if len(outside) > 8 else "")
        raise InputError(
            f"{where}: expected label values 0 to {descriptor.num_classes - 1} or ignore_label "
            f"{descriptor.ignore_label}, received {shown}"
        )


def values_outside(values: np.ndarray, descriptor: DatasetDescriptor) -> np.ndarray:
    """Those of `values` that are neither a class nor the ignored label."""
    return values[((values < 0) | (values >= descriptor.num_classes)) & (values != descriptor.ignore_label)]


@contextlib.contextmanager
def translate_data_errors(dataset_dir: str | os.PathLike, *splits: str) -> Iterator[None]:
    """Within it, what TensorFlow raises on bad records becomes an InputError that names shard and record.

    A graph cannot say which record it failed on, so after a failure the splits are read once more in Python. When
    nothing is wrong with them the original error goes on: it came from elsewhere.
    """
    try:
        yield
    except READ_ERRORS:
        for split in splits:
            verify(dataset_dir, split)
        raise
