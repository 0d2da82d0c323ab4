"""Several scales and mirrored pictures: the recorded probabilities, and what must hold whatever the network."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import training
from case import fixtures, recipe_value

from nas_seg import eval as evaluation
from nas_seg import inference as inference_lib
from nas_seg import model as model_lib
from nas_seg import presets
from nas_seg.core.native_logits import native_logits
from nas_seg.deeplab.network import DeepLabConfig
from nas_seg.inference_config import InferenceConfig
from nas_seg.model import ModelConfig
from nas_seg.utils.errors import InputError
from nas_seg.utils.size_range import SizeRange


def _recorded(case, file, network):
    folder = fixtures("deeplab", case)
    info, arrays = json.loads((folder / "info.json").read_text()), np.load(folder / f"{file}.npz")
    config = ModelConfig(info["num_classes"], network)
    model = model_lib.build(config)
    for name, variable in model_lib.tf1_names(model, config).items():
        variable.assign(recipe_value(name, tuple(variable.shape), info["gain_rules"], info["seed"]))
    return model, arrays


@pytest.mark.parametrize(
    ("case", "network", "scales"),
    [
        ("c_mobilenetv2_coco_voc", DeepLabConfig(atrous_rates=()), (0.5, 1.0, 1.5)),
        # At 0.75 and 1.25 of 97 the map does not end on a corner.
        pytest.param(
            "a_xception65_aspp",
            presets.network("deeplabv3plus_xception_65"),
            (0.75, 1.0, 1.25),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_scales_and_flips_give_the_recorded_probabilities(case, network, scales):
    model, arrays = _recorded(case, "os16_65x97", network)
    several = InferenceConfig(scales, add_flipped_images=True, crop_size=(65, 97))
    scores = inference_lib.scorer(model, several)(tf.constant(arrays["image"], tf.float32))
    np.testing.assert_array_equal(np.argmax(scores, axis=-1), arrays["ms_pred"])
    # float32 through some sixty layers; the second softmax shrinks what differs.
    double = inference_lib.probabilities(scores, several, double_softmax=True)
    np.testing.assert_allclose(double, arrays["ms_prob"], atol=1e-6)
    single = inference_lib.probabilities(scores, several)
    np.testing.assert_allclose(np.sum(single, axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(keras.ops.softmax(single, axis=-1), arrays["ms_prob"], atol=1e-6)
    # Once at scale 1 in the same crop, the recorded single look.
    once = InferenceConfig(crop_size=(65, 97))
    scores = inference_lib.scorer(model, once)(tf.constant(arrays["image"], tf.float32))
    np.testing.assert_allclose(inference_lib.probabilities(scores, once), arrays["prob"], atol=1e-4)


def _images(height=21, width=33, seed=0):
    return tf.constant(np.random.default_rng(seed).uniform(0, 255, (1, height, width, 3)), tf.float32)


def test_a_mirrored_picture_has_mirrored_scores():
    score = inference_lib.scorer(training.tiny_model(), InferenceConfig((1.0,), add_flipped_images=True))
    images = _images()
    # The two looks change places; their sum is the same to the last bit.
    np.testing.assert_array_equal(score(images)[:, :, ::-1], score(images[:, :, ::-1]))
    once = inference_lib.scorer(training.tiny_model())
    assert np.abs(once(images)[:, :, ::-1] - once(images[:, :, ::-1])).max() > 1e-3


@pytest.mark.parametrize("crop_size", [None, (40, 48), (8, 8)])
def test_predictions_have_the_size_of_the_picture_whatever_the_scales(crop_size):
    config = InferenceConfig((0.4, 1.0, 1.3), True, crop_size, SizeRange(17, resize_factor=4))
    predict = evaluation.predictor(training.tiny_model(), config)
    for height, width in [(21, 33), (9, 50), (1, 1)]:
        assert predict(_images(height, width)).shape == (1, height, width)
    assert predict.experimental_get_tracing_count() == 1


def test_a_variant_takes_the_place_of_the_network_at_its_scale():
    model, other = training.tiny_model(), training.tiny_model(seed=1)
    score = inference_lib.scorer(model, InferenceConfig((1.0, 2.0)), {2.0: other})
    parts = [
        keras.ops.softmax(inference_lib.scorer(network, InferenceConfig((scale,)))(_images()))
        for network, scale in ((model, 1.0), (other, 2.0))
    ]
    np.testing.assert_allclose(score(_images()), (parts[0] + parts[1]) / 2, atol=1e-6)


def test_native_logits_are_those_before_the_last_resize():
    model = model_lib.build(ModelConfig(3, presets.network("mobilenet_v2_035")))
    native = native_logits(model)
    image = _images(65, 97)
    assert native(image).shape == (1, 5, 7, 3)
    resized = tf.raw_ops.ResizeBilinear(images=native(image), size=(65, 97), align_corners=True)
    np.testing.assert_array_equal(resized, model(image))
    tiny = training.tiny_model()
    np.testing.assert_array_equal(native_logits(tiny)(image), tiny(image))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"eval_scales": ()}, "eval_scales: expected different numbers above 0, received none"),
        ({"eval_scales": (1.0, 0.5, 1.0)}, "eval_scales: .* received 1,0.5,1"),
        ({"eval_scales": (-0.5,)}, "eval_scales: .* received -0.5"),
        ({"eval_scales": (float("nan"),)}, "eval_scales: .* received nan"),
        ({"crop_size": (0, 513)}, "crop_size: expected two sizes of 1 or more, received 0,513"),
    ],
)
def test_a_look_that_is_impossible_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        InferenceConfig(**values)


@pytest.mark.parametrize("crop_size", [None, (65, 97)])
def test_without_upsampled_logits_classes_are_picked_at_the_networks_size_and_enlarged(crop_size):
    model = model_lib.build(ModelConfig(5, presets.network("mobilenet_v2_035")))
    for place, variable in enumerate(model.weights):
        if variable.path.endswith("kernel"):
            variable.assign(
                tf.random.stateless_normal(variable.shape, (place, 0)) * (2 / np.prod(variable.shape[:3])) ** 0.5
            )
    images = tf.random.stateless_uniform((1, 65, 97, 3), (0, 1), 0.0, 255.0)
    native = tf.argmax(native_logits(model)(images), axis=-1)
    # TensorFlow's own kernel, with which the original enlarges classes.
    expected = tf.compat.v1.image.resize_nearest_neighbor(native[..., None], (65, 97), align_corners=True)[..., 0]
    config = InferenceConfig(crop_size=crop_size, prediction_with_upsampled_logits=False)
    labels = np.argmax(inference_lib.scorer(model, config)(images), axis=-1)
    np.testing.assert_array_equal(labels, expected)
    assert (labels != np.argmax(inference_lib.scorer(model)(images), axis=-1)).mean() > 0.01
    # Several looks ignore it, as in the original.
    both = [InferenceConfig((1.0,), True, crop_size, prediction_with_upsampled_logits=on) for on in (True, False)]
    np.testing.assert_array_equal(*(inference_lib.scorer(model, one)(images) for one in both))
