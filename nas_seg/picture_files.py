"""Which pictures a path means, and their pixels: a file or its frames, a folder, or the numbered frames of a video."""

from __future__ import annotations

import functools
import glob
import os
import pathlib
import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from PIL import Image

from nas_seg.datasets import pictures
from nas_seg.datasets.source import IMAGE_SUFFIXES, contents
from nas_seg.utils.errors import InputError

# Pillow decodes their frames; those of the others ffmpeg makes.
FRAMES_SUFFIXES = (".gif", ".tif", ".tiff", ".webp")
VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
# frame_%05d.png, as ffmpeg names frames.
_NUMBER = re.compile(r"%0?(\d*)d")


class Frame(NamedTuple):
    """One picture of a file that holds several; it is named like a file of its own."""

    path: pathlib.Path
    index: int

    @property
    def stem(self) -> str:
        return f"{self.path.stem}_{self.index:05d}"

    @property
    def name(self) -> str:
        return f"{self.path.name}_{self.index:05d}"

    def __str__(self) -> str:
        return f"{self.path}, frame {self.index}"


def find_images(place: str | os.PathLike) -> list[pathlib.Path | Frame]:
    """The pictures at a place, in the order of their names, whose numbers count as numbers: 9.png before 10.png.

    Args:
        place: a file, of an animated GIF or WebP and of a TIFF with pages every frame; a folder, of which the JPEG and
            PNG files are meant; a pattern of file names, `frames/*.jpg` or `frames/%05d.png`.

    Raises:
        InputError: where nothing is found; a video file is refused, its frames are wanted.
    """
    path = pathlib.Path(place)
    if path.is_file():
        return _frames(path) if path.suffix.lower() in FRAMES_SUFFIXES else [_no_video(path)]
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


def read_image(path: str | os.PathLike | Frame) -> np.ndarray:
    """A JPEG or PNG file, or a frame, as RGB, uint8 [H, W, 3]; InputError names what cannot be read or decoded."""
    if isinstance(path, Frame):
        return _read_frame(path)
    return pictures.decode_image(pictures.read_bytes(pathlib.Path(path), path), path).array


def output_names(paths: Iterable[pathlib.Path | Frame]) -> list[str]:
    """A name for what is made of each: its stem, or its whole name where two files have one stem.

    Raises:
        InputError: where two files have one name, in different folders.
    """
    paths = list(paths)
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        names = [path.name for path in paths]
    seen: dict[str, pathlib.Path | Frame] = {}
    for name, path in zip(names, paths, strict=True):
        if name in seen:
            raise InputError(f"{path}: expected pictures of different names, {seen[name]} has the same")
        seen[name] = path
    return names


def _frames(path: pathlib.Path) -> list[Frame]:
    try:
        count = getattr(_opened(path, path.stat().st_mtime_ns), "n_frames", 1)
    except Exception as error:  # Pillow's plugins raise many unrelated types for bytes that are none of theirs.
        raise InputError(f"{path}: expected a GIF, WebP or TIFF file, it cannot be decoded ({error})") from None
    return [Frame(path, index) for index in range(count)]


def _read_frame(frame: Frame) -> np.ndarray:
    try:
        picture = _opened(frame.path, frame.path.stat().st_mtime_ns)
        picture.seek(frame.index)
        if picture.mode[0] in "IF":
            raise InputError(f"{frame}: expected 8 bits a channel, received mode {picture.mode}")
        return np.asarray(picture.convert("RGB"))
    except InputError:
        raise
    except Exception as error:  # As above.
        raise InputError(f"{frame}: expected a picture, it cannot be decoded ({error})") from None


@functools.lru_cache(maxsize=1)
def _opened(path: pathlib.Path, _modified: int) -> Image.Image:
    """The file that was asked for last stays open: a frame is made from the one before it."""
    return Image.open(path)


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
