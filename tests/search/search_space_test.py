"""Tests what every search space derives from its names and labels."""

import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from table_problem import LETTERS, Word, WordSpace

from nas_seg.utils.errors import InputError

SPACE = WordSpace()
WORDS = st.text(LETTERS, min_size=6, max_size=6).map(Word)


@given(WORDS)
def test_decode_undoes_encode_and_params_undo_params(word):
    vector = SPACE.encode(word)
    assert vector.dtype == np.int64 and vector.shape == (6,)
    assert SPACE.decode(vector) == word
    assert SPACE.decode(vector.tolist()) == word
    assert SPACE.from_params(SPACE.to_params(word)) == word


@given(WORDS, st.integers(0, 2**32))
def test_mutate_changes_exactly_one_decision(word, seed):
    changed = SPACE.mutate(word, np.random.default_rng(seed))
    assert np.sum(SPACE.encode(word) != SPACE.encode(changed)) == 1


def test_mutate_reaches_every_neighbour():
    rng = np.random.default_rng(0)
    # 30 neighbours, each missed by 600 draws with probability (29/30)^600 < 2e-9.
    seen = {SPACE.mutate(Word("abcdef"), rng).letters for _ in range(600)}
    assert len(seen) == 30


def test_size_is_the_product_of_choices():
    assert SPACE.size() == 6**6 and SPACE.num_choices == (6,) * 6


def test_sample_is_uniform_over_words():
    rng = np.random.default_rng(1)
    counts = collections.Counter(WordSpace(length=2).sample(rng).letters for _ in range(3600))
    # Chi square with 35 degrees of freedom: above 74.9 with probability 1e-4; the seed is fixed.
    statistic = sum((counts[a + b] - 100) ** 2 / 100 for a in LETTERS for b in LETTERS)
    assert len(counts) == 36 and statistic < 74.9


@pytest.mark.parametrize(
    ("vector", "expected"),
    [
        ([0] * 5, "expected 6 integers"),
        ([[0] * 6], "expected 6 integers"),
        ([0.0] * 6, "of float64"),
        ([True] * 6, "of bool"),
        ([0, 0, 6, 0, 0, 0], "letter2: expected 0 to 5, received 6"),
        ([0, -1, 0, 0, 0, 0], "letter1: expected 0 to 5, received -1"),
    ],
)
def test_decode_refuses_what_is_no_vector_of_the_space(vector, expected):
    with pytest.raises(InputError, match=expected):
        SPACE.decode(vector)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"leter0": "a"}, "Did you mean 'letter0'"),
        ({"letter0": "a"}, "'letter1' is missing"),
        (dict.fromkeys(SPACE.names, "z"), "letter0: unknown choice 'z'"),
    ],
)
def test_params_are_read_strictly(params, expected):
    with pytest.raises(InputError, match=expected):
        SPACE.from_params(params)


def test_a_space_of_one_genotype_has_no_mutation():
    class Single(WordSpace):
        labels = (("a",),) * 6

    with pytest.raises(InputError, match="no mutation"):
        Single().mutate(Word("aaaaaa"), np.random.default_rng(0))


def test_digest_names_the_decisions_and_choices():
    assert SPACE.digest() == WordSpace().digest() != WordSpace(length=5).digest()
