"""The size that pictures are brought to: DeepLab's recorded cases, with Keras' operations and TensorFlow's."""

import json

import keras
import pytest
import tensorflow as tf
from case import GOLDEN

from nas_seg.utils.errors import InputError
from nas_seg.utils.size_range import SizeRange

_CASES = json.loads((GOLDEN / "deeplab_training.json").read_text())["resize_to_range"]


@pytest.mark.parametrize("ops", [keras.ops, tf], ids=["keras", "tensorflow"])
@pytest.mark.parametrize("case", _CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_sizes_within_a_range_are_the_recorded_ones(case, ops):
    if not case.get("keep_aspect_ratio", True):
        pytest.skip("the option that DeepLab defines and never uses")
    size_range = SizeRange(case["min_size"], case["max_size"], case["factor"])
    assert [int(side) for side in size_range.resized(case["hw"], ops)] == case["out"]


def test_no_range_leaves_a_picture_as_it_is():
    assert not SizeRange().resizes
    assert [int(side) for side in SizeRange().resized((31, 7), keras.ops)] == [31, 7]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"min_resize_value": 0}, "min_resize_value: expected 1 or more, received 0"),
        ({"max_resize_value": 500}, "max_resize_value: expected min_resize_value beside it"),
        ({"resize_factor": 4}, "resize_factor: expected min_resize_value beside it"),
        ({"min_resize_value": 9, "max_resize_value": 5}, "max_resize_value: expected min_resize_value 9 or more"),
    ],
)
def test_a_range_that_no_size_follows_from_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        SizeRange(**values)
