"""Where pictures come from before they are records: pairs of image and label, by split."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

from nas_seg.datasets.descriptors import DatasetDescriptor
from nas_seg.utils.errors import InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
LABEL_SUFFIXES = (".png",)


@dataclasses.dataclass(frozen=True)
class Pair:
    """An image and its label, each a file or encoded bytes; the label is None where there is none."""

    name: str
    image: pathlib.Path | bytes
    label: pathlib.Path | bytes | None

    @property
    def image_where(self) -> str:
        """How messages name the image."""
        return str(self.image) if isinstance(self.image, pathlib.Path) else f"image {self.name}"

    @property
    def label_where(self) -> str:
        """How messages name the label."""
        return str(self.label) if isinstance(self.label, pathlib.Path) else f"label {self.name}"


@dataclasses.dataclass(frozen=True)
class Source:
    """A descriptor without splits yet, and the pairs of each split in order."""

    descriptor: DatasetDescriptor
    splits: dict[str, Sequence[Pair]]


def require_folder(folder: pathlib.Path) -> pathlib.Path:
    """Returns `folder`; an InputError naming it if it is none."""
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder, found {'a file' if folder.exists() else 'none'}")
    return folder


def list_pictures(folder: pathlib.Path, suffixes: Sequence[str]) -> dict[str, pathlib.Path]:
    """The picture files of a folder by stem, sorted; refuses two files of one stem and an empty folder."""
    found: dict[str, pathlib.Path] = {}
    for path in sorted(require_folder(folder).iterdir()):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        if path.stem in found:
            raise InputError(f"{path}: expected one file of the name {path.stem!r}, found {found[path.stem].name} too")
        found[path.stem] = path
    if not found:
        raise InputError(f"{folder}: expected {', '.join(suffixes)} files, found none")
    return found


def pair_folders(images: pathlib.Path, labels: pathlib.Path | None, stems: Sequence[str] | None = None) -> list[Pair]:
    """Pairs images with labels of the same stem.

    Args:
        images: folder of JPEG or PNG images.
        labels: folder of PNG labels, or None when there are none.
        stems: which, and in what order; None for all images, sorted.

    Raises:
        InputError: naming the file that is missing, or a label that belongs to no image.
    """
    image_files = list_pictures(images, IMAGE_SUFFIXES)
    label_files = list_pictures(labels, LABEL_SUFFIXES) if labels else {}
    if stems is None:
        for stem in label_files:
            if stem not in image_files:
                raise InputError(f"{label_files[stem]}: expected an image of that name in {images}, found none")
    pairs = []
    for stem in stems if stems is not None else image_files:
        if stem not in image_files:
            raise InputError(f"{images}: expected an image {stem!r}, found none")
        if labels and stem not in label_files:
            raise InputError(f"{labels}: expected a label {stem + '.png'!r}, found none")
        pairs.append(Pair(stem, image_files[stem], label_files.get(stem)))
    return pairs
