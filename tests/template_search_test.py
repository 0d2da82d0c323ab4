"""A search of template networks: study, limits, equal networks, rejection, teachers, and the tools that read it."""

import dataclasses
import itertools
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from case import REPOSITORY
from optuna.trial import TrialState

from nas_seg import rerank, space_search, template_search
from nas_seg.datasets import build_data, synthetic
from nas_seg.datasets.data_generator import view_dataset
from nas_seg.datasets.descriptors import read_descriptor
from nas_seg.plot import report
from nas_seg.search import samplers, study
from nas_seg.search.loop import run_search
from nas_seg.template import TemplateGenotype, TemplateSpace
from nas_seg.template.encoder import TemplateEncoder
from nas_seg.template.genotype import Template
from nas_seg.template.network import TemplateConfig
from nas_seg.template.proxy import STAGE0, STAGE1
from nas_seg.train_config import TrainConfig
from nas_seg.utils import config, runs
from nas_seg.utils.errors import InputError

_SMALL = {
    "num_trials": 2,
    "stage0_steps": 2,
    "stage1_steps": 1,
    "proxy_batch_size": 2,
    "agg_size": 4,
    "num_templates": 2,
    "num_layers": 2,
}
SPACE = TemplateSpace(num_templates=2, num_layers=2)
PRUNED, COMPLETE = TrialState.PRUNED, TrialState.COMPLETE


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "streets"
    build_data.build(synthetic.make_source((4, 2), (48, 65), 0), folder, num_shards=1)
    return folder


def _settings(records, run_dir, **changes):
    return template_search.TemplateSearch(**{"run_dir": str(run_dir), "dataset_dir": str(records)} | _SMALL | changes)


def _read(run_dir):
    opened = study.read_study(study.default_storage(run_dir), "search")
    return study.leaderboard(opened, SPACE), opened


@pytest.fixture(scope="module")
def searched(records, tmp_path_factory):
    """A search that was run in this process, and gone on with by another sampler."""
    run_dir = tmp_path_factory.mktemp("runs") / "search"
    for changes in ({"num_trials": 1}, {"sampler": "near_best", "near_best_fraction": 1.0}):
        template_search.search(_settings(records, run_dir, **changes), [])
    return run_dir


def test_search_writes_a_study_both_maps_and_the_best_network_and_goes_on(searched):
    rows, _ = _read(searched)
    assert len(rows) == 2 and TemplateGenotype.load(searched / "genotype.json") == rows[0].genotype
    sections = json.loads((searched / "config.json").read_text())
    assert sections["format_version"] == 1 and sections["task"]["proxy"]["stage0_steps"] == 2
    assert sections["search"] == {
        "sampler": "near_best",
        "sampler_options": {"fraction": 1.0},
        "objectives": ["reward"],
        "early_stop": "none",
        "max_params": None,
        "max_madds": None,
        "rejection_decay": 0.95,
    }
    # 48 x 65 pixels are brought to 33 x 65, whose maps have 9 x 17 and 5 x 9 positions.
    shapes = json.loads((searched / "cache" / "train" / "cache.json").read_text())
    assert shapes["features"] == [4, 5, 9, 32] and shapes["more"] == [[4, 9, 17, 24]]
    for row in rows:
        parts = [row.metrics[name] for name in ("miou", "mean_accuracy", "fw_iou")]
        assert row.reward == pytest.approx(np.cbrt(np.prod(parts))) == row.metrics[STAGE1]
        assert row.metrics["rejected"] == 0 and STAGE0 in row.metrics and 0 < row.metrics["trace_share"] < 1


