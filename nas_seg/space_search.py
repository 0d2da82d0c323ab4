"""A search on a data set by trials, of any family: its settings, its run folder, its processes.

RUN/config.json       what the scores depend on, and the latest way of proposing; written first
RUN/cache/SPLIT/      feature maps of the pretrained backbone; those of augmented views or with a teacher have a folder
                      beside it
RUN/study.db          the study, where no other storage is named
RUN/genotype.json     the best genotype so far

Several processes may search in one folder at once: each joins the study, and what they must agree on is compared.
"""

from __future__ import annotations

import abc
import dataclasses
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from optuna.samplers import BaseSampler
from optuna.study import Study

from nas_seg import spaces
from nas_seg.common import MAX_SEED, REWARD
from nas_seg.datasets.descriptors import DatasetDescriptor, read_descriptor
from nas_seg.search import records, study, workers
from nas_seg.search.baselines import score_baselines
from nas_seg.search.early_stop import RULES
from nas_seg.search.evaluator import Evaluator
from nas_seg.search.interrupts import sigterm_as_interrupt
from nas_seg.search.loop import run_search, why_end
from nas_seg.search.space import SearchSpace
from nas_seg.search.storage import check_storage, lost_as_input_error, shown_url
from nas_seg.search.table import show_study
from nas_seg.search_flags import flag, required
from nas_seg.template.policy_search import SAMPLERS, PolicyConfig, make_sampler
from nas_seg.utils import app, config, runs
from nas_seg.utils.errors import InputError, unknown
from nas_seg.utils.progress import progress

TASK, PROPOSALS = "task", "search"  # sections of a run's config.json
POLICY = "policy"
# A user attribute of the study: the sampler of its first trials, and its options.
_PROPOSER = "proposer"
# A field of the settings: the sampler that it is of, and its name there.
SAMPLER_OPTIONS = {
    "near_best_fraction": ("near_best", "fraction"),
    "near_best_pool": ("near_best", "pool"),
    "near_best_mutations": ("near_best", "num_mutations"),
    "evolution_population": ("evolution", "population"),
    "evolution_sample_size": ("evolution", "sample_size"),
    "policy_algorithm": (POLICY, "algorithm"),
    "policy_mode": (POLICY, "mode"),
    "policy_learning_rate": (POLICY, "learning_rate"),
    "policy_entropy_weight": (POLICY, "entropy_weight"),
    "policy_epochs": (POLICY, "epochs"),
}


