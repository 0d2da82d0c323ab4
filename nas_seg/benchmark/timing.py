"""Repeated timings of several things in turn, with the machine's own matrix product in between.

Other work slows a machine down for minutes at a time. Whatever is to be compared takes turns, so that it meets all
alike, and every time is also told in units: the median of the 2048 x 2048 x 2048 float32 products of the same run.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping

import tensorflow as tf

GEMM = "gemm"
_SIZE = 2048
GEMM_FLOPS = 2 * _SIZE**3


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of one thing.

    Attributes:
        median, fastest, slowest: of the repetitions.
        first: the very first call, with its tracing.
    """

    median: float
    fastest: float
    slowest: float
    first: float


def time_in_turns(actions: Mapping[str, Callable[[], object]], repetitions: int = 9) -> dict[str, Timing]:
    """Times actions, one of each and again, after one untimed call of each.

    Args:
        actions: by name; each must wait for its own result.
        repetitions: timed calls of each.

    Returns:
        timings by name, and that of the matrix product as GEMM.
    """
    actions = {**actions, GEMM: _gemm()}
    first = {name: _seconds(action) for name, action in actions.items()}
    spent: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repetitions):
        for name, action in actions.items():
            spent[name].append(_seconds(action))
    return {
        name: Timing(statistics.median(times), min(times), max(times), first[name]) for name, times in spent.items()
    }


def _gemm() -> Callable[[], object]:
    matrices = [tf.random.stateless_normal((_SIZE, _SIZE), (seed, 0)) for seed in (0, 1)]
    return lambda: tf.matmul(*matrices).numpy()


def _seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start
