"""dataset.json for shards that have none, such as those of DeepLab's own builders: every record is read and checked."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import re

from nas_seg.datasets.descriptors import FILE_NAME, DatasetDescriptor, SplitInfo
from nas_seg.datasets.source import contents, require_folder
from nas_seg.utils import config
from nas_seg.utils.errors import InputError
from nas_seg.utils.progress import progress

_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.tfrecord")


def write_descriptor(
    records_dir: str | os.PathLike, classes: DatasetDescriptor, *, overwrite: bool = False
) -> DatasetDescriptor:
    """Writes dataset.json beside the shards `SPLIT-00000-of-00004.tfrecord` of a folder.

    Args:
        records_dir: the folder.
        classes: names, colours and the ignored label.
        overwrite: replace a dataset.json that is there.

    Returns:
        What was written.

    Raises:
        InputError: naming the shard that is missing, or the record that is damaged, not DeepLab's, or labelled with
            other values than the classes'.
    """
    folder = require_folder(pathlib.Path(records_dir))
    if (folder / FILE_NAME).exists() and not overwrite:
        raise InputError(f"{folder / FILE_NAME}: is there already; --overwrite replaces it")
    splits = {
        split: _describe_split(folder, split, num_shards, classes) for split, num_shards in _shards(folder).items()
    }
    descriptor = dataclasses.replace(classes, splits=splits)
    config.save(folder / FILE_NAME, descriptor)
    return descriptor


def _shards(folder: pathlib.Path) -> dict[str, int]:
    """Number of shards of each split."""
    found: dict[str, int] = {}
    for path in sorted(folder.iterdir()):
        match = _SHARD.fullmatch(path.name)
        if not match:
            continue
        split, count = match.group(1), int(match.group(3))
        if found.setdefault(split, count) != count:
            raise InputError(f"{path}: expected shards of {found[split]} as the split's first, received one of {count}")
    if not found:
        raise InputError(f"{folder}: expected shards such as train-00000-of-00004.tfrecord, found {contents(folder)}")
    return found


def _describe_split(folder: pathlib.Path, split: str, num_shards: int, classes: DatasetDescriptor) -> SplitInfo:
    from nas_seg.datasets import example, records

    paths, shard, offset = records.find_records(folder, split, num_shards)
    digest, sizes, has_labels = hashlib.sha256(), [], None
    if not len(offset):
        raise InputError(f"{folder / split}-*: expected records, found none")
    with progress(f"reading {split}", len(offset)) as bar:
        in_order = (item for i, path in enumerate(paths) for item in records.read_shard(path, offset[shard == i]))
        for where, serialized in in_order:
            record = example.decode(serialized, where)
            if has_labels not in (None, record.label is not None):
                raise InputError(f"{where}: expected all or no records of {split!r} with a label")
            has_labels = record.label is not None
            if has_labels:
                records.check_range(record.label, classes, where)
            digest.update(serialized)
            sizes.append(record.image.shape[:2])
            bar.advance()
    smallest, largest = (tuple(pick(axis) for axis in zip(*sizes, strict=True)) for pick in (min, max))
    return SplitInfo(len(sizes), num_shards, has_labels, digest.hexdigest()[:12], smallest, largest)
