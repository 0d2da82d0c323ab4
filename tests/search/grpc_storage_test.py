"""Tests studies behind the gRPC server: leases in place of heartbeats, turns among machines, a server that is away."""

import platform
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest
from case import refuse
from optuna.trial import TrialState
from table_problem import WordSpace, evaluate

from nas_seg.search import liveness, storage
from nas_seg.search import study as studies
from nas_seg.search.loop import run_search
from nas_seg.search.samplers import make_sampler
from nas_seg.utils.errors import InputError

grpc = pytest.importorskip("grpc")
from nas_seg.search.proxy_server import Turns, start_server  # noqa: E402

SPACE = WordSpace()


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start_again(backend, port):
    """The system takes a moment to let a port go that this process has listened on."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return start_server(backend, port)
        except InputError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.fixture
def url(tmp_path):
    """Of our server in this process."""
    port = free_port()
    server = start_server(f"sqlite:///{tmp_path}/study.db", port)
    yield f"grpc://127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def optunas_url(tmp_path):
    """Of Optuna's own server, which keeps no turns."""
    port = free_port()
    backend = optuna.storages.get_storage(f"sqlite:///{tmp_path}/study.db")
    server = optuna.storages._grpc.server.make_server(backend, "127.0.0.1", port, ThreadPoolExecutor(4))
    server.start()
    yield f"grpc://127.0.0.1:{port}"
    server.stop(None).wait()


def open_words(url, sampler="near_best"):
    return studies.open_study(url, "search", SPACE, make_sampler(sampler, SPACE, 0))


def letters(study):
    return [SPACE.from_params(trial.params).letters for trial in study.trials]


def leave_running_elsewhere(study, monkeypatch):
    """A trial as a worker of another machine has it at work."""
    with monkeypatch.context() as patch:
        patch.setattr(platform, "node", lambda: "elsewhere")
        trial, _ = studies.ask(study, SPACE)
    with liveness.heartbeat(study, trial):
        return trial.number


def test_a_search_behind_the_server_equals_one_in_memory(url):
    study, whole = open_words(url), open_words(None)
    run_search(study, SPACE, evaluate, num_trials=4, seed=0)
    run_search(open_words(url), SPACE, evaluate, num_trials=6, seed=0)
    run_search(whole, SPACE, evaluate, num_trials=6, seed=0)
    assert letters(open_words(url)) == letters(whole)
    assert storage.check_storage(url) and studies.rewards(studies.read_study(url, "search")) == studies.rewards(whole)


def test_a_worker_elsewhere_whose_lease_ran_out_is_dead_and_its_trial_repeated_once(url, monkeypatch):
    study = open_words(url)
    number = leave_running_elsewhere(study, monkeypatch)
    assert liveness.recover(study) == 0 and liveness.is_alive(study, study.trials[number])
    assert liveness.count_alive(study, study.trials) == 1
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + storage.GRACE_SECONDS - 30)
    assert liveness.recover(study) == 0
    monkeypatch.setattr(time, "time", lambda: now + storage.GRACE_SECONDS + 1)
    assert liveness.recover(study) == 1 and liveness.count_alive(study, study.trials) == 0
    assert study.trials[number].user_attrs["reason"] == "worker died"
    again = leave_running_elsewhere(study, monkeypatch)
    assert study.trials[again].user_attrs["retry_of"] == number and len(set(letters(study))) == 1
    monkeypatch.setattr(time, "time", lambda: now + 3 * storage.GRACE_SECONDS)
    assert liveness.recover(study) == 1
    assert not study.get_trials(states=(TrialState.WAITING,)), "it brought two workers down: a third is not risked"


def test_the_lease_is_renewed_while_a_trial_runs(url, monkeypatch):
    monkeypatch.setattr(storage, "HEARTBEAT_SECONDS", 0.05)
    study, seen = open_words(url), []

    def slow(genotype, *, seed):
        deadline = time.monotonic() + 20
        while len(set(seen)) < 3 and time.monotonic() < deadline:
            seen.append(study.trials[0].user_attrs[liveness.WORKER]["lease"])
            time.sleep(0.02)
        return evaluate(genotype, seed=seed)

    run_search(study, SPACE, slow, num_trials=1, seed=0)
    assert len(set(seen)) >= 3 and seen == sorted(seen)


