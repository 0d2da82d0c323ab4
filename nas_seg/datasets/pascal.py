"""PASCAL VOC 2012 and PASCAL-Person-Part: a folder of images, folders of palette PNGs, lists of names by split.

| data set | images | labels | lists |
|---|---|---|---|
| pascal_voc_seg | JPEGImages | SegmentationClass (also ...Raw; ...Aug for train_aug) | ImageSets/Segmentation |
| pascal_person_part | JPEGImages | pascal_person_part_gt | pascal_person_part_trainval_list |

Labels are the indices of the palette; grey PNGs, as DeepLab's `remove_gt_colormap` and the augmented set have them, say
the same. Each list `NAME.txt` is a split; without lists the labelled pictures are cut into train and val.
"""

from __future__ import annotations

import os
import pathlib
from typing import NamedTuple

from nas_seg import common
from nas_seg.datasets.descriptors import KNOWN
from nas_seg.datasets.source import (
    IMAGE_SUFFIXES,
    LABEL_SUFFIXES,
    Pair,
    Source,
    contents,
    list_pictures,
    require_folder,
    split_at_random,
)
from nas_seg.utils.errors import InputError, unknown

_SUFFIXES = {"png": (".png",), "jpg": (".jpg", ".jpeg"), "jpeg": (".jpg", ".jpeg")}
# Lists by other names in circulation -> the split.
_SPLITS = {"trainaug": "train_aug", "train_id": "train", "val_id": "val", "test_id": "test"}
_AUGMENTED = "train_aug"


class Layout(NamedTuple):
    """Where a data set keeps its files, each a choice of folders below one of the roots; the first there is counts."""

    roots: tuple[str, ...]
    images: tuple[str, ...]
    labels: tuple[str, ...]
    augmented_labels: tuple[str, ...]
    lists: tuple[str, ...]


LAYOUTS = {
    "pascal_voc_seg": Layout(
        roots=("", "VOC2012", "VOCdevkit/VOC2012"),
        images=("JPEGImages", "images"),
        labels=("SegmentationClass", "SegmentationClassRaw", "SegmentationClassAug", "labels"),
        augmented_labels=("SegmentationClassAug", "SegmentationClassRaw", "SegmentationClass"),
        lists=("ImageSets/Segmentation",),
    ),
    "pascal_person_part": Layout(
        roots=("", "pascal_person_part", "VOC2010", "VOCdevkit/VOC2010"),
        images=("JPEGImages", "images"),
        labels=("pascal_person_part_gt", "SegmentationPart", "labels"),
        augmented_labels=(),
        lists=("pascal_person_part_trainval_list", "ImageSets/Person_Part", "lists"),
    ),
}


class _Places(NamedTuple):
    """The folders found; `lists` is None where there are no lists."""

    root: pathlib.Path
    images: pathlib.Path
    labels: list[pathlib.Path]
    augmented_labels: list[pathlib.Path]
    lists: pathlib.Path | None


def read_source(
    name: str,
    source_dir: str | os.PathLike | None = None,
    *,
    image_folder: str | os.PathLike | None = None,
    semantic_segmentation_folder: str | os.PathLike | None = None,
    list_folder: str | os.PathLike | None = None,
    image_format: str | None = None,
    splits: tuple[str, ...] = (),
    val_fraction: float = 0.2,
    seed: int = 0,
) -> Source:
    """Reads the data set.

    Args:
        name: a row of `LAYOUTS`.
        source_dir: its folder, or one above; not needed when the next two are given.
        image_folder: the images, wherever they are.
        semantic_segmentation_folder: the labels.
        list_folder: the lists.
        image_format: take only files of this format: png, jpg or jpeg.
        splits: which; none: every list.
        val_fraction: share of val where there are no lists.
        seed: draws val then.

    Raises:
        InputError: naming the folder, list or picture that is missing.
    """
    layout, descriptor = LAYOUTS[name], KNOWN[name]
    places = _find(layout, source_dir, image_folder, semantic_segmentation_folder, list_folder)
    if image_format is not None and image_format not in _SUFFIXES:
        raise InputError(f"--image_format: {unknown('format', image_format, _SUFFIXES)}")
    images = list_pictures(places.images, _SUFFIXES.get(image_format, IMAGE_SUFFIXES))
    if places.lists is None:
        stems = [stem for stem in _label_files(places.labels) if stem in images]
        pairs = _pair(images, stems, places, augmented=False)
        cut = split_at_random(pairs, val_fraction, seed, places.root)
        found = f"{places.root}: no {layout.lists[0]}/, its {len(pairs)} labelled pictures are cut into "
        notice = found + ", ".join(f"{len(part)} {split}" for split, part in cut.items())
        return Source(descriptor, cut, notices=(notice,)).choose(splits or list(cut))
    lists = _lists(places.lists)
    for split in splits:
        if split not in lists:
            raise InputError(f"--splits: {unknown('split', split, lists)}")
    return Source(
        descriptor,
        {
            split: _pair(
                images, _read_list(lists[split]), places, split == _AUGMENTED, labelled=split != common.TEST_SPLIT
            )
            for split in splits or lists
        },
    )


