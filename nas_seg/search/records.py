"""A study as one JSON file: to keep beside a paper, to send, to go on with in another storage."""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Mapping, Sequence
from typing import ClassVar

from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas_seg.search import liveness
from nas_seg.search import study as studies
from nas_seg.search.baselines import Baseline, baselines, set_baseline
from nas_seg.search.samplers import DRAW, distributions
from nas_seg.search.space import SearchSpace
from nas_seg.search.storage import turn
from nas_seg.utils import config
from nas_seg.utils.errors import InputError, unknown

# A user attribute of a study that was imported: the digest of what it was made of.
IMPORTED = "imported"
_WAITING = TrialState.WAITING.name
_STATES = (TrialState.COMPLETE.name, TrialState.PRUNED.name, TrialState.FAIL.name, _WAITING)


@dataclasses.dataclass(frozen=True)
class TrialRecord:
    """One trial: its state, its parameters by name, and its user attributes (see nas_seg.search.study)."""

    state: str
    params: dict[str, str]
    metrics: dict[str, float] | None = None
    seconds: float | None = None
    reason: str | None = None
    duplicate_of: int | None = None
    draw: int | None = None
    retry_of: int | None = None
    deaths: int | None = None
    intermediate: dict[str, float] | None = None
    started: str | None = None
    ended: str | None = None

    def __post_init__(self):
        if self.state not in _STATES:
            raise unknown("state", self.state, _STATES)
        if (self.state == TrialState.COMPLETE.name) != (self.metrics is not None):
            raise InputError(f"metrics: expected for COMPLETE trials and no others, received {self.metrics!r}")
        for step in self.intermediate or {}:
            if not step.isdecimal():
                raise InputError(f"intermediate: expected the numbers of steps as keys, received {step!r}")
        for name in ("started", "ended"):
            value = getattr(self, name)
            try:
                _ = value and datetime.datetime.fromisoformat(value)
            except ValueError:
                raise InputError(f"{name}: expected an ISO date and time, received {value!r}") from None


@dataclasses.dataclass(frozen=True)
class StudyRecord:
    """A study: what its trials are of, the trials in the order of their numbers, and the baselines."""

    KIND: ClassVar[str] = "study"

    space_kind: str
    space_digest: str
    objectives: tuple[str, ...]
    conditions: dict[str, str | int | float | bool]
    trials: tuple[TrialRecord, ...]
    baselines: tuple[Baseline, ...] = ()


_ATTRIBUTES = (
    studies.METRICS,
    studies.SECONDS,
    studies.REASON,
    studies.DUPLICATE_OF,
    DRAW,
    liveness.RETRY_OF,
    liveness.DEATHS,
)


def export_study(study: Study, path: str | os.PathLike) -> None:
    """Writes a study to a JSON file. A running trial is written as one that waits: its score is not known here."""
    facts = study.user_attrs[studies.FACTS]
    record = StudyRecord(
        space_kind=facts["space"]["kind"],
        space_digest=facts["space_digest"],
        objectives=tuple(facts["objectives"]),
        conditions=facts["conditions"],
        trials=tuple(_to_record(trial) for trial in study.get_trials(deepcopy=False)),
        baselines=tuple(baselines(study)),
    )
    config.save(path, record)


def read_record(
    path: str | os.PathLike,
    space: SearchSpace,
    objectives: Sequence[str] | None = None,
    conditions: Mapping[str, str | int | float | bool] | None = None,
) -> StudyRecord:
    """Reads what `export_study` wrote; InputError when it is of another space, or of others than the given ones."""
    record = config.load(path, StudyRecord)
    if record.space_digest != space.digest():
        raise InputError(
            f"{path}: study of another space: it is of {record.space_kind!r} {record.space_digest}, "
            f"expected {space.KIND!r} {space.digest()}"
        )
    if objectives is not None and record.objectives != tuple(objectives):
        raise InputError(f"{path}: its objectives are {list(record.objectives)}, expected {list(objectives)}")
    if conditions is not None:
        studies.check_conditions(str(path), record.conditions, conditions)
    for i, trial in enumerate(record.trials):
        _to_trial(trial, record, space, f"{path}: trials[{i}]")
    return record


