"""A gradient search on a data set: its run folder, its two streams of data, its epochs.

What lies in the run folder is told by `nas_seg.auto_deeplab.search_run`. Stopped at any moment and started again, a
search ends with the same alpha and beta as an uninterrupted one: the two halves of the data are stored, batch k of each
depends on k alone, and a checkpoint has the weights, alpha, beta, both optimizers and the losses of the open epoch.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import pathlib
import resource
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from nas_seg import common
from nas_seg.auto_deeplab import memory
from nas_seg.auto_deeplab import search_run as run_folder
from nas_seg.auto_deeplab.search_config import SearchConfig
from nas_seg.auto_deeplab.search_run import SECTION, StoredSplit
from nas_seg.datasets.descriptors import DatasetDescriptor, read_descriptor
from nas_seg.plot.report import write_report
from nas_seg.search.interrupts import Interrupts, deferred_interrupts
from nas_seg.utils import app, config, runs, scalars
from nas_seg.utils.errors import InputError
from nas_seg.utils.progress import progress
from nas_seg.utils.state_file import load_state, save_state

if TYPE_CHECKING:
    from nas_seg.auto_deeplab.search import Step
    from nas_seg.auto_deeplab.supernet import Supernet

# Images come to the supernet in [-1, 1], and so the grey that a crop is padded with is its zero.
_MEAN_PIXEL = (127.5, 127.5, 127.5)
_VAL_SEED = 0


@dataclasses.dataclass
class _Progress:
    """Where a search is; all of it is in the checkpoint.

    Attributes:
        step: weight steps done.
        weight_losses, architecture_losses: of the steps of the open epoch.
        seconds: spent on it.
    """

    step: int = 0
    weight_losses: list[float] = dataclasses.field(default_factory=list)
    architecture_losses: list[float] = dataclasses.field(default_factory=list)
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class _Parts:
    """What a search works with."""

    config: SearchConfig
    run_dir: pathlib.Path
    supernet: Supernet
    weight_step: Step
    architecture_step: Step
    variables: list
    epoch_steps: int
    learning_rate: Callable[[], float]
    batches: Callable[[str, int], Iterator]
    evaluate: Callable[[], dict[str, float | None]]

    @property
    def total(self) -> int:
        return self.config.epochs * self.epoch_steps

    @property
    def frozen(self) -> int:
        """Weight steps before the first step of alpha and beta."""
        return self.config.num_frozen_epochs * self.epoch_steps

    @property
    def state(self) -> pathlib.Path:
        return self.run_dir / run_folder.STATE


def search(search_config: SearchConfig, dataset_dir: str | os.PathLike, run_dir: str | os.PathLike) -> dict[str, Any]:
    """Searches to the last epoch, from where the run folder stands.

    Args:
        search_config: what to do. Steps are faster in a process that called `supernet.configure_process` first.
        dataset_dir: folder with dataset.json.
        run_dir: made where it is missing, gone on with where it is of the same search.

    Returns:
        The row of the last epoch, as in metrics.jsonl.

    Raises:
        InputError: for what does not fit; as far as possible before TensorFlow is imported or anything written.
        nas_seg.train.Diverged: when a loss is not a finite number.
        KeyboardInterrupt: on Ctrl-C and SIGTERM, once a checkpoint is written; a second one does not wait for it.
    """
    data, sections = check(search_config, dataset_dir, run_dir)
    app.import_tensorflow()
    from nas_seg.datasets import records
    from nas_seg.train import LabelOutOfRange
    from nas_seg.utils.tracing import quick_tracing

    splits = (search_config.train_split, search_config.val_split)
    for name in splits:
        # Damaged shards must not leave a run folder behind.
        records.open_split(dataset_dir, name)
    runs.open_run(run_dir, sections | runs.circumstances())
    with runs.lock(run_dir), quick_tracing(), deferred_interrupts() as interrupts:
        split = _open_split(search_config, data, run_dir)
        parts = _make_parts(search_config, data, pathlib.Path(run_dir), dataset_dir, split)
        try:
            with records.translate_data_errors(dataset_dir, *splits):
                rows = _search(parts, interrupts)
        except LabelOutOfRange:
            # The step cannot say which picture it was; this finds the first, or the error goes on.
            records.verify(dataset_dir, search_config.train_split)
            raise
    return rows[-1]


def check(
    search_config: SearchConfig, dataset_dir: str | os.PathLike, run_dir: str | os.PathLike
) -> tuple[DatasetDescriptor, dict[str, Any]]:
    """Raises InputError for all that can be found wrong without TensorFlow; writes nothing.

    Returns:
        the data set, and the sections of config.json that say what is searched.
    """
    data = read_descriptor(dataset_dir, search_config.train_split, search_config.val_split)
    count, batch = data.split(search_config.train_split).num_images, search_config.batch_size
    if count < 2 * batch:
        raise InputError(
            f"--train_split: {search_config.train_split!r} is too small to halve: expected at least {2 * batch} "
            f"pictures, a batch of {batch} in each half, received {count}"
        )
    sections = {SECTION: runs.section(run_dir, SECTION, search_config), "dataset_dir": os.path.abspath(dataset_dir)}
    runs.check_run(run_dir, sections)
    return data, sections


def estimate(search_config: SearchConfig, dataset_dir: str | os.PathLike) -> memory.MemoryEstimate:
    """The memory that a search on a data set will take."""
    return memory.estimate_memory(search_config, read_descriptor(dataset_dir).num_classes)


def check_memory(search_config: SearchConfig, dataset_dir: str | os.PathLike, memory_gib: float) -> None:
    """Raises InputError where a search on a data set takes more."""
    memory.check_memory(search_config, read_descriptor(dataset_dir).num_classes, memory_gib)


def _open_split(search_config: SearchConfig, data: DatasetDescriptor, run_dir: str | os.PathLike) -> StoredSplit:
    """The two halves: those of the run folder, or else drawn and stored there."""
    from nas_seg.auto_deeplab.search import halve

    path, info = pathlib.Path(run_dir, run_folder.SPLIT), data.split(search_config.train_split)
    if not path.exists():
        halves = halve(info.num_images, search_config.seed, search_config.batch_size)
        config.save(path, StoredSplit(search_config.train_split, info.digest, search_config.seed, *halves))
    split = config.load(path, StoredSplit)
    if split.digest != info.digest:
        raise InputError(
            f"{path}: halves of other pictures: expected records of digest {info.digest}, received {split.digest}"
        )
    if sorted((*split.train_a, *split.train_b)) != list(range(info.num_images)):
        raise InputError(f"{path}: expected train_a and train_b to be all {info.num_images} records, each once")
    return split


def _make_parts(
    search_config: SearchConfig,
    data: DatasetDescriptor,
    run_dir: pathlib.Path,
    dataset_dir: str | os.PathLike,
    split: StoredSplit,
) -> _Parts:
    from nas_seg.auto_deeplab import search as steps
    from nas_seg.auto_deeplab.supernet import Supernet

    supernet = Supernet(
        data.num_classes,
        search_config.num_layers,
        search_config.num_blocks,
        search_config.filters,
        shared_weights=search_config.shared_weights,
        recompute=search_config.recompute,
        seed=search_config.seed,
        dtype=search_config.dtype_policy,
    )
    epoch_steps = search_config.epoch_steps(len(split.train_a))
    weights = steps.weight_optimizer(search_config, search_config.epochs * epoch_steps)
    architecture = steps.architecture_optimizer(search_config)
    batches = _streams(search_config, dataset_dir, split)
    return _Parts(
        search_config,
        run_dir,
        supernet,
        *steps.make_steps(supernet, weights, architecture, search_config, data.ignore_label),
        # Only now, for the steps have built the optimizers.
        [*supernet.variables, *weights.variables, *architecture.variables],
        epoch_steps,
        lambda: float(weights.learning_rate),
        batches,
        _evaluation(supernet, search_config, data, batches),
    )


def _streams(
    search_config: SearchConfig, dataset_dir: str | os.PathLike, split: StoredSplit
) -> Callable[[str, int], Iterator]:
    """(train_a, train_b or val; first step) -> batches; batch k depends on k alone."""
    from nas_seg.datasets import data_generator

    # Seeds of their own: the halves have no picture in common, and are to have no order in common either.
    parts = {"train_a": (split.train_a, 2 * search_config.seed), "train_b": (split.train_b, 2 * search_config.seed + 1)}

    def batches(name: str, start_step: int) -> Iterator:
        indices, seed = parts.get(name, (None, _VAL_SEED))
        return iter(
            data_generator.train_dataset(
                dataset_dir,
                search_config.val_split if indices is None else search_config.train_split,
                crop_size=search_config.crop_size,
                batch_size=search_config.batch_size if indices else search_config.micro_batch_size,
                seed=seed,
                start_step=start_step,
                min_scale_factor=search_config.image_scale,
                max_scale_factor=search_config.image_scale,
                flip=indices is not None,
                mean_pixel=_MEAN_PIXEL,
                indices=indices,
            )
        )

    return batches


def _evaluation(
    supernet, search_config: SearchConfig, data: DatasetDescriptor, batches: Callable[[str, int], Iterator]
) -> Callable[[], dict[str, float | None]]:
    """Scores the supernet as it is on the same crops each time."""
    from nas_seg import eval as evaluation
    from nas_seg.auto_deeplab.search import predictor

    predict, size = predictor(supernet, search_config), search_config.micro_batch_size
    count = math.ceil(min(search_config.val_images, data.split(search_config.val_split).num_images) / size)

    def evaluate() -> dict[str, float | None]:
        crops = itertools.islice(batches("val", 0), count)
        scores = evaluation.evaluate(supernet, crops, data.num_classes, data.ignore_label, predict=predict)
        # The score of nothing, NaN, is null in JSON.
        kept = {"val_miou": scores["miou"], "val_pixel_accuracy": scores["pixel_accuracy"]}
        return {name: None if math.isnan(value) else value for name, value in kept.items()}

    return evaluate


def _search(parts: _Parts, interrupts: Interrupts) -> list[dict[str, Any]]:
    """All steps that are still to do; the rows of all epochs."""
    done = _restore(parts)
    rows = [row for row in runs.read_metrics(parts.run_dir) if row["step"] <= done.step]
    runs.write_metrics(parts.run_dir, rows)
    if done.step == parts.total:
        return rows
    train_a = parts.batches("train_a", done.step)
    train_b = parts.batches("train_b", max(done.step - parts.frozen, 0))
    told = scalars.writer(parts.run_dir)
    units, before = 2 * parts.total - parts.frozen, done.step + max(done.step - parts.frozen, 0)
    with progress("search", units, done=before) as bar:
        while done.step < parts.total:
            start = time.perf_counter()
            steps = _alternate(parts, done, train_a, train_b)
            done.seconds += time.perf_counter() - start
            if done.step % parts.epoch_steps == 0:
                rows.append(_finish_epoch(parts, done))
                told.row(rows[-1])
                write_report(parts.run_dir)
            last = {"loss": done.weight_losses[-1]} if done.weight_losses else {}
            bar.advance(steps, epoch=-(-done.step // parts.epoch_steps), **last)
            if done.step % parts.epoch_steps == 0 or done.step % parts.config.save_interval_steps == 0:
                _save(parts, done)
            _heed(parts, done, interrupts)
    return rows


def _alternate(parts: _Parts, done: _Progress, train_a: Iterator, train_b: Iterator) -> int:
    """One weight step and, once they are no longer frozen, one of alpha and beta; how many steps that were."""
    batch = next(train_a)
    done.weight_losses.append(parts.weight_step(batch[common.IMAGE], batch[common.LABEL]))
    done.step += 1
    if done.step <= parts.frozen:
        return 1
    batch = next(train_b)
    done.architecture_losses.append(parts.architecture_step(batch[common.IMAGE], batch[common.LABEL]))
    return 2


def _finish_epoch(parts: _Parts, done: _Progress) -> dict[str, Any]:
    """Decodes and scores; writes genotype, logits and the row, which it returns."""
    from nas_seg.auto_deeplab.search import decode_scores, describe_collapse, logits_of

    epoch, logits = done.step // parts.epoch_steps, logits_of(parts.supernet)
    genotype, scores = decode_scores(**logits)
    architecture_steps = max(done.step - parts.frozen, 0)
    row = {
        "step": done.step,
        "epoch": epoch,
        "architecture_steps": architecture_steps,
        "weight_loss": _mean(done.weight_losses),
        "architecture_loss": _mean(done.architecture_losses),
        "learning_rate": parts.learning_rate(),
        **parts.evaluate(),
        **scores,
        "genotype": genotype.summary(),
        # Before the first step of alpha and beta nothing has been searched that could collapse.
        "collapse": describe_collapse(genotype) if architecture_steps else None,
        "seconds": round(done.seconds, 3),
        # The most that this process has held, in GiB; Linux counts in KiB.
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3),
    }
    run_folder.write_epoch(parts.run_dir, epoch, genotype, logits)
    runs.append_metrics(parts.run_dir, row)
    done.weight_losses, done.architecture_losses, done.seconds = [], [], 0.0
    _announce(row, parts.config.epochs)
    return row


def _announce(row: dict[str, Any], epochs: int) -> None:
    miou = "unknown" if row["val_miou"] is None else f"{row['val_miou']:.4f}"
    print(
        f"epoch {row['epoch']}/{epochs}: val mIoU {miou} · entropy alpha {row['alpha_entropy']:.4f}, "
        f"beta {row['beta_entropy']:.4f} · margin {row['margin']:.4f} · {row['genotype']}",
        flush=True,
    )
    if row["collapse"]:
        print(f"warning: collapse: {row['collapse']}", flush=True)


def _mean(losses: list[float]) -> float | None:
    return sum(losses) / len(losses) if losses else None


def _restore(parts: _Parts) -> _Progress:
    """Goes back to the checkpoint, if there is one."""
    if not parts.state.exists():
        return _Progress()
    numbers = load_state(parts.state, parts.variables)
    try:
        step, seconds = int(numbers["step"]), float(numbers["seconds"])
        losses = (numbers[name].tolist() for name in ("weight_losses", "architecture_losses"))
        return _Progress(step, *losses, seconds)
    except (KeyError, TypeError) as error:
        raise InputError(f"{parts.state}: the checkpoint cannot be read (no {error})") from None


def _save(parts: _Parts, done: _Progress) -> None:
    save_state(parts.state, parts.variables, dataclasses.asdict(done))


def _heed(parts: _Parts, done: _Progress, interrupts: Interrupts) -> None:
    """Leaves with a checkpoint where a signal has come."""
    try:
        interrupts.check()
    except KeyboardInterrupt:
        _save(parts, done)
        print(f"stopped at step {done.step}; the same command goes on from there", flush=True)
        raise
