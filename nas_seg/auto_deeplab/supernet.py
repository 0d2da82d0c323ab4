"""The supernet: all cells and all paths of the search space in one differentiable network.

Source: Liu et al., "Auto-DeepLab", CVPR 2019 (arXiv 1901.02985), sections 3 and 4.1, eq. 1 to 7. What the paper
leaves open is decided in README.md, section Supernet.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nas_seg.auto_deeplab import supernet_cell
from nas_seg.auto_deeplab.genotype import FINEST_STRIDE, NONE, NUM_LEVELS, OPS
from nas_seg.auto_deeplab.relaxation import (
    NUM_DIRECTIONS,
    alpha_probabilities,
    beta_probabilities,
    edge_mask,
    num_edges,
)
from nas_seg.auto_deeplab.supernet_ops import batch_norm, conv, matmul_channels, resize
from nas_seg.utils.errors import InputError, unknown

# Width of the stem's first convolution, as of the retrained network's; its second is as wide as a node at stride 4.
STEM_FILTERS = 64
# Section 4.1: alpha and beta start from a normal distribution of this standard deviation.
ARCHITECTURE_STDDEV = 1e-3
# glibc's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD. To set one keeps both from growing; the second is where it begins.
_MALLOC_OPTIONS = {-1: 32 << 20, -3: 128 << 10}
# Section 3.2: the rate of the search's ASPP is 96 / stride, the same reach in pixels of the image at every level.
ASPP_REACH = 96


@keras.saving.register_keras_serializable("nas_seg")
class Supernet(keras.Model):
    """RGB [N, H, W, 3] in [0, 255] -> logits [N, H, W, num_classes], differentiable in weights, alpha and beta.

    Batch normalisation always takes the statistics of the batch: a supernet is compared and decoded, never deployed.

    Args:
        num_classes: of the logits.
        num_layers: L, cells from the stem to the end of a path.
        num_blocks: B, blocks of a cell.
        filters: F; a block at stride s has F * s / 4 filters, a node B times as many.
        ops: names out of `genotype.OPS` in the order of alpha's columns.
        shared_weights: the cells entered from the up to three neighbours of a node share their weights (those that
            bring the neighbour to the cell's size and width are each edge's own). False: each has its own.
        recompute: keep no intermediate value of a node, compute it again for the gradient: less memory, more time.
        seed: of all initial values.

    Attributes:
        alpha: logits [edges, ops]; beta: logits [L, 4, 3]; layouts as in `relaxation`.

    Raises:
        InputError: names the argument that is wrong.
    """

    def __init__(
        self,
        num_classes: int,
        num_layers: int = 12,
        num_blocks: int = 5,
        filters: int = 8,
        ops: Sequence[str] = OPS,
        shared_weights: bool = True,
        recompute: bool = False,
        seed: int = 0,
        **kwargs,
    ):
        numbers = {"num_classes": num_classes, "num_layers": num_layers, "num_blocks": num_blocks, "filters": filters}
        for name, number in numbers.items():
            if number < 1:
                raise InputError(f"{name}: expected at least 1, received {number}")
        # Pixels up to 255 are scaled before they are cast to half precision.
        super().__init__(autocast=False, **kwargs)
        self.num_classes = num_classes
        self.num_layers = num_layers
        self.num_blocks = num_blocks
        self.filters = filters
        self.ops = _checked_ops(ops)
        self.shared_weights = shared_weights
        self.recompute = recompute
        self.seed = seed
        self._random = np.random.default_rng(seed)
        normal = {"stddev": ARCHITECTURE_STDDEV}
        self.alpha = self._variable("alpha", (num_edges(num_blocks), len(self.ops)), **normal)
        self.beta = self._variable("beta", (num_layers, NUM_LEVELS, NUM_DIRECTIONS), **normal)
        self._stem = [self._kernel("stem_0", (3, 3, 3, STEM_FILTERS))]
        self._stem.append(self._kernel("stem_1", (3, 3, STEM_FILTERS, num_blocks * filters)))
        # (layer, level) -> weights; a dictionary with such keys would not be saved, its variables are.
        self._nodes = {
            (layer, level): self._node_weights(layer, level)
            for layer in range(num_layers)
            for level in range(NUM_LEVELS)
            if incoming(layer, level)
        }
        self._heads = [self._head_weights(level) for level in range(min(num_layers, NUM_LEVELS - 1) + 1)]
        self.built = True

    @property
    def architecture_variables(self) -> list:
        """alpha and beta."""
        return [self.alpha, self.beta]

    @property
    def weight_variables(self) -> list:
        """Everything but alpha and beta."""
        ours = {id(variable) for variable in self.architecture_variables}
        return [variable for variable in self.trainable_variables if id(variable) not in ours]

    def build(self, input_shape=None):
        """All is made at once; no weight depends on the size of the image."""

    def call(self, images, weights_frozen: bool = False):
        """Logits at the size of the images.

        Args:
            images: [N, H, W, 3] of a static shape.
            weights_frozen: leave no path for gradients to the weights of the cells, which a step of alpha and beta
                does without.
        """
        size = tuple(images.shape[1:3])
        alpha = alpha_probabilities(tf.convert_to_tensor(self.alpha.value), keras.ops)
        beta = beta_probabilities(tf.convert_to_tensor(self.beta.value), keras.ops)
        mixed = [
            supernet_cell.mixture(alpha, self.ops, self.num_blocks, self._channels(level), self.compute_dtype)
            for level in range(len(self._heads))
        ]
        options = supernet_cell.Options(self.ops, self.recompute, weights_frozen)
        nodes = {(-1, 0): self._stem_features(images)}
        for (layer, level), weighted in zip(self._nodes, self._beta_by_node(beta), strict=True):
            edges = incoming(layer, level)
            nodes[layer, level] = supernet_cell.node(
                [nodes[layer - 1, source] for source, _ in edges],
                nodes.get((layer - 2, level)),
                self._values(self._nodes[layer, level]),
                mixed[level],
                weighted,
                tuple(direction for _, direction in edges),
                options,
            )
        logits = [
            self._logits(nodes[self.num_layers - 1, level], self._values(weights), level)
            for level, weights in enumerate(self._heads)
        ]
        return tf.add_n([resize(tf.cast(each, self.variable_dtype), size) for each in logits])

    def _beta_by_node(self, beta) -> list:
        """For each node the weights of the edges that enter it, [E]."""
        edges = [(layer, *edge) for layer, level in self._nodes for edge in incoming(layer, level)]
        return tf.split(tf.gather_nd(beta, edges), [len(incoming(*node)) for node in self._nodes])

    def _stem_features(self, images):
        images = tf.cast(images, self.variable_dtype)
        x = tf.cast(images * (2.0 / 255.0) - 1.0, self.compute_dtype)
        for kernel in self._values(self._stem):
            x = tf.nn.relu(batch_norm(conv(x, kernel, strides=2)))
        return x

    def _logits(self, x, weights: Mapping[str, Any], level: int):
        """The ASPP of one level, at its own size: 1x1, 3x3 at rate 96 / s, image pooling; then the classes."""
        rate = ASPP_REACH // (FINEST_STRIDE * 2**level)
        branches = [matmul_channels(x, weights["point"]), conv(x, weights["atrous"], rate=rate)]
        features = tf.concat([tf.nn.relu(batch_norm(branch)) for branch in branches], -1)
        pooled = tf.reduce_mean(x, (1, 2), keepdims=True)
        pooled = tf.nn.relu(matmul_channels(pooled, weights["pooled"]) + weights["pooled_bias"])
        # The pooled branch is the same everywhere, and so is what it adds to the logits.
        by_features, by_pooled = tf.split(weights["logits"], (features.shape[-1], pooled.shape[-1]))
        return matmul_channels(features, by_features) + matmul_channels(pooled, by_pooled) + weights["logits_bias"]

    def _values(self, variables: Any) -> Any:
        """Tensors of the dtype that is computed in, in the structure of the variables."""
        return tf.nest.map_structure(lambda v: tf.cast(tf.convert_to_tensor(v.value), self.compute_dtype), variables)

    def _channels(self, level: int) -> int:
        """Filters of a block."""
        return self.filters * 2**level

    def _node_weights(self, layer: int, level: int) -> dict[str, Any]:
        edges, channels = incoming(layer, level), self._channels(level)
        name = f"layer_{layer}_level_{level}"
        entries = [
            self._kernel(f"{name}_from_{source}", supernet_cell.entry_shape(direction, channels, self.num_blocks))
            for source, direction in edges
        ]
        shapes = supernet_cell.cell_shapes(channels, self.num_blocks, self.ops, has_before(layer, level))
        cells = 1 if self.shared_weights else len(edges)
        return {"entries": entries, "cells": [self._kernels(f"{name}_cell_{i}", shapes) for i in range(cells)]}

    def _head_weights(self, level: int) -> dict[str, Any]:
        width = self.num_blocks * self._channels(level)
        shapes = {"point": (width, width), "atrous": (3, 3, width, width), "pooled": (width, width)}
        weights = self._kernels(f"aspp_{level}", shapes | {"logits": (3 * width, self.num_classes)})
        for bias, size in (("pooled_bias", width), ("logits_bias", self.num_classes)):
            weights[bias] = self._variable(f"aspp_{level}_{bias}", (size,), stddev=0.0)
        return weights

    def _kernels(self, name: str, shapes: Any) -> Any:
        """Variables in the structure of the shapes."""
        if isinstance(shapes, Mapping):
            return {key: self._kernels(f"{name}_{key}", value) for key, value in shapes.items()}
        return self._kernel(name, shapes)

    def _kernel(self, name: str, shape: tuple[int, ...]):
        """Normal with variance 2 / fan-in, for all follow a ReLU; 1 / fan-in where they follow a depthwise one."""
        if name.endswith("depthwise"):
            return self._variable(name, shape, stddev=(2.0 / (shape[1] * shape[2])) ** 0.5)
        if name.endswith("pointwise"):
            return self._variable(name, shape, stddev=shape[1] ** -0.5)
        return self._variable(name, shape, stddev=(2.0 / np.prod(shape[:-1])) ** 0.5)

    def _variable(self, name: str, shape: tuple[int, ...], stddev: float):
        values = self._random.standard_normal(shape, dtype=np.float32) * np.float32(stddev)
        return self.add_weight(
            shape=shape, initializer=lambda shape, dtype: tf.constant(values, dtype), autocast=False, name=name
        )

    def get_config(self):
        return super().get_config() | {
            "num_classes": self.num_classes,
            "num_layers": self.num_layers,
            "num_blocks": self.num_blocks,
            "filters": self.filters,
            "ops": list(self.ops),
            "shared_weights": self.shared_weights,
            "recompute": self.recompute,
            "seed": self.seed,
        }


def configure_process() -> None:
    """Gives every operation of this process one thread; call it before anything else of TensorFlow's runs.

    The operations of a supernet are small: branches run side by side, and two threads that share an operation take
    half as much processor time again. oneDNN's gradients are kept, too: by default TensorFlow makes them anew in each
    call to save memory, a sixth of a step. And glibc gives freed memory back: by default it keeps ever larger pieces,
    an eighth of a GiB at the peak.

    Raises:
        RuntimeError: TensorFlow has its threads already.
    """
    os.environ.setdefault("TF_MKL_OPTIMIZE_PRIMITIVE_MEMUSE", "0")
    # Other C libraries have no such options.
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, size in _MALLOC_OPTIONS.items():
            mallopt(option, size)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    # Half of them wait for the functions that they have called.
    tf.config.threading.set_inter_op_parallelism_threads(2 * (os.cpu_count() or 1))


def incoming(layer: int, level: int) -> list[tuple[int, int]]:
    """The edges into a node, (level they come from, direction they take); layer -1 is the stem, at level 0."""
    mask = edge_mask(layer + 1)[layer]
    edges = [(source, level - source + 1) for source in range(max(level - 1, 0), min(level + 2, NUM_LEVELS))]
    return [(source, direction) for source, direction in edges if mask[source, direction]]


def has_before(layer: int, level: int) -> bool:
    """Whether H^{l-2} exists at this level: a level first appears one layer after the level above it."""
    return layer - 2 >= -1 and level <= layer - 1


def _checked_ops(ops: Sequence[str]) -> tuple[str, ...]:
    for op in ops:
        if op not in OPS:
            raise unknown("op", op, OPS)
    if len(set(ops)) != len(ops):
        raise InputError(f"ops: expected each name once, received {', '.join(ops)}")
    if not set(ops) - {NONE}:
        raise InputError(f"ops: expected at least one besides {NONE!r}, received {', '.join(ops) or 'none'}")
    return tuple(ops)
