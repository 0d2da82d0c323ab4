"""The size that a picture is brought to before all else, as DeepLab's min_resize_value and its like say it."""

from __future__ import annotations

import dataclasses
from typing import Any

from nas_seg.utils.errors import InputError


@dataclasses.dataclass(frozen=True)
class SizeRange:
    """DeepLab's resize_to_range (preprocess_utils.py).

    Attributes:
        min_resize_value: the shorter side; None leaves pictures as they are.
        max_resize_value: the longer side, where it would become longer.
        resize_factor: both sides become multiples of it, plus 1.

    Raises:
        InputError: for values that no size follows from; it begins with the field's name.
    """

    min_resize_value: int | None = None
    max_resize_value: int | None = None
    resize_factor: int | None = None

    def __post_init__(self):
        smallest, largest = self.min_resize_value, self.max_resize_value
        for name, value in dataclasses.asdict(self).items():
            if value is not None and value < 1:
                raise InputError(f"{name}: expected 1 or more, received {value}")
            if value is not None and smallest is None:
                raise InputError(f"{name}: expected min_resize_value beside it, received none")
        if None not in (smallest, largest) and largest < smallest:
            raise InputError(f"max_resize_value: expected min_resize_value {smallest} or more, received {largest}")

    @property
    def resizes(self) -> bool:
        """Whether pictures are resized at all."""
        return self.min_resize_value is not None

    def resized(self, size, ops) -> tuple[Any, Any]:
        """(height, width) of a resized picture.

        The shorter side becomes min_resize_value; where the longer one would then exceed max_resize_value, that one
        becomes max_resize_value instead. Sizes are cut to whole pixels and raised to the next k * resize_factor + 1,
        or lowered to the one before where that would exceed max_resize_value.

        Args:
            size: (height, width), numbers or scalar tensors.
            ops: keras.ops, or tensorflow within an input pipeline.
        """
        sides = [ops.cast(side, "float32") for side in size]
        if not self.resizes:
            return tuple(ops.cast(side, "int32") for side in sides)
        least, most = ops.minimum(*sides), ops.maximum(*sides)
        scale = self.min_resize_value / least
        if self.max_resize_value is not None:
            longest = ops.floor(most * scale)
            scale = ops.where(longest > self.max_resize_value, self.max_resize_value / most, scale)
        resized = [ops.maximum(ops.cast(ops.floor(side * scale), "int32"), 1) for side in sides]
        factor = self.resize_factor or 1
        raised = [side + (1 - side) % factor for side in resized]
        if self.max_resize_value is None:
            return tuple(raised)
        lowered = [ops.maximum(side - factor, 1) for side in raised]
        pairs = zip(raised, lowered, strict=True)
        return tuple(ops.where(high > self.max_resize_value, low, high) for high, low in pairs)