def _find(layout: Layout, source_dir, image_folder, label_folder, list_folder) -> _Places:
    given_images, given_labels, given_lists = (
        require_folder(pathlib.Path(folder)) if folder else None for folder in (image_folder, label_folder, list_folder)
    )
    if not source_dir and not (given_images and given_labels):
        raise InputError(
            "--source_dir: expected the data set's folder, or --image_folder and --semantic_segmentation_folder"
        )
    top = require_folder(pathlib.Path(source_dir)) if source_dir else given_images.parent
    for root in (top / path for path in layout.roots):
        images = given_images or next(iter(_existing(root, layout.images)), None)
        labels = [given_labels] if given_labels else _existing(root, layout.labels)
        if images and labels:
            augmented = [given_labels] if given_labels else _existing(root, layout.augmented_labels)
            lists = given_lists or next(iter(_existing(root, layout.lists)), None)
            return _Places(root, images, labels, augmented or labels, lists)
    raise InputError(
        f"{top}: expected {layout.images[0]}/, {layout.labels[0]}/ and {layout.lists[0]}/ in it or in "
        f"{layout.roots[-1]}/, found {contents(top)}"
    )


def _existing(root: pathlib.Path, folders: tuple[str, ...]) -> list[pathlib.Path]:
    return [root / folder for folder in folders if (root / folder).is_dir()]


def _lists(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    found: dict[str, pathlib.Path] = {}
    for path in sorted(folder.glob("*.txt")):
        split = _SPLITS.get(path.stem, path.stem)
        if split in found:
            raise InputError(f"{path}: expected one list of the split {split!r}, found {found[split].name} too")
        found[split] = path
    if not found:
        raise InputError(f"{folder}: expected lists such as train.txt, found {contents(folder)}")
    return found


def _read_list(path: pathlib.Path) -> list[str]:
    """The stems of a list: one a line, alone or as the paths of image and label."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    stems = [pathlib.PurePosixPath(line.split()[0]) for line in lines if line.strip()]
    if not stems:
        raise InputError(f"{path}: expected one file name a line, found none")
    # Names in lists have no suffix, paths have: 2007_000032 or /JPEGImages/2007_000032.jpg.
    return [stem.stem if stem.suffix.lower() in IMAGE_SUFFIXES else stem.name for stem in stems]


def _label_files(folders: list[pathlib.Path]) -> dict[str, pathlib.Path]:
    """Label files by stem, sorted; the first folder that has one wins."""
    files: dict[str, pathlib.Path] = {}
    for folder in reversed(folders):
        files |= list_pictures(folder, LABEL_SUFFIXES)
    return dict(sorted(files.items()))


def _pair(
    images: dict[str, pathlib.Path], stems: list[str], places: _Places, augmented: bool, labelled: bool = True
) -> list[Pair]:
    folders = places.augmented_labels if augmented else places.labels
    labels = _label_files(folders) if labelled else {}
    pairs = []
    for stem in stems:
        if stem not in images:
            raise InputError(f"{places.images}: expected an image {stem!r}, found none")
        if labelled and stem not in labels:
            where = ", ".join(map(str, folders))
            hint = " (the labels of train_aug are SegmentationClassAug/)" if augmented else ""
            raise InputError(f"{where}: expected a label {stem + '.png'!r}, found none{hint}")
        pairs.append(Pair(stem, images[stem], labels.get(stem)))
    return pairs
