"""The second stage: through the tool with a kill in its middle, and with trainings whose scores a table tells."""

import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest
from case import REPOSITORY, run_tool

from nas_seg import rerank as stage
from nas_seg.datasets import build_data, synthetic
from nas_seg.datasets.descriptors import read_descriptor
from nas_seg.dpc import DPCGenotype, DPCSpace, count
from nas_seg.dpc.baselines import BASELINES
from nas_seg.search import samplers, study
from nas_seg.search.baselines import score_baselines
from nas_seg.search.loop import run_search
from nas_seg.search.second_stage import Reranking
from nas_seg.train_config import TrainConfig
from nas_seg.utils import config, runs
from nas_seg.utils.errors import InputError

SPACE = DPCSpace(num_branches=2)
TASK = {
    "backbone": {"name": "mobilenet_v2", "output_stride": 16, "depth_multiplier": 0.35, "divisible_by": None},
    "backbone_weights": None,
}
TRAIN = {"training_number_of_steps": 2, "train_batch_size": 2, "train_crop_size": (33, 33), "batch_norm_decay": 0.5}
CLASSES = ("Sky", "Road", "Pole")


def proxy(genotype, *, seed, classes=CLASSES):
    """A made-up score of a cell."""
    cost, ious = count(genotype, 112, 3, 4), {f"iou/{name}": 0.5 for name in classes}
    return {"reward": int(genotype.digest, 16) / 16**12, "params": cost.params, "madds": cost.madds} | ious


def open_study(run_dir):
    sampler = samplers.make_sampler("random", SPACE, 0)
    return study.open_study(f"sqlite:///{run_dir}/study.db", "search", SPACE, sampler)


def make_search(run_dir, num_trials=8, classes=CLASSES, baselines=("conv1x1", "aspp"), task=TASK):
    """The run folder of a search."""
    runs.open_run(run_dir, {"task": task})
    opened = open_study(run_dir)
    score_baselines(opened, {name: BASELINES[name] for name in baselines}, proxy, seed=0)
    if num_trials:
        evaluate = lambda genotype, *, seed: proxy(genotype, seed=seed, classes=classes)  # noqa: E731
        run_search(opened, SPACE, evaluate, num_trials=num_trials, seed=0)
    return run_dir


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "streets"
    build_data.build(synthetic.make_source((4, 2, 2), (48, 65), 0), folder, num_shards=1)
    return folder


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search that no test writes to."""
    return make_search(tmp_path_factory.mktemp("runs") / "search")


@pytest.fixture
def search(searched, tmp_path):
    """A search of the test's own."""
    return pathlib.Path(shutil.copytree(searched, tmp_path / "search"))


def settings(search, records, **changes):
    defaults = {"top_k": 3, "random_k": 2, "baseline": ("aspp",)}
    return stage.Rerank(run_dir=str(search), dataset_dir=str(records), **defaults | changes)


@pytest.fixture
def trained(monkeypatch):
    """Trainings that take no time. `trained.scores` tells mIoU by (name, seed), `trained.folders` what was trained."""
    from nas_seg import pipeline

    class Fake:
        def __init__(self):
            self.folders, self.networks, self.scores = [], {}, {}

        def __call__(self, network, train_config, dataset_dir, run_dir, strategy):
            run_dir = pathlib.Path(run_dir)
            self.folders.append(run_dir.name)
            self.networks[run_dir.name] = network
            score = self.scores.get(run_dir.name, int(network.network.genotype.digest, 16) / 16**12)
            if isinstance(score, BaseException):
                raise score
            sections = {"model": network, "train": train_config, "dataset_dir": os.path.abspath(dataset_dir)}
            runs.open_run(run_dir, config.to_json(sections))
            rows = [{"step": 1, "loss": 2.0, "seconds": 0.25}, {"step": 1, "val_miou": 0.9}]
            rows += [{"step": 2, "loss": 1.0, "seconds": 0.5}, {"step": 2, "val_miou": score}]
            runs.write_metrics(run_dir, rows)
            config.write_bytes(runs.weights_path(run_dir, runs.LAST), b"")

    fake = Fake()
    monkeypatch.setattr(pipeline, "train", fake)
    return fake


