"""Tests that hopeless trials are given up, and only those, and that a stopped search goes on as if it had not been."""

import statistics

import pytest
from optuna.trial import TrialState
from table_problem import WordSpace, all_scores, evaluate

from nas_seg.search import study as studies
from nas_seg.search.early_stop import MedianRule
from nas_seg.search.loop import run_search
from nas_seg.search.records import export_study, import_study
from nas_seg.search.samplers import make_sampler
from nas_seg.utils.errors import InputError

SPACE = WordSpace()
STEPS = (10, 20, 30)
RULE = MedianRule(min_trials=3, warmup_reports=1)


def open_words(sampler="random", objectives=("reward",)):
    return studies.open_study(None, "search", SPACE, make_sampler(sampler, SPACE, 0), objectives)


def train(genotype, *, seed, report=None):
    """The table's score; the loss on the way tells exactly how good the word is."""
    metrics = evaluate(genotype, seed=seed)
    for step in STEPS if report else ():
        report(step, 10.0 - metrics["reward"] - step / 100)
    return metrics


def run(study, num_trials, rule=RULE):
    return run_search(study, SPACE, train, num_trials=num_trials, seed=0, early_stop=rule)


def states(study):
    return [trial.state for trial in study.trials]


@pytest.mark.parametrize("objectives", [("reward",), ("reward", "madds")])
def test_a_trial_stops_when_its_loss_is_above_the_median_of_the_scored_ones(objectives):
    study = open_words(objectives=objectives)
    run(study, 12)
    scored = []
    for trial in study.trials:
        reward = evaluate(SPACE.from_params(trial.params), seed=0)["reward"]
        median = statistics.median(scored) if scored else None
        hopeless = len(scored) >= 3 and reward < median
        assert trial.state == (TrialState.PRUNED if hopeless else TrialState.COMPLETE)
        if not hopeless:
            scored.append(reward)
    assert len(scored) == 12 and TrialState.PRUNED in states(study)


def test_the_reason_the_step_and_the_counts_are_told():
    study = open_words()
    run(study, 8)
    stopped = [trial for trial in study.trials if trial.state == TrialState.PRUNED]
    # The first report is warm-up, so the second ends it.
    assert all(list(trial.intermediate_values) == [10, 20] for trial in stopped)
    reason = stopped[0].user_attrs[studies.REASON]
    assert reason.startswith("loss ") and "at step 20 above" in reason and "the median of 3 scored trials" in reason
    assert f"{len(stopped)} stopped early" in studies.describe(study)
    assert len(studies.leaderboard(study, SPACE)) == 8


def test_warm_up_longer_than_a_trial_stops_none():
    study = open_words()
    run(study, 12, MedianRule(min_trials=3, warmup_reports=3))
    assert states(study) == [TrialState.COMPLETE] * 12


def test_without_the_option_evaluators_are_not_asked_to_report():
    def plain(genotype, *, seed):
        return evaluate(genotype, seed=seed)

    study = open_words()
    run_search(study, SPACE, plain, num_trials=3, seed=0)
    assert not any(trial.intermediate_values for trial in study.trials)


def test_a_stopped_genotype_is_a_duplicate_when_it_is_drawn_again():
    study = open_words()
    run(study, 8)
    stopped = next(trial for trial in study.trials if trial.state == TrialState.PRUNED)
    study.enqueue_trial(stopped.params)
    run(study, 9)
    again = next(trial for trial in study.trials[stopped.number + 1 :] if trial.params == stopped.params)
    assert again.user_attrs[studies.DUPLICATE_OF] == stopped.number and not again.intermediate_values


@pytest.mark.parametrize("sampler", ["near_best", "tpe"])
def test_a_search_that_was_stopped_makes_the_same_decisions(sampler, tmp_path):
    whole, part = open_words(sampler), open_words(sampler)
    run(whole, 20)
    run(part, 7)
    export_study(part, tmp_path / "study.json")
    again = import_study(tmp_path / "study.json", None, "search", SPACE, make_sampler(sampler, SPACE, 0))
    run(again, 20)
    assert [(t.params, t.state, t.intermediate_values) for t in again.trials] == [
        (t.params, t.state, t.intermediate_values) for t in whole.trials
    ]


def test_a_search_in_which_every_draw_is_stopped_ends():
    best = all_scores().max()

    def falling(genotype, *, seed, report=None):
        falling.calls += 1
        report(1, falling.calls)
        return {"reward": best}

    falling.calls = 0
    study = open_words()
    rule = MedianRule(min_trials=1, warmup_reports=0)
    assert run_search(study, SPACE, falling, num_trials=2, seed=0, early_stop=rule) == "nearly all draws stopped early"
    assert len(study.trials) == 20


def test_bugs_in_reporting_are_not_swallowed():
    def broken(genotype, *, seed, report=None):
        raise InputError("cache.json is gone")

    with pytest.raises(InputError, match="cache.json is gone"):
        run_search(open_words(), SPACE, broken, num_trials=1, seed=0, early_stop=RULE)
