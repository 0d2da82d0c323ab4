"""An Optuna study whose trials are genotypes: open, ask, tell, the leaderboard.

A trial's parameters are the labels of the genotype's decisions. Beside them it has these user attributes:
"worker" (who runs it), "metrics" and "seconds" once it is scored, "reason" when it failed, "duplicate_of"
when an earlier trial has the same genotype, and "draw", "retry_of", "deaths" when it repeats a stopped trial.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import pathlib
import platform
import time
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
import sqlalchemy.exc
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.engine import make_url

from nas_seg.common import REWARD
from nas_seg.search.evaluator import TrialFailed
from nas_seg.search.samplers import DRAW, draw_number
from nas_seg.search.space import SearchSpace
from nas_seg.utils import config
from nas_seg.utils.errors import InputError, unknown

WORKER, METRICS, SECONDS, REASON = "worker", "metrics", "seconds", "reason"
DUPLICATE_OF, RETRY_OF, DEATHS = "duplicate_of", "retry_of", "deaths"
# The study's own user attribute: format_version, space, space_digest, objectives, conditions.
FACTS = "nas_seg"
# sqlite has one writer at a time: the others wait this long before they give up.
_SECONDS_TO_LOCK = 60
_STORAGE_ERRORS = (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError)


@dataclasses.dataclass(frozen=True)
class Row:
    """One scored trial of a leaderboard."""

    rank: int
    trial: int
    reward: float
    genotype: Any
    summary: str
    digest: str
    metrics: Mapping[str, float]
    seconds: float | None

    @property
    def params(self) -> float | None:
        """Parameters, where the evaluator counted them."""
        return self.metrics.get("params")

    @property
    def madds(self) -> float | None:
        """Multiply-adds, where the evaluator counted them."""
        return self.metrics.get("madds")


def default_storage(run_dir: str | os.PathLike) -> str:
    """The URL of the study that a run folder holds: sqlite:///RUN/study.db."""
    return f"sqlite:///{pathlib.Path(run_dir) / 'study.db'}"


def open_study(
    storage: str | None,
    study_name: str,
    space: SearchSpace,
    sampler: BaseSampler,
    objectives: Sequence[str] = (REWARD,),
    conditions: Mapping[str, str | int | float | bool] | None = None,
) -> Study:
    """Opens a study, or makes it.

    Args:
        storage: a database URL, for example "sqlite:///run/study.db"; None keeps the study in memory.
        study_name: of the study within the storage.
        space: its genotypes.
        sampler: proposes them.
        objectives: names of metrics, "reward" first; it is maximised, any other one is a cost and minimised.
        conditions: what the scores depend on besides the genotype (steps, seed, data). A study holds scores
            of one set of conditions.

    Raises:
        InputError: when the storage cannot be opened, or the study is one of another space, of other
            objectives or of other conditions.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if not objectives or objectives[0] != REWARD or len(set(objectives)) != len(objectives):
        raise InputError(f"objectives: expected distinct names, {REWARD!r} first, received {list(objectives)}")
    facts = _facts(space, objectives, conditions or {})
    directions = ["maximize" if name == REWARD else "minimize" for name in objectives]
    shown = _shown(storage)
    try:
        study = optuna.create_study(
            storage=_storage(storage),
            study_name=study_name,
            directions=directions,
            sampler=sampler,
            load_if_exists=True,
        )
        if FACTS not in study.user_attrs and not study.get_trials(deepcopy=False):
            study.set_user_attr(FACTS, facts)
        known = study.user_attrs.get(FACTS)
    except _STORAGE_ERRORS as error:
        raise _unreachable(shown, error) from None
    where = f"{shown}: study {study_name!r}"
    _check_version(where, known)
    _check_facts(where, known, facts)
    return study


def read_study(storage: str, study_name: str) -> Study:
    """Opens an existing study to read it, whatever its space; InputError when there is none."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    shown = _shown(storage)
    try:
        opened = _storage(storage, must_exist=True)
        names = optuna.get_all_study_names(opened)
        if study_name not in names:
            raise InputError(f"{shown}: {unknown('study', study_name, names)}" if names else f"{shown}: has no study")
        study = optuna.load_study(study_name=study_name, storage=opened)
        known = study.user_attrs.get(FACTS)
    except _STORAGE_ERRORS as error:
        raise _unreachable(shown, error) from None
    _check_version(f"{shown}: study {study_name!r}", known)
    return study


