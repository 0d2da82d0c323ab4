"""Tests the normalisation of alpha and beta: a distribution of paths, the recorded weights, gradients under Keras."""

import numpy as np
import pytest
from case import fixtures
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from trellis import all_paths, log_transitions

from nas_seg.auto_deeplab.relaxation import alpha_probabilities, beta_probabilities, edge_mask, entropy, num_edges


def path_probabilities(weights):
    """The products of the weights along every path."""
    paths, found = all_paths(len(weights)), 1.0
    level = np.zeros(len(paths), int)
    for layer in range(len(weights)):
        found = found * weights[layer, level, paths[:, layer] - level + 1]
        level = paths[:, layer]
    return found


def test_edges_that_exist_are_those_of_the_paper():
    mask = edge_mask(12)
    # 105 evaluations of the cell: 2 + 5 + 8 in the first three layers, 10 in each of the other nine.
    assert mask.sum(axis=(1, 2)).tolist() == [2, 5, 8] + [10] * 9
    assert mask[0].tolist() == [[False, True, True]] + [[False] * 3] * 3
    assert mask[1].tolist() == [[False, True, True], [True] * 3, [False] * 3, [False] * 3]
    assert mask[2].tolist() == [[False, True, True], [True] * 3, [True] * 3, [False] * 3]
    assert mask[3].tolist() == [[False, True, True], [True] * 3, [True] * 3, [True, True, False]]


def test_twenty_edges_for_five_blocks():
    assert [num_edges(blocks) for blocks in range(1, 6)] == [2, 5, 9, 14, 20]


@pytest.mark.parametrize("name", ["init_1e-3", "sigma_1"])
def test_weights_are_the_recorded_ones(name):
    case = np.load(fixtures("auto_deeplab", f"decode_{name}.npz"), allow_pickle=False)
    beta, mask = case["betas_logits"].astype(np.float64), edge_mask(12)
    for key, border_correction in (("beta_probs_paper", False), ("beta_probs_peer_2_3", True)):
        found = beta_probabilities(beta, border_correction=border_correction)
        # Recorded in float64; the same formula with sums in another order.
        np.testing.assert_allclose(found[mask], case[key][mask], rtol=1e-14)
        assert (found[~mask] == 0).all()


@given(st.integers(1, 7).flatmap(lambda n: hnp.arrays(np.float64, (n, 4, 3), elements=st.floats(-1e3, 1e3))))
@settings(max_examples=100, deadline=None)
def test_probabilities_of_all_paths_add_up_to_one(beta):
    weights = beta_probabilities(beta)
    assert path_probabilities(weights).sum() == pytest.approx(1.0, abs=1e-12)
    exists = edge_mask(len(beta)).any(axis=2)
    np.testing.assert_allclose(weights.sum(axis=2), exists.astype(float), rtol=0, atol=1e-14)


def test_probabilities_of_all_75025_paths_add_up_to_one():
    random = np.random.default_rng(0)
    for sigma in (0.0, 1e-3, 1.0, 5.0):
        weights = beta_probabilities(sigma * random.standard_normal((12, 4, 3)))
        assert path_probabilities(weights).sum() == pytest.approx(1.0, abs=1e-12)


def test_border_correction_leaves_no_distribution():
    # 75,025 paths of (1/3)^12.
    weights = beta_probabilities(np.zeros((12, 4, 3)), border_correction=True)
    assert path_probabilities(weights).sum() == pytest.approx(75_025 / 3**12, rel=1e-12)


def test_weights_are_those_of_a_softmax_node_by_node():
    beta = 2 * np.random.default_rng(1).standard_normal((5, 4, 3))
    table, found = np.exp(log_transitions(beta)), beta_probabilities(beta)
    for layer, level, direction in np.argwhere(edge_mask(5)):
        expected = table[layer, level, level + direction - 1]
        assert found[layer, level, direction] == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("value", [1e308, -1e308])
def test_large_logits_neither_overflow_nor_become_nan(value):
    beta, alpha = np.zeros((4, 4, 3)), np.zeros((2, 8))
    # Also where there is no edge: what stands there counts for nothing.
    beta[:, :, 0], alpha[:, 3] = value, value
    with np.errstate(all="raise", under="ignore"):
        weights, ops = beta_probabilities(beta), alpha_probabilities(alpha)
    np.testing.assert_allclose(weights[:, 0], [[0, 0.5, 0.5]] * 4, rtol=1e-15)
    np.testing.assert_allclose(weights[3, 3], [1, 0, 0] if value > 0 else [0, 1, 0], atol=0)
    np.testing.assert_allclose(ops[0], np.eye(8)[3] if value > 0 else (1 - np.eye(8)[3]) / 7, rtol=1e-15)


def test_alpha_is_a_softmax_over_the_ops_zero_included():
    alpha = np.log(np.arange(1.0, 17.0)).reshape(2, 8)
    expected = np.arange(1.0, 17.0).reshape(2, 8)
    np.testing.assert_allclose(alpha_probabilities(alpha), expected / expected.sum(1, keepdims=True), rtol=1e-14)


def test_entropy_of_known_distributions():
    found = entropy(np.array([[0.25] * 4, [0.5, 0.5, 0, 0], [1.0, 0, 0, 0]]))
    np.testing.assert_allclose(found, [np.log(4), np.log(2), 0], rtol=1e-15)


@pytest.mark.parametrize("border_correction", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_keras_gives_the_weights_of_numpy_and_gradients_to_every_edge_that_exists(dtype, border_correction):
    import keras
    import tensorflow as tf

    random = np.random.default_rng(2)
    beta = random.standard_normal((12, 4, 3)).astype(dtype)
    beta[:, 0, 0], beta[:, 3, 2] = 40.0, -40.0  # what masked entries hold must not matter
    cotangent = random.standard_normal((12, 4, 3))
    tensor = tf.constant(beta)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        weights = beta_probabilities(tensor, keras.ops, border_correction)
        loss = tf.reduce_sum(weights * tf.constant(cotangent, dtype))
    gradient, mask = tape.gradient(loss, tensor).numpy(), edge_mask(12)
    assert weights.dtype == dtype
    # A few roundings of the type.
    tolerance = 20 * np.finfo(dtype).eps
    exact = beta_probabilities(beta.astype(np.float64), border_correction=border_correction)
    np.testing.assert_allclose(weights, exact, rtol=tolerance, atol=0)
    assert (weights.numpy()[~mask] == 0).all() and (gradient[~mask] == 0).all() and (gradient[mask] != 0).all()
    # d p_i / d logit_j = p_i (delta_ij - q_j), where q is what p would be without correction.
    plain = beta_probabilities(beta.astype(np.float64))
    inner = np.sum(exact * cotangent, axis=2, keepdims=True)
    np.testing.assert_allclose(gradient, exact * cotangent - plain * inner, rtol=0, atol=tolerance * 4)


def test_keras_gives_the_op_weights_of_numpy():
    import keras

    alpha = np.random.default_rng(4).standard_normal((20, 8)).astype(np.float32)
    found = keras.ops.convert_to_numpy(alpha_probabilities(keras.ops.convert_to_tensor(alpha), keras.ops))
    # float32: a few roundings.
    np.testing.assert_allclose(found, alpha_probabilities(alpha.astype(np.float64)), rtol=1e-6)
