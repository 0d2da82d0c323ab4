"""Intersection over union from a confusion matrix, counted as the Cityscapes scripts count it."""

from __future__ import annotations

import numpy as np

from nas_seg.utils.errors import InputError


class ConfusionMatrix:
    """Counts (truth, prediction) pairs and derives the scores of semantic segmentation from them.

    The rules are those of cityscapesscripts (evalPixelLevelSemanticLabeling):
    - a pixel whose truth is `ignore_label` is dropped;
    - `ignore_label` predicted on valid truth is a false negative of the true class and nobody's false positive;
    - a class absent from both truth and prediction has no IoU (NaN) and is left out of the mean;
    - a class that is predicted but never true has IoU 0 and is part of the mean.

    `ignore_label` may itself lie in [0, num_classes); that class is then always left out.

    Attributes:
        matrix: int64 [num_classes, num_classes + 1], rows are the truth, columns the prediction; the last
            column counts predictions of `ignore_label`.
    """

    def __init__(self, num_classes: int, ignore_label: int):
        if num_classes < 1:
            raise InputError(f"num_classes: expected 1 or more, received {num_classes}")
        self.num_classes = int(num_classes)
        self.ignore_label = int(ignore_label)
        self.matrix = np.zeros((self.num_classes, self.num_classes + 1), np.int64)

    def update(self, labels: np.ndarray, predictions: np.ndarray) -> None:
        """Adds the pixels of one label map or of a batch of them.

        Args:
            labels, predictions: integer arrays of one shape.

        Raises:
            InputError: where shapes differ, a dtype is not an integer's, or a value is neither in
                [0, num_classes) nor `ignore_label`; nothing is counted then.
        """
        labels, predictions = np.asarray(labels), np.asarray(predictions)
        if labels.shape != predictions.shape:
            raise InputError(f"predictions: expected the labels' shape {labels.shape}, received {predictions.shape}")
        labels, predictions = self._checked("labels", labels), self._checked("predictions", predictions)
        valid = labels != self.ignore_label
        labels, predictions = labels[valid], predictions[valid]
        predictions = np.where(predictions == self.ignore_label, self.num_classes, predictions)
        pairs = np.bincount(labels * (self.num_classes + 1) + predictions, minlength=self.matrix.size)
        self.matrix += pairs.reshape(self.matrix.shape)

    def _checked(self, name: str, values: np.ndarray) -> np.ndarray:
        if values.size and not np.issubdtype(values.dtype, np.integer):
            raise InputError(f"{name}: expected integers, received {values.dtype}")
        values = values.reshape(-1).astype(np.int64)
        stray = values[((values < 0) | (values >= self.num_classes)) & (values != self.ignore_label)]
        if stray.size:
            raise InputError(
                f"{name}: expected 0..{self.num_classes - 1} or ignore_label {self.ignore_label}, received {stray[0]}"
            )
        return values

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        """The counts of both: parts of a data set may be counted apart."""
        mine, theirs = (self.num_classes, self.ignore_label), (other.num_classes, other.ignore_label)
        if mine != theirs:
            raise InputError(f"confusion matrices of different (num_classes, ignore_label): {mine} and {theirs}")
        total = ConfusionMatrix(*mine)
        total.matrix = self.matrix + other.matrix
        return total

    def result(self) -> dict[str, float | np.ndarray]:
        """The scores of all pixels so far, as fractions; a score of nothing is NaN.

        Returns:
            miou: mean of `class_iou` over the classes that have one.
            class_iou: float64 [num_classes], NaN for a class that is left out.
            pixel_accuracy: correct share of the valid pixels.
            mean_accuracy: mean over the classes in the truth of the correct share of their pixels.
            frequency_weighted_iou: mean of `class_iou` weighted by the classes' pixels in the truth.
        """
        square = self.matrix[:, : self.num_classes]
        hits, truth = np.diagonal(square).astype(np.float64), self.matrix.sum(axis=1)
        iou = _ratio(hits, truth + square.sum(axis=0) - hits)
        recall = _ratio(hits, truth)
        return {
            "miou": _mean(iou),
            "class_iou": iou,
            "pixel_accuracy": float(_ratio(hits.sum(), truth.sum())),
            "mean_accuracy": _mean(recall),
            "frequency_weighted_iou": float(_ratio(np.nansum(iou * truth), truth.sum())),
        }


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where there is nothing to divide by."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


def _mean(values: np.ndarray) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")
