"""Operators and cells of found networks: the layer contract, strides at every size, drop path."""

import keras
import numpy as np
import pytest
from case import run_layer_test

from nas_seg.auto_deeplab.cell import Cell
from nas_seg.auto_deeplab.genotype import FIXED_OPS, published
from nas_seg.auto_deeplab.ops import AtrousConv, DecayedDepthwiseConv, SeparableConv, SkipConnect, make_op
from nas_seg.core.conv import set_batch_norm

_BLOCKS = published("auto_deeplab").cell
_SKIPS = (((0, "skip_connect"), (1, "skip_connect")),)
_POOLS = (((0, "max_pool_3x3"), (1, "avg_pool_3x3")),)


@keras.saving.register_keras_serializable("nas_seg_tests")
class CellOfOneMap(Cell):
    """A cell that reads one map twice, for the contract of layers with one input."""

    def build(self, input_shape):
        super().build([input_shape, input_shape])

    def call(self, inputs, training=None):
        return super().call([inputs, inputs], training=training)

    def compute_output_shape(self, input_shape):
        return super().compute_output_shape([input_shape, input_shape])


def _map(*shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("strides, size", [(1, (9, 12)), (2, (5, 6))])
@pytest.mark.parametrize(
    "layer, arguments, trainable",
    [(SeparableConv, {"kernel_size": 5}, 8), (AtrousConv, {"kernel_size": 3}, 3), (SkipConnect, {}, None)],
)
def test_operators_keep_the_layer_contract(layer, arguments, trainable, strides, size):
    # Kernel, gamma and beta of the convolution that a skip has where it strides.
    trainable = (0 if strides == 1 else 3) if trainable is None else trainable
    run_layer_test(layer, arguments | {"filters": 6, "strides": strides}, (2, 9, 12, 6), (2, *size, 6), trainable)


def test_depthwise_convolution_keeps_the_layer_contract():
    run_layer_test(DecayedDepthwiseConv, {"kernel_size": 3, "padding": "same"}, (2, 9, 12, 6), (2, 9, 12, 6), 2)


@pytest.mark.parametrize("strides, size", [(1, (9, 12)), (2, (5, 6))])
def test_cell_keeps_the_layer_contract(strides, size):
    arguments = {"blocks": _BLOCKS, "filters": 4, "strides": strides, "index": 2, "num_cells": 12}
    # Of ten operators three are atrous (3 arrays each) and seven separable (8); both inputs have a 1x1 convolution (3).
    run_layer_test(CellOfOneMap, arguments, (2, 9, 12, 6), (2, *size, 20), 3 * 3 + 7 * 8 + 2 * 3)


@pytest.mark.parametrize("op", FIXED_OPS)
@pytest.mark.parametrize("size", [(1, 1), (2, 7), (8, 12), (9, 13)])
def test_a_strided_operator_halves_every_size_upwards(op, size):
    layer, x = make_op(op, 4, 2), _map(1, *size, 4)
    assert layer(x).shape == layer.compute_output_shape(x.shape) == (1, -(-size[0] // 2), -(-size[1] // 2), 4)
    assert make_op(op, 4)(x).shape == x.shape


@pytest.mark.parametrize("size", [(8, 12), (9, 13)])
def test_strides_are_those_of_the_dense_convolution_subsampled(size):
    # At even sizes, too: TensorFlow's SAME would not be.
    x = _map(2, *size, 4)
    strided, dense = SeparableConv(4, 5, 2), SeparableConv(4, 5, 1)
    for layer in (strided, dense):
        layer.build(x.shape)
    first = [keras.Sequential([layer.depthwise[0]]) for layer in (strided, dense)]
    first[1].layers[0].set_weights(first[0].layers[0].get_weights())
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
    np.testing.assert_allclose(first[0](padded), first[1](x)[:, ::2, ::2], atol=1e-6)


def test_kernels_start_uniform_within_the_root_of_their_fan_in():
    layer = SeparableConv(32, 5)
    layer.build((None, None, None, 32))
    kernels = [(d.kernel, 25 * 32) for d in layer.depthwise] + [(p.conv.kernel, 32) for p in layer.pointwise]
    for kernel, fan_in in kernels:
        # Of 800 draws and more the largest is within 2% of the bound.
        assert np.abs(kernel).max() == pytest.approx(fan_in**-0.5, rel=0.02)
        assert np.abs(kernel).max() <= fan_in**-0.5


def test_first_input_passes_as_it_is_where_it_has_the_cells_channels():
    cell = Cell((((0, "skip_connect"), (0, "skip_connect")),), 6)
    before_previous, previous = _map(1, 5, 7, 6), _map(1, 5, 7, 3)
    np.testing.assert_array_equal(cell([before_previous, previous]), 2 * before_previous)
    assert cell.squeeze_before_previous is None


def test_inputs_are_read_as_the_genotype_says():
    # H^{l-2} is input 0 and H^{l-1} is input 1; block 1 reads block 0.
    cell = Cell((((0, "skip_connect"), (0, "skip_connect")), ((1, "skip_connect"), (2, "skip_connect"))), 6)
    before_previous, previous = _map(1, 5, 7, 6), _map(1, 5, 7, 6, seed=1)
    outputs = np.asarray(cell([before_previous, previous]))
    squeezed = np.asarray(cell.squeeze_previous(np.maximum(previous, 0)))
    np.testing.assert_allclose(outputs[..., 6:], squeezed + 2 * before_previous, atol=1e-6)


def _dropped(blocks, progress, training=True, freeze=False) -> np.ndarray:
    """Share of zeros in each image's output of a cell that keeps a fifth at the end."""
    cell = Cell(blocks, 6, drop_path_keep_prob=0.2, index=11, num_cells=12)
    inputs = [_map(64, 5, 7, 6), _map(64, 5, 7, 6, seed=1), np.float32(progress)]
    cell.build([x.shape for x in inputs])
    if freeze:
        set_batch_norm(keras.Sequential([cell]), update_statistics=False)
    return np.mean(np.asarray(cell(inputs, training=training)) == 0, axis=(1, 2, 3))


def test_drop_path_drops_whole_operators_for_single_images_more_as_it_trains():
    # Both operators of the block are dropped for 0.8^2 of the images: 41 of 64, and with a standard deviation of 4.
    lost = _dropped(_POOLS, progress=1.0)
    assert set(lost) == {0.0, 1.0} and 25 <= lost.sum() <= 57
    assert 1 <= _dropped(_POOLS, progress=0.5).sum() < lost.sum()
    assert not _dropped(_POOLS, progress=0.0).any()


@pytest.mark.parametrize("exempt", [{"blocks": _SKIPS}, {"training": False}, {"freeze": True}])
def test_drop_path_spares_skips_inference_and_frozen_batch_norm(exempt):
    assert not _dropped(**({"blocks": _POOLS, "progress": 1.0} | exempt)).any()