def test_the_report_and_the_second_stage_read_such_a_search(searched, records, tmp_path, monkeypatch):
    from nas_seg import model, pipeline

    rows = _read(searched)[0]
    page = report.write_report(searched, output=tmp_path / "report.html").read_text()
    # As `TemplateProxyConfig.costs` counts them, encoder included.
    assert "parameters of the whole network" in page and "multiply-adds of the whole network" in page
    assert page.count("<svg") >= 4 and rows[0].summary.split(" | ")[1] in page
    built = []

    def train(network, train_config, dataset_dir, run_dir, strategy):
        built.append(network)
        assert model.build(network).output_shape[-1] == 8
        runs.write_metrics(run_dir, [{"step": 1, "loss": 1.0, "seconds": 1.0, "val_miou": 0.5}])
        config.write_bytes(runs.weights_path(run_dir, runs.LAST), b"")

    monkeypatch.setattr(pipeline, "train", train)
    settings = rerank.Rerank(str(searched), str(records), str(tmp_path / "rerank"), top_k=1, random_k=0)
    found = rerank.rerank(settings, TrainConfig(training_number_of_steps=1, train_crop_size=(33, 33)))
    assert found.candidates[0].val_miou == 0.5
    # As tools/train.py makes it of the genotype: on the encoder of the search.
    assert built[0].network == TemplateConfig(rows[0].genotype, TemplateEncoder("keras"))


def test_a_study_of_another_controller_is_refused_while_other_samplers_may_change(records, tmp_path):
    settings = _settings(records, tmp_path, sampler="policy", policy_mode="blind")
    opened = study.open_study(settings.url, "search", SPACE, samplers.make_sampler("random", SPACE, 0))
    opened.set_user_attr("proposer", {"sampler": "policy", "sampler_options": {"mode": "blind"}})
    template_search.check(settings, SPACE)
    for changes, words in (
        ({"policy_mode": "autoregressive"}, r"policy \(mode=blind\), received policy \(mode=autoregressive\)"),
        ({"sampler": "random", "policy_mode": None}, r"policy \(mode=blind\), received random"),
    ):
        with pytest.raises(InputError, match=rf"study 'search': its trials are drawn by {words}: take another study"):
            template_search.check(dataclasses.replace(settings, **changes), SPACE)
    opened.set_user_attr("proposer", {"sampler": "policy", "sampler_options": {}})
    template_search.check(dataclasses.replace(settings, policy_mode="autoregressive"), SPACE)  # The default.
    with pytest.raises(InputError, match=r"drawn by policy, received policy \(mode=blind\): take another study"):
        template_search.check(settings, SPACE)
    opened.set_user_attr("proposer", {"sampler": "random", "sampler_options": {}})
    template_search.check(_settings(records, tmp_path, sampler="evolution"), SPACE)
    with pytest.raises(InputError, match="drawn by random, received policy: take another study"):
        template_search.check(_settings(records, tmp_path, sampler="policy"), SPACE)


def _scored(genotype, **_):
    return {"reward": int(genotype.digest, 16) / 16**12, "params": 1.0}


def _made_up_search(settings, evaluate=_scored, num_trials=8):
    """A search with made-up scores; what was scored, and the study."""
    asked = []

    def evaluator(genotype, *, seed, scored=None):
        asked.append(genotype)
        return evaluate(genotype)

    opened = study.open_study(None, "search", SPACE, settings.make_sampler())
    run_search(opened, SPACE, settings.in_study(evaluator, opened), num_trials=num_trials, seed=0)
    return asked, opened


@pytest.mark.parametrize("sampler", ["random", "evolution", "tpe"])
def test_no_network_beyond_the_limits_is_scored_nor_counts(records, tmp_path, sampler):
    data = template_search.read_descriptor(records)
    free = _settings(records, tmp_path, sampler=sampler)
    rng = np.random.default_rng(1)
    limit = float(np.median([free.costs(data)(SPACE.sample(rng)).params for _ in range(50)]))
    options = {"evolution_population": 4, "evolution_sample_size": 2} if sampler == "evolution" else {}
    settings = dataclasses.replace(free, max_params=limit, **options)
    asked, opened = _made_up_search(settings)
    assert len(asked) == 8 and all(settings.costs(data)(genotype).params <= limit for genotype in asked)
    pruned = opened.get_trials(states=(PRUNED,))
    if sampler == "tpe":
        # Optuna's own samplers cannot be asked again: what they draw beyond a limit is given up, with the reason.
        reasons = [trial.user_attrs["reason"] for trial in pruned]
        assert reasons and all(f"params, --max_params={limit:.10g}" in reason for reason in reasons)
    else:
        assert not [trial for trial in pruned if "duplicate_of" not in trial.user_attrs]
    assert len(opened.get_trials(states=(COMPLETE,))) == 8


