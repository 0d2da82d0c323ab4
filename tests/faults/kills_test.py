"""kill -9 at drawn moments: nothing told is lost, nothing done twice, a training is what it would have been."""

import collections
import signal
import subprocess
import sys

import numpy as np
import pytest
import training
from optuna.trial import TrialState
from table_problem import WordSpace, evaluate
from trouble import FAULTS, count, drawn, wait_until

from nas_seg import train
from nas_seg.search.samplers import make_sampler
from nas_seg.search.study import open_study
from nas_seg.utils import runs

pytestmark = pytest.mark.faults

SPACE = WordSpace()
SECONDS = 0.15  # A trial's; its study takes about as long, so that kills come amid trials, ask and tell.


class Search:
    """A study of one machine, its workers and what they log."""

    def __init__(self, folder, num_trials):
        self.url, self.log, self.num_trials = f"sqlite:///{folder}/study.db", folder / "log", num_trials
        self.study = open_study(self.url, "search", SPACE, make_sampler("near_best", SPACE, 0))

    def start(self):
        worker = FAULTS.parent / "services" / "search_worker.py"
        arguments = [self.url, "search", str(self.num_trials), str(SECONDS), "machine", str(self.log)]
        output = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        return subprocess.Popen([sys.executable, worker, *arguments], text=True, **output)

    def has_begun(self, process):
        return self.log.exists() and f" {process.pid}\n" in self.log.read_text()

    def begun(self):
        """How often the evaluation of each word has begun."""
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return collections.Counter(word for state, word, _ in lines if state == "begun")

    def told(self):
        """Number of a scored trial: (word, score)."""
        trials = self.study.get_trials(states=(TrialState.COMPLETE,))
        return {trial.number: (SPACE.from_params(trial.params).letters, trial.values[0]) for trial in trials}


def test_killed_search_workers_lose_nothing_told_score_nothing_twice_and_leave_no_trial_running(tmp_path):
    kills, rng = count("search kills"), drawn("search kills")
    search = Search(tmp_path, num_trials=8 + 6 * kills)
    workers = [search.start() for _ in range(2)]
    seen = []
    try:
        for _ in range(kills):
            victim, delay = rng.randrange(2), rng.uniform(0, 1)
            wait_until(lambda victim=victim: search.has_begun(workers[victim]), workers[victim])
            workers[1 - victim].poll()
            try:
                workers[victim].wait(delay)
            except subprocess.TimeoutExpired:
                workers[victim].send_signal(signal.SIGKILL)
            print(f"worker {victim} killed {delay:.3f} s after its first trial had begun")
            assert workers[victim].wait() == -signal.SIGKILL, "it was done before it could be killed"
            # In this order: an evaluation in the log may be of a trial that was told after the study was read.
            told = search.told()
            seen.append((told, search.begun()))
            workers[victim] = search.start()
        for worker in workers:
            _, errors = worker.communicate(timeout=600)
            assert worker.returncode == 0, errors
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()

    told, begun = search.told(), search.begun()
    assert len(told) == search.num_trials
    words = [word for word, _ in told.values()]
    assert len(set(words)) == len(words)
    states = collections.Counter(trial.state for trial in search.study.trials)
    print(f"{dict(states)}, {sum(begun.values())} evaluations")
    assert not states[TrialState.RUNNING] and not states[TrialState.WAITING]
    for trial in search.study.get_trials(states=(TrialState.COMPLETE,)):
        assert trial.values == [evaluate(SPACE.from_params(trial.params), seed=0)["reward"]]
    for earlier, begun_then in seen:
        assert told.items() >= earlier.items()
        assert all(begun[word] == begun_then[word] for word, _ in earlier.values())
    # An evaluation too many is one that a kill ended.
    assert sum(begun.values()) <= search.num_trials + kills


@pytest.fixture(scope="module")
def steps():
    """Of the trainings: enough for every kill to come before the end."""
    return 40 * (count("training kills") + 1)


def start_training(run_dir, steps, seconds):
    command = [sys.executable, FAULTS / "training_worker.py", run_dir, steps, seconds]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def last_checkpoint(run_dir):
    """The step of the checkpoint that a training goes on from, 0 without any."""
    found = runs.latest_checkpoint(run_dir)
    return int(found.rpartition("-")[2]) if found else 0


def rows(run_dir):
    return [row for row in runs.read_metrics(run_dir) if "loss" in row]


def test_a_training_that_is_killed_again_and_again_ends_bit_for_bit_as_one_that_is_not(tmp_path, steps):
    rng = drawn("training kills")
    reached = [0]
    for _ in range(count("training kills")):
        process = start_training(tmp_path, steps, 0.03)
        try:
            # It has begun once it has written a row of its own. Rows after its checkpoint are taken out before that.
            metrics, begun = tmp_path / "metrics.jsonl", last_checkpoint(tmp_path)
            before = metrics.stat().st_mtime_ns if metrics.exists() else 0
            wait_until(
                lambda metrics=metrics, begun=begun, before=before: (
                    metrics.exists()
                    and metrics.stat().st_mtime_ns > before
                    and any(row["step"] > begun for row in rows(tmp_path))
                ),
                process,
            )
            delay = rng.uniform(0, 1)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(delay)
        finally:
            process.kill()
        assert process.wait() == -signal.SIGKILL
        reached.append(rows(tmp_path)[-1]["step"])
        print(f"killed {delay:.3f} s after its first row, at step {reached[-1]}")
    assert reached[-1] < steps
    # Most kills come amid steps and checkpoints, not while the next process still starts.
    assert len(set(reached)) > len(reached) // 2, reached
    process = start_training(tmp_path, steps, 0)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    model = training.tiny_model()
    config = train.TrainConfig(**training.CONFIG | {"training_number_of_steps": steps, "log_steps": 1})
    train.fit(model, training.batches, config, tmp_path / "whole", ignore_label=training.IGNORE)
    with np.load(tmp_path / "values.npz") as values:
        for name, expected in zip(values.files, training.values(model), strict=True):
            np.testing.assert_array_equal(values[name], expected)
    losses = [[(row["step"], row["loss"]) for row in rows(folder)] for folder in (tmp_path, tmp_path / "whole")]
    assert losses[0] == losses[1] and len(losses[0]) == steps
    left = {path.name.split("-")[0].split(".")[0] for path in (tmp_path / "ckpt").iterdir()}
    assert left == {"checkpoint", "step", "best", "last"}
