"""Where pictures come from before they are records: pairs of image and label, by split."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from nas_seg import common
from nas_seg.datasets.archives import File, ZipMember
from nas_seg.datasets.descriptors import DatasetDescriptor
from nas_seg.datasets.labels import INDICES, Coding
from nas_seg.utils.errors import InputError, unknown

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
LABEL_SUFFIXES = (".png",)
# DeepLab's builders write four shards a split, for most of its data sets.
NUM_SHARDS = 4


@dataclasses.dataclass(frozen=True)
class Pair:
    """An image and its label, each a file or encoded bytes; the label is None where there is none."""

    name: str
    image: File | bytes
    label: File | bytes | None

    @property
    def image_where(self) -> str:
        """How messages name the image."""
        return f"image {self.name}" if isinstance(self.image, bytes) else str(self.image)

    @property
    def label_where(self) -> str:
        """How messages name the label."""
        return f"label {self.name}" if isinstance(self.label, bytes) else str(self.label)


@dataclasses.dataclass(frozen=True)
class Source:
    """What records are built from.

    Attributes:
        descriptor: the data set, without splits yet.
        splits: the pairs of each split, in order.
        coding: what the label pictures hold.
        num_shards: files a split, if nothing else is asked for.
        notices: what whoever builds should be told of how the source was read.
    """

    descriptor: DatasetDescriptor
    splits: Mapping[str, Sequence[Pair]]
    coding: Coding = INDICES
    num_shards: int = NUM_SHARDS
    notices: tuple[str, ...] = ()

    def choose(self, names: Sequence[str]) -> Source:
        """The source with the named splits alone; an InputError with the nearest name for one that it has not."""
        for name in names:
            if name not in self.splits:
                raise InputError(f"--splits: {unknown('split', name, self.splits)}")
        return dataclasses.replace(self, splits={name: self.splits[name] for name in names})


def identity(pairs: Sequence[Pair]) -> str:
    """A digest that changes when a split's files do: their names, sizes and times, the content of encoded bytes.

    Pairs that are made when they are asked for say all that they depend on in an attribute of this name.
    """
    if hasattr(pairs, "identity"):
        return str(pairs.identity)
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(repr((pair.name, _stamp(pair.image), _stamp(pair.label))).encode())
    return digest.hexdigest()


def _stamp(file: File | bytes | None) -> object:
    if file is None:
        return None
    if isinstance(file, bytes):
        return hashlib.sha256(file).hexdigest()
    if isinstance(file, ZipMember):
        return str(file), file.info.file_size, file.info.CRC
    try:
        status = file.stat()
    except OSError:
        # Whoever reads it will name it.
        return str(file)
    return str(file.absolute()), status.st_size, status.st_mtime_ns


def require_folder(folder: pathlib.Path) -> pathlib.Path:
    """Returns `folder`; an InputError naming it if it is none."""
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder, found {'a file' if folder.exists() else 'none'}")
    return folder


def contents(folder: pathlib.Path, most: int = 6) -> str:
    """What a folder holds, for messages about a layout: "images/, notes.txt", or "nothing"."""
    names = [f"{path.name}/" if path.is_dir() else path.name for path in sorted(folder.iterdir())]
    shown = ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
    return shown or "nothing"


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


def pair_folders(
    images: pathlib.Path, labels: pathlib.Path | None, stems: Sequence[str] | None = None, label_suffix: str = ""
) -> list[Pair]:
    """Pairs images with labels of the same stem.

    Args:
        images: folder of JPEG or PNG images.
        labels: folder of PNG labels, or None when there are none.
        stems: which, and in what order; None for all images, sorted.
        label_suffix: what the stem of a label has after its image's, such as "_mask".

    Raises:
        InputError: naming the file that is missing, or a label that belongs to no image.
    """
    image_files = list_pictures(images, IMAGE_SUFFIXES)
    label_files = {}
    for stem, path in (list_pictures(labels, LABEL_SUFFIXES) if labels else {}).items():
        if stem.endswith(label_suffix):
            label_files[stem[: len(stem) - len(label_suffix)]] = path
    if stems is None:
        for stem in label_files:
            if stem not in image_files:
                raise InputError(f"{label_files[stem]}: expected an image of that name in {images}, found none")
    pairs = []
    for stem in stems if stems is not None else image_files:
        if stem not in image_files:
            raise InputError(f"{images}: expected an image {stem!r}, found none")
        if labels and stem not in label_files:
            raise InputError(f"{labels}: expected a label {stem + label_suffix + '.png'!r}, found none")
        pairs.append(Pair(stem, image_files[stem], label_files.get(stem)))
    return pairs


def split_at_random(pairs: Sequence[Pair], fraction: float, seed: int, where: object) -> dict[str, list[Pair]]:
    """Cuts pairs into train and val by a seeded draw; each gets one at least, and both keep the order.

    Raises:
        InputError: for a fraction outside (0, 1), or fewer than two pairs.
    """
    if seed < 0:
        raise InputError(f"seed: expected 0 or more, received {seed}")
    if not 0 < fraction < 1:
        raise InputError(f"val_fraction: expected more than 0 and less than 1, received {fraction}")
    if len(pairs) < 2:
        raise InputError(f"{where}: expected at least 2 images to cut into train and val, found {len(pairs)}")
    count = min(max(round(len(pairs) * fraction), 1), len(pairs) - 1)
    drawn = set(np.random.default_rng(seed).permutation(len(pairs))[:count].tolist())
    return {
        common.TRAIN_SPLIT: [pair for i, pair in enumerate(pairs) if i not in drawn],
        common.VAL_SPLIT: [pair for i, pair in enumerate(pairs) if i in drawn],
    }
