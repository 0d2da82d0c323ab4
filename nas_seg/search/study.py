"""An Optuna study whose trials are genotypes: open, ask, tell, the leaderboard.

A trial's parameters are the labels of the genotype's decisions. Beside them it has these user attributes:
"worker" (who runs it), "metrics" and "seconds" once it is scored, "reason" when it failed, "duplicate_of"
when an earlier trial has the same genotype, and "draw", "retry_of", "deaths" when it repeats a stopped trial.
The scores of baselines, which are no trials, are user attributes of the study: "baseline:NAME".
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from nas_seg.common import REWARD
from nas_seg.search.evaluator import TrialFailed
from nas_seg.search.liveness import REASON, WORKER, this_worker
from nas_seg.search.samplers import dominators
from nas_seg.search.space import SearchSpace
from nas_seg.search.storage import STORAGE_ERRORS, open_storage, shown_url, unreachable
from nas_seg.search.storage import default_storage as default_storage
from nas_seg.utils import config
from nas_seg.utils.errors import InputError, unknown

METRICS, SECONDS, DUPLICATE_OF = "metrics", "seconds", "duplicate_of"
# The study's own user attribute: format_version, space, space_digest, objectives, conditions.
FACTS = "nas_seg"


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
    check_objectives(objectives)
    facts = _facts(space, objectives, conditions or {})
    directions = ["maximize" if name == REWARD else "minimize" for name in objectives]
    shown = shown_url(storage)
    with _damage_as_input_error(shown):
        study = optuna.create_study(
            storage=open_storage(storage),
            study_name=study_name,
            directions=directions,
            sampler=sampler,
            load_if_exists=True,
        )
        if FACTS not in study.user_attrs and not study.get_trials(deepcopy=False):
            study.set_user_attr(FACTS, facts)
        known = study.user_attrs.get(FACTS)
        where = f"{shown}: study {study_name!r}"
        _check_version(where, known)
        _check_facts(where, known, facts)
        _read_trials(study)
    return study


def read_study(storage: str, study_name: str) -> Study:
    """Opens an existing study to read it, whatever its space; InputError when there is none."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    shown = shown_url(storage)
    with _damage_as_input_error(shown):
        opened = open_storage(storage, must_exist=True)
        names = optuna.get_all_study_names(opened)
        if study_name not in names:
            raise InputError(f"{shown}: {unknown('study', study_name, names)}" if names else f"{shown}: has no study")
        study = optuna.load_study(study_name=study_name, storage=opened)
        _check_version(f"{shown}: study {study_name!r}", study.user_attrs.get(FACTS))
        _read_trials(study)
    return study


def check_objectives(objectives: Sequence[str]) -> None:
    """InputError unless they are distinct names of metrics, the reward first."""
    if not objectives or objectives[0] != REWARD or len(set(objectives)) != len(objectives):
        raise InputError(f"objectives: expected distinct names, {REWARD!r} first, received {list(objectives)}")


def check_study(storage: str, study_name: str, space: SearchSpace, objectives: Sequence[str]) -> None:
    """InputError when a storage that exists has a study of this name that is of another space or other objectives."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    shown = shown_url(storage)
    with _damage_as_input_error(shown):
        opened = open_storage(storage)
        if study_name not in optuna.get_all_study_names(opened):
            return
        known = optuna.load_study(study_name=study_name, storage=opened).user_attrs.get(FACTS)
        # Without facts it is one that another process is just making, or none of ours: `open_study` tells.
        if known is not None:
            where = f"{shown}: study {study_name!r}"
            _check_version(where, known)
            _check_facts(where, known, _facts(space, objectives, known["conditions"]))


def ask(study: Study, space: SearchSpace) -> tuple[Trial, Any]:
    """Starts a trial: its genotype comes from the queue of trials to repeat, or else from the sampler."""
    with warnings.catch_warnings():
        # Optuna doubts that a loop of ask and tell records the heartbeat; ours does.
        warnings.filterwarnings("ignore", message="Heartbeat of storage")
        trial = study.ask()
    # First of all: a trial that says nothing of its worker cannot be told from one that is just starting.
    trial.set_user_attr(WORKER, this_worker())
    labels = zip(space.names, space.labels, strict=True)
    params = {name: trial.suggest_categorical(name, choices) for name, choices in labels}
    return trial, space.from_params(params)


def tell(study: Study, trial: Trial, metrics: Mapping[str, float], seconds: float) -> FrozenTrial:
    """Ends a trial with its metrics.

    Raises:
        TrialFailed: when a metric is not a finite number; the trial goes on running.
        KeyError: when the evaluator left out an objective.
    """
    numbers = finite_numbers(metrics)
    values = [numbers[name] for name in study.user_attrs[FACTS]["objectives"]]
    trial.set_user_attr(METRICS, numbers)
    trial.set_user_attr(SECONDS, round(seconds, 3))
    return study.tell(trial, values)


def finite_numbers(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics as floats; TrialFailed when one is not a finite number."""
    numbers = {name: float(value) for name, value in metrics.items()}
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise TrialFailed(f"{name} is {value}")
    return numbers


