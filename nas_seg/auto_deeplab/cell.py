"""A found cell as a layer: two inputs, blocks of two operators that are added, the blocks' concatenation."""

from __future__ import annotations

import keras
from keras import ops

from nas_seg.auto_deeplab.genotype import Block
from nas_seg.auto_deeplab.ops import conv_norm, conv_norm_tf1_names, make_op
from nas_seg.auto_deeplab.ops import tf1_names as op_tf1_names
from nas_seg.core.drop_path import drop_path, keep_probability

_SKIP = "skip_connect"
_SIDES = ("left", "right")


@keras.saving.register_keras_serializable("nas_seg")
class Cell(keras.layers.Layer):
    """Call as `layer([before_previous, previous])`, H^{l-2} and H^{l-1}, two maps of one size.

    [B, h, w, C] and [B, h, w, D] give [B, ceil(h / strides), ceil(w / strides), blocks * filters]. H^{l-1} always goes
    through ReLU, 1x1 convolution and batch normalisation to `filters` channels, H^{l-2} where it has other channels. A
    cell that strides does so in every operator that reads one of the two (DeepLab, core/nas_cell.py).

    With drop path there is a third input, the progress of `TrainingProgress`. In training each operator's output but
    that of "skip_connect" is then dropped for some images. It is not where batch normalisation keeps its statistics,
    as in DeepLab, whose fine_tune_batch_norm=False turns the backbone's training behaviour off.

    Args:
        blocks: of a genotype's cell.
        filters: channels of every operator.
        strides: 2 where the level above was finer, else 1.
        drop_path_keep_prob: of the last cell at the end of a training; 1.0 drops nothing.
        index: of this cell, from 0.
        num_cells: of the network.
    """

    def __init__(
        self,
        blocks: tuple[Block, ...],
        filters: int,
        strides: int = 1,
        drop_path_keep_prob: float = 1.0,
        index: int = 0,
        num_cells: int = 1,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.blocks = tuple(tuple((source, op) for source, op in block) for block in blocks)
        self.filters = filters
        self.strides = strides
        self.drop_path_keep_prob = drop_path_keep_prob
        self.index = index
        self.num_cells = num_cells
        self.squeeze_before_previous = None
        self.squeeze_previous = conv_norm(filters, dtype=self.dtype_policy, name="previous")
        self.ops = [
            make_op(op, filters, strides if source < 2 else 1, dtype=self.dtype_policy, name=f"block_{b}_{side}")
            for b, block in enumerate(self.blocks)
            for side, (source, op) in zip(_SIDES, block, strict=True)
        ]
        if drop_path_keep_prob < 1.0:
            self.seed_generator = keras.random.SeedGenerator()

    def build(self, input_shape):
        before_previous, previous, *_ = input_shape
        if before_previous[3] != self.filters:
            self.squeeze_before_previous = conv_norm(self.filters, dtype=self.dtype_policy, name="before_previous")
            self.squeeze_before_previous.build(before_previous)
        self.squeeze_previous.build(previous)
        for op in self.ops:
            op.build((previous[0], None, None, self.filters))
        self.built = True

    def call(self, inputs, training=None):
        before_previous, previous, *progress = inputs
        if self.squeeze_before_previous:
            before_previous = self.squeeze_before_previous(ops.relu(before_previous), training=training)
        states = [before_previous, self.squeeze_previous(ops.relu(previous), training=training)]
        keep = self._keep(*progress) if progress and training else None
        for b, block in enumerate(self.blocks):
            sides = zip(self.ops[2 * b : 2 * b + 2], block, strict=True)
            states.append(sum(self._apply(op, states[source], name, keep, training) for op, (source, name) in sides))
        return ops.concatenate(states[2:], axis=-1)

    def _apply(self, op, state, name: str, keep, training):
        # Keras hands `training` down; a pooling would not take it.
        outputs = op(state)
        return outputs if keep is None or name == _SKIP else drop_path(outputs, keep, self.seed_generator)

    def _keep(self, progress):
        """The share of images that keep a path; None where nothing is dropped."""
        if self.drop_path_keep_prob >= 1.0 or not self.squeeze_previous.norm.update_statistics:
            return None
        return keep_probability(self.drop_path_keep_prob, self.index, self.num_cells, progress)

    def compute_output_shape(self, input_shape):
        batch, *size, _ = input_shape[1]
        size = (None if n is None else -(-n // self.strides) for n in size)
        return (batch, *size, len(self.blocks) * self.filters)

    def get_config(self):
        return super().get_config() | {
            "blocks": self.blocks,
            "filters": self.filters,
            "strides": self.strides,
            "drop_path_keep_prob": self.drop_path_keep_prob,
            "index": self.index,
            "num_cells": self.num_cells,
        }


def tf1_names(cell: Cell, scope: str) -> dict:
    """DeepLab's TF1 variable name -> variable of a built cell under a scope such as "hnasnet/cell_0"."""
    names = conv_norm_tf1_names(cell.squeeze_previous, f"{scope}/1x1/weights", f"{scope}/beginning_bn")
    if cell.squeeze_before_previous:
        names |= conv_norm_tf1_names(cell.squeeze_before_previous, f"{scope}/prev_1x1/weights", f"{scope}/prev_bn")
    for i, op in enumerate(cell.ops):
        names |= op_tf1_names(op, f"{scope}/comb_iter_{i // 2}/{_SIDES[i % 2]}")
    return names
