"""The networks of a gradient search trained at one budget: found, random, made by hand."""

import dataclasses
import json

import numpy as np
import pytest

from nas_seg import auto_deeplab_retrain
from nas_seg.auto_deeplab import retraining, search_run
from nas_seg.auto_deeplab.relaxation import num_edges
from nas_seg.auto_deeplab.search_config import SearchConfig
from nas_seg.auto_deeplab.space import random_genotype
from nas_seg.datasets import build_data, synthetic
from nas_seg.train_config import TrainConfig
from nas_seg.utils import config, runs
from nas_seg.utils.errors import InputError

SEARCH = SearchConfig(num_layers=2, num_blocks=1, epochs=2)
TRAIN = TrainConfig(
    train_batch_size=2,
    train_crop_size=(33, 33),
    training_number_of_steps=2,
    base_learning_rate=0.01,
    save_interval_steps=1,
    eval_interval_steps=2,
)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "streets"
    build_data.build(synthetic.make_source((4, 2, 2), (48, 65), 0), folder, num_shards=1)
    return folder


def make_search(run_dir, epochs=2):
    """The run folder of a search, of which so many epochs are finished."""
    runs.open_run(run_dir, {search_run.SECTION: config.to_json(SEARCH)} | runs.circumstances())
    for epoch in range(1, epochs + 1):
        logits = {"alpha": np.zeros((num_edges(1), 8)), "beta": np.zeros((2, 4, 3))}
        search_run.write_epoch(run_dir, epoch, random_genotype(100, 2, 1), logits)
        runs.append_metrics(run_dir, {"step": epoch, "epoch": epoch})
    return run_dir


@pytest.fixture
def settings(records, tmp_path):
    return auto_deeplab_retrain.Retrain(
        run_dir=str(make_search(tmp_path / "search")),
        dataset_dir=str(records),
        random_architectures=1,
        baseline=("mobilenet_v2_035",),
        filter_multiplier=1,
        test_split="test",
    )


def test_the_found_network_random_ones_and_baselines_get_one_budget(settings, capsys):
    found = auto_deeplab_retrain.retrain(settings, TRAIN)
    assert {one.name for one in found.outcomes} == {"searched", "random_0", "mobilenet_v2_035"} and not found.pending
    scores = [one.val_miou for one in found.outcomes]
    assert scores == sorted(scores, reverse=True) and all(0 <= one.test_miou <= 1 for one in found.outcomes)
    assert all(one.params > 1000 and one.madds > 1000 for one in found.outcomes)
    searched = next(one for one in found.outcomes if one.name == "searched")
    assert searched.summary == random_genotype(100, 2, 1).summary()
    assert config.load(settings.folder / retraining.FILE, retraining.Retraining) == found
    for one in found.outcomes:
        (training,) = one.trainings
        assert runs.read_section(training.run_dir, "train", TrainConfig) == TRAIN
        assert runs.read_metrics(training.run_dir)[-1]["step"] == 2
    retraining.show(found)
    assert "searched" in capsys.readouterr().out

    # More random networks: what is trained already is not trained again.
    weights = [runs.weights_path(one.trainings[0].run_dir, runs.LAST) for one in found.outcomes]
    before = [path.stat().st_mtime_ns for path in weights]
    more = auto_deeplab_retrain.retrain(dataclasses.replace(settings, random_architectures=2), TRAIN)
    assert [path.stat().st_mtime_ns for path in weights] == before
    assert {one.name for one in more.outcomes} - {one.name for one in found.outcomes} == {"random_1"}
    assert {one.name: one.val_miou for one in found.outcomes}.items() <= {
        one.name: one.val_miou for one in more.outcomes
    }.items()
    assert "mean of 2 random" in retraining.describe(more)

    with pytest.raises(
        InputError, match=r"training_number_of_steps: this run has 2, received 3; take another --output"
    ):
        auto_deeplab_retrain.check(settings, dataclasses.replace(TRAIN, training_number_of_steps=3))


def test_random_networks_are_of_the_searched_depth_and_differ(settings):
    candidates, _ = auto_deeplab_retrain.check(dataclasses.replace(settings, random_architectures=5), TRAIN)
    drawn = [one.genotype for one in candidates if one.group == retraining.RANDOM]
    assert len({genotype.digest for genotype in drawn}) > 1
    assert {(genotype.num_layers, genotype.num_blocks) for genotype in drawn} == {(2, 1)}
    assert [one.name for one in candidates[:2]] == ["searched", "mobilenet_v2_035"]


def test_an_unfinished_search_is_refused_unless_allowed(settings, tmp_path):
    young = dataclasses.replace(settings, run_dir=str(make_search(tmp_path / "young", epochs=1)))
    with pytest.raises(InputError, match="at epoch 1 of 2; --allow_unfinished"):
        auto_deeplab_retrain.retrain(young, TRAIN)
    candidates, _ = auto_deeplab_retrain.check(dataclasses.replace(young, allow_unfinished=True), TRAIN)
    assert candidates[0].genotype == random_genotype(100, 2, 1)
    assert not young.folder.exists()


@pytest.mark.parametrize(
    "changes, train_changes, message",
    [
        ({"test_split": "tset"}, {}, "unknown split 'tset'.*Did you mean 'test'"),
        ({}, {"val_split": ""}, "--val_split: expected the split to compare on"),
        ({"run_dir": "nowhere"}, {}, "nowhere: expected the run folder of tools/search_auto_deeplab.py"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(settings, changes, train_changes, message):
    with pytest.raises(InputError, match=message):
        auto_deeplab_retrain.retrain(
            dataclasses.replace(settings, **changes), dataclasses.replace(TRAIN, **train_changes)
        )


def test_an_unknown_baseline_is_refused_and_nothing_is_written(settings):
    with pytest.raises(InputError, match="unknown preset 'mobilnet_v2'.*Did you mean 'mobilenet_v2'"):
        auto_deeplab_retrain.retrain(dataclasses.replace(settings, baseline=("mobilnet_v2",)), TRAIN)
    assert not settings.folder.exists()


def test_another_network_than_before_is_refused(settings, tmp_path):
    settings.folder.mkdir()
    _, sections = auto_deeplab_retrain.check(settings, TRAIN)
    runs.open_run(settings.folder, sections | {"searched": "0" * 12} | runs.circumstances())
    with pytest.raises(InputError, match="searched: this run has '000000000000'"):
        auto_deeplab_retrain.check(settings, TRAIN)
    assert json.loads((settings.folder / runs.CONFIG).read_text())["random_seed"] == 0
