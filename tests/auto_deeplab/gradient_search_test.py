"""The steps of a gradient search, its halves of the data, its presets; what it keeps in memory."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from kept_values import kept_values

from nas_seg import losses
from nas_seg.auto_deeplab import memory, search
from nas_seg.auto_deeplab.genotype import AutoDeepLabGenotype, published
from nas_seg.auto_deeplab.search_config import PRESETS, SearchConfig, make_config
from nas_seg.auto_deeplab.supernet import Supernet
from nas_seg.train import Diverged, LabelOutOfRange
from nas_seg.utils.errors import InputError
from nas_seg.utils.tracing import quick_tracing

CLASSES, IGNORE = 3, 255
TINY = SearchConfig(num_layers=2, num_blocks=1, filters=2, crop_size=(33, 33), batch_size=2)


def make_supernet(config=TINY):
    return Supernet(CLASSES, config.num_layers, config.num_blocks, config.filters, seed=config.seed)


def make_batch(seed=0, size=2):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, (size, 33, 33)).astype(np.int32)
    # Unlike shares of ignored pixels, so that parts of a batch weigh unlike.
    for image in range(size):
        labels[image, : 8 * image] = IGNORE
    return tf.constant(rng.uniform(0, 255, (size, 33, 33, 3)), tf.float32), tf.constant(labels)


def values(variables):
    return [variable.numpy() for variable in variables]


def gradients(supernet, variables, images, labels, total):
    watched = [variable.value for variable in variables]
    with tf.GradientTape() as tape:
        cost, _ = losses.cross_entropy_sum(supernet(images), labels, IGNORE)
        loss = cost / total
    return float(loss), [g.numpy() for g in tape.gradient(loss, watched)]


def labelled(labels):
    return float(np.sum(labels.numpy() != IGNORE))


@pytest.fixture(scope="module", autouse=True)
def tracing():
    """Without TensorFlow's graph optimiser, as a search runs."""
    with quick_tracing():
        yield


def make_steps(supernet, config):
    optimizers = search.weight_optimizer(config, 20), search.architecture_optimizer(config)
    return search.make_steps(supernet, *optimizers, config, IGNORE)


@pytest.fixture(scope="module")
def searched():
    """A supernet and its two kinds of steps, one trace each for all tests."""
    supernet = make_supernet()
    weights, architecture = search.weight_optimizer(TINY, 20), search.architecture_optimizer(TINY)
    steps = search.make_steps(supernet, weights, architecture, TINY, IGNORE)
    everything = [*supernet.variables, *weights.variables, *architecture.variables]
    start = values(everything)
    return supernet, steps, lambda: [v.assign(value) for v, value in zip(everything, start, strict=True)]


def test_variables_are_either_weights_or_architecture():
    supernet = make_supernet()
    assert [v.name for v in supernet.architecture_variables] == ["alpha", "beta"]
    together = {id(v) for v in [*supernet.weight_variables, *supernet.architecture_variables]}
    assert together == {id(v) for v in supernet.variables}
    assert len(together) == len(supernet.variables)


def test_a_weight_step_is_momentum_with_decay_and_leaves_alpha_and_beta(searched):
    supernet, (weight_step, _), reset = searched
    reset()
    images, labels = make_batch()
    variables, frozen = supernet.weight_variables, values(supernet.architecture_variables)
    before = values(variables)
    loss, found = gradients(supernet, variables, images, labels, labelled(labels))
    assert weight_step(images, labels) == pytest.approx(loss, rel=1e-5)
    for old, gradient, variable in zip(before, found, variables, strict=True):
        expected = old - 0.025 * (gradient + 3e-4 * old)
        # Sums in another order: the hand-made gradient does not share the step's traced function.
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-4, atol=1e-5)
    for old, variable in zip(frozen, supernet.architecture_variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), old)
    # The second step goes on with nine tenths of the first one's gradient.
    middle = values(variables)
    _, second = gradients(supernet, variables, images, labels, labelled(labels))
    weight_step(images, labels)
    rate = 0.001 + 0.024 * (1 + np.cos(np.pi / 20)) / 2
    velocity = 0.9 * (found[0] + 3e-4 * before[0]) + second[0] + 3e-4 * middle[0]
    np.testing.assert_allclose(variables[0].numpy(), middle[0] - rate * velocity, rtol=1e-4, atol=1e-5)


