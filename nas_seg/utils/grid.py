"""Sizes at which the corners of a picture and of its feature maps align."""

from __future__ import annotations


def grid_size(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """The size k * stride + 1 nearest to a picture's, where corners of map and picture align."""
    return tuple(max(1, round((n - 1) / stride)) * stride + 1 for n in size)
