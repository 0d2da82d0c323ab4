"""tools/compare_cells.py: paired by seed, goes on where it stopped, refuses what does not fit."""

import json
import subprocess
import sys

import pytest
from case import REPOSITORY

from nas_seg import dpc_compare, dpc_search
from nas_seg.datasets import build_data, synthetic
from nas_seg.dpc.baselines import BASELINES
from nas_seg.dpc.genotype import DPCGenotype
from nas_seg.utils import config, runs
from nas_seg.utils.errors import InputError


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The run folder of a small search on drawn streets."""
    folder = tmp_path_factory.mktemp("compare")
    build_data.build(synthetic.make_source((4, 2, 2), (48, 65), 0), folder / "streets", num_shards=1)
    settings = dpc_search.DPCSearch(
        run_dir=str(folder / "search"),
        dataset_dir=str(folder / "streets"),
        num_trials=2,
        proxy_steps=2,
        proxy_batch_size=2,
        filters=4,
        depth_multiplier=0.35,
        num_branches=2,
    )
    dpc_search.search(settings, [])
    return folder / "search"


def _comparison(searched, output, cells=("conv1x1", "aspp"), **changes):
    given = {
        "run_dir": str(searched),
        "output_dir": str(output),
        "cells": {name: BASELINES[name] for name in cells},
        "reference": "aspp",
        "num_seeds": 2,
        "splits": ("val", "test"),
    }
    return dpc_compare.Comparison(**given | changes)


def _row(cell, seed, score, **more):
    genotype = BASELINES[cell]
    facts = {"cell": cell, "digest": genotype.digest, "summary": genotype.summary(), "seed": seed}
    return facts | {"params": 1.0, "madds": 2.0, "seconds": 1.0, "scores": {"val": {"reward": score}}} | more


def test_differences_are_paired_by_seed(tmp_path):
    comparison = _comparison(tmp_path, tmp_path, splits=("val",), num_seeds=3)
    scores = {"conv1x1": (0.30, 0.40, 0.50), "aspp": (0.31, 0.42, 0.53)}
    rows = [_row(cell, seed, score) for cell, own in scores.items() for seed, score in enumerate(own)]
    conv, aspp = dpc_compare.summarize(comparison, rows)["cells"]
    assert aspp["splits"]["val"]["difference"] is None
    assert conv["splits"]["val"]["score"]["mean"] == pytest.approx(0.4)
    # -0.01, -0.02, -0.03: mean -0.02, sd 0.01, and t of two degrees of freedom is 4.303.
    difference = conv["splits"]["val"]["difference"]
    assert difference["mean"] == pytest.approx(-0.02) and difference["sd"] == pytest.approx(0.01)
    assert difference["low"] == pytest.approx(-0.02 - 4.303 * 0.01 / 3**0.5, abs=1e-5)


def test_seeds_of_a_failed_training_are_left_out_of_the_pairs(tmp_path):
    comparison = _comparison(tmp_path, tmp_path, splits=("val",), num_seeds=2)
    rows = [_row("conv1x1", 0, 0.3), _row("conv1x1", 1, 0.4), _row("aspp", 1, 0.5)]
    failed = _row("aspp", 0, 0.0, failed="diverged: loss nan at step 1 of 2")
    del failed["scores"]
    conv, aspp = dpc_compare.summarize(comparison, [*rows, failed])["cells"]
    assert conv["splits"]["val"]["difference"]["n"] == 1
    assert conv["splits"]["val"]["difference"]["mean"] == pytest.approx(-0.1)
    assert aspp["failed"] == ["diverged: loss nan at step 1 of 2"]


def test_seeds_before_the_first_one_do_not_count(tmp_path):
    comparison = _comparison(tmp_path, tmp_path, splits=("val",), num_seeds=2, first_seed=1)
    rows = [_row(cell, seed, seed / 10) for cell in comparison.cells for seed in range(4)]
    summary = dpc_compare.summarize(comparison, rows)
    assert summary["seeds"] == [1, 2]
    assert [entry["splits"]["val"]["score"]["mean"] for entry in summary["cells"]] == [pytest.approx(0.15)] * 2


def test_agreement_of_seeds_is_the_mean_rank_correlation(tmp_path):
    comparison = _comparison(tmp_path, tmp_path, ("conv1x1", "aspp", "top1"), splits=("val",), num_seeds=2)
    rows = [_row(cell, 0, score) for cell, score in zip(comparison.cells, (0.1, 0.2, 0.3), strict=True)]
    rows += [_row(cell, 1, score) for cell, score in zip(comparison.cells, (0.1, 0.3, 0.2), strict=True)]
    # Ranks 1 2 3 against 1 3 2: 1 - 6 * 2 / (3 * 8).
    assert dpc_compare.summarize(comparison, rows)["agreement_of_seeds"]["val"] == pytest.approx(0.5)


def test_a_stopped_comparison_goes_on_and_takes_more_seeds(searched, tmp_path):
    first = dpc_compare.compare(_comparison(searched, tmp_path / "out", num_seeds=1))
    rows = runs.read_metrics(tmp_path / "out")
    assert [(row["cell"], row["seed"]) for row in rows] == [("conv1x1", 0), ("aspp", 0)]
    with (tmp_path / "out" / runs.METRICS).open("a") as file:
        file.write('{"cell": "conv1x1", "se')  # A kill in the middle of a line.
    second = dpc_compare.compare(_comparison(searched, tmp_path / "out"))
    again = runs.read_metrics(tmp_path / "out")
    assert again[:2] == rows and [(row["cell"], row["seed"]) for row in again[2:]] == [("conv1x1", 1), ("aspp", 1)]
    assert first["cells"][0]["splits"]["test"]["score"]["n"] == 1
    assert second["cells"][0]["splits"]["test"]["score"]["n"] == 2
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["reference"] == "aspp"


def test_the_seed_of_the_search_gives_the_score_of_the_search(searched, tmp_path):
    """A comparison measures what the search measured."""
    from nas_seg.dpc_task import read_task

    task = read_task(searched)
    evaluator, _ = task.open(searched, task.load_backbone())
    comparison = _comparison(searched, tmp_path / "out", ("aspp",), num_seeds=1, splits=("val",))
    (entry,) = dpc_compare.compare(comparison)["cells"]
    assert entry["splits"]["val"]["score"]["mean"] == evaluator(BASELINES["aspp"], seed=task.seed)["reward"]


def test_best_cells_are_those_of_the_leaderboard(searched):
    best = dpc_compare.best_cells(str(searched), 1)
    assert list(best) == [DPCGenotype.load(searched / "genotype.json").digest]
    assert len(dpc_compare.best_cells(str(searched), 99)) == 2
    assert dpc_compare.best_cells(str(searched), 0) == {}


def test_folder_of_another_task_is_refused(searched, tmp_path):
    dpc_compare.compare(_comparison(searched, tmp_path / "out", ("aspp",), num_seeds=1))
    with pytest.raises(InputError, match=r"task\.proxy\.steps: this run has 2, received 3"):
        dpc_compare.compare(_comparison(searched, tmp_path / "out", ("aspp",), overrides={"steps": 3}))


def test_tool_names_what_is_wrong_in_one_line(searched, tmp_path):
    def refuse(*arguments):
        command = [sys.executable, "tools/compare_cells.py", *arguments]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        return done.stderr.splitlines()[-1]

    assert "expected a genotype file or one of conv1x1, aspp, top1" in refuse(f"--run_dir={searched}", "--cells=top2")
    assert "--reference: " in refuse(f"--run_dir={searched}", "--cells=top1")
    assert "--cells: expected one or more" in refuse(f"--run_dir={searched}")
    assert "--splits: expected one or more" in refuse(f"--run_dir={searched}", "--cells=aspp", "--splits=")
    output = f"--output_dir={tmp_path / 'out'}"
    slow = refuse(f"--run_dir={searched}", "--cells=aspp", output, "--proxy_learning_rate=-1")
    assert "--proxy_learning_rate: expected a number above 0" in slow and not (tmp_path / "out").exists()
    config.write_json(tmp_path / "template/config.json", {"format_version": 1, "task": {"teacher": None}})
    assert "found one of template networks" in refuse(f"--run_dir={tmp_path / 'template'}", "--cells=aspp", output)
    other = tmp_path / "other.json"
    config.save(other, BASELINES["aspp"])
    assert "not a run folder" in refuse(f"--run_dir={tmp_path}", f"--cells=aspp,{other}")


def test_a_file_is_called_by_its_name_and_two_of_one_name_are_refused(tmp_path):
    path = tmp_path / "found.json"
    config.save(path, BASELINES["top1"])
    assert dpc_compare.read_cells([str(path), "aspp"]) == {"found": BASELINES["top1"], "aspp": BASELINES["aspp"]}
    with pytest.raises(InputError, match="two of 'aspp'"):
        dpc_compare.read_cells(["aspp", "aspp"])