def tell_stopped(study: Study, trial: Trial, reason: str) -> FrozenTrial:
    """Ends a trial that was given up early, with the reason: it has no score, does not count, is not repeated."""
    trial.set_user_attr(REASON, reason)
    return study.tell(trial, state=TrialState.PRUNED)


def tell_duplicate(study: Study, trial: Trial, of: int) -> FrozenTrial:
    """Ends a trial whose genotype the trial number `of` has: it has no score of its own and does not count."""
    trial.set_user_attr(DUPLICATE_OF, of)
    return study.tell(trial, state=TrialState.PRUNED)


def find_duplicate(study: Study, space: SearchSpace, trial: Trial) -> int | None:
    """The number of another trial with the same genotype that is scored, stopped early, or at work."""
    mine = space.identity(trial.params)
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
    for other in study.get_trials(deepcopy=False, states=states):
        # Two that run are not both to give way to the other.
        first = other.state.is_finished() or other.number < trial.number
        if not first or other.number == trial.number or DUPLICATE_OF in other.user_attrs:
            continue
        if space.identity(other.params) == mine:
            return other.number
    return None


def leaderboard(study: Study, space: SearchSpace) -> list[Row]:
    """The scored trials from the highest reward down; equal ones in the order of their trials."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    trials = sorted(trials, key=lambda t: (-t.user_attrs[METRICS][REWARD], t.number))
    return [_row(rank, trial, space) for rank, trial in enumerate(trials, start=1)]


def rewards(study: Study) -> list[float]:
    """The rewards of the scored trials in the order of their numbers."""
    return [trial.values[0] for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))]


def best(study: Study, space: SearchSpace) -> Row:
    """The first row of the leaderboard; InputError when no trial is scored yet."""
    rows = leaderboard(study, space)
    if not rows:
        raise InputError(f"study {study.study_name!r}: no trial is complete")
    return rows[0]


def pareto_front(study: Study) -> frozenset[int]:
    """Numbers of the scored trials that no other is better than in all objectives; empty for one objective."""
    if len(study.directions) == 1:
        return frozenset()
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    better = dominators(trials, study.directions)
    return frozenset(trial.number for trial, count in zip(trials, better, strict=True) if not count)


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


@contextlib.contextmanager
def _damage_as_input_error(shown: str) -> Iterator[None]:
    """Within it, what a storage raises that does not answer, or whose rows nobody wrote so, becomes an InputError."""
    try:
        yield
    except STORAGE_ERRORS as error:
        raise unreachable(shown, error) from None
    except InputError:
        raise
    except (ValueError, LookupError, TypeError, AssertionError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(f"{shown}: the study cannot be read, it may be damaged ({reason})") from None


def _read_trials(study: Study) -> None:
    """Raises what a damaged trial does, before a search has begun; ended trials are not read a second time."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        float(trial.user_attrs[METRICS][REWARD])
        for value in trial.values:
            float(value)


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
    check_conditions(where, known["conditions"], facts["conditions"])


def check_conditions(where: str, known: Mapping[str, Any], conditions: Mapping[str, Any]) -> None:
    """InputError, naming the first one that differs, unless scores of both conditions can be compared."""
    for key in sorted({*known, *conditions}):
        old, new = known.get(key), conditions.get(key)
        if old != new:
            raise InputError(f"{where}: its scores are of {key}={old!r}, received {key}={new!r}: take another study")


def _brief(space: Mapping[str, Any]) -> str:
    arguments = ", ".join(f"{key}={value}" for key, value in space.items() if key != "kind")
    return f"{space['kind']}({arguments})"