def import_study(
    path: str | os.PathLike,
    storage: str | None,
    study_name: str,
    space: SearchSpace,
    sampler: BaseSampler,
    objectives: Sequence[str] | None = None,
    conditions: Mapping[str, str | int | float | bool] | None = None,
) -> Study:
    """Makes the study that `export_study` wrote in a storage that has none of its name; it can be gone on with.

    A study that this very file was imported into before is opened as it is now.

    Args:
        path: the file.
        storage, study_name, space, sampler: as in `open_study`.
        objectives, conditions: that the file must be of; None takes what it says.

    Raises:
        InputError: when the file is not one of `export_study`, is of another space, or the study has other trials.
    """
    # Everything is checked before the study is made.
    record = read_record(path, space, objectives, conditions)
    trials = [_to_trial(trial, record, space, f"{path}: trials[{i}]") for i, trial in enumerate(record.trials)]
    study = studies.open_study(storage, study_name, space, sampler, record.objectives, record.conditions)
    digest = config.digest(record)
    with turn(study, "import"):
        if study.user_attrs.get(IMPORTED) == digest:
            return study
        if study.get_trials(deepcopy=False):
            raise InputError(f"study {study_name!r} has trials already: {path} is imported into a new study only")
        study.add_trials(trials)
        for baseline in record.baselines:
            set_baseline(study, baseline)
        study.set_user_attr(IMPORTED, digest)
    return study


def _to_record(trial: FrozenTrial) -> TrialRecord:
    unfinished = not trial.state.is_finished()
    attributes = {name: trial.user_attrs.get(name) for name in _ATTRIBUTES}
    if unfinished:
        attributes |= {studies.METRICS: None, studies.SECONDS: None}
    return TrialRecord(
        state=_WAITING if unfinished else trial.state.name,
        params=trial.params or trial.system_attrs.get("fixed_params", {}),
        intermediate={str(step): value for step, value in trial.intermediate_values.items()} or None,
        started=None if unfinished else _iso(trial.datetime_start),
        ended=_iso(trial.datetime_complete),
        **attributes,
    )


def _to_trial(record: TrialRecord, study: StudyRecord, space: SearchSpace, where: str) -> FrozenTrial:
    categoricals = distributions(space)
    for name, value in record.params.items():
        if name not in categoricals:
            raise InputError(f"{where}.params: {unknown('decision', name, categoricals)}")
        if value not in categoricals[name].choices:
            raise InputError(f"{where}.params.{name}: {unknown('choice', value, categoricals[name].choices)}")
    attributes = {name: getattr(record, name) for name in _ATTRIBUTES if getattr(record, name) is not None}
    if record.state == _WAITING:
        system = {"fixed_params": record.params}
        return create_trial(state=TrialState.WAITING, system_attrs=system, user_attrs=attributes)
    complete = record.state == TrialState.COMPLETE.name
    missing = [n for n in study.objectives if complete and n not in record.metrics]
    if complete and (missing or len(record.params) != len(categoricals)):
        raise InputError(f"{where}: a COMPLETE trial needs every parameter and the metrics {list(study.objectives)}")
    trial = create_trial(
        state=TrialState[record.state],
        values=[record.metrics[name] for name in study.objectives] if complete else None,
        params=record.params,
        distributions={name: categoricals[name] for name in record.params},
        user_attrs=attributes,
        intermediate_values={int(step): value for step, value in (record.intermediate or {}).items()},
    )
    trial.datetime_start = _time(record.started) or trial.datetime_start
    trial.datetime_complete = _time(record.ended) or trial.datetime_complete
    return trial


def _iso(moment: datetime.datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _time(text: str | None) -> datetime.datetime | None:
    return None if text is None else datetime.datetime.fromisoformat(text)
