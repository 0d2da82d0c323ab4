"""Which picture files a path means, and their pixels: a file, a folder, or the numbered frames of a video."""

from __future__ import annotations

import glob
import os
import pathlib
import re
from collections.abc import Iterable

import numpy as np

from nas_seg.datasets import pictures
from nas_seg.datasets.source import IMAGE_SUFFIXES, contents
from nas_seg.utils.errors import InputError

VIDEO_SUFFIXES = (".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
# frame_%05d.png, as ffmpeg names frames.
_NUMBER = re.compile(r"%0?(\d*)d")


def find_images(place: str | os.PathLike) -> list[pathlib.Path]:
    """The pictures at a place, in the order of their names, whose numbers count as numbers: 9.png before 10.png.

    Args:
        place: a file; a folder, of which the JPEG and PNG files are meant; a pattern of file names, `frames/*.jpg` or
            `frames/%05d.png`.

    Raises:
        InputError: where nothing is found; a video file is refused, its frames are wanted.
    """
    path = pathlib.Path(place)
    if path.is_file():
        return [_no_video(path)]
    if path.is_dir():
        found = [file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.name[0] != "."]
        if not found:
            raise InputError(f"{path}: expected {', '.join(IMAGE_SUFFIXES)} files, found {contents(path)}")
    elif _NUMBER.search(path.name) and path.parent.is_dir():
        name = re.compile("".join(_digits(part, i % 2) for i, part in enumerate(_NUMBER.split(path.name))))
        found = [file for file in path.parent.iterdir() if name.fullmatch(file.name)]
    else:
        found = [pathlib.Path(file) for file in glob.glob(str(path), recursive=True) if os.path.isfile(file)]
    if not found:
        raise InputError(
            f"{path}: expected a picture, a folder of pictures, or a pattern such as frames/*.png or frames/%05d.png; "
            "found none"
        )
    return sorted(found, key=_natural)


def read_image(path: str | os.PathLike) -> np.ndarray:
    """A JPEG or PNG file as RGB, uint8 [H, W, 3]; InputError names one that cannot be read or decoded."""
    return pictures.decode_image(pictures.read_bytes(pathlib.Path(path), path), path).array


def output_names(paths: Iterable[pathlib.Path]) -> list[str]:
    """A name for what is made of each file: its stem, or its whole name where two files have one stem.

    Raises:
        InputError: where two files have one name, in different folders.
    """
    paths = list(paths)
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        names = [path.name for path in paths]
    seen: dict[str, pathlib.Path] = {}
    for name, path in zip(names, paths, strict=True):
        if name in seen:
            raise InputError(f"{path}: expected pictures of different names, {seen[name]} has the same")
        seen[name] = path
    return names


def _no_video(path: pathlib.Path) -> pathlib.Path:
    if path.suffix.lower() in VIDEO_SUFFIXES:
        raise InputError(
            f"{path}: expected pictures, received a video; its frames are: ffmpeg -i {path.name} frames/%05d.png"
        )
    return path


def _digits(part: str, is_number: int) -> str:
    """The pattern of a part of a name: the digits of a number's width or more, or the part itself."""
    return rf"\d{{{max(1, int(part or 1))},}}" if is_number else re.escape(part)


def _natural(path: pathlib.Path) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", str(path))
    return [(1, int(part), part) if i % 2 else (0, 0, part) for i, part in enumerate(parts)]