def test_an_architecture_step_is_adam_with_decay_and_leaves_the_weights(searched):
    supernet, (_, architecture_step), reset = searched
    reset()
    images, labels = make_batch(1)
    variables, frozen = supernet.architecture_variables, values(supernet.weight_variables)
    before = values(variables)
    _, found = gradients(supernet, variables, images, labels, labelled(labels))
    architecture_step(images, labels)
    for old, variable in zip(frozen, supernet.weight_variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), old)
    for old, gradient, variable in zip(before, found, variables, strict=True):
        whole = gradient + 1e-3 * old
        # Adam's first step: the rate times the sign, but for numbers near its epsilon. Those whose sign rounding could
        # turn are left out.
        expected = -0.003 * whole / (np.abs(whole) + 1e-7 / np.sqrt(1 - 0.999))
        clear = np.abs(whole) > 1e-5
        assert clear.any()
        np.testing.assert_allclose((variable.numpy() - old)[clear], expected[clear], rtol=0.02)


def test_a_batch_in_parts_adds_up_the_gradients_of_its_parts():
    config = dataclasses.replace(TINY, num_layers=1, micro_batches=2, batch_size=4)
    supernet = make_supernet(config)
    _, step = make_steps(supernet, config)
    images, labels = make_batch(2, size=4)
    variables, total = supernet.architecture_variables, labelled(labels)
    parts = [gradients(supernet, variables, images[i : i + 2], labels[i : i + 2], total) for i in (0, 2)]
    before = values(variables)
    assert step(images, labels) == pytest.approx(sum(loss for loss, _ in parts), rel=1e-5)
    for old, a, b, variable in zip(before, parts[0][1], parts[1][1], variables, strict=True):
        clear = np.abs(a + b) > 1e-4
        assert clear.any()
        np.testing.assert_array_equal(np.sign(old - variable.numpy())[clear], np.sign(a + b)[clear])


def test_a_graph_for_each_kind_of_step_changes_no_step():
    config = dataclasses.replace(TINY, num_layers=1)
    found = []
    for one in (config, dataclasses.replace(config, separate_graphs=True)):
        supernet = make_supernet(one)
        steps = make_steps(supernet, one)
        losses = [step(*make_batch(30 + k)) for k in range(2) for step in steps]
        found.append((losses, values(supernet.architecture_variables)))
    # Adam's rate is 0.003 whatever the gradient; sums in another order may turn the sign of the smallest ones only.
    np.testing.assert_allclose(found[1][0], found[0][0], rtol=1e-5)
    for a, b in zip(found[1][1], found[0][1], strict=True):
        assert np.median(np.abs(a - b)) < 1e-5


def test_the_same_seed_gives_the_same_alpha_after_three_steps(searched):
    supernet, (weight_step, architecture_step), reset = searched
    found = []
    for _ in range(2):
        reset()
        for k in range(3):
            weight_step(*make_batch(10 + k))
            architecture_step(*make_batch(20 + k))
        found.append(values(supernet.variables))
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)
    for variable, other in zip(make_supernet().variables, make_supernet().variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), other.numpy())
    assert np.abs(found[0][0] - make_supernet().alpha.numpy()).max() > 0.003


def test_labels_out_of_range_and_losses_that_are_no_numbers_are_told(searched):
    supernet, (weight_step, architecture_step), reset = searched
    reset()
    images, labels = make_batch()
    with pytest.raises(LabelOutOfRange, match="4 pixels of weight step 0 are neither a class nor ignore_label"):
        weight_step(images, tf.tensor_scatter_nd_update(labels, [[1, 32, i] for i in range(4)], [CLASSES] * 4))
    reset()
    with pytest.raises(Diverged, match="no longer a finite number at weight step 0"):
        weight_step(images * float("nan"), labels)
    reset()
    supernet.alpha.assign(supernet.alpha * float("nan"))
    with pytest.raises(Diverged, match="no longer a finite number at step of alpha and beta 0"):
        architecture_step(images, labels)
    reset()


