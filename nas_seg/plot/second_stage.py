"""The part of a report that tells of a search's second stage: the proxy's scores against those of whole trainings."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

from nas_seg.plot import charts, page
from nas_seg.plot.markup import Markup, element
from nas_seg.search.second_stage import Reranking, Result, describe
from nas_seg.search.table import count, seconds
from nas_seg.utils import config
from nas_seg.utils.errors import InputError

FOLDER, FILE = "rerank", "rerank.json"


def read_reranking(folder: str | os.PathLike) -> Reranking:
    """Reads FOLDER/rerank.json, which tools/rerank.py writes.

    Raises:
        InputError: where the file is missing or not such a one.
    """
    path = pathlib.Path(folder, FILE)
    if not path.is_file():
        raise InputError(f"{path}: not found; it is written by tools/rerank.py")
    return config.load(path, Reranking)


def second_stage(found: Reranking) -> Markup:
    """Proxy against full score, the rank correlation, and a table from the best full score down."""
    chart = page.chart(score_chart(found.candidates, f"mIoU on {found.val_split} after {found.steps} steps"))
    left = f" {found.pending} more are still to be trained." if found.pending else ""
    caption = page.note(f"{describe(found.correlation)}. Baselines are not counted.{left}")
    failed = [page.note(f"{_label(one)} failed: {one.failed}") for one in found.candidates if one.failed]
    return page.section(
        "Second stage: trained end to end",
        page.columns(element("div", chart, caption)),
        _table(found),
        *failed,
        page.facts([("Command", element("code", found.command)), ("Machine", found.machine)]),
    )


def score_chart(candidates: Sequence[Result], y_label: str) -> str:
    """The proxy's rewards against full scores as a chart; candidates without a full score are left out."""
    scored = [(one, charts.Point(_label(one), one.reward, one.val_miou)) for one in candidates if not one.failed]
    searched = [point for one, point in scored if one.rank is not None]
    baselines = [point for one, point in scored if one.rank is None]
    return charts.score_plot(searched, baselines, "reward under the proxy", y_label)


def _label(one: Result) -> str:
    return one.name if one.rank is None else f"rank {one.rank}"


def _table(found: Reranking) -> Markup:
    tests = [f"{found.test_split} mIoU"] if found.test_split else []
    scores = ["place", f"{found.val_split} mIoU", *tests, "by proxy", "reward"]
    numbers = [*scores, "parameters", "multiply-adds", "seconds"]
    rows = [
        [
            "-" if one.failed else place,
            "failed" if one.val_miou is None else f"{one.val_miou:.4f}",
            *(["-" if one.test_miou is None else f"{one.test_miou:.4f}"] if tests else []),
            _label(one),
            f"{one.reward:.4f}",
            count(one.params),
            count(one.madds),
            seconds(one.seconds),
            element("code", one.summary),
        ]
        for place, one in enumerate(found.candidates, start=1)
    ]
    classes = ["baseline" if one.rank is None else None for one in found.candidates]
    return page.table([*numbers, "architecture"], rows, numbers, classes)
