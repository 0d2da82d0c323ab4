"""Small pictures and datasets for the tests of nas_seg.datasets."""

import pathlib
import shutil
import zipfile

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


def write_cityscapes(root: pathlib.Path, coarse: bool = False, zipped: bool = False) -> pathlib.Path:
    """A miniature in Cityscapes' exact layout: 2 pictures a split of two cities; every label id occurs in each.

    With `zipped` it lies in archives named as the official ones, beside their licence.
    """
    rng = np.random.default_rng(7)
    kinds = {"gtFine": ("train", "val", "test")} | ({"gtCoarse": ("train", "val", "train_extra")} if coarse else {})
    for split in sorted({split for splits in kinds.values() for split in splits}):
        for city in ("aachen", "berlin"):
            frame = f"{city}_000000_000019"
            image = rng.integers(0, 256, (8, 12, 3)).astype(np.uint8)
            save(root / "leftImg8bit" / split / city / f"{frame}_leftImg8bit.png", image)
            for kind in (kind for kind, splits in kinds.items() if split in splits):
                ids = rng.permutation(np.arange(96) % 34).reshape(8, 12).astype(np.uint8)
                folder = root / kind / split / city
                save(folder / f"{frame}_{kind}_labelIds.png", ids)
                save(folder / f"{frame}_{kind}_color.png", image)
    if zipped:
        archives = {"leftImg8bit_trainvaltest": "leftImg8bit", "gtFine_trainvaltest": "gtFine", "gtCoarse": "gtCoarse"}
        for archive, top in archives.items():
            _zip_folder(root / f"{archive}.zip", root, top)
    return root


def _zip_folder(path: pathlib.Path, root: pathlib.Path, top: str) -> None:
    """Moves `root`/`top` into an archive."""
    if not (root / top).exists():
        return
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("license.txt", "terms")
        for file in sorted((root / top).rglob("*")):
            archive.write(file, file.relative_to(root).as_posix())
    shutil.rmtree(root / top)
