"""How fast networks of the zoo are: picture in, labels out, beside the machine's matrix product."""

from __future__ import annotations

import dataclasses
import resource
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from nas_seg import presets
from nas_seg.benchmark.timing import GEMM, GEMM_FLOPS, Timing, time_in_turns
from nas_seg.utils.flops import count_madds


@dataclasses.dataclass(frozen=True)
class ModelRow:
    """One network on one picture, arg-max included.

    Attributes:
        name: of the preset.
        size: (height, width) of the picture.
        gflop: floating-point operations of its convolutions, in billions: twice the multiply-adds.
        timing: of a picture.
        gemm: of the matrix product in the same run.
        peak_gib: the most memory that the process has held until then, in GiB.
    """

    name: str
    size: tuple[int, int]
    gflop: float
    timing: Timing
    gemm: Timing
    peak_gib: float

    @property
    def units(self) -> float:
        """Seconds over those of the matrix product."""
        return self.timing.median / self.gemm.median

    @property
    def share_of_gemm(self) -> float:
        """GFLOP/s over those of the matrix product."""
        return self.gflop * 1e9 / self.timing.median / (GEMM_FLOPS / self.gemm.median)


def time_models(names: Sequence[str], num_classes: int, size: tuple[int, int], repetitions: int = 9) -> list[ModelRow]:
    """Times presets with fresh weights at batch 1, each in turns with the matrix product.

    One network is in memory at a time. Its labels come out as from an exported network: the logits brought to the
    size of the picture, and their arg-max.
    """
    rows = []
    for name in names:
        keras.backend.clear_session()
        model = presets.from_preset(name, num_classes)
        gflop = 2 * count_madds(model, *size) / 1e9
        timings = time_in_turns({name: _labels(model, size)}, repetitions)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        rows.append(ModelRow(name, tuple(size), gflop, timings[name], timings[GEMM], peak))
    return rows


def _labels(model: keras.Model, size: tuple[int, int]) -> Callable[[], object]:
    image = tf.random.stateless_uniform((1, *size, 3), (0, 0), 0.0, 255.0)

    @tf.function
    def predict(images):
        return tf.argmax(model(images, training=False), axis=-1, output_type=tf.int32)

    return lambda: predict(image).numpy()