def test_the_rate_of_the_weights_is_half_a_cosine_that_ends_at_its_end():
    rate = search.weight_optimizer(SearchConfig(), 1000)._learning_rate
    received = [float(rate(step)) for step in (0, 250, 500, 750, 1000)]
    expected = [0.001 + 0.024 * (1 + np.cos(np.pi * share)) / 2 for share in (0, 0.25, 0.5, 0.75, 1)]
    np.testing.assert_allclose(received, expected, rtol=1e-5)
    assert received[0] == pytest.approx(0.025) and received[-1] == pytest.approx(0.001)
    # A cosine to zero, cut off at 0.001, would be lower in between.
    assert received[3] > 0.025 * (1 + np.cos(0.75 * np.pi)) / 2 + 5e-4


def test_the_default_optimisers_are_the_papers():
    config = SearchConfig()
    assert (config.momentum, config.weight_decay, config.batch_size, config.crop_size) == (0.9, 3e-4, 2, (321, 321))
    assert (config.epochs, config.num_frozen_epochs) == (40, 20)
    assert (config.num_layers, config.num_blocks, config.filters) == (12, 5, 8)
    adam = search.architecture_optimizer(config)
    assert float(adam.learning_rate) == pytest.approx(0.003) and (adam.beta_1, adam.beta_2) == (0.5, 0.999)
    assert config.architecture_weight_decay == 1e-3


@pytest.mark.parametrize("count", [2, 7, 367])
def test_halves_are_disjoint_whole_and_drawn_with_the_seed(count):
    a, b = search.halve(count, 3)
    assert sorted([*a, *b]) == list(range(count)) and len(a) - len(b) == count % 2
    assert search.halve(count, 3) == (a, b)
    if count == 367:
        assert search.halve(count, 4) != (a, b)
        # Not the first and the second half in order.
        assert 70 < sum(place < 184 for place in a) < 115


def test_a_split_too_small_to_halve_is_refused():
    with pytest.raises(InputError, match="at least 4 pictures, two halves of one batch of 2, received 3"):
        search.halve(3, 0, least=2)


def test_collapse_is_told_by_its_kind():
    pools = (((0, "max_pool_3x3"), (1, "skip_connect")),) * 4
    block = ((0, "sep_conv_3x3"), (1, "avg_pool_3x3"))
    assert search.describe_collapse(published("auto_deeplab")) is None
    assert search.describe_collapse(AutoDeepLabGenotype((*pools, block), (0, 1))) == (
        "9 of 10 ops of the cell are skips and pools"
    )
    assert search.describe_collapse(AutoDeepLabGenotype((block,) * 2, (0, 0))) == "the path never leaves stride 4"
    assert "; " in search.describe_collapse(AutoDeepLabGenotype((*pools, block), (0, 0)))


def test_scores_tell_how_decided_the_logits_are():
    genotype, scores = search.decode_scores(np.zeros((20, 8)), np.zeros((12, 4, 3)))
    assert genotype.path == (0,) * 12 and scores["margin"] == 0.0
    assert scores["alpha_entropy"] == pytest.approx(np.log(8))
    assert set(scores) == {"alpha_entropy", "beta_entropy", "path_entropy", "margin"}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"micro_batches": 3}, "micro_batches: expected a divisor of batch_size 2, received 3"),
        ({"crop_size": (32, 129)}, "crop_size: expected two sizes of 33 or more"),
        ({"frozen_epochs": 40}, "frozen_epochs: expected 0 or more and fewer than epochs 40, received 40"),
        ({"dtype_policy": "float23"}, "unknown dtype_policy 'float23'.*Did you mean 'float32'"),
        ({"adam_beta_1": 1.0}, r"adam_beta_1: expected a number in \[0, 1\)"),
        ({"learning_rate": -1.0}, "learning_rate: expected 0 or more"),
        ({"epochs": 0}, "epochs: expected 1 or more"),
        ({"image_scale": 0.0}, "image_scale: expected a number above 0"),
    ],
)
def test_a_wrong_setting_is_named(changes, message):
    with pytest.raises(InputError, match=message):
        SearchConfig(**changes)


def test_what_is_given_wins_over_the_preset():
    assert make_config("paper", {}) == SearchConfig()
    laptop = make_config("laptop", {"epochs": 7})
    assert laptop.epochs == 7 and laptop.num_frozen_epochs == 3
    assert laptop.filters == PRESETS["laptop"]["filters"]
    with pytest.raises(InputError, match="unknown preset 'labtop'.*Did you mean 'laptop'"):
        make_config("labtop", {})


