"""The encoder of template networks: the first three stages of MobileNet-v2, with maps at strides 4 and 8.

Its first block has a 1x1 expansion of 32 to 32 channels, which MobileNet-v2 elsewhere leaves out: 1,088 parameters of
56,576. Source: the authors' code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from nas_seg.core.backbones import (
    SYMMETRIC,
    BackboneConfig,
    Normalization,
    build_backbone,
    load_applications_weights,
)
from nas_seg.core.conv import ConvNorm, truncated_normal
from nas_seg.template.plan import ENCODER_BLOCKS, ENCODER_MAPS, ENCODER_STEM, check_size
from nas_seg.utils.errors import InputError, unknown

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# RGB in [0, 1], less the mean of ImageNet, in its standard deviations.
IMAGENET = Normalization(
    tuple(1.0 / (255.0 * deviation) for deviation in _DEVIATION),
    tuple(-mean / deviation for mean, deviation in zip(_MEAN, _DEVIATION, strict=True)),
)
# Layers have the names that they have in the MobileNet-v2 of nas_seg.core.backbones; this one it does not have.
_EXTRA = "expanded_conv_expand"
_STEM = "Conv"


@dataclasses.dataclass(frozen=True)
class _Conventions:
    """What two implementations of the same layers differ in.

    Attributes:
        normalization: of images.
        explicit_padding: strided convolutions are padded on both sides alike, else TensorFlow's way (SAME).
        epsilon: of batch normalisation.
    """

    normalization: Normalization
    explicit_padding: bool
    epsilon: float


_VARIANTS = {
    "peer": _Conventions(IMAGENET, explicit_padding=True, epsilon=1e-5),
    "keras": _Conventions(SYMMETRIC, explicit_padding=False, epsilon=1e-3),
}


@dataclasses.dataclass(frozen=True)
class TemplateEncoder:
    """Which conventions the encoder keeps.

    Attributes:
        variant: "peer", the authors', or "keras", those of keras.applications, whose ImageNet weights fit.
    """

    variant: str = "keras"

    def __post_init__(self):
        if self.variant not in _VARIANTS:
            raise InputError(f"encoder: {unknown('variant', self.variant, _VARIANTS)}")

    @property
    def name(self) -> str:
        """As backbones are named."""
        return "template_encoder"

    @property
    def output_stride(self) -> int:
        """Of the coarser map."""
        return ENCODER_MAPS[-1].stride

    @property
    def use_bounded_activation(self) -> bool:
        """The encoder's own activations are bounded, those after it are not."""
        return False

    @property
    def normalization(self) -> Normalization:
        """Of its images."""
        return _VARIANTS[self.variant].normalization

    def check_low_level(self, strides: Sequence[int]) -> None:
        """InputError for strides, in descending order, that it has no map at."""
        known = [m.stride for m in ENCODER_MAPS]
        if any(stride not in known for stride in strides):
            raise InputError(f"decoder_output_stride: expected some of {known}, received {list(strides)}")

    def connect(self, images) -> tuple[Any, dict[int, Any]]:
        """Normalised images [B, H, W, 3] -> the map at stride 8, and both maps by their stride."""
        return _connect(self, images)

    def tf1_names(self, backbone: keras.Model) -> dict:
        """There are none: InputError."""
        raise InputError("template networks have no TensorFlow 1 checkpoints")

    def load_pretrained(self, backbone: keras.Model, weights: str) -> None:
        """Fills an encoder from MobileNet-v2 weights in keras.applications' layout.

        Args:
            backbone: `build_backbone` of this.
            weights: "imagenet" (Keras downloads the file once) or the path of an .h5 file.

        Raises:
            InputError: where the variant is not "keras", or the file is no such file.
        """
        self.check_keras(weights)
        whole = BackboneConfig("mobilenet_v2")
        donor = build_backbone(whole)
        load_applications_weights(donor, whole, weights)
        self.take_over(backbone, donor)

    def take_over(self, backbone: keras.Model, mobilenet: keras.Model) -> None:
        """Fills an encoder with the first stages of a MobileNet-v2 of nas_seg.core.backbones, and computes the same.

        The 1x1 convolution that it has no weights for becomes the identity. Its batch normalisation gets for mean and
        variance what they are after the stem if the stem's own statistics hold, and gamma and beta that undo them: so
        it is the identity with the moving averages, and nearly so with the statistics of a batch.

        Raises:
            InputError: for a MobileNet-v2 of another width.
        """
        for layer in backbone.layers:
            if isinstance(layer, ConvNorm) and layer.name != _EXTRA:
                source = mobilenet.get_layer(layer.name)
                shapes = [tuple(one.conv.kernel.shape) for one in (layer, source)]
                if shapes[0] != shapes[1]:
                    raise InputError(
                        "backbone: expected a MobileNet-v2 of depth multiplier 1.0, received one whose layer "
                        f"{layer.name} has a kernel of shape {shapes[1]}, not {shapes[0]}"
                    )
                layer.set_weights(source.get_weights())
        stem, extra = backbone.get_layer(_STEM), backbone.get_layer(_EXTRA)
        mean, variance = _relu6_moments(np.array(stem.norm.beta), np.abs(np.array(stem.norm.gamma)))
        extra.conv.kernel.assign(np.eye(len(mean))[None, None])
        extra.norm.gamma.assign(np.sqrt(variance + extra.norm.epsilon))
        extra.norm.beta.assign(mean)
        extra.norm.moving_mean.assign(mean)
        extra.norm.moving_variance.assign(variance)

    def check_keras(self, weights: Any) -> None:
        """InputError unless MobileNet-v2 weights of Keras or of this library fit."""
        if self.variant != "keras":
            raise InputError(
                f"{weights}: weights of Keras' MobileNet-v2 need encoder 'keras', received {self.variant!r}, which has "
                "other padding and normalisation"
            )


