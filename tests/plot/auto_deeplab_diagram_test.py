"""Tests the drawings of searched networks: the right edges, lines that can be followed, and nothing that covers."""

import itertools
import re

import numpy as np
import pytest
from drawings import box, find, inside, overlap, overlapping_texts, parse, text_box, words
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nas_seg.auto_deeplab import FIXED_OPS, AutoDeepLabGenotype, published
from nas_seg.auto_deeplab.relaxation import beta_probabilities, edge_mask
from nas_seg.plot import architecture, colors
from nas_seg.plot.auto_deeplab_diagram import cell_svg, network_svg, path_svg
from nas_seg.utils.errors import InputError

PUBLISHED = published("auto_deeplab")
# Both inputs of a block may be the same, and an input may have no reader.
SAME = AutoDeepLabGenotype(
    [[(1, "sep_conv_7x7"), (1, "max_pool_3x3")], [(2, "avg_pool_3x3"), (1, "skip_connect")]], [1]
)


@st.composite
def genotypes(draw):
    cell = [
        [(draw(st.integers(0, b + 1)), draw(st.sampled_from(FIXED_OPS))) for _ in range(2)]
        for b in range(draw(st.integers(1, 8)))
    ]
    path = [draw(st.integers(0, 1))]
    for _ in range(draw(st.integers(0, 13))):
        path.append(draw(st.integers(max(path[-1] - 1, 0), min(path[-1] + 1, 3))))
    return AutoDeepLabGenotype(cell, path)


def ends(line):
    return tuple((float(line.get(f"x{i}")), float(line.get(f"y{i}"))) for i in (1, 2))


def room(line):
    (x0, y0), (x1, y1) = ends(line)
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def spots(root):
    """(layer, level) of the centre of each node, by the order of columns and rows; -1 is the stem."""
    nodes = [(float(c.get("cx")), float(c.get("cy"))) for c in find(root, "circle")]
    left, top, right, bottom = box(find(root, "rect")[1])  # the first is the ground
    nodes.append(((left + right) / 2, (top + bottom) / 2))
    columns, rows = (sorted({n[i] for n in nodes}) for i in (0, 1))
    return {(x, y): (columns.index(x) - 1, rows.index(y)) for x, y in nodes}


def steps(root, class_):
    where = spots(root)
    return [tuple(where[end] for end in ends(line)) for line in find(root, "line", class_)]


@given(genotypes())
@example(PUBLISHED)
@settings(max_examples=25, deadline=None)
def test_bold_line_is_the_path_and_grey_lines_are_the_edges_that_exist(genotype):
    root = parse(path_svg(genotype))
    levels = [0, *genotype.path]
    expected = [((i - 1, a), (i, b)) for i, (a, b) in enumerate(itertools.pairwise(levels))]
    assert steps(root, "path") == expected
    edges = np.argwhere(edge_mask(genotype.num_layers)).tolist()
    assert sorted(steps(root, "edge")) == sorted(((n - 1, i), (n, i + k - 1)) for n, i, k in edges)
    where = spots(root)
    on = {where[float(c.get("cx")), float(c.get("cy"))] for c in find(root, "circle", "on")}
    assert on == set(enumerate(genotype.path))
    assert len(find(root, "circle")) == len({(n, i + k - 1) for n, i, k in edges})


def test_edges_are_the_darker_the_more_probable_and_name_the_probability():
    beta = 2 * np.random.default_rng(0).standard_normal((12, 4, 3))
    root, weights = parse(path_svg(PUBLISHED, beta=beta)), beta_probabilities(beta)
    lines = find(root, "line", "edge")
    shown = [weights[n, i, k] for n, i, k in np.argwhere(edge_mask(12))]
    opacities = [float(line.get("stroke-opacity")) for line in lines]
    # Two decimals in the file.
    np.testing.assert_allclose(opacities, 0.06 + 0.94 * np.array(shown), atol=0.006)
    assert lines[0].find("{*}title").text == f"layer 1, stride 4 to 4: {shown[0]:.3f}"
    assert lines[4].find("{*}title").text == f"layer 2, stride 8 to 4: {shown[4]:.3f}"
    with pytest.raises(InputError, match="beta: expected 12 layers as the path has, received 3"):
        path_svg(PUBLISHED, beta=beta[:3])


def test_layers_and_strides_are_written_beside_the_trellis():
    told = words(parse(path_svg(PUBLISHED, "Found")))
    assert told[0] == "Found"
    assert told[1:18] == ["stem", *map(str, range(1, 13)), "stride 4", "stride 8", "stride 16", "stride 32"]


def op_boxes(root):
    """Per block, from left to right: the two (box, label)."""
    groups = [g for g in find(root, "g") if any(r.get("class") == "op" for r in g.findall("{*}rect"))]
    found = [(box(g.find("{*}rect")), " ".join(t.text for t in g.findall("{*}text"))) for g in groups]
    return [found[i : i + 2] for i in range(0, len(found), 2)]


def test_boxes_bear_the_names_of_the_ops_in_the_order_of_the_blocks():
    labels = [[label for _, label in pair] for pair in op_boxes(parse(cell_svg(PUBLISHED)))]
    assert labels[0] == ["atrous 5x5", "sep 3x3"] and labels[4] == ["sep 5x5", "atrous 5x5"]
    labels = [[label for _, label in pair] for pair in op_boxes(parse(cell_svg(SAME)))]
    assert labels == [["sep 7x7", "max pool 3x3"], ["avg pool 3x3", "skip"]]


