"""Tests that a search counts rightly, survives failures, and resumes as if it had never stopped."""

import os
import signal
import subprocess
import sys
import time

import pytest
from optuna.trial import TrialState
from table_problem import WordSpace, evaluate

from nas_seg.search import study as studies
from nas_seg.search.evaluator import TrialFailed, TrialStopped
from nas_seg.search.loop import run_search
from nas_seg.search.samplers import make_sampler
from nas_seg.utils.errors import InputError

SPACE = WordSpace()


def open_words(storage=None, sampler="random", space=SPACE, seed=0):
    return studies.open_study(storage, "search", space, make_sampler(sampler, space, seed))


def scored(study):
    """The scored words with their rewards, in the order of their trials."""
    trials = study.get_trials(states=(TrialState.COMPLETE,))
    return [(SPACE.from_params(trial.params).letters, trial.value) for trial in trials]


class Interrupted:
    """An evaluator that is interrupted in its calls of the given numbers."""

    def __init__(self, *calls, error=KeyboardInterrupt):
        self.calls, self.error, self.count = calls, error, 0

    def __call__(self, genotype, *, seed):
        self.count += 1
        if self.count in self.calls:
            raise self.error
        return evaluate(genotype, seed=seed)


def test_trials_are_counted_over_all_runs():
    study = open_words()
    assert run_search(study, SPACE, evaluate, num_trials=4, seed=0) == "done"
    calls = Interrupted()
    assert run_search(study, SPACE, calls, num_trials=6, seed=0) == "done"
    assert calls.count == 2 and len(scored(study)) == 6


@pytest.mark.parametrize("sampler", ["random", "near_best", "evolution", "tpe"])
def test_a_search_resumed_twice_equals_one_never_stopped(sampler):
    whole, parts = open_words(sampler=sampler), open_words(sampler=sampler)
    run_search(whole, SPACE, evaluate, num_trials=30, seed=0)
    run_search(parts, SPACE, evaluate, num_trials=13, seed=0)
    with pytest.raises(KeyboardInterrupt):
        run_search(parts, SPACE, Interrupted(5), num_trials=30, seed=0)
    run_search(parts, SPACE, evaluate, num_trials=30, seed=0)
    assert scored(parts) == scored(whole)


