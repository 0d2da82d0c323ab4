"""How a trained network looks at whole pictures; no TensorFlow, so that a tool can make its flags from it."""

from __future__ import annotations

import dataclasses

from nas_seg.utils.errors import InputError


@dataclasses.dataclass(frozen=True)
class InferenceConfig:
    """DeepLab's options of eval.py, vis.py and export_model.py, by their names.

    Attributes:
        eval_scales: scales of the picture whose probabilities are averaged.
        add_flipped_images: at every scale the mirrored picture, too.
        crop_size: (height, width) that pictures are padded to before they are scaled, as the original does; smaller
            ones alone are. None: every picture is padded at every scale to the next size that suits the network.
        min_resize_value: the shorter side of a picture before all that; None leaves it as it is.
        max_resize_value: the longer side, where it would become longer.
        resize_factor: both sides become multiples of it, plus 1.
    """

    eval_scales: tuple[float, ...] = (1.0,)
    add_flipped_images: bool = False
    crop_size: tuple[int, int] | None = None
    min_resize_value: int | None = None
    max_resize_value: int | None = None
    resize_factor: int | None = None

    def __post_init__(self):
        scales = self.eval_scales
        if not scales or any(not 0 < scale < float("inf") for scale in scales) or len(set(scales)) < len(scales):
            raise InputError(f"eval_scales: expected different numbers above 0, received {_shown(scales)}")
        if self.crop_size is not None and min(self.crop_size) < 1:
            raise InputError(f"crop_size: expected two sizes of 1 or more, received {_shown(self.crop_size)}")
        check_range(self.min_resize_value, self.max_resize_value, self.resize_factor)

    @property
    def looks(self) -> tuple[tuple[float, bool], ...]:
        """Every (scale, mirrored) that a picture is looked at with."""
        mirrored = (False, True) if self.add_flipped_images else (False,)
        return tuple((scale, flip) for scale in self.eval_scales for flip in mirrored)


def check_range(smallest: int | None, largest: int | None, factor: int | None) -> None:
    """InputError, naming the flag, for values that no size follows from (min_resize_value and the like)."""
    named = {"min_resize_value": smallest, "max_resize_value": largest, "resize_factor": factor}
    for name, value in named.items():
        if value is not None and value < 1:
            raise InputError(f"{name}: expected 1 or more, received {value}")
        if value is not None and smallest is None:
            raise InputError(f"{name}: expected min_resize_value beside it, received none")
    if None not in (smallest, largest) and largest < smallest:
        raise InputError(f"max_resize_value: expected min_resize_value {smallest} or more, received {largest}")


def _shown(values) -> str:
    return ",".join(f"{value:g}" for value in values) or "none"