@pytest.mark.parametrize(
    "limits, message",
    [
        (
            {"max_params": 1000.0},
            r"--max_params: expected \d\d,\d{3} \(the least of 1,000 drawn networks\) or",
        ),
        ({"max_madds": 1e3}, r"--max_madds: expected .* received 1000"),
        ({"max_params": 1e9, "max_madds": 0.0}, "--max_madds: expected .* received 0"),
    ],
)
def test_limits_that_nothing_keeps_are_refused(records, tmp_path, limits, message):
    with pytest.raises(InputError, match=message):
        template_search.check(_settings(records, tmp_path / "run", **limits), SPACE)


def test_a_network_written_otherwise_is_scored_once(records, tmp_path):
    settings = _settings(records, tmp_path)
    one = SPACE.from_params(SPACE.to_params(SPACE.sample(np.random.default_rng(5))))
    order = (1, 0)
    layers = tuple(dataclasses.replace(layer, template=order.index(layer.template)) for layer in one.layers)
    other = TemplateGenotype(tuple(one.templates[i] for i in order), layers)
    assert other != one and other.digest == one.digest
    opened = study.open_study(None, "search", SPACE, settings.make_sampler())
    for genotype in (one, other):
        opened.enqueue_trial(SPACE.to_params(genotype))
    asked = []
    evaluate = settings.in_study(lambda genotype, **_: asked.append(genotype) or _scored(genotype), opened)
    run_search(opened, SPACE, evaluate, num_trials=2, seed=0)
    assert len(asked) == 2 and asked[0] == one and other not in asked
    twin = opened.get_trials(states=(PRUNED,))[0]
    assert twin.user_attrs["duplicate_of"] == 0
    assert "1 duplicate" in study.describe(opened) and "stopped" not in study.describe(opened)


def test_the_order_of_a_templates_ops_matters_where_it_is_applied_again_alone():
    def network(repeats, swapped):
        pairs = [(0, "sep_conv_3x3"), (1, "skip_connect")][:: -1 if swapped else 1]
        (first, op1), (second, op2) = pairs
        layer = dataclasses.replace(SPACE.sample(np.random.default_rng(0)).layers[0], input1=first, input2=second)
        layer = dataclasses.replace(layer, template=0, repeats=repeats)
        return TemplateGenotype((Template(op1, op2, "cat"),), (layer,)).digest

    assert network(1, False) == network(1, True)
    assert network(2, False) != network(2, True)


def test_a_rejected_trial_is_scored_and_the_verdict_is_that_of_the_studys_trials(records, tmp_path):
    settings = _settings(records, tmp_path, rejection_decay=0.9)
    histories = []

    def evaluate(genotype, *, seed, scored):
        rejection, metrics = scored()
        assert rejection.decay == 0.9
        histories.append([one[STAGE0] for one in metrics])
        score = _scored(genotype)["reward"]
        return {"reward": score + 0.1, STAGE0: score, STAGE1: score + 0.1}

    opened = study.open_study(f"sqlite:///{tmp_path}/study.db", "search", SPACE, settings.make_sampler())
    for num_trials in (3, 5):  # Gone on with: the history is the study's.
        run_search(opened, SPACE, settings.in_study(evaluate, opened), num_trials=num_trials, seed=0)
    scores = [t.user_attrs["metrics"][STAGE0] for t in opened.get_trials(states=(COMPLETE,))]
    assert histories == [scores[:i] for i in range(5)]


