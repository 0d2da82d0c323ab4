"""Whole pictures through a network: at several scales, mirrored, at sizes that suit it.

Scales are averaged as DeepLab's model.py has it (predict_labels_multi_scale): the probabilities of every look, brought
to the size of the picture, and their mean. DeepLab then takes the softmax of that mean a second time and calls this
the probabilities, and leaves the mirrored picture out where the only scale is 1; neither is done here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from nas_seg.core.backbones import mean_pixel
from nas_seg.core.encoder_decoder import ResizeToScale
from nas_seg.core.native_logits import native_logits, nearest_logits
from nas_seg.core.padding import padded_logits
from nas_seg.core.resize import resize_bilinear, resize_nearest
from nas_seg.inference_config import InferenceConfig

# A size k * stride + 1 for every stride that there is.
_LARGE = 1025
_GREY = (127.5, 127.5, 127.5)


def scorer(
    model: keras.Model, inference: InferenceConfig | None = None, variants: Mapping[float, keras.Model] | None = None
) -> Callable[[Any], Any]:
    """A function that scores the classes at every pixel.

    Without `inference.crop_size` a picture is scaled, and padded then (see `nas_seg.core.padding`), so that every
    scale is seen at a size that suits the network. With it all is as in DeepLab: the picture is padded first, and
    scaled to whatever size that gives.

    Args:
        model: images [B, H, W, 3] in [0, 255] -> logits [B, H, W, C].
        inference: how it looks; None: once, at scale 1.
        variants: networks to use in place of `model` at some scales.

    Returns:
        images, float [B, H, W, 3] of any size -> float32 [B, H, W, C]: logits where the network looks once, and
        otherwise probabilities.
    """
    score = raw_scorer(model, inference, variants)
    return lambda images: score(images)[1]


def raw_scorer(
    model: keras.Model, inference: InferenceConfig | None = None, variants: Mapping[float, keras.Model] | None = None
) -> Callable[[Any], tuple[Any, Any]]:
    """As `scorer`, with the scores that its own are cut and resized from.

    Returns:
        images -> (raw scores, scores). Raw ones have the size that the picture is resized to (`inference.size_range`)
        and padded to (`inference.crop_size`); without either both are the same.
    """
    inference = inference or InferenceConfig()
    networks = {scale: (variants or {}).get(scale, model) for scale in inference.eval_scales}
    resize = _resize(inference)
    if inference.crop_size is None:
        networks = {scale: nearest_logits(one) if inference.nearest else one for scale, one in networks.items()}
    else:
        networks = {scale: native_logits(network) for scale, network in networks.items()}
        stride = _stride(next(iter(networks.values())))
    look = _look if inference.crop_size is None else functools.partial(_look_in_crop, _pixel(model), stride)

    def score(images):
        size = ops.shape(images)[1:3]
        if inference.size_range.resizes:
            images = resize_bilinear(images, inference.size_range.resized(size, ops))
        height, width = ops.shape(images)[1:3]
        looks = [look(networks[scale], images, scale, flip, inference) for scale, flip in inference.looks]
        raw = sum(ops.softmax(one, axis=-1) for one in looks) / len(looks) if looks[1:] else looks[0]
        scores = raw if inference.crop_size is None else raw[:, :height, :width]
        return raw, resize(scores, size) if inference.size_range.resizes else scores

    return score


def probabilities(scores, inference: InferenceConfig, double_softmax: bool = False):
    """What `scorer` returns, as probabilities [B, H, W, C].

    Args:
        scores: of a scorer of `inference`.
        inference: says what they are.
        double_softmax: those of several looks as DeepLab has them, which are nearly the same for all classes.
    """
    return ops.softmax(scores, axis=-1) if double_softmax or not inference.looks[1:] else scores


def _look(network, images, scale: float, flip: bool, inference: InferenceConfig):
    """Logits of one look, of the size of the images."""
    size = ops.shape(images)[1:3]
    images = ops.flip(images, axis=2) if flip else images
    logits = padded_logits(network, _scaled(images, scale))
    logits = ops.flip(logits, axis=2) if flip else logits
    return logits if scale == 1.0 else _resize(inference)(logits, size)


def _look_in_crop(pixel, stride: int, network, images, scale: float, flip: bool, inference: InferenceConfig):
    """Logits of one look by DeepLab's arithmetic, of the size of the crop."""
    height, width = ops.shape(images)[1:3]
    crop = [ops.maximum(side, least) for side, least in zip((height, width), inference.crop_size, strict=True)]
    pixel = ops.convert_to_tensor(pixel, images.dtype)
    # Less the pixel, so that the padding is 0: ops.pad takes no tensors for a constant on every backend.
    images = ops.pad(images - pixel, [(0, 0), (0, crop[0] - height), (0, crop[1] - width), (0, 0)]) + pixel
    images = ops.flip(images, axis=2) if flip else images
    logits = network(_scaled(images, scale), training=False)
    if scale < 1.0:
        # multi_scale_logits brings them to the size that they have at scale 1, and only then they go on.
        logits = ResizeToScale(1.0 / stride)([logits, images])
    return _resize(inference)(ops.flip(logits, axis=2) if flip else logits, crop)


def _resize(inference: InferenceConfig) -> Callable:
    """What brings scores to another size."""
    return resize_nearest if inference.nearest else resize_bilinear


def _stride(network: keras.Model) -> int:
    """Input pixels a pixel of the logits."""
    return (_LARGE - 1) // (network.compute_output_shape((1, _LARGE, _LARGE, 3))[1] - 1)


def _scaled(images, scale: float):
    return images if scale == 1.0 else ResizeToScale(scale)([images, images])


def _pixel(model) -> tuple[float, float, float]:
    """The pixel that the network's normalisation maps to 0; mid-grey where it has none."""
    normalize = next((layer for layer in model.layers if layer.name == "normalize"), None)
    return mean_pixel(normalize) if normalize else _GREY
