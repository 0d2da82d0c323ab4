"""tools/train.py, eval.py, vis.py and export_model.py, one after the other on drawn street scenes."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from case import REPOSITORY, refuse, succeed
from PIL import Image

import nas_seg
from nas_seg.datasets import build_data, synthetic
from nas_seg.datasets.descriptors import read_descriptor

TRAIN = ("--training_number_of_steps=2", "--train_batch_size=2", "--train_crop_size=33,33", "--batch_norm_decay=0.5")


@pytest.fixture(scope="module")
def dataset_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "streets"
    build_data.build(synthetic.make_source((4, 2), (48, 65), 0), folder, num_shards=1)
    return folder


@pytest.fixture(scope="module")
def trained(dataset_dir, tmp_path_factory):
    """A run folder and what the tool printed."""
    run_dir = tmp_path_factory.mktemp("runs") / "run"
    output = succeed(
        "train", f"--dataset_dir={dataset_dir}", f"--run_dir={run_dir}", "--preset=mobilenet_v2_035", *TRAIN
    )
    return run_dir, output


def test_train_writes_a_run_that_loads(trained):
    run_dir, output = trained
    config = json.loads((run_dir / "config.json").read_text())
    assert config["format_version"] == 1 and config["train"]["train_crop_size"] == [33, 33]
    assert "tools/train.py" in config["command"] and "keras" in config["versions"]
    assert "trained to step 2" in output and f"next: python tools/eval.py --run_dir={run_dir}" in output
    model = nas_seg.load(run_dir)
    assert model(np.zeros((1, 48, 65, 3), np.float32)).shape[:3] == (1, 48, 65)


def test_the_same_command_with_another_flag_is_refused_by_that_flag(trained, dataset_dir):
    run_dir, _ = trained
    before = sorted(run_dir.rglob("*"))
    message = refuse(
        "train",
        f"--dataset_dir={dataset_dir}",
        f"--run_dir={run_dir}",
        "--preset=mobilenet_v2_035",
        *TRAIN,
        "--momentum=0.5",
    )
    assert "config.json: train.momentum: this run has 0.9, received 0.5" in message
    assert sorted(run_dir.rglob("*")) == before


def test_eval_reads_everything_from_the_run(trained, dataset_dir):
    run_dir, _ = trained
    output = succeed("eval", f"--run_dir={run_dir}")
    report = json.loads((run_dir / "eval_val.json").read_text())
    names = read_descriptor(dataset_dir).class_names
    assert report["format_version"] == 1 and report["num_images"] == 2
    assert tuple(report["class_iou"]) == names and all(name in output for name in names)
    assert f"{100 * report['miou']:.2f}" in output
    last = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()][-1]
    assert report["miou"] == pytest.approx(last["val_miou"], abs=1e-12)


def test_vis_draws_as_many_panels_as_asked(trained):
    run_dir, _ = trained
    succeed("vis", f"--run_dir={run_dir}", "--num_images=1", "--also_save_raw_predictions")
    (panel,), (raw,) = (list((run_dir / "vis_val" / folder).glob("*.png")) for folder in (".", "raw"))
    assert Image.open(panel).size == (3 * 65 + 2 * 4, 48) and Image.open(raw).size == (65, 48)


@pytest.mark.parametrize("source", ["run", pytest.param("parts", marks=pytest.mark.slow)])
def test_export_agrees_with_the_network_of_the_run(trained, tmp_path, source):
    run_dir, _ = trained
    weights = run_dir / "ckpt" / "best.weights.h5"
    arguments = {
        "run": [f"--run_dir={run_dir}"],
        "parts": ["--preset=mobilenet_v2_035", "--num_classes=8", f"--checkpoint_path={weights}"],
    }
    succeed("export_model", f"--export_path={tmp_path / 'saved'}", *arguments[source])
    image = np.random.default_rng(0).integers(0, 256, (1, 40, 56, 3), np.uint8)
    predict = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    # An exported network pads to 32 k + 1 pixels with what its normalisation maps to 0.
    padded = np.pad(image - np.float32(127.5), ((0, 0), (0, 25), (0, 9), (0, 0))) + np.float32(127.5)
    expected = np.argmax(nas_seg.load(run_dir)(padded, training=False)[:, :40, :56], axis=-1)
    np.testing.assert_array_equal(predict(ImageTensor=tf.constant(image))["SemanticPredictions"], expected)


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("train", ["--run_dir=out"], "--dataset_dir: expected a folder"),
        ("train", ["--run_dir=out", "--dataset_dir=nowhere"], "nowhere: expected a folder of records"),
        (
            "train",
            ["--run_dir=out", "--dataset_dir=x", "--train_crop_size=513"],
            "--train_crop_size: expected height,width, received 513",
        ),
        (
            "train",
            ["--run_dir=out", "--dataset_dir=x", "--train_batch_size=0"],
            "--train_batch_size: expected 1 or more, received 0",
        ),
        ("train", ["--run_dir=out", "--dataset_dir={data}", "--val_split=vall"], "unknown split 'vall'"),
        ("train", ["--run_dir=out", "--dataset_dir={data}", "--preset=a", "--genotype=b"], "expected exactly one of"),
        ("eval", ["--run_dir={data}"], "not a run folder, expected {data}/config.json"),
        ("vis", ["--run_dir={data}"], "not a run folder, expected {data}/config.json"),
        ("export_model", ["--run_dir={data}", "--export_path=out"], "not a run folder, expected {data}/config.json"),
        ("export_model", ["--export_path=out"], "--run_dir: expected a run folder, or else --checkpoint_path"),
        (
            "export_model",
            ["--export_path=out", "--checkpoint_path=a.weights.h5"],
            "--num_classes: expected the channels",
        ),
        ("export_model", ["--export_path=out", "--run_dir=x", "--preset=y"], "--preset: the run folder says it"),
    ],
)
def test_a_wrong_flag_is_named_and_nothing_is_written(tool, arguments, message, dataset_dir):
    received = refuse(tool, *(argument.format(data=dataset_dir) for argument in arguments))
    assert message.format(data=dataset_dir) in received
    assert not (REPOSITORY / "out").exists()


def test_damaged_records_are_named_before_a_run_folder_is_made(dataset_dir, tmp_path):
    records = tmp_path / "records"
    shutil.copytree(dataset_dir, records)
    shard = next(records.glob("train-*"))
    shard.write_bytes(shard.read_bytes()[:-10])
    line = refuse("train", f"--dataset_dir={records}", f"--run_dir={tmp_path / 'run'}", "--preset=mobilenet_v2", *TRAIN)
    assert str(shard) in line and "truncated" in line
    assert not (tmp_path / "run").exists()


def test_folder_of_no_search_is_refused_as_a_genotype(dataset_dir, tmp_path):
    arguments = (f"--dataset_dir={dataset_dir}", f"--run_dir={tmp_path / 'run'}", "--val_split=")
    problem = refuse("train", *arguments, f"--genotype={dataset_dir}")
    assert f"{dataset_dir}: expected the run folder of tools/search_auto_deeplab.py" in problem
    problem = refuse("train", *arguments, "--preset=mobilenet_v2_035", "--drop_path_keep_prob=0.9")
    assert "drop_path_keep_prob: a network of kind 'deeplab' has no such field" in problem
    assert not (tmp_path / "run").exists()
