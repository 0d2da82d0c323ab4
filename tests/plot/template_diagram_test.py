"""Tests the drawings of template networks: what they say, lines that can be followed, and nothing that covers."""

import itertools

import pytest
from drawings import box, find, inside, overlap, overlapping_texts, parse, text_box, words
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nas_seg.plot.template_diagram import template_svg
from nas_seg.template import AGGREGATIONS, OPS, Layer, Template, TemplateGenotype, published

ARCH0 = published("arch0")
# One map that nothing reads, templates that no layer applies, and both inputs alike.
ODD = TemplateGenotype(
    tuple(Template(op, "skip_connect", "psum") for op in OPS),
    (Layer(0, 0, 3, repeats=4, stride=2), Layer(2, 2, 3), Layer(0, 2, 5, repeats=3, stride=2)),
)


@st.composite
def genotypes(draw):
    number = draw(st.integers(1, 5))
    ops = st.sampled_from(OPS)
    templates = [Template(draw(ops), draw(ops), draw(st.sampled_from(AGGREGATIONS))) for _ in range(number)]
    layers = [
        Layer(
            *(draw(st.integers(0, 1 + i)) for _ in range(2)),
            draw(st.integers(0, number - 1)),
            draw(st.integers(1, 4)),
            draw(st.sampled_from((1, 2))),
        )
        for i in range(draw(st.integers(1, 9)))
    ]
    return TemplateGenotype(tuple(templates), tuple(layers))


def ends(line):
    return tuple((float(line.get(f"x{i}")), float(line.get(f"y{i}"))) for i in (1, 2))


def room(line):
    (x0, y0), (x1, y1) = ends(line)
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def test_templates_and_layers_are_told():
    told = words(parse(template_svg(ARCH0, "Published")))
    assert told[0] == "Published"
    text = " ".join(told)
    assert "T0 cat max pool 3x3 sep 3x3 T1 cat sep 5x5 rate 6 sep 5x5 T2 cat max pool 3x3 sep 5x5" in text
    layers = "0: 24 at 1/4 1: 32 at 1/8 T0 stride 2 2: 64 at 1/32 T2 × 2 3: 64 at 1/32 T1 × 2 4: 64 at 1/32 T2 5: 32"
    assert layers in text
    assert "stride 2 2: 64 at 1/16" in " ".join(words(parse(template_svg(ARCH0, sep_repeats=1))))


def test_a_template_that_no_layer_applies_is_told():
    told = words(parse(template_svg(ODD)))
    assert "T0, which no layer applies" in told and "T3" in told and "T5" in told


@given(genotypes())
@example(ARCH0)
@example(ODD)
@settings(max_examples=25, deadline=None)
def test_every_line_leads_from_a_map_to_what_reads_it(genotype):
    root = parse(template_svg(genotype))
    maps = [box(rect) for rect in find(root, "rect", "map")]
    heights = [(top + bottom) / 2 for _, top, _, bottom in maps]
    classifier = box(find(root, "rect", "concat")[0])
    reads, outputs = [], []
    for line in find(root, "line", "row"):
        (x0, y), (x1, _) = ends(line)
        source = min(range(len(maps)), key=lambda n: abs(heights[n] - y))
        # Two decimals in the file.
        assert x0 == pytest.approx(maps[source][2], abs=0.02)
        if x1 == pytest.approx(classifier[0], abs=0.02):
            outputs.append(source)
    for line in find(root, "line", "read"):
        (x, y), (_, end) = ends(line)
        source = min(range(len(maps)), key=lambda n: abs(heights[n] - y))
        target = next(n for n, b in enumerate(maps) if n > 1 and b[0] < x < b[2] and abs(b[1] - end) < 6)
        reads.append((target - 2, 1 + (x > (maps[target][0] + maps[target][2]) / 2), source))
    expected = [
        (i, k, source) for i, la in enumerate(genotype.layers) for k, source in ((1, la.input1), (2, la.input2))
    ]
    assert sorted(reads) == sorted(expected)
    assert tuple(sorted(outputs)) == genotype.outputs


@given(genotypes())
@example(ARCH0)
@example(ODD)
@settings(max_examples=25, deadline=None)
def test_nothing_covers_anything_and_no_two_lines_share_a_piece(genotype):
    root = parse(
        template_svg(genotype, title="A title of some length that may have to be cut, since it goes on and on")
    )
    whole = (0, 0, float(root.get("width")), float(root.get("height")))
    kinds = ("map", "template", "concat")
    boxes = [box(rect) for kind in kinds for rect in find(root, "rect", kind)]
    assert not [pair for pair in itertools.combinations(boxes, 2) if overlap(*pair)]
    assert overlapping_texts(root) == []
    assert all(inside(text_box(t), whole) for t in find(root, "text") if t.get("transform") is None)
    assert all(inside(b, whole) for b in boxes)
    lines = [room(line) for line in find(root, "line")]
    for line in lines:
        # Lines end on the edges of boxes; half a unit inside of them there must be none.
        shrunk = [(b[0] + 0.5, b[1] + 0.5, b[2] - 0.5, b[3] - 0.5) for b in boxes]
        assert not any(overlap((line[0] - 1e-3, line[1] - 1e-3, line[2], line[3]), b) for b in shrunk)
    for a, b in itertools.combinations(lines, 2):
        level = a[1] == a[3] and b[1] == b[3] and a[1] == b[1] and min(a[2], b[2]) - max(a[0], b[0]) > 0
        upright = a[0] == a[2] and b[0] == b[2] and a[0] == b[0] and min(a[3], b[3]) - max(a[1], b[1]) > 0
        assert not level and not upright
    for group in find(root, "g"):
        frames = [r for r in group.findall("{*}rect") if r.get("class") in ("map", "op")]
        if frames:
            assert all(inside(text_box(t), box(frames[0])) for t in group.findall("{*}text"))


def test_how_a_template_joins_its_ops_stands_clear_of_both():
    root = parse(template_svg(published("arch1")))
    joints, boxes = find(root, "text", "aggregation"), [box(rect) for rect in find(root, "rect", "op")]
    assert [joint.text for joint in joints] == ["psum"] * 3 and len(boxes) == 6
    for joint, left, right in zip(joints, boxes[::2], boxes[1::2], strict=True):
        begin, _, end, _ = text_box(joint)
        assert begin - left[2] >= 4 and right[0] - end >= 4
