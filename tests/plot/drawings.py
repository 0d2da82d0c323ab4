"""Reads SVG text as a person sees it: boxes, lines and how much room the words take."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET

SVG = "{http://www.w3.org/2000/svg}"


def parse(drawing: str) -> ET.Element:
    return ET.fromstring(drawing)


def find(root: ET.Element, tag: str, class_: str | None = None) -> list[ET.Element]:
    return [e for e in root.iter(SVG + tag) if class_ is None or e.get("class") == class_]


def words(root: ET.Element) -> list[str]:
    return [e.text for e in find(root, "text")]


def box(rect: ET.Element) -> tuple[float, float, float, float]:
    """(left, top, right, bottom)."""
    x, y, width, height = (float(rect.get(name)) for name in ("x", "y", "width", "height"))
    return x, y, x + width, y + height


def text_box(text: ET.Element) -> tuple[float, float, float, float]:
    """The room of a line of text in DejaVu Sans, the widest of the usual fonts; its letters are at most 0.7 em on
    average when bold and 0.62 em when not, as measured on the labels of cells and on English words."""
    size = float(text.get("font-size"))
    width = len(text.text) * size * (0.7 if text.get("font-weight") == "bold" else 0.62)
    x = float(text.get("x")) - {"middle": width / 2, "end": width}.get(text.get("text-anchor"), 0)
    y = float(text.get("y"))
    return x, y - 0.75 * size, x + width, y + 0.2 * size


def overlap(a, b) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def inside(inner, outer) -> bool:
    return inner[0] >= outer[0] and inner[1] >= outer[1] and inner[2] <= outer[2] and inner[3] <= outer[3]


def points(line: ET.Element) -> list[tuple[float, float]]:
    return [tuple(float(v) for v in pair.split(",")) for pair in line.get("points").split()]


def overlapping_texts(root: ET.Element) -> list[tuple[str, str]]:
    upright = [e for e in find(root, "text") if e.get("transform") is None]
    pairs = itertools.combinations(upright, 2)
    return [(a.text, b.text) for a, b in pairs if overlap(text_box(a), text_box(b))]
