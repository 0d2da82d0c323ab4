"""Tests the charts: where points lie, the Pareto front, ticks, and that names stay words."""

import itertools

import pytest
from drawings import box, find, inside, overlapping_texts, parse, points, text_box, words
from hypothesis import given
from hypothesis import strategies as st

from nas_seg.plot import charts
from nas_seg.plot.charts import Series

HOSTILE = "<script>alert(1)</script> \"'&\x1b\ud800"
numbers = st.floats(-1e9, 1e9).map(lambda v: round(v, 6))


@given(numbers, numbers)
def test_ticks_are_round_evenly_spaced_and_cover_the_data(a, b):
    low, high = min(a, b), max(a, b)
    ticks = charts.nice_ticks(low, high)
    step = ticks[1] - ticks[0]
    slack = 1e-6 * step
    assert ticks[0] <= low + slack and ticks[-1] >= high - slack and 2 <= len(ticks) <= 9
    assert all(y - x == pytest.approx(step) for x, y in itertools.pairwise(ticks))
    assert f"{step:.1e}"[:3] in ("1.0", "2.0", "2.5", "5.0")


def test_ticks_of_known_ranges():
    assert charts.nice_ticks(0, 100) == [0, 20, 40, 60, 80, 100]
    ticks = charts.nice_ticks(0.383, 0.417)
    assert [charts.format_tick(t, ticks) for t in ticks] == ["0.38", "0.39", "0.40", "0.41", "0.42"]
    assert charts.format_tick(2500.0, [0.0, 2500.0]) == "2,500"


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=12))
def test_pareto_front_is_what_no_other_point_beats(pairs):
    def beaten(p):
        return any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in pairs)

    assert charts.pareto_front(pairs) == sorted({p for p in pairs if not beaten(p)})


def test_curve_has_a_dot_a_trial_and_a_line_of_the_best_so_far():
    root = parse(charts.search_curve([Series("random", [1, 2, 3, 4], [0.40, 0.36, 0.44, 0.42])]))
    dots = [(float(e.get("cx")), float(e.get("cy"))) for e in find(root, "circle", "point")]
    (line,) = find(root, "polyline")
    corners = points(line)
    # Trial 3 is the first better one: the line is level from 1 to 3, rises there, and is level to 4.
    assert [x for x, _ in corners] == pytest.approx([dots[i][0] for i in (0, 1, 1, 2, 2, 3, 3)], abs=0.06)
    assert [y for _, y in corners] == pytest.approx([dots[i][1] for i in (0, 0, 0, 0, 2, 2, 2)], abs=0.06)
    # Equal steps of reward and of trials are equal steps on paper, and more reward is higher up.
    assert dots[0][1] - dots[2][1] == pytest.approx(dots[1][1] - dots[0][1], abs=0.02) and dots[2][1] < dots[1][1]
    assert dots[1][0] - dots[0][0] == pytest.approx(dots[3][0] - dots[2][0], abs=0.02)


def test_two_searches_have_two_colours_two_shapes_and_their_names():
    drawing = charts.search_curve([Series("random", [1, 2], [0.4, 0.5]), Series("near_best", [1, 2], [0.4, 0.6])])
    root = parse(drawing)
    assert {"random", "near_best", "line: best so far", "reward", "scored trials"} <= set(words(root))
    assert len(find(root, "circle", "point")) == 2 and len(find(root, "rect", "point")) == 2
    assert find(root, "circle", "point")[0].get("fill") != find(root, "rect", "point")[0].get("fill")


def test_pareto_plot_rings_the_front_alone_and_names_the_unit():
    series = Series("random", [1e8, 2e8, 3e8, 4e8], [0.40, 0.38, 0.45, 0.43])
    root = parse(charts.pareto_plot([series], "multiply-adds"))
    dots = [(float(e.get("cx")), float(e.get("cy"))) for e in find(root, "circle", "point")]
    rings = [(float(e.get("cx")), float(e.get("cy"))) for e in find(root, "circle", "front")]
    assert rings == [dots[0], dots[2]]
    assert "multiply-adds (M)" in words(root) and "400" in words(root)


def test_bars_are_as_long_as_their_values_and_absent_ones_say_so():
    root = parse(charts.bar_chart(["Sky", "Car"], {"val": [80.0, None], "test": [40.0, 20.0]}, "IoU (%)", 100))
    widths = [box(e)[2] - box(e)[0] for e in find(root, "rect", "bar")]
    assert [w / widths[0] for w in widths] == pytest.approx([1, 0.5, 0.25], abs=1e-3)
    assert words(root).count("absent") == 1 and {"80.0", "40.0", "20.0", "val", "test", "Sky", "Car"} <= set(
        words(root)
    )


def hostile_charts():
    name, long = HOSTILE, 40 * "long name "
    series = [Series(n, [1, 2, 3], [0.4, 0.5, 0.45], [HOSTILE] * 3) for n in (name, long, "c", "d", "e", "f", "g")]
    yield charts.search_curve(series, x_label=HOSTILE, y_label=long)
    yield charts.pareto_plot(series, long)
    yield charts.bar_chart([name, long], {s.name: [50.0, 60.0] for s in series}, HOSTILE, 100)
    yield charts.search_curve([Series("none", [], [])])
    yield charts.pareto_plot([], "multiply-adds")
    yield charts.search_curve([Series("one", [1], [0.4])])
    yield charts.bar_chart([], {}, "IoU")


@pytest.mark.parametrize("drawing", hostile_charts())
def test_any_name_and_any_number_of_points_gives_a_readable_drawing(drawing):
    root = parse(drawing.encode())
    assert "<script" not in drawing and find(root, "script") == [] and "nan" not in drawing
    whole = (0, 0, float(root.get("width")), float(root.get("height")))
    upright = [text for text in find(root, "text") if text.get("transform") is None]
    assert all(inside(text_box(text), whole) for text in upright)
    assert overlapping_texts(root) == []
