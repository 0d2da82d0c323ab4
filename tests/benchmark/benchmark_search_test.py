"""The benchmark of a search counts real trials of a real study, and leaves no study behind."""

import json
import subprocess
import sys

import optuna
import pytest
from case import REPOSITORY

from nas_seg.benchmark import search


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/study.db"


def test_workers_score_as_many_trials_as_asked_and_their_rate_is_of_these(url):
    row = search.time_workers(url, workers=2, worker_trials=3, sleep_seconds=0.05)
    assert (row.workers, row.trials) == (2, 6)
    assert row.per_hour == pytest.approx(3600 * 6 / row.seconds)
    # Two processes that do nothing but sleep score 2 / 0.05 a second.
    assert row.of_ideal == pytest.approx(6 / row.seconds / (2 / 0.05)) and row.of_ideal < 1
    assert not optuna.get_all_study_names(url), "its studies are removed"


def test_a_study_that_is_gone_on_with_has_its_trials_and_the_share_is_of_a_real_one(url, monkeypatch):
    names = []
    start = search._start

    def spy(url, name, trials, sleep_seconds):
        names.append((len(optuna.load_study(study_name=name, storage=url).trials), trials))
        return start(url, name, trials, sleep_seconds)

    monkeypatch.setattr(search, "_start", spy)
    row = search.time_overhead(url, study_trials=7, trials=3, trial_seconds=9.0)
    assert names == [(7, 10)] and row.study_trials == 7
    assert row.resume_seconds > 0 and row.cpu_seconds > 0
    assert row.share == pytest.approx(row.seconds / (row.seconds + 9.0))


def test_tool_writes_what_it_prints_without_tensorflow(tmp_path):
    path = tmp_path / "figures.json"
    code = """
import runpy, sys
sys.modules["tensorflow"] = None  # Any import of it fails.
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    flags = ("--search", "--workers=1", "--worker_trials=2", "--sleep_seconds=0.01", "--study_trials=3")
    done = subprocess.run(
        [sys.executable, "-c", code, "tools/benchmark.py", *flags, f"--output={path}"],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads(path.read_text())
    assert figures["mode"] == "search" and figures["storage"] == "sqlite" and figures["format_version"]
    assert [row["trials"] for row in figures["workers"]] == [2]
    assert [row["study_trials"] for row in figures["overhead"]] == [3]
    assert f"{figures['overhead'][0]['seconds']:.3f}" in done.stdout


def test_tool_names_the_flag_that_is_wrong():
    for flags, message in (
        (["--search", "--workers=two"], "--workers: expected whole numbers above 0, received 'two'"),
        (["--search", "--study_trials=-1"], "--study_trials: expected whole numbers above -1, received '-1'"),
        (["--search", "--storage=nothing"], "storage: expected a URL such as"),
    ):
        done = subprocess.run(
            [sys.executable, "tools/benchmark.py", *flags], cwd=REPOSITORY, capture_output=True, text=True
        )
        assert done.returncode == 2 and message in done.stderr.splitlines()[-1], done.stderr
