"""Tests the charts: where points and labels lie, the Pareto front, ticks, and that names stay words."""

import itertools

import pytest
from drawings import find, inside, overlap, overlapping_texts, parse, points, text_box, words
from hypothesis import given
from hypothesis import strategies as st

from nas_seg.plot import axes, charts, labels
from nas_seg.plot.charts import FAILED, STOPPED, Point, Series

HOSTILE = "<script>alert(1)</script> \"'&\x1b\ud800"
numbers = st.floats(-1e9, 1e9).map(lambda v: round(v, 6))


@given(numbers, numbers)
def test_ticks_are_round_evenly_spaced_and_cover_the_data(a, b):
    low, high = min(a, b), max(a, b)
    ticks = axes.nice_ticks(low, high)
    step = ticks[1] - ticks[0]
    slack = 1e-6 * step
    assert ticks[0] <= low + slack and ticks[-1] >= high - slack and 2 <= len(ticks) <= 9
    assert all(y - x == pytest.approx(step) for x, y in itertools.pairwise(ticks))
    assert f"{step:.1e}"[:3] in ("1.0", "2.0", "2.5", "5.0")


def test_ticks_of_known_ranges():
    assert axes.nice_ticks(0, 100) == [0, 20, 40, 60, 80, 100]
    ticks = axes.nice_ticks(0.383, 0.417)
    assert [axes.format_tick(t, ticks) for t in ticks] == ["0.38", "0.39", "0.40", "0.41", "0.42"]
    assert axes.format_tick(2500.0, [0.0, 2500.0]) == "2,500"


@given(st.integers(1, 10_000))
def test_numbers_of_trials_have_whole_ticks(number):
    ticks = axes.nice_ticks(0.0, number, whole=True)
    assert all(tick == round(tick) for tick in ticks) and ticks[0] == 0 and ticks[-1] >= number and len(ticks) <= 7


@given(st.lists(st.floats(0, 100), min_size=1, max_size=12), st.floats(0.5, 20))
def test_spread_labels_keep_their_order_their_distance_and_the_range(wanted, gap):
    placed = labels.spread(wanted, gap, 0.0, 100.0)
    room = min(gap, 100.0 / max(len(wanted) - 1, 1))
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    assert all(placed[b] - placed[a] >= room - 1e-6 for a, b in itertools.pairwise(order))
    assert min(placed) >= -1e-6 and max(placed) <= 100 + 1e-6


def test_labels_move_no_further_than_they_must():
    assert labels.spread([10.0, 50.0, 90.0], 5.0, 0.0, 100.0) == [10.0, 50.0, 90.0]
    # Two at 50 part by half the gap each; one at the edge pushes the other inwards.
    assert labels.spread([50.0, 50.0, 10.0], 8.0, 0.0, 100.0) == [46.0, 54.0, 10.0]
    assert labels.spread([99.0, 100.0], 8.0, 0.0, 100.0) == [92.0, 100.0]
    assert labels.spread([], 8.0, 0.0, 100.0) == []


@given(st.lists(st.tuples(st.floats(80, 400), st.floats(40, 200)), max_size=10))
def test_labels_around_points_cover_no_other_label_and_stay_inside(places):
    within = (62.0, 20.0, 560.0, 260.0)
    found = [p for p in labels.around(places, ["rank 12"] * len(places), [], within, 10.5) if p is not None]
    assert not any(overlap(a.box, b.box) for a, b in itertools.combinations(found, 2))
    assert all(inside(p.box, within) for p in found) and bool(found) == bool(places)


def test_a_label_gives_way_to_dots():
    (free,) = labels.around([(200.0, 100.0)], ["aspp"], [], (0, 0, 560, 260), 10.5)
    (moved,) = labels.around([(200.0, 100.0)], ["aspp"], [(215.0, 100.0)], (0, 0, 560, 260), 10.5)
    assert free.anchor == "start" and moved.anchor == "end"


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
    assert {"random 0.5000", "near_best 0.6000"} == {text.text for text in find(root, "text", "end")}
    solid, dashed = find(root, "polyline")[:1], [e for e in find(root, "polyline") if e.get("stroke-dasharray")]
    assert solid[0].get("stroke-dasharray") is None and len(dashed) == 1
    assert len(find(root, "circle", "point")) == 2 and len(find(root, "polygon", "point")) == 2
    assert find(root, "circle", "point")[0].get("fill") != find(root, "polygon", "point")[0].get("fill")


def test_pareto_plot_rings_the_front_alone_and_names_the_unit():
    series = Series("random", [1e8, 2e8, 3e8, 4e8], [0.40, 0.38, 0.45, 0.43])
    root = parse(charts.pareto_plot([series], "multiply-adds"))
    dots = [(float(e.get("cx")), float(e.get("cy"))) for e in find(root, "circle", "point")]
    rings = [(float(e.get("cx")), float(e.get("cy"))) for e in find(root, "circle", "front")]
    assert rings == [dots[0], dots[2]]
    assert "multiply-adds (M)" in words(root) and "400" in words(root)


def test_baselines_are_lines_at_their_reward_with_labels_that_do_not_cover_one_another():
    levels = {"aspp": 0.42, "top1": 0.421, "conv1x1": 0.4205}
    root = parse(charts.search_curve([Series("random", [1, 2], [0.40, 0.44])], levels=levels))
    dots = [float(e.get("cy")) for e in find(root, "circle", "point")]
    lines = find(root, "line", "level")
    assert {e.get("y1") for e in lines} == {e.get("y2") for e in lines} and len(lines) == 3
    # 0.42 is half-way between both dots.
    assert float(lines[0].get("y1")) == pytest.approx(sum(dots) / 2, abs=0.02)
    # From the top down in the order of their rewards.
    ends = sorted(find(root, "text", "end"), key=lambda text: float(text.get("y")))
    assert [text.text for text in ends] == ["top1 0.4210", "conv1x1 0.4205", "aspp 0.4200"]
    assert overlapping_texts(root) == []


