"""Your own pictures: a folder of images and a folder of label pictures, matched by file name.

Either `SOURCE/<split>/images` and `SOURCE/<split>/labels` for each split (the split `test` may lack labels), or
`SOURCE/images` and `SOURCE/labels`, or two folders of any names, cut into train and val by a seeded draw. The classes
come from `SOURCE/classes.json`, {"names": [...], "colors": [[r, g, b], ...], "ignore_label": 255}, of which only the
names are required, or from the arguments.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

from nas_seg import common
from nas_seg.datasets import labels
from nas_seg.datasets.classes import FILE_NAME, read_classes
from nas_seg.datasets.source import Pair, Source, contents, pair_folders, require_folder, split_at_random
from nas_seg.utils.errors import InputError

CLASSES_FILE = FILE_NAME


def read_source(
    source_dir: str | os.PathLike | None = None,
    *,
    image_folder: str | os.PathLike | None = None,
    semantic_segmentation_folder: str | os.PathLike | None = None,
    label_suffix: str = "",
    classes: str | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] = (),
    ignore_label: int | None = None,
    label_colors: str | None = None,
    label_values: Sequence[str] = (),
    val_fraction: float = 0.2,
    seed: int = 0,
    any_value: bool = False,
) -> Source:
    """Reads a folder of images and labels.

    Args:
        source_dir: the folder.
        image_folder: the images, instead of `source_dir`, together with
        semantic_segmentation_folder: their labels.
        label_suffix: what a label's stem has after its image's, such as "_mask".
        classes: a known data set that has the same classes.
        num_classes: how many classes, when they have no names.
        class_names: their names; they win over classes.json, as does `ignore_label`.
        ignore_label: the label to leave out; None: as classes.json says, else 255.
        label_colors: see `labels.color_coding`; without other names the file's names are the classes.
        label_values: see `labels.value_coding`.
        val_fraction: share of the pictures for val, where the folder has no splits.
        seed: draws which pictures these are.
        any_value: take every value for a class where nothing says what the classes are.

    Raises:
        InputError: naming the folder, file or flag that is missing or disagrees.
    """
    root, images, masks = _folders(source_dir, image_folder, semantic_segmentation_folder)
    descriptor = read_classes(
        classes=classes,
        class_names=class_names,
        num_classes=num_classes,
        ignore_label=ignore_label,
        label_colors=label_colors,
        file=root / CLASSES_FILE,
        where=str(root),
        any_value=any_value,
    ).describe(root.resolve().name)
    coding = labels.value_coding(label_values) if label_values else labels.INDICES
    coding = labels.color_coding(label_colors, descriptor) if label_colors else coding
    if images.is_dir():
        pairs = pair_folders(images, masks, label_suffix=label_suffix)
        return Source(descriptor, split_at_random(pairs, val_fraction, seed, images), coding)
    names = sorted(path.name for path in root.iterdir() if (path / "images").is_dir())
    if not names:
        raise InputError(
            f"{root}: expected images/ and labels/, or folders such as train/images, found neither but "
            f"{contents(root)}; --image_folder and --semantic_segmentation_folder name others"
        )
    # train, val and test first, in this order, then whatever else there is.
    first = [common.TRAIN_SPLIT, common.VAL_SPLIT, common.TEST_SPLIT]
    names.sort(key=lambda name: (first.index(name) if name in first else len(first), name))
    return Source(descriptor, {name: _read_split(root / name, label_suffix) for name in names}, coding)


def _folders(source_dir, image_folder, label_folder) -> tuple[pathlib.Path, pathlib.Path, pathlib.Path]:
    """The folder of classes.json, of the images and of the labels; the last two need not exist."""
    if bool(image_folder) != bool(label_folder):
        raise InputError("--image_folder, --semantic_segmentation_folder: expected both or neither")
    if image_folder:
        images = require_folder(pathlib.Path(image_folder))
        root = require_folder(pathlib.Path(source_dir)) if source_dir else images.absolute().parent
        return root, images, require_folder(pathlib.Path(label_folder))
    if not source_dir:
        raise InputError("--source_dir: expected the folder of the pictures, or --image_folder")
    root = require_folder(pathlib.Path(source_dir))
    return root, root / "images", root / "labels"


def _read_split(folder: pathlib.Path, label_suffix: str) -> list[Pair]:
    masks = folder / "labels"
    if folder.name == common.TEST_SPLIT and not masks.exists():
        return pair_folders(folder / "images", None)
    return pair_folders(folder / "images", masks, label_suffix=label_suffix)
