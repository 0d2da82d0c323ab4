"""The dense prediction cell against cells recorded from the original code, and its contract."""

import json

import keras
import numpy as np
import pytest
from case import fixtures, recipe_value, run_layer_test

from nas_seg.core import checkpoint
from nas_seg.dpc.cell import DensePredictionCell
from nas_seg.dpc.genotype import DPCGenotype, published
from nas_seg.dpc.network import cell_tf1_names
from nas_seg.utils.errors import InputError

# float32 sums over some thousand terms in another order differ by about 1e-5 of values of order 1.
_TOLERANCE = 1e-4

_ALL_OPS = DPCGenotype.from_list(
    [
        {"op": "conv", "kernel": 1, "input": -1},
        {"op": "conv", "kernel": 3, "rate": [2, 3], "input": 0},
        {"op": "pyramid_pooling", "grid_size": [2, 4], "input": -1},
    ]
)


def _recorded_cell(name: str):
    """(cell with the recorded weights, recorded arrays) of one run of the case f_dpc_standalone."""
    folder = fixtures("deeplab", "f_dpc_standalone")
    info = json.loads((folder / "info.json").read_text())
    run = next(run for run in info["runs"] if run["name"] == name)
    arrays = dict(np.load(folder / f"{name}.npz"))
    cell = DensePredictionCell(
        run["parsed"],
        filters=run["hparams"].get("reduction_size", 256),
        concat_filters=run["hparams"].get("concat_channels", 256),
        output_stride=run["output_stride"],
        crop_size=run["crop_size"],
        pooling_crop_size=run["image_pooling_crop_size"],
    )
    cell.build((1, *run["feature_hw"], 32))
    names = cell_tf1_names(cell)
    checkpoint.assign(
        names, {n: recipe_value(n, tuple(v.shape), info["gain_rules"], info["seed"]) for n, v in names.items()}
    )
    return cell, run, arrays


@pytest.mark.parametrize(
    "name",
    [
        "cell0_small_os16",
        "cell0_small_os16_poolcrop321",
        "cell0_small_os8_mult2",
        "cell3_small_os16",
        "cell3_small_os8_mult2",
    ],
)
def test_cell_equals_the_recorded_output_of_the_original_code(name):
    cell, run, arrays = _recorded_cell(name)
    features = arrays["features"]
    expected = arrays["out"]
    np.testing.assert_allclose(cell(features), expected, atol=_TOLERANCE)
    assert sum(int(np.prod(v.shape)) for v in cell.trainable_weights) == run["trainable_params"]
    assert sum(int(np.prod(v.shape)) for v in cell.weights) == run["all_params"]


def test_cell_of_a_map_that_is_its_crop_needs_no_crop_size():
    cell, _, arrays = _recorded_cell("cell0_small_os16")
    free = DensePredictionCell(cell.genotype, cell.filters, cell.concat_filters)
    features = arrays["features"]
    free.build(features.shape)
    free.set_weights(cell.get_weights())
    np.testing.assert_allclose(free(features), cell(features), atol=1e-6)


def test_cell_keeps_the_layer_contract():
    # 1x1: kernel, gamma, beta; separable: two kernels and two pairs; pooling: one of each; projection too.
    run_layer_test(
        DensePredictionCell,
        {"genotype": _ALL_OPS, "filters": 4, "concat_filters": 6, "dropout_rate": 0.0},
        (2, 9, 11, 5),
        (2, 9, 11, 6),
        trainable=3 + 6 + 3 + 3,
    )


def test_cell_works_on_any_size_and_clips_the_window_to_the_map():
    cell = DensePredictionCell(_ALL_OPS, 4, 4, crop_size=(513, 513))
    for height, width in ((3, 5), (33, 33), (40, 20), (1, 1)):
        assert cell(np.zeros((1, height, width, 8), np.float32)).shape == (1, height, width, 4)


def test_dropout_falls_on_the_concatenation_before_the_projection():
    cell = DensePredictionCell(published("cityscapes_top1"), 4, 4, dropout_rate=0.5)
    seen = []
    inner = cell.dropout.call
    cell.dropout.call = lambda inputs, training=None: seen.append(inputs.shape[-1]) or inner(inputs, training)
    features = np.random.default_rng(0).normal(size=(1, 5, 5, 3)).astype(np.float32)
    cell(features, training=True)
    assert seen == [5 * 4]


@pytest.mark.parametrize("stride, expected", [(16, (18, 15)), (8, (36, 30))])
def test_rates_double_at_output_stride_8(stride, expected):
    cell = DensePredictionCell(published("cityscapes_top1"), output_stride=stride)
    assert tuple(cell.branches[1].depthwise.conv.dilation_rate) == expected


def test_output_stride_32_is_refused_by_name():
    with pytest.raises(InputError, match="output_stride.*8 or 16.*32"):
        DensePredictionCell(published("cityscapes_top1"), output_stride=32)


def test_cell_survives_saving_inside_a_model(tmp_path):
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, DensePredictionCell(_ALL_OPS, 4, 6)(inputs))
    model.save(tmp_path / "cell.keras")
    again = keras.models.load_model(tmp_path / "cell.keras")
    x = np.random.default_rng(1).normal(size=(1, 7, 9, 3)).astype(np.float32)
    np.testing.assert_array_equal(model(x), again(x))
