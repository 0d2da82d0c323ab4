import collections
import itertools

import pytest

from nas_seg.auto_deeplab.genotype import NONE, OPS, num_paths
from nas_seg.auto_deeplab.space import num_decodable, random_genotype
from nas_seg.utils.errors import InputError

_DRAWS = 3000


def test_the_space_has_the_decodable_networks():
    # (1 * 49)(3 * 49)(6 * 49)(10 * 49)(15 * 49) cells, and the paths.
    assert num_decodable(1, 5) == 2 * 762_683_172_300
    assert num_decodable(12, 5) == 75_025 * 762_683_172_300


def test_draws_are_what_a_decoder_can_give():
    for seed in range(50):
        genotype = random_genotype(seed)
        assert genotype.num_layers == 12 and genotype.num_blocks == 5
        for (a, first), (b, second) in genotype.cell:
            assert a < b and NONE not in (first, second)
    assert random_genotype(7) == random_genotype(7) != random_genotype(8)


def test_every_path_is_equally_likely():
    counts = collections.Counter(random_genotype(seed, 3, 1).path for seed in range(_DRAWS))
    expected = _DRAWS / num_paths(3)
    assert len(counts) == num_paths(3) == 13
    # Four standard deviations of a count; a walk with uniform steps has a path at 1/4 * 1/2 and others at 1/18.
    assert all(abs(count - expected) < 4 * expected**0.5 for count in counts.values())


def test_every_pair_of_inputs_and_every_op_is_equally_likely():
    blocks = [random_genotype(seed, 1, 2).cell[1] for seed in range(_DRAWS)]
    pairs = collections.Counter((a, b) for (a, _), (b, _) in blocks)
    assert set(pairs) == set(itertools.combinations(range(3), 2))
    ops = collections.Counter(op for block in blocks for _, op in block)
    assert set(ops) == set(OPS) - {NONE}
    for counts in (pairs, ops):
        expected = sum(counts.values()) / len(counts)
        assert all(abs(count - expected) < 4 * expected**0.5 for count in counts.values())


@pytest.mark.parametrize("arguments", [(-1, 12, 5), (0, 0, 5), (0, 12, 0)])
def test_what_cannot_be_drawn_is_refused(arguments):
    with pytest.raises(InputError, match="or more, received"):
        random_genotype(*arguments)
