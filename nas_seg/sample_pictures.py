"""Some real pictures of a data set or a folder: to calibrate a quantised network on, to compare networks on."""

from __future__ import annotations

import os

import numpy as np
from PIL import Image

from nas_seg import picture_files
from nas_seg.datasets import synthetic
from nas_seg.datasets.descriptors import read_descriptor

# Height and width of drawn pictures where nothing says it.
_DRAWN = (192, 256)


def evenly(total: int, count: int) -> list[int]:
    """Up to `count` places of `total`, evenly spread: neighbours in a data set are often frames of one video."""
    count = min(count, total)
    return [(2 * i + 1) * total // (2 * count) for i in range(count)]


def of_split(dataset_dir: str | os.PathLike, split: str, count: int) -> list[np.ndarray]:
    """Up to `count` pictures of a split, uint8 RGB [H, W, 3] each; InputError where it cannot be read."""
    from nas_seg.datasets import example, records

    opened = records.open_split(dataset_dir, split)
    with records.translate_data_errors(dataset_dir, split):
        serialized = [opened.read(index).numpy() for index in evenly(opened.info.num_images, count)]
    where = f"{dataset_dir}, split {split!r}"
    return [np.asarray(example.decode(one, where).image) for one in serialized]


def of_folder(place: str | os.PathLike, count: int) -> list[np.ndarray]:
    """Up to `count` pictures of a folder or pattern; one that cannot be decoded is an InputError."""
    paths = picture_files.find_images(place)
    return [picture_files.read_image(paths[index]) for index in evenly(len(paths), count)]


def drawn(size: tuple[int, int], count: int) -> list[np.ndarray]:
    """Drawn street scenes (height, width), where there are no pictures."""
    return [synthetic.draw_scene(np.random.default_rng(seed), *size)[0] for seed in range(count)]


def resized(image: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """A picture brought to (height, width); None leaves it as it is."""
    if size is None or image.shape[:2] == tuple(size):
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def of_dataset(dataset_dir: str | os.PathLike, kind: str, count: int) -> tuple[list[np.ndarray], str]:
    """Up to `count` pictures of the split "train", "val" or whatever begins so, else of the first one.

    Returns:
        the pictures, and words that say whose they are.
    """
    splits = read_descriptor(dataset_dir).splits
    split = next((name for name in splits if name.startswith(kind)), next(iter(splits)))
    return of_split(dataset_dir, split, count), f"{split} of {dataset_dir}"


def to_calibrate(
    dataset_dir: str | os.PathLike | None, folder: str | os.PathLike | None, count: int, size: tuple[int, int] | None
) -> tuple[list[np.ndarray], str]:
    """Up to `count` real pictures brought to `size`, the folder's or else the data set's of train; words for them."""
    if folder:
        pictures, where = of_folder(folder, count), str(folder)
    else:
        pictures, where = of_dataset(dataset_dir, "train", count)
    return [resized(picture, size) for picture in pictures], f"{len(pictures)} pictures, {where}"


def to_compare(
    dataset_dir: str | os.PathLike | None,
    folder: str | os.PathLike | None,
    count: int,
    size: tuple[int, int] | None,
    *,
    largest: tuple[int, int] | None = None,
) -> tuple[list[np.ndarray], str]:
    """Up to `count` pictures to compare networks on, and words for them.

    They are the data set's of val, else the folder's, else drawn.

    Args:
        dataset_dir: folder with dataset.json, or None.
        folder: of pictures, or None.
        count: how many.
        size: (height, width) that they are brought to; None: only those larger than `largest` are, to that.
        largest: (height, width) that the network takes; None: any. Drawn pictures have this size.
    """
    if dataset_dir:
        pictures, where = of_dataset(dataset_dir, "val", count)
    elif folder:
        pictures, where = of_folder(folder, count), str(folder)
    else:
        pictures, where = drawn(size or largest or _DRAWN, count), "drawn scenes"

    def fitted(picture):
        too_large = largest and any(a > b for a, b in zip(picture.shape, largest, strict=False))
        return resized(picture, size or (largest if too_large else None))

    return [fitted(picture) for picture in pictures], f"{len(pictures)} pictures, {where}"
