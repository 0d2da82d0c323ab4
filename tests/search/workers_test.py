"""Tests local workers: they share one study, end together, and leave nothing behind."""

import os
import signal
import subprocess
import sys
import time

import pytest
from optuna.trial import TrialState
from table_problem import WordSpace

from nas_seg.search import study as studies
from nas_seg.search import workers
from nas_seg.search.samplers import make_sampler
from nas_seg.utils.errors import InputError

SPACE = WordSpace()

WORKER = """
import sys, time
sys.path.insert(0, {folder!r})
from table_problem import WordSpace, evaluate
from nas_seg.search import workers
from nas_seg.search.interrupts import sigterm_as_interrupt
from nas_seg.search.loop import run_search
from nas_seg.search.samplers import make_sampler
from nas_seg.search.study import open_study
from nas_seg.utils import app

def slow(genotype, *, seed):
    time.sleep({seconds})
    return evaluate(genotype, seed=seed)

def main():
    workers.end_with_parent()
    with sigterm_as_interrupt():
        space = WordSpace()
        study = open_study({storage!r}, "search", space, make_sampler("near_best", space, 0))
        run_search(study, space, slow, num_trials={num_trials}, seed=0)

app.run(main)
"""

PARENT = """
import sys
from nas_seg.search import workers
from nas_seg.utils import app

def main():
    workers.run_workers([sys.executable, "-c", {worker!r}], 2, lambda: None, 0.05)

app.run(main)
"""


def worker_code(storage, seconds=0.02, num_trials=9):
    return WORKER.format(folder=os.path.dirname(__file__), storage=storage, seconds=seconds, num_trials=num_trials)


def open_words(storage):
    return studies.open_study(storage, "search", SPACE, make_sampler("near_best", SPACE, 0))


def run(code, num_workers=2, on_poll=lambda: None):
    workers.run_workers([sys.executable, "-c", code], num_workers, on_poll, poll_seconds=0.05)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(true, seconds=60):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_three_workers_score_exactly_as_many_trials_as_asked(tmp_path):
    storage = f"sqlite:///{tmp_path}/study.db"
    polls = []
    run(worker_code(storage), 3, lambda: polls.append(1))
    trials = open_words(storage).trials
    scored = [t for t in trials if t.state == TrialState.COMPLETE]
    assert len(scored) == 9 and not [t for t in trials if t.state in (TrialState.RUNNING, TrialState.FAIL)]
    assert len({tuple(t.params.values()) for t in scored}) == 9
    assert len({t.user_attrs["worker"]["pid"] for t in scored}) > 1
    assert len(polls) > 1


def test_a_bug_in_one_worker_ends_the_others_and_shows_its_traceback():
    code = """
import os, time
if os.environ["NAS_SEG_WORKER"] == "1":
    raise ZeroDivisionError("of the second worker")
time.sleep(600)
"""
    start = time.monotonic()
    with pytest.raises(workers.WorkerFailed, match="(?s)worker 1 ended with exit code 1.*Traceback.*of the second wor"):
        run(code)
    assert time.monotonic() - start < 30


def test_bad_input_in_a_worker_is_bad_input_of_the_whole():
    code = """
from nas_seg.utils import app
from nas_seg.utils.errors import InputError
def main():
    raise InputError("config.json: seed: this run has 0, received 1")
app.run(main)
"""
    with pytest.raises(InputError, match=r"^config.json: seed: this run has 0, received 1$"):
        run(code)


def test_a_worker_that_is_killed_from_outside_is_named_with_the_signal():
    with pytest.raises(workers.WorkerFailed, match="worker 0 was ended by SIGKILL"):
        run("import os; os.kill(os.getpid(), 9)", 1)


def test_workers_are_told_their_share_of_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(7)))
    assert workers.thread_share() == 7 and workers.worker_index() is None
    monkeypatch.setenv("NAS_SEG_WORKERS", "3")
    monkeypatch.setenv("NAS_SEG_WORKER", "2")
    assert workers.thread_share() == 2 and workers.worker_index() == 2
    monkeypatch.setenv("NAS_SEG_WORKERS", "9")
    assert workers.thread_share() == 1


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_when_the_parent_is_stopped_every_worker_ends_and_the_search_can_go_on(tmp_path, number):
    storage = f"sqlite:///{tmp_path}/study.db"
    study = open_words(storage)
    # Trials long enough that both still run when the signal comes, however busy the machine is.
    code = PARENT.format(worker=worker_code(storage, seconds=20, num_trials=100))
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    running = (TrialState.RUNNING,)
    wait_until(lambda: sum("worker" in t.user_attrs for t in study.get_trials(states=running)) == 2)
    pids = {t.user_attrs["worker"]["pid"] for t in study.trials if "worker" in t.user_attrs}
    parent.send_signal(getattr(signal, number))
    error = parent.communicate(timeout=60)[1]
    if number != "SIGKILL":
        assert parent.returncode == {"SIGINT": 130, "SIGTERM": 143}[number] and error == "stopped\n"
        assert not any(is_running(pid) for pid in pids)
    # A parent that is killed cannot wait; its workers notice.
    wait_until(lambda: not any(is_running(pid) for pid in pids))
    failed = study.get_trials(states=(TrialState.FAIL,))
    assert {t.user_attrs["reason"] for t in failed} == {"stopped"} and len(failed) == 2
    assert not study.get_trials(states=running)
    scored = len(study.get_trials(states=(TrialState.COMPLETE,)))
    run(worker_code(storage, num_trials=scored + 2))
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    assert len(complete) == scored + 2
    assert {t.user_attrs["retry_of"] for t in complete if "retry_of" in t.user_attrs} == {t.number for t in failed}
