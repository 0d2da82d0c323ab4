"""A search of dense prediction cells on a data set: its settings, its run folder, its processes.

RUN/config.json       what the scores depend on, and the latest way of proposing; written first
RUN/cache/SPLIT/      features of the frozen backbone
RUN/study.db          the study, where no other storage is named
RUN/genotype.json     the best cell so far

Several processes may search in one folder at once: each joins the study, and what they must agree on is compared.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.samplers import BaseSampler
from optuna.study import Study

from nas_seg.common import REWARD
from nas_seg.datasets.descriptors import DatasetDescriptor, read_descriptor
from nas_seg.dpc.baselines import BASELINES
from nas_seg.dpc.space import DPCSpace
from nas_seg.search import records, samplers, study, workers
from nas_seg.search.baselines import score_baselines
from nas_seg.search.early_stop import RULES
from nas_seg.search.evaluator import Evaluator
from nas_seg.search.interrupts import sigterm_as_interrupt
from nas_seg.search.loop import run_search
from nas_seg.search.storage import check_storage
from nas_seg.search.table import show_study
from nas_seg.utils import app, config, runs
from nas_seg.utils.errors import InputError, unknown
from nas_seg.utils.progress import progress

if TYPE_CHECKING:
    from nas_seg.dpc_task import ProxyTask

LATENCY = "latency"
OBJECTIVES = (REWARD, "params", "madds", LATENCY)
# A field of DPCSearch: the sampler that it is of, and its name there.
SAMPLER_OPTIONS = {
    "near_best_fraction": ("near_best", "fraction"),
    "near_best_pool": ("near_best", "pool"),
    "near_best_mutations": ("near_best", "num_mutations"),
    "evolution_population": ("evolution", "population"),
    "evolution_sample_size": ("evolution", "sample_size"),
}


@dataclasses.dataclass(frozen=True)
class DPCSearch:
    """What a search is made from; the flags of tools/search_dpc.py, which say what each of them is."""

    run_dir: str
    dataset_dir: str
    num_trials: int = 50
    proxy_steps: int = 200
    seed: int = 0
    backbone_weights: str | None = None
    backbone: str | None = None
    output_stride: int | None = None
    depth_multiplier: float | None = None
    divisible_by: int | None = None
    train_split: str = "train"
    val_split: str = "val"
    cache_size: tuple[int, int] | None = None
    cache_views: int = 1
    proxy_batch_size: int = 8
    proxy_learning_rate: float = 0.3
    proxy_crop_size: tuple[int, int] | None = None
    proxy_dtype_policy: str = "float32"
    filters: int = 256
    num_branches: int = 5
    sampler: str = "random"
    near_best_fraction: float | None = None
    near_best_pool: int | None = None
    near_best_mutations: int | None = None
    evolution_population: int | None = None
    evolution_sample_size: int | None = None
    objectives: tuple[str, ...] = (REWARD,)
    early_stop: str = "none"
    baseline: tuple[str, ...] = ()
    workers: int = 1
    time_budget_minutes: float | None = None
    import_study: str | None = None
    storage: str | None = None
    study_name: str = "search"

    @property
    def url(self) -> str:
        """Of the study's storage."""
        return self.storage or study.default_storage(self.run_dir)

    @property
    def sampler_options(self) -> dict[str, Any]:
        """The options of the sampler that are given, by their names there; InputError for those of another one."""
        options = {}
        for name, (sampler, argument) in SAMPLER_OPTIONS.items():
            value = getattr(self, name)
            if value is not None and sampler != self.sampler:
                raise InputError(f"--{name}: an option of --sampler={sampler}, received --sampler={self.sampler}")
            options |= {} if value is None else {argument: value}
        return options

    def make_sampler(self, space: DPCSpace) -> BaseSampler:
        """What proposes cells."""
        options = self.sampler_options
        try:
            return samplers.make_sampler(self.sampler, space, self.seed, **options)
        except InputError as problem:
            raise InputError(f"--sampler={self.sampler}: {problem}") from None


