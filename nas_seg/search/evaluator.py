"""What scores a genotype. A searcher proposes and never scores; an evaluator scores and never proposes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

# Takes a step and the loss there (lower is better); may raise TrialStopped, which an evaluator lets pass.
Report = Callable[[int, float], None]


class TrialFailed(Exception):
    """An outcome that a search survives: the loss diverged, memory ran out. Its text is the reason.

    The trial is stored as failed with the reason and does not count; it never becomes a reward of 0. Any
    other exception is taken for a bug and ends the search.
    """


class TrialStopped(Exception):
    """A trial that is given up because it does worse than others did at the same step. Its text is the reason."""


class Evaluator(Protocol):
    """Scores one genotype."""

    def __call__(self, genotype: Any, *, seed: int, report: Report | None = None) -> Mapping[str, float]:
        """The metrics of a genotype: "reward" (higher is better) and any others, all finite numbers.

        Args:
            genotype: what to score.
            seed: of everything random in the evaluation. A search passes the same seed in every trial.
            report: only passed in a search that stops hopeless trials early; to be called at a few fixed steps.

        Raises:
            TrialFailed: when this genotype cannot be scored but others may be.
        """
        ...
