"""Small pictures and datasets for the tests of nas_seg.datasets."""

import pathlib

import numpy as np
from PIL import Image

from nas_seg.datasets import build_data, pictures
from nas_seg.datasets.descriptors import DatasetDescriptor
from nas_seg.datasets.source import Pair, Source

CLASSES = DatasetDescriptor(
    name="small",
    num_classes=4,
    class_names=("a", "b", "c", "d"),
    colors=((0, 0, 0), (250, 0, 0), (0, 250, 0), (0, 0, 250)),
    ignore_label=255,
    splits={},
)


def coded_picture(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture whose every channel is 50 times its label, in blocks of 1 to 9 pixels."""
    blocks = rng.integers(0, 4, (height, width))
    size = rng.integers(1, 10)
    label = np.repeat(np.repeat(blocks, size, 0), size, 1)[:height, :width].astype(np.uint8)
    return np.repeat(label[..., None] * 50, 3, -1).astype(np.uint8), label


def pairs(sizes: list[tuple[int, int]], labels: bool = True, seed: int = 0) -> list[Pair]:
    """Coded pictures of the given sizes; as PNG, so that the code survives."""
    rng = np.random.default_rng(seed)
    made = []
    for i, (height, width) in enumerate(sizes):
        image, label = coded_picture(rng, height, width)
        made.append(Pair(f"p{i:03d}", pictures.encode_png(image), pictures.encode_png(label) if labels else None))
    return made


def build(folder: pathlib.Path, num_shards: int = 3, **splits: list[Pair]) -> pathlib.Path:
    """Writes records of the given splits and returns their folder."""
    build_data.build(Source(CLASSES, splits), folder, num_shards=num_shards)
    return folder


def save(path: pathlib.Path, array: np.ndarray, palette: bool = False) -> pathlib.Path:
    """Writes a picture file; with `palette`, its values are indices into bright colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (_palette(array) if palette else Image.fromarray(array)).save(path)
    return path


def _palette(array: np.ndarray) -> Image.Image:
    picture = Image.new("P", array.shape[::-1])
    picture.putdata(array.ravel().tolist())
    picture.putpalette([(37 * i + 90) % 256 for i in range(768)])
    return picture


def write_camvid(root: pathlib.Path, lists: bool = True) -> pathlib.Path:
    """A miniature of CamVid's folders: 3 train, 2 val, 2 test; lists in an order of their own."""
    rng = np.random.default_rng(5)
    for split, count in (("train", 3), ("val", 2), ("test", 2)):
        stems = [f"{split}{i}" for i in range(count)]
        for stem in stems:
            save(root / split / "images" / f"{stem}.jpg", rng.integers(0, 256, (12, 16, 3)).astype(np.uint8))
            save(root / split / "labels" / f"{stem}.png", rng.integers(0, 12, (12, 16)).astype(np.uint8))
        if lists:
            (root / f"{split}.txt").write_text("\n".join(reversed(stems)) + "\n")
    return root
