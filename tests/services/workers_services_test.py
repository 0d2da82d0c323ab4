"""Workers on several machines share one study of a real server: nothing is lost, nothing told twice, all end."""

import collections
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from optuna.trial import TrialState
from servers import MariaDB, PostgreSQL, Proxy
from table_problem import WordSpace, evaluate

from nas_seg.search import study as studies
from nas_seg.search.loop import run_search
from nas_seg.search.samplers import make_sampler
from nas_seg.search.storage import check_storage
from nas_seg.utils.errors import InputError

pytestmark = pytest.mark.services

SPACE = WordSpace()
WORKER = pathlib.Path(__file__).with_name("search_worker.py")


@pytest.fixture(scope="module")
def postgres():
    server = PostgreSQL()
    yield server
    server.close()


@pytest.fixture(scope="module")
def mariadb():
    server = MariaDB()
    yield server
    server.close()


@pytest.fixture(params=["postgres", "grpc", "mariadb"])
def server(request):
    """PostgreSQL itself, the proxy in front of it, and MariaDB."""
    if request.param != "grpc":
        yield request.getfixturevalue(request.param)
        return
    proxy = Proxy(request.getfixturevalue("postgres").url)
    yield proxy
    proxy.close()


class Search:
    """One study, its workers and their log."""

    def __init__(self, url, name, folder):
        self.url, self.name, self.log, self.processes = url, name, folder / "log", []

    def start(self, machine, num_trials, seconds):
        command = [sys.executable, WORKER, self.url, self.name, num_trials, seconds, machine, self.log]
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.processes.append(subprocess.Popen(list(map(str, command)), text=True, **output))
        return self.processes[-1]

    def end(self, process):
        """(exit code, last line of what it printed, all that it complained of) of a worker."""
        out, error = process.communicate(timeout=300)
        return process.returncode, (out.strip().splitlines() or [""])[-1], error

    def lines(self, word):
        """The genotypes that evaluations have begun or ended with, and the process of each."""
        lines = [line.split() for line in self.log.read_text().splitlines()] if self.log.exists() else []
        return [(letters, int(pid)) for found, letters, pid in lines if found == word]

    def open(self):
        return studies.open_study(self.url, self.name, SPACE, make_sampler("near_best", SPACE, 0))

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def search(server, request, tmp_path):
    made = Search(server.url, request.node.name, tmp_path)
    yield made
    made.close()


def wait_until(true, seconds=120):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def letters(trial):
    return SPACE.from_params(trial.params).letters


def of_state(study, state):
    return [trial for trial in study.trials if trial.state == state]


