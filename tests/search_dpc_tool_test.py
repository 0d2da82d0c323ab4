"""tools/search_dpc.py: searches, goes on, survives a kill, refuses what does not fit."""

import dataclasses
import json
import signal
import subprocess
import sys
import time

import pytest
from case import REPOSITORY
from optuna.trial import TrialState

from nas_seg import dpc_search
from nas_seg.datasets import build_data, synthetic
from nas_seg.dpc.genotype import DPCGenotype
from nas_seg.dpc.space import DPCSpace
from nas_seg.search import samplers, study
from nas_seg.search.baselines import baselines
from nas_seg.search.records import export_study
from nas_seg.utils.errors import InputError

COMPLETE = TrialState.COMPLETE
_SMALL = (
    "--num_trials=2",
    "--proxy_steps=2",
    "--proxy_batch_size=2",
    "--filters=4",
    "--depth_multiplier=0.35",
    "--num_branches=2",
)


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
    space = DPCSpace(2)
    opened = study.read_study(study.default_storage(run_dir), "search")
    return study.leaderboard(opened, space), opened


@pytest.fixture(scope="module")
def searched(records, tmp_path_factory):
    """A search that was run in this process."""
    run_dir = tmp_path_factory.mktemp("runs") / "search"
    dpc_search.search(_settings(records, run_dir, baseline=("conv1x1", "aspp")), [])
    return run_dir


def _settings(records, run_dir, **changes):
    small = {
        "num_trials": 2,
        "proxy_steps": 2,
        "proxy_batch_size": 2,
        "filters": 4,
        "depth_multiplier": 0.35,
        "num_branches": 2,
    }
    return dpc_search.DPCSearch(**{"run_dir": str(run_dir), "dataset_dir": str(records)} | small | changes)


def test_search_writes_a_study_a_cache_and_the_best_cell(searched):
    rows, opened = _trials(searched)
    assert len(rows) == 2
    assert DPCGenotype.load(searched / "genotype.json") == rows[0].genotype
    config = json.loads((searched / "config.json").read_text())
    assert config["format_version"] == 1 and config["task"]["proxy"]["steps"] == 2
    assert {path.name for path in (searched / "cache").iterdir() if not path.name.startswith(".")} == {"train", "val"}
    # 1x1: 112 channels of the small backbone to 4. ASPP: two of these and three depthwise 3x3 with theirs.
    assert {b.name: b.params for b in baselines(opened)} == {"conv1x1": 448, "aspp": 2 * 448 + 3 * (112 * 9 + 448)}
    assert "latency" not in rows[0].metrics


def test_two_workers_go_on_with_another_sampler_and_the_run_says_so(searched, records):
    before = {row.trial: row.reward for row in _trials(searched)[0]}
    done = _run(records, searched, "--num_trials=5", "--workers=2", "--sampler=near_best", "--near_best_pool=2",
                "--baseline=conv1x1")  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows, opened = _trials(searched)
    after = {row.trial: row.reward for row in rows}
    assert len(after) == 5 and after.items() >= before.items()
    section = json.loads((searched / "config.json").read_text())["search"]
    assert section["sampler"] == "near_best" and section["sampler_options"] == {"pool": 2}
    assert "5 trials of 2 steps (done)" in done.stdout and "conv1x1" in done.stdout and "aspp" in done.stdout
    workers = {t.user_attrs["worker"]["pid"] for t in opened.trials}
    assert len(workers) == 3, "that of the first search, and two"


def test_a_study_is_exported_and_a_search_begins_with_it(searched, records, tmp_path, capsys):
    _, opened = _trials(searched)
    export_study(opened, tmp_path / "study.json")
    scored = len(study.rewards(opened))
    settings = _settings(records, tmp_path / "run", import_study=str(tmp_path / "study.json"), num_trials=scored + 1)
    for _ in range(2):
        dpc_search.search(settings, [])
    rows, again = _trials(tmp_path / "run")
    assert len(rows) == scored + 1 and len(baselines(again)) == 2
    # The same conditions gave the same scores: the picture folder, the weights and the seed are the same.
    with pytest.raises(InputError, match="study.json: its scores are of proxy="):
        dpc_search.search(dataclasses.replace(settings, run_dir=str(tmp_path / "x"), proxy_steps=3), [])
    assert not (tmp_path / "x" / "study.db").exists()


