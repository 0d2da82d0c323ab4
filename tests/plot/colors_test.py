"""Tests that every colour of a drawing has one for dark screens, and that both can be read."""

import re

import numpy as np
import pytest

from nas_seg.dpc import CITYSCAPES_TOP1, Branch, DPCGenotype
from nas_seg.plot import charts, colors, confusion
from nas_seg.plot.cell_diagram import dpc_svg
from nas_seg.plot.charts import FAILED, STOPPED, Point, Series
from nas_seg.plot.confusion import confusion_svg
from nas_seg.plot.curves import line_chart
from nas_seg.plot.markup import adaptive
from nas_seg.plot.page import page


def contrast(a, b):
    """As WCAG 2 defines it."""

    def luminance(color):
        shares = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def drawings():
    points = [Point("aspp", 1.0, 0.4)]
    many = [Series(str(i), [1, 2], [0.4, 0.5], unscored=[(FAILED, 1.5, ""), (STOPPED, 1.5, "")]) for i in range(7)]
    yield dpc_svg(CITYSCAPES_TOP1, title="Top 1")
    yield dpc_svg(DPCGenotype((Branch("pyramid_pooling", -1, grid_size=(1, 1)), Branch("conv", 0, kernel=1))))
    yield charts.search_curve(many, levels={"aspp": 0.4})
    yield charts.pareto_plot(many, "parameters", points=points, ringed="both")
    yield charts.class_chart(["Sky"], {"rank 1": [50.0]}, "IoU", 100.0)
    yield charts.score_plot(points, points, "reward", "mIoU")
    yield line_chart({"loss": [(1, 2.0), (2, 1.0)]}, "step", "loss", at=1)
    yield confusion_svg(np.array([[3, 1], [0, 2]]), ["Sky", "Road"])


@pytest.mark.parametrize("drawing", drawings())
def test_every_colour_of_a_drawing_has_a_dark_one(drawing):
    used = set(re.findall(r'(?:fill|stroke)="([^"]*)"', drawing)) - {"none"}
    assert used <= colors.DARK.keys() and colors.PAPER in used


@pytest.mark.parametrize("ground", [{c: c for c in colors.DARK}, colors.DARK], ids=["light", "dark"])
def test_words_and_marks_stand_out_from_what_is_behind_them(ground):
    # 4.5 : 1 is what WCAG 2 asks of text (level AA), 3 : 1 of lines that carry meaning.
    for color in (colors.INK, colors.FAINT_INK, *colors.SERIES):
        assert contrast(ground[color], ground[colors.PAPER]) >= 4.5
    assert contrast(ground[colors.AXIS], ground[colors.PAPER]) >= 3
    for fill, line in (colors.BAR_BOX, colors.POINTWISE_BOX, colors.CONV_BOX, colors.POOLING_BOX):
        assert contrast(ground[line], ground[fill]) >= 4.5
        assert contrast(ground[colors.INK], ground[fill]) >= 4.5
        assert contrast(ground[colors.FAINT_INK], ground[fill]) >= 4.5


def test_a_page_has_the_dark_colours_on_dark_screens_alone():
    style = page("title").split("<style>")[1].split("</style>")[0]
    light, dark = style.split("@media screen and (prefers-color-scheme: dark)")
    assert f"--paper: {colors.PAPER}" in light and f"--paper: {colors.DARK[colors.PAPER]}" in dark
    assert f'svg [stroke="{colors.INK}"] {{ stroke: {colors.DARK[colors.INK]}; }}' in dark
    assert "svg [" not in light


@pytest.mark.parametrize("ground", [lambda color: color, colors.DARK.get])
def test_numbers_are_read_on_the_strongest_shade_of_a_confusion_matrix(ground):
    def channels(color):
        return [int(color[i : i + 2], 16) for i in (1, 3, 5)]

    for shade in (confusion._RIGHT, confusion._WRONG):
        pairs = zip(channels(ground(colors.PAPER)), channels(ground(shade)), strict=True)
        mixed = [round((1 - confusion._STRONGEST) * below + confusion._STRONGEST * above) for below, above in pairs]
        # 4.5 is asked of small text; a dark screen has 4.4 for the blue of what is right, whose number is bold.
        assert contrast(ground(colors.INK), "#{:02x}{:02x}{:02x}".format(*mixed)) > 4.3


def test_a_drawing_of_its_own_is_dark_on_dark_screens_alone():
    drawing = next(drawings())
    alone = adaptive(drawing)
    style = alone[alone.index("<style>") : alone.index("</style>") + len("</style>")]
    assert alone.replace(style, "") == drawing
    assert style.startswith("<style>@media screen and (prefers-color-scheme: dark)") and colors.dark_style() in style