def test_a_killed_reranking_goes_on_with_its_choice_and_trains_nothing_twice(search, records):
    flags = (f"--run_dir={search}", f"--dataset_dir={records}", "--top_k=1", "--random_k=1",
             "--training_number_of_steps=2", "--train_batch_size=2", "--train_crop_size=33,33",
             "--batch_norm_decay=0.5")  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "tools/rerank.py", *flags], cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    folder, deadline = search / "rerank", time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None and len(list(folder.glob("*_seed0/config.json"))) < 2:
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.stderr.read()
    candidates = runs.read_section(folder, "candidates", dict[str, int])
    (first,) = folder.glob("*_seed0/ckpt/last.weights.h5")
    before = first.stat().st_mtime_ns, first.read_bytes()
    # A better cell that is found meanwhile changes no choice.
    run_search(open_study(search), SPACE, lambda genotype, *, seed: {"reward": 2.0}, num_trials=10, seed=0)

    done = run_tool("rerank", *flags)
    assert done.returncode == 0, done.stderr
    assert (first.stat().st_mtime_ns, first.read_bytes()) == before
    assert (
        done.stdout.count("trained before") == 1 and f"[1/2] {first.parent.parent.name}: rank 1 by proxy" in done.stdout
    )
    found = config.load(folder / "rerank.json", Reranking)
    assert {result.name: result.rank for result in found.candidates} == candidates and found.pending == 0
    scores = [result.val_miou for result in found.candidates]
    assert scores == sorted(scores, reverse=True)
    assert "proxy and full score: not computed, 2 cells with a full score where 3 are needed" in done.stdout
    best = found.candidates[0]
    assert DPCGenotype.load(folder / "genotype.json").digest == best.name
    assert f"next: python tools/eval.py --run_dir={folder / best.name}_seed0" in done.stdout
    # A run folder as tools/train.py makes them: the score is that of its last row.
    run_dir = folder / f"{best.name}_seed0"
    assert runs.read_metrics(run_dir)[-1]["val_miou"] == best.val_miou
    model = runs.read_config(run_dir)["model"]
    # The fields that the search names; a backbone has more, which are at their defaults.
    assert model["num_classes"] == 8
    assert model["network"]["backbone"].items() >= (TASK["backbone"] | {"depth_multiplier": 0.35}).items()
    assert model["network"]["genotype"] == config.to_json(DPCGenotype.load(folder / "genotypes" / f"{best.name}.json"))


def test_the_full_score_ranks_and_rho_is_that_of_the_hand(search, records, trained):
    from nas_seg.train import Diverged

    chosen = list(stage.check(settings(search, records), TrainConfig(**TRAIN))[1])
    names = [candidate.name for candidate in chosen]
    assert [candidate.rank for candidate in chosen[:3]] == [1, 2, 3] and names[-1] == "aspp" and len(names) == 6
    # Rank 2 by proxy is the best in full, rank 1 the third; one of the five diverges.
    for name, score in zip(names, (0.3, 0.5, 0.4, Diverged("no number at step 7"), 0.1, 0.9), strict=True):
        trained.scores[f"{name}_seed0"] = score
    found = stage.rerank(settings(search, records), TrainConfig(**TRAIN))
    assert [result.name for result in found.candidates] == [names[i] for i in (5, 1, 2, 0, 4, 3)]
    # Proxy ranks 1 2 3 4, full ranks 3 1 2 4: 1 - 6 * (4 + 1 + 1) / (4 * 15).
    assert found.correlation.rho == pytest.approx(0.4) and found.correlation.pairs == 4
    assert found.candidates[-1].failed == "seed 0: no number at step 7" and found.candidates[-1].val_miou is None
    assert found.candidates[1].seconds == 0.75
    folder = search / "rerank"
    assert config.load(folder / "rerank.json", Reranking) == found
    assert DPCGenotype.load(folder / "genotype.json").digest == names[1]
    assert trained.networks["aspp_seed0"].network.genotype == BASELINES["aspp"]
    assert trained.networks["aspp_seed0"].network.backbone.depth_multiplier == 0.35


