"""What stands around a context module, whichever family it is of: backbone, decoder, logits, image pyramid.

The functions take a family's configuration, which has the fields `backbone` (AnyBackbone), `decoder` (DecoderConfig or
None), `image_pyramid`, `merge_method`, `crop_size` and `pooling_crop_size`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from nas_seg.core import decoder as decoder_lib
from nas_seg.core.backbones import build_backbone
from nas_seg.core.checkpoint import names_of
from nas_seg.core.conv import all_layers, logits_layer
from nas_seg.core.decoder import DecoderStage
from nas_seg.core.drop_path import TrainingProgress
from nas_seg.core.resize import ResizeLike, resize_bilinear
from nas_seg.utils.dimension import scale_dimension
from nas_seg.utils.errors import InputError, unknown

# How the logits of several scales become one (DeepLab's merge_method).
MERGE_METHODS = {"max": keras.layers.Maximum, "avg": keras.layers.Average}
MERGED_LOGITS = "merged_logits"
_SCALE_LOGITS = "logits_{:.2f}"
LOGITS = "logits"


def check(config: Any) -> None:
    """InputError, naming the field, for a decoder or an image pyramid that the network cannot have."""
    if config.decoder:
        config.backbone.check_low_level(config.decoder.output_strides)
    if config.merge_method not in MERGE_METHODS:
        raise unknown("merge_method", config.merge_method, MERGE_METHODS)
    for name in ("crop_size", "pooling_crop_size"):
        size = getattr(config, name)
        if size and min(size) < 1:
            raise InputError(f"{name}: expected two sizes of 1 or more, received {list(size)}")
    names = [_SCALE_LOGITS.format(scale) for scale in config.image_pyramid]
    if not all(0 < scale < math.inf for scale in config.image_pyramid) or len(set(names)) < len(names):
        raise InputError(f"image_pyramid: expected different scales above 0, received {list(config.image_pyramid)}")


def activation(config: Any) -> str:
    """The activation of head and decoder: bounded where the backbone's is."""
    return "relu6" if config.backbone.use_bounded_activation else "relu"


def pooling_crop(config: Any, scale: float = 1.0) -> tuple[int, int] | None:
    """(height, width) in input pixels that pooling windows come from on an image of this scale."""
    return scaled(config.pooling_crop_size or config.crop_size, scale)


def scaled(size: tuple[int, int] | None, scale: float) -> tuple[int, int] | None:
    """(height, width), each by `scale_dimension`; None stays None."""
    return size and tuple(scale_dimension(n, scale) for n in size)


def make_head(
    config: Any,
    num_classes: int,
    context: Callable[[Any, float], Any],
    logits: keras.layers.Layer | None = None,
) -> Callable:
    """Everything after the backbone, with layers that are made once and may be called at several scales.

    Args:
        config: see the module.
        num_classes: channels of the logits.
        context: (features, scale of the image) -> features.
        logits: the last layer; None for a 1x1 convolution.

    Returns:
        (features, low_level=(), scale=1.0) -> logits [B, h, w, num_classes] at the stride of the last of
        low_level, one map for each stride of the decoder, or at that of the features.
    """
    decoder = config.decoder
    stages = decoder_lib.make_stages(decoder, activation(config)) if decoder else []
    if decoder and decoder.output_is_logits:
        if decoder.filters != num_classes:
            raise InputError(
                f"decoder_filters: expected the {num_classes} classes with output_is_logits, received {decoder.filters}"
            )
        logits = keras.layers.Activation("linear", dtype="float32", name=LOGITS)
    logits = logits or logits_layer(num_classes, name=LOGITS)

    def head(features, low_level=(), scale: float = 1.0):
        if len(low_level) != len(stages):
            raise InputError(f"decoder: expected {len(stages)} low-level maps, received {len(low_level)}")
        features = context(features, scale)
        for stage, low in zip(stages, low_level, strict=True):
            features = stage([features, low])
        return logits(features)

    return head


