"""Cityscapes, fine and coarse, from its folders or from the official zip archives.

    leftImg8bit/{train,val,test,train_extra}/CITY/CITY_SEQUENCE_FRAME_leftImg8bit.png
    gtFine/{train,val,test}/CITY/CITY_SEQUENCE_FRAME_gtFine_labelIds.png
    gtCoarse/{train,val,train_extra}/CITY/CITY_SEQUENCE_FRAME_gtCoarse_labelIds.png

Of the 34 label ids 19 are evaluated: they are the classes ("train ids"), in this order; all others are ignored. Where
there are only `_labelTrainIds.png`, which the cityscapesScripts make, those are read.
"""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from nas_seg.datasets.archives import File, find_files
from nas_seg.datasets.descriptors import KNOWN
from nas_seg.datasets.labels import Coding
from nas_seg.datasets.source import Pair, Source, contents, require_folder
from nas_seg.utils.errors import InputError, unknown

# The label id of each class (cityscapesScripts, helpers/labels.py); what a submission holds.
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_NUM_IDS = 34
_IGNORE = KNOWN["cityscapes"].ignore_label
# 255 is what license plates, id -1, become in a picture of 8 bits.
_VALUES = tuple(LABEL_IDS.index(i) if i in LABEL_IDS else _IGNORE for i in range(_NUM_IDS)) + (-1,) * 221 + (_IGNORE,)
# DeepLab's builder writes ten shards a split.
_NUM_SHARDS = 10
_IMAGES = "leftImg8bit"
_FRAME = r"[^/]+_\d{6}_\d{6}"


class Split(NamedTuple):
    """Where a split's labels are, the folders of it, and whether it is built without being asked for."""

    labels: str
    folders: tuple[str, ...]
    default: bool


# DeepLab's names and sizes: 2975, 500, 1525, 3475, 22973 and 23473 pictures.
SPLITS = {
    "train_fine": Split("gtFine", ("train",), True),
    "val_fine": Split("gtFine", ("val",), True),
    "test_fine": Split("gtFine", ("test",), True),
    "trainval_fine": Split("gtFine", ("train", "val"), False),
    "train_coarse": Split("gtCoarse", ("train", "train_extra"), False),
    "trainval_coarse": Split("gtCoarse", ("train", "train_extra", "val"), False),
}


def read_source(
    source_dir: str | os.PathLike | None = None,
    *,
    cityscapes_root: str | os.PathLike | None = None,
    splits: Sequence[str] = (),
) -> Source:
    """Reads the folder with leftImg8bit/ and gtFine/, or with leftImg8bit_trainvaltest.zip and the like.

    Args:
        source_dir: the folder.
        cityscapes_root: another name of it.
        splits: of `SPLITS`; none: those of the fine labels whose images are there.

    Raises:
        InputError: naming the folder, archive or picture that is missing.
    """
    if not source_dir and not cityscapes_root:
        raise InputError("--source_dir: expected the folder of leftImg8bit and gtFine")
    root = require_folder(pathlib.Path(source_dir or cityscapes_root))
    for split in splits:
        if split not in SPLITS:
            raise InputError(f"--splits: {unknown('split', split, SPLITS)}")
    images = _files(root, _IMAGES, rf"{_IMAGES}/(\w+)/[^/]+/({_FRAME})_{_IMAGES}\.(?:png|jpe?g)")
    if not images:
        raise InputError(
            f"{root}: expected {_IMAGES}/SPLIT/CITY/CITY_SEQUENCE_FRAME_{_IMAGES}.png, as a folder or in "
            f"{_IMAGES}_trainvaltest.zip, found {contents(root)}"
        )
    there = {folder for folder, _ in images}
    chosen = splits or [name for name, split in SPLITS.items() if split.default and set(split.folders) <= there]
    if not chosen:
        raise InputError(f"{root}/{_IMAGES}: expected train/, val/ or test/, found {', '.join(sorted(there))}")
    kinds = {SPLITS[name].labels for name in chosen}
    labels, coding = _label_files(root, kinds)
    pairs = {name: _pairs(root, SPLITS[name], images, labels) for name in chosen}
    return Source(KNOWN["cityscapes"], pairs, coding, _NUM_SHARDS)


Files = dict[tuple[str, str], File]  # (folder, frame) -> file


def _files(root: pathlib.Path, top: str, pattern: str) -> Files:
    matches = ((re.fullmatch(pattern, path), file) for path, file in find_files(root, top).items())
    return {match.groups(): file for match, file in matches if match}


def _label_files(root: pathlib.Path, kinds: set[str]) -> tuple[dict[str, Files], Coding]:
    """The labels of each kind, and how they are coded: label ids, or else train ids."""
    for ids, coding in (("labelIds", Coding(values=_VALUES)), ("labelTrainIds", Coding())):
        found = {kind: _files(root, kind, rf"{kind}/(\w+)/[^/]+/({_FRAME})_{kind}_{ids}\.png") for kind in kinds}
        if any(found.values()):
            return found, coding
    missing = sorted(kinds)[0]
    raise InputError(
        f"{root}: expected {missing}/SPLIT/CITY/CITY_SEQUENCE_FRAME_{missing}_labelIds.png, as a folder or in "
        f"{missing}*.zip, found {contents(root)}"
    )


def _pairs(root: pathlib.Path, split: Split, images: Files, labels: dict[str, Files]) -> list[Pair]:
    kind, pairs = split.labels, []
    for folder in split.folders:
        frames = [frame for place, frame in images if place == folder]
        if not frames:
            raise InputError(f"{root}: expected {_IMAGES}/{folder}/ as a folder or in {_IMAGES}*.zip, found none")
        labelled = {frame for place, frame in labels[kind] if place == folder}
        for frame in frames:
            # The labels of the test pictures are not public; what the archives hold for them is void all over.
            if frame not in labelled and (labelled or folder != "test"):
                city = frame.split("_")[0]
                raise InputError(
                    f"{root}/{kind}/{folder}/{city}: expected a label '{frame}_{kind}_...Ids.png', found none"
                )
            pairs.append(Pair(f"{frame}_{_IMAGES}", images[folder, frame], labels[kind].get((folder, frame))))
    return pairs


def submission_name(name: str) -> str:
    """The file that the evaluation server finds a picture's labels by: CITY_SEQUENCE_FRAME_labelIds.png.

    Raises:
        InputError: for a name that is none of a Cityscapes picture.
    """
    match = re.match(_FRAME, pathlib.PurePosixPath(name).name)
    if not match:
        raise InputError(f"picture {name!r}: expected a name such as berlin_000000_000019_leftImg8bit")
    return f"{match.group()}_labelIds.png"
