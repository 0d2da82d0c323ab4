import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import training
from case import refuse, succeed
from small_data import CLASSES, build, pairs

from nas_seg import export_model, presets
from nas_seg import model as model_lib
from nas_seg.inference import scorer
from nas_seg.inference_config import InferenceConfig
from nas_seg.model import ModelConfig
from nas_seg.utils import config as config_lib
from nas_seg.utils import runs
from nas_seg.utils.errors import InputError
from nas_seg.utils.size_range import SizeRange

# Runs in another folder with -I, and cannot import this library even where it is installed.
_FOREIGN = """
import sys
sys.modules["nas_seg"] = None
import numpy as np
import tensorflow as tf
predict = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
assert list(predict.structured_input_signature[1]) == ["ImageTensor"], predict.structured_input_signature
with np.load(sys.argv[2]) as images:
    results = {name: predict(ImageTensor=tf.constant(images[name])) for name in images.files}
np.savez(sys.argv[3], **{name: result["SemanticPredictions"].numpy() for name, result in results.items()})
"""


def test_the_saved_model_agrees_with_the_model_where_this_library_is_not(tmp_path):
    model = training.tiny_model()
    model.get_layer("backbone").layers[2].set_weights(
        [np.linspace(low, high, 8) for low, high in [(0.5, 2), (-1, 1), (-0.3, 0.3), (0.1, 3)]]
    )
    export_model.export_saved_model(model, tmp_path / "saved")
    rng = np.random.default_rng(0)
    images = {f"{h}x{w}": rng.integers(0, 256, (1, h, w, 3), np.uint8) for h, w in [(16, 16), (37, 53), (1, 2)]}
    np.savez(tmp_path / "images.npz", **images)
    subprocess.run(
        [sys.executable, "-I", "-c", _FOREIGN, "saved", "images.npz", "predictions.npz"], cwd=tmp_path, check=True
    )
    with np.load(tmp_path / "predictions.npz") as predictions:
        for name, image in images.items():
            expected = np.argmax(model(image.astype(np.float32), training=False), axis=-1)
            assert predictions[name].dtype == np.int32
            np.testing.assert_array_equal(predictions[name], expected)
        assert len(np.unique(predictions["37x53"])) > 1


def test_an_older_export_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "deep" / "saved"
    export_model.export_saved_model(training.tiny_model(), path)
    old = (path / "variables" / "variables.data-00000-of-00001").read_bytes()
    export_model.export_saved_model(training.tiny_model(seed=1), path)
    assert (path / "variables" / "variables.data-00000-of-00001").read_bytes() != old
    assert list(path.parent.iterdir()) == [path]


def test_other_content_is_not_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="expected a new or empty folder, or a SavedModel to replace"):
        export_model.export_saved_model(training.tiny_model(), tmp_path)
    with pytest.raises(InputError, match="expected a folder to write to, received a file"):
        export_model.export_saved_model(training.tiny_model(), tmp_path / "thesis.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("kind", export_model.PROBABILITIES)
def test_several_scales_and_probabilities_are_exported_as_the_network_has_them(tmp_path, kind):
    model, config = training.tiny_model(), InferenceConfig((0.5, 1.0), add_flipped_images=True)
    export_model.export_saved_model(model, tmp_path / "saved", config, semantic_probabilities=kind)
    image = np.random.default_rng(0).integers(0, 256, (1, 37, 53, 3), np.uint8)
    outputs = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"](ImageTensor=image)
    mean = np.asarray(scorer(model, config)(tf.constant(image, tf.float32)))
    np.testing.assert_array_equal(outputs["SemanticPredictions"], np.argmax(mean, axis=-1))
    expected = mean if kind == export_model.PLAIN else np.exp(mean) / np.exp(mean).sum(-1, keepdims=True)
    # The same float32 numbers, perhaps fused otherwise.
    np.testing.assert_allclose(outputs["SemanticProbabilities"], expected, atol=1e-5)


def _signatures(model, path, *arguments, **keywords):
    export_model.export_saved_model(model, path, *arguments, **keywords)
    return tf.saved_model.load(str(path))


@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0)])
def test_raw_outputs_are_of_the_resized_and_padded_picture_and_the_others_are_cut_and_resized_from_them(
    tmp_path, scales
):
    model = training.tiny_model()
    config = InferenceConfig(scales, crop_size=(40, 48), size_range=SizeRange(17))
    loaded = _signatures(model, tmp_path / "saved", config, semantic_probabilities="plain")
    image = np.random.default_rng(0).integers(0, 256, (1, 21, 33, 3), np.uint8)
    outputs = {name: value.numpy() for name, value in loaded.signatures["all_outputs"](ImageTensor=image).items()}
    assert {name: (value.dtype.name, value.shape) for name, value in outputs.items()} == {
        "SemanticPredictions": ("int32", (1, 21, 33)),
        "SemanticProbabilities": ("float32", (1, 21, 33, 4)),
        "RawSemanticPredictions": ("float32", (1, 40, 48)),
        "RawSemanticProbabilities": ("float32", (1, 40, 48, 4)),
    }
    raw = outputs["RawSemanticProbabilities"]
    np.testing.assert_array_equal(outputs["RawSemanticPredictions"], raw.argmax(-1))
    np.testing.assert_array_equal(outputs["SemanticPredictions"], outputs["SemanticProbabilities"].argmax(-1))
    # The shorter side is 17, the longer 33 * 17 / 21 = 26.7, cut.
    resized = tf.raw_ops.ResizeBilinear(images=image, size=(17, 26), align_corners=True)
    padded = tf.pad(resized - 127.5, [(0, 0), (0, 23), (0, 22), (0, 0)]) + 127.5
    expected = np.asarray(scorer(model, InferenceConfig(scales, crop_size=(40, 48)))(padded))
    expected = expected if scales[1:] else np.asarray(tf.nn.softmax(expected))
    # The same float32 numbers, perhaps fused otherwise.
    np.testing.assert_allclose(raw, expected, atol=1e-5)
    cut = raw[:, :17, :26] if scales[1:] else np.log(raw[:, :17, :26])
    back = tf.raw_ops.ResizeBilinear(images=cut, size=(21, 33), align_corners=True)
    back = back if scales[1:] else tf.nn.softmax(back)
    np.testing.assert_allclose(outputs["SemanticProbabilities"], back, atol=1e-5)
    served = loaded.signatures["serving_default"](ImageTensor=image)
    assert set(served) == {"SemanticPredictions", "SemanticProbabilities"}
    np.testing.assert_array_equal(served["SemanticPredictions"], outputs["SemanticPredictions"])


