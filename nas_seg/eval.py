"""Scores of a model on a data set: whole images, each at its own size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nas_seg import common
from nas_seg.inference import scorer
from nas_seg.inference_config import InferenceConfig
from nas_seg.metrics import ConfusionMatrix
from nas_seg.utils.errors import InputError


def predictor(
    model: keras.Model, inference: InferenceConfig | None = None, variants: Mapping[float, keras.Model] | None = None
) -> Callable[[Any], tf.Tensor]:
    """A function images [B, H, W, 3] -> int32 class indices [B, H, W], traced once for all sizes.

    The arguments are those of `nas_seg.inference.scorer`.
    """
    score = scorer(model, inference, variants)

    @tf.function(input_signature=[tf.TensorSpec(model.input_shape, tf.float32)])
    def predict(images):
        return tf.argmax(score(images), axis=-1, output_type=tf.int32)

    return predict


def evaluate(
    model: keras.Model,
    dataset: Iterable[Mapping[str, Any]],
    num_classes: int,
    ignore_label: int,
    *,
    predict: Callable[[Any], tf.Tensor] | None = None,
    advance: Callable[[int], Any] = lambda count: None,
) -> dict[str, Any]:
    """Counts a model's predictions against the labels.

    Args:
        model: images [B, H, W, 3] in [0, 255] -> logits [B, H, W, num_classes].
        dataset: finite batches {"image", "label" [B, H, W], and perhaps "image_name"}.
        predict: `predictor(model)`, made once by who evaluates the same model again and again.
        advance: told how many images each batch had, such as a progress bar's method.

    Returns:
        What `ConfusionMatrix.result` returns, num_images, and images: {"name", "miou"} of each image by itself, in
        order; the name is that of the data set, or the image's number, and miou is NaN without labelled pixels.

    Raises:
        InputError: where there is no image or no label, or a label does not fit its image or the classes.
    """
    predict = predict or predictor(model)
    confusion, images = ConfusionMatrix(num_classes, ignore_label), []
    for batch in dataset:
        if common.LABEL not in batch:
            raise InputError(f"{_name(batch)}: expected a label beside the image")
        predictions = predict(batch[common.IMAGE]).numpy()
        for index, prediction in enumerate(predictions):
            alone = ConfusionMatrix(num_classes, ignore_label)
            try:
                alone.update(np.asarray(batch[common.LABEL][index]), prediction)
            except InputError as error:
                raise InputError(f"{_name(batch)}: {error}") from None
            confusion = confusion + alone
            name = _names(batch)[index] if common.IMAGE_NAME in batch else str(len(images))
            images.append({"name": name, "miou": alone.result()["miou"]})
        advance(len(predictions))
    if not images:
        raise InputError("evaluation: expected at least one image, the split is empty")
    return confusion.result() | {"num_images": len(images), "images": images}


def _names(batch: Mapping[str, Any]) -> list[str]:
    names = np.asarray(batch.get(common.IMAGE_NAME, ()))
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _name(batch: Mapping[str, Any]) -> str:
    return ", ".join(_names(batch)) or "image"