def test_an_interrupted_trial_fails_with_a_reason_and_is_repeated():
    study = open_words()
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run_search(study, SPACE, Interrupted(1), num_trials=2, seed=0)
    run_search(study, SPACE, evaluate, num_trials=2, seed=0)
    assert [t.state.name for t in study.trials] == ["FAIL", "FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert [t.user_attrs["reason"] for t in study.trials[:3]] == ["stopped"] * 3
    assert len({tuple(t.params.values()) for t in study.trials[:4]}) == 1


def test_failed_trials_keep_their_reason_and_do_not_count():
    study = open_words()
    seen = []

    def evaluator(genotype, *, seed):
        seen.append(seed)
        if len(seen) % 2:
            raise TrialFailed("loss is nan at step 3")
        return evaluate(genotype, seed=seed)

    run_search(study, SPACE, evaluator, num_trials=3, seed=11)
    assert [t.state.name for t in study.trials] == ["FAIL", "COMPLETE"] * 3
    assert study.trials[0].user_attrs["reason"] == "loss is nan at step 3"
    assert seen == [11] * 6, "every trial has the search's seed"


def test_a_reward_that_is_no_number_is_a_failure_not_a_score():
    study = open_words()
    rewards = iter([float("nan"), float("inf"), 0.5])
    run_search(study, SPACE, lambda genotype, *, seed: {"reward": next(rewards)}, num_trials=1, seed=0)
    assert [t.user_attrs.get("reason") for t in study.trials] == ["reward is nan", "reward is inf", None]


def test_ten_failures_in_a_row_end_the_search_with_the_last_reason():
    study = open_words()
    calls = []

    def evaluator(genotype, *, seed):
        calls.append(1)
        raise TrialFailed(f"out of memory in call {len(calls)}")

    with pytest.raises(InputError, match="10 trials in a row failed; the last one: out of memory in call 10"):
        run_search(study, SPACE, evaluator, num_trials=1, seed=0)


def test_a_signal_between_trials_is_heeded_before_the_next_one():
    study = open_words()
    sent = []

    def send(trial):
        sent.append(trial.number)
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        run_search(study, SPACE, evaluate, num_trials=5, seed=0, on_trial=send)
    assert sent == [0] and [t.state.name for t in study.trials] == ["COMPLETE"]


def test_an_unexpected_error_propagates_and_its_genotype_has_one_more_turn():
    study = open_words()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            run_search(study, SPACE, Interrupted(1, error=ZeroDivisionError("x")), num_trials=1, seed=0)
    run_search(study, SPACE, evaluate, num_trials=1, seed=0)
    words = [tuple(t.params.values()) for t in study.trials]
    assert study.trials[0].user_attrs["reason"] == "ZeroDivisionError: x"
    assert words[0] == words[1] != words[2]


def test_a_small_space_is_scored_once_each_and_the_search_ends():
    space = WordSpace(length=1)
    study = open_words(space=space)
    scores = []

    def evaluator(genotype, *, seed):
        scores.append(genotype.letters)
        return {"reward": 1.0}

    assert run_search(study, space, evaluator, num_trials=7, seed=0) == "no new genotypes"
    assert sorted(scores) == list("abcdef")
    # 7 asked for: 70 draws, of which 6 were new.
    states = [t.state for t in study.trials]
    assert states.count(TrialState.COMPLETE) == 6 and states.count(TrialState.PRUNED) == 64


def test_a_search_whose_draws_are_nearly_all_given_up_tells_so_and_not_that_they_were_known():
    def evaluator(genotype, *, seed):
        raise TrialStopped("beyond a limit")

    study = open_words()
    assert run_search(study, SPACE, evaluator, num_trials=1, seed=0) == "nearly all draws stopped early"
    assert len(study.trials) == 10


def test_the_time_budget_lets_no_further_trial_start():
    study = open_words()

    def evaluator(genotype, *, seed):
        time.sleep(0.05)
        return {"reward": 1.0}

    assert run_search(study, SPACE, evaluator, num_trials=100, seed=0, time_budget_seconds=0.2) == "time budget"
    assert 1 <= len(scored(study)) <= 5


def test_on_trial_sees_every_trial_and_progress_the_best(capsys):
    numbers = []
    study = open_words()
    run_search(study, SPACE, evaluate, num_trials=3, seed=0, on_trial=lambda trial: numbers.append(trial.number))
    assert numbers == [0, 1, 2]
    assert f"search 3/3 · best {max(value for _, value in scored(study)):.4g}" in capsys.readouterr().out


def test_number_of_trials_must_be_positive():
    with pytest.raises(InputError, match="num_trials: expected an integer >= 1, received 0"):
        run_search(open_words(), SPACE, evaluate, num_trials=0, seed=0)


WORKER = """
import sys, time
sys.path.insert(0, {folder!r})
from table_problem import WordSpace, evaluate
from nas_seg.search.loop import run_search
from nas_seg.search.samplers import make_sampler
from nas_seg.search.study import open_study
from nas_seg.utils import app

def slow(genotype, *, seed):
    print("evaluating", flush=True)
    time.sleep({seconds})
    return evaluate(genotype, seed=seed)

def main():
    space = WordSpace()
    study = open_study({storage!r}, "search", space, make_sampler("near_best", space, 0))
    run_search(study, space, slow, num_trials={num_trials}, seed=0)

app.run(main)
"""


def start(storage, seconds, num_trials):
    code = WORKER.format(folder=os.path.dirname(__file__), storage=storage, seconds=seconds, num_trials=num_trials)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_evaluations(process, count):
    for line in process.stdout:
        count -= line == "evaluating\n"
        if not count:
            return
    raise AssertionError(process.stderr.read())


@pytest.mark.parametrize(("number", "code", "reason"), [("SIGKILL", -9, "worker died"), ("SIGTERM", 143, "stopped")])
def test_a_killed_search_loses_the_running_trial_at_most_and_goes_on(tmp_path, number, code, reason):
    storage = f"sqlite:///{tmp_path}/study.db"
    process = start(storage, 0.3, num_trials=6)
    wait_for_evaluations(process, 3)
    process.send_signal(getattr(signal, number))
    process.communicate(timeout=60)
    assert process.returncode == code

    study = open_words(storage, "near_best")
    run_search(study, SPACE, evaluate, num_trials=6, seed=0)
    states = [t.state.name for t in study.trials]
    assert states.count("FAIL") == 1 and states.count("COMPLETE") == 6 and len(states) == 7
    failed = next(t for t in study.trials if t.state == TrialState.FAIL)
    assert failed.user_attrs["reason"] == reason
    assert any(t.params == failed.params and t.state == TrialState.COMPLETE for t in study.trials)
    whole = open_words(sampler="near_best")
    run_search(whole, SPACE, evaluate, num_trials=6, seed=0)
    assert scored(study) == scored(whole)


def test_two_processes_share_the_trials_of_one_study(tmp_path):
    storage = f"sqlite:///{tmp_path}/study.db"
    open_words(storage, "near_best")
    processes = [start(storage, 0.05, num_trials=12) for _ in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    study = open_words(storage, "near_best")
    words = [word for word, _ in scored(study)]
    assert len(words) == 12 and len(set(words)) == 12
    assert len({t.user_attrs["worker"]["pid"] for t in study.trials}) == 2


def test_a_database_that_goes_away_is_a_line_and_what_it_held_goes_on(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = open_words(url)
    away = tmp_path / "away.db"

    def evaluate_and_lose(genotype, *, seed):
        if len(scored(study)) == 2:
            # As a disk that is gone: no table is there any more.
            (tmp_path / "study.db").rename(away)
            study._storage._backend.engine.dispose()
        return evaluate(genotype, seed=seed)

    with pytest.raises(InputError, match=r"study\.db: the storage stopped answering .* the same command goes on"):
        run_search(study, SPACE, evaluate_and_lose, num_trials=4, seed=0)
    away.rename(tmp_path / "study.db")
    again = open_words(url)
    run_search(again, SPACE, evaluate, num_trials=4, seed=0)
    whole = open_words()
    run_search(whole, SPACE, evaluate, num_trials=4, seed=0)
    assert [word for word, _ in scored(again)] == [word for word, _ in scored(whole)]
