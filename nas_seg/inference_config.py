"""How a trained network looks at whole pictures; no TensorFlow, so that a tool can make its flags from it."""

from __future__ import annotations

import dataclasses

from nas_seg.utils.errors import InputError
from nas_seg.utils.size_range import SizeRange


@dataclasses.dataclass(frozen=True)
class InferenceConfig:
    """DeepLab's options of eval.py, vis.py and export_model.py, by their names.

    Attributes:
        eval_scales: scales of the picture whose probabilities are averaged.
        add_flipped_images: at every scale the mirrored picture, too.
        crop_size: (height, width) that pictures are padded to before they are scaled, as the original does; smaller
            ones alone are. None: every picture is padded at every scale to the next size that suits the network.
        size_range: what a picture is resized to before all that.
        prediction_with_upsampled_logits: classes are picked at the picture's size; off, where the network looks once:
            at its own, and enlarged by the nearest. Several looks ignore it, as in the original.
    """

    eval_scales: tuple[float, ...] = (1.0,)
    add_flipped_images: bool = False
    crop_size: tuple[int, int] | None = None
    size_range: SizeRange = SizeRange()
    prediction_with_upsampled_logits: bool = True

    def __post_init__(self):
        scales = self.eval_scales
        if not scales or any(not 0 < scale < float("inf") for scale in scales) or len(set(scales)) < len(scales):
            raise InputError(f"eval_scales: expected different numbers above 0, received {_shown(scales)}")
        if self.crop_size is not None and min(self.crop_size) < 1:
            raise InputError(f"crop_size: expected two sizes of 1 or more, received {_shown(self.crop_size)}")

    @property
    def looks(self) -> tuple[tuple[float, bool], ...]:
        """Every (scale, mirrored) that a picture is looked at with."""
        mirrored = (False, True) if self.add_flipped_images else (False,)
        return tuple((scale, flip) for scale in self.eval_scales for flip in mirrored)

    @property
    def nearest(self) -> bool:
        """Whether scores are enlarged by the nearest, so that their arg-max is that of the network's own size."""
        return not self.prediction_with_upsampled_logits and not self.looks[1:]


def _shown(values) -> str:
    return ",".join(f"{value:g}" for value in values) or "none"
