"""Weights of the classes from a data set's own labels."""

from __future__ import annotations

import collections
import os
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from nas_seg.datasets import example, pictures, records, suggest
from nas_seg.utils.errors import InputError


def median_frequency(dataset_dir: str | os.PathLike, split: str) -> tuple[float, ...]:
    """Median frequency balancing over a split: one weight a class, see `nas_seg.datasets.suggest.class_weights`.

    Nothing of TensorFlow is started, so that a strategy may be made after it.

    Raises:
        InputError: where the split is missing, damaged or has no labels, naming it.
    """
    opened = records.open_split(dataset_dir, split)
    descriptor, counts, pixels_with = opened.descriptor, collections.Counter(), collections.Counter()
    for label in _labels(opened):
        values, pixels = np.unique(label, return_counts=True)
        counts.update(dict(zip(values.tolist(), pixels.tolist(), strict=True)))
        labelled = int(pixels[values != descriptor.ignore_label].sum())
        pixels_with.update(dict.fromkeys(values.tolist(), labelled))
    return tuple(suggest.class_weights(counts, pixels_with, descriptor.num_classes, descriptor.ignore_label))


def _labels(split: records.Split) -> Iterator[np.ndarray]:
    """The labels alone: decoding the pictures would take most of the time."""
    for record, serialized in records.read_bytes(split):
        where = f"{record}: {example.LABEL_ENCODED}"
        try:
            feature = tf.train.Example.FromString(serialized).features.feature
            (encoded,) = feature[example.LABEL_ENCODED].bytes_list.value
        except (DecodeError, ValueError):
            raise InputError(f"{where}: expected a label, found none") from None
        label = pictures.decode_label(encoded, where).array
        records.check_range(label, split.descriptor, where)
        yield label