def test_latency_is_measured_when_it_is_an_objective_and_trials_stop_early(records, tmp_path, capsys):
    settings = _settings(
        records, tmp_path / "run", objectives=("reward", "latency"), early_stop="median", proxy_steps=10
    )
    dpc_search.search(settings, [])
    rows, opened = _trials(tmp_path / "run")
    assert all(0 < row.metrics["latency"] < 10 for row in rows)
    assert all(list(t.intermediate_values) == list(range(1, 10)) for t in opened.get_trials(states=(COMPLETE,)))
    output = capsys.readouterr().out
    assert "latency (s)" in output and "Pareto set of reward, latency" in output
    with pytest.raises(InputError, match=r"its objectives are \['reward', 'latency'\], expected \['reward'\]"):
        dpc_search.check(dataclasses.replace(settings, objectives=("reward",)), DPCSpace(2))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_branches": 4}, "study of another space"),
        ({"train_split": "trian"}, "unknown split 'trian'.*Did you mean 'train'"),
        ({"sampler": "randm"}, "unknown sampler 'randm'.*Did you mean 'random'"),
        ({"near_best_pool": 3}, "--near_best_pool: an option of --sampler=near_best, received --sampler=random"),
        ({"sampler": "evolution", "near_best_fraction": 0.1}, "--near_best_fraction: an option of --sampler=near_best"),
        ({"sampler": "near_best", "near_best_fraction": 2.0}, "--sampler=near_best: fraction: expected"),
        ({"sampler": "evolution", "evolution_population": 2}, "sample_size: expected at most the population of 2"),
        ({"objectives": ("reward", "maddz")}, "unknown objective 'maddz'.*Did you mean 'madds'"),
        ({"objectives": ("madds", "reward")}, "'reward' first"),
        ({"objectives": ("reward", "madds")}, "its objectives are"),
        ({"baseline": ("app",)}, "unknown baseline 'app'.*Did you mean 'aspp'"),
        ({"early_stop": "meidan"}, "unknown early_stop 'meidan'.*Did you mean 'median'"),
        ({"import_study": "config.json"}, "config.json: cannot be read"),
        ({"storage": "nosuch://x"}, "nosuch"),
        ({"storage": "postgresql+psycopg2://me:secret@localhost:1/x"}, r"me:\*\*\*@localhost:1/x: "),
    ],
)
def test_what_does_not_fit_is_refused_by_name_before_anything_is_computed(searched, records, changes, message):
    settings = _settings(records, searched, **changes)
    with pytest.raises(InputError, match=message):
        dpc_search.check(settings, DPCSpace(settings.num_branches))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"proxy_steps": 3}, "task.proxy.steps: this run has 2, received 3"),
        ({"seed": 1}, "seed: this run has 0, received 1"),
        ({"backbone": "mobilenet"}, "unknown backbone 'mobilenet'"),
        ({"output_stride": 32}, "output_stride: .*8 or 16"),
        ({"backbone_weights": "none.h5"}, "none.h5: expected"),
    ],
)
def test_a_second_search_of_other_scores_is_refused_in_the_folder(searched, records, changes, message):
    with pytest.raises(InputError, match=message):
        dpc_search.search(_settings(records, searched, **changes), [])


def test_the_tool_refuses_in_one_line_and_writes_nothing(records, tmp_path):
    for argument, message in (
        ("--cache_size=33", "--cache_size: expected height,width, received 33"),
        ("--cache_size=0,33", "--cache_size: expected two sizes of 1 or more, received 0,33"),
        ("--proxy_crop_size=16,16", "--proxy_crop_size: expected k"),
        ("--proxy_learning_rate=-1", "--proxy_learning_rate: expected a number above 0"),
        ("--depth_multiplier=nan", "--depth_multiplier: expected a finite number"),
        ("--seed=4294967296", "flag --seed=4294967296: "),
        ("--sampler=near_bst", "Did you mean 'near_best'"),
    ):
        line = _refuse(records, tmp_path / "run", argument)
        assert line.startswith("error: ") and message in line
    assert not (tmp_path / "run").exists()


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
    space, seed = DPCSpace(2), 0
    fresh = study.open_study(None, "fresh", space, samplers.make_sampler("random", space, seed))
    expected = {study.ask(fresh, space)[1].digest for _ in range(len(rows))}
    assert {row.digest for row in rows} == expected
