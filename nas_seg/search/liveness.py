"""Which running trials have a worker that is alive, and what becomes of those that have not.

A process of this machine is asked for by its number; of one on another machine the heartbeat tells, which
Optuna records inside `Study.optimize` alone and this module records for a loop of ask and tell.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import platform
import threading
import time
from collections.abc import Iterator
from typing import Any

import optuna
from optuna.storages._heartbeat import is_heartbeat_enabled
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from nas_seg.search.samplers import DRAW, draw_number
from nas_seg.search.storage import SECONDS_TO_LOCK, STORAGE_ERRORS

WORKER, REASON, RETRY_OF, DEATHS = "worker", "reason", "retry_of", "deaths"


def this_worker() -> dict[str, Any]:
    """What a trial says of the process that runs it."""
    return {"host": platform.node(), "pid": os.getpid(), "started": _process_start(os.getpid())}


def tell_failed(study: Study, trial: Trial | FrozenTrial, reason: str) -> FrozenTrial:
    """Ends a trial as failed, with the reason; optuna's UpdateFinishedTrialError when it has ended already."""
    study._storage.set_trial_user_attr(trial._trial_id, REASON, reason)
    return study.tell(trial.number, state=TrialState.FAIL)


def repeat(study: Study, trial: FrozenTrial, died: bool) -> None:
    """Queues what a trial was to score; one that brought its worker down is repeated once, not for ever."""
    deaths = trial.user_attrs.get(DEATHS, 0) + died
    if deaths > 1:
        return
    draw = draw_number(study, trial)
    study.enqueue_trial(trial.params, {DRAW: draw, RETRY_OF: trial.number, DEATHS: deaths})


def recover(study: Study) -> int:
    """Fails the trials that dead workers left running, and queues them again.

    Dead is a process of this machine that is gone, and a worker of another machine whose heartbeat has been
    silent for the grace period. A trial that this very process left running (a search interrupted in a
    notebook) counts as left too.

    Returns:
        how many there were.
    """
    recovered = 0
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not is_abandoned(study, trial):
            continue
        # When another process was quicker, it has queued the trial too.
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            tell_failed(study, trial, "worker died")
            repeat(study, trial, died=True)
            recovered += 1
    return recovered


def is_abandoned(study: Study, trial: FrozenTrial) -> bool:
    """Whether a running trial's worker is known to be gone."""
    worker = trial.user_attrs.get(WORKER)
    if worker is None:
        started = trial.datetime_start
        return started is not None and time.time() - started.timestamp() > SECONDS_TO_LOCK
    if worker["host"] != platform.node():
        return is_heartbeat_enabled(study._storage) and trial._trial_id in _silent(study)
    return worker["pid"] == os.getpid() or worker["started"] != _process_start(worker["pid"])


def is_alive(study: Study, trial: FrozenTrial) -> bool:
    """Whether another process, here or elsewhere, is at work on a running trial."""
    worker = trial.user_attrs.get(WORKER)
    if worker is None or is_abandoned(study, trial):
        return False
    return worker["host"] == platform.node() or is_heartbeat_enabled(study._storage)


@contextlib.contextmanager
def heartbeat(study: Study, trial: Trial) -> Iterator[None]:
    """Records at once and then every so often that the worker of a trial lives, where the storage can."""
    storage = study._storage
    if not is_heartbeat_enabled(storage):
        yield
        return
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(storage.get_heartbeat_interval()):
            # A database that is away for a moment is no reason to lose the trial.
            with contextlib.suppress(*STORAGE_ERRORS):
                storage.record_heartbeat(trial._trial_id)

    storage.record_heartbeat(trial._trial_id)
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _silent(study: Study) -> list[int]:
    return study._storage._get_stale_trial_ids(study._study_id)


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
