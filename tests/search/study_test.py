"""Tests opening studies, what they refuse, trials left behind by dead workers, and the leaderboard."""

import contextlib
import os
import platform
import sqlite3
import subprocess
import sys

import optuna
import pytest
from optuna.trial import TrialState
from table_problem import Word, WordSpace

from nas_seg.search import liveness
from nas_seg.search import study as studies
from nas_seg.search.evaluator import TrialFailed
from nas_seg.search.samplers import RandomSampler
from nas_seg.search.storage import check_storage
from nas_seg.utils.errors import InputError

SPACE = WordSpace()


def open_words(storage=None, name="search", space=SPACE, **arguments):
    return studies.open_study(storage, name, space, RandomSampler(space, 0), **arguments)


def url(folder):
    return f"sqlite:///{folder}/study.db"


def test_trials_survive_in_the_storage(tmp_path):
    study = open_words(url(tmp_path))
    trial, word = studies.ask(study, SPACE)
    studies.tell(study, trial, {"reward": 0.5, "params": 10}, seconds=1.5)
    row = studies.best(open_words(url(tmp_path)), SPACE)
    assert (row.genotype, row.reward, row.params, row.madds, row.seconds) == (word, 0.5, 10, None, 1.5)
    assert row.summary == word.letters and len(row.digest) == 12


def test_leaderboard_is_sorted_by_reward_and_then_by_age():
    study = open_words()
    for reward in (0.2, 0.9, 0.9, 0.4):
        studies.tell(study, studies.ask(study, SPACE)[0], {"reward": reward}, 0.0)
    liveness.tell_failed(study, studies.ask(study, SPACE)[0], "diverged")
    rows = studies.leaderboard(study, SPACE)
    assert [(row.rank, row.trial, row.reward) for row in rows] == [(1, 1, 0.9), (2, 2, 0.9), (3, 3, 0.4), (4, 0, 0.2)]
    assert studies.describe(study) == "study 'search': 4 complete, 1 failed"


def test_best_of_an_empty_study_is_refused():
    with pytest.raises(InputError, match="no trial is complete"):
        studies.best(open_words(), SPACE)


def test_other_space_objectives_and_conditions_are_refused(tmp_path):
    open_words(url(tmp_path), conditions={"proxy_steps": 200, "seed": 0})
    open_words(url(tmp_path), conditions={"proxy_steps": 200, "seed": 0})
    with pytest.raises(InputError, match=r"study of another space: it is of word\(length=6\), expected word\(length=5"):
        open_words(url(tmp_path), space=WordSpace(length=5))
    with pytest.raises(InputError, match=r"its objectives are \['reward'\]"):
        open_words(url(tmp_path), objectives=("reward", "madds"))
    with pytest.raises(InputError, match="scores are of proxy_steps=200, received proxy_steps=300"):
        open_words(url(tmp_path), conditions={"proxy_steps": 300, "seed": 0})


def test_objectives_start_with_the_reward():
    with pytest.raises(InputError, match="'reward' first"):
        open_words(objectives=("madds",))


@pytest.mark.parametrize(
    ("storage", "expected"),
    [
        ("sqlite:///{folder}/missing/study.db", r"missing/study\.db: the folder .* does not exist"),
        ("study.db", "expected a URL such as sqlite"),
        ("oracle5://host/name", "oracle5://host/name: the storage cannot be opened"),
        ("postgresql+psycopg2://me:secret@localhost:1/x", r"postgresql\+psycopg2://me:\*\*\*@localhost:1/x: "),
        ("sqlite:///{folder}/text.db", r"text\.db: the storage cannot be opened \(file is not a database"),
    ],
)
def test_storage_that_cannot_be_opened_is_named_without_its_password(tmp_path, storage, expected):
    (tmp_path / "text.db").write_text("no database " * 100)
    with pytest.raises(InputError, match=expected) as caught:
        open_words(storage.format(folder=tmp_path))
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:///{folder}/missing/study.db", "the folder .* does not exist"),
        ("nosuch://host", "cannot be opened"),
        ("postgresql+psycopg2://me:secret@localhost:1/x", r"postgresql\+psycopg2://me:\*\*\*@localhost:1/x: "),
    ],
)
def test_a_storage_is_checked_without_being_made(tmp_path, url, expected):
    with pytest.raises(InputError, match=expected) as caught:
        check_storage(url.format(folder=tmp_path))
    assert "secret" not in str(caught.value)
    assert not check_storage(f"sqlite:///{tmp_path}/study.db") and not list(tmp_path.iterdir())


def test_a_study_of_other_objectives_is_found_before_it_is_opened(tmp_path):
    open_words(url(tmp_path), conditions={"seed": 0})
    studies.check_study(url(tmp_path), "search", SPACE, ("reward",))
    studies.check_study(url(tmp_path), "another", WordSpace(length=5), ("reward",))
    with pytest.raises(InputError, match=r"its objectives are \['reward'\], expected \['reward', 'madds'\]"):
        studies.check_study(url(tmp_path), "search", SPACE, ("reward", "madds"))
    with pytest.raises(InputError, match="study of another space"):
        studies.check_study(url(tmp_path), "search", WordSpace(length=5), ("reward",))


