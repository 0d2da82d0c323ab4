"""How a trial of a template network trains; no TensorFlow, so that a tool finds early what does not fit."""

from __future__ import annotations

import dataclasses
from typing import Any

from nas_seg.template.genotype import TemplateGenotype
from nas_seg.template.plan import ENCODER_MAPS, Count, check, count
from nas_seg.utils.errors import InputError

# The loss is taken on labels at the stride of the finer map, the score on all of them.
LABEL_STRIDE, COARSE_STRIDE = (m.stride for m in ENCODER_MAPS)


@dataclasses.dataclass(frozen=True)
class TemplateProxyConfig:
    """How a trial trains.

    Attributes:
        stage0_steps: steps of the decoder alone, on cached maps; 0 skips the stage.
        stage1_steps: steps of all weights, on pictures; 0 skips the stage.
        batch_size: pictures a step.
        crop_size: (height, width) in pixels, each 8 k + 1, of what a step sees of a picture, drawn anew each time; None
            is the whole picture.
        min_scale_factor, max_scale_factor: of pictures in the second stage; each is drawn at one between them.
        stage0_learning_rate, stage1_learning_rate: of the decoder's Adam.
        encoder_learning_rate: of the encoder's Adam.
        weight_decay: L2 factor on kernels.
        clip_norm: of the gradients of the decoder, and of those of the encoder.
        polyak_decay: of averaged weights, which are scored and which the next stage goes on from; 0: there are none.
        distillation: weight of the mean squared difference to a teacher's logits, in the first stage alone.
        agg_size, sep_repeats, stride_rule: see `nas_seg.template.network.TemplateConfig`.
    """

    stage0_steps: int = 80
    stage1_steps: int = 30
    batch_size: int = 4
    crop_size: tuple[int, int] | None = None
    min_scale_factor: float = 0.75
    max_scale_factor: float = 1.5
    stage0_learning_rate: float = 7e-3
    stage1_learning_rate: float = 2e-3
    encoder_learning_rate: float = 1e-4
    weight_decay: float = 1e-5
    clip_norm: float = 3.0
    polyak_decay: float = 0.9
    distillation: float = 0.3
    agg_size: int = 48
    sep_repeats: int = 1
    stride_rule: str = "peer"

    def __post_init__(self):
        for name, least in (("stage0_steps", 0), ("stage1_steps", 0), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name}: expected at least {least}, received {getattr(self, name)}")
        if not self.stage0_steps + self.stage1_steps:
            raise InputError("stage0_steps, stage1_steps: expected a step in one of them, received 0 in both")
        for name in ("stage0_learning_rate", "stage1_learning_rate", "encoder_learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name}: expected a number above 0, received {getattr(self, name)}")
        if not 0 < self.min_scale_factor <= self.max_scale_factor:
            received = f"{self.min_scale_factor}, {self.max_scale_factor}"
            raise InputError(f"min_scale_factor, max_scale_factor: expected 0 < min <= max, received {received}")
        if not 0 <= self.polyak_decay < 1:
            raise InputError(f"polyak_decay: expected a number in [0, 1), received {self.polyak_decay}")
        check(self.sep_repeats, self.stride_rule, self.agg_size)

    @property
    def options(self) -> dict[str, Any]:
        """Of the network of a trial, as `nas_seg.template.network.TemplateConfig` takes them."""
        return {name: getattr(self, name) for name in ("agg_size", "sep_repeats", "stride_rule")}

    def costs(self, genotype: TemplateGenotype, num_classes: int, size: tuple[int, int]) -> Count:
        """Parameters and multiply-adds of the network of a trial, for a picture of this size."""
        return count(genotype, num_classes, self.agg_size, self.sep_repeats, *size, self.stride_rule)


def check_crop(crop_size: tuple[int, int] | None, size: tuple[int, int]) -> None:
    """InputError unless a crop lies on the positions of the coarse map of pictures of a size."""
    for crop, whole in zip(crop_size or size, size, strict=True):
        if crop_size and (crop % COARSE_STRIDE != 1 or whole % COARSE_STRIDE != 1 or not COARSE_STRIDE < crop <= whole):
            raise InputError(
                f"crop_size: expected k * {COARSE_STRIDE} + 1, at most the pictures' {size[0]},{size[1]} of that form, "
                f"received {crop_size[0]},{crop_size[1]}"
            )
