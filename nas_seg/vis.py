"""Predictions as pictures: the image, its truth and what the model sees, side by side."""

from __future__ import annotations

import io
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from nas_seg import common
from nas_seg.utils import colormap, config
from nas_seg.utils.errors import InputError

_GAP = 4  # white pixels between the pictures of a panel
RAW = "raw"


def visualize(
    predict: Callable[[Any], Any],
    dataset: Iterable[Mapping[str, Any]],
    colors: Sequence[tuple[int, int, int]],
    output_dir: str | os.PathLike,
    *,
    num_images: int | None = None,
    also_save_raw_predictions: bool = False,
    advance: Callable[[int], Any] = lambda count: None,
) -> list[pathlib.Path]:
    """Writes one PNG an image: image | truth | prediction, the latter two coloured over the image.

    Args:
        predict: images [B, H, W, 3] -> class indices [B, H, W], such as `nas_seg.eval.predictor(model)`.
        dataset: batches {"image"} and perhaps {"label", "image_name"}; without a label the truth is left out.
        colors: RGB of each class; pixels of any other index show the bare image.
        output_dir: gets 000000_NAME.png and on.
        num_images: stop after so many; None: all.
        also_save_raw_predictions: write RAW/000000_NAME.png too, grey PNGs of the class indices.
        advance: told how many images were written, such as a progress bar's method.

    Returns:
        The panels' paths.
    """
    if also_save_raw_predictions and len(colors) > 256:
        raise InputError(f"raw predictions: expected at most 256 classes in 8-bit PNGs, received {len(colors)}")
    folder, paths = pathlib.Path(output_dir), []
    for batch in dataset:
        predictions = np.asarray(predict(batch[common.IMAGE]))
        for index, prediction in enumerate(predictions):
            if num_images is not None and len(paths) >= num_images:
                return paths
            truth = [batch[common.LABEL][index]] if common.LABEL in batch else []
            pictures = colormap.panel(batch[common.IMAGE][index], [*truth, prediction], colors)
            name = f"{len(paths):06d}{_stem(batch, index)}.png"
            _write_png(folder / name, _side_by_side(pictures))
            if also_save_raw_predictions:
                _write_png(folder / RAW / name, prediction.astype(np.uint8))
            paths.append(folder / name)
            advance(1)
    return paths


def write_label_ids(
    predict: Callable[[Any], Any],
    dataset: Iterable[Mapping[str, Any]],
    label_ids: Sequence[int],
    file_name: Callable[[str], str],
    output_dir: str | os.PathLike,
    *,
    advance: Callable[[int], Any] = lambda count: None,
) -> list[pathlib.Path]:
    """Writes predictions as an evaluation server takes them: grey 8-bit PNGs of label ids, of the images' own sizes.

    Args:
        predict: as in `visualize`.
        dataset: batches {"image", "image_name"}.
        label_ids: the id, 0..255, of each class index.
        file_name: the name of an image -> that of its PNG in `output_dir`.
        output_dir: the folder.
        advance: as in `visualize`.

    Returns:
        The files' paths.

    Raises:
        InputError: when two images would have one file, or a prediction is none of the classes.
    """
    table, paths = np.asarray(label_ids, np.uint8), []
    for batch in dataset:
        predictions = np.asarray(predict(batch[common.IMAGE]))
        if predictions.size and not 0 <= predictions.min() <= predictions.max() < len(table):
            raise InputError(f"prediction: expected classes 0 to {len(table) - 1}, received {predictions.max()}")
        for index, prediction in enumerate(predictions):
            path = pathlib.Path(output_dir, file_name(_image_name(batch, index)))
            if path in paths:
                raise InputError(f"{path}: two pictures of the split would have this file")
            _write_png(path, table[prediction])
            paths.append(path)
            advance(1)
    return paths


def _image_name(batch: Mapping[str, Any], index: int) -> str:
    name = np.asarray(batch[common.IMAGE_NAME])[index]
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _stem(batch: Mapping[str, Any], index: int) -> str:
    if common.IMAGE_NAME not in batch:
        return ""
    return "_" + re.sub(r"[^\w.-]", "_", pathlib.PurePath(_image_name(batch, index)).stem)


def _side_by_side(pictures: Sequence[np.ndarray]) -> np.ndarray:
    gap = np.full((len(pictures[0]), _GAP, 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (gap, picture)]
    return np.concatenate(parts[1:], axis=1)


def _write_png(path: pathlib.Path, pixels: np.ndarray) -> None:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format="PNG")
    config.write_bytes(path, data.getvalue())
