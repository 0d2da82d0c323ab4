"""A trained network looked at on every picture of a split: which classes it takes for which, its worst pictures."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from nas_seg import common
from nas_seg.datasets.descriptors import DatasetDescriptor, read_descriptor
from nas_seg.metrics import ConfusionMatrix
from nas_seg.utils import colormap, runs
from nas_seg.utils.errors import InputError
from nas_seg.utils.progress import progress


@dataclasses.dataclass(frozen=True)
class Picture:
    """What a network made of a picture.

    Attributes:
        name: of the data set, or the picture's number.
        image: uint8 RGB [H, W, 3].
        truth: class indices [H, W], also the ignored one.
        prediction: class indices [H, W].
        miou: of this picture; NaN without labelled pixels.
        matrix: pixels [truth, prediction].
    """

    name: str
    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    miou: float
    matrix: np.ndarray


@dataclasses.dataclass(frozen=True)
class SplitScores:
    """A network on a split.

    Attributes:
        split: its name.
        dataset_dir: the records.
        descriptor: of the data set.
        confusion: of all pictures.
        num_images: how many there are.
        worst: those with the lowest mIoU, the lowest first.
    """

    split: str
    dataset_dir: pathlib.Path
    descriptor: DatasetDescriptor
    confusion: ConfusionMatrix
    num_images: int
    worst: tuple[Picture, ...]


def score_split(
    run_dir: str | os.PathLike, dataset_dir: str | os.PathLike, split: str, num_images: int, weights: str = runs.BEST
) -> SplitScores:
    """Runs the network of a run folder over a split; this imports TensorFlow.

    Args:
        run_dir: of a training.
        dataset_dir: folder with dataset.json.
        split: with labels.
        num_images: how many of the worst pictures are kept.
        weights: which of the run.

    Raises:
        InputError: where the split has no labels, the records are damaged or have other classes than the network, or
            the run has no weights.
    """
    descriptor = read_descriptor(dataset_dir)
    info = descriptor.split(split)
    if not info.has_labels:
        raise InputError(f"split {split!r} of {dataset_dir}: expected labels to compare with, it has none")
    runs.find_weights(run_dir, weights)
    from nas_seg import eval as evaluation
    from nas_seg import model as model_lib
    from nas_seg.datasets import data_generator, records

    received, expected = descriptor.num_classes, model_lib.read_config(run_dir).num_classes
    if received != expected:
        raise InputError(f"{dataset_dir}: expected the network's {expected} classes, received {received}")
    predict = evaluation.predictor(model_lib.load(run_dir, weights))
    confusion = ConfusionMatrix(descriptor.num_classes, descriptor.ignore_label)
    with records.translate_data_errors(dataset_dir, split), progress("pictures", info.num_images) as bar:
        dataset = data_generator.eval_dataset(dataset_dir, split)
        confusion, worst = collect(predict, dataset, confusion, num_images, advance=bar.advance)
    return SplitScores(split, pathlib.Path(dataset_dir), descriptor, confusion, info.num_images, tuple(worst))


def collect(
    predict: Callable[[Any], Any],
    dataset: Iterable[Mapping[str, Any]],
    confusion: ConfusionMatrix,
    keep: int,
    advance: Callable[[int], Any] = lambda count: None,
) -> tuple[ConfusionMatrix, list[Picture]]:
    """The counts of all pictures, and the `keep` worst of them; pictures without labelled pixels come last.

    Args:
        predict: images [B, H, W, 3] -> class indices [B, H, W].
        dataset: batches {"image", "label", and perhaps "image_name"}.
        confusion: what is counted on from; it tells the classes.
        keep: how many pictures are held in memory at most.
        advance: told how many pictures each batch had.
    """
    worst: list[Picture] = []
    number = 0
    for batch in dataset:
        predictions = np.asarray(predict(batch[common.IMAGE]))
        for index, prediction in enumerate(predictions):
            truth = np.asarray(batch[common.LABEL][index])
            alone = ConfusionMatrix(confusion.num_classes, confusion.ignore_label)
            alone.update(truth, prediction)
            confusion = confusion + alone
            image = colormap.to_uint8(batch[common.IMAGE][index])
            name, miou = _name(batch, index, number), alone.result()["miou"]
            # sorted keeps the order of equals.
            worst = sorted([*worst, Picture(name, image, truth, prediction, miou, alone.matrix)], key=_rank)[:keep]
            number += 1
        advance(len(predictions))
    return confusion, worst


def _rank(picture: Picture) -> float:
    return math.inf if math.isnan(picture.miou) else picture.miou


def _name(batch: Mapping[str, Any], index: int, number: int) -> str:
    if common.IMAGE_NAME not in batch:
        return str(number)
    name = np.asarray(batch[common.IMAGE_NAME])[index]
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)
