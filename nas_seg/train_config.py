"""What one training run is determined by; no TensorFlow, so that a tool can make its flags from it."""

from __future__ import annotations

import dataclasses
import math

from nas_seg.common import MAX_SEED
from nas_seg.utils.errors import InputError, unknown
from nas_seg.utils.size_range import SizeRange

LEARNING_POLICIES = ("poly", "step", "cosine")
OPTIMIZERS = ("momentum", "adam")
BURNINS = ("none", "linear")
DTYPE_POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")
_NAMES = {
    "learning_policy": LEARNING_POLICIES,
    "optimizer": OPTIMIZERS,
    "slow_start_burnin_type": BURNINS,
    "dtype_policy": DTYPE_POLICIES,
}


def _field(default, text: str):
    return dataclasses.field(default=default, metadata={"help": text})


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """DeepLab's training flags by their names and with their defaults (train.py), in steps and pixels.

    `nas_seg.train.fit` reads what concerns the optimisation; the data fields say how its batches were made.
    """

    train_split: str = _field("train", "split to train on")
    val_split: str = _field("val", "split that picks the best weights; empty: none")
    train_batch_size: int = _field(8, "images a step, over all devices")
    micro_batches: int = _field(
        1, "parts that a step computes one after another and adds up: less memory; batch norm sees one part at a time"
    )
    dtype_policy: str = _field(
        "float32",
        f"numbers that the network computes in: {', '.join(DTYPE_POLICIES)}; weights, logits and loss stay float32",
    )
    train_crop_size: tuple[int, int] = _field((513, 513), "height,width of a training crop")
    min_resize_value: int | None = _field(None, "shorter side of an image at scale 1; default: as it is")
    max_resize_value: int | None = _field(None, "longer side, where it would become longer")
    resize_factor: int | None = _field(None, "both sides become multiples of it, plus 1")
    min_scale_factor: float = _field(0.5, "smallest random scale of an image")
    max_scale_factor: float = _field(2.0, "largest random scale of an image")
    scale_factor_step_size: float = _field(0.25, "step between the scales; 0: any scale in between")
    backbone_weights: str | None = _field(None, "weights the backbone starts from: imagenet, a file, or a run folder")
    tf_initial_checkpoint: str | None = _field(
        None, "weights the whole network starts from: TF1 checkpoint or run folder; what it has not stays fresh"
    )
    initialize_last_layer: bool = _field(True, "take the last layers from tf_initial_checkpoint, too")
    last_layers_contain_logits_only: bool = _field(
        False, "the last layers are the logits alone; off: all that follows the backbone"
    )
    seed: int = _field(0, "of the initial weights, of dropout and of the order and augmentation of the data")

    training_number_of_steps: int = _field(30000, "steps in all")
    base_learning_rate: float = _field(1e-4, "learning rate at the start of its polynomial decay")
    learning_policy: str = _field("poly", "how the learning rate falls: poly, step or cosine")
    learning_power: float = _field(0.9, "power of the decay")
    decay_steps: float = _field(0.0, "steps of the decay, if not step; 0: all steps after the slow start")
    end_learning_rate: float = _field(0.0, "learning rate at the end of the decay, if not step")
    learning_rate_decay_factor: float = _field(0.1, "of learning_policy step: factor on the learning rate")
    learning_rate_decay_step: int = _field(2000, "of learning_policy step: steps between two factors")
    slow_start_step: int = _field(0, "steps at slow_start_learning_rate before the decay starts")
    slow_start_learning_rate: float = _field(1e-4, "learning rate of the slow start")
    slow_start_burnin_type: str = _field(
        "none", "during the slow start: none (its rate), or linear (from its rate to base_learning_rate)"
    )
    optimizer: str = _field("momentum", "momentum or adam")
    momentum: float = _field(0.9, "of the gradient's running sum")
    adam_learning_rate: float = _field(1e-3, "of optimizer adam: its learning rate from the first step to the last")
    adam_epsilon: float = _field(1e-8, "of optimizer adam: keeps its divisor from 0")
    polyak_decay: float = _field(0.0, "decay of the averaged weights that are evaluated and kept; 0: none are averaged")
    weight_decay: float = _field(4e-5, "L2 factor on kernels; biases, batch norm and most depthwise kernels have none")
    last_layer_gradient_multiplier: float = _field(1.0, "factor on the gradients of the last layers")

    fine_tune_batch_norm: bool = _field(True, "train on batch statistics; off: keep the moving averages as they are")
    batch_norm_decay: float | None = _field(
        None,
        "upper bound of the moving averages' decay; default: 1 - 5 / steps, which leaves a long training's as it is",
    )
    label_weights: tuple[float, ...] = _field((), "weight of each class in the loss; none: all 1")
    upsample_logits: bool = _field(
        True, "the loss is at the labels' size; off: at that of the logits, by the nearest label"
    )
    top_k_percent_pixels: float = _field(1.0, "share of the costliest pixels that the loss keeps")
    hard_example_mining_step: int = _field(0, "steps until that share is reached; 0: from the first")

    log_steps: int = _field(10, "steps between two rows of metrics.jsonl")
    save_interval_steps: int = _field(200, "steps between two checkpoints")
    eval_interval_steps: int = _field(500, "steps between two evaluations of val_split")

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            self._require(field.name, not isinstance(value, float) or math.isfinite(value), "a finite number")
        for name in (
            "train_batch_size",
            "micro_batches",
            "training_number_of_steps",
            "learning_rate_decay_step",
            "log_steps",
            "save_interval_steps",
            "eval_interval_steps",
        ):
            self._require(name, getattr(self, name) >= 1, "1 or more")
        for name in (
            "seed",
            "decay_steps",
            "slow_start_step",
            "hard_example_mining_step",
            "base_learning_rate",
            "end_learning_rate",
            "slow_start_learning_rate",
            "learning_rate_decay_factor",
            "adam_learning_rate",
            "adam_epsilon",
            "weight_decay",
            "learning_power",
            "last_layer_gradient_multiplier",
            "scale_factor_step_size",
        ):
            self._require(name, getattr(self, name) >= 0, "0 or more")
        self._require("seed", self.seed <= MAX_SEED, f"{MAX_SEED} or less")
        for name, known in _NAMES.items():
            if getattr(self, name) not in known:
                raise InputError(f"{name}: {unknown(name, getattr(self, name), known)}")
        for name in ("momentum", "polyak_decay", "batch_norm_decay"):
            self._require(name, 0 <= (getattr(self, name) or 0) < 1, "a number in [0, 1)")
        self._require(
            "micro_batches",
            self.train_batch_size % self.micro_batches == 0,
            f"a divisor of train_batch_size {self.train_batch_size}",
        )
        self.size_range  # noqa: B018 - its own errors name the field
        self._require("train_crop_size", min(self.train_crop_size) >= 1, "two sizes of 1 or more")
        self._require("min_scale_factor", self.min_scale_factor > 0, "a number above 0")
        self._require("max_scale_factor", self.max_scale_factor >= self.min_scale_factor, "min_scale_factor or more")
        self._require("top_k_percent_pixels", 0 < self.top_k_percent_pixels <= 1, "a share in (0, 1]")
        self._require("label_weights", all(weight >= 0 for weight in self.label_weights), "weights of 0 or more")
        if self.backbone_weights and self.tf_initial_checkpoint:
            raise InputError(
                f"tf_initial_checkpoint: expected none beside backbone_weights, received {self.tf_initial_checkpoint!r}"
            )
        if not self.decay_steps:
            self._require(
                "slow_start_step",
                self.slow_start_step < self.training_number_of_steps,
                f"fewer than training_number_of_steps {self.training_number_of_steps}",
            )

    @property
    def size_range(self) -> SizeRange:
        """What an image is resized to before it is scaled."""
        return SizeRange(self.min_resize_value, self.max_resize_value, self.resize_factor)

    def _require(self, name: str, condition: bool, expected: str) -> None:
        if not condition:
            raise InputError(f"{name}: expected {expected}, received {getattr(self, name)!r}")
