"""What a gradient search is determined by; no TensorFlow, so that a tool can make its flags from it.

Source: Auto-DeepLab (arXiv 1901.02985), section 4.1; README.md, section Search, says what the paper leaves open.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from nas_seg.common import MAX_SEED
from nas_seg.utils.errors import InputError, unknown

DTYPE_POLICIES = ("float32", "mixed_bfloat16")


def _field(default, text: str):
    return dataclasses.field(default=default, metadata={"help": text})


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """The paper's search, and what is free in it."""

    num_layers: int = _field(12, "cells from the stem to the end of a path")
    num_blocks: int = _field(5, "blocks of a cell")
    filters: int = _field(8, "F: a block at stride s has F * s / 4 filters")
    shared_weights: bool = _field(True, "the cells that enter one node from its neighbours share their weights")
    recompute: bool = _field(False, "compute the cells again for the gradient: less memory, more time")
    separate_graphs: bool = _field(
        False, "steps of alpha and beta have a graph without gradients of the weights: a quarter less time, more memory"
    )
    dtype_policy: str = _field("float32", f"numbers that the supernet computes in: {' or '.join(DTYPE_POLICIES)}")

    train_split: str = _field("train", "split that is halved: trainA for the weights, trainB for alpha and beta")
    val_split: str = _field("val", "split that the supernet is scored on")
    image_scale: float = _field(0.5, "size of the pictures in the search; 0.5 is Cityscapes at half resolution")
    crop_size: tuple[int, int] = _field((321, 321), "height,width of the crops")
    batch_size: int = _field(2, "pictures a step")
    micro_batches: int = _field(1, "parts that a step computes one after another and adds up: less memory")
    val_images: int = _field(100, "crops of the validation split that the supernet is scored on, at most")
    seed: int = _field(0, "of the two halves, of the initial values and of the order of the data")

    epochs: int = _field(40, "after each of which alpha and beta are decoded")
    frozen_epochs: int | None = _field(None, "first epochs that train the weights alone (default: half of all)")
    steps_per_epoch: int = _field(0, "weight steps an epoch; 0: one pass over trainA")

    learning_rate: float = _field(0.025, "of the weights, at the start of its cosine")
    end_learning_rate: float = _field(0.001, "of the weights, at the end of its cosine")
    momentum: float = _field(0.9, "of the weights' gradients")
    weight_decay: float = _field(3e-4, "L2 factor on the weights")
    architecture_learning_rate: float = _field(0.003, "of alpha and beta (Adam)")
    architecture_weight_decay: float = _field(1e-3, "L2 factor on alpha and beta")
    adam_beta_1: float = _field(0.5, "decay of Adam's first moment")
    adam_beta_2: float = _field(0.999, "decay of Adam's second moment")

    save_interval_steps: int = _field(100, "steps between two checkpoints; there is one after each epoch, too")

    def __post_init__(self):
        for name in (
            "num_layers",
            "num_blocks",
            "filters",
            "batch_size",
            "micro_batches",
            "val_images",
            "epochs",
            "save_interval_steps",
        ):
            self._require(name, getattr(self, name) >= 1, "1 or more")
        for name in (
            "seed",
            "steps_per_epoch",
            "learning_rate",
            "end_learning_rate",
            "weight_decay",
            "architecture_learning_rate",
            "architecture_weight_decay",
        ):
            self._require(name, getattr(self, name) >= 0, "0 or more")
        self._require("seed", self.seed <= MAX_SEED, f"{MAX_SEED} or less")
        for name in ("momentum", "adam_beta_1", "adam_beta_2"):
            self._require(name, 0 <= getattr(self, name) < 1, "a number in [0, 1)")
        self._require("image_scale", self.image_scale > 0, "a number above 0")
        # Batch normalisation at stride 32 needs more than one number a channel.
        self._require("crop_size", min(self.crop_size) >= 33, "two sizes of 33 or more, two pixels at stride 32")
        self._require(
            "micro_batches", self.batch_size % self.micro_batches == 0, f"a divisor of batch_size {self.batch_size}"
        )
        frozen = self.num_frozen_epochs
        self._require("frozen_epochs", 0 <= frozen < self.epochs, f"0 or more and fewer than epochs {self.epochs}")
        if self.dtype_policy not in DTYPE_POLICIES:
            raise unknown("dtype_policy", self.dtype_policy, DTYPE_POLICIES)

    @property
    def num_frozen_epochs(self) -> int:
        """Epochs in which alpha and beta stay as they are."""
        return self.epochs // 2 if self.frozen_epochs is None else self.frozen_epochs

    @property
    def micro_batch_size(self) -> int:
        """Pictures that are in memory at once."""
        return self.batch_size // self.micro_batches

    def epoch_steps(self, num_images: int) -> int:
        """Weight steps an epoch.

        Args:
            num_images: of trainA.
        """
        return self.steps_per_epoch or max(1, num_images // self.batch_size)

    def _require(self, name: str, condition: bool, expected: str) -> None:
        if not condition:
            raise InputError(f"{name}: expected {expected}, received {getattr(self, name)!r}")


# Defaults by name of preset; what a row does not say is the paper's. "laptop" is for CamVid's 360 x 480 pictures on two
# cores in about an hour: 400 weight steps, 200 of alpha and beta.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "laptop": {
        "num_layers": 10,
        "filters": 4,
        "crop_size": (129, 129),
        "batch_size": 4,
        "epochs": 20,
        "steps_per_epoch": 20,
        "val_images": 48,
        "save_interval_steps": 20,
    },
}


def make_config(preset: str, given: Mapping[str, Any]) -> SearchConfig:
    """The configuration of a preset, with the fields that are given in place of its own.

    Raises:
        InputError: for an unknown preset, or a value that is none.
    """
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    return SearchConfig(**PRESETS[preset] | dict(given))
