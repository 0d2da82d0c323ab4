"""All paths and their probabilities, computed the long way."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np


@functools.cache
def all_paths(num_layers: int) -> np.ndarray:
    """Every legal path, int [paths, layers], in lexicographic order."""
    paths = [()]
    for _ in range(num_layers):
        paths = [(*path, n) for path in paths for n in range(4) if abs(n - (path[-1] if path else 0)) <= 1]
    return np.array(paths)


def log_transitions(beta: np.ndarray, border: float = 1.0) -> np.ndarray:
    """log p of [layer, from, to], one node at a time; -inf where there is no edge."""
    table = np.full((len(beta), 4, 4), -np.inf)
    for layer, source in itertools.product(range(len(beta)), range(4)):
        edges = {source + k - 1: float(beta[layer, source, k]) for k in range(3) if 0 <= source + k - 1 <= 3}
        top = max(edges.values())
        log_sum = top + math.log(sum(math.exp(v - top) for v in edges.values()))
        for target, logit in edges.items():
            table[layer, source, target] = logit - log_sum + (math.log(border) if source in (0, 3) else 0.0)
    return table


def log_probabilities(beta: np.ndarray, border: float = 1.0) -> np.ndarray:
    """The log-probability of each of `all_paths`."""
    paths, table = all_paths(len(beta)), log_transitions(beta, border)
    before = np.concatenate([np.zeros((len(paths), 1), int), paths[:, :-1]], axis=1)
    return table[np.arange(len(beta)), before, paths].sum(axis=1)