def test_three_machines_score_each_genotype_once_and_exactly_as_many_as_asked(search):
    processes = [search.start(f"machine{i}", 14, 0.5) for i in range(3)]
    assert [search.end(process)[:2] for process in processes] == [(0, "done")] * 3
    study = search.open()
    scored = of_state(study, TrialState.COMPLETE)
    assert len(scored) == 14 and {t.state for t in study.trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    words = collections.Counter(map(letters, scored))
    assert set(words.values()) == {1}
    for line in ("begun", "ended"):
        assert collections.Counter(word for word, _ in search.lines(line)) == words
    assert all(t.values == [evaluate(SPACE.from_params(t.params), seed=0)["reward"]] for t in scored)
    assert len({t.user_attrs["worker"]["host"] for t in scored}) > 1
    # The study is full: one more worker has nothing to do.
    assert search.end(search.start("late", 14, 120))[:2] == (0, "done")
    assert len(search.lines("begun")) == 14


def test_a_worker_that_is_killed_loses_its_trial_which_another_machine_repeats_once(search):
    dead = search.start("dies", 10, 120)
    wait_until(lambda: search.lines("begun"))
    ((lost, pid),) = search.lines("begun")
    alive = search.start("lives", 10, 1)
    wait_until(lambda: search.lines("ended"))
    dead.send_signal(signal.SIGKILL)
    assert search.end(dead)[0] == -signal.SIGKILL and search.end(alive)[:2] == (0, "done")
    study = search.open()
    (failed,) = of_state(study, TrialState.FAIL)
    assert failed.user_attrs["reason"] == "worker died" and letters(failed) == lost
    assert failed.user_attrs["worker"]["pid"] == pid and failed.user_attrs["worker"]["host"] == "dies"
    scored = of_state(study, TrialState.COMPLETE)
    assert len(scored) == 10 and not of_state(study, TrialState.RUNNING)
    (again,) = [t for t in scored if "retry_of" in t.user_attrs]
    assert again.user_attrs["retry_of"] == failed.number and letters(again) == lost
    assert [word for word, _ in search.lines("ended")].count(lost) == 1


def test_a_genotype_that_kills_two_workers_is_not_tried_a_third_time(search):
    for machine in ("first", "second"):
        begun = len(search.lines("begun"))
        process = search.start(machine, 1, 120)
        wait_until(lambda begun=begun: len(search.lines("begun")) > begun)
        process.kill()
        search.end(process)
        time.sleep(5)  # Longer than a worker may be silent.
    assert search.end(search.start("third", 1, 0))[:2] == (0, "done")
    first, second, third = (word for word, _ in search.lines("begun"))
    assert first == second != third
    assert [t.state.name for t in search.open().trials] == ["FAIL", "FAIL", "COMPLETE"]


def test_a_long_trial_is_not_taken_for_a_dead_workers(search):
    # Three times the time after which a worker that says nothing is given up.
    slow = search.start("slow", 6, 12)
    wait_until(lambda: search.lines("begun"))
    quick = search.start("quick", 6, 1)
    assert [search.end(process)[:2] for process in (slow, quick)] == [(0, "done")] * 2
    study = search.open()
    assert not of_state(study, TrialState.FAIL)
    assert len({word for word, _ in search.lines("ended")}) == len(search.lines("ended")) == 6


def test_a_server_that_goes_away_is_one_line_and_the_same_command_goes_on_when_it_is_back(search, server):
    process = search.start("machine", 4, 1.5)
    wait_until(lambda: len(search.lines("begun")) == 2)
    server.stop()
    try:
        code, _, error = search.end(process)
    finally:
        server.start()
    assert code == 2, error
    (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in error and "the storage stopped answering" in line
    assert "127.0.0.1" in line and "the same command goes on once it is back" in line
    assert server.password is None or server.password not in error
    # As long as a worker may be silent: then the trial that was lost on the way has its second turn.
    time.sleep(4.5)
    code, ended, error = search.end(search.start("machine", 4, 0.1))
    assert (code, ended) == (0, "done"), error
    scored = of_state(search.open(), TrialState.COMPLETE)
    assert len(scored) == len({letters(t) for t in scored}) == 4


def test_a_server_that_is_back_before_the_trial_ends_is_not_missed(search, server):
    process = search.start("machine", 1, 6)
    wait_until(lambda: search.lines("begun"))
    server.stop()
    server.start()
    code, ended, error = search.end(process)
    assert (code, ended) == (0, "done"), error
    assert len(search.lines("begun")) == 1
    assert [t.state for t in search.open().trials] == [TrialState.COMPLETE]


def test_a_storage_is_looked_at_without_making_a_study(server):
    assert check_storage(server.url)
    with pytest.raises(InputError, match="unknown study 'none'|has no study") as caught:
        studies.read_study(server.url, "none")
    assert server.password is None or server.password not in str(caught.value)


@pytest.mark.parametrize(
    "name, words", [("postgres", "password authentication failed"), ("mariadb", "Access denied for user 'nas_seg'")]
)
def test_a_wrong_password_is_refused_without_being_shown(name, words, request):
    server = request.getfixturevalue(name)
    wrong = server.url.replace(server.password, "wrongsecret")
    with pytest.raises(InputError, match=rf":\*\*\*@127.0.0.1.*{words}") as caught:
        studies.open_study(wrong, "search", SPACE, make_sampler("random", SPACE, 0))
    assert "wrongsecret" not in str(caught.value) and "\n" not in str(caught.value)


def test_this_process_goes_on_with_what_other_machines_began(search):
    assert search.end(search.start("machine", 3, 0))[:2] == (0, "done")
    study = search.open()
    assert run_search(study, SPACE, evaluate, num_trials=5, seed=0) == "done"
    whole = studies.open_study(None, "search", SPACE, make_sampler("near_best", SPACE, 0))
    run_search(whole, SPACE, evaluate, num_trials=5, seed=0)
    assert [letters(t) for t in study.trials] == [letters(t) for t in whole.trials]
    assert os.getpid() in {t.user_attrs["worker"]["pid"] for t in study.trials}
