"""Tests networks as values: JSON both ways, what is refused, the published one, and the paper's counts."""

import itertools
import json

import numpy as np
import pytest
from case import fixtures
from hypothesis import given
from hypothesis import strategies as st

from nas_seg.auto_deeplab import FIXED_OPS, OPS, AutoDeepLabGenotype, num_cells, num_paths, published
from nas_seg.auto_deeplab.genotype import op_label
from nas_seg.utils import config
from nas_seg.utils.errors import InputError

BLOCK = [[0, "sep_conv_3x3"], [1, "skip_connect"]]


@st.composite
def genotypes(draw):
    cell = [
        [(draw(st.integers(0, b + 1)), draw(st.sampled_from(FIXED_OPS))) for _ in range(2)]
        for b in range(draw(st.integers(1, 6)))
    ]
    path = [draw(st.integers(0, 1))]
    for _ in range(draw(st.integers(0, 13))):
        path.append(draw(st.integers(max(path[-1] - 1, 0), min(path[-1] + 1, 3))))
    return AutoDeepLabGenotype(cell, path)


def walks(num_layers):
    """All paths, by the rule and nothing else."""
    legal = [p for p in itertools.product(range(4), repeat=num_layers) if p[0] <= 1]
    return [p for p in legal if all(abs(a - b) <= 1 for a, b in itertools.pairwise(p))]


@given(genotypes())
def test_json_reads_back_as_the_network(genotype):
    assert config.from_json(AutoDeepLabGenotype, json.loads(json.dumps(config.to_json(genotype)))) == genotype
    assert hash(genotype) is not None and len(genotype.digest) == 12


def test_saved_networks_load_with_version_and_kind(tmp_path):
    published("auto_deeplab").save(tmp_path / "network.json")
    data = json.loads((tmp_path / "network.json").read_text())
    assert (data["format_version"], data["kind"]) == (1, "auto_deeplab")
    assert AutoDeepLabGenotype.load(tmp_path / "network.json") == published("auto_deeplab")


def test_integers_of_numpy_are_integers():
    given = AutoDeepLabGenotype((((np.int64(0), "skip_connect"), (np.int32(1), "sep_conv_3x3")),), tuple(np.arange(2)))
    plain = AutoDeepLabGenotype((((0, "skip_connect"), (1, "sep_conv_3x3")),), (0, 1))
    assert given == plain and given.digest == plain.digest
    assert {type(level) for level in given.path} == {int} == {type(source) for source, _ in given.cell[0]}


def test_published_network_is_the_recorded_one():
    names = {"atrous": "dil_conv_", "sep": "sep_conv_"}
    recorded = json.loads(fixtures("auto_deeplab", "published_arch.json").read_text())
    genotype = published("auto_deeplab")
    assert list(genotype.path) == recorded["path_levels"] and list(genotype.strides) == recorded["path_strides"]
    for block, expected in zip(genotype.cell, recorded["blocks"], strict=True):
        for edge, (source, op) in zip(block, expected, strict=True):
            assert edge == (source, names[op[:-3]] + op[-3:])


def test_published_network_is_that_of_the_paper():
    genotype = published("auto_deeplab")
    assert genotype.strides == (4, 4, 4, 8, 16, 8, 16, 16, 32, 32, 16, 8)
    assert (genotype.num_layers, genotype.num_blocks) == (12, 5)
    assert genotype.summary() == (
        "0:dil5x5+1:sep3x3 0:sep3x3+1:dil3x3 3:sep3x3+0:sep3x3 4:sep5x5+2:sep5x5 3:sep5x5+5:dil5x5"
        " @ 4 4 4 8 16 8 16 16 32 32 16 8"
    )
    with pytest.raises(InputError, match="unknown published network 'auto_deplab'.*Did you mean 'auto_deeplab'"):
        published("auto_deplab")


def test_short_names_of_all_ops_differ():
    labels = [op_label(op) for op in (*OPS, "sep_conv_7x7")]
    assert len(set(labels)) == len(labels) == 9
    assert labels[1:5] == ["max3x3", "avg3x3", "skip", "sep3x3"]


