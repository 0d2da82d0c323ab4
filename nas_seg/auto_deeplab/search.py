"""A step of the search: the weights on one half of the data, alpha and beta on the other.

Source: Auto-DeepLab (arXiv 1901.02985), section 4.1: first-order DARTS. Each step takes the gradient of its own
variables at the present values of the others; neither differentiates through a step of the other.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from nas_seg import losses
from nas_seg.auto_deeplab import decode
from nas_seg.auto_deeplab.genotype import AutoDeepLabGenotype
from nas_seg.auto_deeplab.search_config import SearchConfig
from nas_seg.auto_deeplab.supernet import Supernet
from nas_seg.optimizers import Momentum
from nas_seg.train import Diverged, LabelOutOfRange
from nas_seg.utils.errors import InputError

# Ops without weights, which a search that collapses is left with.
_WITHOUT_WEIGHTS = ("skip_connect", "max_pool_3x3", "avg_pool_3x3")
# A cell with so large a share of them has collapsed.
_COLLAPSED_SHARE = 0.8

# (images [N, H, W, 3], labels int32 [N, H, W]) -> loss; raises Diverged or LabelOutOfRange.
Step = Callable[[Any, Any], float]


class Halves(NamedTuple):
    """The two parts of the training split, as sorted places of their records."""

    train_a: tuple[int, ...]
    train_b: tuple[int, ...]


def halve(num_images: int, seed: int, least: int = 1) -> Halves:
    """Splits 0 .. num_images - 1 at random into trainA and trainB; trainA has the odd one.

    Args:
        num_images: of the training split.
        seed: of the draw.
        least: how many pictures either half must have, those of one step.

    Raises:
        InputError: where the split is too small.
    """
    if num_images // 2 < least:
        raise InputError(
            f"train_split: expected at least {2 * least} pictures, two halves of one batch of {least}, received "
            f"{num_images}"
        )
    order = np.random.default_rng([seed, num_images]).permutation(num_images)
    middle = -(-num_images // 2)
    return Halves(*(tuple(sorted(part.tolist())) for part in (order[:middle], order[middle:])))


def weight_optimizer(config: SearchConfig, total_steps: int) -> Momentum:
    """SGD with momentum whose rate falls along half a cosine, from `learning_rate` to `end_learning_rate`."""
    schedule = keras.optimizers.schedules.CosineDecay(
        config.learning_rate,
        total_steps,
        # A share of the rate at the start; not a bound below which the curve of a cosine to zero is cut off.
        alpha=config.end_learning_rate / config.learning_rate if config.learning_rate else 0.0,
    )
    return Momentum(schedule, config.momentum)


def architecture_optimizer(config: SearchConfig) -> keras.optimizers.Adam:
    """Adam at a constant rate."""
    return keras.optimizers.Adam(config.architecture_learning_rate, config.adam_beta_1, config.adam_beta_2)


class _Group(NamedTuple):
    """Variables that one kind of step changes.

    Attributes:
        kind: of step, in words.
        decay: L2 factor.
    """

    kind: str
    variables: Sequence[keras.Variable]
    optimizer: keras.optimizers.Optimizer
    decay: float


def make_steps(
    supernet: Supernet,
    weight_optimizer: Momentum,
    architecture_optimizer: keras.optimizers.Adam,
    config: SearchConfig,
    ignore_label: int,
) -> tuple[Step, Step]:
    """(a step of all weights, a step of alpha and beta); each leaves the variables of the other as they are.

    Unless `config.separate_graphs`, one traced function does both. It has all gradients either way: those that a step
    of alpha and beta does not need cost it time, a second graph of every cell would cost memory.
    """
    groups = [
        _Group("weight step", supernet.weight_variables, weight_optimizer, config.weight_decay),
        _Group(
            "step of alpha and beta",
            supernet.architecture_variables,
            architecture_optimizer,
            config.architecture_weight_decay,
        ),
    ]
    together = [[group] for group in groups] if config.separate_graphs else [groups]
    runs = [_traced(supernet, some, config, ignore_label) for some in together]
    weights, architecture = (
        _checked(run, *each) for run, some in zip(runs, together, strict=True) for each in enumerate(some)
    )
    return weights, architecture


def predictor(supernet: Supernet, config: SearchConfig) -> Callable[[Any], tf.Tensor]:
    """Images [N, H, W, 3] -> int32 classes [N, H, W]; traced once for each size, of the parts that the steps have."""

    @tf.function(autograph=False)
    def predict(images):
        return tf.argmax(supernet(images, weights_frozen=config.separate_graphs), axis=-1, output_type=tf.int32)

    return predict


def decode_scores(alpha: np.ndarray, beta: np.ndarray) -> tuple[AutoDeepLabGenotype, dict[str, float]]:
    """(decoded network, how decided the logits are): entropies in nats and the margin of the best path."""
    path, found = decode.best_path(beta), decode.entropies(alpha, beta)
    genotype = AutoDeepLabGenotype(decode.decode_cell(alpha), path.levels)
    scores = {f"{name}_entropy": value for name, value in found._asdict().items()}
    return genotype, scores | {"margin": path.margin}


def describe_collapse(genotype: AutoDeepLabGenotype) -> str | None:
    """What is degenerate in a network, None where nothing is.

    A cell has collapsed when at least four fifths of its ops have no weights (skip, pools); a path when it never
    leaves stride 4.
    """
    ops = [op for block in genotype.cell for _, op in block]
    without = sum(op in _WITHOUT_WEIGHTS for op in ops)
    found = []
    if without >= _COLLAPSED_SHARE * len(ops):
        found.append(f"{without} of {len(ops)} ops of the cell are skips and pools")
    if not any(genotype.path):
        found.append("the path never leaves stride 4")
    return "; ".join(found) or None


def _traced(
    supernet: Supernet, groups: Sequence[_Group], config: SearchConfig, ignore_label: int
) -> Callable[[Any, Any, Any], tuple[tf.Tensor, tf.Tensor]]:
    """(images, labels, index of a group) -> (loss, how many labels are neither a class nor ignore_label), and a step of
    that group: gradient with L2 decay, and its optimizer."""
    for group in groups:
        group.optimizer.build(group.variables)
    watched = [[variable.value for variable in group.variables] for group in groups]
    weights_frozen = not any(group.variables == supernet.weight_variables for group in groups)
    micro_batches = config.micro_batches

    def gradient_of(images, labels, total):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(watched)
            logits = supernet(images, weights_frozen=weights_frozen)
            cost, _ = losses.cross_entropy_sum(logits, labels, ignore_label)
            loss = cost / total
        return loss, tape.gradient(loss, watched, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    def summed(images, labels, total):
        """Loss and gradients of the parts of a batch, one after another."""
        if micro_batches == 1:
            return gradient_of(images, labels, total)
        shape = (micro_batches, images.shape[0] // micro_batches)
        images = tf.reshape(images, (*shape, *images.shape[1:]))
        labels = tf.reshape(labels, (*shape, *labels.shape[1:]))

        def add(part, loss, gradients):
            more, terms = gradient_of(images[part], labels[part], total)
            return part + 1, loss + more, tf.nest.map_structure(tf.add, gradients, terms)

        start = (0, 0.0, tf.nest.map_structure(tf.zeros_like, watched))
        # In turn: what one part keeps is let go before the next begins.
        _, loss, gradients = tf.while_loop(lambda part, *_: part < micro_batches, add, start, parallel_iterations=1)
        return loss, gradients

    @tf.function(autograph=False)
    def run(images, labels, index):
        labelled = tf.reduce_sum(tf.cast(labels != ignore_label, tf.float32))
        loss, gradients = summed(images, labels, tf.maximum(labelled, 1.0))
        steps = [functools.partial(_step, *pair) for pair in zip(groups, gradients, strict=True)]
        finite = tf.switch_case(index, steps)
        known = (labels >= 0) & (labels < supernet.num_classes) | (labels == ignore_label)
        return tf.where(finite, loss, float("nan")), tf.reduce_sum(tf.cast(~known, tf.int32))

    return run


def _step(group: _Group, gradients: Sequence[Any]) -> tf.Tensor:
    """Changes the variables of a group; whether their gradients are finite."""
    # TensorFlow's CPU kernels turn relu(NaN) into 0, so a loss may stay finite; the gradients do not.
    finite = tf.math.is_finite(tf.linalg.global_norm(gradients))
    if group.decay:
        gradients = [g + group.decay * variable.value for g, variable in zip(gradients, group.variables, strict=True)]
    _apply(group.optimizer, gradients, group.variables)
    return finite


def _checked(run: Callable[[Any, Any, Any], tuple[tf.Tensor, tf.Tensor]], index: int, group: _Group) -> Step:
    """A step of one group that raises where something is wrong."""
    index = tf.constant(index)

    def step(images, labels) -> float:
        number = int(group.optimizer.iterations)
        loss, stray = (value.numpy() for value in run(images, labels, index))
        if stray:
            raise LabelOutOfRange(
                f"labels: {stray} pixels of {group.kind} {number} are neither a class nor ignore_label"
            )
        if not np.isfinite(loss):
            raise Diverged(f"the loss is no longer a finite number at {group.kind} {number}")
        return float(loss)

    return step


def _apply(
    optimizer: keras.optimizers.Optimizer, gradients: Sequence[Any], variables: Sequence[keras.Variable]
) -> None:
    """A step of an optimizer that is built, inside a traced function.

    Keras takes some ten operations and milliseconds a variable to trace momentum; of a supernet's nearly two thousand
    variables each is one operation here.
    """
    if not isinstance(optimizer, Momentum):
        optimizer.apply(gradients, variables)
        return
    rate = tf.cast(optimizer.learning_rate, tf.float32)
    for gradient, variable, running in zip(gradients, variables, optimizer.accumulators, strict=True):
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.value.handle,
            accum=running.value.handle,
            lr=rate,
            grad=gradient,
            momentum=optimizer.momentum,
        )
    optimizer.iterations.assign_add(1)


def logits_of(supernet: Supernet) -> Mapping[str, np.ndarray]:
    """alpha and beta as they are, float32."""
    return {variable.name: np.asarray(variable.numpy(), np.float32) for variable in supernet.architecture_variables}
