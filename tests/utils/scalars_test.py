"""Event files, read with TensorFlow's own reader and not with ours."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from nas_seg.utils import scalars


def events(folder):
    """(step, name, value) of every value in the event files of a folder."""
    found = []
    for path in sorted(folder.iterdir()):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            found += [(event.step, value.tag, value) for value in event.summary.value]
    return found


def test_every_number_of_a_row_is_a_scalar_at_its_step(tmp_path):
    writer = scalars.writer(tmp_path, scalars.ALWAYS)
    writer.row({"step": 10, "loss": 1.5, "val_num_images": 9, "val_miou": None, "val_class_iou": [0.5], "done": True})
    writer.row({"step": 20, "loss": 1.25})
    told = [(step, tag, value.simple_value) for step, tag, value in events(tmp_path / scalars.FOLDER)]
    assert told == [(10, "loss", 1.5), (10, "val_num_images", 9.0), (20, "loss", 1.25)]


def test_pictures_come_back_pixel_for_pixel(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8)
    scalars.writer(tmp_path, scalars.ALWAYS).pictures(lambda: {"pictures/0": pixels}, step=7)
    ((step, tag, value),) = events(tmp_path / scalars.FOLDER)
    assert (step, tag, value.image.height, value.image.width) == (7, "pictures/0", 6, 9)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(value.image.encoded_image_string))), pixels)


@pytest.mark.parametrize(
    ("when", "installed", "written"), [("auto", True, True), ("auto", False, False), ("never", True, False)]
)
def test_unasked_event_files_are_written_where_somebody_can_look_at_them(
    tmp_path, monkeypatch, when, installed, written
):
    monkeypatch.setattr(scalars.importlib.util, "find_spec", lambda name: object() if installed else None)
    writer = scalars.writer(tmp_path, when)
    writer.row({"step": 1, "loss": 1.0})
    writer.pictures(lambda: {"a": np.zeros((2, 2, 3), np.uint8)}, step=1)
    assert (tmp_path / scalars.FOLDER).exists() == written


def test_overlays_are_picture_truth_and_prediction():
    pair = np.full((4, 5, 3), 100.0), np.zeros((4, 5), np.int32)
    found = scalars.overlays(lambda x: np.ones(x.shape[:3], int), [pair, pair], ((0, 0, 0), (200, 200, 200)))
    assert list(found) == ["pictures/0", "pictures/1"] and found["pictures/1"].shape == (4, 15, 3)
    # 0.4 * 100 + 0.6 * the colour.
    assert [int(found["pictures/0"][0, column, 0]) for column in (0, 5, 10)] == [100, 40, 160]
