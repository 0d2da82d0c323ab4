import numpy as np
import pytest
from small_data import CLASSES

from nas_seg.datasets import inspect, suggest


def test_weights_are_the_median_frequency_over_each_frequency():
    # Frequencies among the labelled pixels of the pictures that show the class: 1/2, 1/4 and 1/8; the median is 1/4.
    weights = suggest.class_weights({0: 50, 1: 25, 2: 5, 255: 99}, {0: 100, 1: 100, 2: 40}, 4, 255)
    assert weights == [0.5, 1.0, 2.0, 1.0]


def test_an_ignored_class_has_no_say():
    assert suggest.class_weights({0: 1000, 1: 50, 2: 25}, {0: 1000, 1: 100, 2: 100}, 3, 0) == [1.0, 0.75, 1.5]
    assert suggest.class_weights({}, {}, 2, 255) == [1.0, 1.0]


def test_frequencies_are_counted_in_the_pictures_that_show_the_class():
    one, two = np.array([[0, 0, 1, 255]], np.uint8), np.array([[0, 0, 0, 0]], np.uint8)
    image = np.zeros((1, 4, 3), np.uint8)
    report = inspect.inspect([inspect.Sample("a", image, one), inspect.Sample("b", image, two)], CLASSES)
    # Class 0: 6 of 7 labelled pixels; class 1: 1 of the 3 of the first picture.
    assert (report.pixels_with[0], report.pixels_with[1]) == (7, 3)
    median = (6 / 7 + 1 / 3) / 2
    expected = [median / (6 / 7), median / (1 / 3), 1.0, 1.0]
    assert suggest.class_weights(report.counts, report.pixels_with, 4, 255) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("sizes", "crop"),
    [
        ({(360, 480): 367}, (369, 481)),
        # PASCAL VOC: at most 500 either way.
        ({(375, 500): 9, (500, 375): 9}, (513, 513)),
        ({(1024, 2048): 3}, (769, 769)),
        ({(33, 65): 1}, (33, 65)),
        ({(1, 1): 1}, (1, 1)),
        # A few large ones do not count.
        ({(100, 100): 96, (700, 700): 4}, (113, 113)),
    ],
)
def test_the_crop_covers_most_pictures_and_is_aligned(sizes, crop):
    assert suggest.crop_size(sizes) == crop
    assert all((side - 1) % 16 == 0 for side in crop)


def test_the_mean_size_counts_every_picture():
    assert suggest.mean_size({(10, 20): 3, (30, 40): 1}) == (15.0, 25.0)


def test_suggestions_are_flags_of_the_training_tool():
    image = np.zeros((20, 40, 3), np.uint8)
    label = np.tile(np.array([0, 0, 0, 1], np.uint8), (20, 10))
    lines = inspect.suggestions(inspect.inspect([inspect.Sample("a", image, label)], CLASSES), CLASSES)
    assert lines[0].startswith("--train_crop_size=33,49 ")
    assert lines[1].startswith("--label_weights=0.6667,2,1,1 ")
    assert inspect.suggestions(inspect.inspect([], CLASSES), CLASSES) == []
