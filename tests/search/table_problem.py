"""A search problem whose every score is known: words of six letters, scored by a table."""

import dataclasses
import functools
from typing import ClassVar

import numpy as np

from nas_seg.search.space import SearchSpace
from nas_seg.utils.errors import InputError

LETTERS = "abcdef"


@dataclasses.dataclass(frozen=True)
class Word:
    KIND: ClassVar[str] = "word"

    letters: str

    def summary(self) -> str:
        return self.letters


@dataclasses.dataclass(frozen=True)
class WordSpace(SearchSpace):
    """6^length words."""

    KIND: ClassVar[str] = "word"

    length: int = 6

    @property
    def names(self):
        return tuple(f"letter{i}" for i in range(self.length))

    @property
    def labels(self):
        return (tuple(LETTERS),) * self.length

    def _encode(self, genotype):
        if len(genotype.letters) != self.length or set(genotype.letters) - set(LETTERS):
            raise InputError(f"not a word of the space: {genotype.letters}")
        return [LETTERS.index(letter) for letter in genotype.letters]

    def _decode(self, choices):
        return Word("".join(LETTERS[c] for c in choices))


@functools.cache
def _table():
    """A value for each letter at each place, and one for each pair of neighbours; best: found by brute force."""
    rng = np.random.default_rng(7)
    return rng.random((6, 6)), 0.5 * rng.random((5, 6, 6))


@functools.cache
def all_scores():
    """[6, 6, 6, 6, 6, 6]: the reward of every word."""
    single, pair = _table()
    scores = np.zeros((6,) * 6)
    grid = np.indices(scores.shape)
    for i in range(6):
        scores += single[i][grid[i]]
    for i in range(5):
        scores += pair[i][grid[i], grid[i + 1]]
    return scores


def evaluate(genotype, *, seed):
    """The table's score, and as a second objective how many letters are not "a"."""
    choices = tuple(LETTERS.index(letter) for letter in genotype.letters)
    return {"reward": float(all_scores()[choices]), "madds": float(sum(c > 0 for c in choices))}
