"""The benchmark counts what it says it counts, and times real trials."""

import json
import subprocess
import sys

import pytest
from case import REPOSITORY

from nas_seg import dpc_search
from nas_seg.benchmark import proxy, tables, timing
from nas_seg.datasets import build_data, synthetic
from nas_seg.dpc.baselines import BASELINES
from nas_seg.dpc.genotype import count
from nas_seg.dpc_task import read_task


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The run folder of a small search on drawn streets."""
    folder = tmp_path_factory.mktemp("benchmark")
    build_data.build(synthetic.make_source((4, 2), (48, 65), 0), folder / "streets", num_shards=1)
    settings = dpc_search.DPCSearch(
        run_dir=str(folder / "search"),
        dataset_dir=str(folder / "streets"),
        num_trials=1,
        proxy_steps=3,
        proxy_batch_size=2,
        filters=4,
        depth_multiplier=0.35,
        proxy_crop_size=(33, 49),
    )
    dpc_search.search(settings, [])
    return folder / "search"


def test_operations_of_a_step_are_six_times_the_multiply_adds_of_the_cells_own_count(searched):
    task = read_task(searched)
    evaluator, _ = task.open(searched, task.load_backbone())
    result = proxy.time_steps(evaluator, {"top1": BASELINES["top1"]}, repetitions=1)
    # Branches, the projection of their 5 x 4 channels to 4, logits to the classes; 2 pictures of 3 x 4 positions.
    positions = 3 * 4
    madds = count(BASELINES["top1"], 112, 3, 4, 4).madds + positions * (20 * 4 + 4 * evaluator.num_classes)
    for row in result["rows"]:
        assert row.gflop == pytest.approx(6 * 2 * madds / 1e9)
        speed = row.gflop * 1e9 / row.timing.median
        assert row.share_of_gemm == pytest.approx(speed * result["gemm"].median / timing.GEMM_FLOPS)
    assert {row.dtype_policy for row in result["rows"]} == {"float32", "mixed_bfloat16"}


def test_a_trial_is_the_sum_of_its_parts():
    row = proxy.TrialRow("any", step_seconds=0.5, trace_seconds=2.0, val_seconds=3.0, steps=11)
    assert row.seconds == 2.0 + 10 * 0.5 + 3.0
    assert row.per_hour == 3600 / 10 and row.trace_share == pytest.approx(0.15)


def test_tool_times_a_search_and_writes_what_it_prints(searched, tmp_path):
    path = tmp_path / "figures.json"
    command = ("--proxy", f"--run_dir={searched}", "--repetitions=1", "--uncached_steps=1", "--worker_trials=1")
    done = subprocess.run(
        [sys.executable, "tools/benchmark.py", *command, "--workers=2", f"--output={path}"],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads(path.read_text())
    names = [row["name"] for row in figures["trials"]]
    assert names == ["cached features", "frozen backbone in each step", "end to end"]
    assert all(row["seconds"] > 0 for row in figures["trials"])
    (row,) = figures["workers"]
    assert (row["workers"], row["trials"]) == (2, 2) and row["trial_seconds"] <= row["wall_seconds"]
    assert "of GEMM" in done.stdout and "trials/h" in done.stdout
    assert not list(searched.glob("study.db-*")), "the search that is timed has a folder of its own"


def test_json_has_the_derived_figures():
    row = proxy.WorkersRow(workers=2, trials=8, trial_seconds=60.0, wall_seconds=70.0)
    assert tables.to_json(row)["per_hour"] == 480.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected one of --proxy, --model"),
        (["--model", "--preset=mobilenet_v3"], "mobilenet_v2"),
        (["--model", "--size=513"], "--size"),
        (["--proxy"], "--run_dir"),
        (["--proxy", "--run_dir=nowhere"], "not a run folder"),
        (["--proxy", "--run_dir=nowhere", "--workers=0"], "--workers: expected whole numbers above 0"),
    ],
)
def test_tool_names_the_flag_that_is_wrong(arguments, message):
    done = subprocess.run(
        [sys.executable, "tools/benchmark.py", *arguments], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 2 and message in done.stderr.splitlines()[-1], done.stderr
