"""The dense prediction cell as a Keras layer."""

from __future__ import annotations

import keras
from keras import ops

from nas_seg.core.conv import ConvNorm, SplitSeparableConv
from nas_seg.core.pyramid_pooling import PyramidPooling
from nas_seg.dpc.genotype import DPCGenotype
from nas_seg.utils.dimension import scale_dimension
from nas_seg.utils.errors import InputError

# The paper's rates are for output stride 16; at 8 they double (DeepLab passes 16 // output_stride).
_REFERENCE_STRIDE = 16


def check_output_stride(output_stride: int) -> None:
    """InputError unless cells are defined at this output stride."""
    if output_stride not in (8, 16):
        raise InputError(f"output_stride: a dense prediction cell expects 8 or 16, received {output_stride}")


@keras.saving.register_keras_serializable("nas_seg")
class DensePredictionCell(keras.layers.Layer):
    """Backbone features to multi-scale features by the branches of a genotype.

    Source: Chen et al., "Searching for Efficient Multi-Scale Architectures for Dense Image Prediction" (2018);
    DeepLab's core/dense_prediction_cell.py. Each branch reads the features or an earlier branch; the
    outputs of ALL branches are concatenated in order, dropped out, and projected by a 1x1 convolution.

    Shapes: [B, H, W, C] -> [B, H, W, concat_filters].

    Args:
        genotype: a DPCGenotype, or DeepLab's list form of one.
        filters: channels of every branch (DeepLab's reduction_size).
        concat_filters: channels of the projection (concat_channels).
        dropout_rate: of the dropout before the projection (1 - dropout_keep_prob).
        output_stride: 16, or 8, where rates double. The cell is not defined at 32.
        crop_size: (height, width) of the training crop in input pixels, from which the windows of the pyramid
            pooling are computed as DeepLab does, clipped to the map. None computes them from the map itself;
            the two agree where the image is the crop.
        pooling_crop_size: (height, width) to use for the windows instead of crop_size (image_pooling_crop_size).
        momentum, epsilon: of batch normalisation.
    """

    def __init__(
        self,
        genotype,
        filters: int = 256,
        concat_filters: int = 256,
        dropout_rate: float = 0.1,
        output_stride: int = 16,
        crop_size=None,
        pooling_crop_size=None,
        momentum: float = 0.9997,
        epsilon: float = 1e-5,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.genotype = genotype if isinstance(genotype, DPCGenotype) else DPCGenotype.from_list(genotype)
        self.filters = filters
        self.concat_filters = concat_filters
        self.dropout_rate = dropout_rate
        self.output_stride = output_stride
        self.crop_size = None if crop_size is None else tuple(crop_size)
        self.pooling_crop_size = None if pooling_crop_size is None else tuple(pooling_crop_size)
        self.momentum = momentum
        self.epsilon = epsilon
        check_output_stride(output_stride)
        norm = {"momentum": momentum, "epsilon": epsilon, "dtype": self.dtype_policy}
        self.branches = [self._branch(i, branch, norm) for i, branch in enumerate(self.genotype.branches)]
        self.dropout = keras.layers.Dropout(dropout_rate, dtype=self.dtype_policy)
        self.projection = ConvNorm(concat_filters, name="concat_projection", **norm)

    def _branch(self, index: int, branch, norm: dict) -> keras.layers.Layer:
        name = f"branch{index}"
        if branch.op == "pyramid_pooling":
            return PyramidPooling(self.filters, branch.grid_size, self._window(branch.grid_size), name=name, **norm)
        if branch.is_pointwise:
            return ConvNorm(self.filters, name=name, **norm)
        rate = tuple(r * (_REFERENCE_STRIDE // self.output_stride) for r in branch.rate)
        return SplitSeparableConv(self.filters, branch.kernel, rate, name=name, **norm)

    def _window(self, grid_size, crop=None) -> tuple[int, int] | None:
        crop = crop or self.pooling_crop_size or self.crop_size
        if crop is None:
            return None
        return tuple(scale_dimension(c, 1.0 / (self.output_stride * g)) for c, g in zip(crop, grid_size, strict=True))

    def build(self, input_shape):
        branch_shape = (*input_shape[:3], self.filters)
        for layer, branch in zip(self.branches, self.genotype.branches, strict=True):
            layer.build(input_shape if branch.input < 0 else branch_shape)
        concat_shape = (*input_shape[:3], self.filters * len(self.branches))
        self.dropout.build(concat_shape)
        self.projection.build(concat_shape)
        self.built = True

    def call(self, inputs, training=None, pooling_crop_size=None):
        """`pooling_crop_size` takes the place of the layer's own, for a map of another scale."""
        outputs = []
        for layer, branch in zip(self.branches, self.genotype.branches, strict=True):
            source = inputs if branch.input < 0 else outputs[branch.input]
            pools = isinstance(layer, PyramidPooling)
            window = {"window": self._window(branch.grid_size, pooling_crop_size)} if pools else {}
            outputs.append(layer(source, training=training, **window))
        concat = self.dropout(ops.concatenate(outputs, axis=-1), training=training)
        return self.projection(concat, training=training)

    def compute_output_spec(self, inputs, training=None, pooling_crop_size=None):
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:3], self.concat_filters)

    def get_config(self):
        return super().get_config() | {
            "genotype": self.genotype.to_list(),
            "filters": self.filters,
            "concat_filters": self.concat_filters,
            "dropout_rate": self.dropout_rate,
            "output_stride": self.output_stride,
            "crop_size": self.crop_size,
            "pooling_crop_size": self.pooling_crop_size,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
        }
