"""Tests tools/leaderboard.py on a small study of cells."""

import json

import pytest
from case import run_tool

from nas_seg.dpc import DPCGenotype, DPCSpace, count
from nas_seg.search import study as studies
from nas_seg.search.loop import run_search
from nas_seg.search.records import import_study
from nas_seg.search.samplers import RandomSampler

SPACE = DPCSpace(num_branches=3)


def evaluate(genotype, *, seed):
    cost = count(genotype, 320, 22, 30)
    return {"reward": 1.0 / cost.params, "params": cost.params, "madds": cost.madds}


@pytest.fixture(name="run_dir", scope="module")
def fixture_run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    sampler = RandomSampler(SPACE, 0)
    study = studies.open_study(f"sqlite:///{folder}/study.db", "search", SPACE, sampler)
    run_search(study, SPACE, evaluate, num_trials=4, seed=0)
    return folder


def test_table_export_and_saved_genotype_agree_with_the_study(run_dir, tmp_path):
    done = run_tool("leaderboard",
        f"--run_dir={run_dir}", "--top_k=3", "--rank=2",
        f"--save_genotype={tmp_path}/cell.json", f"--export={tmp_path}/study.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = studies.leaderboard(studies.read_study(f"sqlite:///{run_dir}/study.db", "search"), SPACE)
    assert [row.summary in done.stdout for row in rows] == [True, True, True, False]
    assert f"{rows[0].params / 1e3:.2f} K" in done.stdout and "4 complete" in done.stdout
    assert DPCGenotype.load(tmp_path / "cell.json") == rows[1].genotype
    again = import_study(tmp_path / "study.json", None, "copy", SPACE, RandomSampler(SPACE, 0))
    assert [row.digest for row in studies.leaderboard(again, SPACE)] == [row.digest for row in rows]
    assert json.loads((tmp_path / "study.json").read_text())["kind"] == "study"


def test_missing_study_or_folder_or_rank_is_one_line_and_exit_code_two(run_dir, tmp_path):
    for arguments, expected in (
        ([f"--run_dir={tmp_path}"], "study.db does not exist"),
        ([f"--run_dir={run_dir}", "--study_name=serch"], "Did you mean 'search'"),
        ([f"--run_dir={run_dir}", "--rank=9", f"--save_genotype={tmp_path}/cell.json"], "--rank: expected at most 4"),
    ):
        done = run_tool("leaderboard", *arguments)
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and expected in done.stderr
    assert not list(tmp_path.iterdir())
