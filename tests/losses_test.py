import json
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from nas_seg import losses
from nas_seg.core.resize import resize_bilinear

IGNORE = 255
RECORDED = json.loads(pathlib.Path("tests/golden/deeplab_training.json").read_text())["loss"]


def random_batch(seed=0, ignored=0.3):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(3, 6, 7, 4)).astype(np.float32)
    labels = rng.integers(0, 4, (3, 6, 7))
    return logits, np.where(rng.random(labels.shape) < ignored, IGNORE, labels).astype(np.int32)


def quotient(pair):
    total, count = (float(value) for value in pair)
    return total / count if count else 0.0


@pytest.fixture(scope="module")
def recorded_inputs():
    with np.load("tests/golden/deeplab_loss.npz", allow_pickle=False) as arrays:
        return arrays["logits"], arrays["labels"][..., 0].astype(np.int32)


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: "-".join(map(str, case.values())))
def test_losses_agree_with_those_recorded_from_deeplab(case, recorded_inputs):
    weights, (logits, labels) = case.get("loss_weight", ()), recorded_inputs
    if case.get("upsample_logits", True):
        # DeepLab resizes the logits to the labels before the loss; the model does that here.
        logits = tf.compat.v1.image.resize_bilinear(logits, labels.shape[1:], align_corners=True)
    else:
        labels = losses.labels_like(labels, logits)
    pair = losses.cross_entropy_sum(
        logits,
        labels,
        IGNORE,
        label_weights=(weights,) * 4 if isinstance(weights, float) else weights,
        top_k_percent_pixels=case.get("top_k_percent_pixels", 1.0),
        hard_example_mining_step=case.get("hard_example_mining_step", 0),
        step=case["global_step"],
    )
    # Sums of some 600 float32 numbers in another order.
    assert quotient(pair) == pytest.approx(case["loss"], rel=2e-6)


@pytest.mark.parametrize("size", [(5, 7), (4, 6), (1, 1), (17, 26), (9, 13)])
def test_labels_at_the_size_of_logits_are_tensorflows_nearest_ones(size):
    labels = np.arange(9 * 13, dtype=np.int32).reshape(1, 9, 13, 1)
    expected = tf.compat.v1.image.resize_nearest_neighbor(labels, size, align_corners=True)[..., 0]
    np.testing.assert_array_equal(losses.labels_like(labels[..., 0], np.zeros((1, *size, 4))), expected)


def test_the_loss_is_the_mean_over_the_labelled_pixels():
    logits, labels = random_batch()
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    costs = [-logs[index][labels[index]] for index in np.ndindex(labels.shape) if labels[index] != IGNORE]
    assert quotient(losses.cross_entropy_sum(logits, labels, IGNORE)) == pytest.approx(np.mean(costs), rel=1e-5)


def test_nothing_labelled_costs_nothing_and_pulls_nowhere():
    logits, labels = random_batch(ignored=2.0)
    logits = tf.Variable(logits)
    with tf.GradientTape() as tape:
        total, count = losses.cross_entropy_sum(logits, labels, IGNORE)
    assert float(total) == 0 and float(count) == 0
    assert not tape.gradient(total, logits).numpy().any()


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_ignored_and_unpicked_pixels_have_no_gradient(share):
    logits, labels = random_batch()
    logits = tf.Variable(logits)
    with tf.GradientTape() as tape:
        total, count = losses.cross_entropy_sum(logits, labels, IGNORE, top_k_percent_pixels=share)
    pulled = np.abs(tape.gradient(total, logits).numpy()).sum(-1) > 0
    assert pulled.sum() == count
    assert not pulled[labels == IGNORE].any()


def test_an_ignore_label_among_the_classes_is_masked():
    logits, labels = random_batch(ignored=0)
    _, count = losses.cross_entropy_sum(logits, labels, ignore_label=0)
    assert count == (labels != 0).sum()


