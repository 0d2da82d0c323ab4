"""What to train with, from what is in the pictures: weights of the classes, a crop size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

# Crops that DeepLab trains with are of at most this size (Cityscapes); all are of k * 16 + 1 pixels.
LARGEST_CROP = 769
_STRIDE = 16
# This share of the pictures fits into the crop; a few very large ones should not set it.
_COVERED = 0.95


def class_weights(
    counts: Mapping[int, int], pixels_with: Mapping[int, int], num_classes: int, ignore_label: int
) -> list[float]:
    """Median frequency balancing (Eigen and Fergus, ICCV 2015, section 6.3.2): median of the frequencies / frequency.

    The frequency of a class is its share of the labelled pixels of those pictures that show it.

    Args:
        counts: pixels of each class.
        pixels_with: labelled pixels of the pictures in which each class occurs.
        num_classes: how many classes.
        ignore_label: gets no say; where it is a class its weight is 1, as is that of a class that never occurs.
    """
    found = [c for c in range(num_classes) if c != ignore_label and counts.get(c, 0)]
    frequency = {c: counts[c] / pixels_with[c] for c in found}
    median = float(np.median(list(frequency.values()))) if found else 1.0
    return [median / frequency[c] if c in frequency else 1.0 for c in range(num_classes)]


def mean_size(sizes: Mapping[tuple[int, int], int]) -> tuple[float, float]:
    """Mean (height, width) over pictures counted by size."""
    total = sum(sizes.values())
    return tuple(sum(size[axis] * count for size, count in sizes.items()) / total for axis in (0, 1))


def crop_size(sizes: Mapping[tuple[int, int], int]) -> tuple[int, int]:
    """The smallest (height, width) of k * 16 + 1 that covers 95% of the pictures in each direction, at most 769."""
    return tuple(_crop([(size[axis], count) for size, count in sizes.items()]) for axis in (0, 1))


def _crop(lengths: Sequence[tuple[int, int]]) -> int:
    ordered = np.sort(np.repeat(*np.array(lengths).T))
    covered = int(ordered[int(np.ceil(_COVERED * len(ordered))) - 1])
    return min(-(-(covered - 1) // _STRIDE) * _STRIDE + 1, LARGEST_CROP)
