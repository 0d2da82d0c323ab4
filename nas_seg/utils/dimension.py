"""DeepLab's arithmetic of sizes under align-corners sampling."""

from __future__ import annotations


def scale_dimension(dim: int, scale: float) -> int:
    """The size that `dim` pixels take when scaled so that the first and the last pixel stay on the corners.

    513 at 1/16 is 33, and 33 at 16 is 513 again: sizes of the form k * output_stride + 1 survive both ways.
    The source is DeepLab's scale_dimension; the products are formed in double precision, as there.

    Args:
        dim: pixels, at least 1.
        scale: factor, for example 1 / output_stride.
    """
    return int((float(dim) - 1.0) * scale + 1.0)


def pooling_window(size: int, grid: int) -> int:
    """Side of pyramid pooling's averaging window on a map of `size` positions: int((size - 1) / grid + 1).

    The average slides with stride 1 and without padding, so that size - window + 1 positions are left: a grid
    of 1 averages the whole map to one position, a grid of 2 on 33 positions has a window and a result of 17.

    Args:
        size: positions, at least 1; an integer scalar tensor will do.
        grid: the window is about 1 / grid of the map.
    """
    return (size - 1) // grid + 1
