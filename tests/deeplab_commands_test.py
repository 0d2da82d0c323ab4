"""DeepLab's commands with another interpreter: its flags train, score, draw, export; what is wrong is named."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
from case import REPOSITORY, run_tool, succeed
from PIL import Image

from nas_seg import convert
from nas_seg.datasets import build_data, synthetic
from nas_seg.utils.colormap import pascal_colormap

NETWORK = ("--model_variant=mobilenet_v2", "--depth_multiplier=0.35", "--divisible_by=8", "--output_stride=16",
           "--add_image_level_feature=false", "--aspp_convs_filters=16")  # fmt: skip


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "streets"
    build_data.build(synthetic.make_source((4, 2), (48, 65), 0), folder, num_shards=1)
    return folder


@pytest.fixture(scope="module")
def logdir(records, tmp_path_factory):
    """What DeepLab's train.py would call its train_logdir, after two steps."""
    folder = tmp_path_factory.mktemp("runs") / "train"
    output = succeed(
        "train", "--logtostderr", "--train_split=train", *NETWORK, "--train_crop_size=33", "--train_crop_size=49",
        "--train_batch_size=2",
        "--training_number_of_steps=2", "--fine_tune_batch_norm=true", f"--train_logdir={folder}", "--num_clones=1",
        f"--dataset_dir={records}", "--label_weights=auto", "--upsample_logits=false", "--learning_policy=step",
    )  # fmt: skip
    assert "note: --num_clones is ignored: several GPUs are --strategy=mirrored" in output
    return folder


def scores(folder):
    return json.loads((folder / "eval_val.json").read_text())


def test_an_old_script_scores_draws_and_exports_what_it_trained(logdir, records, tmp_path):
    train = json.loads((logdir / "config.json").read_text())["train"]
    assert len(train["label_weights"]) == 8 and train["train_crop_size"] == [33, 49]
    common = ("--logtostderr", *NETWORK, f"--dataset_dir={records}", f"--checkpoint_dir={logdir}")
    succeed("eval", *common, "--eval_split=val", "--eval_crop_size=65,65", f"--eval_logdir={tmp_path / 'eval'}",
            "--max_number_of_evaluations=1")  # fmt: skip
    assert scores(tmp_path / "eval")["inference"]["crop_size"] == [65, 65]
    succeed("vis", *common, "--vis_split=val", "--vis_crop_size=65,65", f"--vis_logdir={tmp_path / 'vis'}",
            "--max_number_of_iterations=1", "--also_save_raw_predictions", "--colormap_type=pascal")  # fmt: skip
    panel, raw = (Image.open(sorted((tmp_path / "vis" / sub).glob("*.png"))[0]) for sub in (".", "raw"))
    shown, classes = np.asarray(panel)[:, -65:].astype(int), np.asarray(raw)
    image = np.asarray(panel)[:, :65]
    expected = np.rint(0.4 * image + 0.6 * np.array(pascal_colormap(8))[classes])
    np.testing.assert_array_equal(shown, expected)
    succeed("export_model", *NETWORK, f"--checkpoint_path={logdir}/model.ckpt-2", "--num_classes=8",
            f"--export_path={tmp_path / 'frozen_inference_graph.pb'}", "--crop_size=65", "--crop_size=65",
            "--inference_scales=1.0", "--semantic_probabilities=plain")  # fmt: skip
    predict = tf.saved_model.load(str(tmp_path / "frozen_inference_graph.pb")).signatures["serving_default"]
    outputs = predict(ImageTensor=tf.constant(image[None].astype(np.uint8)))
    np.testing.assert_array_equal(outputs["SemanticPredictions"][0], classes)
    np.testing.assert_array_equal(np.argmax(outputs["SemanticProbabilities"], axis=-1)[0], classes)
    np.testing.assert_allclose(np.sum(outputs["SemanticProbabilities"], axis=-1), 1, atol=1e-5)


def test_a_tf1_checkpoint_scores_as_the_run_that_it_came_from(logdir, records, tmp_path):
    convert.to_tf1(logdir, tmp_path / "tf1" / "model.ckpt-2")
    (tmp_path / "tf1" / "checkpoint").write_text('model_checkpoint_path: "/gone/model.ckpt-2"\n')
    looks = ("--eval_scales=0.5", "--eval_scales=1.0", "--add_flipped_images", f"--dataset_dir={records}")
    succeed("eval", f"--run_dir={logdir}", f"--eval_logdir={tmp_path / 'run'}", *looks)
    output = succeed("eval", f"--checkpoint_dir={tmp_path / 'tf1'}", f"--eval_logdir={tmp_path / 'old'}", *looks,
                     *NETWORK, "--eval_batch_size=2")  # fmt: skip
    assert f"{tmp_path / 'tf1' / 'model.ckpt-2'} on val" in output
    before, after = scores(tmp_path / "run"), scores(tmp_path / "old")
    assert before["inference"]["eval_scales"] == [0.5, 1.0] and before["class_iou"] == after["class_iou"]