def test_a_trial_whose_worker_died_before_its_first_heartbeat_is_not_stuck(tmp_path, monkeypatch):
    # sqlite has heartbeats; there is none of this trial yet.
    study = open_words(f"sqlite:///{tmp_path}/other.db")
    with monkeypatch.context() as patch:
        patch.setattr(platform, "node", lambda: "elsewhere")
        studies.ask(study, SPACE)
    assert liveness.recover(study) == 0 and liveness.count_alive(study, study.trials) == 1
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + storage.GRACE_SECONDS + 1)
    assert liveness.recover(study) == 1 and liveness.count_alive(study, study.trials) == 0


def test_machines_exclude_one_another_by_the_servers_turn(url, monkeypatch, tmp_path):
    machines = [open_words(url), open_words(url)]
    paths = iter(tmp_path / f"machine{i}" for i in range(9))  # The locked file is not theirs in common.
    monkeypatch.setattr(storage, "_lock_path", lambda *place: next(paths))
    with storage.turn(machines[0]), storage.turn(machines[1], wait=False) as mine:
        assert not mine
    with storage.turn(machines[1], wait=False) as mine:
        assert mine
    with storage.turn(machines[0]):
        monkeypatch.setattr(storage, "SECONDS_TO_LOCK", 0.2)
        start = time.monotonic()
        with storage.turn(machines[1]) as mine:
            # The other one may have vanished with its turn.
            assert mine and time.monotonic() - start >= 0.2


def test_optunas_own_server_does_without_turns(optunas_url):
    study = open_words(optunas_url)
    with storage.turn(study) as mine:
        assert mine
    run_search(study, SPACE, evaluate, num_trials=2, seed=0)
    assert len(studies.rewards(study)) == 2


def test_a_turn_is_its_holders_until_given_or_silent_for_too_long():
    now = [0.0]
    turns = Turns(seconds=10.0, clock=lambda: now[0])
    assert turns.take("a", "x") and turns.take("a", "x") and turns.take("b", "y")
    assert not turns.take("a", "y") and not turns.give("a", "y")
    now[0] = 9.0
    assert turns.take("a", "x"), "taken anew"
    now[0] = 18.0
    assert not turns.take("a", "y")
    now[0] = 20.0
    assert turns.take("a", "y") and not turns.give("a", "x") and turns.give("a", "y") and not turns.give("a", "y")


def test_two_servers_do_not_share_a_port(url, tmp_path):
    port = int(url.rsplit(":", 1)[1])
    with pytest.raises(InputError, match=f"--port={port}: cannot listen on 127.0.0.1:{port}"):
        start_server(f"sqlite:///{tmp_path}/other.db", port)


def test_a_server_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setattr(storage, "SECONDS_TO_ANSWER", 0.3)
    away = f"grpc://127.0.0.1:{free_port()}"
    for look in (storage.check_storage, lambda url: open_words(url), lambda url: studies.read_study(url, "search")):
        with pytest.raises(InputError, match=f"{away}: the storage cannot be opened \\(no server answers there"):
            look(away)


def test_a_server_that_goes_away_is_one_line_and_nothing_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "SECONDS_TO_WAIT", 5.0)
    port, backend = free_port(), f"sqlite:///{tmp_path}/study.db"
    servers = [start_server(backend, port)]
    study = open_words(f"grpc://127.0.0.1:{port}")
    calls = []

    def evaluate_and_lose(genotype, *, seed):
        calls.append(genotype.letters)
        if len(calls) == 3:
            servers.pop().stop(None).wait()
        return evaluate(genotype, seed=seed)

    with pytest.raises(InputError, match=f"grpc://127.0.0.1:{port}: the storage stopped answering .* goes on"):
        run_search(study, SPACE, evaluate_and_lose, num_trials=4, seed=0)
    servers.append(start_again(backend, port))
    again = open_words(f"grpc://127.0.0.1:{port}")
    run_search(again, SPACE, evaluate, num_trials=4, seed=0)
    servers.pop().stop(None).wait()
    assert len(studies.rewards(open_words(backend))) == 4


@pytest.mark.parametrize("url", ["grpc://host", "grpc://:13000", "grpc://host:13000/name", "grpc://me:secret@host:1"])
def test_a_url_of_a_server_is_host_and_port(url):
    with pytest.raises(InputError, match=r"expected grpc://HOST:PORT") as caught:
        storage.open_storage(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "--storage: expected the URL of a database"),
        (("--storage=grpc://127.0.0.1:13000",), "received the server grpc://127.0.0.1:13000"),
        (("--storage=sqlite:///nowhere/study.db",), "the folder nowhere does not exist"),
        (("--storage=sqlite:///x.db", "--port=0"), "port"),
    ],
)
def test_tool_that_serves_names_the_flag_that_is_wrong(flags, message):
    assert message in refuse("serve_studies", *flags)
