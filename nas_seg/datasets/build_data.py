"""TFRecord shards and `dataset.json` from pairs of image and label, all checked on the way."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import re
import shutil
from collections.abc import Iterator, Sequence

import numpy as np

from nas_seg.datasets import pictures
from nas_seg.datasets.descriptors import FILE_NAME, DatasetDescriptor, SplitInfo
from nas_seg.datasets.source import Pair, Source
from nas_seg.utils import config
from nas_seg.utils.errors import InputError
from nas_seg.utils.progress import progress

# DeepLab's builders write four shards a split.
NUM_SHARDS = 4
_OURS = re.compile(r"dataset\.json|.+-\d{5}-of-\d{5}\.tfrecord")


def build(
    source: Source, output_dir: str | os.PathLike, *, num_shards: int = NUM_SHARDS, overwrite: bool = False
) -> DatasetDescriptor:
    """Writes every split of `source` into `output_dir`, as a whole or not at all.

    Images are stored as the bytes they are; labels as PNG of one channel of class indices.

    Args:
        source: what to write.
        output_dir: a folder that does not exist or is empty, or one written here before, with `overwrite`.
        num_shards: shards a split, at most one a picture; a split is cut in order into parts of nearly equal length.
        overwrite: replace what an earlier call wrote.

    Returns:
        What stands in `dataset.json`.

    Raises:
        InputError: naming the picture that cannot be decoded, whose label has another size or values outside the
            classes; or the output folder that holds something else.
    """
    if num_shards < 1:
        raise InputError(f"num_shards: expected 1 or more, received {num_shards}")
    for split, pairs in source.splits.items():
        if not re.fullmatch(r"\w[\w.-]*", split):
            raise InputError(f"split {split!r}: expected a name of letters, digits, '_', '-' and '.'")
        if not pairs:
            raise InputError(f"split {split!r}: expected at least one picture, found none")
    with _whole_folder(pathlib.Path(output_dir), overwrite) as folder:
        splits = {
            split: _write_split(folder, split, pairs, source.descriptor, min(num_shards, len(pairs)))
            for split, pairs in source.splits.items()
        }
        descriptor = dataclasses.replace(source.descriptor, splits=splits)
        config.save(folder / FILE_NAME, descriptor)
    return descriptor


def _write_split(
    folder: pathlib.Path, split: str, pairs: Sequence[Pair], descriptor: DatasetDescriptor, num_shards: int
) -> SplitInfo:
    # TensorFlow takes seconds to import; bad flags and folders are refused before that.
    import tensorflow as tf

    from nas_seg.datasets import records

    digest, sizes = hashlib.sha256(), []
    has_labels = pairs[0].label is not None
    with progress(f"writing {split}", len(pairs)) as bar:
        for shard, indices in enumerate(np.array_split(np.arange(len(pairs)), num_shards)):
            with tf.io.TFRecordWriter(str(folder / records.shard_name(split, shard, num_shards))) as writer:
                for index in indices:
                    pair = pairs[int(index)]
                    if (pair.label is not None) != has_labels:
                        raise InputError(f"{pair.image_where}: expected all or no pictures of {split!r} with a label")
                    serialized, size = encode_pair(pair, descriptor)
                    writer.write(serialized)
                    digest.update(serialized)
                    sizes.append(size)
                    bar.advance()
    smallest, largest = np.min(sizes, 0).tolist(), np.max(sizes, 0).tolist()
    return SplitInfo(len(pairs), num_shards, has_labels, digest.hexdigest()[:12], tuple(smallest), tuple(largest))


def encode_pair(pair: Pair, descriptor: DatasetDescriptor) -> tuple[bytes, tuple[int, int]]:
    """Checks one pair; returns its serialised record and its (height, width)."""
    from nas_seg.datasets import example, records

    data = pictures.read_bytes(pair.image, pair.image_where)
    image = pictures.decode_image(data, pair.image_where)
    size = image.array.shape[:2]
    label_data = None
    if pair.label is not None:
        label_data = pictures.read_bytes(pair.label, pair.label_where)
        label = pictures.decode_label(label_data, pair.label_where)
        if label.array.shape != size:
            raise InputError(
                f"{pair.label_where}: expected {size[0]}x{size[1]} as {pair.image_where} has, "
                f"received {label.array.shape[0]}x{label.array.shape[1]}"
            )
        records.check_range(label.array, descriptor, pair.label_where)
        # Asked for one channel, decoders give a palette's luminance and stretch 1-bit values to 255: store 8-bit gray.
        if label.mode != "L":
            label_data = pictures.encode_png(label.array.astype(np.uint8))
    serialized = example.encode(data, label_data, name=pair.name, image_format=image.format, size=size)
    return serialized, size


@contextlib.contextmanager
def _whole_folder(folder: pathlib.Path, overwrite: bool) -> Iterator[pathlib.Path]:
    """Yields a temporary folder beside `folder`, which takes its place at the end, or vanishes on an error."""
    folder = folder.absolute()
    _check_replaceable(folder, overwrite)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from None
    try:
        yield temporary
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(temporary, ignore_errors=True)


def _check_replaceable(folder: pathlib.Path, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder to write, found a file")
    names = sorted(path.name for path in folder.iterdir())
    if not names:
        return
    foreign = [name for name in names if not _OURS.fullmatch(name)]
    if FILE_NAME not in names or foreign:
        raise InputError(
            f"{folder}: expected an empty folder or one of records alone, found {(foreign or names)[0]!r} in it"
        )
    if not overwrite:
        raise InputError(f"{folder}: holds records already; --overwrite replaces them")