def test_reading_a_missing_study_makes_nothing(tmp_path):
    with pytest.raises(InputError, match=r"study\.db does not exist"):
        studies.read_study(url(tmp_path), "search")
    assert not list(tmp_path.iterdir())
    open_words(url(tmp_path))
    with pytest.raises(InputError, match="unknown study 'serch'.*Did you mean 'search'"):
        studies.read_study(url(tmp_path), "serch")


def test_a_study_made_by_other_hands_is_refused(tmp_path):
    optuna.create_study(storage=url(tmp_path), study_name="search", direction="maximize").enqueue_trial({"x": 1})
    with pytest.raises(InputError, match="not a study of nas_seg"):
        open_words(url(tmp_path))
    with pytest.raises(InputError, match="not a study of nas_seg"):
        studies.read_study(url(tmp_path), "search")


def test_a_scored_trial_that_has_lost_its_score_is_named_as_damage(tmp_path):
    study = open_words(url(tmp_path))
    studies.tell(study, studies.ask(study, SPACE)[0], {"reward": 1.0}, 0.0)
    with contextlib.closing(sqlite3.connect(tmp_path / "study.db")) as database, database:
        database.execute("DELETE FROM trial_values")
    with pytest.raises(InputError, match="the study cannot be read, it may be damaged"):
        open_words(url(tmp_path))


def test_another_format_version_is_refused_by_name():
    study = open_words()
    study.set_user_attr(studies.FACTS, study.user_attrs[studies.FACTS] | {"format_version": 99})
    with pytest.raises(InputError, match="expected format_version 1, received 99"):
        studies._check_version("study", study.user_attrs[studies.FACTS])


def test_a_metric_that_is_no_number_fails_the_trial():
    study = open_words()
    trial, _ = studies.ask(study, SPACE)
    with pytest.raises(TrialFailed, match="loss is nan"):
        studies.tell(study, trial, {"reward": 0.1, "loss": float("nan")}, 0.0)


def test_a_duplicate_names_the_trial_it_repeats():
    study = open_words()
    for _ in range(2):
        study.enqueue_trial(SPACE.to_params(Word("abcabc")))
    first, _ = studies.ask(study, SPACE)
    studies.tell(study, first, {"reward": 0.1}, 0.0)
    second, word = studies.ask(study, SPACE)
    assert word == Word("abcabc") and studies.find_duplicate(study, SPACE, second) == 0
    told = studies.tell_duplicate(study, second, 0)
    assert told.state == TrialState.PRUNED and told.user_attrs["duplicate_of"] == 0


def leave_running(study, **worker):
    """A running trial as a worker leaves it that is described by `worker`."""
    trial, word = studies.ask(study, SPACE)
    trial.set_user_attr(studies.WORKER, trial.user_attrs[studies.WORKER] | worker)
    return trial.number, word


def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_trial_of_a_dead_process_fails_and_is_repeated_once():
    study = open_words()
    number, word = leave_running(study, pid=dead_pid())
    assert liveness.recover(study) == 1
    assert study.trials[number].state == TrialState.FAIL
    assert study.trials[number].user_attrs["reason"] == "worker died"
    again, same_word = leave_running(study, pid=dead_pid())
    assert same_word == word and study.trials[again].user_attrs["retry_of"] == number
    # It brought two workers down: a third is not risked.
    assert liveness.recover(study) == 1
    assert not study.get_trials(states=(TrialState.WAITING,))


def test_a_process_number_that_was_given_again_counts_as_dead():
    study = open_words()
    leave_running(study, pid=os.getppid(), started=1)
    assert liveness.recover(study) == 1


def test_trials_of_live_processes_and_of_other_machines_are_left_alone():
    study = open_words()
    parent = os.getppid()
    local, _ = leave_running(study, pid=parent, started=liveness._process_start(parent))
    remote, _ = leave_running(study, host=platform.node() + "x", pid=dead_pid())
    assert liveness.recover(study) == 0
    assert liveness.is_alive(study, study.trials[local]) and not liveness.is_alive(study, study.trials[remote])


def test_a_trial_that_has_just_started_is_given_time_to_name_its_worker():
    study = open_words()
    study.ask()
    assert liveness.recover(study) == 0


def test_processes_that_start_together_share_one_study(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
from table_problem import WordSpace
from nas_seg.search import study
from nas_seg.search.samplers import RandomSampler
found = study.open_study({url(tmp_path)!r}, "search", WordSpace(), RandomSampler(WordSpace(), 0))
trial, _ = study.ask(found, WordSpace())
study.tell(found, trial, {{"reward": 0.5}}, 0.0)
"""
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(4)]
    assert [process.wait(timeout=120) for process in processes] == [0] * 4
    assert len(studies.leaderboard(open_words(url(tmp_path)), SPACE)) == 4
