"""CamVid with SegNet's eleven classes: `{train,val,test}/images/*.jpg`, `labels/*.png` and `{split}.txt` lists.

Labels are 0..10; 11 is void and stays the ignored label.
"""

from __future__ import annotations

import os
import pathlib

from nas_seg import common
from nas_seg.datasets.descriptors import KNOWN
from nas_seg.datasets.source import Source, pair_folders, require_folder
from nas_seg.utils.errors import InputError

SPLITS = (common.TRAIN_SPLIT, common.VAL_SPLIT, common.TEST_SPLIT)


def read_source(source_dir: str | os.PathLike) -> Source:
    """Reads the folder; without `{split}.txt` (one stem a line) a split is every image, sorted.

    Raises:
        InputError: naming the folder, list or picture that is missing.
    """
    root = require_folder(pathlib.Path(source_dir))
    splits = {}
    for split in SPLITS:
        if not (root / split).is_dir():
            continue
        stems = _read_list(root / f"{split}.txt")
        splits[split] = pair_folders(root / split / "images", root / split / "labels", stems)
    if not splits:
        raise InputError(f"{root}: expected folders {', '.join(SPLITS)} with images/ and labels/, found none of them")
    return Source(KNOWN["camvid"], splits)


def _read_list(path: pathlib.Path) -> list[str] | None:
    if not path.exists():
        return None
    stems = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not stems:
        raise InputError(f"{path}: expected one file name a line, found none")
    return stems
