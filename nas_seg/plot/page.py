"""A page of HTML that needs nothing but itself: no script, no network; it prints, and it fits a phone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from nas_seg import __version__
from nas_seg.plot.markup import FAINT_INK, FONT, INK, Markup, element, join

# The browser itself refuses whatever would be loaded from elsewhere.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = f"""
body {{ margin: 0; background: #fff; color: {INK}; font: 16px/1.5 {FONT}; }}
main {{ max-width: 1100px; margin: 0 auto; padding: 16px 16px 48px; }}
h1 {{ font-size: 1.7rem; line-height: 1.25; margin: 12px 0 4px; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.25rem; margin: 36px 0 8px; padding-bottom: 4px; border-bottom: 2px solid #d5dae0; }}
h3 {{ font-size: 1rem; margin: 20px 0 4px; overflow-wrap: anywhere; }}
p {{ margin: 6px 0; overflow-wrap: anywhere; }}
.note {{ color: {FAINT_INK}; font-size: 0.9rem; }}
.wide {{ overflow-x: auto; }}
.wide svg {{ display: block; max-width: 100%; height: auto; }}
.columns {{ display: grid; gap: 12px 24px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 470px), 1fr)); }}
.columns svg {{ min-width: 440px; }}
.columns > * {{ min-width: 0; }}
table {{ border-collapse: collapse; font-size: 0.9rem; }}
th, td {{ text-align: left; vertical-align: top; padding: 4px 14px 4px 0; border-bottom: 1px solid #e1e5ea; }}
thead th {{ border-bottom: 2px solid #aab2bc; white-space: nowrap; }}
tbody th {{ font-weight: 600; white-space: nowrap; }}
td.number, th.number {{ text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }}
td.facts {{ overflow-wrap: anywhere; }}
code {{ font: 0.85em/1.5 ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; }}
td code {{ white-space: nowrap; }}
td.facts code {{ white-space: pre-wrap; }}
figure {{ margin: 12px 0; }}
figure img {{ display: block; max-width: 100%; height: auto; }}
figcaption {{ font-size: 0.9rem; overflow-wrap: anywhere; }}
.swatch {{ display: inline-block; width: 0.9em; height: 0.9em; margin: 0 4px 0 0; border: 1px solid #69717b; }}
.swatches span {{ display: inline-block; margin-right: 16px; }}
@media (max-width: 600px) {{ main {{ padding: 8px 12px 32px; }} h1 {{ font-size: 1.35rem; }}
  .diagram svg {{ max-width: none; }} }}
@media print {{
  body {{ font-size: 11pt; -webkit-print-color-adjust: exact; print-color-adjust: exact; }}
  main {{ max-width: none; padding: 0; }}
  figure, tr, .columns > * {{ break-inside: avoid; }}
  h2, h3 {{ break-after: avoid; }}
  .wide {{ overflow: visible; }}
  .wide svg {{ min-width: 0 !important; }}
  td code {{ white-space: pre-wrap; }}
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


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], numbers: Sequence[str] = ()) -> Markup:
    """A table that scrolls by itself where the screen is narrower.

    Args:
        columns: their headings.
        rows: one cell a column, text or markup.
        numbers: the columns that stand to the right.
    """
    classes = ["number" if column in numbers else None for column in columns]
    head = element("tr", *(element("th", c, class_=k) for c, k in zip(columns, classes, strict=True)))
    body = [element("tr", *(element("td", c, class_=k) for c, k in zip(row, classes, strict=True))) for row in rows]
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


def swatches(names: Sequence[str], colors: Sequence[tuple[int, int, int]]) -> Markup:
    """Which colour stands for which class."""
    parts = [
        element("span", element("i", "", class_="swatch", style=f"background:rgb({r},{g},{b})"), name)
        for name, (r, g, b) in zip(names, colors, strict=True)
    ]
    return element("p", join(parts, " "), class_="swatches note")