class Task(Protocol):
    """All that the score of a genotype depends on; a configuration."""

    def load_backbone(self) -> Any:
        """The pretrained part, with its weights."""

    def open(self, run_dir: str | os.PathLike, backbone: Any) -> tuple[Any, dict[str, str]]:
        """(evaluator, what its scores depend on by content) over the caches of a run folder."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpaceSearch(abc.ABC):
    """What a search is made from. A family adds fields of its own, and says what is searched and how it is scored."""

    NOUN: ClassVar[str] = "network"
    OBJECTIVES: ClassVar[tuple[str, ...]] = (REWARD, "params", "madds")

    run_dir: str = required("Folder of the search; made where it is missing, gone on with where it is not.")
    dataset_dir: str = required("Folder with dataset.json and shards, from tools/build_data.py.")
    num_trials: int = flag(50, "Scored trials to have in the study; failed ones do not count.", 1)
    seed: int = flag(0, "Of the proposals, of the initial weights and of the order of the data.", 0, MAX_SEED)
    backbone_weights: str | None = flag(None, "imagenet, an .h5 file in keras.applications' layout, or a run folder.")
    train_split: str = flag("train", "Split to train trials on.")
    val_split: str = flag("val", "Split whose score is the reward.")
    cache_size: tuple[int, int] | None = flag(
        None, "height,width of the cached pictures (default: the largest of the split, where corners align with maps)."
    )
    cache_views: int = flag(1, "Cached views of a training picture; all but the first are augmented.", 1)
    proxy_batch_size: int = flag(8, "Pictures a step of a trial.", 1)
    sampler: str = flag("random", f"What proposes genotypes: {', '.join(sorted(SAMPLERS))}.")
    near_best_fraction: float | None = flag(None, "Of --sampler=near_best: share of uniform draws (0.5).")
    near_best_pool: int | None = flag(None, "Of --sampler=near_best: the best genotypes that others start from (5).")
    near_best_mutations: int | None = flag(None, "Of --sampler=near_best: decisions changed in a draw (1).")
    evolution_population: int | None = flag(None, "Of --sampler=evolution: the youngest that are alive (20).")
    evolution_sample_size: int | None = flag(None, "Of --sampler=evolution: how many compete to be parent (5).")
    policy_algorithm: str | None = flag(None, f"Of --sampler=policy: ppo or reinforce ({PolicyConfig.algorithm}).")
    policy_mode: str | None = flag(
        None, "Of --sampler=policy: autoregressive, or blind to its own decisions (autoregressive)."
    )
    policy_learning_rate: float | None = flag(
        None, f"Of --sampler=policy: of its Adam ({PolicyConfig.learning_rate:g})."
    )
    policy_entropy_weight: float | None = flag(
        None, f"Of --sampler=policy: of the entropy beside the reward ({PolicyConfig.entropy_weight:g})."
    )
    policy_epochs: int | None = flag(
        None, f"Of --sampler=policy: how often ppo goes through its buffer ({PolicyConfig.epochs})."
    )
    objectives: tuple[str, ...] = flag((REWARD,), "reward, and costs to minimise beside it: params, madds.")
    early_stop: str = flag("none", f"Gives hopeless trials up by their loss: {', '.join(RULES)}.")
    baseline: tuple[str, ...] = flag((), "Also score these, which are no trials.")
    workers: int = flag(1, "Processes that search at once; each has its share of the cores.", 1)
    time_budget_minutes: float | None = flag(None, "No trial starts after so long.", 0.0)
    import_study: str | None = flag(None, "Begin with the trials of this file, from tools/leaderboard.py --export.")
    storage: str | None = flag(
        None, "URL of a database, or grpc://HOST:PORT of tools/serve_studies.py (default: sqlite:///RUN/study.db)."
    )
    study_name: str = flag("search", "Name of the study in its storage.")

    @property
    @abc.abstractmethod
    def space(self) -> SearchSpace:
        """What is searched."""

    @abc.abstractmethod
    def make_task(self, data: DatasetDescriptor) -> Task:
        """What genotypes are scored by; paths in it are absolute. May import TensorFlow."""

    @property
    @abc.abstractmethod
    def steps(self) -> str:
        """Of a trial, in words."""

    def check(self, data: DatasetDescriptor) -> None:  # noqa: B027
        """Raises InputError for what the family finds wrong without TensorFlow; writes nothing."""

    def with_costs(self, evaluator: Any) -> Evaluator:
        """The evaluator with the metrics of all objectives, as baselines are scored."""
        return evaluator

    def in_study(self, evaluator: Any, opened: Study) -> Evaluator:
        """The evaluator as trials are scored, which may heed the other trials."""
        return evaluator

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

    @property
    def proposals(self) -> dict[str, Any]:
        """How genotypes are proposed: what may change from run to run, for it changes no score."""
        sampler = {"sampler": self.sampler, "sampler_options": self.sampler_options}
        return sampler | {"objectives": list(self.objectives), "early_stop": self.early_stop}

    def make_sampler(self) -> BaseSampler:
        """What proposes genotypes."""
        options = self.sampler_options
        try:
            return make_sampler(self.sampler, self.space, self.seed, **options)
        except InputError as problem:
            raise InputError(f"--sampler={self.sampler}: {problem}") from None


def search(settings: SpaceSearch, command: Sequence[str]) -> None:
    """Searches until the trials are scored, in this process or in `settings.workers` that run `command`.

    Raises:
        InputError: for what does not fit; as far as possible before TensorFlow is imported or anything written.
        KeyboardInterrupt: on Ctrl-C and SIGTERM, once the study is in order and all workers have ended.
    """
    check(settings, settings.space)
    if workers.worker_index() is not None:
        workers.end_with_parent()
        with lost_as_input_error(settings.url):
            _work(settings)
        return
    with lost_as_input_error(settings.url):
        _finish(settings, _lead(settings, command) if settings.workers > 1 else _work(settings))


def check(settings: SpaceSearch, space: SearchSpace) -> None:
    """Raises InputError for all that can be found wrong without TensorFlow; writes nothing."""
    url = settings.url
    for name, value, known in (
        ("sampler", settings.sampler, SAMPLERS),
        ("early_stop", settings.early_stop, RULES),
        *(("objective", name, settings.OBJECTIVES) for name in settings.objectives),
        *(("baseline", name, spaces.baselines(space)) for name in settings.baseline),
    ):
        if value not in known:
            raise unknown(name, value, known)
    study.check_objectives(settings.objectives)
    data = read_descriptor(settings.dataset_dir)
    for split in (settings.train_split, settings.val_split):
        data.split(split)
    pictures = data.split(settings.train_split).num_images * settings.cache_views
    if settings.proxy_batch_size > pictures:
        raise InputError(
            f"--proxy_batch_size: expected at most the {pictures} pictures of split {settings.train_split!r}, "
            f"received {settings.proxy_batch_size}"
        )
    settings.make_sampler()
    # The folder of the default storage may be still to be made.
    if (os.path.isdir(settings.run_dir) or settings.storage) and check_storage(url):
        study.check_study(url, settings.study_name, space, settings.objectives)
        _check_proposer(settings)
    if settings.import_study:
        records.read_record(settings.import_study, space, settings.objectives)
    settings.check(data)


def make_evaluator(settings: SpaceSearch, data: DatasetDescriptor) -> tuple[Any, dict[str, str]]:
    """(evaluator, what its scores depend on); writes the run's config.json first, then its caches.

    Raises:
        InputError: where the folder is one of another run, or a cache of other features.
    """
    task, run_dir = settings.make_task(data), pathlib.Path(settings.run_dir)
    backbone = task.load_backbone()  # Weights that do not fit must not leave a run folder behind.
    sections = {TASK: runs.section(run_dir, TASK, task)} | _proposals(run_dir, settings)
    runs.open_run(run_dir, sections | runs.circumstances())
    return task.open(run_dir, backbone)


def _work(settings: SpaceSearch) -> str:
    """One process's part of the search; why it ended."""
    with sigterm_as_interrupt():
        app.import_tensorflow()
        _limit_threads()
        space = settings.space
        evaluator, conditions = make_evaluator(settings, read_descriptor(settings.dataset_dir))
        opened = _open(settings, conditions)
        _record_proposals(settings)
        evaluator = settings.with_costs(evaluator)
        genotypes = {name: spaces.baselines(space)[name] for name in settings.baseline}
        score_baselines(opened, genotypes, evaluator, seed=settings.seed)
        minutes = settings.time_budget_minutes
        return run_search(
            opened,
            space,
            settings.in_study(evaluator, opened),
            num_trials=settings.num_trials,
            seed=settings.seed,
            on_trial=lambda _: _save_best(settings, study.leaderboard(opened, space)),
            time_budget_seconds=None if minutes is None else 60.0 * minutes,
            early_stop=RULES[settings.early_stop](),
        )