@pytest.mark.parametrize("stray", [4, 254, -1])
def test_a_label_out_of_range_makes_the_loss_not_a_number(stray):
    logits, labels = random_batch()
    labels[0, 0, 0] = stray
    assert np.isnan(float(losses.cross_entropy_sum(logits, labels, IGNORE)[0]))


def test_parts_of_a_batch_add_up_to_the_batch():
    # Unevenly ignored, so that the mean of the parts' means is another number.
    logits, labels = random_batch(3)
    labels[0] = np.where(np.arange(42).reshape(6, 7) > 2, IGNORE, labels[0])
    whole = losses.cross_entropy_sum(logits, labels, IGNORE)
    parts = [losses.cross_entropy_sum(logits[i : i + 1], labels[i : i + 1], IGNORE) for i in range(3)]
    assert quotient(np.sum(parts, axis=0)) == pytest.approx(quotient(whole), rel=1e-6)
    assert abs(np.mean([quotient(part) for part in parts]) - quotient(whole)) > 1e-3


def test_the_keras_loss_is_the_same_number_and_survives_saving():
    logits, labels = random_batch()
    loss = losses.MaskedCrossEntropy(IGNORE, label_weights=(1.0, 2.0, 0.5, 1.0))
    expected = losses.cross_entropy_sum(logits, labels, IGNORE, label_weights=loss.label_weights)
    assert float(loss(labels, logits)) == pytest.approx(quotient(expected), rel=1e-6)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert float(again(labels, logits)) == float(loss(labels, logits))


def test_model_fit_learns_with_the_keras_loss():
    images = np.random.default_rng(0).normal(size=(8, 6, 6, 3)).astype(np.float32)
    labels = np.where(images[..., 0] > 1.5, IGNORE, images[..., 0] > 0).astype(np.int32)
    model = keras.Sequential([keras.Input((6, 6, 3)), keras.layers.Conv2D(2, 1)])
    model.compile(keras.optimizers.SGD(1.0), loss=losses.MaskedCrossEntropy(IGNORE))
    history = model.fit(images, labels, epochs=5, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(5, 4), (17, 13), (6, 4), (3, 2)])
@pytest.mark.parametrize("weights", [(), (0.5, 2.0, 1.0, 3.0)])
def test_loss_that_resizes_is_that_of_resized_logits(align_corners, size, weights):
    random = np.random.default_rng(0)
    logits = tf.constant(random.normal(scale=3.0, size=(2, 5, 4, 4)), tf.float32)
    labels = random.choice([0, 1, 2, 3, 255], (2, *size))

    def gradient_of(loss):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            cost, count = loss(logits)
        return cost, count, tape.gradient(cost, logits)

    def plain(x):
        return losses.cross_entropy_sum(resize_bilinear(x, size, align_corners), labels, 255, label_weights=weights)

    def fused(x):
        return losses.cross_entropy_sum(x, labels, 255, label_weights=weights, align_corners=align_corners)

    expected = gradient_of(plain)
    for function in (fused, tf.function(fused)):
        for ours, theirs in zip(gradient_of(function), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_loss_that_resizes_is_nan_for_a_stray_label_and_finite_for_large_logits():
    logits = np.zeros((1, 2, 2, 3), np.float32)
    logits[..., 1] = 1e4
    cost = losses.resized_cross_entropy(logits, np.array([[[0, 1, 3], [-1, 255, 2]]]), 255)
    np.testing.assert_allclose(cost, [[[1e4, 0.0, np.nan], [np.nan, 0.0, 1e4]]])


def test_loss_resizes_maps_whose_sizes_are_unknown_when_it_is_traced():
    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 2)), tf.TensorSpec((None, None, None), tf.int32)])
    def loss(logits, labels):
        return losses.resized_cross_entropy(logits, labels, 255)

    logits, labels = tf.random.normal((2, 3, 4, 2)), tf.ones((2, 9, 7), tf.int32)
    expected = losses.cross_entropy(resize_bilinear(logits, (9, 7)), labels, 255)
    np.testing.assert_allclose(loss(logits, labels), expected, rtol=1e-5, atol=1e-5)
