"""The decoder of DeepLabv3+: features, brought to the size of low-level features and joined with them."""

from __future__ import annotations

import dataclasses

import keras
from keras import ops

from nas_seg.core.checkpoint import names_of
from nas_seg.core.conv import ConvNorm, SplitSeparableConv
from nas_seg.core.resize import ResizeLike
from nas_seg.utils.errors import InputError

# Strides that every backbone names low-level features for.
_STRIDES = (4, 8, 16)
# Of the first stage; "_1" and on follow.
_NAME = "decoder"


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """One stage for each of the strides.

    Source: Chen et al., "Encoder-Decoder with Atrous Separable Convolution" (2018), section 3.1; DeepLab's model.py.

    Attributes:
        output_strides: of the low-level features, in descending order; the last is that of the logits.
        filters: output channels of every stage.
        use_separable_conv: split-separable 3x3 convolutions, else dense ones.
        use_sum_merge: one convolution of the features, to which the low-level features are added, instead of two
            convolutions of the concatenation.
        output_is_logits: the last stage puts out the logits: no BN, no activation and no separable convolution
            anywhere in the decoder; `filters` is then the number of classes.
        projection_filters: channels that the low-level features are projected to; `filters` with use_sum_merge.
    """

    output_strides: tuple[int, ...] = (4,)
    filters: int = 256
    use_separable_conv: bool = True
    use_sum_merge: bool = False
    output_is_logits: bool = False
    projection_filters: int = 48

    def __post_init__(self):
        strides = self.output_strides
        if not strides or any(stride not in _STRIDES for stride in strides):
            raise InputError(f"decoder_output_stride: expected some of {list(_STRIDES)}, received {list(strides)}")
        if list(strides) != sorted(set(strides), reverse=True):
            raise InputError(f"decoder_output_stride: expected descending strides, received {list(strides)}")
        for name in ("filters", "projection_filters"):
            if getattr(self, name) < 1:
                raise InputError(f"decoder {name}: expected at least 1, received {getattr(self, name)}")


@keras.saving.register_keras_serializable("nas_seg")
class DecoderStage(keras.layers.Layer):
    """One stage: call as `layer([features, low_level])`, [B, h, w, C] and [B, H, W, D] -> [B, H, W, filters].

    The size is that of the low-level features. DeepLab resizes both to the size that crop_size has at the stage's
    stride; with padding as in its backbones that is the size of the low-level features, whatever the crop.

    Args:
        filters, use_separable_conv, use_sum_merge, output_is_logits, projection_filters: see `DecoderConfig`.
        activation: "relu", or "relu6" for bounded values.
        momentum, epsilon: of batch normalisation.
    """

    def __init__(
        self,
        filters: int = 256,
        use_separable_conv: bool = True,
        use_sum_merge: bool = False,
        output_is_logits: bool = False,
        projection_filters: int = 48,
        activation: str = "relu",
        momentum: float = 0.9997,
        epsilon: float = 1e-5,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.use_separable_conv = use_separable_conv
        self.use_sum_merge = use_sum_merge
        self.output_is_logits = output_is_logits
        self.projection_filters = projection_filters
        self.activation = activation
        self.momentum = momentum
        self.epsilon = epsilon
        self.projection = self._conv(filters if use_sum_merge else projection_filters, 1, "feature_projection")
        kernel_size = 1 if use_sum_merge and output_is_logits else 3
        self.convs = [self._conv(filters, kernel_size, f"conv{i}") for i in range(1 if use_sum_merge else 2)]
        self.resize = ResizeLike(name="resize", dtype=self.dtype_policy)

    def _conv(self, filters: int, kernel_size: int, name: str) -> keras.layers.Layer:
        shared = {"name": name, "dtype": self.dtype_policy}
        if self.output_is_logits:
            return keras.layers.Conv2D(filters, kernel_size, padding="same", **shared)
        shared |= {"activation": self.activation, "momentum": self.momentum, "epsilon": self.epsilon}
        if self.use_separable_conv and kernel_size > 1:
            return SplitSeparableConv(filters, kernel_size, **shared)
        return ConvNorm(filters, kernel_size, **shared)

    def build(self, input_shape):
        features, low_level = input_shape
        self.projection.build(low_level)
        channels = features[3] if self.use_sum_merge else features[3] + self.projection_filters
        for conv in self.convs:
            conv.build((*low_level[:3], channels))
            channels = self.filters
        self.built = True

    def call(self, inputs, training=None):
        features, low_level = inputs
        # Keras hands `training` down; a bare convolution would not take it.
        projected = self.projection(low_level)
        merged = self.resize([features, projected])
        if self.use_sum_merge:
            return self.convs[0](merged) + projected
        merged = ops.concatenate([merged, projected], axis=-1)
        for conv in self.convs:
            merged = conv(merged)
        return merged

    def compute_output_spec(self, inputs, training=None):
        return keras.KerasTensor(self.compute_output_shape([x.shape for x in inputs]), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return (*input_shape[1][:3], self.filters)

    def get_config(self):
        return super().get_config() | {
            "filters": self.filters,
            "use_separable_conv": self.use_separable_conv,
            "use_sum_merge": self.use_sum_merge,
            "output_is_logits": self.output_is_logits,
            "projection_filters": self.projection_filters,
            "activation": self.activation,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
        }


def make_stages(config: DecoderConfig, activation: str = "relu") -> list[DecoderStage]:
    """The stages of a decoder, in the order of its strides, named "decoder", "decoder_1" and on."""
    fields = dataclasses.asdict(config)
    count = len(fields.pop("output_strides"))
    names = [f"{_NAME}_{i}" if i else _NAME for i in range(count)]
    return [DecoderStage(**fields, activation=activation, name=name) for name in names]


def tf1_names(stage: DecoderStage) -> dict:
    """DeepLab's TF1 variable name -> variable of one of the `make_stages`."""
    suffix = stage.name.removeprefix(_NAME)
    names = names_of(stage.projection, f"decoder/feature_projection0{suffix}")
    separable = isinstance(stage.convs[0], SplitSeparableConv)
    for i, conv in enumerate(stage.convs):
        if stage.use_sum_merge:
            scope = f"decoder_split_sep_conv0{suffix}" if separable else f"decoder_conv0{suffix}"
        elif separable:
            scope = f"decoder_conv{i}{suffix}"
        else:
            scope = f"decoder_conv0{suffix}/decoder_conv0{suffix}_{i + 1}"
        names |= names_of(conv, f"decoder/{scope}")
    return names
