"""Tests that a study written to a file is the same study when read again, and that files are read strictly."""

import json

import pytest
from optuna.trial import TrialState
from table_problem import WordSpace, evaluate

from nas_seg.search import study as studies
from nas_seg.search.evaluator import TrialFailed
from nas_seg.search.loop import run_search
from nas_seg.search.records import export_study, import_study
from nas_seg.search.samplers import NearBest
from nas_seg.utils.errors import InputError

SPACE = WordSpace()
SAMPLER = NearBest(SPACE, 0)


def open_words(**arguments):
    return studies.open_study(None, "search", SPACE, SAMPLER, **arguments)


def every_seventh_fails(genotype, *, seed):
    if sum(map(ord, genotype.letters)) % 7 == 0:
        raise TrialFailed("diverged")
    return evaluate(genotype, seed=seed)


def comparable(study):
    keys = ("metrics", "seconds", "reason", "duplicate_of", "draw", "retry_of", "deaths")
    return [
        (t.state, t.params, t.values, {k: t.user_attrs[k] for k in keys if k in t.user_attrs}, t.datetime_complete)
        for t in study.trials
    ]


def test_export_and_import_keep_every_trial(tmp_path):
    study = open_words(conditions={"steps": 3})
    run_search(study, SPACE, every_seventh_fails, num_trials=30, seed=0)
    export_study(study, tmp_path / "study.json")
    assert json.loads((tmp_path / "study.json").read_text())["format_version"] == 1
    again = import_study(tmp_path / "study.json", f"sqlite:///{tmp_path}/study.db", "copy", SPACE, SAMPLER)
    assert comparable(again) == comparable(study)
    assert again.user_attrs[studies.FACTS] == study.user_attrs[studies.FACTS]


def test_an_imported_search_goes_on_as_the_first_would_have(tmp_path):
    whole, part = open_words(), open_words()
    run_search(whole, SPACE, every_seventh_fails, num_trials=30, seed=0)
    run_search(part, SPACE, every_seventh_fails, num_trials=12, seed=0)
    studies.ask(part, SPACE)  # This one is running while the file is written.
    export_study(part, tmp_path / "study.json")
    again = import_study(tmp_path / "study.json", None, "search", SPACE, SAMPLER)
    assert again.trials[-1].state == TrialState.WAITING
    run_search(again, SPACE, every_seventh_fails, num_trials=30, seed=0)
    assert [t.params for t in again.trials] == [t.params for t in whole.trials]


@pytest.fixture(name="written")
def fixture_written(tmp_path):
    study = open_words()
    run_search(study, SPACE, evaluate, num_trials=2, seed=0)
    export_study(study, tmp_path / "study.json")
    return tmp_path / "study.json"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: d.update(format_version=7), "expected format_version 1, received 7"),
        (lambda d: d.update(kind="dpc"), "expected kind 'study'"),
        (lambda d: d.update(space_digest="0" * 12), "study of another space"),
        (lambda d: d["trials"][1].update(state="DONE"), r"trials\[1\]: unknown state 'DONE'"),
        (lambda d: d["trials"][1].update(rewrd=1), r"trials\[1\]: unknown field 'rewrd'"),
        (lambda d: d["trials"][1].update(metrics=None), r"trials\[1\]: metrics: expected for COMPLETE"),
        (lambda d: d["trials"][1]["metrics"].pop("reward"), r"trials\[1\]: a COMPLETE trial needs"),
        (lambda d: d["trials"][1]["metrics"].update(reward="high"), r"trials\[1\]\.metrics\.reward: expected float"),
        (lambda d: d["trials"][1]["params"].pop("letter0"), r"trials\[1\]: a COMPLETE trial needs"),
        (lambda d: d["trials"][1]["params"].update(letter0="z"), r"params\.letter0: unknown choice 'z'"),
        (lambda d: d["trials"][1]["params"].update(letter9="a"), r"params: unknown decision 'letter9'"),
        (lambda d: d["trials"][1].update(started="today"), "started: expected an ISO date"),
    ],
)
def test_a_wrong_file_is_refused_before_a_study_is_made(tmp_path, written, change, expected):
    data = json.loads(written.read_text())
    change(data)
    written.write_text(json.dumps(data))
    with pytest.raises(InputError, match=expected) as caught:
        import_study(written, f"sqlite:///{tmp_path}/study.db", "search", SPACE, SAMPLER)
    assert str(written) in str(caught.value)
    assert not (tmp_path / "study.db").exists()


def test_a_file_of_other_objectives_or_conditions_is_refused_before_a_study_is_made(tmp_path):
    study = open_words(conditions={"steps": 3})
    run_search(study, SPACE, evaluate, num_trials=1, seed=0)
    export_study(study, tmp_path / "study.json")
    place = (tmp_path / "study.json", f"sqlite:///{tmp_path}/study.db", "search", SPACE, SAMPLER)
    with pytest.raises(InputError, match=r"study.json: its objectives are \['reward'\]"):
        import_study(*place, objectives=("reward", "madds"))
    with pytest.raises(InputError, match="study.json: its scores are of steps=3, received steps=4"):
        import_study(*place, objectives=("reward",), conditions={"steps": 4})
    assert not (tmp_path / "study.db").exists()
    import_study(*place, objectives=("reward",), conditions={"steps": 3})


def test_a_study_is_imported_once_and_goes_on_with_the_same_command(tmp_path, written):
    storage = f"sqlite:///{tmp_path}/study.db"
    for num_trials in (3, 4):
        study = import_study(written, storage, "search", SPACE, SAMPLER)
        run_search(study, SPACE, evaluate, num_trials=num_trials, seed=0)
    assert len(study.trials) == 4


def test_a_study_with_trials_takes_no_others(tmp_path, written):
    storage = f"sqlite:///{tmp_path}/study.db"
    run_search(studies.open_study(storage, "search", SPACE, SAMPLER), SPACE, evaluate, num_trials=1, seed=0)
    with pytest.raises(InputError, match="has trials already"):
        import_study(written, storage, "search", SPACE, SAMPLER)
