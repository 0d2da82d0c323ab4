"""Rules that give a trial up before its end. They spare time and never change the score of a trial that ends."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable

from optuna.study import Study
from optuna.trial import Trial, TrialState

from nas_seg.search.evaluator import Report, TrialStopped


@dataclasses.dataclass(frozen=True)
class MedianRule:
    """Stops a trial whose loss is above the median of the scored trials at the same step.

    The median is of trials that ended, so it is of the better half and grows sharper as the search goes on.

    Attributes:
        min_trials: no trial stops before this many others are scored.
        warmup_reports: a trial's first reports are too early to tell.
    """

    min_trials: int = 5
    warmup_reports: int = 2

    def judge(self, study: Study, step: int, loss: float) -> str | None:
        """Why to stop, or None."""
        scored = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        losses = [-trial.intermediate_values[step] for trial in scored if step in trial.intermediate_values]
        if len(losses) < self.min_trials:
            return None
        median = statistics.median(losses)
        if loss <= median:
            return None
        return f"loss {loss:.4g} at step {step} above {median:.4g}, the median of {len(losses)} scored trials"


RULES: dict[str, Callable[[], MedianRule | None]] = {"none": lambda: None, "median": MedianRule}


def make_report(study: Study, trial: Trial, rule: MedianRule) -> Report:
    """What an evaluator calls during a trial: keeps the loss with the trial and applies the rule.

    It is kept with its sign turned: Optuna's samplers read intermediate values in the direction of the reward.
    """
    reported = 0

    def report(step: int, loss: float) -> None:
        nonlocal reported
        reported += 1
        # Not trial.report: that refuses studies with several objectives.
        study._storage.set_trial_intermediate_value(trial._trial_id, step, -float(loss))
        reason = rule.judge(study, step, loss) if reported > rule.warmup_reports else None
        if reason is not None:
            raise TrialStopped(reason)

    return report