def search(settings: DPCSearch, command: Sequence[str]) -> None:
    """Searches until the trials are scored, in this process or in `settings.workers` that run `command`.

    Raises:
        InputError: for what does not fit; as far as possible before TensorFlow is imported or anything written.
        KeyboardInterrupt: on Ctrl-C and SIGTERM, once the study is in order and all workers have ended.
    """
    space = DPCSpace(settings.num_branches)
    check(settings, space)
    if workers.worker_index() is not None:
        workers.end_with_parent()
        _work(settings, space)
        return
    ended = _lead(settings, command) if settings.workers > 1 else _work(settings, space)
    _finish(settings, space, ended)


def check(settings: DPCSearch, space: DPCSpace) -> None:
    """Raises InputError for all that can be found wrong without TensorFlow; writes nothing."""
    for name, value, known in (
        ("sampler", settings.sampler, samplers.SAMPLERS),
        ("early_stop", settings.early_stop, RULES),
        *(("objective", name, OBJECTIVES) for name in settings.objectives),
        *(("baseline", name, BASELINES) for name in settings.baseline),
    ):
        if value not in known:
            raise unknown(name, value, known)
    study.check_objectives(settings.objectives)
    settings.make_sampler(space)
    data = read_descriptor(settings.dataset_dir)
    for split in (settings.train_split, settings.val_split):
        data.split(split)
    # The folder of the default storage may be still to be made.
    if (os.path.isdir(settings.run_dir) or settings.storage) and check_storage(settings.url):
        study.check_study(settings.url, settings.study_name, space, settings.objectives)
    if settings.import_study:
        records.read_record(settings.import_study, space, settings.objectives)


def make_task(settings: DPCSearch, data: DatasetDescriptor) -> ProxyTask:
    """The proxy task that the settings ask for; paths in it are absolute."""
    from nas_seg import features
    from nas_seg.dpc.proxy import ProxyConfig
    from nas_seg.dpc_task import ProxyTask

    weights = settings.backbone_weights
    fields = {"name": settings.backbone} | {
        name: getattr(settings, name) for name in ("output_stride", "depth_multiplier", "divisible_by")
    }
    backbone = features.backbone_config(weights, **fields)
    return ProxyTask(
        dataset_dir=os.path.abspath(settings.dataset_dir),
        train_split=settings.train_split,
        val_split=settings.val_split,
        backbone=backbone,
        backbone_weights=os.path.abspath(weights) if weights and os.path.exists(weights) else weights,
        size=settings.cache_size
        or features.grid_size(data.split(settings.train_split).max_size, backbone.output_stride),
        views=settings.cache_views,
        seed=settings.seed,
        proxy=ProxyConfig(
            steps=settings.proxy_steps,
            batch_size=settings.proxy_batch_size,
            base_learning_rate=settings.proxy_learning_rate,
            filters=settings.filters,
            crop_size=settings.proxy_crop_size,
            dtype_policy=settings.proxy_dtype_policy,
        ),
    )


def make_evaluator(settings: DPCSearch, data: DatasetDescriptor) -> tuple[Evaluator, dict[str, str]]:
    """(evaluator, what its scores depend on); writes the run's config.json first, then its caches.

    Raises:
        InputError: where the folder is one of another run, or a cache of other features.
    """
    from nas_seg.dpc_task import SECTION

    task, run_dir = make_task(settings, data), pathlib.Path(settings.run_dir)
    backbone = task.load_backbone()  # Weights that do not fit must not leave a run folder behind.
    sections = {SECTION: runs.section(run_dir, SECTION, task)} | _proposals(run_dir, settings)
    runs.open_run(run_dir, sections | runs.circumstances())
    evaluator, conditions = task.open(run_dir, backbone)
    timed = functools.partial(_with_latency, evaluator) if LATENCY in settings.objectives else evaluator
    return timed, conditions


def _with_latency(evaluator, genotype, **arguments: Any) -> dict[str, float]:
    """The proxy's metrics and "latency": seconds of the head for one cached picture."""
    from nas_seg.dpc.latency import head_seconds

    metrics = evaluator(genotype, **arguments)
    return metrics | {LATENCY: head_seconds(evaluator.head(genotype)(), evaluator.train.features.shape[1:])}


