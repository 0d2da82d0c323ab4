"""tools/search_dpc.py: searches, goes on, survives a kill, refuses what does not fit."""

import json
import re
import signal
import subprocess
import sys
import time

import pytest
from case import REPOSITORY

from nas_seg.datasets import build_data, synthetic
from nas_seg.dpc.genotype import DPCGenotype
from nas_seg.dpc.space import DPCSpace
from nas_seg.search import samplers, study

_SMALL = ("--num_trials=2", "--proxy_steps=2", "--proxy_batch_size=2", "--filters=4", "--depth_multiplier=0.35")


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "streets"
    build_data.build(synthetic.make_source((4, 2), (48, 65), 0), folder, num_shards=1)
    return folder


def _command(records, run_dir, *arguments):
    # A later flag wins over an earlier one.
    flags = (f"--dataset_dir={records}", f"--run_dir={run_dir}", *_SMALL, *arguments)
    return [sys.executable, "tools/search_dpc.py", *flags]


def _run(*arguments):
    return subprocess.run(_command(*arguments), cwd=REPOSITORY, capture_output=True, text=True)


def _refuse(*arguments):
    done = _run(*arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    return done.stderr.splitlines()[-1]


def _trials(run_dir):
    space = DPCSpace()
    opened = study.read_study(study.default_storage(run_dir), "search")
    return study.leaderboard(opened, space), opened


@pytest.fixture(scope="module")
def searched(records, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "search"
    done = _run(records, run_dir)
    assert done.returncode == 0, done.stderr
    return run_dir, done.stdout


def test_search_writes_a_study_a_cache_and_the_best_cell(searched):
    run_dir, output = searched
    rows, _ = _trials(run_dir)
    assert len(rows) == 2
    assert DPCGenotype.load(run_dir / "genotype.json") == rows[0].genotype
    config = json.loads((run_dir / "config.json").read_text())
    assert config["format_version"] == 1 and config["proxy"]["steps"] == 2
    assert {path.name for path in (run_dir / "cache").iterdir() if not path.name.startswith(".")} == {"train", "val"}
    assert str(run_dir / "genotype.json") in output


def test_same_command_with_more_trials_goes_on(searched, records):
    run_dir, _ = searched
    before = {row.trial: row.reward for row in _trials(run_dir)[0]}
    done = _run(records, run_dir, "--num_trials=3")
    assert done.returncode == 0, done.stderr
    after = {row.trial: row.reward for row in _trials(run_dir)[0]}
    assert len(after) == 3 and after.items() >= before.items()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--proxy_steps=3",), "proxy.steps: this run has 2, received 3"),
        (("--seed=1",), "seed: this run has 0, received 1"),
        (("--num_branches=4",), "another space|space"),
        (("--cache_size=33",), "--cache_size: expected height,width, received 33"),
        (("--train_split=trian",), "unknown split 'trian'.*Did you mean 'train'"),
        (("--backbone=mobilenet",), "unknown backbone 'mobilenet'"),
        (("--output_stride=32",), "output_stride: .*8 or 16"),
        (("--backbone_weights=none.h5",), "none.h5: expected"),
        (("--sampler=randm",), "--sampler=randm"),
        (("--storage=nosuch://x",), "nosuch"),
    ],
)
def test_what_does_not_fit_the_run_is_refused_by_name(searched, records, arguments, message):
    run_dir, _ = searched
    line = _refuse(records, run_dir, *arguments)
    assert re.search(message, line), line
    assert line.startswith("error: ")


def test_missing_data_set_is_refused_and_nothing_is_written(tmp_path):
    line = _refuse(tmp_path / "none", tmp_path / "run")
    assert str(tmp_path / "none") in line
    assert not (tmp_path / "run").exists()


def test_kill_9_loses_at_most_the_running_trial(records, tmp_path):
    run_dir = tmp_path / "run"
    process = subprocess.Popen(_command(records, run_dir, "--num_trials=50"), cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    scored = []
    while time.monotonic() < deadline and len(scored) < 2:
        time.sleep(0.5)
        if (run_dir / "genotype.json").exists():
            scored = _trials(run_dir)[0]
    process.send_signal(signal.SIGKILL)
    process.wait()
    scored = {row.trial: row.digest for row in _trials(run_dir)[0]}
    assert len(scored) >= 2
    done = _run(records, run_dir, f"--num_trials={len(scored) + 1}")
    assert done.returncode == 0, done.stderr
    rows, _ = _trials(run_dir)
    assert {row.trial: row.digest for row in rows}.items() >= scored.items()
    # The proposals are those of a search that nobody killed.
    space, seed = DPCSpace(), 0
    fresh = study.open_study(None, "fresh", space, samplers.make_sampler("random", space, seed))
    expected = {study.ask(fresh, space)[1].digest for _ in range(len(rows))}
    assert {row.digest for row in rows} == expected
