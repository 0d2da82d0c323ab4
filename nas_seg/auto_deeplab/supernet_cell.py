"""One node of the supernet: the relaxed cell (eq. 1 to 5) over all edges that arrive, weighted by beta (eq. 6).

Weights are plain tensors in nested lists and dictionaries, so that one traced function serves every layer. An edge
of a cell is (block b, input j), in the order of `relaxation`: block by block. What reads one input is computed
together: `targets(j, B)` are the blocks that do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from nas_seg.auto_deeplab.supernet_ops import (
    avg_pool,
    batch_norm,
    by_part,
    conv,
    matmul_channels,
    max_pool,
    noinline,
    resize,
    separable_conv,
)

# Op -> size of its kernel. What is not here has no weights.
SEPARABLE = {"sep_conv_3x3": 3, "sep_conv_5x5": 5}
ATROUS = {"dil_conv_3x3": 3, "dil_conv_5x5": 5}
POOLS = {"max_pool_3x3": max_pool, "avg_pool_3x3": avg_pool}
SKIP = "skip_connect"

ATROUS_RATE = 2
# Directions of beta's last axis: from the node at the finer level the cell is entered by k = 2, and so on.
FINER, SAME, COARSER = 0, 1, 2


class Options(NamedTuple):
    """What is the same in all nodes.

    Attributes:
        ops: names, in the order of alpha's columns.
        recompute: keep no intermediate value of a cell, compute it again for the gradient.
        weights_frozen: no gradients by the weights of the cells.
    """

    ops: tuple[str, ...]
    recompute: bool = False
    weights_frozen: bool = False


def edge_index(block: int, source: int) -> int:
    """Row of alpha for input `source` of block `block` (0 is H^{l-2}, 1 is H^{l-1}, 2 + b is block b)."""
    return block * (block + 3) // 2 + source


def targets(source: int, num_blocks: int) -> range:
    """The blocks that may read an input: all read H^{l-2} and H^{l-1}, the later ones read block source - 2."""
    return range(max(source - 1, 0), num_blocks)


def sources(num_blocks: int) -> range:
    """The inputs that any block reads: the last block's output is none."""
    return range(num_blocks + 1)


def cell_shapes(channels: int, num_blocks: int, ops: Sequence[str], has_before: bool) -> dict[str, Any]:
    """Shapes of a cell's kernels, in the structure in which `node` takes them.

    {"before": of the 1x1 convolution of H^{l-2}, "inputs": {input: {op: {"kernel": ...} or {"depthwise":,
    "pointwise":}}}}. T edges leave an input: an atrous kernel is [k, k, c, T * c]; the two convolutions of a separable
    op are stacked, [2, k, k, T, c] and [2, c, T, c].
    """
    shapes: dict[str, Any] = {"inputs": {}}
    if has_before:
        shapes["before"] = (num_blocks * channels, channels)
    for source in sources(num_blocks):
        if source == 0 and not has_before:
            continue
        edges = len(targets(source, num_blocks))
        kernels = {}
        for op in ops:
            if op in ATROUS:
                kernels[op] = {"kernel": (ATROUS[op], ATROUS[op], channels, edges * channels)}
            elif op in SEPARABLE:
                size = SEPARABLE[op]
                kernels[op] = {
                    "depthwise": (2, size, size, edges, channels),
                    "pointwise": (2, channels, edges, channels),
                }
        shapes["inputs"][str(source)] = kernels
    return shapes


