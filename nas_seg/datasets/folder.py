"""Your own pictures: a folder of images and a folder of label pictures, matched by file name.

Either `SOURCE/<split>/images` and `SOURCE/<split>/labels` for each split (the split `test` may lack labels), or
`SOURCE/images` and `SOURCE/labels`, cut into train and val by a seeded draw. The classes come from
`SOURCE/classes.json`, {"names": [...], "colors": [[r, g, b], ...], "ignore_label": 255}, of which only the names are
required, or from the arguments.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from nas_seg import common
from nas_seg.datasets.descriptors import DatasetDescriptor
from nas_seg.datasets.source import Pair, Source, pair_folders, require_folder
from nas_seg.utils import config
from nas_seg.utils.colormap import pascal_colormap
from nas_seg.utils.errors import InputError

CLASSES_FILE = "classes.json"
IGNORE_LABEL = 255


@dataclasses.dataclass(frozen=True)
class Classes:
    """The content of classes.json."""

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...] | None = None
    ignore_label: int = IGNORE_LABEL


def read_source(
    source_dir: str | os.PathLike,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] = (),
    ignore_label: int | None = None,
    val_fraction: float = 0.2,
    seed: int = 0,
) -> Source:
    """Reads a folder of images and labels.

    Args:
        source_dir: the folder.
        num_classes: how many classes, when they have no names.
        class_names: their names; they win over classes.json, as does `ignore_label`.
        ignore_label: the label to leave out; None: as classes.json says, else 255.
        val_fraction: share of the pictures for val, where the folder has no splits.
        seed: draws which pictures these are.

    Raises:
        InputError: naming the folder, file or flag that is missing or disagrees.
    """
    root = require_folder(pathlib.Path(source_dir))
    classes = _read_classes(root, num_classes, tuple(class_names), ignore_label)
    descriptor = DatasetDescriptor(
        name=root.resolve().name,
        num_classes=len(classes.names),
        class_names=classes.names,
        colors=classes.colors or pascal_colormap(len(classes.names)),
        ignore_label=classes.ignore_label,
        splits={},
    )
    if (root / "images").is_dir():
        pairs = pair_folders(root / "images", root / "labels")
        return Source(descriptor, _split_at_random(pairs, val_fraction, seed, root))
    names = sorted(path.name for path in root.iterdir() if (path / "images").is_dir())
    if not names:
        raise InputError(f"{root}: expected images/ and labels/, or folders such as train/images, found neither")
    # train, val and test first, in this order, then whatever else there is.
    first = [common.TRAIN_SPLIT, common.VAL_SPLIT, common.TEST_SPLIT]
    names.sort(key=lambda name: (first.index(name) if name in first else len(first), name))
    return Source(descriptor, {name: _read_split(root / name) for name in names})


def _read_split(folder: pathlib.Path) -> list[Pair]:
    labels = folder / "labels"
    if folder.name == common.TEST_SPLIT and not labels.exists():
        return pair_folders(folder / "images", None)
    return pair_folders(folder / "images", labels)


def _split_at_random(pairs: list[Pair], fraction: float, seed: int, root: pathlib.Path) -> dict[str, list[Pair]]:
    if not 0 < fraction < 1:
        raise InputError(f"val_fraction: expected more than 0 and less than 1, received {fraction}")
    if len(pairs) < 2:
        raise InputError(f"{root / 'images'}: expected at least 2 images to cut into train and val, found {len(pairs)}")
    count = min(max(round(len(pairs) * fraction), 1), len(pairs) - 1)
    drawn = set(np.random.default_rng(seed).permutation(len(pairs))[:count].tolist())
    return {
        common.TRAIN_SPLIT: [pair for i, pair in enumerate(pairs) if i not in drawn],
        common.VAL_SPLIT: [pair for i, pair in enumerate(pairs) if i in drawn],
    }


def _read_classes(
    root: pathlib.Path, num_classes: int | None, names: tuple[str, ...], ignore_label: int | None
) -> Classes:
    path = root / CLASSES_FILE
    if names:
        classes = Classes(names)
    elif num_classes is not None:
        classes = Classes(tuple(f"class_{i}" for i in range(num_classes)))
    elif path.exists():
        classes = config.from_json(Classes, config.read_json(path), str(path))
    else:
        raise InputError(f"{root}: expected {CLASSES_FILE} in it, or --class_names, or --num_classes")
    if num_classes is not None and num_classes != len(classes.names):
        raise InputError(f"num_classes: expected {len(classes.names)}, one a class name, received {num_classes}")
    return classes if ignore_label is None else dataclasses.replace(classes, ignore_label=ignore_label)
