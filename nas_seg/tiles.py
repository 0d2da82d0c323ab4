"""Large pictures in overlapping tiles, cut so that a network sees in each what it sees in the whole picture.

A network of output stride 16 has its features at rows 0, 16, 32, ... of a picture that was padded to 32 k + 1 rows (see
`nas_seg.core.padding`). A tile that starts at a multiple of 32 and is 32 k + 1 pixels long has features at the same
places, whatever the stride; the last one ends where the padded picture ends.

A pixel is taken from the tile in which it lies farthest from a border. A weighted mean of the tiles would mix in what
is seen worst, nearest to a border, and would need the probabilities of the whole picture in memory; this way labels
are enough, and where a network looks no farther than half the overlap nothing of the cut can be seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from nas_seg.inference_config import InferenceConfig
from nas_seg.utils.errors import InputError

# Tiles start at multiples of it: the largest output stride.
_GRID = 32


class Span(NamedTuple):
    """One tile along one axis, in pixels of the picture.

    Attributes:
        start: its first pixel.
        stop: one past its last pixel.
        first: the first pixel that is taken from it.
        last: one past the last pixel that is taken from it.
    """

    start: int
    stop: int
    first: int
    last: int

    @property
    def seen(self) -> slice:
        """The tile, in the picture."""
        return slice(self.start, self.stop)

    @property
    def kept(self) -> slice:
        """What is taken, in the picture."""
        return slice(self.first, self.last)

    @property
    def kept_inside(self) -> slice:
        """What is taken, in the tile."""
        return slice(self.first - self.start, self.last - self.start)


def check(tile_size: int | None, tile_overlap: int, inference: InferenceConfig | None = None) -> None:
    """Raises an InputError that begins with the name of the argument that is wrong; None is no tiles."""
    if tile_size is None:
        return
    if tile_size <= _GRID or tile_size % _GRID != 1:
        nearest = max(1, round((tile_size - 1) / _GRID)) * _GRID + 1
        raise InputError(f"tile_size: expected k * {_GRID} + 1 pixels, received {tile_size}; the nearest is {nearest}")
    if not 0 <= tile_overlap <= tile_size - 1 - _GRID:
        raise InputError(
            f"tile_overlap: expected 0 to {tile_size - 1 - _GRID} pixels with tiles of {tile_size}, received "
            f"{tile_overlap}"
        )
    if inference is not None and (inference.crop_size or inference.size_range.resizes):
        name = "crop_size" if inference.crop_size else "min_resize_value"
        raise InputError(f"{name}: expected none with tiles, it is of whole pictures")


def spans(length: int, tile_size: int, tile_overlap: int) -> list[Span]:
    """The tiles along one axis.

    Args:
        length: pixels of the picture.
        tile_size: pixels of a tile, k * 32 + 1.
        tile_overlap: pixels that neighbours share at least.

    Returns:
        Spans from the first pixel on; what is taken from them covers the axis once, and keeps half the overlap, or
        more, away from every end of a tile that is none of the picture's.
    """
    end = length + (1 - length) % _GRID
    step = (tile_size - 1 - tile_overlap) // _GRID * _GRID
    starts = [*range(0, end - tile_size, step), max(0, end - tile_size)]
    cuts = [(start + following + tile_size) // 2 for start, following in itertools.pairwise(starts)]
    kept = zip([0, *cuts], [*cuts, length], strict=True)
    return [Span(start, min(start + tile_size, length), *own) for start, own in zip(starts, kept, strict=True)]


def tiles(height: int, width: int, tile_size: int | None, tile_overlap: int) -> Iterator[tuple[Span, Span]]:
    """The tiles of a picture, rows and columns of each; one tile is the whole picture where tile_size is None."""
    whole = [[Span(0, side, 0, side)] for side in (height, width)]
    rows, columns = whole if tile_size is None else (spans(side, tile_size, tile_overlap) for side in (height, width))
    for row in rows:
        for column in columns:
            yield row, column
