"""The search: ask, evaluate, tell, until enough trials are scored. It stops, dies and goes on without loss."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from nas_seg.search import liveness
from nas_seg.search import study as studies
from nas_seg.search.early_stop import MedianRule, make_report
from nas_seg.search.evaluator import Evaluator, TrialFailed, TrialStopped
from nas_seg.search.interrupts import Interrupts, deferred_interrupts
from nas_seg.search.space import SearchSpace
from nas_seg.search.storage import lost_as_input_error, turn
from nas_seg.utils.errors import InputError
from nas_seg.utils.progress import progress

MAX_FAILURES_IN_A_ROW = 10
MAX_DRAWS_PER_TRIAL = 10


def run_search(
    study: Study,
    space: SearchSpace,
    evaluator: Evaluator,
    *,
    num_trials: int,
    seed: int,
    on_trial: Callable[[FrozenTrial], None] | None = None,
    time_budget_seconds: float | None = None,
    early_stop: MedianRule | None = None,
) -> str:
    """Runs trials until `num_trials` of the study are scored, those of earlier runs and other processes included.

    Any number of processes on any number of machines may run this on one study, and together they start exactly as
    many trials as are missing. With a server that keeps no turns (see `turn`: Optuna's own gRPC proxy, a database other
    than PostgreSQL and MySQL) each machine may start one too many at the very end.

    A genotype that the study has scored before is not scored again and does not count. A trial that raises
    `TrialFailed` is stored with its reason and does not count, nor does one that `early_stop` ends. Ctrl-C and
    SIGTERM leave the running trial to be repeated when the search goes on, and so does the death of the process.

    Args:
        study: made by `open_study`.
        space: of its genotypes.
        evaluator: scores them.
        num_trials: scored trials to have in the study at the end.
        seed: handed to the evaluator in every trial, so that genotypes differ by themselves alone (initial
            weights and the order of the data are drawn alike).
        on_trial: called with each trial that has ended, in whatever state.
        time_budget_seconds: no trial starts after this many seconds.
        early_stop: gives hopeless trials up; the evaluator must then take `report`.

    Returns:
        why it ended: "done" (the trials are scored, or other processes are scoring the last ones),
        "time budget", or what `why_end` tells of draws that gave too few scored trials.

    Raises:
        InputError: after ten failures in a row, or when the storage stops answering.
        KeyboardInterrupt: on Ctrl-C and SIGTERM, once the study is in order.
    """
    if num_trials < 1:
        raise InputError(f"num_trials: expected an integer >= 1, received {num_trials!r}")
    start = time.monotonic()
    failures: list[str] = []
    shown = len(studies.rewards(study))
    shown_progress = progress("search", num_trials, min(shown, num_trials))
    with lost_as_input_error(study), deferred_interrupts() as interrupts, shown_progress as bar:
        while True:
            interrupts.check()
            # One process at a time looks what is missing and takes it on.
            with turn(study):
                liveness.recover(study)
                ended = why_end(study, num_trials)
                if not ended and time_budget_seconds is not None and time.monotonic() - start >= time_budget_seconds:
                    ended = "time budget"
                if ended:
                    return ended
                try:
                    started, genotype = studies.ask(study, space)
                except UpdateFinishedTrialError:
                    continue  # A machine whose clock is far off took the trial for an old one; it is queued again.
            trial = _run_trial(study, space, started, genotype, evaluator, seed, early_stop, interrupts)
            if on_trial is not None:
                on_trial(trial)
            if trial.state == TrialState.FAIL:
                failures.append(trial.user_attrs[studies.REASON])
            elif trial.state == TrialState.COMPLETE:
                failures.clear()
            if len(failures) >= MAX_FAILURES_IN_A_ROW:
                raise InputError(f"search: {len(failures)} trials in a row failed; the last one: {failures[-1]}")
            rewards = studies.rewards(study)
            bar.advance(len(rewards) - shown, **({"best": max(rewards)} if rewards else {}))
            shown = len(rewards)


def _run_trial(
    study: Study,
    space: SearchSpace,
    trial: Trial,
    genotype: Any,
    evaluator: Evaluator,
    seed: int,
    early_stop: MedianRule | None,
    interrupts: Interrupts,
) -> FrozenTrial:
    options = {} if early_stop is None else {"report": make_report(study, trial, early_stop)}
    try:
        duplicate = studies.find_duplicate(study, space, trial)
        if duplicate is not None:
            return studies.tell_duplicate(study, trial, duplicate)
        with liveness.heartbeat(study, trial):
            start = time.monotonic()
            with interrupts.at_once():
                metrics = evaluator(genotype, seed=seed, **options)
            return studies.tell(study, trial, metrics, time.monotonic() - start)
    except TrialFailed as failure:
        return liveness.tell_failed(study, trial, str(failure) or "no reason given")
    except TrialStopped as stop:
        return studies.tell_stopped(study, trial, str(stop))
    except UpdateFinishedTrialError:
        # This process was silent for so long (a laptop asleep) that another one took it for dead.
        return study._storage.get_trial(trial._trial_id)
    except KeyboardInterrupt:
        _give_up(study, trial, "stopped", died=False)
        raise
    except Exception as error:
        # A bug, or something that the user puts right: the same genotype has its turn in the next run.
        _give_up(study, trial, f"{type(error).__name__}: {error}", died=True)
        raise


def _give_up(study: Study, trial: Trial, reason: str, died: bool) -> None:
    # The signal may come when the trial has just been told its score.
    with contextlib.suppress(UpdateFinishedTrialError):
        liveness.repeat(study, liveness.tell_failed(study, trial, reason), died)


def why_end(study: Study, num_trials: int) -> str | None:
    """Why a search starts no more trials, None while it does.

    Args:
        study: of the search.
        num_trials: scored ones to have.

    Returns:
        "done", with the trials that others are at; after ten times as many draws as trials "no new genotypes" where
        most of those that were not scored were duplicates, else "nearly all draws stopped early".
    """
    trials = study.get_trials(deepcopy=False)
    complete = sum(trial.state == TrialState.COMPLETE for trial in trials)
    # Whoever scores the last trial goes on by itself if it fails, so the others need not wait. Both counts are of one
    # look: a trial that ended between two would be in neither.
    if complete + liveness.count_alive(study, trials) >= num_trials:
        return "done"
    # Duplicates and trials that were stopped early.
    pruned = sum(trial.state == TrialState.PRUNED for trial in trials)
    if complete + pruned < MAX_DRAWS_PER_TRIAL * num_trials:
        return None
    duplicates = sum(studies.DUPLICATE_OF in trial.user_attrs for trial in trials)
    return "no new genotypes" if 2 * duplicates >= pruned else "nearly all draws stopped early"