def _relu6_moments(mean: np.ndarray, deviation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of normal variables [n] that are cut to [0, 6]."""
    z = np.linspace(-8.0, 8.0, 4001)
    density = np.exp(-0.5 * z * z)
    density /= density.sum()
    values = np.clip(mean[:, None] + deviation[:, None] * z, 0.0, 6.0)
    first = values @ density
    return first, np.square(values - first[:, None]) @ density


def _connect(config: TemplateEncoder, images) -> tuple[Any, dict[int, Any]]:
    rules = _VARIANTS[config.variant]

    def conv(filters, kernel_size, strides, activation, name) -> ConvNorm:
        return ConvNorm(
            filters,
            kernel_size,
            strides,
            activation=activation,
            momentum=0.9,
            epsilon=rules.epsilon,
            initializer=truncated_normal(0.09),
            explicit_padding=rules.explicit_padding,
            name=name,
        )

    channels, stride = ENCODER_STEM
    x = conv(channels, 3, stride, "relu6", _STEM)(NotEmpty(name="not_empty")(images))
    maps, index = {}, 0
    for filters, first_stride, expansion, repeats in ENCODER_BLOCKS:
        for repeat in range(repeats):
            scope = f"expanded_conv_{index}" if index else "expanded_conv"
            inputs, step = x, 1 if repeat else first_stride
            x = conv(x.shape[-1] * expansion, 1, 1, "relu6", f"{scope}_expand")(x)
            x = conv(None, 3, step, "relu6", f"{scope}_depthwise")(x)
            x = conv(filters, 1, 1, None, f"{scope}_project")(x)
            if step == 1 and inputs.shape[-1] == filters:
                x = keras.layers.Add(name=f"{scope}_add")([inputs, x])
            index += 1
        stride *= first_stride
        maps[stride] = x
    return x, {m.stride: maps[m.stride] for m in ENCODER_MAPS}


@keras.saving.register_keras_serializable("nas_seg")
class NotEmpty(keras.layers.Layer):
    """Hands its images on, and refuses those without a row or a column of pixels with an InputError."""

    def call(self, inputs):
        height, width = inputs.shape[1:3]
        # Sizes that are not known while a graph is made are not checked.
        check_size(1 if height is None else height, 1 if width is None else width)
        return inputs

    def compute_output_shape(self, input_shape):
        return input_shape