def test_digest_depends_on_cell_and_path_and_on_nothing_else():
    one = AutoDeepLabGenotype([BLOCK], [0, 1])
    assert one.digest == AutoDeepLabGenotype(((tuple(BLOCK[0]), tuple(BLOCK[1])),), (0, 1)).digest
    assert len({one.digest, AutoDeepLabGenotype([BLOCK], [0, 0]).digest, published("auto_deeplab").digest}) == 3


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"path": [0, 2]}, "path[1]: layer 0 is at level 0, expected level 0 or 1 next, received 2"),
        ({"path": [1, 2, 3, 1]}, "path[3]: layer 2 is at level 3, expected level 2 or 3 next, received 1"),
        ({"path": [2, 1]}, "path[0]: the stem is at level 0, expected level 0 or 1 next, received 2"),
        ({"path": [0, 4]}, "path[1]: expected a level of 0 to 3, received 4"),
        ({"path": [0, -1]}, "path[1]: expected a level of 0 to 3, received -1"),
        ({"path": [0, 1.0]}, "path[1]: expected int, received 1.0"),
        ({"path": [False]}, "path[0]: expected int, received False"),
        ({"path": []}, "path: expected at least one layer"),
        ({"path": "012"}, "path: expected a list, received '012'"),
        ({"cell": []}, "cell: expected at least one block"),
        ({"cell": [BLOCK, BLOCK[:1]]}, "cell[1]: expected 2 items, received 1"),
        ({"cell": [[[0, "sep_conv_3x3"], [1]]]}, "cell[0][1]: expected 2 items, received 1"),
        ({"cell": [[[0, "sep_conv_3x"], BLOCK[1]]]}, "cell[0][0]: unknown op 'sep_conv_3x'"),
        ({"cell": [[[0, "none"], BLOCK[1]]]}, "cell[0][0]: unknown op 'none'"),
        ({"cell": [[BLOCK[0], [2, "skip_connect"]]]}, "cell[0][1]: expected input 0 to 1"),
        ({"cell": [BLOCK, [BLOCK[0], [3, "skip_connect"]]]}, "cell[1][1]: expected input 0 to 2"),
        ({"cell": [[BLOCK[0], [-1, "skip_connect"]]]}, "cell[0][1]: expected input 0 to 1"),
        ({"cell": [[["0", "skip_connect"], BLOCK[1]]]}, "cell[0][0][0]: expected int, received '0'"),
        ({"levels": [0]}, "unknown field 'levels'"),
        ({"paths": [0]}, "Did you mean 'path'?"),
        ({"format_version": 2}, "expected format_version 1, received 2"),
        ({"kind": "dpc"}, "expected a genotype of kind 'auto_deeplab', received kind 'dpc'"),
    ],
)
def test_what_is_no_network_is_refused_in_one_line_that_names_the_field(tmp_path, changes, expected):
    file = tmp_path / "network.json"
    file.write_text(
        json.dumps({"format_version": 1, "kind": "auto_deeplab", "cell": [BLOCK], "path": [0, 1]} | changes)
    )
    with pytest.raises(InputError) as caught:
        AutoDeepLabGenotype.load(file)
    message = str(caught.value)
    assert message.startswith(str(file)) and expected in message and "\n" not in message


def test_missing_field_and_other_json_are_refused(tmp_path):
    file = tmp_path / "network.json"
    file.write_text(json.dumps({"format_version": 1, "kind": "auto_deeplab", "cell": [BLOCK]}))
    with pytest.raises(InputError, match="field 'path' is missing"):
        AutoDeepLabGenotype.load(file)
    file.write_text("[0, 1]")
    with pytest.raises(InputError, match="expected a JSON object, received list"):
        AutoDeepLabGenotype.load(file)


def test_wrong_values_are_refused_also_without_a_file():
    for cell in (3, "none", [3], [["sep_conv_3x3", "skip_connect"]], [[(0, 3), (1, "skip_connect")]]):
        with pytest.raises(InputError, match=r"^cell"):
            AutoDeepLabGenotype(cell, (0,))
    for path in (3, "01", (0, True), (0, None)):
        with pytest.raises(InputError, match=r"^path"):
            AutoDeepLabGenotype([BLOCK], path)


def test_paths_are_as_many_as_the_paper_says():
    assert num_paths(12, first_level_fixed=True) == 28_657
    assert num_paths(12) == 75_025


@pytest.mark.parametrize("num_layers", range(1, 8))
def test_path_count_is_that_of_an_enumeration(num_layers):
    assert num_paths(num_layers) == len(walks(num_layers))
    assert num_paths(num_layers, first_level_fixed=True) == sum(path[0] == 0 for path in walks(num_layers))


def test_every_enumerated_path_is_legal_and_no_other():
    legal = set(walks(4))
    for path in itertools.product(range(4), repeat=4):
        if path in legal:
            assert AutoDeepLabGenotype([BLOCK], path).path == path
        else:
            with pytest.raises(InputError, match=r"^path\["):
                AutoDeepLabGenotype([BLOCK], path)


def test_cells_are_as_many_as_the_paper_says():
    assert num_cells() == 556_627_761_561_600


@pytest.mark.parametrize(("num_blocks", "num_ops"), [(1, 2), (1, 8), (2, 1), (2, 3), (3, 1)])
def test_cell_count_is_that_of_an_enumeration(num_blocks, num_ops):
    blocks = [list(itertools.product(range(b + 2), range(num_ops), repeat=2)) for b in range(num_blocks)]
    assert num_cells(num_blocks, num_ops) == sum(1 for _ in itertools.product(*blocks))
