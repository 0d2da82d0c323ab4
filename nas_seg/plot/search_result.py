"""What a search's run folder and its study tell: trials with and without a score, baselines, the Pareto set."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from nas_seg import spaces
from nas_seg.common import REWARD
from nas_seg.plot.charts import FAILED, STOPPED
from nas_seg.search import study as studies
from nas_seg.search.baselines import Baseline, baselines
from nas_seg.search.space import SearchSpace
from nas_seg.utils import runs
from nas_seg.utils.errors import InputError


@dataclasses.dataclass(frozen=True)
class Unscored:
    """A trial that ended without a score; a duplicate of another trial is none of these.

    Attributes:
        trial: its number.
        outcome: STOPPED or FAILED.
        step: the last one that it reported a loss at, or None.
        reason: why it ended.
        summary: its architecture, where all its decisions are known.
        seconds: that it took, where that is known: a failed trial may have been found dead much later.
    """

    trial: int
    outcome: str
    step: int | None
    reason: str
    summary: str | None
    seconds: float | None


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """A study as the report shows it.

    Attributes:
        name: of its run folder.
        facts: the study's own (see nas_seg.search.study).
        space: of its architectures.
        rows: the scored trials, best first.
        baselines: best first.
        front: numbers of the trials in the Pareto set; empty with one objective.
        unscored: in the order of their numbers.
        trials: all of them.
        description: how many trials there are of each kind.
        sections: of RUN/config.json, or empty.
    """

    name: str
    facts: Mapping[str, Any]
    space: SearchSpace
    rows: Sequence[studies.Row]
    baselines: Sequence[Baseline]
    front: frozenset[int]
    unscored: Sequence[Unscored]
    trials: Sequence[FrozenTrial]
    description: str
    sections: Mapping[str, Any]

    @property
    def objectives(self) -> list[str]:
        """Names of metrics, the reward first."""
        return self.facts["objectives"]

    @property
    def costs(self) -> list[str]:
        """The metrics that rewards are drawn against: the other objectives, and what the evaluator counted."""
        wanted = dict.fromkeys([*self.objectives, "madds", "params"])
        return [name for name in wanted if name != REWARD and any(name in row.metrics for row in self.rows)]

    @property
    def seconds(self) -> float:
        """Spent on the trials that are scored or were stopped early."""
        return sum(one.seconds or 0.0 for one in (*self.rows, *self.unscored))


def read_search(run_dir: str | os.PathLike, storage: str | None, study_name: str) -> SearchResult:
    """Reads a search.

    Args:
        run_dir: its run folder.
        storage: database URL of the study; None: RUN/study.db.
        study_name: of the study in its storage.

    Raises:
        InputError: where the folder or the study is missing or not what it should be.
    """
    folder = pathlib.Path(run_dir)
    if not folder.is_dir():
        raise InputError(f"{folder}: expected the run folder of a search, found none")
    study = studies.read_study(storage or studies.default_storage(folder), study_name)
    facts = study.user_attrs[studies.FACTS]
    space = spaces.read_space(facts["space"])
    # A study that was imported from a file may stand in a folder that no search has run in.
    sections = runs.read_config(folder) if (folder / runs.CONFIG).exists() else {}
    trials = study.get_trials(deepcopy=False)
    return SearchResult(
        name=folder.name or str(folder),
        facts=facts,
        space=space,
        rows=studies.leaderboard(study, space),
        baselines=baselines(study),
        front=studies.pareto_front(study),
        unscored=[_unscored(trial, space) for trial in trials if _is_unscored(trial)],
        trials=trials,
        description=studies.describe(study),
        sections=sections,
    )


def _is_unscored(trial: FrozenTrial) -> bool:
    stopped = trial.state == TrialState.PRUNED and studies.DUPLICATE_OF not in trial.user_attrs
    return stopped or trial.state == TrialState.FAIL


def _unscored(trial: FrozenTrial, space: SearchSpace) -> Unscored:
    stopped = trial.state == TrialState.PRUNED
    # A process that ended while it asked for the trial leaves some decisions out.
    known = set(space.names) <= trial.params.keys()
    return Unscored(
        trial=trial.number,
        outcome=STOPPED if stopped else FAILED,
        step=max(trial.intermediate_values, default=None),
        reason=trial.user_attrs.get(studies.REASON, "no reason given"),
        summary=space.from_params(trial.params).summary() if known else None,
        seconds=trial.duration.total_seconds() if stopped and trial.duration else None,
    )
