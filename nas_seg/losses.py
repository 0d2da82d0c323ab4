"""Cross-entropy over the labelled pixels of a batch, with class weights and hard-pixel mining.

A loss is handed out as (sum, count), so that replicas can add up both before they divide: dividing by each
replica's own count gives another loss wherever the ignored pixels are spread unevenly.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from nas_seg.core.resize import resize_nearest, resize_to_channels_first


def labels_like(labels, logits):
    """Labels at the size of logits, by the nearest with aligned corners (upsample_logits=False in DeepLab).

    Args:
        labels: int [B, H, W].
        logits: [B, h, w, num_classes].

    Returns:
        int [B, h, w].
    """
    return resize_nearest(labels, ops.shape(logits)[1:3])


def cross_entropy(logits, labels, ignore_label: int, label_weights: Sequence[float] = ()):
    """Softmax cross-entropy of every pixel.

    Args:
        logits: float [B, H, W, num_classes].
        labels: int [B, H, W].
        ignore_label: pixels of this label cost 0.
        label_weights: one factor a class; empty: all 1.

    Returns:
        float32 [B, H, W]; NaN where a label is neither `ignore_label` nor in [0, num_classes), on every
        device, so that a wrong label map cannot go unnoticed.
    """
    known, safe, labels = _checked(labels, logits.shape[-1])
    cost = ops.sparse_categorical_crossentropy(safe, ops.cast(logits, "float32"), from_logits=True)
    return _masked(cost, known, safe, labels, ignore_label, label_weights)


def resized_cross_entropy(
    logits, labels, ignore_label: int, label_weights: Sequence[float] = (), align_corners: bool = True
):
    """`cross_entropy` of logits [B, h, w, num_classes] that are resized to the size of the labels [B, H, W] first.

    The numbers are those of `resize_bilinear` and `cross_entropy` but for rounding; both ways it is several times
    faster on a processor, for maps of the size of the labels have their classes in rows.
    """
    known, safe, labels = _checked(labels, logits.shape[-1])
    size = [static or dynamic for static, dynamic in zip(labels.shape[1:], ops.shape(labels)[1:], strict=True)]
    scores = resize_to_channels_first(ops.cast(logits, "float32"), size, align_corners)
    scores = scores - ops.stop_gradient(ops.max(scores, axis=1, keepdims=True))
    chosen = ops.sum(ops.one_hot(safe, logits.shape[-1], axis=1, dtype="float32") * scores, axis=1)
    cost = ops.log(ops.sum(ops.exp(scores), axis=1)) - chosen
    return _masked(cost, known, safe, labels, ignore_label, label_weights)


def _checked(labels, num_classes: int) -> tuple:
    """Which labels are classes, the labels with 0 for those that are not, and the labels, int32."""
    labels = ops.cast(labels, "int32")
    known = ops.logical_and(labels >= 0, labels < num_classes)
    return known, ops.where(known, labels, 0), labels


def _masked(cost, known, safe, labels, ignore_label: int, label_weights: Sequence[float]):
    if label_weights:
        cost = cost * ops.take(ops.convert_to_tensor(label_weights, "float32"), safe)
    cost = ops.where(known, cost, float("nan"))
    return ops.where(labels == ignore_label, 0.0, cost)


def cross_entropy_sum(
    logits,
    labels,
    ignore_label: int,
    *,
    label_weights: Sequence[float] = (),
    top_k_percent_pixels: float = 1.0,
    hard_example_mining_step: int = 0,
    step=0,
    align_corners: bool | None = None,
):
    """The masked cross-entropy of a batch as (sum, count); the loss is their quotient, 0 where count is 0.

    As DeepLab's utils/train_utils.py has it, `count` is the number of labelled pixels, not the sum of their
    weights. With `top_k_percent_pixels` below 1 only the costliest of all pixels (ignored ones among them)
    are summed, and `count` is how many of these cost anything; the share falls from 1 to the given one over
    the first `hard_example_mining_step` steps. The pick is made among the pixels handed in, that is within
    a replica.

    Args:
        logits, labels, ignore_label, label_weights: as in `cross_entropy`.
        top_k_percent_pixels: share in (0, 1] of the pixels that is kept.
        hard_example_mining_step: steps until the share is reached; 0: from the first step.
        step: the training step, a number or a tensor.
        align_corners: None: the logits have the size of the labels; else they are resized to it so.

    Returns:
        Two float32 scalars.
    """
    if align_corners is None:
        cost = cross_entropy(logits, labels, ignore_label, label_weights)
    else:
        cost = resized_cross_entropy(logits, labels, ignore_label, label_weights, align_corners)
    if top_k_percent_pixels >= 1.0:
        labelled = ops.cast(labels, "int32") != ignore_label
        return ops.sum(cost), ops.sum(ops.cast(labelled, "float32"))
    cost = ops.sort(ops.reshape(cost, (-1,)))
    total = ops.shape(cost)[0]
    share = top_k_percent_pixels
    if hard_example_mining_step:
        ratio = ops.minimum(1.0, ops.cast(step, "float32") / hard_example_mining_step)
        share = ratio * top_k_percent_pixels + (1.0 - ratio)
    kept = ops.cast(share * ops.cast(total, "float32"), "int32")
    cost = ops.where(ops.arange(total) >= total - kept, cost, 0.0)
    return ops.sum(cost), ops.sum(ops.cast(cost != 0.0, "float32"))


@keras.saving.register_keras_serializable("nas_seg")
class MaskedCrossEntropy(keras.losses.Loss):
    """Mean cross-entropy over the labelled pixels, for `model.compile(loss=...)`.

    On one device this is the loss of `nas_seg.train.fit`. Under a distribution strategy Keras lets each
    replica divide by its own pixels; `nas_seg.train.fit` divides by those of the whole batch.

    Args:
        ignore_label: pixels of this label cost nothing and are not counted.
        label_weights: one factor a class; empty: all 1.
    """

    def __init__(self, ignore_label: int, label_weights: Sequence[float] = (), name: str = "masked_cross_entropy"):
        super().__init__(name=name, reduction="sum")
        self.ignore_label = ignore_label
        self.label_weights = tuple(label_weights)

    def call(self, y_true, y_pred):
        cost = cross_entropy(y_pred, y_true, self.ignore_label, self.label_weights)
        labelled = ops.cast(y_true, "int32") != self.ignore_label
        return cost / ops.maximum(ops.sum(ops.cast(labelled, "float32")), 1.0)

    def get_config(self):
        return {"ignore_label": self.ignore_label, "label_weights": self.label_weights, "name": self.name}
