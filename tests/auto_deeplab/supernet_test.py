"""The fast supernet is the literal one: values, and gradients by weights, alpha and beta."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from literal_cell import OPS as LITERAL_OPS
from literal_cell import aspp, conv, kernels_of_edges, normalize, resample, stem, supernet

from nas_seg.auto_deeplab import supernet_ops
from nas_seg.auto_deeplab.genotype import OPS, AutoDeepLabGenotype
from nas_seg.auto_deeplab.relaxation import edge_mask
from nas_seg.auto_deeplab.supernet import Supernet, has_before, incoming
from nas_seg.auto_deeplab.supernet_cell import edge_index
from nas_seg.core.resize import resize_bilinear
from nas_seg.utils.errors import InputError


def _images(size, batch=2, dtype="float64", seed=0):
    return tf.constant(np.random.default_rng(seed).uniform(0, 255, (batch, *size, 3)), dtype)


def _spread(net, seed=1):
    """alpha and beta far from equal, so that a wrong place shows."""
    random = np.random.default_rng(seed)
    for variable in net.architecture_variables:
        variable.assign(random.normal(size=variable.shape))
    return net


def _gradients(forward, net, images):
    """Logits, and gradients of one scalar of them by every variable, name -> array."""
    variables = net.trainable_variables

    with tf.GradientTape() as tape:
        logits = forward(images)
        weights = tf.constant(np.random.default_rng(3).normal(size=logits.shape), logits.dtype)
        loss = tf.reduce_sum(weights * logits)
    gradients = tape.gradient(loss, [v.value for v in variables])
    found = {v.name: g for v, g in zip(variables, gradients, strict=True)}
    return logits.numpy(), {name: None if g is None else g.numpy() for name, g in found.items()}


def _relative(actual, expected):
    return np.abs(actual - expected).max() / max(np.abs(expected).max(), 1e-30)


# Each case differs from the first in what could be wrong alone: (arguments, size, batch).
_CASES = {
    "three layers": ({"num_layers": 3, "num_blocks": 2, "filters": 2}, (33, 47), 2),
    "four blocks": ({"num_layers": 2, "num_blocks": 4, "filters": 1}, (24, 17), 1),
    "own weights": ({"num_layers": 3, "num_blocks": 1, "filters": 2, "shared_weights": False}, (33, 33), 2),
    "recompute": ({"num_layers": 2, "num_blocks": 2, "filters": 2, "recompute": True}, (33, 33), 2),
    "one filter, three edges into a node": ({"num_layers": 3, "num_blocks": 2, "filters": 1}, (48, 33), 2),
    "some ops": (
        {
            "num_layers": 2,
            "num_blocks": 2,
            "filters": 3,
            "ops": ("skip_connect", "dil_conv_3x3", "none", "avg_pool_3x3"),
        },
        (33, 33),
        2,
    ),
    "one layer": ({"num_layers": 1, "num_blocks": 1, "filters": 1, "ops": ("max_pool_3x3",)}, (9, 14), 3),
}


_SLOW = ("three layers", "four blocks")


@pytest.mark.parametrize("case", [pytest.param(name, marks=[pytest.mark.slow] * (name in _SLOW)) for name in _CASES])
def test_values_and_gradients_equal_the_literal_supernet(case):
    arguments, size, batch = _CASES[case]
    net = _spread(Supernet(num_classes=3, dtype="float64", **arguments))
    images = _images(size, batch)
    logits, gradients = _gradients(net, net, images)
    expected_logits, expected = _gradients(lambda x: supernet(net, x), net, images)
    assert logits.shape == (batch, *size, 3)
    assert _relative(logits, expected_logits) < 1e-9
    # Some gradients cancel but for rounding: a normalisation follows a convolution of one channel.
    rounding = 1e-12 * max(np.abs(value).max() for value in expected.values() if value is not None)
    for name, gradient in gradients.items():
        if expected[name] is None:
            assert gradient is None or not gradient.any(), name
        else:
            largest = np.abs(expected[name]).max()
            assert np.abs(gradient - expected[name]).max() < 1e-9 * largest + rounding, name
    for name in ("alpha", "beta"):
        assert _relative(gradients[name], expected[name]) < 1e-9, name


# Levels 0 to 2 and back; a turn at every kind of place.
_GENOTYPE = AutoDeepLabGenotype(
    cell=(
        ((0, "sep_conv_3x3"), (1, "dil_conv_5x5")),
        ((1, "avg_pool_3x3"), (2, "sep_conv_5x5")),
        ((3, "skip_connect"), (0, "max_pool_3x3")),
    ),
    path=(1, 1, 2, 1),
)


def test_one_hot_supernet_equals_the_fixed_network_with_its_weights():
    """A path is a choice of one edge at each of its nodes; a node beside it sends nothing to where something is."""
    net = Supernet(3, num_layers=4, num_blocks=3, filters=2, dtype="float64")
    alpha = np.full(net.alpha.shape, 0.0)
    chosen = {edge_index(b, source): op for b, block in enumerate(_GENOTYPE.cell) for source, op in block}
    for row in range(len(alpha)):
        alpha[row, OPS.index(chosen.get(row, "none"))] = 1e4
    net.alpha.assign(alpha)
    beta, levels = np.full(net.beta.shape, 0.0), (None, 0, *_GENOTYPE.path)
    mask = edge_mask(net.num_layers)
    for layer, level in itertools.product(range(net.num_layers), range(4)):
        ends = [level + k - 1 for k in range(3) if mask[layer, level, k]]
        if ends:
            on_path = level == levels[layer + 1]
            # H^{l-2} is zero wherever the path was not.
            end = levels[layer + 2] if on_path else next(e for e in ends if e != levels[layer])
            beta[layer, level, end - level + 1] = 1e4
    net.beta.assign(beta)
    images = _images((49, 33))
    np.testing.assert_allclose(net(images), _fixed(net, images), rtol=1e-9, atol=1e-12)


def _fixed(net, images):
    """The cells of the path alone, of each block its two ops alone."""
    outputs = {(-1, 0): stem(net, images)}
    last = 0
    for layer, level in enumerate(_GENOTYPE.path):
        previous, weights = outputs[layer - 1, last], net._nodes[layer, level]
        entry = tf.convert_to_tensor(weights["entries"][[source for source, _ in incoming(layer, level)].index(last)])
        size = [-(-side // 2 ** (level + 2)) for side in images.shape[1:3]]
        direction = {-1: "up", 0: "same", 1: "down"}[level - last]
        before = outputs.get((layer - 2, level))
        own = weights["cells"][0]
        states = [None, resample(previous, entry, direction, size)]
        if before is not None:
            states[0] = resample(before, tf.convert_to_tensor(own["before"]), "same", size)
        kernels = kernels_of_edges(own, net.ops, net.num_blocks)
        for b, block in enumerate(_GENOTYPE.cell):
            terms = [
                LITERAL_OPS[op](states[source], kernels[edge_index(b, source)].get(op))
                for source, op in block
                if states[source] is not None
            ]
            states.append(tf.add_n(terms) if terms else tf.zeros_like(states[1]))
        outputs[layer, level], last = tf.concat(states[2:], -1), level
    logits = aspp(net, outputs[net.num_layers - 1, last], last)
    # The other levels are zero and so are their ASPPs' biases.
    return supernet_ops.resize(logits, images.shape[1:3])


def test_every_edge_that_exists_gets_a_gradient_and_no_other():
    net = _spread(Supernet(2, num_layers=4, num_blocks=1, filters=1, ops=("none", "skip_connect", "dil_conv_3x3")))
    _, gradients = _gradients(net, net, _images((65, 65), dtype="float32"))
    np.testing.assert_array_equal(gradients["beta"] != 0, edge_mask(4))
    assert (gradients["alpha"] != 0).all()


@pytest.mark.parametrize("size", [(33, 48), (65, 97), (129, 161), (224, 33)])
def test_any_size_gives_logits_of_the_size_of_the_image(size):
    net = Supernet(3, num_layers=4, num_blocks=1, filters=1, ops=("none", "skip_connect"))
    logits = net(_images(size, batch=1, dtype="float32"))
    assert logits.shape == (1, *size, 3) and np.isfinite(logits).all()


def test_float32_kernels_agree_with_float64():
    arguments = {"num_classes": 3, "num_layers": 2, "num_blocks": 2, "filters": 2}
    images = _images((33, 33))
    doubles = _gradients(_spread(net := Supernet(dtype="float64", **arguments)), net, images)
    floats = _gradients(_spread(net := Supernet(**arguments)), net, tf.cast(images, "float32"))
    # Six normalisations deep; 2^-24 each, amplified where a batch varies little.
    assert _relative(floats[0], doubles[0]) < 1e-4
    for name in doubles[1]:
        if np.abs(doubles[1][name]).max() > 1e-3:
            assert _relative(floats[1][name], doubles[1][name]) < 5e-3, name


def test_frozen_weights_change_neither_logits_nor_the_gradient_of_the_architecture():
    net = _spread(
        Supernet(3, num_layers=2, num_blocks=1, filters=1, ops=("dil_conv_3x3", "skip_connect"), dtype="float64")
    )
    images = _images((33, 33))
    logits, free = _gradients(net, net, images)
    again, frozen = _gradients(lambda x: net(x, weights_frozen=True), net, images)
    np.testing.assert_array_equal(logits, again)
    cells = [name for name in free if "_cell_" in name or "_from_" in name]
    assert all(frozen[name] is None or not frozen[name].any() for name in cells)
    assert any(free[name].any() for name in cells)
    for name in ("alpha", "beta"):
        np.testing.assert_allclose(frozen[name], free[name], rtol=1e-12)


def test_alpha_and_beta_and_the_weights_are_all_variables():
    net = Supernet(3, num_layers=2, num_blocks=1, filters=1)
    assert {id(v) for v in net.variables} == {id(v) for v in [*net.architecture_variables, *net.weight_variables]}
    assert len(net.variables) == len(net.architecture_variables) + len(net.weight_variables)
    assert [v.name for v in net.architecture_variables] == ["alpha", "beta"]


def test_initial_logits_are_small_and_follow_the_seed():
    nets = [Supernet(3, num_layers=3, num_blocks=3, filters=1, seed=seed) for seed in (0, 0, 1)]
    first, same, other = ([v.numpy() for v in net.variables] for net in nets)
    assert all((a == b).all() for a, b in zip(first, same, strict=True))
    assert not (first[0] == other[0]).all()
    # 72 draws: the sample's deviation is within 4 of its standard errors of 1e-3.
    assert abs(nets[0].alpha.numpy().std() - 1e-3) < 4e-3 / np.sqrt(2 * nets[0].alpha.numpy().size)


def test_config_and_weights_round_trip(tmp_path):
    net = Supernet(3, num_layers=2, num_blocks=1, filters=1, ops=("skip_connect", "dil_conv_3x3"), shared_weights=False)
    twin = Supernet.from_config(net.get_config() | {"seed": 5})
    assert twin.ops == net.ops and twin.shared_weights is False
    net.save_weights(tmp_path / "net.weights.h5")
    twin.load_weights(tmp_path / "net.weights.h5")
    for ours, theirs in zip(net.variables, twin.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_half_precision_computes_float32_logits():
    net = Supernet(3, num_layers=1, num_blocks=1, filters=2, dtype="mixed_bfloat16")
    images = _images((33, 33), dtype="float32")
    logits, gradients = _gradients(net, net, images)
    assert logits.dtype == np.float32 and all(v.dtype == "float32" for v in net.variables)
    assert all(g is not None and np.isfinite(g).all() for g in gradients.values())
    plain = Supernet(3, num_layers=1, num_blocks=1, filters=2)(images)
    # bfloat16 has 8 bits.
    assert _relative(logits, plain.numpy()) < 0.2


def test_nodes_and_their_second_input():
    assert incoming(0, 0) == [(0, 1)] and incoming(0, 1) == [(0, 2)] and incoming(0, 2) == []
    assert incoming(2, 1) == [(0, 2), (1, 1), (2, 0)] and incoming(11, 3) == [(2, 2), (3, 1)]
    assert sum(len(incoming(layer, level)) for layer in range(12) for level in range(4)) == 105
    # The stem is H^0 at stride 4; each other level has an H^{l-2} two layers after it appeared.
    assert [[has_before(layer, level) for level in range(4)] for layer in range(5)] == [
        [False] * 4,
        [True, False, False, False],
        [True, True, False, False],
        [True, True, True, False],
        [True] * 4,
    ]


@pytest.mark.parametrize("channels", [8, 16, 24, 40, 48])
def test_normalisation_and_its_gradients_equal_keras_at_every_width(channels):
    x, upstream = (tf.random.stateless_normal((2, 5, 7, channels), (seed, channels)) for seed in (0, 1))
    scale = tf.random.stateless_uniform((channels,), (2, channels), 0.5, 2.0)
    found = []
    for function in (supernet_ops.batch_norm, _keras_batch_norm):
        with tf.GradientTape() as tape:
            tape.watch([x, scale])
            outputs = function(x, scale)
        found.append([outputs, *tape.gradient(outputs, [x, scale], upstream)])
    for ours, theirs in zip(*found, strict=True):
        # float32, sums of 70 numbers.
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def _keras_batch_norm(x, scale):
    mean, variance = keras.ops.moments(x, (0, 1, 2))
    return keras.ops.batch_normalization(x, mean, variance, -1, scale=scale, epsilon=supernet_ops.EPSILON)


def test_resize_is_that_of_the_networks():
    x = _images((5, 7), dtype="float32")[..., :2]
    # The two differ in the order of float32 sums of pixel values up to 255.
    np.testing.assert_allclose(supernet_ops.resize(x, (9, 20)), resize_bilinear(x, (9, 20)), atol=1e-3)


def test_a_kernel_with_holes_convolves_at_a_rate():
    random = np.random.default_rng(0)
    x = tf.constant(random.normal(size=(2, 9, 11, 3)))
    kernel = tf.constant(random.normal(size=(5, 5, 3, 2)))
    np.testing.assert_allclose(supernet_ops.conv(x, kernel, rate=2), conv(x, kernel, rate=2), atol=1e-12)
    assert np.abs(normalize(x).numpy().mean((0, 1, 2))).max() < 1e-12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_layers": 0}, "num_layers: expected at least 1, received 0"),
        ({"ops": ("none", "skip_conect")}, "Did you mean 'skip_connect'"),
        ({"ops": ("none",)}, "besides 'none'"),
        ({"ops": ("skip_connect", "skip_connect")}, "each name once"),
    ],
)
def test_arguments_that_make_no_supernet_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        Supernet(3, **arguments)


def test_supernet_is_registered():
    assert keras.saving.get_registered_object("nas_seg>Supernet") is Supernet