@given(genotypes())
@example(PUBLISHED)
@example(SAME)
@settings(max_examples=25, deadline=None)
def test_every_line_leads_from_what_is_read_to_the_op(genotype):
    root = parse(cell_svg(genotype))
    sources = [box(r) for r in find(root, "rect", "input") + find(root, "rect", "block")]
    heights = [(top + bottom) / 2 for _, top, _, bottom in sources]
    ops = {(b, i): where for b, pair in enumerate(op_boxes(root)) for i, (where, _) in enumerate(pair)}
    rows = {}
    for line in find(root, "line", "row"):
        (x0, y0), (x1, _) = ends(line)
        source = heights.index(pytest.approx(y0, abs=0.02))
        assert x0 == pytest.approx(sources[source][2], abs=0.02)
        rows[source] = x1
    links = []
    for line in find(root, "line", "read"):
        (x, y), (_, tip) = ends(line)
        source = heights.index(pytest.approx(y, abs=0.02))
        target = next(key for key, b in ops.items() if b[0] < x < b[2] and 0 < b[1] - tip < 6)
        assert sources[source][2] < x <= rows[source] + 0.02
        links.append((source, target))
    read = {(b, i): source for b, block in enumerate(genotype.cell) for i, (source, _) in enumerate(block)}
    assert sorted(links) == sorted((source, target) for target, source in read.items())
    # The outputs of all blocks, and of no input, reach the concatenation.
    concat = box(find(root, "rect", "concat")[0])
    assert {s for s, x in rows.items() if x == pytest.approx(concat[0], abs=0.02)} == set(range(2, len(sources)))


@given(genotypes())
@example(PUBLISHED)
@example(SAME)
@settings(max_examples=25, deadline=None)
def test_nothing_of_a_cell_covers_anything(genotype):
    root = parse(cell_svg(genotype))
    whole = (0, 0, float(root.get("width")), float(root.get("height")))
    outer = [box(r) for c in ("input", "block", "concat") for r in find(root, "rect", c)]
    assert not [pair for pair in itertools.combinations(outer, 2) if overlap(*pair)]
    assert overlapping_texts(root) == []
    assert all(inside(text_box(t), whole) for t in find(root, "text") if t.get("transform") is None)
    assert all(inside(b, whole) for b in outer)
    for pair in op_boxes(root):
        assert sum(inside(where, card) for where, _ in pair for card in outer) == 2
    for group in find(root, "g"):
        if any(r.get("class") == "op" for r in group.findall("{*}rect")):
            assert all(inside(text_box(t), box(group.find("{*}rect"))) for t in group.findall("{*}text"))
    reads, rows = find(root, "line", "read"), find(root, "line", "row")
    for line in reads + rows:
        # A line ends at the edge of a box, or (read) within the block that it leads into.
        x0, y0, x1, y1 = room(line)
        hit = [b for b in outer if overlap((x0 - 1e-3, y0 - 1e-3, x1 + 1e-3, y1), (b[0] + 1, b[1] + 1, b[2] - 1, b[3]))]
        assert len(hit) == (line in reads)
    # Lines of one direction share no piece: every row has a height of its own and every reader a column.
    assert len({room(line)[1] for line in rows}) == len(rows)
    assert len({room(line)[0] for line in reads}) == len(reads)


@given(genotypes())
@settings(max_examples=15, deadline=None)
def test_nothing_of_a_path_covers_anything(genotype):
    root = parse(path_svg(genotype))
    whole = (0, 0, float(root.get("width")), float(root.get("height")))
    assert overlapping_texts(root) == [] and all(inside(text_box(t), whole) for t in find(root, "text"))
    radius = 9.0
    nodes = [(float(c.get("cx")), float(c.get("cy"))) for c in find(root, "circle")]
    discs = [(x - radius, y - radius, x + radius, y + radius) for x, y in nodes]
    assert all(inside(disc, whole) for disc in discs)
    assert not [t.text for t in find(root, "text") for disc in discs if overlap(text_box(t), disc)]


def test_network_has_the_path_above_the_cell_and_all_colours_are_known():
    drawing = network_svg(PUBLISHED, "<A & B>")
    root = parse(drawing)
    assert words(root)[0] == "<A & B>"
    assert len(find(root, "line", "path")) == 12 and len(find(root, "rect", "op")) == 10
    used = set(re.findall(r'(?:fill|stroke)="([^"]*)"', drawing)) - {"none"}
    assert used <= colors.DARK.keys() and colors.PAPER in used
    path, cell = parse(path_svg(PUBLISHED)), parse(cell_svg(PUBLISHED))
    # A title takes 28 units.
    assert float(root.get("height")) == float(path.get("height")) + float(cell.get("height")) + 28


def test_networks_are_loaded_and_drawn_by_their_kind(tmp_path):
    PUBLISHED.save(tmp_path / "network.json")
    genotype = architecture.load_genotype(tmp_path / "network.json")
    assert genotype == PUBLISHED
    assert architecture.draw(genotype, (65, 129), 8, "T") == network_svg(PUBLISHED, "T")
