"""Tests that baselines are scored once, kept with the study, and out of the search's way."""

import pytest
from table_problem import Word, WordSpace, evaluate

from nas_seg.search import study as studies
from nas_seg.search.baselines import Baseline, baselines, score_baselines
from nas_seg.search.evaluator import TrialFailed
from nas_seg.search.loop import run_search
from nas_seg.search.records import export_study, import_study
from nas_seg.search.samplers import make_sampler
from nas_seg.search.storage import turn
from nas_seg.search.table import show_study

SPACE = WordSpace()
# One of them is not in the space: words there have six letters.
WORDS = {"short": Word("ab"), "best": Word("ffffff")}


def open_words(storage=None, objectives=("reward",)):
    return studies.open_study(storage, "search", SPACE, make_sampler("near_best", SPACE, 0), objectives)


class Scorer:
    def __init__(self, failing=()):
        self.words, self.failing = [], failing

    def __call__(self, genotype, *, seed):
        self.words.append(genotype.letters)
        if genotype.letters in self.failing:
            raise TrialFailed("diverged")
        return {"reward": 100.0, "madds": 7.0} if len(genotype.letters) < 6 else evaluate(genotype, seed=seed)


def test_baselines_are_scored_once_also_after_a_resume(tmp_path):
    storage = f"sqlite:///{tmp_path}/study.db"
    scorer = Scorer()
    for names in (["short"], ["short", "best"], ["best"]):
        score_baselines(open_words(storage), {name: WORDS[name] for name in names}, scorer, seed=0)
    assert scorer.words == ["ab", "ffffff"]
    found = baselines(open_words(storage))
    assert [(b.name, b.summary, b.madds, b.params) for b in found] == [
        ("short", "ab", 7.0, None), ("best", "ffffff", 6.0, None),
    ]  # fmt: skip


def test_baselines_do_not_count_and_change_no_proposal():
    plain, measured = open_words(), open_words()
    score_baselines(measured, WORDS, Scorer(), seed=0)
    for study in (plain, measured):
        run_search(study, SPACE, evaluate, num_trials=15, seed=0)
    assert [t.params for t in measured.trials] == [t.params for t in plain.trials]
    assert len(studies.leaderboard(measured, SPACE)) == 15


def test_a_baseline_that_fails_is_said_and_has_its_turn_in_the_next_run(capsys):
    study = open_words()
    score_baselines(study, WORDS, Scorer(failing=("ab",)), seed=0)
    assert "baseline short failed: diverged" in capsys.readouterr().out
    assert [b.name for b in baselines(study)] == ["best"]
    score_baselines(study, WORDS, Scorer(), seed=0)
    assert [b.name for b in baselines(study)] == ["short", "best"]


def test_a_second_process_leaves_them_to_the_first(tmp_path):
    study, scorer = open_words(f"sqlite:///{tmp_path}/study.db"), Scorer()
    with turn(study, "baselines"):
        score_baselines(study, WORDS, scorer, seed=0)
    assert scorer.words == []


def test_export_and_import_keep_them(tmp_path):
    study = open_words()
    run_search(study, SPACE, evaluate, num_trials=2, seed=0)
    score_baselines(study, WORDS, Scorer(), seed=0)
    export_study(study, tmp_path / "study.json")
    again = import_study(tmp_path / "study.json", None, "copy", SPACE, make_sampler("random", SPACE, 0))
    assert baselines(again) == baselines(study) != []
    assert all(isinstance(baseline, Baseline) for baseline in baselines(again))


@pytest.mark.parametrize("objectives", [("reward",), ("reward", "madds")])
def test_the_leaderboard_has_them_by_name_and_marks_the_pareto_set(objectives, capsys):
    study = open_words(objectives=objectives)
    score_baselines(study, WORDS, Scorer(), seed=0)
    run_search(study, SPACE, evaluate, num_trials=12, seed=0)
    capsys.readouterr()
    rows = show_study(study, SPACE, "the title", top_k=3)
    output = capsys.readouterr().out
    lines = output.splitlines()
    # The baseline of reward 100 stands above the best trial, without a rank.
    assert lines[0].strip() == "the title"
    first = next(i for i, line in enumerate(lines) if "100.0000" in line)
    assert "short" in lines[first] and rows[0].summary in lines[first + 1]
    front = studies.pareto_front(study)
    dominated = [
        any(b.reward >= a.reward and b.madds <= a.madds and (b.reward, b.madds) != (a.reward, a.madds) for b in rows)
        for a in rows
    ]
    expected = {row.trial for row, worse in zip(rows, dominated, strict=True) if not worse}
    assert front == (expected if len(objectives) == 2 else set())
    assert (f"Pareto set of reward, madds: {len(front)} of 12 trials" in output) == (len(objectives) == 2)
    assert ("1*" in output) == (len(objectives) == 2)
