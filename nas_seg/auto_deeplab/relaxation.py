"""From logits to the weights of the relaxation: one normalisation for the supernet and for the decoder.

Source: Auto-DeepLab (arXiv 1901.02985), eq. 5 (alpha) and eq. 7 (beta). Every function takes the array namespace
`xp`: numpy, or keras.ops, through which gradients flow.

Layout of alpha, [edges, ops]: edges block by block, in a block by input: H^{l-2}, H^{l-1}, then the earlier
blocks; 2 + 3 + 4 + 5 + 6 = 20 rows for five blocks; ops in the order of `genotype.OPS`.
Layout of beta, [layers, 4, 3]: beta[l, i, k] belongs to the edge that leads from level i into layer l (from 0), at
the finer (k = 0), same (1) or coarser (2) level: level i + k - 1. Layer 0 is entered from the stem, at level 0.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from nas_seg.auto_deeplab.genotype import NUM_LEVELS

NUM_DIRECTIONS = 3
# What the peers' code multiplies the two edges of a border node with; every edge then weighs 1/3 at equal logits.
_BORDER_FACTOR = 2 / 3


def num_edges(num_blocks: int) -> int:
    """Rows of alpha: block b (from 0) has 2 + b inputs."""
    return sum(2 + block for block in range(num_blocks))


def edge_mask(num_layers: int) -> np.ndarray:
    """Which of the edges exist, bool [layers, 4, 3].

    Layer l is entered from levels 0 to l, for each layer reaches one level farther from the stem than the one
    before; the finest level has no finer neighbour and the coarsest no coarser one.
    """
    layer, level, direction = np.ogrid[:num_layers, :NUM_LEVELS, :NUM_DIRECTIONS]
    target = level + direction - 1
    return (level <= layer) & (target >= 0) & (target < NUM_LEVELS)


def alpha_probabilities(alpha: Any, xp: ModuleType = np) -> Any:
    """The weights of the ops of every edge (eq. 5), zero included: softmax over the last axis, as `alpha`."""
    weights = xp.exp(alpha - xp.max(alpha, axis=-1, keepdims=True))
    return weights / xp.sum(weights, axis=-1, keepdims=True)


def beta_probabilities(beta: Any, xp: ModuleType = np, border_correction: bool = False) -> Any:
    """The weights of the edges that leave a node (eq. 7): softmax over those of them that exist.

    They add up to 1 at every node, also at the border, where there are two of them. What does not exist is
    exactly 0, and so is its gradient.

    Args:
        beta: logits, [layers, 4, 3].
        xp: numpy or keras.ops.
        border_correction: multiply the edges that leave the finest and the coarsest level by 2/3, as the code of
            other projects does; theirs add up to 2/3 then, and the probabilities of all paths no longer to 1.

    Returns:
        weights, [layers, 4, 3], as `beta`.
    """
    mask = edge_mask(beta.shape[0])
    # The edge within a level exists wherever any does, so that in its place a missing one leaves the maximum alone.
    logits = xp.where(mask, beta, beta[:, :, 1:2])
    weights = xp.where(mask, xp.exp(logits - xp.max(logits, axis=-1, keepdims=True)), 0.0)
    # Nodes that no path reaches have no edges at all: 0 / 1.
    weights = weights / xp.where(mask[:, :, 1:2], xp.sum(weights, axis=-1, keepdims=True), 1.0)
    if not border_correction:
        return weights
    border = np.isin(np.arange(NUM_LEVELS), (0, NUM_LEVELS - 1))[None, :, None]
    return xp.where(border, weights * _BORDER_FACTOR, weights)


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """The entropy in nats over the last axis of a NumPy array; a probability of 0 adds nothing."""
    return -np.sum(probabilities * np.log(np.where(probabilities > 0, probabilities, 1.0)), axis=-1)
