"""The operations of template networks: recorded ones, the contract of a layer, half-pixel resizes."""

import keras
import literal_network
import numpy as np
import pytest
import reference_weights
from case import fixtures, run_layer_test

from nas_seg.core import resize as resize_lib
from nas_seg.core.resize import ResizeLike, resize_bilinear
from nas_seg.template.decoder import _apply
from nas_seg.template.genotype import OPS
from nas_seg.template.ops import (
    ChannelWeightedSum,
    ProjectedGlobalPool,
    ProjectedMaxPool,
    RepeatedSeparableConv,
    TileChannels,
    make_op,
)
from nas_seg.template.plan import SEPARABLE, Application, Map, Op


def _nhwc(array) -> np.ndarray:
    return np.moveaxis(array, -3, -1)


def _fill(table, recorded, prefix) -> None:
    """Sets every variable of a table from the recorded arrays below `prefix`, of which none is left over."""
    counter = "num_batches_tracked"
    there = {n.removeprefix(prefix) for n in recorded.files if n.startswith(prefix) and not n.endswith(counter)}
    assert there == set(table)
    for name, (variable, axes) in table.items():
        value = recorded[prefix + name]
        variable.assign(np.transpose(value, axes) if axes else value)


def _close(actual, expected):
    # A few convolutions of 8 to 32 channels in float32.
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.std(expected) + 1e-6)


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("repeats", [1, 2])
@pytest.mark.parametrize("name", OPS)
def test_op_equals_the_recorded_one(name, repeats, strides):
    recorded = np.load(fixtures("template") / "ops.npz")
    case, x = f"{name}.s{strides}.r{repeats}", _nhwc(recorded["x"])
    channels = x.shape[-1] * strides
    op = Op(name, Map(x.shape[-1], 1), (strides,) * (repeats if name in SEPARABLE else 1), Map(channels, 1))
    layer = make_op(op, name="op1")
    layer.build(x.shape)
    _fill(reference_weights.layer_names(layer, "", "op1"), recorded, f"{case}.w.")
    expected = _nhwc(recorded[f"{case}.y"])
    _close(layer(x), expected)
    assert layer.compute_output_shape(x.shape) == expected.shape
    inputs = keras.Input((None, None, x.shape[-1]))
    _close(keras.Model(inputs, layer(inputs))(x), expected)


@pytest.mark.parametrize("larger", [0, 1])
@pytest.mark.parametrize("pair", ["ab", "ba", "ac", "aa"])
@pytest.mark.parametrize("aggregation", ["psum", "cat"])
def test_aggregation_equals_the_recorded_one(aggregation, pair, larger):
    recorded = np.load(fixtures("template") / "ops.npz")
    case = f"{aggregation}.{pair}.larger{larger}"
    # "a" is 8 channels of 13x17, "b" 16 of 7x9, "c" 8 of 7x9.
    values = [_nhwc(recorded[f"agg_{letter}"]) for letter in pair]
    maps = [Map(v.shape[-1], 1 if v.shape[1] == 13 else 2) for v in values]
    scale = min if larger else max
    output = Map(max(m.channels for m in maps), scale(m.stride for m in maps))
    application = Application(tuple(Op("skip_connect", m, (1,), m) for m in maps), aggregation, output)
    inputs = [keras.Input(v.shape[1:]) for v in values]
    model = keras.Model(inputs, _apply(application, tuple(inputs), "layer0_application0"))
    table = {}
    for layer in model.layers:
        table |= reference_weights.layer_names(layer, "", layer.name.removeprefix("layer0_application0_"))
    _fill(table, recorded, f"{case}.w.")
    _close(model(values), _nhwc(recorded[f"{case}.y"]))


