"""A run's numbers and pictures for TensorBoard: event files, which TensorFlow writes without the tensorboard package.

Each number of a row becomes a scalar of its own name, each picture an image; `tensorboard --logdir=RUN` shows them.
"""

from __future__ import annotations

import importlib.util
import io
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from nas_seg.utils import colormap

FOLDER = "tensorboard"
AUTO, ALWAYS, NEVER = WHEN = ("auto", "always", "never")
_NOT_SCALARS = ("step", "format_version")


class Writer:
    """Writes into RUN/tensorboard; a file is begun with the first row."""

    def __init__(self, run_dir: str | os.PathLike):
        self._folder = pathlib.Path(run_dir, FOLDER)
        self._writer = None

    def row(self, row: Mapping[str, Any]) -> None:
        """The numbers of a row of metrics.jsonl at its step; lists and words are left out."""
        from tensorflow.compat.v1 import Summary

        numbers = {
            name: float(value)
            for name, value in row.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool) and name not in _NOT_SCALARS
        }
        self._write(row["step"], [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()])

    def pictures(self, make: Callable[[], Mapping[str, np.ndarray]], step: int) -> None:
        """Pictures, uint8 RGB [H, W, 3], by their names."""
        from tensorflow.compat.v1 import Summary

        values = []
        for name, pixels in make().items():
            data = io.BytesIO()
            Image.fromarray(pixels).save(data, format="PNG")
            height, width = pixels.shape[:2]
            image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data.getvalue())
            values.append(Summary.Value(tag=name, image=image))
        self._write(step, values)

    def _write(self, step: int, values: Sequence[Any]) -> None:
        """Adds an event and makes it visible to readers at once."""
        import tensorflow as tf

        if not values:
            return
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(str(self._folder))
        with self._writer.as_default():
            tf.summary.experimental.write_raw_pb(tf.compat.v1.Summary(value=values).SerializeToString(), step=step)
        self._writer.flush()


class NoWriter:
    """Writes nothing."""

    def row(self, row: Mapping[str, Any]) -> None:
        """Nothing."""

    def pictures(self, make: Callable[[], Mapping[str, np.ndarray]], step: int) -> None:
        """Nothing; none is made."""


def writer(run_dir: str | os.PathLike, when: str = AUTO) -> Writer | NoWriter:
    """What a run's rows and pictures are told.

    Args:
        run_dir: run folder.
        when: a name of `WHEN`: AUTO where tensorboard is installed to look at them, ALWAYS, NEVER.
    """
    wanted = importlib.util.find_spec("tensorboard") is not None if when == AUTO else when == ALWAYS
    return Writer(run_dir) if wanted else NoWriter()


def overlays(
    predict: Callable[[Any], Any], pairs: Iterable[tuple[Any, Any]], colors: Sequence[colormap.Color]
) -> dict[str, np.ndarray]:
    """Picture, truth and prediction side by side, of some pictures.

    Args:
        predict: images [1, H, W, 3] -> class indices [1, H, W].
        pairs: (RGB [H, W, 3] in [0, 255], class indices [H, W]) of each.
        colors: of the classes.

    Returns:
        uint8 RGB [H, 3 W, 3] by "pictures/NUMBER".
    """
    found = {}
    for number, (image, label) in enumerate(pairs):
        pictures = colormap.panel(image, (label, np.asarray(predict(image[None]))[0]), colors)
        found[f"pictures/{number}"] = np.concatenate(pictures, axis=1)
    return found