def _open(settings: SpaceSearch, conditions: Mapping[str, str]) -> Study:
    place = (settings.url, settings.study_name, settings.space, settings.make_sampler())
    if settings.import_study:
        opened = records.import_study(settings.import_study, *place, settings.objectives, conditions)
    else:
        opened = study.open_study(*place, settings.objectives, conditions)
    if _PROPOSER not in opened.user_attrs:
        opened.set_user_attr(_PROPOSER, _proposer(settings))
    _compare_proposers(settings, opened)
    return opened


def _proposer(settings: SpaceSearch) -> dict[str, Any]:
    return {"sampler": settings.sampler, "sampler_options": settings.sampler_options}


def _check_proposer(settings: SpaceSearch) -> None:
    """InputError where there is a study that is another controller's."""
    try:
        opened = study.read_study(settings.url, settings.study_name)
    except InputError:  # There is none yet.
        return
    _compare_proposers(settings, opened)


def _compare_proposers(settings: SpaceSearch, opened: Study) -> None:
    """A policy learns from its own draws, from the first on; every other sampler may take another's place."""
    there, ours = opened.user_attrs.get(_PROPOSER), _proposer(settings)
    if there is None or POLICY not in (there["sampler"], ours["sampler"]) or _complete(there) == _complete(ours):
        return
    where = f"{shown_url(settings.url)}: study {settings.study_name!r}"
    raise InputError(f"{where}: its trials are drawn by {_words(there)}, received {_words(ours)}: take another study")


