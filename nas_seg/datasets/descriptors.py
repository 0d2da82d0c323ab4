"""What a dataset is: classes, colours, the ignored label and its splits, as `dataset.json` says it beside the shards.

Every tool reads `dataset.json`, so the number of classes is typed once, when the records are built.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib

from nas_seg.datasets import class_tables
from nas_seg.utils import config, runs
from nas_seg.utils.colormap import BLACK
from nas_seg.utils.errors import InputError, unknown

FILE_NAME = "dataset.json"


@dataclasses.dataclass(frozen=True)
class SplitInfo:
    """One split on disk.

    Attributes:
        num_images: records in all shards together.
        num_shards: shards, each with at least one record.
        has_labels: whether the records hold labels.
        digest: twelve hexadecimal digits over the encoded records in order.
        min_size: the smallest (height, width), each on its own, in pixels.
        max_size: the largest (height, width); equal to `min_size` when all pictures have one size.
    """

    num_images: int
    num_shards: int
    has_labels: bool
    digest: str
    min_size: tuple[int, int]
    max_size: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class DatasetDescriptor:
    """A labelled dataset.

    Attributes:
        name: for people.
        num_classes: labels are 0 .. num_classes - 1, or `ignore_label`.
        class_names: one a class.
        colors: one (red, green, blue) a class, 0..255.
        ignore_label: the label left out of loss and score, 0..255; it may be one of the classes.
        splits: what was written, by name.
    """

    name: str
    num_classes: int
    class_names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    ignore_label: int
    splits: dict[str, SplitInfo]

    def __post_init__(self):
        if not 1 <= self.num_classes <= 256:
            raise InputError(f"num_classes: expected 1 to 256, received {self.num_classes}")
        if not 0 <= self.ignore_label <= 255:
            raise InputError(f"ignore_label: expected 0 to 255, received {self.ignore_label}")
        for field, values in (("class_names", self.class_names), ("colors", self.colors)):
            if len(values) != self.num_classes:
                raise InputError(f"{field}: expected {self.num_classes}, one a class, received {len(values)}")
        if any(not 0 <= channel <= 255 for color in self.colors for channel in color):
            raise InputError(f"colors: expected channels of 0 to 255, received {self.colors}")
        for name in self.splits:
            # It becomes part of file names, which must stay in their folder.
            if pathlib.PurePath(name).name != name or name in ("", ".."):
                raise InputError(f"splits: expected names without a folder, received {name!r}")

    def split(self, name: str) -> SplitInfo:
        """The split `name`; an InputError with the nearest name if there is none."""
        if name not in self.splits:
            raise unknown("split", name, self.splits)
        return self.splits[name]


def _known(name: str, classes: class_tables.Classes, ignore_label: int) -> DatasetDescriptor:
    names, colors = zip(*classes, strict=True)
    return DatasetDescriptor(name, len(classes), names, colors, ignore_label, splits={})


# Datasets whose classes are known; a row has no splits until records are built from it.
KNOWN: dict[str, DatasetDescriptor] = {
    row.name: row
    for row in (
        _known("camvid", class_tables.CAMVID, ignore_label=11),
        _known("pascal_voc_seg", class_tables.PASCAL_VOC, ignore_label=255),
        _known("pascal_person_part", class_tables.PERSON_PART, ignore_label=255),
        _known("cityscapes", class_tables.CITYSCAPES, ignore_label=255),
        # As DeepLab has it: 0 is what belongs to no class, and is ignored.
        _known("ade20k", (("other", BLACK), *class_tables.ADE20K), ignore_label=0),
        _known("ade20k_150", class_tables.ADE20K, ignore_label=255),
    )
}


def find_own(run_dir: str | os.PathLike) -> str | None:
    """The records that a run was trained on, where it tells them and they are still there."""
    own = runs.own_dataset_dir(run_dir)
    return own if own and pathlib.Path(own, FILE_NAME).is_file() else None


def read_descriptor(dataset_dir: str | os.PathLike, *labelled: str | None) -> DatasetDescriptor:
    """Reads `dataset.json` of a folder that `build_data` wrote.

    Args:
        dataset_dir: the folder.
        *labelled: splits that must have labels; None is none.

    Raises:
        InputError: when the folder or the file is missing or does not hold a descriptor, or such a split.
    """
    folder = pathlib.Path(dataset_dir)
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder of records, found none")
    if not (folder / FILE_NAME).is_file():
        raise InputError(
            f"{folder}: expected {FILE_NAME} beside the records (tools/build_data.py writes both; "
            "with --dataset=records it writes the file for DeepLab's own)"
        )
    descriptor = config.load(folder / FILE_NAME, DatasetDescriptor)
    for name in filter(None, labelled):
        if not descriptor.split(name).has_labels:
            raise InputError(f"{folder}: split {name!r} has no labels")
    return descriptor
