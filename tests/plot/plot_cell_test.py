"""Tests the drawing of cells: labels, taps to scale, and a layout in which nothing covers anything."""

import itertools

import pytest
from drawings import box, find, inside, overlap, overlapping_texts, parse, points, text_box
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nas_seg.dpc import CITYSCAPES_TOP1, Branch, DPCGenotype
from nas_seg.plot.cell_diagram import branch_label, dpc_svg, taps
from nas_seg.utils.errors import InputError

SPP_AND_CHAIN = DPCGenotype(
    (
        Branch("conv", -1, kernel=3, rate=(18, 21)),
        Branch("pyramid_pooling", 0, grid_size=(4, 2)),
        Branch("conv", 1, kernel=1),
        Branch("pyramid_pooling", 2, grid_size=(1, 1)),
        Branch("conv", 3, kernel=3, rate=(1, 1)),
        Branch("conv", 0, kernel=3, rate=(21, 1)),
        Branch("conv", -1, kernel=1),
    )
)


@st.composite
def cells(draw):
    branches = []
    for i in range(draw(st.integers(1, 9))):
        source = draw(st.integers(-1, i - 1))
        op = draw(st.sampled_from(["1x1", "atrous", "spp"]))
        pair = (draw(st.integers(1, 40)), draw(st.integers(1, 150)))
        if op == "spp":
            branches.append(Branch("pyramid_pooling", source, grid_size=pair))
        else:
            branches.append(
                Branch("conv", source, kernel=3, rate=pair) if op == "atrous" else Branch("conv", source, 1)
            )
    return DPCGenotype(tuple(branches))


def cards(root):
    """The cards of the branches by number: (group, box)."""
    groups = {}
    for group in find(root, "g"):
        names = [t.text for t in group.findall("{*}text") if (t.text or "").startswith("branch ")]
        if names:
            groups[int(names[0].split()[1])] = group
    return {number: (group, box(group.find("{*}rect"))) for number, group in groups.items()}


@pytest.mark.parametrize("genotype", [CITYSCAPES_TOP1, SPP_AND_CHAIN])
def test_drawing_has_each_branch_with_its_label_once(genotype):
    root = parse(dpc_svg(genotype, title="A cell"))
    drawn = cards(root)
    assert sorted(drawn) == list(range(len(genotype.branches)))
    labels = {number: [t.text for t in group.iter() if t.get("class") == "op"] for number, (group, _) in drawn.items()}
    assert sum(map(len, labels.values())) == len(find(root, "text", "op"))
    # Two lines in a card: what it is, and its rate.
    for number, lines in labels.items():
        assert ", ".join(lines) == branch_label(genotype.branches[number])


def test_labels_are_the_words_of_the_papers_figure():
    labels = [branch_label(branch) for branch in (*CITYSCAPES_TOP1.branches[:2], *SPP_AND_CHAIN.branches[1:3])]
    assert labels == ["3x3 sep, rate 1x6", "3x3 sep, rate 18x15", "SPP 4x2", "1x1"]


def test_taps_are_those_computed_by_hand():
    # The middle of 33 positions is 16. Rate 1x6: rows 15 16 17, columns 10 16 22.
    assert taps(CITYSCAPES_TOP1.branches[0], (33, 33)) == [(r, c) for r in (15, 16, 17) for c in (10, 16, 22)]
    # Rate 6x21: rows 10 16 22; columns -5 and 37 are beyond the map.
    assert taps(CITYSCAPES_TOP1.branches[4], (33, 33)) == [(10, 16), (16, 16), (22, 16)]
    # At output stride 8 the rates double: rows 20 32 44, columns -10 32 74 of 65.
    assert taps(CITYSCAPES_TOP1.branches[4], (65, 65), rate_scale=2) == [(20, 32), (32, 32), (44, 32)]
    assert taps(Branch("conv", -1, kernel=1), (33, 33)) == [(16, 16)]


@pytest.mark.parametrize("size", [(33, 33), (65, 129)])
def test_dots_lie_on_the_map_to_scale(size):
    # Middle of 65: 32, of 129: 64. Rate 18x15: rows 14 32 50, columns 49 64 79. On 33 positions rows -2, 34 are lost.
    expected = {
        (33, 33): [(16, 1), (16, 16), (16, 31)],
        (65, 129): [(r, c) for r in (14, 32, 50) for c in (49, 64, 79)],
    }[size]
    group, _ = cards(parse(dpc_svg(CITYSCAPES_TOP1, size)))[1]
    left, top, right, bottom = box(next(e for e in group.iter() if e.get("class") == "map"))
    assert (right - left) / (bottom - top) == pytest.approx(size[1] / size[0], rel=2e-3)
    dots = [(float(e.get("cy")), float(e.get("cx"))) for e in group.iter() if e.get("class") == "tap"]
    # The file has two decimals.
    for (y, x), (row, column) in zip(dots, expected, strict=True):
        assert y == pytest.approx(top + (row + 0.5) / size[0] * (bottom - top), abs=0.02)
        assert x == pytest.approx(left + (column + 0.5) / size[1] * (right - left), abs=0.02)


