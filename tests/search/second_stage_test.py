"""Which genotypes are trained in full, and what their scores say of the proxy: by hand, without any training."""

import dataclasses

import pytest
from table_problem import Word

from nas_seg.search import second_stage
from nas_seg.search.second_stage import Candidate, Reranking, Training, make_result
from nas_seg.search.study import Row
from nas_seg.utils import config


def row(place):
    return Row(place, 100 - place, 1.0 / place, Word("a"), "a", f"digest{place}", {"reward": 1.0 / place}, 1.0)


ROWS = [row(place) for place in range(1, 21)]


def result(name, rank, reward, *scores, failed=None, tests=None):
    candidate = Candidate(name, rank, reward, 2e3, 3e6, Word(name))
    tests = tests or (None,) * len(scores)
    pairs = zip(scores, tests, strict=True)
    trainings = [Training(f"runs/{name}_seed{i}", i, score, test, 1.5) for i, (score, test) in enumerate(pairs)]
    return make_result(candidate, trainings, failed)


def test_the_best_and_a_random_part_of_the_others_are_chosen():
    chosen = second_stage.choose(ROWS, 3, 4, seed=0)
    ranks = [row.rank for row in chosen]
    assert ranks[:3] == [1, 2, 3] and len(set(ranks)) == 7 and ranks == sorted(ranks)
    assert second_stage.choose(ROWS, 3, 4, seed=0) == chosen != second_stage.choose(ROWS, 3, 4, seed=1)
    # Every other row has its chance: 4 of 17, so that none in 200 draws is one in 1e23.
    drawn = {row.rank for seed in range(200) for row in second_stage.choose(ROWS, 3, 4, seed)[3:]}
    assert drawn == set(range(4, 21))


@pytest.mark.parametrize("top_k, random_k, expected", [(5, 50, 20), (50, 5, 20), (0, 2, 2), (4, 0, 4)])
def test_as_many_are_chosen_as_there_are(top_k, random_k, expected):
    chosen = second_stage.choose(ROWS, top_k, random_k, seed=0)
    assert len({row.rank for row in chosen}) == len(chosen) == expected


def test_a_score_is_the_mean_of_the_trainings_and_failing_is_no_score():
    scored = result("a", 1, 0.5, 0.2, 0.4, tests=(0.1, 0.2))
    assert (scored.val_miou, scored.test_miou, scored.seconds) == (pytest.approx(0.3), pytest.approx(0.15), 3.0)
    assert result("a", 1, 0.5, 0.2, 0.4).test_miou is None
    failed = result("a", 1, 0.5, 0.9, failed="seed 1: no number")
    assert failed.val_miou is None and len(failed.trainings) == 1


def test_rank_correlation_is_that_of_the_hand_without_baselines_and_failures():
    results = [
        result("a", 1, 0.50, 0.40),
        result("b", 2, 0.45, 0.44),
        result("c", 3, 0.40, 0.42),
        result("d", 9, 0.30, 0.39),
        result("e", 4, 0.38, failed="seed 0: diverged"),
        result("aspp", None, 0.20, 0.80),
    ]
    found = second_stage.correlate(results)
    # Full ranks of a, b, c, d: 3, 1, 2, 4; rank differences 2, 1, 1, 0; 1 - 6 * 6 / (4 * 15) = 0.4.
    assert found.rho == pytest.approx(0.4) and found.pairs == 4
    # Four pairs say next to nothing.
    assert -1 <= found.low < 0 and found.high == 1
    assert second_stage.describe(found).startswith("Spearman's rho between proxy and full score: 0.40, 95% interval -")
    assert second_stage.describe(found).endswith("to 1.00 (4 cells)")
    ranked = second_stage.rank(results)
    assert [one.name for one in ranked] == ["aspp", "b", "c", "a", "d", "e"]
    assert second_stage.winner(ranked).name == "b"
    assert second_stage.winner(ranked[-1:]) is None


@pytest.mark.parametrize(
    "scores, message",
    [
        ([], "not computed, 0 cells with a full score where 3 are needed"),
        ([0.1], "not computed, 1 cell with"),
        ([0.1, 0.2], "not computed, 2 cells with"),
        ([0.1, 0.1, 0.1], "undefined, all rewards or all full scores of 3 cells are equal"),
    ],
)
def test_too_little_to_correlate_is_said_so(scores, message):
    found = second_stage.correlate([result(f"w{i}", i + 1, 1.0 / (i + 1), score) for i, score in enumerate(scores)])
    assert (found.rho, found.low, found.high) == (None, None, None)
    assert message in second_stage.describe(found)


def test_the_table_shows_both_ranks_and_the_file_reads_back(tmp_path, capsys):
    results = [
        result("a", 1, 0.5, 0.4, tests=(0.31,)),
        result("b", 7, 0.3, 0.6, tests=(0.29,)),
        result("conv", None, 0.2, 0.5, tests=(0.3,)),
        result("c", 2, 0.4, failed="seed 0: diverged"),
    ]
    facts = {"steps": 30, "dataset_dir": "/data", "train_split": "train", "val_split": "val", "test_split": "test"}
    how = {"versions": {"python": "3"}, "machine": "m", "command": "c"}
    found = Reranking(second_stage.rank(results), 0, second_stage.correlate(results), **facts, **how)
    config.save(tmp_path / "rerank.json", found)
    assert config.load(tmp_path / "rerank.json", Reranking) == found
    second_stage.show(found)
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "│" in line]
    cells = [[word for word in line if word != "│"] for line in lines]
    assert [line[:4] for line in cells] == [
        ["1", "0.6000", "0.2900", "7"],
        ["2", "0.5000", "0.3000", "0.2000"],
        ["3", "0.4000", "0.3100", "1"],
        ["failed", "failed", "2", "0.4000"],
    ]
    second_stage.show(dataclasses.replace(found, test_split=None))
    assert "test mIoU" not in capsys.readouterr().out
