"""TFRecord shards and `dataset.json` from pairs of image and label, all checked on the way."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import os
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nas_seg.datasets import labels, pictures
from nas_seg.datasets.descriptors import FILE_NAME, DatasetDescriptor, SplitInfo
from nas_seg.datasets.part_folder import PLAN, writing
from nas_seg.datasets.source import NUM_SHARDS, Pair, Source, identity
from nas_seg.utils import config
from nas_seg.utils.errors import InputError
from nas_seg.utils.progress import progress

__all__ = ["NUM_SHARDS", "build", "encode_pair"]

_OURS = re.compile(rf"dataset\.json|{re.escape(PLAN)}|.+-\d{{5}}-of-\d{{5}}\.tfrecord")


@dataclasses.dataclass
class _Tally:
    """What is gathered of a split while its records pass."""

    digest: Any = dataclasses.field(default_factory=hashlib.sha256)
    sizes: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    converted: dict[str, list[str]] = dataclasses.field(default_factory=lambda: collections.defaultdict(list))

    def add(self, serialized: bytes, size: tuple[int, int]) -> None:
        self.digest.update(serialized)
        self.sizes.append(size)


def build(
    source: Source,
    output_dir: str | os.PathLike,
    *,
    num_shards: int | None = None,
    overwrite: bool = False,
    skip_corrupt: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> DatasetDescriptor:
    """Writes every split of `source` into `output_dir`, as a whole or not at all.

    Images are stored as the bytes they are, or as PNG where they are not RGB of 8 bits; labels as PNG of one channel
    of class indices. After a kill the same call goes on with the shards that are whole; equal sources give equal files.

    Args:
        source: what to write.
        output_dir: a folder that does not exist or is empty, or one written here before, with `overwrite`.
        num_shards: shards a split, at most one a picture; a split is cut in order into parts of nearly equal length.
            None: as many as the source says.
        overwrite: replace what an earlier call wrote.
        skip_corrupt: leave out, and tell, the pairs that are refused otherwise; every picture is read twice.
        tell: takes a line on each thing that the user should know.

    Returns:
        What stands in `dataset.json`.

    Raises:
        InputError: naming the picture that cannot be decoded, whose label has another size or values outside the
            classes; or the output folder that holds something else or cannot be written.
    """
    num_shards = source.num_shards if num_shards is None else num_shards
    if num_shards < 1:
        raise InputError(f"num_shards: expected 1 or more, received {num_shards}")

    def check(folder: pathlib.Path) -> None:
        _check_replaceable(folder, overwrite)

    check(pathlib.Path(output_dir))
    splits = {}
    for split, pairs in source.splits.items():
        if not re.fullmatch(r"\w[\w.-]*", split):
            raise InputError(f"split {split!r}: expected a name of letters, digits, '_', '-' and '.'")
        splits[split] = _without_corrupt(split, pairs, source, tell) if skip_corrupt else pairs
        if not splits[split]:
            raise InputError(f"split {split!r}: expected at least one picture, found none")
    source = dataclasses.replace(source, splits=splits)
    with writing(pathlib.Path(output_dir), _plan(source, num_shards), check) as folder:
        written = {split: _write_split(folder, split, source, num_shards, tell) for split in splits}
        descriptor = dataclasses.replace(source.descriptor, splits=written)
        config.save(folder / FILE_NAME, descriptor)
    return descriptor


def _plan(source: Source, num_shards: int) -> dict:
    return {
        "descriptor": config.to_json(source.descriptor),
        "coding": repr(source.coding),
        "num_shards": num_shards,
        "splits": {
            split: hashlib.sha256(identity(pairs).encode()).hexdigest() for split, pairs in source.splits.items()
        },
    }


class _Chosen(Sequence):
    """Some of the pairs of a split, which may be made anew whenever they are asked for."""

    def __init__(self, pairs: Sequence[Pair], indices: Sequence[int]):
        self._pairs, self._indices = pairs, indices
        self.identity = repr((identity(pairs), *indices))

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Pair:
        return self._pairs[self._indices[index]]


def _without_corrupt(split: str, pairs: Sequence[Pair], source: Source, tell: Callable[[str], None]) -> Sequence[Pair]:
    """The pairs that can be stored; tells the others."""
    good, problems = [], []
    with progress(f"checking {split}", len(pairs)) as bar:
        for index in range(len(pairs)):
            try:
                encode_pair(pairs[index], source)
                good.append(index)
            except InputError as problem:
                problems.append(str(problem))
            bar.advance()
    if problems:
        tell(f"{split}: skipped {len(problems)} of {len(pairs)} pictures")
        for problem in problems:
            tell(f"  {problem}")
    return _Chosen(pairs, good)


def _write_split(
    folder: pathlib.Path, split: str, source: Source, num_shards: int, tell: Callable[[str], None]
) -> SplitInfo:
    # TensorFlow takes seconds to import; bad flags and folders are refused before that.
    from nas_seg.datasets import records

    pairs, tally = source.splits[split], _Tally()
    has_labels = pairs[0].label is not None
    num_shards = min(num_shards, len(pairs))
    with progress(f"writing {split}", len(pairs)) as bar:
        for shard, indices in enumerate(np.array_split(np.arange(len(pairs)), num_shards)):
            path = folder / records.shard_name(split, shard, num_shards)
            if not _take_over(path, tally):
                chosen = (pairs[int(index)] for index in indices)
                _write_shard(path, split, chosen, source, has_labels, tally, bar.advance)
            else:
                bar.advance(len(indices))
    for note, names in tally.converted.items():
        tell(f"{split}: {len(names)} images converted to RGB of 8 bits, stored as PNG: {note} ({names[0]}, ...)")
    smallest, largest = np.min(tally.sizes, 0).tolist(), np.max(tally.sizes, 0).tolist()
    digest = tally.digest.hexdigest()[:12]
    return SplitInfo(len(pairs), num_shards, has_labels, digest, tuple(smallest), tuple(largest))


def _take_over(path: pathlib.Path, tally: _Tally) -> bool:
    """Counts a shard that an earlier attempt wrote; False if there is none."""
    import tensorflow as tf

    from nas_seg.datasets import example

    if not path.exists():
        return False
    for serialized in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        tally.add(serialized, example.read_size(serialized))
    return True


def _write_shard(path, split, pairs, source: Source, has_labels: bool, tally: _Tally, advance) -> None:
    """Writes a shard under another name, which it loses when it is whole."""
    import tensorflow as tf

    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        with tf.io.TFRecordWriter(str(unfinished)) as writer:
            for pair in pairs:
                if (pair.label is not None) != has_labels:
                    raise InputError(f"{pair.image_where}: expected all or no pictures of {split!r} with a label")
                serialized, size, note = encode_pair(pair, source)
                writer.write(serialized)
                tally.add(serialized, size)
                if note:
                    tally.converted[note].append(pair.name)
                advance()
    except tf.errors.OpError as error:
        raise InputError(f"{path}: cannot be written ({error.message})") from None
    os.replace(unfinished, path)


def encode_pair(pair: Pair, source: Source) -> tuple[bytes, tuple[int, int], str]:
    """Checks one pair; returns its serialised record, its (height, width) and what its image was converted from."""
    from nas_seg.datasets import example, records

    data = pictures.read_bytes(pair.image, pair.image_where)
    image = pictures.decode_image(data, pair.image_where)
    size, image_format = image.array.shape[:2], image.format
    if image.note:
        data, image_format = pictures.encode_png(image.array), "png"
    label_data = None
    if pair.label is not None:
        label_data = pictures.read_bytes(pair.label, pair.label_where)
        label = labels.decode(label_data, pair.label_where, source.coding, source.descriptor)
        if label.array.shape != size:
            raise InputError(
                f"{pair.label_where}: expected {size[0]}x{size[1]} as {pair.image_where} has, "
                f"received {label.array.shape[0]}x{label.array.shape[1]}"
            )
        records.check_range(label.array, source.descriptor, pair.label_where)
        # Asked for one channel, decoders give a palette's luminance and stretch 1-bit values to 255: store 8-bit gray.
        if not label.storable:
            label_data = pictures.encode_png(label.array.astype(np.uint8))
    return example.encode(data, label_data, name=pair.name, image_format=image_format, size=size), size, image.note


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