def test_what_is_trained_stays_while_more_seeds_and_baselines_are_asked_for(search, records, trained):
    train_config, few = TrainConfig(**TRAIN, seed=4), settings(search, records, top_k=1, random_k=1)
    second = stage.check(few, train_config)[1][1]
    trained.scores[f"{second.name}_seed4"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        stage.rerank(few, train_config)
    partial = config.load(search / "rerank" / "rerank.json", Reranking)
    assert len(partial.candidates) == 1 and partial.pending == 2
    trained.scores.clear()
    stage.rerank(few, train_config)
    once = set(trained.folders)
    assert len(trained.folders) == 4 and len(once) == 3
    trained.folders.clear()
    more = dataclasses.replace(few, seeds=2, baseline=("aspp", "conv1x1"))
    found = stage.rerank(more, train_config)
    added = [folder.replace("_seed4", "_seed5") for folder in once] + ["conv1x1_seed4", "conv1x1_seed5"]
    assert sorted(trained.folders) == sorted(added)
    assert all([training.seed for training in result.trainings] == [4, 5] for result in found.candidates)


def test_the_choice_depends_on_the_seed_and_not_on_what_is_found_later(search, records, trained):
    few = settings(search, records, top_k=1, random_k=1, baseline=())
    before = stage.check(few, TrainConfig(**TRAIN))
    stage.rerank(few, TrainConfig(**TRAIN))
    run_search(open_study(search), SPACE, lambda genotype, *, seed: {"reward": 2.0}, num_trials=10, seed=0)
    assert stage.check(few, TrainConfig(**TRAIN)) == before
    fresh = dataclasses.replace(few, output_dir="none")
    drawn = {stage.check(fresh, TrainConfig(**TRAIN, seed=seed))[1][1].name for seed in range(6)}
    assert len(drawn) > 1


def test_the_last_weights_are_scored_on_the_test_split_once_and_do_not_rank(search, records, trained, monkeypatch):
    from nas_seg import pipeline

    asked = []

    def evaluate(run_dir, dataset_dir, split, weights):
        asked.append((run_dir.name, dataset_dir, split, weights))
        # The better on val, the worse on test.
        return {"miou": 1 - runs.read_metrics(run_dir)[-1]["val_miou"]}

    monkeypatch.setattr(pipeline, "evaluate", evaluate)
    few = settings(search, records, top_k=2, random_k=0, baseline=())
    assert [one.test_miou for one in stage.rerank(few, TrainConfig(**TRAIN)).candidates] == [None, None]
    tested = dataclasses.replace(few, test_split="test")
    for _ in range(2):
        found = stage.rerank(tested, TrainConfig(**TRAIN))
    assert sorted(asked) == sorted((folder, str(records), "test", "last") for folder in trained.folders)
    assert [one.test_miou for one in found.candidates] == [1 - one.val_miou for one in found.candidates]
    assert found.candidates[0].val_miou > found.candidates[1].val_miou and found.test_split == "test"


def test_fewer_trials_than_asked_are_all_trained_and_nothing_is_correlated(records, tmp_path, trained, capsys):
    search = make_search(tmp_path / "small", num_trials=2)
    found = stage.rerank(settings(search, records, top_k=50, random_k=50, baseline=()), TrainConfig(**TRAIN))
    assert len(found.candidates) == 2 and found.correlation.rho is None and found.correlation.pairs == 2
    assert "[2/2]" in capsys.readouterr().out


def test_a_second_process_and_a_stage_in_which_all_fails_end_in_a_line(search, records, trained, monkeypatch):
    import tensorflow as tf

    with runs.lock(search / "rerank"), pytest.raises(InputError, match="another process is training in this folder"):
        stage.rerank(settings(search, records), TrainConfig(**TRAIN))
    error = tf.errors.ResourceExhaustedError(None, None, "failed to allocate memory")
    trained.scores = dict.fromkeys([f"{c.name}_seed0" for c in stage.check(settings(search, records),
                                                                          TrainConfig(**TRAIN))[1]], error)  # fmt: skip
    with pytest.raises(InputError, match="every candidate failed; .*: seed 0: out of memory"):
        stage.rerank(settings(search, records), TrainConfig(**TRAIN))
    assert not (search / "rerank" / "genotype.json").exists()


@pytest.mark.parametrize(
    "changes, train, message",
    [
        ({"run_dir": "nowhere"}, {}, "the folder nowhere does not exist"),
        ({"study_name": "serch"}, {}, "unknown study 'serch'.*Did you mean 'search'"),
        ({"dataset_dir": "nowhere"}, {}, "nowhere: expected a folder of records"),
        ({"test_split": "tset"}, {}, "unknown split 'tset'.*Did you mean 'test'"),
        ({}, {"val_split": ""}, "--val_split: expected the split to rank by"),
        ({"baseline": ("app",)}, {}, "unknown baseline of this search 'app'.*Did you mean 'aspp'"),
        ({"baseline": ("top1",)}, {}, "unknown baseline of this search 'top1': expected one of aspp, conv1x1"),
        ({"top_k": 0, "random_k": 0, "baseline": ()}, {}, "--top_k, --random_k, --baseline: expected at least one"),
    ],
)
def test_what_does_not_fit_is_refused_by_name_and_nothing_is_written(searched, records, changes, train, message):
    with pytest.raises(InputError, match=message):
        stage.check(dataclasses.replace(settings(searched, records), **changes), TrainConfig(**TRAIN | train))
    assert not (searched / "rerank").exists()


@pytest.mark.parametrize(
    "how, message",
    [
        ({"num_trials": 0}, "study 'search': no trial is scored yet"),
        (
            {"classes": ("Sky", "SignSymbol")},
            "streets: unknown class of the search 'SignSymbol': expected one of Building",
        ),
        ({"baselines": ()}, "--baseline=aspp: the search scored none"),
        ({"task": {}}, "config.json: task.backbone: expected an object, received None"),
        ({"task": TASK | {"backbone_weights": "none.h5"}}, "none.h5: expected MobileNetV2 weights"),
    ],
)
def test_a_search_that_does_not_fit_is_refused_and_nothing_is_written(records, tmp_path, trained, how, message):
    search = make_search(tmp_path / "search", **{"num_trials": 1} | how)
    with pytest.raises(InputError, match=message):
        stage.rerank(settings(search, records), TrainConfig(**TRAIN))
    assert not (search / "rerank").exists()


@pytest.mark.parametrize(
    "changes, train, message",
    [
        ({}, {"momentum": 0.5}, "train.momentum: this run has 0.9, received 0.5; take another --output_dir"),
        ({}, {"seed": 1}, "train.seed: this run has 0, received 1"),
        ({"top_k": 4}, {}, "choice.top_k: this run has 1, received 4"),
    ],
)
def test_another_training_or_choice_in_the_folder_is_refused(search, records, trained, changes, train, message):
    stage.rerank(settings(search, records, top_k=1, random_k=0, baseline=()), TrainConfig(**TRAIN))
    with pytest.raises(InputError, match=f"rerank/config.json: {message}"):
        stage.check(settings(search, records, **{"top_k": 1, "random_k": 0} | changes), TrainConfig(**TRAIN | train))


def test_a_folder_of_before_a_field_of_the_training_was_there_is_gone_on_with(search, records, trained):
    few = settings(search, records, top_k=1, random_k=0, baseline=())
    stage.rerank(few, TrainConfig(**TRAIN))
    path = search / "rerank" / "config.json"
    data = config.read_json(path)
    del data["train"]["polyak_decay"]
    config.write_json(path, data)
    stage.check(few, TrainConfig(**TRAIN))
    with pytest.raises(InputError, match="train.polyak_decay"):
        stage.check(few, TrainConfig(**TRAIN | {"polyak_decay": 0.9}))


def test_a_folder_of_another_kind_and_a_lost_trial_are_refused(search, records, trained, tmp_path):
    with pytest.raises(InputError, match="section 'candidates' is missing"):
        stage.check(settings(search, records, output_dir=str(search)), TrainConfig(**TRAIN))
    few = settings(search, records, output_dir=str(tmp_path / "out"), top_k=1, random_k=0, baseline=())
    stage.rerank(few, TrainConfig(**TRAIN))
    other = make_search(tmp_path / "other", num_trials=1, baselines=())
    with pytest.raises(InputError, match="out/config.json: candidates: [0-9a-f]{12} is not in the study"):
        stage.check(dataclasses.replace(few, run_dir=str(other)), TrainConfig(**TRAIN))


def test_the_tool_refuses_in_one_line_with_code_2(search, records):
    for arguments, message in (
        ([f"--run_dir={search}"], "--run_dir and --dataset_dir: expected two folders"),
        ([f"--run_dir={records}", f"--dataset_dir={records}"], "study.db does not exist"),
        ([f"--run_dir={search}", f"--dataset_dir={records}", "--train_crop_size=33"], "--train_crop_size: expected"),
    ):
        done = run_tool("rerank", *arguments)
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and message in done.stderr
    assert read_descriptor(records).num_classes == 8 and not (search / "rerank").exists()