def test_trials_without_a_score_stand_below_all_scores_in_shapes_of_their_own():
    unscored = [(FAILED, 0.5, "trial 0 failed: diverged"), (STOPPED, 1.5, "trial 2 stopped early: hopeless")]
    root = parse(charts.search_curve([Series("random", [1, 2], [0.40, 0.44], unscored=unscored)]))
    cross, triangle = find(root, "path", "unscored"), find(root, "polygon", "unscored")
    assert [len(cross), len(triangle)] == [1, 1] and {"failed", "stopped early"} <= set(words(root))
    assert cross[0].find("{*}title").text == "trial 0 failed: diverged"
    dots = [(float(e.get("cx")), float(e.get("cy"))) for e in find(root, "circle", "point")]
    tip = points(triangle[0])[2]
    assert min(y for _, y in points(triangle[0])) > max(y for _, y in dots)
    assert tip[0] == pytest.approx((dots[0][0] + dots[1][0]) / 2, abs=0.1)
    assert "failed" not in words(parse(charts.search_curve([Series("random", [1, 2], [0.40, 0.44])])))


def test_rings_are_those_of_the_study_where_it_says_them_and_baselines_have_names_but_no_ring():
    series = Series("random", [1.0, 2.0, 3.0], [0.40, 0.45, 0.43], front=[0, 2])
    root = parse(charts.pareto_plot([series], "latency (s)", points=[Point("aspp", 0.5, 0.5)], ringed="both"))
    dots = [e.get("cx") for e in find(root, "circle", "point")]
    assert [e.get("cx") for e in find(root, "circle", "front")] == [dots[0], dots[2]]
    assert {"rings: both", "aspp", "baseline"} <= set(words(root)) and len(find(root, "polygon", "named")) == 1


def test_class_marks_lie_at_their_scores_and_absent_ones_are_left_out():
    root = parse(charts.class_chart(["Sky", "Car"], {"rank 1": [80.0, None], "aspp": [40.0, 0.0]}, "IoU (%)", 100))
    (rank,) = find(root, "circle", "score")
    aspp = [[x for x, _ in points(e)] for e in find(root, "polygon", "score")]
    left, right = (sum(xs) / 4 for xs in (aspp[1], aspp[0]))
    assert float(rank.get("cx")) - left == pytest.approx(2 * (right - left), abs=0.2)
    assert {"rank 1", "aspp", "Sky", "Car", "IoU (%)", "100"} <= set(words(root))


def test_both_scores_of_a_point_are_its_place():
    searched = [Point("rank 1", 0.40, 0.50), Point("rank 2", 0.38, 0.54), Point("rank 3", 0.36, 0.50)]
    root = parse(charts.score_plot(searched, [Point("aspp", 0.37, 0.52)], "reward", "mIoU"))
    (x1, y1), (x2, y2), (x3, y3) = [(float(e.get("cx")), float(e.get("cy"))) for e in find(root, "circle", "point")]
    assert x1 - x2 == pytest.approx(x2 - x3, abs=0.02) and y1 == y3 > y2
    corners = points(find(root, "polygon", "named")[0])
    assert corners[0][1] == pytest.approx((y1 + y2) / 2, abs=0.1)
    assert {"rank 1", "rank 2", "rank 3", "aspp", "searched", "baseline"} <= set(words(root))


def hostile_charts():
    name, long = HOSTILE, 40 * "long name "
    names = (name, long, "c", "d", "e", "f", "g")
    unscored = [(FAILED, 0.5, HOSTILE), (STOPPED, 1.5, HOSTILE)]
    series = [Series(n, [1, 2, 3], [0.4, 0.5, 0.45], [HOSTILE] * 3, unscored) for n in names]
    points = [Point(n, 2.0, 0.45) for n in names]
    levels = dict.fromkeys(names, 0.45)
    yield charts.search_curve(series, x_label=HOSTILE, y_label=long, levels=levels)
    yield charts.pareto_plot(series, long, points=points, ringed=HOSTILE)
    yield charts.class_chart([name, long], {n: [50.0, None] for n in names}, HOSTILE, 100)
    yield charts.score_plot(points, points, HOSTILE, long)
    yield charts.search_curve([Series("none", [], [])])
    yield charts.search_curve([Series("none", [], [], unscored=unscored)], levels={"aspp": 0.4})
    yield charts.pareto_plot([], "multiply-adds")
    yield charts.pareto_plot([Series("none", [], [])], "multiply-adds", points=points[:1])
    yield charts.search_curve([Series("one", [1], [0.4])])
    yield charts.class_chart([], {}, "IoU", 100.0)
    yield charts.score_plot([], [], "reward", "mIoU")


@pytest.mark.parametrize("drawing", hostile_charts())
def test_any_name_and_any_number_of_points_gives_a_readable_drawing(drawing):
    root = parse(drawing.encode())
    assert "<script" not in drawing and find(root, "script") == [] and "nan" not in drawing
    whole = (0, 0, float(root.get("width")), float(root.get("height")))
    upright = [text for text in find(root, "text") if text.get("transform") is None]
    assert all(inside(text_box(text), whole) for text in upright)
    assert overlapping_texts(root) == []
