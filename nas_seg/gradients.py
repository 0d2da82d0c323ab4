"""Gradients on a replica: of a batch at once or part after part, and what an optimizer makes of them.

`costs_of(images, labels)` hands out a (sum, count) for each loss of a replica's pictures; a loss is the quotient of
both, added up over all replicas and parts. With float16 gradients are scaled up, and down again by the optimizer.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from nas_seg.core import conv
from nas_seg.core.encoder_decoder import LOGITS
from nas_seg.train_config import TrainConfig
from nas_seg.utils.errors import InputError

# The layer whose variables are no "last layers".
BACKBONE = "backbone"
# DeepLab doubles the gradients of biases (utils/train_utils.py, get_model_gradient_multipliers).
_BIAS_MULTIPLIER = 2.0
# Numbers of a gradient that is looked at together with others.
_SMALL = 1 << 14


def at_once(costs_of: Callable, optimizer, variables) -> Callable:
    """(images, labels) of a replica -> its share of the loss, and the gradients of it as the optimizer scales it."""

    def gradients_of(images, labels):
        with tf.GradientTape() as tape:
            loss = tf.add_n([tf.math.divide_no_nan(cost, _over_replicas(n)) for cost, n in costs_of(images, labels)])
            target = optimizer.scale_loss(loss)
        return loss, tape.gradient(target, variables)

    return gradients_of


def in_parts(costs_of: Callable, optimizer, variables, parts: int, outputs: int, strategy):
    """The same in two functions: one adds up part after part of a batch, the other ends it as `at_once` does.

    How many pixels a batch is divided by may be known after its last part only, so a sum is kept for each of the
    `outputs` that has a loss.

    Returns:
        (images, labels, number of the part) -> None, and (images, labels) -> what `at_once` has.
    """

    def make_sum(shape=()):
        kind = {"synchronization": tf.VariableSynchronization.ON_READ, "aggregation": tf.VariableAggregation.SUM}
        return tf.Variable(tf.zeros(shape), trainable=False, **kind)

    with strategy.scope():
        sums = [(make_sum(), make_sum(), [make_sum(v.shape) for v in variables]) for _ in range(outputs)]
    reached = set()

    def add_part(images, labels, part):
        images, labels = (tf.reshape(x, (parts, -1, *x.shape[1:]))[part] for x in (images, tf.cast(labels, tf.int32)))
        # Any factor will do that cost and count share. With this one float16 has gradients of their usual size.
        share = 1.0 / tf.cast(tf.size(labels), tf.float32)
        with tf.GradientTape(persistent=True) as tape:
            found = [(cost * share, count * share) for cost, count in costs_of(images, labels)]
            targets = [optimizer.scale_loss(cost) for cost, _ in found]
        for (cost, count), target, (cost_sum, count_sum, gradient_sums) in zip(found, targets, sums, strict=True):
            cost_sum.assign_add(cost)
            count_sum.assign_add(count)
            for i, gradient in enumerate(tape.gradient(target, variables)):
                if gradient is not None:
                    reached.add(i)
                    gradient_sums[i].assign_add(gradient)

    def gradients_of(images, labels):
        loss, gradients = 0.0, [0.0 if i in reached else None for i in range(len(variables))]
        for cost_sum, count_sum, gradient_sums in sums:
            count = _over_replicas(tf.identity(count_sum))
            loss += tf.math.divide_no_nan(tf.identity(cost_sum), count)
            for i in reached:
                gradients[i] += tf.math.divide_no_nan(tf.identity(gradient_sums[i]), count)
        for variable in tf.nest.flatten(sums):
            variable.assign(tf.zeros(variable.shape))
        return loss, gradients

    return add_part, gradients_of


def rules(model, config: TrainConfig, replicas: int) -> list[Callable]:
    """For each trainable variable, what its gradient becomes before the optimizer: what `apply` takes.

    The decay is part of the loss in DeepLab, 0.5 * weight_decay * sum(kernel ** 2), so it comes before the
    multipliers. The optimizer sums over the replicas, of which each adds its share of the decay. A rule is told by what
    factor the gradients are scaled up.
    """
    backbone = {id(v) for layer in model.layers if layer.name == BACKBONE for v in layer.variables}
    if config.last_layer_gradient_multiplier != 1.0 and not backbone:
        raise InputError(f"last_layer_gradient_multiplier: expected a model with a layer named {BACKBONE!r}")
    decayed = {id(v) for v in conv.regularized_kernels(model)}
    if config.last_layers_contain_logits_only:
        last = {id(v) for layer in model.layers if layer.name == LOGITS for v in layer.variables}
    else:
        last = {id(v) for v in model.variables} - backbone

    def rule(variable):
        decay = config.weight_decay / replicas if id(variable) in decayed else 0.0
        factor = config.last_layer_gradient_multiplier if id(variable) in last else 1.0
        factor *= _BIAS_MULTIPLIER if variable.name == "bias" else 1.0

        def change(gradient, scale=1.0):
            if gradient is None:
                return None
            gradient = gradient + decay * scale * variable.value if decay else gradient
            return gradient if factor == 1.0 else factor * gradient

        return change

    return [rule(variable) for variable in model.trainable_variables]


def apply(optimizer, rules: list[Callable], loss, gradients):
    """A step of the optimizer on one replica; returns the loss, NaN where the training cannot go on.

    TensorFlow's CPU kernels turn relu(NaN) into 0, so a loss may stay finite; the gradients do not. With loss scaling
    they may overflow at times: the step is then left out and the scale halved, and only where a scale of 1 does not
    help is the loss at fault. Such a step is counted, for batch k is that of step k.
    """
    finite = _all_finite(gradients)
    if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer.apply([rule(gradient) for rule, gradient in zip(rules, gradients, strict=True)])
        return tf.where(finite, loss, float("nan"))
    # All replicas must decide alike, and each looks at its own gradients.
    overflow = _over_replicas(tf.cast(~finite, tf.int32)) > 0
    spoil, scale = tf.where(overflow, float("nan"), 0.0), tf.identity(optimizer.dynamic_scale.value)
    spoiled = [None if gradient is None else gradient + spoil for gradient in gradients]
    optimizer.apply([rule(gradient, scale) for rule, gradient in zip(rules, spoiled, strict=True)])
    optimizer.iterations.assign_add(tf.cast(overflow, optimizer.iterations.dtype))
    return tf.where(overflow & (scale <= 1.0), float("nan"), loss)


def _all_finite(gradients):
    """Whether all numbers of all gradients are, those of None left out; bool, a scalar."""
    gradients = [gradient for gradient in gradients if gradient is not None]
    small = [tf.reshape(gradient, (-1,)) for gradient in gradients if _is_small(gradient)]
    large = [gradient for gradient in gradients if not _is_small(gradient)]
    # The hundreds of small ones in a row: an operation on each takes longer than its numbers do.
    return tf.math.is_finite(tf.linalg.global_norm(large + ([tf.concat(small, 0)] if small else [])))


def _is_small(gradient) -> bool:
    count = gradient.shape.num_elements()
    return count is not None and count <= _SMALL


def _over_replicas(value):
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)
