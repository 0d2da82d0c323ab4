"""Tests the space of dense prediction cells: its size, its vectors, what lies outside, uniform draws."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_seg.dpc import CITYSCAPES_TOP1, Branch, DPCGenotype, DPCSpace
from nas_seg.utils import config
from nas_seg.utils.errors import InputError

SPACE = DPCSpace()
VECTORS = st.tuples(*(st.integers(0, total - 1) for total in SPACE.num_choices))


def test_size_is_the_papers():
    assert SPACE.size() == 418_414_128_120 == math.factorial(5) * 81**5
    assert [DPCSpace(b).size() for b in (1, 2, 3)] == [81, 2 * 81**2, 6 * 81**3]
    assert SPACE.num_choices == (1, 81, 2, 81, 3, 81, 4, 81, 5, 81)


def test_the_81_operations_are_distinct_and_the_papers():
    labels = SPACE.labels[1]
    kinds = [sum(label.startswith(start) for label in labels) for start in ("1x1", "sep3x3", "spp")]
    assert len(set(labels)) == 81 and kinds == [1, 64, 16]
    assert {"sep3x3(1x1)", "sep3x3(21x3)", "spp(8x1)"} <= set(labels)
    assert SPACE.labels[8] == ("F", "0", "1", "2", "3")


@given(VECTORS)
def test_vector_and_genotype_are_one_to_one(vector):
    genotype = SPACE.decode(vector)
    assert tuple(SPACE.encode(genotype)) == vector
    assert SPACE.from_params(SPACE.to_params(genotype)) == genotype
    SPACE.validate(genotype)


@given(VECTORS, st.integers(0, 2**32))
def test_mutation_stays_in_the_space_and_changes_one_decision(vector, seed):
    changed = SPACE.mutate(SPACE.decode(vector), np.random.default_rng(seed))
    assert np.sum(SPACE.encode(changed) != vector) == 1


def test_published_cell_is_in_the_space():
    assert SPACE.to_params(CITYSCAPES_TOP1) == {
        "b0_input": "F", "b0_op": "sep3x3(1x6)", "b1_input": "0", "b1_op": "sep3x3(18x15)",
        "b2_input": "1", "b2_op": "sep3x3(6x3)", "b3_input": "0", "b3_op": "sep3x3(1x1)",
        "b4_input": "0", "b4_op": "sep3x3(6x21)",
    }  # fmt: skip


def test_draws_are_uniform_in_every_decision():
    rng = np.random.default_rng(0)
    vectors = np.array([SPACE.encode(SPACE.sample(rng)) for _ in range(8100)])
    for i, total in enumerate(SPACE.num_choices):
        expected = len(vectors) / total
        statistic = ((np.bincount(vectors[:, i], minlength=total) - expected) ** 2 / expected).sum()
        # Chi square with k degrees of freedom has mean k and variance 2k; the bound is 5 sd, passed by chance
        # with probability below 1e-4 (the seed is fixed).
        assert statistic <= (total - 1) + 5 * math.sqrt(2 * (total - 1)) + 1e-9


def test_draws_of_inputs_and_ops_are_independent():
    rng = np.random.default_rng(2)
    vectors = np.array([SPACE.encode(SPACE.sample(rng)) for _ in range(4000)])
    correlations = np.corrcoef(vectors[:, 1:].T) - np.eye(9)
    # The sd of a correlation of 4000 independent pairs is 0.016; 36 pairs.
    assert np.abs(correlations).max() < 0.07


def replaced(i, **fields):
    branches = list(CITYSCAPES_TOP1.branches)
    branches[i] = dataclasses.replace(branches[i], **fields)
    return DPCGenotype(tuple(branches))


@pytest.mark.parametrize(
    ("genotype", "expected"),
    [
        (replaced(2, kernel=5), r"branch 2: sep5x5\(6x3\) is not in the space"),
        (replaced(4, rate=(2, 6)), r"branch 4: sep3x3\(2x6\) is not in the space"),
        (replaced(1, op="pyramid_pooling", kernel=None, rate=None, grid_size=(3, 1)), r"branch 1: spp\(3x1\)"),
        (DPCGenotype(CITYSCAPES_TOP1.branches[:4]), "cells of 5 branches, received 4"),
        ("cell", "expected a genotype of kind 'dpc', received str"),
    ],
)
def test_validate_says_which_branch_is_outside(genotype, expected):
    with pytest.raises(InputError, match=expected):
        SPACE.validate(genotype)


@pytest.mark.parametrize(
    "arguments", [{"num_branches": 0}, {"num_branches": True}, {"rates": (1, 1)}, {"rates": (0,)}, {"grids": ()}]
)
def test_wrong_arguments_are_named(arguments):
    with pytest.raises(InputError, match=next(iter(arguments))):
        DPCSpace(**arguments)


def test_a_space_has_a_json_form_and_its_digest_tells_it_from_others():
    other = DPCSpace(num_branches=3, rates=(1, 6), grids=(1,))
    assert config.from_json(DPCSpace, config.to_json(other)) == other
    assert other.size() == 6 * 6**3 and other.digest() != SPACE.digest()
    assert other.decode([0, 5, 1, 0, 2, 1]).branches[0] == Branch("pyramid_pooling", -1, grid_size=(1, 1))