def test_the_laptop_preset_is_a_real_search():
    laptop = make_config("laptop", {})
    weight_steps = laptop.epochs * laptop.steps_per_epoch
    assert weight_steps >= 400
    assert weight_steps - laptop.num_frozen_epochs * laptop.steps_per_epoch >= 200
    assert laptop.num_layers >= 8 and laptop.num_blocks == 5


@pytest.mark.parametrize(
    "changes", [{}, {"num_blocks": 3, "num_layers": 5}, {"num_layers": 3, "shared_weights": False}]
)
def test_the_estimate_counts_every_weight(changes):
    config = dataclasses.replace(TINY, **changes)
    supernet = Supernet(
        CLASSES, config.num_layers, config.num_blocks, config.filters, shared_weights=config.shared_weights
    )
    counted = sum(int(np.prod(v.shape)) for v in supernet.weight_variables)
    assert memory.count_weights(config, CLASSES) == counted


def test_the_estimate_counts_what_the_traced_gradient_keeps():
    config = SearchConfig(num_layers=2, num_blocks=2, filters=4, crop_size=(129, 129), batch_size=1)
    supernet = make_supernet(config)
    watched = [variable.value for variable in supernet.weight_variables]

    @tf.function
    def gradient(images):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(watched)
            loss = tf.reduce_sum(tf.square(supernet(images)))
        return tape.gradient(loss, watched)

    traced = kept_values(gradient.get_concrete_function(tf.TensorSpec((1, 129, 129, 3))).graph)
    # Odds and ends: statistics, kernels that are cut in two.
    assert memory.kept_values(config, CLASSES) == pytest.approx(traced, rel=0.1)


def test_less_memory_is_estimated_for_parts_and_recomputation():
    def of_batch(**changes):
        estimate = memory.estimate_memory(SearchConfig(**changes), 19)
        return estimate.activations + estimate.workspace

    assert of_batch(micro_batches=2) == pytest.approx(0.5 * of_batch(), rel=0.01)
    assert of_batch(recompute=True) < 0.4 * of_batch()
    # The pixels; each stride rounds up.
    assert of_batch(crop_size=(129, 129)) == pytest.approx((129 / 321) ** 2 * of_batch(), rel=0.1)


@pytest.mark.parametrize("separate_graphs, gib", [(False, 3.49), (True, 4.73)])
def test_the_estimate_is_near_what_was_measured(separate_graphs, gib):
    # The peak of a search with its data and scores, on two cores.
    sizes = {"num_layers": 10, "filters": 4, "crop_size": (129, 129), "batch_size": 4}
    config = SearchConfig(**sizes, separate_graphs=separate_graphs)
    assert memory.estimate_memory(config, 11).total / memory.GIB == pytest.approx(gib, rel=0.1)


def test_a_batch_too_large_for_the_memory_is_refused_with_what_would_fit():
    config = SearchConfig()
    memory.check_memory(config, 19, 64)
    with pytest.raises(InputError, match="--batch_size: 2 pictures of 321x321 at once.*--micro_batches=2 fits"):
        memory.check_memory(config, 19, memory.estimate_memory(config, 19).total / memory.GIB - 0.5)
    with pytest.raises(InputError, match="--memory_gib=0.8; --recompute takes less"):
        memory.check_memory(config, 19, 0.8)
    with pytest.raises(InputError, match="; a smaller --crop_size takes less"):
        memory.check_memory(dataclasses.replace(config, recompute=True), 19, 0.8)


def test_steps_in_bfloat16_keep_their_variables_in_float32():
    supernet = Supernet(CLASSES, 1, 1, 2, dtype="mixed_bfloat16")
    config = dataclasses.replace(TINY, num_layers=1)
    variables, before = supernet.weight_variables, values(supernet.weight_variables)
    step, _ = make_steps(supernet, config)
    images, labels = make_batch()
    received = step(images, labels)
    assert all(variable.dtype == "float32" for variable in supernet.variables)
    assert any(np.abs(v.numpy() - old).max() > 0 for v, old in zip(variables, before, strict=True))
    whole = Supernet(CLASSES, 1, 1, 2)
    expected, _ = gradients(whole, whole.weight_variables, images, labels, labelled(labels))
    # bfloat16 has eight bits.
    assert received == pytest.approx(expected, rel=0.05)
