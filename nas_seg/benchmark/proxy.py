"""How fast a search's proxy is: a step beside the machine's matrix product, a trial cached and uncached, workers."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from nas_seg import model as model_lib
from nas_seg.benchmark.timing import GEMM, GEMM_FLOPS, Timing, time_in_turns
from nas_seg.common import IMAGE, LABEL
from nas_seg.core.backbones import normalize as normalize_layer
from nas_seg.core.resize import resize_bilinear
from nas_seg.datasets.data_generator import train_dataset, view_dataset
from nas_seg.dpc import proxy
from nas_seg.dpc.baselines import BASELINES
from nas_seg.dpc.genotype import DPCGenotype
from nas_seg.dpc.network import DPCConfig
from nas_seg.dpc_search import DPCSearch
from nas_seg.dpc_task import ProxyTask
from nas_seg.model import ModelConfig
from nas_seg.search import study
from nas_seg.utils.flops import count_madds
from nas_seg.utils.progress import progress

# A step is a forward pass and two products of its size for each convolution: to its inputs and to its kernel.
_PASSES = 3
_VAL_BATCHES = 3


@dataclasses.dataclass(frozen=True)
class StepRow:
    """One kind of step of one cell.

    Attributes:
        cell, dtype_policy: what was timed.
        gflop: floating-point operations of a step, in billions: three times twice the forward multiply-adds of all
            convolutions of the head.
        timing: of a step.
        share_of_gemm: GFLOP/s of the step over those of the matrix product of the same run.
    """

    cell: str
    dtype_policy: str
    gflop: float
    timing: Timing
    share_of_gemm: float


def time_steps(evaluator: proxy.ProxyEvaluator, cells: Mapping[str, DPCGenotype], repetitions: int) -> dict[str, Any]:
    """{"gemm": Timing, "rows": [StepRow]} of every cell in every dtype policy, in turns."""
    actions, gflops = {}, {}
    batch = next(evaluator.batches(seed=0))
    for name, cell in cells.items():
        for policy in proxy.DTYPE_POLICIES:
            key = f"{name} {policy}"
            config = dataclasses.replace(evaluator.config, dtype_policy=policy)
            model = evaluator.with_config(config).build(evaluator.head(cell))
            actions[key] = _ready(proxy.make_step(model, config, evaluator.ignore_label), *batch)
            gflops[key] = _step_gflop(model, batch[0].shape)
    timings = time_in_turns(actions, repetitions)
    speed = GEMM_FLOPS / timings[GEMM].median / 1e9
    rows = [
        StepRow(*key.rsplit(" ", 1), gflop, timings[key], gflop / timings[key].median / speed)
        for key, gflop in gflops.items()
    ]
    return {"gemm": timings[GEMM], "rows": rows}


def _ready(step: Callable, *batch) -> Callable[[], float]:
    return lambda: float(step(*batch))


def _step_gflop(model: keras.Model, shape: Sequence[int]) -> float:
    return _PASSES * 2 * shape[0] * count_madds(model, shape[1], shape[2]) / 1e9


@dataclasses.dataclass(frozen=True)
class TrialRow:
    """One way to score a cell.

    Attributes:
        name: the way.
        step_seconds: of a training step, pictures and all.
        trace_seconds: until the first step is compiled and done.
        val_seconds: of the scores on the validation split.
        steps: of a trial.
    """

    name: str
    step_seconds: float
    trace_seconds: float
    val_seconds: float
    steps: int

    @property
    def seconds(self) -> float:
        """Of a whole trial."""
        return self.trace_seconds + (self.steps - 1) * self.step_seconds + self.val_seconds

    @property
    def per_hour(self) -> float:
        """Trials of one process."""
        return 3600.0 / self.seconds

    @property
    def trace_share(self) -> float:
        """Part of a trial that is tracing."""
        return (self.trace_seconds - self.step_seconds) / self.seconds


def time_trials(task: ProxyTask, run_dir: str | os.PathLike, cell: DPCGenotype, steps: int) -> list[TrialRow]:
    """A trial from the cache, one that runs the frozen backbone in each step, and one that trains the backbone too.

    The first is timed as a whole; of the others `steps` steps and a few batches of the validation split are, and a
    trial is what its steps and batches add up to.
    """
    backbone = task.load_backbone()
    evaluator, _ = task.open(run_dir, backbone)
    return [
        _cached(evaluator, cell),
        _uncached(
            "frozen backbone in each step", task, evaluator, _frozen_step(task, evaluator, backbone, cell), steps
        ),
        _uncached("end to end", task, evaluator, _whole_step(task, evaluator, cell), steps),
    ]


def _cached(evaluator: proxy.ProxyEvaluator, cell: DPCGenotype) -> TrialRow:
    start = time.perf_counter()
    model, training = evaluator.fit(evaluator.head(cell), seed=0)
    fitted = time.perf_counter()
    evaluator.measure(model, evaluator.val)
    steps, trace = evaluator.config.steps, training["trace_seconds"]
    step = (fitted - start - trace) / max(steps - 1, 1)
    return TrialRow("cached features", step, trace, time.perf_counter() - fitted, steps)


def _uncached(name: str, task: ProxyTask, evaluator, made: tuple[Callable, Callable], steps: int) -> TrialRow:
    """Times (step(), predict(images)) of one way."""
    step, predict = made
    start = time.perf_counter()
    step()
    traced = time.perf_counter()
    for _ in range(steps):
        step()
    step_seconds = (time.perf_counter() - traced) / steps
    pictures = view_dataset(task.dataset_dir, task.val_split, size=task.size).batch(task.proxy.batch_size)
    batches = list(pictures.take(_VAL_BATCHES + 1))
    predict(batches[0][IMAGE])
    begun = time.perf_counter()
    for batch in batches[1:]:
        predict(batch[IMAGE])
    seen = sum(len(batch[IMAGE]) for batch in batches[1:])
    val_seconds = (time.perf_counter() - begun) * len(evaluator.val) / max(seen, 1)
    return TrialRow(name, step_seconds, traced - start, val_seconds, task.proxy.steps)


def _frozen_step(task: ProxyTask, evaluator: proxy.ProxyEvaluator, backbone, cell) -> tuple[Callable, Callable]:
    model = evaluator.build(evaluator.head(cell))
    head_step = proxy.make_step(model, task.proxy, evaluator.ignore_label)
    batches, every = _training_pictures(task), task.proxy.label_stride

    normalize = normalize_layer(task.backbone)

    @tf.function
    def features(images):
        return backbone(normalize(images), training=False)

    def step() -> float:
        batch = next(batches)
        return float(head_step(features(batch[IMAGE]), batch[LABEL][:, ::every, ::every]))

    @tf.function
    def predict(images):
        return tf.argmax(resize_bilinear(model(features(images), training=False), task.size), axis=-1)

    return step, predict


def _whole_step(task: ProxyTask, evaluator: proxy.ProxyEvaluator, cell) -> tuple[Callable, Callable]:
    filters = task.proxy.filters
    network = DPCConfig(cell, task.backbone, filters=filters, concat_filters=filters)
    model = model_lib.build(ModelConfig(evaluator.num_classes, network))
    train_step = proxy.make_step(model, dataclasses.replace(task.proxy, label_stride=1), evaluator.ignore_label)
    batches = _training_pictures(task)

    def step() -> float:
        batch = next(batches)
        return float(train_step(batch[IMAGE], batch[LABEL]))

    @tf.function
    def predict(images):
        return tf.argmax(model(images, training=False), axis=-1)

    return step, predict


def _training_pictures(task: ProxyTask):
    """Endless batches of augmented training crops, as of an ordinary training."""
    size = task.proxy.crop_size or task.size
    return iter(
        train_dataset(
            task.dataset_dir, task.train_split, crop_size=size, batch_size=task.proxy.batch_size, seed=task.seed
        )
    )


@dataclasses.dataclass(frozen=True)
class WorkersRow:
    """A real search by some processes.

    Attributes:
        workers: processes.
        trials: that they scored.
        trial_seconds: from the start of the first trial to the end of the last.
        wall_seconds: of the whole command, with its start.
    """

    workers: int
    trials: int
    trial_seconds: float
    wall_seconds: float

    @property
    def per_hour(self) -> float:
        """Trials of all processes together."""
        return 3600.0 * self.trials / self.trial_seconds


def time_workers(
    task: ProxyTask, run_dir: str | os.PathLike, tool: str | os.PathLike, workers: int, trials: int, steps: int
) -> WorkersRow:
    """Runs tools/search_dpc.py on the caches of a search, in a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        made = pathlib.Path(folder, "run")
        made.mkdir()
        (made / "cache").symlink_to(pathlib.Path(run_dir, "cache").resolve())
        start = time.perf_counter()
        command = [sys.executable, str(tool), *_flags(task, made, trials, workers, steps)]
        done = subprocess.run(command, capture_output=True, text=True)
        wall = time.perf_counter() - start
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
        opened = study.read_study(study.default_storage(made), DPCSearch.study_name)
        complete = [trial for trial in opened.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
    begun, ended = min(t.datetime_start for t in complete), max(t.datetime_complete for t in complete)
    return WorkersRow(workers, len(complete), (ended - begun).total_seconds(), wall)


def _flags(task: ProxyTask, run_dir: pathlib.Path, trials: int, workers: int, steps: int) -> list[str]:
    """The task as flags of tools/search_dpc.py."""
    proxy_config, backbone = task.proxy, task.backbone
    values = {
        "run_dir": run_dir,
        "dataset_dir": task.dataset_dir,
        "num_trials": trials,
        "workers": workers,
        "proxy_steps": steps,
        "seed": task.seed,
        "backbone_weights": task.backbone_weights,
        "backbone": backbone.name,
        "output_stride": backbone.output_stride,
        "depth_multiplier": backbone.depth_multiplier,
        "divisible_by": backbone.divisible_by,
        "train_split": task.train_split,
        "val_split": task.val_split,
        "cache_size": ",".join(map(str, task.size)),
        "cache_views": task.views,
        "proxy_batch_size": proxy_config.batch_size,
        "proxy_learning_rate": proxy_config.base_learning_rate,
        "proxy_crop_size": proxy_config.crop_size and ",".join(map(str, proxy_config.crop_size)),
        "proxy_dtype_policy": proxy_config.dtype_policy,
        "filters": proxy_config.filters,
    }
    return [f"--{name}={value}" for name, value in values.items() if value is not None]


def measure(
    task: ProxyTask,
    run_dir: str | os.PathLike,
    tool: str | os.PathLike,
    repetitions: int = 9,
    uncached_steps: int = 5,
    workers: Sequence[int] = (1, 2),
    worker_trials: int = 4,
) -> dict[str, Any]:
    """All figures: {"steps": ..., "trials": [TrialRow], "workers": [WorkersRow]}.

    Args:
        task: of a search.
        run_dir: of that search, with its caches.
        tool: tools/search_dpc.py.
        repetitions: of each kind of step.
        uncached_steps: of the ways without a cache.
        workers: numbers of processes to search with.
        worker_trials: trials for each worker.
    """
    with progress("benchmark", 2 + len(workers)) as bar:
        evaluator, _ = task.open(run_dir, task.load_backbone())
        steps = time_steps(evaluator, {name: BASELINES[name] for name in ("aspp", "top1")}, repetitions)
        bar.advance()
        trials = time_trials(task, run_dir, BASELINES["top1"], uncached_steps)
        bar.advance()
        rows = []
        for count in workers:
            rows.append(time_workers(task, run_dir, tool, count, count * worker_trials, task.proxy.steps))
            bar.advance()
    return {"steps": steps, "trials": trials, "workers": rows}
