"""SVG and HTML as escaped text: what is not markup already is escaped, so that no name can become markup."""

from __future__ import annotations

import html
import re
from typing import Any

from nas_seg.plot.colors import INK, PAPER, dark_style

FONT = "system-ui, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif"
SVG_NAMESPACE = "http://www.w3.org/2000/svg"

# XML has no such characters, not even escaped; UTF-8 has no lone surrogates.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# The width of a letter as a share of the font's size: that of the widest of the usual fonts (DejaVu Sans).
_LETTER, _BOLD_LETTER = 0.62, 0.70


class Markup(str):
    """Text that is markup already and is taken as it stands."""

    __slots__ = ()


def escape(value: Any) -> Markup:
    """Any text as markup; a `Markup` is returned as it is."""
    return value if isinstance(value, Markup) else Markup(html.escape(_NOT_XML.sub("\ufffd", str(value))))


def join(parts: Any, separator: str = "") -> Markup:
    """Parts one after another, each escaped unless it is markup; None is left out."""
    return Markup(escape(separator).join(escape(part) for part in parts if part is not None))


def element(tag: str, *children: Any, **attributes: Any) -> Markup:
    """<tag attributes>children</tag>.

    Args:
        tag: its name.
        children: markup, or text to be escaped; None is left out. Without any: <tag/>.
        attributes: None is left out; "_" stands for "-", and one at the end (class_) is dropped.
    """
    pairs = ((name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items() if value is not None)
    head = "".join(f' {name}="{escape(_plain(value))}"' for name, value in pairs)
    return Markup(f"<{tag}{head}>{join(children)}</{tag}>" if children else f"<{tag}{head}/>")


def text(x: float, y: float, content: str, size: float = 12, **attributes: Any) -> Markup:
    """One line of SVG text whose baseline starts at (x, y)."""
    return element("text", content, x=x, y=y, font_size=size, **({"fill": INK} | attributes))


def svg(width: float, height: float, label: str, *children: Any) -> Markup:
    """A drawing of its own on white; `label` is what it says to who cannot see it."""
    background = element("rect", width=width, height=height, fill=PAPER)
    return element(
        "svg", background, *children, xmlns=SVG_NAMESPACE, width=width, height=height,
        viewBox=f"0 0 {_plain(width)} {_plain(height)}", role="img", aria_label=label, font_family=FONT,
    )  # fmt: skip


def adaptive(drawing: str) -> str:
    """A drawing as a file of its own: dark where the reader prefers dark screens, on paper as it is."""
    head, rest = drawing.split(">", 1)
    style = element("style", Markup(f"@media screen and (prefers-color-scheme: dark) {{\n{dark_style()}\n}}"))
    return f"{head}>{style}{rest}"


def text_width(content: str, size: float, bold: bool = False) -> float:
    """About how wide a line of text is at most, in units of the drawing."""
    return len(content) * size * (_BOLD_LETTER if bold else _LETTER)


def fit(content: str, width: float, size: float, bold: bool = False) -> str:
    """The text, cut with an ellipsis where it is wider than `width`."""
    letters = int(width / text_width("x", size, bold))
    return content if len(content) <= letters else content[: max(letters - 1, 0)] + "…"


def _plain(value: Any) -> str:
    """Numbers with at most two decimals: finer than any screen, and half the size of a report."""
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value)
