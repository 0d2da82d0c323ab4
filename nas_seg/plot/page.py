"""A page of HTML that needs nothing but itself: no script, no network; it prints, and it fits a phone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from nas_seg import __version__
from nas_seg.plot.colors import AXIS, DARK, FAINT_INK, GRID, INK, PAPER, POOLING_BOX, dark_style
from nas_seg.plot.markup import FONT, Markup, element, join

# The browser itself refuses whatever would be loaded from elsewhere.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
# The colours of the page's own parts by their names in the style below; on a dark screen their dark ones.
_COLORS = {"paper": PAPER, "ink": INK, "faint": FAINT_INK, "rule": GRID, "line": AXIS, "tint": POOLING_BOX[0]}
_STYLE = f"""
:root {{ color-scheme: light dark; {" ".join(f"--{k}: {v};" for k, v in _COLORS.items())} }}
body {{ margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 {FONT}; }}
main {{ max-width: 1160px; margin: 0 auto; padding: 16px 16px 48px; }}
h1 {{ font-size: 1.7rem; line-height: 1.25; margin: 12px 0 4px; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.25rem; margin: 36px 0 8px; padding-bottom: 4px; border-bottom: 2px solid var(--rule); }}
h3 {{ font-size: 1rem; margin: 20px 0 4px; overflow-wrap: anywhere; }}
p {{ margin: 6px 0; overflow-wrap: anywhere; }}
.note {{ color: var(--faint); font-size: 0.9rem; }}
.wide {{ overflow-x: auto; }}
.wide svg {{ display: block; max-width: 100%; height: auto; }}
.columns {{ display: grid; gap: 12px 24px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 500px), 1fr)); }}
.columns svg {{ min-width: 440px; width: 100%; }}
.columns .wide {{ max-width: 680px; }}
.columns > * {{ min-width: 0; }}
table {{ border-collapse: collapse; font-size: 0.9rem; margin-bottom: 12px; }}
th, td {{ text-align: left; vertical-align: top; padding: 4px 14px 4px 0; border-bottom: 1px solid var(--rule); }}
thead th {{ border-bottom: 2px solid var(--line); vertical-align: bottom; }}
tbody th {{ font-weight: 600; white-space: nowrap; }}
td.number, th.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
td.number {{ white-space: nowrap; }}
td.facts {{ overflow-wrap: anywhere; }}
tr.baseline td {{ background: var(--tint); font-style: italic; }}
code {{ font: 0.85em/1.5 ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; }}
td code {{ display: inline-block; min-width: 16em; }}
td.facts code {{ white-space: pre-wrap; }}
details {{ margin: 12px 0; }}
summary {{ cursor: pointer; font-weight: 600; }}
figure {{ margin: 12px 0; }}
figure img {{ display: block; max-width: 100%; height: auto; }}
.views {{ display: grid; gap: 6px; grid-template-columns: repeat(4, 1fr); }}
.views img {{ width: 100%; }}
figcaption {{ font-size: 0.9rem; overflow-wrap: anywhere; }}
.swatch {{ display: inline-block; width: 0.9em; height: 0.9em; margin: 0 4px 0 0; border: 1px solid var(--line); }}
.swatches span {{ display: inline-block; margin-right: 16px; }}
@media (max-width: 1000px) {{ table {{ font-size: 0.8rem; }} th, td {{ padding-right: 10px; }}
  .views {{ grid-template-columns: 1fr 1fr; }} }}
@media (max-width: 600px) {{ main {{ padding: 8px 12px 32px; }} h1 {{ font-size: 1.35rem; }}
  .diagram svg {{ max-width: none; }} }}
@media screen and (prefers-color-scheme: dark) {{
:root {{ {" ".join(f"--{k}: {DARK[v]};" for k, v in _COLORS.items())} }}
{dark_style()}
}}
@media print {{
  body {{ font-size: 11pt; -webkit-print-color-adjust: exact; print-color-adjust: exact; }}
  main {{ max-width: none; padding: 0; }}
  figure, tr, .columns > * {{ break-inside: avoid; }}
  h2, h3 {{ break-after: avoid; }}
  .wide {{ overflow: visible; }}
  .wide svg {{ min-width: 0 !important; }}
  td code {{ min-width: 0; }}
}}
"""


def page(title: str, *body: Any) -> str:
    """A whole document."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="generator", content=f"nas_seg {__version__}"),
        element("title", title),
        element("style", Markup(_STYLE)),
    )
    return "<!DOCTYPE html>\n" + element("html", head, element("body", element("main", *body)), lang="en") + "\n"


def section(title: str, *body: Any) -> Markup:
    """A part of the page with its heading."""
    return element("section", element("h2", title), *body)


def note(*words: Any) -> Markup:
    """A paragraph that is no result."""
    return element("p", *words, class_="note")


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    numbers: Sequence[str] = (),
    row_classes: Sequence[str | None] = (),
) -> Markup:
    """A table that scrolls by itself where the screen is narrower.

    Args:
        columns: their headings.
        rows: one cell a column, text or markup.
        numbers: the columns that stand to the right.
        row_classes: of the style, one a row; empty: none.
    """
    classes = ["number" if column in numbers else None for column in columns]
    head = element("tr", *(element("th", c, class_=k) for c, k in zip(columns, classes, strict=True)))
    body = [
        element("tr", *(element("td", c, class_=k) for c, k in zip(row, classes, strict=True)), class_=row_class)
        for row, row_class in zip(rows, row_classes or [None] * len(rows), strict=True)
    ]
    return element("div", element("table", element("thead", head), element("tbody", *body, "")), class_="wide")


def facts(rows: Iterable[tuple[str, Any]]) -> Markup:
    """Names and what they are; rows with nothing to say are left out."""
    lines = [element("tr", element("th", k), element("td", v, class_="facts")) for k, v in rows if v not in (None, "")]
    return element("table", element("tbody", *lines, ""))


def chart(drawing: str) -> Markup:
    """A chart that shrinks with the screen as far as it can be read and then scrolls."""
    return element("div", Markup(drawing), class_="wide")


def diagram(drawing: str) -> Markup:
    """A drawing that a narrow screen scrolls and does not shrink."""
    return element("figure", element("div", Markup(drawing), class_="wide diagram"))


def columns(*parts: Markup) -> Markup:
    """Parts side by side where there is room."""
    return element("div", *parts, class_="columns")


def details(summary: str, *body: Any) -> Markup:
    """What only some readers want: a line that opens."""
    return element("details", element("summary", summary), *body)


def swatches(names: Sequence[str], colors: Sequence[tuple[int, int, int]]) -> Markup:
    """Which colour stands for which class."""
    parts = [
        element("span", element("i", "", class_="swatch", style=f"background:rgb({r},{g},{b})"), name)
        for name, (r, g, b) in zip(names, colors, strict=True)
    ]
    return element("p", join(parts, " "), class_="swatches note")
