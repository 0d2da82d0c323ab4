"""ADE20K as the MIT Scene Parsing benchmark has it: `images/{training,validation}` and `annotations/...` of grey PNGs.

A stored 0 is what belongs to no class. `ade20k` keeps the values, 151 of them with 0 ignored, as DeepLab does;
`ade20k_150` has the 150 classes from 0 on, and 255 ignored.
"""

from __future__ import annotations

import os
import pathlib

from nas_seg.datasets.descriptors import KNOWN
from nas_seg.datasets.labels import Coding
from nas_seg.datasets.source import Pair, Source, contents, pair_folders, require_folder
from nas_seg.utils.errors import InputError

_ROOTS = ("", "ADEChallengeData2016", "ADE20K/ADEChallengeData2016")
# split -> its folder, and how its files are called
_SPLITS = {"train": ("training", "ADE_train_"), "val": ("validation", "ADE_val_")}
_CODINGS = {
    "ade20k": Coding(),
    "ade20k_150": Coding(values=(255, *range(150))),
}


def read_source(
    name: str,
    source_dir: str | os.PathLike | None = None,
    *,
    train_image_folder: str | os.PathLike | None = None,
    train_image_label_folder: str | os.PathLike | None = None,
    val_image_folder: str | os.PathLike | None = None,
    val_image_label_folder: str | os.PathLike | None = None,
) -> Source:
    """Reads the folder, or the four folders that DeepLab's builder takes.

    Args:
        name: "ade20k" or "ade20k_150".
        source_dir: the folder with images/ and annotations/, or one above it. Files that lie there without
            training/ and validation/ are told apart by their names, ADE_train_... and ADE_val_...
        train_image_folder: the images of train, and so on.
        train_image_label_folder: see there.
        val_image_folder: see there.
        val_image_label_folder: see there.

    Raises:
        InputError: naming the folder or picture that is missing.
    """
    given = {
        "train": (train_image_folder, train_image_label_folder),
        "val": (val_image_folder, val_image_label_folder),
    }
    if any(folder for folders in given.values() for folder in folders):
        splits = {split: _read_given(split, *folders) for split, folders in given.items() if any(folders)}
    elif source_dir:
        splits = _read_layout(require_folder(pathlib.Path(source_dir)))
    else:
        raise InputError("--source_dir: expected the folder with images/ and annotations/")
    return Source(KNOWN[name], splits, _CODINGS[name])


def _read_given(split: str, images, labels) -> list[Pair]:
    if not images or not labels:
        raise InputError(f"--{split}_image_folder, --{split}_image_label_folder: expected both or neither")
    return pair_folders(pathlib.Path(images), pathlib.Path(labels))


def _read_layout(top: pathlib.Path) -> dict[str, list[Pair]]:
    root = next((top / path for path in _ROOTS if (top / path / "images").is_dir()), None)
    if root is None or not (root / "annotations").is_dir():
        raise InputError(
            f"{root or top}: expected images/ and annotations/, each with training/ and validation/, "
            f"found {contents(root or top)}"
        )
    images, labels = root / "images", root / "annotations"
    splits = {
        split: pair_folders(images / folder, labels / folder)
        for split, (folder, _) in _SPLITS.items()
        if (images / folder).is_dir()
    }
    if not splits:
        pairs = pair_folders(images, labels)
        for split, (_, prefix) in _SPLITS.items():
            splits[split] = [pair for pair in pairs if pair.name.startswith(prefix)]
        splits = {split: chosen for split, chosen in splits.items() if chosen}
    if not splits:
        raise InputError(
            f"{images}: expected training/ and validation/, or files ADE_train_... or ADE_val_..., found none"
        )
    return splits