def _teacher(path, classes):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(classes, 1, strides=2)(inputs))
    model.export(path, verbose=False) if path.suffix == "" else model.save(path)
    return model


@pytest.mark.parametrize("name", ["teacher.keras", "teacher"])
def test_logits_of_a_teacher_are_those_of_its_network_at_stride_4(tmp_path, name):
    from nas_seg.template_task import load_teacher

    model = _teacher(tmp_path / name, 8)
    teacher = load_teacher(str(tmp_path / name), 8, (33, 65))
    image = np.random.default_rng(0).uniform(0, 255, (1, 33, 65, 3)).astype(np.float32)
    # Every second position of a map of stride 2 lies on one of stride 4.
    np.testing.assert_allclose(teacher.logits(image), model(image)[:, ::2, ::2], rtol=1e-4, atol=1e-3)
    with pytest.raises(
        InputError, match=f"--teacher=.*{name}: expected logits of the data set's 7 classes, received 8"
    ):
        load_teacher(str(tmp_path / name), 7, (33, 65))


@pytest.mark.parametrize("name", ["teacher.keras", "teacher.h5"])
def test_a_teacher_that_brings_code_is_refused(tmp_path, name):
    from nas_seg.template_task import load_teacher

    inputs = keras.Input((None, None, 3))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2)(inputs)).save(tmp_path / name)
    with pytest.raises(InputError, match=rf"--teacher=.*{name}: expected a run folder.*Lambda"):
        load_teacher(str(tmp_path / name), 3, (33, 65))


def test_a_search_learns_from_a_teacher_and_one_without_is_of_other_conditions(records, tmp_path):
    _teacher(tmp_path / "teacher.keras", 8)
    settings = _settings(records, tmp_path / "run", teacher=str(tmp_path / "teacher.keras"), num_trials=1)
    template_search.search(settings, [])
    shapes = json.loads((tmp_path / "run" / "cache" / "train-to-train-on" / "cache.json").read_text())
    assert shapes["more"] == [[4, 9, 17, 24], [4, 9, 17, 8]]
    with pytest.raises(InputError, match="task.teacher: this run has .*teacher.keras', received None"):
        template_search.search(dataclasses.replace(settings, teacher=None), [])


@pytest.mark.parametrize(
    ("num_trials", "minutes", "reason"),
    [(2, 600.0, "done"), (3, 600.0, "the workers ended"), (3, 0.0, "time budget"), (3, None, "the workers ended")],
)
def test_several_workers_end_for_the_reason_that_is_told(searched, records, monkeypatch, num_trials, minutes, reason):
    monkeypatch.setattr(space_search.workers, "run_workers", lambda command, number, show: None)
    settings = _settings(records, searched, num_trials=num_trials, time_budget_minutes=minutes, workers=2)
    assert space_search._lead(settings, []) == reason


def test_one_split_is_trained_on_with_its_views_and_a_teacher_and_scored_on_whole_pictures(records, tmp_path):
    _teacher(tmp_path / "teacher.keras", 8)
    changes = {"val_split": "train", "cache_views": 2, "teacher": str(tmp_path / "teacher.keras")}
    evaluator = _evaluator(_settings(records, tmp_path / "run", **changes))
    assert len(evaluator.train) == 8 and len(evaluator.train.more) == 2
    assert len(evaluator.val) == 4 and len(evaluator.val.more) == 1
    np.testing.assert_array_equal(evaluator.train.features[:4], evaluator.val.features)


