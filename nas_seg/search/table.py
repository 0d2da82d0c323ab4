"""The leaderboard as a person reads it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from nas_seg.search.study import Row


def show(rows: Sequence[Row], title: str, top_k: int = 10) -> None:
    """Prints the best rows of a study as a table."""
    table = Table(
        "rank", "trial", "reward", "params", "MAdds", "seconds", "genotype", title=title, title_justify="left"
    )
    for row in rows[:top_k]:
        numbers = (f"{row.reward:.4f}", count(row.params), count(row.madds), seconds(row.seconds))
        table.add_row(str(row.rank), str(row.trial), *numbers, row.summary)
    # A log or a pipe has no width: rows are not to be broken there.
    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(table)


def count(value: float | None) -> str:
    """A number of parameters or operations with a unit."""
    if value is None:
        return "-"
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if value >= size:
            return f"{value / size:.2f} {unit}"
    return f"{value:.0f}"


def seconds(value: float | None) -> str:
    """Seconds with one decimal."""
    return "-" if value is None else f"{value:.1f}"