def _work(settings: DPCSearch, space: DPCSpace) -> str:
    """One process's part of the search; why it ended."""
    with sigterm_as_interrupt():
        app.import_tensorflow()
        _limit_threads()
        evaluator, conditions = make_evaluator(settings, read_descriptor(settings.dataset_dir))
        opened = _open(settings, space, conditions)
        _record_proposals(settings)
        genotypes = {name: BASELINES[name] for name in settings.baseline}
        score_baselines(opened, genotypes, evaluator, seed=settings.seed)
        minutes = settings.time_budget_minutes
        return run_search(
            opened,
            space,
            evaluator,
            num_trials=settings.num_trials,
            seed=settings.seed,
            on_trial=lambda _: _save_best(settings, study.leaderboard(opened, space)),
            time_budget_seconds=None if minutes is None else 60.0 * minutes,
            early_stop=RULES[settings.early_stop](),
        )


def _open(settings: DPCSearch, space: DPCSpace, conditions: Mapping[str, str]) -> Study:
    place = (settings.url, settings.study_name, space, settings.make_sampler(space))
    if settings.import_study:
        return records.import_study(settings.import_study, *place, settings.objectives, conditions)
    return study.open_study(*place, settings.objectives, conditions)


def _lead(settings: DPCSearch, command: Sequence[str]) -> str:
    """Starts the workers and shows the progress of all of them; why they ended."""
    print(f"{settings.workers} workers on {settings.url}", flush=True)
    counted = _counter(settings)
    shown, _ = counted()
    with progress("search", settings.num_trials, min(shown, settings.num_trials)) as bar:

        def show() -> None:
            nonlocal shown
            scored, best = counted()
            if scored > shown:
                bar.advance(scored - shown, **({} if best is None else {"best": best}))
            shown = scored

        workers.run_workers(command, settings.workers, show)
    if shown >= settings.num_trials:
        return "done"
    return "no new genotypes" if settings.time_budget_minutes is None else "time budget"


def _counter(settings: DPCSearch) -> Callable[[], tuple[int, float | None]]:
    """What tells how many trials are scored, and the best reward; the study need not be there yet."""
    opened: Study | None = None

    def counted() -> tuple[int, float | None]:
        nonlocal opened
        if opened is None:
            try:
                opened = study.read_study(settings.url, settings.study_name)
            except InputError:
                return 0, None
        rewards = study.rewards(opened)
        return len(rewards), max(rewards, default=None)

    return counted


def _finish(settings: DPCSearch, space: DPCSpace, ended: str) -> None:
    found = study.read_study(settings.url, settings.study_name)
    rows = study.leaderboard(found, space)
    show_study(found, space, f"{settings.run_dir}: {len(rows)} trials of {settings.proxy_steps} steps ({ended})")
    print(study.describe(found))
    if rows:
        path = _save_best(settings, rows)
        print(f"best cell: {path}")
        print(f"next: python tools/train.py --genotype={path} --run_dir=runs/found ...")


def _save_best(settings: DPCSearch, rows: Sequence[study.Row]) -> pathlib.Path:
    path = pathlib.Path(settings.run_dir, "genotype.json")
    if rows:
        config.save(path, rows[0].genotype)
    return path


def _limit_threads() -> None:
    """A worker takes its share of the cores; a process alone takes what TensorFlow takes."""
    import tensorflow as tf

    if workers.worker_index() is not None:
        tf.config.threading.set_intra_op_parallelism_threads(workers.thread_share())
        tf.config.threading.set_inter_op_parallelism_threads(workers.thread_share())


def _proposals(run_dir: pathlib.Path, settings: DPCSearch) -> dict[str, Any]:
    """The section "search" to open a run with: that of the folder, for it may change, or else the settings'."""
    if not (run_dir / runs.CONFIG).exists():
        return {"search": _search_section(settings)}
    there = runs.read_config(run_dir)
    return {"search": there["search"]} if "search" in there else {}


def _record_proposals(settings: DPCSearch) -> None:
    """Writes how cells are proposed now into RUN/config.json: the scores of all samplers are comparable."""
    section, sections = _search_section(settings), runs.read_config(settings.run_dir)
    if sections.get("search") != section:
        path = pathlib.Path(settings.run_dir, runs.CONFIG)
        config.write_json(path, {"format_version": config.FORMAT_VERSION} | sections | {"search": section})


def _search_section(settings: DPCSearch) -> dict[str, Any]:
    return {
        "sampler": settings.sampler,
        "sampler_options": settings.sampler_options,
        "objectives": list(settings.objectives),
        "early_stop": settings.early_stop,
    }
