"""Tests the controller's probabilities and gradients, by enumeration and against the recorded one."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from case import fixtures

from nas_seg.dpc.space import DPCSpace
from nas_seg.template.controller import AUTOREGRESSIVE, BLIND, MODES, Controller, from_recorded, heads, warmup_steps
from nas_seg.template.genotype import TemplateGenotype
from nas_seg.template.space import TemplateSpace
from nas_seg.utils.errors import InputError

SPACE = TemplateSpace()
# Decisions of 2, 3, 2 and 1 choices, the first and third of one head.
SMALL = Controller((2, 3, 2, 1), (0, 1, 0, 2), warmup_steps=1, hidden=4)


def small(mode):
    """A controller far from uniform, its weights in doubles, and all its vectors."""
    controller = dataclasses.replace(SMALL, mode=mode)
    weights = controller.initial(np.random.default_rng(3))
    vectors = np.array(list(itertools.product(*map(range, controller.num_choices))))
    return controller, {name: 10.0 * value.astype(np.float64) for name, value in weights.items()}, vectors


def recorded():
    arrays = dict(np.load(fixtures("template", "template_controller.weights.npz")))
    cases = json.loads(fixtures("template", "manifest.json").read_text())["template_controller"]
    return arrays, cases["samples"] + cases["published"]


def test_recorded_log_probabilities_and_entropies():
    arrays, cases = recorded()
    vectors = [SPACE.encode(TemplateGenotype.from_lists(case["config"])) for case in cases]
    result = Controller.of(SPACE, BLIND).evaluate(from_recorded(SPACE, arrays), vectors)
    # Sums of 44 terms near -53 in float32, whose steps are 4e-6 there.
    np.testing.assert_allclose(result.log_probs, [case["log_prob"] for case in cases], rtol=0, atol=1e-5)
    np.testing.assert_allclose(result.entropies, [case["entropy"] for case in cases], rtol=0, atol=1e-5)


def test_recorded_weights_are_all_of_ours_but_an_unused_embedding_and_the_second_biases():
    arrays, _ = recorded()
    total = sum(array.size for array in arrays.values())
    weights, controller = from_recorded(SPACE, arrays), Controller.of(SPACE, BLIND)
    head_sizes = dict(zip(controller.heads, controller.num_choices, strict=True))
    padding = sum(101 * (6 + 2 - count) for count in head_sizes.values())  # The widest head has 8 choices.
    ours = sum(value.size for value in weights.values())
    assert total == 171_188
    assert ours - padding == total - arrays["enc_op.weight"].size - 2 * 400


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda arrays: arrays.pop("g_emb"), "'g_emb': expected shape .* received no such array"),
        (lambda arrays: arrays.update(g_embb=np.zeros(3)), "unknown array 'g_embb'.*Did you mean 'g_emb'"),
        (lambda arrays: arrays.update({"ctx_fcs.3.bias": np.zeros(4)}), r"'ctx_fcs.3.bias': expected shape \(3,\)"),
    ],
)
def test_recorded_weights_are_read_strictly(change, expected):
    arrays, _ = recorded()
    change(arrays)
    with pytest.raises(InputError, match=expected):
        from_recorded(SPACE, arrays)


def test_template_decisions_share_heads_as_in_the_authors_code():
    numbers = dict(zip(SPACE.names, heads(SPACE), strict=True))
    shared = {
        "op": {f"t{i}_op{k}" for i in range(3) for k in (1, 2)},
        "aggregation": {f"t{i}_aggregation" for i in range(3)},
        "template": {f"l{i}_template" for i in range(7)},
        "repeats": {f"l{i}_repeats" for i in range(7)},
        "stride": {f"l{i}_stride" for i in range(3)},
        "the only stride": {f"l{i}_stride" for i in range(3, 7)},
    }
    alone = {frozenset({f"l{i}_input{k}"}) for i in range(7) for k in (1, 2)}
    groups = {frozenset(n for n in numbers if numbers[n] == head) for head in numbers.values()}
    assert groups == alone | {frozenset(group) for group in shared.values()}
    assert warmup_steps(SPACE) == 2


def test_other_spaces_share_heads_by_name_and_choices():
    space = DPCSpace(3)
    assert space.names == ("b0_input", "b0_op", "b1_input", "b1_op", "b2_input", "b2_op")
    assert heads(space) == (0, 1, 2, 1, 3, 1)
    assert warmup_steps(space) == 0


@pytest.mark.parametrize("mode", MODES)
def test_probabilities_of_all_vectors_sum_to_one(mode):
    controller, weights, vectors = small(mode)
    probabilities = np.exp(controller.evaluate(weights, vectors).log_probs)
    assert probabilities.max() > 2 / len(vectors)  # Far from uniform, or it says little.
    np.testing.assert_allclose(probabilities.sum(), 1.0, rtol=1e-12)


def test_blind_decisions_are_independent_and_their_entropy_is_the_policys():
    controller, weights, vectors = small(BLIND)
    result = controller.evaluate(weights, vectors)
    table = result.log_probs.reshape(2, 3, 2)
    parts = [table[:, :1, :1], table[:1, :, :1], table[:1, :1, :]]
    np.testing.assert_allclose(table, sum(parts) - 2 * table[0, 0, 0], atol=1e-12)
    # The same for every vector, and by its definition.
    np.testing.assert_allclose(result.entropies, -(np.exp(result.log_probs) * result.log_probs).sum(), rtol=1e-12)


def test_autoregressive_decisions_depend_on_earlier_ones_and_entropies_average_to_the_policys():
    controller, weights, vectors = small(AUTOREGRESSIVE)
    result = controller.evaluate(weights, vectors)
    table = result.log_probs.reshape(2, 3, 2)
    assert abs(table[0, 0, 0] + table[1, 1, 0] - table[0, 1, 0] - table[1, 0, 0]) > 0.01
    assert np.ptp(result.entropies) > 0.01
    probabilities = np.exp(result.log_probs)
    np.testing.assert_allclose(
        (probabilities * result.entropies).sum(), -(probabilities * result.log_probs).sum(), rtol=1e-12
    )


@pytest.mark.parametrize("mode", MODES)
def test_samples_come_as_often_as_their_probabilities_say(mode):
    controller, weights, vectors = small(mode)
    expected = 4000 * np.exp(controller.evaluate(weights, vectors).log_probs)
    drawn = controller.sample(weights, np.random.default_rng(0), 4000)
    counts = (drawn[:, None] == vectors).all(-1).sum(0)
    assert counts.sum() == 4000
    # Chi square with 11 degrees of freedom: above 37.4 with probability 1e-4; the seed is fixed.
    assert ((counts - expected) ** 2 / expected).sum() < 37.4


def test_a_high_temperature_is_uniform_and_a_low_one_takes_the_likeliest():
    controller, weights, vectors = small(BLIND)
    best = vectors[controller.evaluate(weights, vectors).log_probs.argmax()]
    rng = np.random.default_rng(0)
    assert (controller.sample(weights, rng, 50, temperature=1e-3) == best).all()
    drawn = controller.sample(weights, rng, 4000, temperature=1e6)
    counts = (drawn[:, None] == vectors).all(-1).sum(0)
    # Chi square as above.
    assert ((counts - 4000 / 12) ** 2 / (4000 / 12)).sum() < 37.4


@pytest.mark.parametrize("mode", MODES)
def test_gradients_are_those_of_finite_differences(mode):
    controller, weights, vectors = small(mode)
    rng = np.random.default_rng(1)
    slopes = rng.normal(size=(2, len(vectors)))

    def value(weights):
        result = controller.evaluate(weights, vectors)
        return (slopes[0] * result.log_probs + slopes[1] * result.entropies).sum()

    gradient = controller.evaluate(weights, vectors).pull_back(*slopes)
    assert {name: g.shape for name, g in gradient.items()} == controller.shapes
    for name in weights:
        for index in list(np.ndindex(weights[name].shape))[::3]:
            step = np.zeros_like(weights[name])
            step[index] = 1e-5
            up, down = (value(weights | {name: weights[name] + sign * step}) for sign in (1, -1))
            # Central differences in doubles: errors of about 1e-10 of the terms and of (1e-5)^2.
            np.testing.assert_allclose(gradient[name][index], (up - down) / 2e-5, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("mode", MODES)
def test_a_vector_alone_is_as_among_others(mode):
    controller, weights, vectors = small(mode)
    together = controller.evaluate(weights, vectors).log_probs
    alone = [controller.evaluate(weights, vector[None]).log_probs[0] for vector in vectors]
    np.testing.assert_allclose(alone, together, rtol=1e-12)


def test_the_lstm_is_that_of_keras():
    keras = pytest.importorskip("keras")
    controller, weights, vectors = small(AUTOREGRESSIVE)
    cells = []
    for layer in range(2):
        cell = keras.layers.LSTMCell(4, dtype="float64")
        cell.build((None, 4))
        kernel = np.concatenate(list(weights[f"kernel{layer}"]), 1)
        cell.set_weights([kernel[:4], kernel[4:], weights[f"bias{layer}"].ravel()])
        cells.append(cell)
    states, expected = [[np.zeros((12, 4))] * 2 for _ in cells], np.zeros(12)
    inputs = np.repeat(weights["start"][None], 12, 0)
    for step in range(5):
        for i, cell in enumerate(cells):
            inputs, states[i] = cell(inputs, states[i])
        if step:
            head, chosen = controller.heads[step - 1], vectors[:, step - 1]
            logits = (np.array(inputs) @ weights["head_kernel"][head] + weights["head_bias"][head])[
                :, : controller.num_choices[step - 1]
            ]
            expected += (logits - np.log(np.exp(logits).sum(-1, keepdims=True)))[np.arange(12), chosen]
            inputs = weights["embedding"][head, chosen]
    np.testing.assert_allclose(controller.evaluate(weights, vectors).log_probs, expected, rtol=1e-10)


def test_unknown_mode_is_named():
    with pytest.raises(InputError, match="unknown mode 'blnd'.*Did you mean 'blind'"):
        Controller.of(SPACE, "blnd")