def test_lost_taps_are_told():
    assert "3 of 9 taps on the map" in dpc_svg(CITYSCAPES_TOP1)
    assert "taps on the map" not in dpc_svg(CITYSCAPES_TOP1, (65, 129))


def test_pooling_window_is_drawn_to_scale():
    # Grid 4x2 on 23x31: windows of (23 - 1) // 4 + 1 = 6 and (31 - 1) // 2 + 1 = 16, in the middle.
    drawn = cards(parse(dpc_svg(SPP_AND_CHAIN, (23, 31))))
    for number, (height, width) in ((1, (6, 16)), (3, (23, 31))):
        group, _ = drawn[number]
        around, window = (box(next(e for e in group.iter() if e.get("class") == c)) for c in ("map", "window"))
        scale = (around[2] - around[0]) / 31
        assert (window[2] - window[0]) / scale == pytest.approx(width, abs=0.01)
        assert (window[3] - window[1]) / scale == pytest.approx(height, abs=0.01)
        assert (window[0] - around[0]) / scale == pytest.approx((31 - width) // 2, abs=0.01)
        assert (window[1] - around[1]) / scale == pytest.approx((23 - height) // 2, abs=0.01)


@given(cells())
@settings(max_examples=30, deadline=None)
def test_every_arrow_leads_from_what_is_read_to_the_branch(genotype):
    root = parse(dpc_svg(genotype))
    drawn = {number: where for number, (_, where) in cards(root).items()}
    links = set()
    for arrow in find(root, "g", "input"):
        (x0, y0), *_, (x1, _) = points(arrow.find("{*}polyline"))
        target = next(n for n, b in drawn.items() if b[0] < x1 < b[2])
        source = next((n for n, b in drawn.items() if b[0] < x0 < b[2] and abs(b[1] - y0) < 0.1), -1)
        links.add((source, target))
    assert links == {(branch.input, number) for number, branch in enumerate(genotype.branches)}


@given(cells())
@example(CITYSCAPES_TOP1)
@example(DPCGenotype((Branch("conv", -1, kernel=1), Branch("conv", -1, kernel=1), Branch("conv", 0, kernel=1))))
@settings(max_examples=30, deadline=None)
def test_no_two_lines_cross(genotype):
    lines = [points(line) for line in find(parse(dpc_svg(genotype)), "polyline")]
    pieces = [(a, b) for line in lines for a, b in itertools.pairwise(line)]
    level = [(a, b) for a, b in pieces if a[1] == b[1]]
    upright = [(a, b) for a, b in pieces if a[0] == b[0]]
    for (x0, y), (x1, _) in level:
        assert not any(min(x0, x1) < x < max(x0, x1) and min(a, b) < y < max(a, b) for (x, a), (_, b) in upright)


@given(cells())
@example(DPCGenotype((Branch("pyramid_pooling", -1, grid_size=(1, 1)),)))
@settings(max_examples=30, deadline=None)
def test_nothing_covers_anything_in_any_cell(genotype):
    root = parse(dpc_svg(genotype, (23, 31), title="A title of some length that may have to be cut"))
    whole = (0, 0, float(root.get("width")), float(root.get("height")))
    boxes = [where for _, where in cards(root).values()]
    assert not [pair for pair in itertools.combinations(boxes, 2) if overlap(*pair)]
    assert overlapping_texts(root) == []
    assert all(inside(text_box(text), whole) for text in find(root, "text"))
    for group, where in cards(root).values():
        assert all(inside(text_box(text), where) for text in group.findall("{*}text"))
        assert all(inside(box(rect), where) for rect in group.findall("{*}rect"))
    for line in find(root, "polyline"):
        for (x0, y0), (x1, y1) in itertools.pairwise(points(line)):
            # Lines end on the edges of cards; half a unit inside of them there must be none.
            piece = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
            shrunk = [(b[0] + 0.5, b[1] + 0.5, b[2] - 0.5, b[3] - 0.5) for b in boxes]
            assert not any(overlap((piece[0] - 1e-3, piece[1] - 1e-3, piece[2], piece[3]), b) for b in shrunk)


def test_title_is_escaped_and_cut():
    drawing = dpc_svg(CITYSCAPES_TOP1, title="<script>alert('1')</script>\x00" + 300 * "x")
    root = parse(drawing)
    assert "<script" not in drawing and find(root, "script") == []
    assert find(root, "text")[0].text.startswith("<script>alert('1')</script>\ufffdxxx")


def test_wrong_map_and_stride_are_refused():
    with pytest.raises(InputError, match="map_size: expected height,width of at least 1, received"):
        dpc_svg(CITYSCAPES_TOP1, (0, 33))
    with pytest.raises(InputError, match="output_stride: a dense prediction cell expects 8 or 16, received 32"):
        dpc_svg(CITYSCAPES_TOP1, output_stride=32)
