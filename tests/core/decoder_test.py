"""The decoder: its contract, its merges, its TF1 names, and the outputs recorded from the original code."""

import json

import keras
import numpy as np
import pytest
from case import fixtures, recipe_value, run_layer_test

from nas_seg.core import checkpoint, decoder
from nas_seg.core.decoder import DecoderConfig, DecoderStage
from nas_seg.utils.errors import InputError

_TOLERANCE = 1e-4
_BN = ("gamma", "beta", "moving_mean", "moving_variance")


@pytest.mark.parametrize(
    "case, file, low_level, separable",
    [
        (
            "a_xception65_aspp",
            "os16_65x97.npz",
            "ep:xception_65/entry_flow/block2/unit_1/xception_module/separable_conv2_pointwise",
            True,
        ),
        ("e_hnasnet_f20_paper", "os8_65x97.npz", "ep:Cell_2", False),
    ],
)
def test_stage_equals_the_recorded_decoder_of_the_original_code(case, file, low_level, separable):
    folder = fixtures("deeplab", case)
    recorded, info = np.load(folder / file), json.loads((folder / "info.json").read_text())
    (stage,) = decoder.make_stages(DecoderConfig(use_separable_conv=separable))
    inputs = [recorded["head"], recorded[low_level]]
    stage.build([x.shape for x in inputs])
    names = decoder.tf1_names(stage)
    recorded_names = {line.split("\t")[0] for line in (folder / "variables.txt").read_text().splitlines()}
    assert set(names) == {name for name in recorded_names if name.startswith("decoder/")}
    assert len(names) == len(stage.weights)
    arrays = {n: recipe_value(n, tuple(v.shape), info["gain_rules"], info["seed"]) for n, v in names.items()}
    checkpoint.assign(names, arrays)
    np.testing.assert_allclose(stage(inputs), recorded["decoder"], atol=_TOLERANCE, rtol=_TOLERANCE)
    if "t:decoder/feature_projection0/Relu:0" in recorded:
        projected = recorded["t:decoder/feature_projection0/Relu:0"]
        np.testing.assert_allclose(stage.projection(inputs[1]), projected, atol=_TOLERANCE)


@keras.saving.register_keras_serializable("nas_seg_tests")
class _OfOneMap(DecoderStage):
    """A stage whose low-level features are the features themselves."""

    def build(self, input_shape):
        super().build([input_shape, input_shape])

    def call(self, inputs, training=None):
        return super().call([inputs, inputs], training=training)

    def compute_output_spec(self, inputs, training=None):
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return super().compute_output_shape([input_shape, input_shape])


@pytest.mark.parametrize(
    "arguments, trainable",
    [
        ({}, 3 + 6 + 6),
        ({"use_separable_conv": False, "activation": "relu6"}, 3 + 3 + 3),
        ({"use_sum_merge": True}, 3 + 6),
        ({"use_sum_merge": True, "use_separable_conv": False}, 3 + 3),
        ({"output_is_logits": True}, 2 + 2 + 2),
        ({"output_is_logits": True, "use_sum_merge": True}, 2 + 2),
    ],
)
def test_stage_keeps_the_layer_contract(arguments, trainable):
    arguments = {"filters": 6, "projection_filters": 4} | arguments
    run_layer_test(_OfOneMap, arguments, (2, 5, 7, 3), (2, 5, 7, 6), trainable)


def test_stage_has_the_size_of_its_low_level_features_known_or_not():
    stage = DecoderStage(6, projection_filters=4)
    random = np.random.default_rng(0)
    features = random.normal(size=(1, 3, 5, 2)).astype(np.float32)
    low_level = random.normal(size=(1, 12, 18, 3)).astype(np.float32)
    inputs = [keras.Input((None, None, 2)), keras.Input((None, None, 3))]
    model = keras.Model(inputs, stage(inputs))
    assert model.output_shape == (None, None, None, 6)
    outputs = stage([features, low_level])
    assert outputs.shape == (1, 12, 18, 6)
    np.testing.assert_allclose(model([features, low_level]), outputs, atol=1e-6)