def test_the_second_stage_scales_pictures_of_the_cached_size(records, tmp_path):
    changes = {"cache_size": (25, 33), "proxy_crop_size": (25, 33), "min_scale_factor": 1.0, "max_scale_factor": 1.0}
    settings = _settings(records, tmp_path / "run", **changes)
    cached = view_dataset(records, "train", size=(25, 33))
    known = [picture["image"] for picture in cached.as_numpy_iterator()]
    for images, _ in itertools.islice(_evaluator(settings)._encoder.pictures.train(0), 3):
        for image in np.asarray(images):
            differences = [np.abs(whole - one).max() for whole in known for one in (image, image[:, ::-1])]
            # float32 weights of up to 255.
            assert min(differences) < 1e-3


def _evaluator(settings):
    task = settings.make_task(read_descriptor(settings.dataset_dir))
    return task.open(settings.run_dir, task.load_backbone())[0]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"sampler": "polcy"}, "unknown sampler 'polcy'.*Did you mean 'policy'"),
        ({"policy_mode": "blind"}, "--policy_mode: an option of --sampler=policy, received --sampler=random"),
        ({"sampler": "policy", "policy_mode": "blnd"}, "--sampler=policy: unknown mode 'blnd'.*Did you mean 'blind'"),
        ({"num_layers": 3}, "study of another space"),
        ({"objectives": ("reward", "latency")}, "unknown objective 'latency'"),
        ({"baseline": ("arch2",)}, "unknown baseline 'arch2'.*Did you mean 'arch"),
        ({"rejection_decay": 1.0}, "rejection_decay: expected a number from 0 to below 1"),
        ({"stage0_steps": 0, "stage1_steps": 0}, "stage0_steps, stage1_steps: expected a step in one of them"),
        ({"sampler": "policy", "policy_epochs": 2}, "epochs: an option of the algorithm 'ppo', received 'reinforce'"),
        ({"proxy_batch_size": 5}, "--proxy_batch_size: expected at most the 4 pictures of split 'train', received 5"),
        ({"cache_size": (32, 48)}, r"--cache_size: expected sizes of k \* 8 \+ 1, received 32,48"),
        ({"cache_size": (1, 17)}, r"--cache_size: expected sizes of k \* 8 \+ 1, received 1,17"),
        ({"proxy_crop_size": (16, 17)}, r"--proxy_crop_size: expected k \* 8 \+ 1, at most the pictures' 33,65"),
        ({"polyak_decay": 2.0}, "^polyak_decay: expected a number in"),
        ({"teacher": "fitting", "stage0_steps": 0}, "--teacher: expected --stage0_steps above 0"),
        ({"teacher": "nowhere"}, "--teacher: expected a run folder, a .keras file or a SavedModel, found no nowhere"),
        ({"teacher": "trained"}, "expected logits of the data set's 8 classes, received 19"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_computed(records, tmp_path, monkeypatch, changes, message):
    monkeypatch.chdir(tmp_path)
    for name, classes in (("trained", 19), ("fitting", 8)):
        config.write_json(f"{name}/config.json", {"format_version": 1, "model": {"num_classes": classes}})
    study.open_study(f"sqlite:///{tmp_path}/study.db", "search", SPACE, samplers.make_sampler("random", SPACE, 0))
    settings = _settings(records, tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        template_search.check(settings, settings.space)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"encoder": "kears"}, "encoder: unknown variant 'kears'.*Did you mean 'keras'"),
        ({"teacher": str(REPOSITORY / "README.md")}, "README.md: expected a run folder, a .keras file or a SavedModel"),
    ],
)
def test_what_only_the_search_itself_can_tell_is_refused(records, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        template_search.search(_settings(records, tmp_path / "run", **changes), [])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flag", "message"),
    [("--max_params=1000", "--max_params: expected"), ("--seed=4294967296", "flag --seed=4294967296: ")],
)
def test_the_tool_refuses_in_one_line_with_code_2(records, tmp_path, flag, message):
    flags = (f"--dataset_dir={records}", f"--run_dir={tmp_path / 'run'}", flag)
    command = [sys.executable, "tools/search_template.py", *flags]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {message}") and not (tmp_path / "run").exists()