@pytest.mark.parametrize(
    ("layer", "arguments", "output_shape", "trainable"),
    [
        (RepeatedSeparableConv, {"filters": 6, "kernel_size": 5, "strides": (2, 2)}, (2, 3, 3, 6), 8),
        (RepeatedSeparableConv, {"filters": 6, "kernel_size": 3, "strides": (2, 1), "rate": 6}, (2, 5, 6, 6), 8),
        (ProjectedMaxPool, {"filters": 6, "strides": 2}, (2, 5, 6, 6), 3),
        (ProjectedMaxPool, {"filters": 6}, (2, 9, 12, 6), 3),
        (ProjectedGlobalPool, {"filters": 6}, (2, 9, 12, 6), 3),
        (TileChannels, {"multiple": 3}, (2, 9, 12, 12), 0),
    ],
)
def test_layers_keep_their_contract(layer, arguments, output_shape, trainable):
    run_layer_test(layer, arguments, (2, 9, 12, 4), output_shape, trainable)


def test_a_weighted_sum_starts_as_a_sum_and_weighs_each_channel():
    layer, random = ChannelWeightedSum(), np.random.default_rng(0)
    x, y = random.normal(size=(2, 1, 3, 5, 4)).astype(np.float32)
    np.testing.assert_allclose(layer([x, y]), x + y, rtol=1e-6)
    a, b = random.normal(size=(2, 4)).astype(np.float32)
    layer.set_weights([a, b])
    np.testing.assert_allclose(layer([x, y]), a * x + b * y, rtol=1e-5, atol=1e-6)
    assert layer.compute_output_shape([x.shape, y.shape]) == x.shape
    half = ChannelWeightedSum(dtype="mixed_bfloat16")
    assert keras.backend.standardize_dtype(half([x, y]).dtype) == "bfloat16"
    assert all(v.dtype == "float32" for v in half.weights)


@pytest.mark.parametrize("strides", [1, 2, 4])
@pytest.mark.parametrize("size", [(9, 13), (8, 13), (8, 12), (1, 2)])
def test_pooled_maxima_do_not_depend_on_whether_the_size_is_known(size, strides):
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    layer = ProjectedMaxPool(4, strides)
    known, unknown = keras.Input((*size, 3)), keras.Input((None, None, 3))
    outputs = keras.Model(known, layer(known))(x)
    np.testing.assert_array_equal(outputs, keras.Model(unknown, layer(unknown))(x))
    # One row and one column of minus infinity around the map, and every window's maximum by hand.
    border = np.pad(layer.projection(x), ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    places = [range(0, extent, strides) for extent in size]
    maxima = [[border[:, i : i + 3, j : j + 3].max((1, 2)) for j in places[1]] for i in places[0]]
    np.testing.assert_array_equal(outputs, np.moveaxis(np.array(maxima), 2, 0))


def test_a_rate_that_the_stride_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="Expected a rate that is a multiple of the strides. Received: rate=3"):
        RepeatedSeparableConv(4, 3, (2,), rate=3)


@pytest.mark.parametrize("sizes", [(9, 13), (3, 4), (1, 1), (1, 7), (17, 24), (10, 5)])
@pytest.mark.parametrize("source", [(5, 6), (1, 1), (1, 9), (8, 3)])
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_half_pixel_resize_interpolates_between_centres(source, sizes, backend, monkeypatch):
    # On another backend the resize is two products with hat matrices; keras.ops of this one runs them.
    monkeypatch.setattr(resize_lib.keras.backend, "backend", lambda: backend)
    x = np.random.default_rng(0).normal(size=(2, *source, 3)).astype(np.float32)
    resized = resize_bilinear(keras.ops.convert_to_tensor(x), sizes, align_corners=False)
    expected = np.stack([_nhwc(literal_network.resize(np.moveaxis(image, -1, 0), sizes)) for image in x])
    np.testing.assert_allclose(resized, expected, atol=1e-5)


def test_a_layer_remembers_how_it_resizes():
    x = np.random.default_rng(0).normal(size=(1, 4, 6, 2)).astype(np.float32)
    reference = np.zeros((1, 7, 5, 1), np.float32)
    layer = ResizeLike(align_corners=False)
    twin = ResizeLike.from_config(layer.get_config())
    np.testing.assert_array_equal(twin([x, reference]), layer([x, reference]))
    assert np.abs(np.asarray(twin([x, reference])) - np.asarray(ResizeLike()([x, reference]))).max() > 0.1