def test_sum_merge_adds_the_projection_to_one_convolution_of_the_features():
    stage = DecoderStage(6, use_sum_merge=True, use_separable_conv=False)
    random = np.random.default_rng(0)
    inputs = [random.normal(size=(1, 3, 3, 2)).astype(np.float32), random.normal(size=(1, 3, 3, 4)).astype(np.float32)]
    expected = np.asarray(stage(inputs))
    parts = np.asarray(stage.convs[0](inputs[0])), np.asarray(stage.projection(inputs[1]))
    assert parts[0].any() and parts[1].any()
    np.testing.assert_allclose(expected, sum(parts), atol=1e-6)


def test_logits_stage_is_linear():
    stage = DecoderStage(3, output_is_logits=True, projection_filters=4)
    random = np.random.default_rng(0)
    inputs = [random.normal(size=(1, 3, 3, 2)).astype(np.float32), random.normal(size=(1, 5, 5, 4)).astype(np.float32)]
    outputs = np.asarray(stage(inputs))  # Fresh biases are 0.
    np.testing.assert_allclose(stage([-2 * x for x in inputs]), -2 * outputs, atol=1e-5)


def test_statistics_move_in_training_alone():
    stage = DecoderStage(3, projection_filters=4)
    maps = [np.random.default_rng(0).normal(3.0, size=(2, 3, 3, 2)).astype(np.float32)] * 2
    stage(maps)
    assert all(np.allclose(v, v.path.endswith("variance")) for v in stage.non_trainable_weights)
    stage(maps, training=True)
    assert not any(np.allclose(v, v.path.endswith("variance")) for v in stage.non_trainable_weights)


def _with_norm(*kernels):
    """Kernels, and the four variables of the batch normalisation that each of them has."""
    return {
        name for kernel in kernels for name in (kernel, *(f"{kernel.rpartition('/')[0]}/BatchNorm/{v}" for v in _BN))
    }


@pytest.mark.parametrize(
    "fields, second_stage",
    [
        (
            {},
            _with_norm(
                "decoder/feature_projection0_1/weights",
                "decoder/decoder_conv0_1_depthwise/depthwise_weights",
                "decoder/decoder_conv0_1_pointwise/weights",
                "decoder/decoder_conv1_1_depthwise/depthwise_weights",
                "decoder/decoder_conv1_1_pointwise/weights",
            ),
        ),
        (
            {"use_separable_conv": False},
            _with_norm(
                "decoder/feature_projection0_1/weights",
                "decoder/decoder_conv0_1/decoder_conv0_1_1/weights",
                "decoder/decoder_conv0_1/decoder_conv0_1_2/weights",
            ),
        ),
        (
            {"use_sum_merge": True},
            _with_norm(
                "decoder/feature_projection0_1/weights",
                "decoder/decoder_split_sep_conv0_1_depthwise/depthwise_weights",
                "decoder/decoder_split_sep_conv0_1_pointwise/weights",
            ),
        ),
        (
            {"use_sum_merge": True, "use_separable_conv": False},
            _with_norm("decoder/feature_projection0_1/weights", "decoder/decoder_conv0_1/weights"),
        ),
        (
            {"use_sum_merge": True, "output_is_logits": True},
            {
                f"decoder/{layer}/{leaf}"
                for layer in ("feature_projection0_1", "decoder_conv0_1")
                for leaf in ("weights", "biases")
            },
        ),
    ],
)
def test_names_of_a_second_stage_have_its_number(fields, second_stage):
    stages = decoder.make_stages(DecoderConfig((8, 4), filters=6, **fields))
    assert [stage.name for stage in stages] == ["decoder", "decoder_1"]
    stages[1].build([(1, 3, 3, 6), (1, 5, 5, 2)])
    names = decoder.tf1_names(stages[1])
    assert set(names) == second_stage
    assert {id(v) for v in names.values()} == {id(v) for v in stages[1].weights}


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"output_strides": ()}, r"decoder_output_stride: expected some of \[4, 8, 16\], received \[\]"),
        ({"output_strides": (4, 8)}, r"decoder_output_stride: expected descending strides, received \[4, 8\]"),
        ({"output_strides": (4, 4)}, "descending"),
        ({"output_strides": (5,)}, r"received \[5\]"),
        ({"filters": 0}, "decoder filters: expected at least 1, received 0"),
    ],
)
def test_impossible_decoder_is_refused_by_field(fields, message):
    with pytest.raises(InputError, match=message):
        DecoderConfig(**fields)