def test_pictures_of_several_sizes_go_one_by_one_whatever_the_batch(logdir, tmp_path):
    one, two = (synthetic.make_source((1, 2), size, 0) for size in ((48, 65), (33, 65)))
    both = dataclasses.replace(one, splits={"val": [*one.splits["val"], *two.splits["val"]]})
    build_data.build(both, tmp_path / "records")
    for size in (1, 3):
        output = succeed("eval", f"--checkpoint_dir={logdir}", f"--dataset_dir={tmp_path / 'records'}",
                         f"--eval_logdir={tmp_path / str(size)}", f"--eval_batch_size={size}")  # fmt: skip
        assert ("note: --eval_batch_size: the pictures have several sizes" in output) == (size > 1)
    assert scores(tmp_path / "1")["class_iou"] == scores(tmp_path / "3")["class_iou"]
    assert scores(tmp_path / "3")["num_images"] == 4


_PRESET = "--preset=mobilenet_v2_035"


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("train", ["--traning_number_of_steps=5"], "'traning_number_of_steps'. Did you mean: training_number_of_steps"),
        ("eval", ["--eval_scals=1"], "Did you mean: eval_scales"),
        ("train", ["--num_clones=4"], "--num_clones: expected 1, received 4; several GPUs are --strategy=mirrored"),
        ("train", ["--save_interval_secs=60"], "--save_interval_secs: expected 1200, received 60"),
        ("eval", ["--max_number_of_evaluations=7"], "--max_number_of_evaluations: expected 0, received 7"),
        ("vis", ["--nokeep_aspect_ratio"], "--keep_aspect_ratio: expected True, received False"),
        ("train", ["{data}", "--learning_policy=polly"], "--learning_policy: .*Did you mean 'poly'"),
        ("train", ["{data}", "--label_weights=1,x"], "--label_weights: expected numbers, received 1,x"),
        ("train", ["{data}", "--dataset=cityscapes"], "--dataset: the records are of 'synthetic'"),
        ("train", ["{data}", _PRESET, "--model_variant=xception_65"], "--model_variant: --preset says the network"),
        ("train", ["{data}", "--label_weights=1,2"], "label_weights: expected 8, one a class, received 2"),
        ("train", ["{data}", "--drop_path_keep_prob=0.9"], "--drop_path_keep_prob: expected 1 for a network"),
        ("train", ["{data}", "--train_crop_size=33,33", "--train_crop_size=33"], "received 33$"),
        ("train", ["{data}", "--model_variant=xception_66"], "--model_variant: unknown .*Did you mean 'xception_65'"),
        ("train", ["{data}", "--aspp_convs_filters=0"], "--aspp_convs_filters: expected at least 1, received 0"),
        ("train", ["{data}", "--decoder_output_stride=4,8"], "--decoder_output_stride: expected descending strides"),
        (
            "train",
            ["{data}", "--dense_prediction_cell_json=x", "--image_pooling_stride=1,1", "--aspp_convs_filters=64"],
            "--aspp_convs_filters: expected 256 with --dense_prediction_cell_json, received 64",
        ),
        ("eval", [], "--run_dir: expected a run folder, or else --checkpoint_dir; received neither"),
        ("eval", ["{run}", "--eval_scales=0"], "--eval_scales: expected different numbers above 0, received 0"),
        ("eval", ["{run}", "--eval_crop_size=33,33"], "--eval_crop_size: expected at least 48,65"),
        ("eval", ["{run}", "--eval_crop_size=33"], "--eval_crop_size: expected 2 numbers, received 33"),
        ("eval", ["{run}", "--max_resize_value=33"], "--max_resize_value: expected min_resize_value beside it"),
        ("eval", ["{run}", "--model_variant=xception_65"], "--model_variant: expected the 'mobilenet_v2' of the run's"),
        ("eval", ["{run}", "--atrous_rates=6"], "--atrous_rates: expected 0 rates"),
        ("eval", ["--checkpoint_dir={logdir}/model.ckpt-7"], "is at step 2, received step 7"),
        ("eval", ["--checkpoint_dir=gone", "--dataset_dir={records}", "--eval_logdir=out"], "gone: no TF1 checkpoint"),
        ("eval", ["{run}", "--eval_split=vall"], "--eval_split: unknown split 'vall'.*Did you mean 'val'"),
        ("vis", ["{run}", "--vis_split=vall"], "--vis_split: unknown split 'vall'.*Did you mean 'val'"),
        ("vis", ["{run}", "--colormap_type=pascl"], "--colormap_type: .*Did you mean 'pascal'"),
        ("export_model", ["{run}", "--export_path=out", "--num_classes=21"], "--num_classes: expected the run's 8"),
    ],
)
def test_what_cannot_be_is_one_line_that_names_the_flag(tool, arguments, message, records, logdir):
    import re

    places = {"data": f"--run_dir=out --dataset_dir={records}", "run": f"--run_dir={logdir}"}
    words = " ".join(arguments).format(**places, records=records, logdir=logdir).split()
    done = run_tool(tool, *words)
    assert done.returncode == 2, (done.returncode, done.stderr)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert re.search(message, line) and "Traceback" not in done.stderr, line
    assert not (REPOSITORY / "out").exists()
