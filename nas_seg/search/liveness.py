"""Which running trials have a worker that is alive, and what becomes of those that have not.

A process of this machine is asked for by its number. One on another machine has to say again and again that it lives:
by Optuna's heartbeat where the storage has one (Optuna records it inside `Study.optimize` alone, this module for a loop
of ask and tell), by a lease in the trial's attributes where it has none. Every trial starts with a lease, for its
worker may die before the first heartbeat. The heartbeat is told by the database's clock, a lease by those of the
workers: the clocks of machines must agree to within a minute or two.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import platform
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import optuna
from optuna.storages._heartbeat import is_heartbeat_enabled
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from nas_seg.search import storage as storages
from nas_seg.search.samplers import DRAW, draw_number
from nas_seg.search.storage import SECONDS_TO_LOCK, STORAGE_ERRORS

WORKER, REASON, RETRY_OF, DEATHS = "worker", "reason", "retry_of", "deaths"
_LEASE = "lease"  # Of a worker: seconds since 1970 up to which it counts as alive.


def this_worker() -> dict[str, Any]:
    """What a trial says of the process that runs it."""
    return {"host": platform.node(), "pid": os.getpid(), "started": _process_start(os.getpid()), _LEASE: _lease()}


def tell_failed(study: Study, trial: Trial | FrozenTrial, reason: str) -> FrozenTrial:
    """Ends a trial as failed, with the reason; optuna's UpdateFinishedTrialError when it has ended already."""
    study._storage.set_trial_user_attr(trial._trial_id, REASON, reason)
    try:
        return study.tell(trial.number, state=TrialState.FAIL)
    except ValueError as error:
        # Optuna's word for a trial that another process has ended since the line above.
        raise optuna.exceptions.UpdateFinishedTrialError(str(error)) from None


def repeat(study: Study, trial: FrozenTrial, died: bool) -> None:
    """Queues what a trial was to score; one that brought its worker down is repeated once, not for ever."""
    deaths = trial.user_attrs.get(DEATHS, 0) + died
    if deaths > 1:
        return
    draw = draw_number(study, trial)
    study.enqueue_trial(trial.params, {DRAW: draw, RETRY_OF: trial.number, DEATHS: deaths})


def recover(study: Study) -> int:
    """Fails the trials that dead workers left running, and queues them again.

    To be called in the study's turn (`nas_seg.search.storage.turn`). Dead is a process of this machine that is gone,
    and a worker of another machine that has been silent for the grace period. A trial that this very process left
    running (a search interrupted in a notebook) counts as left too.

    Returns:
        how many there were.
    """
    recovered, silent = 0, _silent(study)
    url = storages.storage_url(study)
    # Who asks for a trial has the turn until its worker is named. With sqlite, which is one machine's, that is the
    # caller now; a server's turn may have been given up.
    seconds_to_begin = 0 if url is not None and url.get_backend_name() == "sqlite" else SECONDS_TO_LOCK
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not _is_abandoned(trial, silent, seconds_to_begin):
            continue
        # When another process was quicker, it has queued the trial too.
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            tell_failed(study, trial, "worker died")
            repeat(study, trial, died=True)
            recovered += 1
    return recovered


def count_alive(study: Study, trials: Iterable[FrozenTrial]) -> int:
    """How many of the trials run, with other processes, here or elsewhere, at work on them."""
    silent = _silent(study)
    return sum(_is_alive(study, trial, silent) for trial in trials if trial.state == TrialState.RUNNING)


def is_alive(study: Study, trial: FrozenTrial) -> bool:
    """Whether another process, here or elsewhere, is at work on a running trial."""
    return _is_alive(study, trial, _silent(study))


def _is_alive(study: Study, trial: FrozenTrial, silent: Callable[[], Collection[int]]) -> bool:
    worker = trial.user_attrs.get(WORKER)
    if worker is None or _is_abandoned(trial, silent):
        return False
    return worker["host"] == platform.node() or storages.storage_url(study) is not None


def _is_abandoned(
    trial: FrozenTrial, silent: Callable[[], Collection[int]], seconds_to_begin: float = SECONDS_TO_LOCK
) -> bool:
    """Whether a running trial's worker is known to be gone."""
    worker = trial.user_attrs.get(WORKER)
    if worker is None:
        started = trial.datetime_start
        return started is not None and time.time() - started.timestamp() > seconds_to_begin
    if worker["host"] == platform.node():
        return worker["pid"] == os.getpid() or worker["started"] != _process_start(worker["pid"])
    return worker[_LEASE] < time.time() if _LEASE in worker else trial._trial_id in silent()


def _silent(study: Study) -> Callable[[], Collection[int]]:
    """What tells the trials whose heartbeat has stopped; the database is asked once, if at all."""
    if not is_heartbeat_enabled(study._storage):
        return tuple
    return functools.cache(lambda: frozenset(study._storage._get_stale_trial_ids(study._study_id)))


@contextlib.contextmanager
def heartbeat(study: Study, trial: Trial) -> Iterator[None]:
    """Records at once and then every so often that the worker of a trial lives, where others can see it."""
    if storages.storage_url(study) is None:
        yield
        return
    beat = _make_beat(study._storage, trial)
    ended = threading.Event()

    def go_on() -> None:
        while not ended.wait(storages.HEARTBEAT_SECONDS):
            # A database that is away for a moment is no reason to lose the trial. If another process has given the
            # trial up, this one hears so when it tells the score.
            with contextlib.suppress(*STORAGE_ERRORS, optuna.exceptions.UpdateFinishedTrialError):
                beat()

    beat()
    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _make_beat(storage: optuna.storages.BaseStorage, trial: Trial) -> Callable[[], None]:
    """What is to be called at every beat."""
    worker = {name: value for name, value in trial.user_attrs[WORKER].items() if name != _LEASE}
    if not is_heartbeat_enabled(storage):
        return lambda: storage.set_trial_user_attr(trial._trial_id, WORKER, worker | {_LEASE: _lease()})
    # From the first heartbeat on it is the one to tell.
    storage.record_heartbeat(trial._trial_id)
    storage.set_trial_user_attr(trial._trial_id, WORKER, worker)
    return lambda: storage.record_heartbeat(trial._trial_id)


def _lease() -> float:
    return time.time() + storages.GRACE_SECONDS


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
