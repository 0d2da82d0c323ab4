"""What a trained network's run folder tells of its scores and its pictures."""

from __future__ import annotations

import base64
import dataclasses
import io
import math
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from PIL import Image, UnidentifiedImageError

from nas_seg.utils import config
from nas_seg.utils.errors import InputError

_PICTURE_WIDTH = 900
_JPEG_QUALITY = 85


@dataclasses.dataclass(frozen=True)
class NetworkResult:
    """The scores of a trained network on one split.

    Attributes:
        run_dir: its run folder.
        split: what was scored.
        miou: mean over the classes, or None where no class is present.
        pixel_accuracy: share of the pixels, or None.
        num_images: how many were scored.
        class_iou: by class name; None for a class that is absent.
        dataset_dir: the records.
        image_miou: by picture name, where the evaluation tells; None for a picture without labelled pixels.
    """

    run_dir: pathlib.Path
    split: str
    miou: float | None
    pixel_accuracy: float | None
    num_images: int
    class_iou: Mapping[str, float | None]
    dataset_dir: str
    image_miou: Mapping[str, float | None]


def read_network_result(run_dir: str | os.PathLike, split: str) -> NetworkResult:
    """Reads RUN/eval_SPLIT.json, which tools/eval.py writes.

    Raises:
        InputError: where the folder or the file is missing, or the file is not such a one.
    """
    folder = pathlib.Path(run_dir)
    if not folder.is_dir():
        raise InputError(f"{folder}: expected the run folder of a trained network, found none")
    path = folder / f"eval_{split}.json"
    if not path.is_file():
        raise InputError(f"{path}: not found; it is written by tools/eval.py --run_dir={folder} --eval_split={split}")
    data = config.read_json(path)
    config.check_version(data, path)

    def field(name: str, annotation: Any) -> Any:
        if name not in data:
            raise InputError(f"{path}: field {name!r} is missing")
        return config.from_json(annotation, data[name], f"{path}: {name}")

    return NetworkResult(
        run_dir=folder,
        split=split,
        miou=field("miou", float | None),
        pixel_accuracy=field("pixel_accuracy", float | None),
        num_images=field("num_images", int),
        class_iou=field("class_iou", dict[str, float | None]),
        dataset_dir=field("dataset_dir", str),
        image_miou=_image_scores(data.get("images", []), f"{path}: images"),
    )


def worst_pictures(result: NetworkResult, count: int) -> tuple[list[tuple[pathlib.Path, float | None]], int]:
    """The pictures of RUN/vis_SPLIT/ with the lowest scores first; those without a score follow in their order.

    Returns:
        (path, mIoU or None) of the first `count`, and how many pictures there are.
    """
    scores = {_stem(name): score for name, score in result.image_miou.items()}
    paths = sorted((result.run_dir / f"vis_{result.split}").glob("*.png"))
    # 000012_NAME.png, as nas_seg.vis writes them.
    scored = [(path, scores.get(re.sub(r"^\d+_", "", path.stem))) for path in paths]
    scored.sort(key=lambda pair: math.inf if pair[1] is None else pair[1])
    return scored[:count], len(paths)


def data_uri(path: str | os.PathLike, width: int = _PICTURE_WIDTH) -> str:
    """A picture file as a data URI: JPEG, at most `width` pixels wide."""
    try:
        with Image.open(path) as image:
            picture = image.convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise InputError(f"{path}: expected a picture ({error})") from None
    return jpeg_uri(picture, width)


def jpeg_uri(picture: Image.Image, width: int) -> str:
    """A picture as a data URI: JPEG, at most `width` pixels wide."""
    if picture.width > width:
        height = max(1, round(picture.height * width / picture.width))
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    picture.save(data, format="JPEG", quality=_JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


def _image_scores(entries: Any, where: str) -> dict[str, float | None]:
    if not isinstance(entries, list):
        raise InputError(f"{where}: expected a list, received {entries!r}")
    scores = {}
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not {"name", "miou"} <= entry.keys():
            raise InputError(f"{where}[{number}]: expected an object with name and miou, received {entry!r}")
        name = config.from_json(str, entry["name"], f"{where}[{number}].name")
        scores[name] = config.from_json(float | None, entry["miou"], f"{where}[{number}].miou")
    return scores


def _stem(name: str) -> str:
    """A picture's name as it stands in the names of the files that nas_seg.vis writes."""
    return re.sub(r"[^\w.-]", "_", pathlib.PurePath(name).stem)