def connect(config: Any, images, head: Callable):
    """Normalised images [B, H, W, 3] -> logits at the network's own stride, as tensors of one graph.

    With an image pyramid every scale of the images goes through the same layers, and the logits, brought to the size
    that they have at the largest scale (at 1 where all are smaller), are merged (DeepLab's multi_scale_logits).

    Args:
        config: see the module.
        images: a KerasTensor.
        head: of `make_head(config, ...)`.
    """
    strides = config.decoder.output_strides if config.decoder else ()
    scales = config.image_pyramid or (1.0,)
    backbone = build_backbone(config.backbone, strides)
    for layer in backbone.layers:
        if isinstance(layer, TrainingProgress):
            layer.calls_per_step = len(scales)

    def logits_at(scale: float):
        features = backbone(images if scale == 1.0 else ResizeToScale(scale)([images, images]))
        features, *low_level = features if strides else [features]
        return head(features, low_level, scale)

    if scales == (1.0,):
        return logits_at(1.0)
    size = max(1.0, *scales) / (strides or (config.backbone.output_stride,))[-1]
    logits = [
        ResizeToScale(size, dtype="float32", name=_SCALE_LOGITS.format(scale))([logits_at(scale), images])
        for scale in scales
    ]
    return MERGE_METHODS[config.merge_method](dtype="float32", name=MERGED_LOGITS)(logits) if logits[1:] else logits[0]


def loss_model(model: keras.Model) -> keras.Model:
    """The same network with an output for each loss that a training adds up.

    Args:
        model: images [B, H, W, 3] -> logits [B, H, W, num_classes], as `nas_seg.model.build` makes it.

    Returns:
        `model` itself, or with an image pyramid of several scales a model of the same layers that puts out a dict:
        "merged_logits", what `model` puts out, and "logits_0.50" and the like, of each scale, all float32 at the size
        of the image.
    """
    if all(layer.name != MERGED_LOGITS for layer in model.layers):
        return model
    outputs = {MERGED_LOGITS: model.output}
    for layer in model.layers:
        if isinstance(layer, ResizeToScale) and re.fullmatch(r"logits_\d+\.\d\d", layer.name):
            outputs[layer.name] = ResizeLike(dtype="float32")([layer.output, model.input])
    return keras.Model(model.input, outputs)


def tf1_names(model: keras.Model) -> dict:
    """DeepLab's TF1 variable name -> variable, of the decoder and the logits of a model."""
    names = {}
    for layer in model.layers:
        if isinstance(layer, DecoderStage):
            names |= decoder_lib.tf1_names(layer)
    logits = model.get_layer(LOGITS)
    convolutions = [layer for layer in (logits, *all_layers(logits)) if isinstance(layer, keras.layers.Conv2D)]
    for i, convolution in enumerate(convolutions):
        names |= names_of(convolution, f"logits/semantic_{i}" if i else "logits/semantic")
    return names


@keras.saving.register_keras_serializable("nas_seg")
class ResizeToScale(keras.layers.Layer):
    """Resizes its first input to `scale` times the size of its second: call as `layer([values, reference])`.

    Sizes are DeepLab's: int((size - 1) * scale + 1), and corners stay aligned.
    """

    def __init__(self, scale: float, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale

    def call(self, inputs):
        values, reference = inputs
        static, dynamic = reference.shape, ops.shape(reference)
        size = tuple(self._scaled(static[axis], dynamic[axis]) for axis in (1, 2))
        return values if tuple(values.shape[1:3]) == size else resize_bilinear(values, size)

    def _scaled(self, static, dynamic):
        if static is not None:
            return scale_dimension(static, self.scale)
        return ops.cast((ops.cast(dynamic, "float64") - 1.0) * self.scale + 1.0, "int32")

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(self.compute_output_shape([x.shape for x in inputs]), inputs[0].dtype)

    def compute_output_shape(self, input_shape):
        values, reference = input_shape
        size = (None if n is None else scale_dimension(n, self.scale) for n in reference[1:3])
        return (values[0], *size, values[3])

    def get_config(self):
        return super().get_config() | {"scale": self.scale}
