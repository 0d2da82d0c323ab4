"""Draws from the space of what a search can decode, the baseline that every search is to be measured by."""

from __future__ import annotations

import math

import numpy as np

from nas_seg.auto_deeplab.genotype import NONE, NUM_LEVELS, OPS, AutoDeepLabGenotype, Block, num_paths
from nas_seg.utils.errors import InputError

_OPS = tuple(op for op in OPS if op != NONE)


def random_genotype(seed: int, num_layers: int = 12, num_blocks: int = 5) -> AutoDeepLabGenotype:
    """Draws a network uniformly from all that `decode.decode` can give.

    Every cell is as likely as any other: per block two distinct inputs and for each of them one of the seven ops that
    are not zero. Every path is, too: at each layer a level is drawn with a probability in proportion to the number of
    ways that go on from it (a walk that drew each step uniformly would stay near stride 4 and 32 more often).

    Args:
        seed: 0 or more; equal seeds draw equal networks.
        num_layers: of the path, the stem not included.
        num_blocks: of the cell.
    """
    for name, value, least in (("seed", seed, 0), ("num_layers", num_layers, 1), ("num_blocks", num_blocks, 1)):
        if value < least:
            raise InputError(f"{name}: expected {least} or more, received {value}")
    rng = np.random.default_rng(seed)
    return AutoDeepLabGenotype(tuple(_block(rng, b) for b in range(num_blocks)), _path(rng, num_layers))


def num_decodable(num_layers: int = 12, num_blocks: int = 5) -> int:
    """How many networks there are to draw from; 5 blocks alone are 7.63e11 cells."""
    cells = math.prod(math.comb(2 + b, 2) * len(_OPS) ** 2 for b in range(num_blocks))
    return cells * num_paths(num_layers)


def _block(rng: np.random.Generator, block: int) -> Block:
    inputs = sorted(rng.choice(2 + block, size=2, replace=False).tolist())
    return tuple((source, _OPS[int(rng.integers(len(_OPS)))]) for source in inputs)


def _path(rng: np.random.Generator, num_layers: int) -> tuple[int, ...]:
    # ways[k][i]: walks of k more layers from level i.
    ways = [np.ones(NUM_LEVELS)]
    for _ in range(num_layers):
        ways.append(np.array([ways[-1][max(i - 1, 0) : i + 2].sum() for i in range(NUM_LEVELS)]))
    path, level = [], 0
    for left in reversed(range(num_layers)):
        reached = range(max(level - 1, 0), min(level + 2, NUM_LEVELS))
        weights = ways[left][reached.start : reached.stop]
        level = int(rng.choice(reached, p=weights / weights.sum()))
        path.append(level)
    return tuple(path)