def _complete(proposer: Mapping[str, Any]) -> dict[str, Any]:
    """With the options that were not given: one that is given as it would be anyway makes no other policy."""
    defaults = dataclasses.asdict(PolicyConfig()) if proposer["sampler"] == POLICY else {}
    return {"sampler": proposer["sampler"], "sampler_options": defaults | proposer["sampler_options"]}


def _words(proposer: Mapping[str, Any]) -> str:
    """For example "policy (mode=blind)"."""
    options = ", ".join(f"{name}={value}" for name, value in proposer["sampler_options"].items())
    return proposer["sampler"] + (f" ({options})" if options else "")


def _lead(settings: SpaceSearch, command: Sequence[str]) -> str:
    """Starts the workers and shows the progress of all of them; why they ended."""
    start = time.monotonic()
    print(f"{settings.workers} workers on {shown_url(settings.url)}", flush=True)
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
    reason = why_end(study.read_study(settings.url, settings.study_name), settings.num_trials)
    minutes = settings.time_budget_minutes
    spent = minutes is not None and time.monotonic() - start >= 60.0 * minutes
    return reason or ("time budget" if spent else "the workers ended")


def _counter(settings: SpaceSearch) -> Callable[[], tuple[int, float | None]]:
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


def _finish(settings: SpaceSearch, ended: str) -> None:
    space, found = settings.space, study.read_study(settings.url, settings.study_name)
    rows = study.leaderboard(found, space)
    show_study(found, space, f"{settings.run_dir}: {len(rows)} trials of {settings.steps} steps ({ended})")
    print(study.describe(found))
    if rows:
        path = _save_best(settings, rows)
        print(f"best {settings.NOUN}: {path}")
        print(f"next: python tools/train.py --genotype={path} --run_dir=runs/found ...")


def _save_best(settings: SpaceSearch, rows: Sequence[study.Row]) -> pathlib.Path:
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


def _proposals(run_dir: pathlib.Path, settings: SpaceSearch) -> dict[str, Any]:
    """The section "search" to open a run with: that of the folder, for it may change, or else the settings'."""
    if not (run_dir / runs.CONFIG).exists():
        return {PROPOSALS: settings.proposals}
    there = runs.read_config(run_dir)
    return {PROPOSALS: there[PROPOSALS]} if PROPOSALS in there else {}


def _record_proposals(settings: SpaceSearch) -> None:
    """Writes how genotypes are proposed now into RUN/config.json: the scores of all samplers are comparable."""
    section, sections = config.to_json(settings.proposals), runs.read_config(settings.run_dir)
    if sections.get(PROPOSALS) != section:
        path = pathlib.Path(settings.run_dir, runs.CONFIG)
        config.write_json(path, {"format_version": config.FORMAT_VERSION} | sections | {PROPOSALS: section})
