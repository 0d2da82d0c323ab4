"""Scores of hand-made genotypes in a study: no trials, not counted, out of the samplers' sight."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from optuna.study import Study

from nas_seg.common import REWARD
from nas_seg.search.evaluator import Evaluator, TrialFailed
from nas_seg.search.storage import turn
from nas_seg.search.study import finite_numbers
from nas_seg.utils import config

# A user attribute of the study for each, so that processes that write at once lose nothing.
_PREFIX = "baseline:"


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A named genotype, scored as the trials of its study are.

    Attributes:
        name: unique in the study.
        summary: the genotype on one line.
        metrics: as a trial's.
        seconds: that scoring took.
    """

    name: str
    summary: str
    metrics: dict[str, float]
    seconds: float

    @property
    def reward(self) -> float:
        """Comparable with the trials' rewards."""
        return self.metrics[REWARD]

    @property
    def params(self) -> float | None:
        """Parameters, where the evaluator counted them."""
        return self.metrics.get("params")

    @property
    def madds(self) -> float | None:
        """Multiply-adds, where the evaluator counted them."""
        return self.metrics.get("madds")


def baselines(study: Study) -> list[Baseline]:
    """The scored baselines of a study from the highest reward down."""
    attributes = study.user_attrs
    found = [
        config.from_json(Baseline, value, f"study {study.study_name!r}: {name}")
        for name, value in attributes.items()
        if name.startswith(_PREFIX)
    ]
    return sorted(found, key=lambda baseline: (-baseline.reward, baseline.name))


def set_baseline(study: Study, baseline: Baseline) -> None:
    """Keeps a score in the study, in place of an earlier one of that name."""
    study.set_user_attr(_PREFIX + baseline.name, config.to_json(baseline))


def score_baselines(study: Study, genotypes: Mapping[str, Any], evaluator: Evaluator, *, seed: int) -> None:
    """Scores the baselines that the study lacks. Where another process of this machine is at it, returns at once.

    One that fails is said so in a line, and has its turn again in the next run.
    """
    with turn(study, "baselines", wait=False) as mine:
        if not mine:
            return
        known = {baseline.name for baseline in baselines(study)}
        for name in [name for name in genotypes if name not in known]:
            start = time.monotonic()
            try:
                metrics = finite_numbers(evaluator(genotypes[name], seed=seed))
            except TrialFailed as failure:
                print(f"baseline {name} failed: {failure}", flush=True)
                continue
            seconds = time.monotonic() - start
            set_baseline(study, Baseline(name, genotypes[name].summary(), metrics, round(seconds, 3)))
            print(f"baseline {name}: reward {metrics[REWARD]:.4f} · {seconds:.0f} s", flush=True)