@pytest.mark.parametrize(
    "name",
    [
        "template_arch1",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("dpc_mobilenet_v2_035", "deeplabv3plus_mobilenet_v2")
        ),
        pytest.param("auto_deeplab_s", marks=pytest.mark.slow),
    ],
)
def test_every_family_has_the_originals_four_outputs_at_any_size_and_labels_alone(name, tmp_path):
    loaded = _signatures(presets.from_preset(name, num_classes=5), tmp_path / "saved")
    for height, width in [(33, 49), (40, 70)]:
        image = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
        served = loaded.signatures["serving_default"](ImageTensor=image)
        assert list(served) == ["SemanticPredictions"]
        outputs = loaded.signatures["all_outputs"](ImageTensor=image)
        shares = outputs["SemanticProbabilities"].numpy()
        assert shares.shape == (1, height, width, 5) and len(outputs) == 4
        np.testing.assert_allclose(shares.sum(-1), 1, atol=1e-5)
        np.testing.assert_array_equal(outputs["SemanticPredictions"], shares.argmax(-1))
        np.testing.assert_array_equal(outputs["SemanticPredictions"], served["SemanticPredictions"])
        # Nothing is resized or cut here.
        np.testing.assert_array_equal(outputs["RawSemanticPredictions"], shares.argmax(-1))
        np.testing.assert_array_equal(outputs["RawSemanticProbabilities"], shares)


def test_what_cannot_be_written_to_is_refused_and_an_export_that_fails_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match="file/saved: cannot be written"):
        export_model.export_saved_model(training.tiny_model(), tmp_path / "file" / "saved")
    with pytest.raises(RuntimeError, match="stopped"), export_model.replaced_folder(tmp_path / "new") as folder:
        folder.mkdir()
        raise RuntimeError("stopped")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_tool_writes_formats_and_tells_how_well_they_agree_on_the_runs_own_pictures(tmp_path):
    records = build(tmp_path / "records", train=pairs([(40, 50)] * 3), val=pairs([(40, 50)] * 2, seed=1))
    model_config = ModelConfig(4, presets.network("mobilenet_v2_035"))
    sections = {"model": config_lib.to_json(model_config), "dataset_dir": str(records)}
    runs.open_run(tmp_path / "run", sections)
    runs.save_weights(model_lib.build(model_config), runs.weights_path(tmp_path / "run", runs.LAST))
    output = succeed(
        "export_model",
        f"--run_dir={tmp_path / 'run'}",
        f"--export_path={tmp_path / 'out'}",
        "--format=saved_model,tflite",
        "--export_size=33,49",
    )
    report = json.loads((tmp_path / "out" / "export.json").read_text())
    assert report["format_version"] == 1 and report["class_names"] == list(CLASSES.class_names)
    assert report["compared_on"] == f"2 pictures, val of {records}"
    for name in ("saved_model", "tflite"):
        told = report["files"][name]
        assert f"{name}: {told['bytes'] / 1e6:.2f} MB, labels agree on" in output
        # Random weights; float32 sums in another order.
        assert told["label_agreement"] > 0.999 and told["max_probability_error"] < 1e-4
    assert f"compared on: {report['compared_on']}" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format=tflight"], "--format: unknown format 'tflight'"),
        (["--format=tflite"], "--export_size: expected height,width, which --format=tflite needs"),
        (
            ["--format=tflite_int8", "--export_size=33,33", "--checkpoint_path=x.weights.h5", "--num_classes=2"],
            "--calibration_dir: expected a folder of real pictures, or --dataset_dir, for tflite_int8",
        ),
        (["--dataset_dir=none", "--checkpoint_path=x.weights.h5", "--num_classes=2"], "none: expected a folder of"),
    ],
)
def test_formats_that_lack_something_are_one_line(arguments, message):
    assert message in refuse("export_model", "--export_path=out", *arguments)
