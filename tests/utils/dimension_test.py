"""Tests DeepLab's arithmetic of sizes against what it recorded."""

import json
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_seg.utils.dimension import pooling_window, scale_dimension

TABLE = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "scale_dimension.json").read_text())


def test_every_recorded_size_is_reproduced():
    assert len(TABLE) == 187
    assert [scale_dimension(dim, scale) for dim, scale, _ in TABLE] == [size for _, _, size in TABLE]


@pytest.mark.parametrize(
    ("size", "grid", "window"),
    [(33, 1, 33), (33, 2, 17), (33, 4, 9), (33, 8, 5), (65, 4, 17), (32, 4, 8), (32, 8, 4), (1, 8, 1), (5, 8, 1)],
)
def test_pooling_window_is_the_recorded_one(size, grid, window):
    assert pooling_window(size, grid) == window


@given(st.integers(1, 400), st.sampled_from([1, 2, 4, 8]))
def test_pooling_window_is_deeplabs_arithmetic(size, grid):
    assert pooling_window(size, grid) == scale_dimension(size, 1 / grid) <= size
