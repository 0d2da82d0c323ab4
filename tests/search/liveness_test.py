"""Tests what a search does about workers of other machines: their heartbeat tells whether they live."""

import platform
import sqlite3
import time
import warnings

import pytest
from optuna.trial import TrialState
from table_problem import WordSpace, evaluate

from nas_seg.search import liveness, storage
from nas_seg.search import study as studies
from nas_seg.search.loop import run_search
from nas_seg.search.samplers import make_sampler

SPACE = WordSpace()


def open_words(folder):
    url = f"sqlite:///{folder}/study.db"
    return studies.open_study(url, "search", SPACE, make_sampler("random", SPACE, 0))


def leave_running_elsewhere(study):
    """A trial as a worker of another machine has it at work."""
    trial, _ = studies.ask(study, SPACE)
    trial.set_user_attr(liveness.WORKER, liveness.this_worker() | {"host": platform.node() + "x"})
    with liveness.heartbeat(study, trial):
        return trial.number


def age_heartbeats(folder, seconds):
    with sqlite3.connect(folder / "study.db") as connection:
        connection.execute("UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, ?)", [f"-{seconds} seconds"])


def heartbeats(folder):
    with sqlite3.connect(folder / "study.db") as connection:
        return connection.execute("SELECT heartbeat FROM trial_heartbeats").fetchall()


def test_a_worker_elsewhere_that_is_silent_for_the_grace_period_is_dead_and_its_trial_repeated_once(tmp_path):
    study = open_words(tmp_path)
    number = leave_running_elsewhere(study)
    age_heartbeats(tmp_path, storage.GRACE_SECONDS - 30)
    assert liveness.recover(study) == 0 and liveness.is_alive(study, study.trials[number])
    age_heartbeats(tmp_path, 60)
    assert liveness.recover(study) == 1
    assert study.trials[number].user_attrs["reason"] == "worker died"
    again = leave_running_elsewhere(study)
    assert study.trials[again].user_attrs["retry_of"] == number
    age_heartbeats(tmp_path, storage.GRACE_SECONDS + 1)
    assert liveness.recover(study) == 1
    # It brought two workers down: a third is not risked.
    assert not study.get_trials(states=(TrialState.WAITING,))


def test_trials_that_live_workers_elsewhere_score_are_counted_on(tmp_path):
    study = open_words(tmp_path)
    leave_running_elsewhere(study)
    assert run_search(study, SPACE, evaluate, num_trials=3, seed=0) == "done"
    assert len(studies.rewards(study)) == 2
    age_heartbeats(tmp_path, storage.GRACE_SECONDS + 1)
    run_search(study, SPACE, evaluate, num_trials=3, seed=0)
    assert len(studies.rewards(study)) == 3


def test_the_heartbeat_is_recorded_while_a_trial_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "HEARTBEAT_SECONDS", 1)
    study = open_words(tmp_path)
    seen = []

    def slow(genotype, *, seed):
        age_heartbeats(tmp_path, 1000)
        seen.append(heartbeats(tmp_path))
        deadline = time.monotonic() + 10
        while heartbeats(tmp_path) == seen[0] and time.monotonic() < deadline:
            time.sleep(0.05)
        seen.append(heartbeats(tmp_path))
        return evaluate(genotype, seed=seed)

    run_search(study, SPACE, slow, num_trials=1, seed=0)
    assert len(seen[0]) == 1 and seen[0] < seen[1]


def test_a_score_that_comes_after_its_trial_was_given_up_is_dropped_and_the_search_goes_on(tmp_path):
    study = open_words(tmp_path)
    calls = []

    def asleep(genotype, *, seed):
        calls.append(genotype.letters)
        if len(calls) == 1:
            trial = study.get_trials(states=(TrialState.RUNNING,))[0]
            liveness.tell_failed(study, trial, "worker died")
            liveness.repeat(study, trial, died=True)
        return evaluate(genotype, seed=seed)

    run_search(study, SPACE, asleep, num_trials=2, seed=0)
    assert [t.state.name for t in study.trials] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert calls[0] == calls[1]


def test_optunas_doubts_about_the_heartbeat_are_not_shown(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_search(open_words(tmp_path), SPACE, evaluate, num_trials=1, seed=0)


@pytest.mark.parametrize("what", ["lock", "import"])
def test_turns_of_one_name_exclude_one_another(tmp_path, what):
    study, other = open_words(tmp_path), open_words(tmp_path)
    with storage.turn(study, what), storage.turn(other, what, wait=False) as mine:
        assert not mine
    with storage.turn(study, what), storage.turn(other, "else", wait=False) as mine:
        assert mine
    with storage.turn(other, what, wait=False) as mine:
        assert mine
