"""How fast Auto-DeepLab's supernet is: a step of its weights and one of alpha and beta, beside the matrix product."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import resource
import time
from collections.abc import Callable, Sequence

import tensorflow as tf

from nas_seg.auto_deeplab import search
from nas_seg.auto_deeplab.search_config import SearchConfig
from nas_seg.auto_deeplab.supernet import Supernet
from nas_seg.benchmark.timing import Timing, time_in_turns

_STEPS, _IGNORE_LABEL = 1000, 255
_SIZE = 2048  # Of the matrices of the unit.


@dataclasses.dataclass(frozen=True)
class SupernetRow:
    """The steps of one supernet on one batch.

    Attributes:
        crop_size: (height, width) of the pictures.
        batch_size: of them.
        num_layers, filters, num_blocks: of the supernet.
        million_weights: variables but alpha and beta, in millions.
        weight_step: forward, gradient by the weights, SGD with momentum.
        arch_step: forward, gradient by alpha and beta, Adam.
        gemm: of the matrix product in the same run, on all cores: a part of its rows on each.
        trace_s: seconds of the first weight step, with its tracing.
        arch_trace_s: seconds of the first step of alpha and beta.
        peak_gib: the most memory that the process has held after weight steps alone, in GiB.
        peak_gib_all: the same after both kinds of steps.
    """

    crop_size: tuple[int, int]
    batch_size: int
    num_layers: int
    filters: int
    num_blocks: int
    million_weights: float
    weight_step: Timing
    arch_step: Timing
    gemm: Timing
    trace_s: float
    arch_trace_s: float
    peak_gib: float
    peak_gib_all: float

    @property
    def weight_step_s(self) -> float:
        """Median."""
        return self.weight_step.median

    @property
    def arch_step_s(self) -> float:
        """Median."""
        return self.arch_step.median

    @property
    def gemm_s(self) -> float:
        """Median: the unit."""
        return self.gemm.median

    @property
    def weight_step_units(self) -> float:
        """Weight step over matrix product."""
        return self.weight_step_s / self.gemm_s

    @property
    def arch_step_units(self) -> float:
        """Step of alpha and beta over matrix product."""
        return self.arch_step_s / self.gemm_s


def time_supernet(
    supernet: Supernet, crop_size: Sequence[int], batch_size: int, repetitions: int = 5, separate_graphs: bool = False
) -> SupernetRow:
    """Times both steps of a supernet on random pictures, in turns with the matrix product.

    Args:
        supernet: its variables are changed.
        crop_size: (height, width).
        batch_size: pictures of a step.
        repetitions: of each.
        separate_graphs: see `SearchConfig`.
    """
    images = tf.random.stateless_uniform((batch_size, *crop_size, 3), (0, 0), 0.0, 255.0)
    labels = tf.random.stateless_uniform((batch_size, *crop_size), (0, 1), 0, supernet.num_classes, tf.int32)
    weight_step, arch_step = make_steps(supernet, images, labels, separate_graphs)
    begun = time.perf_counter()
    weight_step()
    traced = time.perf_counter()
    # Only now and then does the allocator give back; the second and third step show what is held for good.
    weight_step()
    weight_step()
    peak = _peak_gib()
    timings = time_in_turns({"weight": weight_step, "arch": arch_step, "all cores": _product()}, repetitions)
    return SupernetRow(
        tuple(crop_size),
        batch_size,
        supernet.num_layers,
        supernet.filters,
        supernet.num_blocks,
        sum(variable.value.shape.num_elements() for variable in supernet.weight_variables) / 1e6,
        timings["weight"],
        timings["arch"],
        timings["all cores"],
        traced - begun,
        timings["arch"].first,
        peak,
        _peak_gib(),
    )


def make_steps(
    supernet: Supernet, images, labels, separate_graphs: bool = False
) -> tuple[Callable[[], float], Callable[[], float]]:
    """(step of the weights, step of alpha and beta) of a search without weight decay, on one batch; each returns its
    loss."""
    config = SearchConfig(weight_decay=0.0, architecture_weight_decay=0.0, separate_graphs=separate_graphs)
    weights, architecture = search.weight_optimizer(config, _STEPS), search.architecture_optimizer(config)
    steps = search.make_steps(supernet, weights, architecture, config, _IGNORE_LABEL)
    return tuple(functools.partial(step, images, labels) for step in steps)


def _product() -> Callable[[], object]:
    """The 2048 x 2048 x 2048 product as branches that run side by side, as the supernet's operations do.

    `time_in_turns` has one of its own, which has a single thread where `configure_process` was called.
    """
    left, right = (tf.random.stateless_normal((_SIZE, _SIZE), (seed, 0)) for seed in (0, 1))
    cores = os.cpu_count() or 1
    bounds = [_SIZE * core // cores for core in range(cores + 1)]

    @tf.function(autograph=False)
    def product():
        return [left[begin:end] @ right for begin, end in itertools.pairwise(bounds)]

    return lambda: [part.numpy() for part in product()]


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
