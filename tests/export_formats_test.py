"""One network in every format: each file is run, and agrees with the network as far as its precision goes."""

import functools
import importlib.util
import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
import training
from small_data import build, pairs

from nas_seg import export_formats, export_model, prediction, sample_pictures
from nas_seg.core import rounded_kernels
from nas_seg.core.resize import ResizeLike
from nas_seg.utils.errors import InputError

SIZE = (33, 47)
INSTALLED = [name for name, row in export_formats.FORMATS.items() if all(map(importlib.util.find_spec, row.packages))]
# Least share of equal labels and largest error of a probability. Float32: sums in another order. Float16: weights of
# 11 bits, of a network whose probabilities are near one another. Int8: steps of 1/256 of the range of the logits;
# int16x8: kernels of 8 bits alone.
LIMITS = {
    "saved_model": (1.0, 1e-5),
    "tflite": (0.999, 1e-5),
    "tflite_float16": (0.995, 1e-3),
    "tflite_int8": (0.9, 0.03),
    "tflite_int16x8": (0.95, 0.02),
    "onnx": (0.999, 1e-5),
}


def scenes(count, size=SIZE):
    return sample_pictures.drawn(size, count)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder with every format that can be written here, and its report."""
    path = tmp_path_factory.mktemp("exports") / "deep" / "tiny"
    report = export_formats.export(
        training.tiny_model(),
        path,
        INSTALLED,
        size=SIZE,
        calibration=scenes(8),
        pictures=scenes(2),
        about={"num_classes": training.NUM_CLASSES},
    )
    return path, report


@pytest.mark.parametrize("name", LIMITS)
def test_each_format_agrees_with_the_network_as_far_as_its_precision_goes(exported, name):
    if name not in INSTALLED:
        pytest.skip(f"{export_formats.FORMATS[name].packages} are not installed")
    path, report = exported
    agreement, error = LIMITS[name]
    told = report["files"][name]
    assert told["label_agreement"] >= agreement and told["max_probability_error"] <= error, told
    assert told["mean_probability_error"] <= told["max_probability_error"]
    # What the report says of the files is what they do.
    run, by = export_formats.FORMATS[name].load(path / told["file"], "serving_default")
    picture = scenes(3)[2]
    labels, _ = prediction.looker(training.tiny_model())(picture)
    found = run(picture)
    assert list(found) == ["SemanticPredictions"] and found["SemanticPredictions"].shape == (1, *SIZE)
    assert np.mean(found["SemanticPredictions"][0] == labels) >= agreement and told["run_by"] == by
    assert len(np.unique(labels)) > 1


def test_int8_keeps_the_logits_and_what_is_made_of_them_in_float32(exported):
    from tensorflow.lite.python.interpreter import Interpreter

    interpreter = Interpreter(str(exported[0] / "model_int8.tflite"))
    types = {tensor["index"]: tensor["dtype"] for tensor in interpreter.get_tensor_details()}
    made = {}
    for op in interpreter._get_ops_details():
        made.setdefault(op["op_name"], []).append(types[op["outputs"][0]])
        if op["op_name"] == "ARG_MAX":
            assert types[op["inputs"][0]] == np.float32
    # The classifier is the last convolution; the one before it has 8 bits.
    assert made["CONV_2D"] == [np.int8, np.float32]


def test_int8_leaves_the_first_depthwise_convolution_those_around_it_and_the_last_in_float32(tmp_path, monkeypatch):
    monkeypatch.setattr(rounded_kernels, "_AFTER", 2)
    images = x = keras.Input((None, None, 3))
    stem = (("far", 3), ("stem", 4), ("expand", 4))
    for name, filters in (*stem, ("first", None), ("next", 5), ("second", None), ("other", 6), ("last", 2)):
        kind = keras.layers.DepthwiseConv2D if filters is None else functools.partial(keras.layers.Conv2D, filters)
        x = kind(3, name=name, padding="same")(x)
    export_model.write(keras.Model(images, x), tmp_path / "saved", size=SIZE)
    content = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved")).convert()
    found = (
        re.search("far|stem|expand|first|next|second|other|last", name) for name in export_formats._float_nodes(content)
    )
    assert {name[0] for name in found if name} == {"stem", "expand", "first", "next", "second", "last"}


@pytest.mark.skipif("onnx" not in INSTALLED, reason="tf2onnx and onnxruntime are not installed")
def test_onnx_resizes_to_the_size_that_the_network_has(tmp_path):
    images = keras.Input((None, None, 3))
    small = keras.layers.Conv2D(4, 3, strides=2, padding="same")(images)
    # The quotient of these sizes, rounded to float32, falls short.
    assert float(np.float32(17 / 33)) * 33 < 17
    resized = ResizeLike(align_corners=False)([images, small])
    logits = keras.layers.Conv2D(3, 1)(keras.layers.Concatenate()([resized, small]))
    model = keras.Model(images, ResizeLike()([logits, images]))
    report = export_formats.export(model, tmp_path / "out", ["onnx"], size=SIZE, pictures=scenes(1))
    assert report["files"]["onnx"]["label_agreement"] >= 0.999


def test_the_report_lies_beside_the_files_and_nothing_else_does(exported):
    path, report = exported
    assert json.loads((path / "export.json").read_text()) == report
    assert report["format_version"] == 1 and report["num_classes"] == training.NUM_CLASSES
    files = {told["file"] for told in report["files"].values()} - {"."}
    assert {file.name for file in path.iterdir() if file.is_file()} == files | {
        "export.json",
        "saved_model.pb",
        "fingerprint.pb",
    }
    for told in report["files"].values():
        assert told["file"] == "." or told["bytes"] == (path / told["file"]).stat().st_size
    saved = (
        sum(file.stat().st_size for file in (path / "variables").iterdir()) + (path / "saved_model.pb").stat().st_size
    )
    assert saved <= report["files"]["saved_model"]["bytes"] <= saved + 1000
    assert list(path.parent.iterdir()) == [path]
    quantised, float32 = (report["files"][name]["size"] for name in ("tflite_int8", "tflite"))
    assert quantised == float32 == [*SIZE] and report["files"]["saved_model"]["size"] is None


def test_probabilities_are_put_out_where_they_are_asked_for_and_old_exports_are_replaced(tmp_path):
    path = tmp_path / "out"
    export_model.export_saved_model(training.tiny_model(), path)
    report = export_formats.export(
        training.tiny_model(), path, ["tflite"], size=SIZE, semantic_probabilities="plain", pictures=scenes(1)
    )
    assert sorted(file.name for file in path.iterdir()) == ["export.json", "model.tflite"]
    run, _ = export_formats.FORMATS["tflite"].load(path / "model.tflite", "serving_default")
    outputs, picture = run(scenes(1)[0]), scenes(1)[0]
    look = prediction.looker(training.tiny_model(), return_probabilities=True)
    np.testing.assert_allclose(outputs["SemanticProbabilities"][0], look(picture)[1], atol=1e-5)
    assert report["files"]["tflite"]["max_probability_error"] <= 1e-5


@pytest.mark.parametrize(
    ("formats", "size", "message"),
    [
        ([], None, "format: expected one or more of saved_model, tflite, .* received none"),
        (["tflight"], (9, 9), "format: unknown format 'tflight': .* Did you mean 'tflite'"),
        (["saved_model", "tflite"], None, "export_size: expected height,width, which --format=tflite needs"),
        (["tflite", "tflite"], (9, 9), "format: expected different formats, received tflite,tflite"),
        (["tflite"], (0, 9), "export_size: expected two sizes of 1 or more, received 0,9"),
    ],
)
def test_formats_that_cannot_be_written_are_refused(formats, size, message):
    with pytest.raises(InputError, match=message):
        export_formats.check(formats, size)


def test_a_format_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"format: onnx needs the package tf2onnx: pip install 'nas_seg\[onnx\]'"):
        export_formats.check(["onnx"], SIZE)
    export_formats.check(["saved_model", "tflite"], SIZE)


def test_int8_without_real_pictures_is_refused_and_writes_nothing(tmp_path):
    with pytest.raises(InputError, match="calibration: expected real pictures, which tflite_int8 needs"):
        export_formats.export(training.tiny_model(), tmp_path / "out", ["tflite_int8"], size=SIZE)
    assert not list(tmp_path.iterdir())


def test_sample_pictures_are_spread_over_a_split(tmp_path):
    assert sample_pictures.evenly(10, 3) == [1, 5, 8]
    assert sample_pictures.evenly(2, 5) == [0, 1]
    made = pairs([(8, 8 + i) for i in range(6)])
    folder = build(tmp_path / "records", num_shards=2, train=made, val_fine=made[:2])
    found, where = sample_pictures.of_dataset(folder, "train", 3)
    assert [picture.shape for picture in found] == [(8, 9, 3), (8, 11, 3), (8, 13, 3)]
    assert where == f"train of {folder}"
    assert [picture.shape for picture in sample_pictures.of_dataset(folder, "val", 9)[0]] == [(8, 8, 3), (8, 9, 3)]
    assert sample_pictures.resized(found[0], (5, 7)).shape == (5, 7, 3)