def entry_shape(direction: int, channels: int, num_blocks: int) -> tuple[int, ...]:
    """Shape of the convolution that brings H^{l-1} to the cell's size and `channels`.

    Args:
        direction: that the edge takes: to the finer level, the same, or the coarser.
    """
    if direction == COARSER:
        return (3, 3, num_blocks * channels // 2, channels)
    return (num_blocks * channels * (2 if direction == FINER else 1), channels)


def mixture(alpha, ops: Sequence[str], num_blocks: int, channels: int, dtype: str) -> dict[str, Any]:
    """alpha as the cells of one level use it: for each input, over the T edges that leave it.

    Args:
        alpha: softmaxed, [edges, ops].
        dtype: that the cells compute in; scales keep that of alpha.

    Returns:
        {input: {"scales": [K, T * c] of the K convolutions, "linear": [P * c, T * c] of the P pools and skip}}, both
        in the order of ops.
    """
    by_source = [edge_index(block, source) for source in sources(num_blocks) for block in targets(source, num_blocks)]
    alpha = tf.transpose(tf.gather(alpha, by_source))
    widths = [channels * len(targets(source, num_blocks)) for source in sources(num_blocks)]
    mixed = {str(source): {} for source in sources(num_blocks)}
    ones, eye = tf.ones((channels,), alpha.dtype), tf.eye(channels, dtype=alpha.dtype)[:, None]
    for name, kept, expand in (
        ("scales", convolutions(ops), lambda rows: rows[..., None] * ones),
        ("linear", linear_ops(ops), lambda rows: tf.cast(rows[:, None, :, None] * eye, dtype)),
    ):
        if kept:
            rows = tf.gather(alpha, [ops.index(op) for op in kept])
            matrix = tf.reshape(expand(rows), (-1, sum(widths)))
            for source, part in enumerate(tf.split(matrix, widths, 1)):
                mixed[str(source)][name] = part
    return mixed


def convolutions(ops: Sequence[str]) -> list[str]:
    """Those of ops that have weights."""
    return [op for op in ops if op in SEPARABLE or op in ATROUS]


def linear_ops(ops: Sequence[str]) -> list[str]:
    """Pools and skip among ops."""
    return [op for op in ops if op in POOLS or op == SKIP]


def node(entering, before, weights, mixed, beta, directions: Sequence[int], options: Options):
    """ReLU of H^l at one level (eq. 6).

    Args:
        entering: ReLU of H^{l-1} at the neighbours, [N, h, w, B * c'] each.
        before: ReLU of H^{l-2} at this level, [N, H, W, B * c]; None where there is none.
        weights: {"entries": [kernel of each neighbour], "cells": [one cell for all, or one for each]}, shapes as
            `entry_shape` and `cell_shapes` have them.
        mixed: of this level, see `mixture`.
        beta: [E] weights of the edges.
        directions: that each edge takes.
        options: what is the same in all nodes.

    Returns:
        [N, H, W, B * c]. Nothing ever reads H^l but through a ReLU.
    """
    size = _size(entering, before, directions)
    entered = [
        _enter(x, kernel, direction, size, options.weights_frozen)
        for x, kernel, direction in zip(entering, weights["entries"], directions, strict=True)
    ]
    cells, edges = weights["cells"], len(entered)
    if len(cells) == edges > 1:
        firsts = [_first_input(before, own, mixed, options) for own in cells]
        outputs = [_run(x, first, own, mixed, 1, options) for x, first, own in zip(entered, firsts, cells, strict=True)]
    else:
        # One batch: each operation is dispatched once for all edges.
        first = [tf.concat([one] * edges, 0) for one in _first_input(before, cells[0], mixed, options)]
        outputs = tf.split(_run(tf.concat(entered, 0), first, cells[0], mixed, edges, options), edges)
    return _weighted_sum(outputs, beta)


def _size(entering, before, directions: Sequence[int]) -> tuple[int, int]:
    """Height and width of the node: of what is there at this level, else of what comes down."""
    if before is not None:
        return tuple(before.shape[1:3])
    for x, direction in zip(entering, directions, strict=True):
        if direction == SAME:
            return tuple(x.shape[1:3])
    return tuple(-(-side // 2) for side in entering[directions.index(COARSER)].shape[1:3])


@noinline
def _enter(x, kernel, direction: int, size: tuple[int, int], weights_frozen: bool):
    """H^{l-1} at the size and width of the cell: stride-2 convolution down; bilinear and 1x1 up; normalised.

    Resizing and a 1x1 convolution commute, and the latter first leaves less to resize.
    """
    kernel = tf.stop_gradient(kernel) if weights_frozen else kernel
    if direction == COARSER:
        return batch_norm(conv(x, kernel, strides=2))
    return batch_norm(resize(matmul_channels(x, kernel), size))


def _first_input(before, weights, mixed, options: Options) -> list:
    """What H^{l-2} adds to all blocks, one [N, H, W, B * c] for every edge that enters the node; none without it."""
    if before is None:
        return []
    state = _enter(before, weights["before"], SAME, tuple(before.shape[1:3]), options.weights_frozen)
    return [_first_contribution(state, weights["inputs"]["0"], mixed["0"], options)]


@noinline
def _weighted_sum(outputs, beta):
    weights = tf.unstack(tf.cast(beta, outputs[0].dtype))
    return tf.nn.relu(tf.add_n([x * weight for x, weight in zip(outputs, weights, strict=True)]))


def _run(x, first, weights, mixed, parts: int, options: Options):
    """The cell, and with `recompute` again for its gradient."""
    inputs = {key: value for key, value in weights["inputs"].items() if key != "0"}
    mixed = {key: value for key, value in mixed.items() if key != "0"}
    arguments = (x, first, inputs, mixed)
    if not options.recompute:
        return _cell(*arguments, parts, options)

    @tf.custom_gradient
    def run(*tensors):
        packed = tf.nest.pack_sequence_as(arguments, tensors)
        return _cell(*packed, parts, options), lambda upstream: _cell_gradient(packed, upstream, parts, options)

    return run(*tf.nest.flatten(arguments))


@noinline
def _cell_gradient(arguments, upstream, parts: int, options: Options):
    """Gradients of `_cell` by all its tensors, flat, from their values alone."""
    tensors = tf.nest.flatten(arguments)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(tensors)
        outputs = _cell(*arguments, parts, options)
    return tape.gradient(outputs, tensors, upstream)


@noinline
def _cell(x, first, kernels: Mapping[str, Any], mixed, parts: int, options: Options):
    """The relaxed cell on `parts` edges at once, batched: [parts * N, H, W, c] -> [parts * N, H, W, B * c].

    Args:
        first: what H^{l-2} adds to all blocks: none or one of [parts * N, H, W, B * c].
    """
    total = tf.add_n([_contribution(x, kernels["1"], mixed["1"], parts, options), *first])
    num_blocks = total.shape[-1] // x.shape[-1]
    terms = [[part] for part in tf.split(total, num_blocks, -1)]
    blocks = []
    for block in range(num_blocks):
        blocks.append(tf.add_n(terms[block]))
        later = terms[block + 1 :]
        if later:
            source = str(block + 2)
            total = _contribution(blocks[block], kernels[source], mixed[source], parts, options)
            for term, part in zip(later, tf.split(total, len(later), -1), strict=True):
                term.append(part)
    return tf.concat(blocks, -1)


@noinline
def _first_contribution(x, kernels: Mapping[str, Any], mixed, options: Options):
    """What H^{l-2} adds to all blocks, [N, H, W, c] -> [N, H, W, B * c]."""
    return _contribution(x, kernels, mixed, 1, options)


def _contribution(x, kernels: Mapping[str, Any], mixed, parts: int, options: Options):
    """What one input adds to the T blocks that read it, [parts * N, H, W, c] -> [parts * N, H, W, T * c].

    No function of its own: no two cells have one in common, and TensorFlow keeps several copies of each function for
    each that calls it.
    """
    if options.weights_frozen:
        kernels = tf.nest.map_structure(tf.stop_gradient, kernels)
    rectified = tf.nn.relu(x)
    terms = []
    if "scales" in mixed:
        for op, scale in zip(convolutions(options.ops), tf.unstack(mixed["scales"]), strict=True):
            outputs = _convolve(rectified, kernels[op], parts)
            terms.append([batch_norm(part, scale) for part in (tf.split(outputs, parts) if parts > 1 else [outputs])])
    if "linear" in mixed:
        terms.append(tf.split(_linear(x, mixed["linear"], parts, options.ops), parts))
    sums = [tf.add_n(each) for each in zip(*terms, strict=True)]
    return tf.concat(sums, 0) if parts > 1 else sums[0]


def _convolve(rectified, kernels: Mapping[str, Any], parts: int):
    """An atrous op, or a separable one, up to its last normalisation."""
    if "kernel" in kernels:
        return conv(rectified, kernels["kernel"], rate=ATROUS_RATE)
    first, second = zip(tf.unstack(kernels["depthwise"]), tf.unstack(kernels["pointwise"]), strict=True)
    middle = by_part(batch_norm, parts, separable_conv(rectified, *first))
    return separable_conv(tf.nn.relu(middle), *second)


def _linear(x, matrix, parts: int, ops: Sequence[str]):
    """Pools (normalised) and skip of all edges that leave an input, mixed: one product."""
    columns = []
    for op in linear_ops(ops):
        columns.append(x if op == SKIP else by_part(batch_norm, parts, POOLS[op](x)))
    return matmul_channels(tf.concat(columns, -1) if len(columns) > 1 else columns[0], matrix)