def ask(study: Study, space: SearchSpace) -> tuple[Trial, Any]:
    """Starts a trial: its genotype comes from the queue of trials to repeat, or else from the sampler."""
    trial = study.ask()
    # First of all: a trial that says nothing of its worker cannot be told from one that is just starting.
    trial.set_user_attr(WORKER, _this_worker())
    labels = zip(space.names, space.labels, strict=True)
    params = {name: trial.suggest_categorical(name, choices) for name, choices in labels}
    return trial, space.from_params(params)


def tell(study: Study, trial: Trial, metrics: Mapping[str, float], seconds: float) -> FrozenTrial:
    """Ends a trial with its metrics.

    Raises:
        TrialFailed: when a metric is not a finite number; the trial goes on running.
        KeyError: when the evaluator left out an objective.
    """
    numbers = {name: float(value) for name, value in metrics.items()}
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise TrialFailed(f"{name} is {value}")
    values = [numbers[name] for name in study.user_attrs[FACTS]["objectives"]]
    trial.set_user_attr(METRICS, numbers)
    trial.set_user_attr(SECONDS, round(seconds, 3))
    return study.tell(trial, values)


def tell_failed(study: Study, trial: Trial | FrozenTrial, reason: str) -> FrozenTrial:
    """Ends a trial as failed, with the reason; optuna's UpdateFinishedTrialError when it has ended already."""
    study._storage.set_trial_user_attr(trial._trial_id, REASON, reason)
    return study.tell(trial.number, state=TrialState.FAIL)


def tell_duplicate(study: Study, trial: Trial, of: int) -> FrozenTrial:
    """Ends a trial whose genotype the trial number `of` has: it has no score of its own and does not count."""
    trial.set_user_attr(DUPLICATE_OF, of)
    return study.tell(trial, state=TrialState.PRUNED)


def find_duplicate(study: Study, trial: Trial) -> int | None:
    """The number of an earlier trial with the same genotype that is scored, or that a live worker is scoring."""
    params = trial.params
    for other in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.RUNNING)):
        if other.number < trial.number and other.params == params:
            return other.number
    return None


def repeat(study: Study, trial: FrozenTrial, died: bool) -> None:
    """Queues what a trial was to score; one that brought its worker down is repeated once, not for ever."""
    deaths = trial.user_attrs.get(DEATHS, 0) + died
    if deaths > 1:
        return
    draw = draw_number(study, trial)
    study.enqueue_trial(trial.params, {DRAW: draw, RETRY_OF: trial.number, DEATHS: deaths})


def recover(study: Study) -> int:
    """Fails the trials that a dead process of this machine left running and queues them again.

    A trial that this very process left running (a search interrupted in a notebook) counts as left too.

    Returns:
        how many there were.
    """
    recovered = 0
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not is_abandoned(trial):
            continue
        # When another process was quicker, it has queued the trial too.
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            tell_failed(study, trial, "worker died")
            repeat(study, trial, died=True)
            recovered += 1
    return recovered


def is_abandoned(trial: FrozenTrial) -> bool:
    """Whether a running trial's process is known to be gone; of other machines nothing is known."""
    worker = trial.user_attrs.get(WORKER)
    if worker is None:
        started = trial.datetime_start
        return started is not None and time.time() - started.timestamp() > _SECONDS_TO_LOCK
    if worker["host"] != platform.node():
        return False
    return worker["pid"] == os.getpid() or worker["started"] != _process_start(worker["pid"])


def is_alive(trial: FrozenTrial) -> bool:
    """Whether another process of this machine is at work on a running trial."""
    worker = trial.user_attrs.get(WORKER)
    return worker is not None and worker["host"] == platform.node() and not is_abandoned(trial)


def leaderboard(study: Study, space: SearchSpace) -> list[Row]:
    """The scored trials from the highest reward down; equal ones in the order of their trials."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    trials = sorted(trials, key=lambda t: (-t.user_attrs[METRICS][REWARD], t.number))
    return [_row(rank, trial, space) for rank, trial in enumerate(trials, start=1)]


def best(study: Study, space: SearchSpace) -> Row:
    """The first row of the leaderboard; InputError when no trial is scored yet."""
    rows = leaderboard(study, space)
    if not rows:
        raise InputError(f"study {study.study_name!r}: no trial is complete")
    return rows[0]


def describe(study: Study) -> str:
    """One line: the study's name and how many trials it has of each kind."""
    trials = study.get_trials(deepcopy=False)
    states = [trial.state for trial in trials]
    duplicates = sum(DUPLICATE_OF in trial.user_attrs for trial in trials)
    counts = {
        "complete": states.count(TrialState.COMPLETE),
        "duplicate": duplicates,
        "stopped early": states.count(TrialState.PRUNED) - duplicates,
        "failed": states.count(TrialState.FAIL),
        "running": states.count(TrialState.RUNNING),
        "waiting": states.count(TrialState.WAITING),
    }
    shown = [f"{number} {name}" for name, number in counts.items() if number or name == "complete"]
    return f"study {study.study_name!r}: " + ", ".join(shown)


def _row(rank: int, trial: FrozenTrial, space: SearchSpace) -> Row:
    genotype, metrics = space.from_params(trial.params), trial.user_attrs[METRICS]
    return Row(
        rank=rank,
        trial=trial.number,
        reward=metrics[REWARD],
        genotype=genotype,
        summary=genotype.summary(),
        digest=config.digest(genotype),
        metrics=metrics,
        seconds=trial.user_attrs.get(SECONDS),
    )


def _facts(space: SearchSpace, objectives: Sequence[str], conditions: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "format_version": config.FORMAT_VERSION,
        "space": config.to_json(space),
        "space_digest": space.digest(),
        "objectives": list(objectives),
        "conditions": dict(conditions),
    }


def _check_version(where: str, known: Mapping[str, Any] | None) -> None:
    if known is None:
        raise InputError(f"{where}: not a study of nas_seg (it lacks the user attribute {FACTS!r})")
    if known["format_version"] != config.FORMAT_VERSION:
        expected, received = config.FORMAT_VERSION, known["format_version"]
        raise InputError(f"{where}: expected format_version {expected}, received {received!r}")


def _check_facts(where: str, known: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    if known["space_digest"] != facts["space_digest"]:
        raise InputError(
            f"{where}: study of another space: it is of {_brief(known['space'])}, expected {_brief(facts['space'])}"
        )
    if known["objectives"] != facts["objectives"]:
        raise InputError(f"{where}: its objectives are {known['objectives']}, expected {facts['objectives']}")
    for key in sorted(known["conditions"].keys() | facts["conditions"].keys()):
        old, new = known["conditions"].get(key), facts["conditions"].get(key)
        if old != new:
            raise InputError(f"{where}: its scores are of {key}={old!r}, received {key}={new!r}: take another study")


def _brief(space: Mapping[str, Any]) -> str:
    arguments = ", ".join(f"{key}={value}" for key, value in space.items() if key != "kind")
    return f"{space['kind']}({arguments})"


def _storage(url: str | None, must_exist: bool = False) -> BaseStorage:
    if url is None:
        return InMemoryStorage()
    shown = _shown(url)
    parsed = make_url(url)
    options: dict[str, Any] = {}
    if parsed.get_backend_name() == "sqlite":
        path = pathlib.Path(parsed.database or "")
        if not path.parent.is_dir():
            raise InputError(f"{shown}: the folder {path.parent} does not exist")
        if must_exist and not path.is_file():
            raise InputError(f"{shown}: the file {path} does not exist")
        options = {"connect_args": {"timeout": _SECONDS_TO_LOCK}}
    for attempt in range(5):
        try:
            return RDBStorage(url, engine_kwargs=options)
        except ImportError as error:
            raise InputError(f"{shown}: its database driver is not installed ({error.__cause__ or error})") from None
        except RuntimeError as error:
            raise InputError(f"{shown}: made by another version of Optuna ({error})") from None
        except (sqlalchemy.exc.OperationalError, sqlalchemy.exc.IntegrityError) as error:
            # Processes that start together all find no tables; one makes them, the others look again.
            if attempt == 4 or not any(word in str(error) for word in ("already exists", "UNIQUE", "locked")):
                raise
            time.sleep(0.2)
    raise InputError(f"{shown}: the storage cannot be opened")


def _shown(url: str | None) -> str:
    """The URL without its password; InputError when it is none."""
    if url is None:
        return "in memory"
    try:
        return make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        raise InputError(f"storage: expected a URL such as sqlite:///run/study.db, received {url!r}") from None


def _unreachable(shown: str, error: Exception) -> InputError:
    cause = error.__cause__ or error
    reason = getattr(cause, "orig", None) or cause
    return InputError(f"{shown}: the storage cannot be opened ({' '.join(str(reason).split())})")


def _this_worker() -> dict[str, Any]:
    return {"host": platform.node(), "pid": os.getpid(), "started": _process_start(os.getpid())}


def _process_start(pid: int) -> int | str | None:
    """When a process started, in the kernel's ticks: tells it from a later one of the same number.

    Without /proc it is "alive" for a process that exists; None for one that does not.
    """
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
        # The second field is the program's name in brackets, which may hold spaces; the start is the 22nd.
        fields = stat.rpartition(")")[2].split()
        # A zombie has ended; its parent has not asked how yet.
        return None if fields[0] == "Z" else int(fields[19])
    except OSError:
        if pathlib.Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return "alive"
    return "alive"
