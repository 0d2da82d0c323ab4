"""The leaderboard as a person reads it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.table import Table

from nas_seg.common import REJECTED, REWARD
from nas_seg.search.baselines import Baseline, baselines
from nas_seg.search.space import SearchSpace
from nas_seg.search.study import FACTS, Row, leaderboard, pareto_front
from nas_seg.utils.console import console

_COUNTED = (REWARD, "params", "madds")  # These have columns of their own.
_PARETO = "*"
ESTIMATED = "~"  # Before a reward.


def show_study(study, space: SearchSpace, title: str, top_k: int = 10) -> list[Row]:
    """Prints a study's best trials among its baselines and, with several objectives, its Pareto set.

    Returns:
        all rows of the leaderboard, best first.
    """
    rows, front = leaderboard(study, space), pareto_front(study)
    objectives = study.user_attrs[FACTS]["objectives"]
    more = [name for name in objectives if name not in _COUNTED]
    show(rows, title, top_k, baselines(study), front, more)
    if front:
        best = [row for row in rows if row.trial in front]
        names = ", ".join(objectives)
        show(best, f"Pareto set of {names}: {len(best)} of {len(rows)} trials", len(best), (), front, more)
    return rows


def show(
    rows: Sequence[Row],
    title: str,
    top_k: int = 10,
    baselines: Sequence[Baseline] = (),
    pareto: Collection[int] = (),
    more: Sequence[str] = (),
) -> None:
    """Prints the best rows of a study as a table.

    Args:
        rows: best first.
        title: above the table.
        top_k: how many of the rows.
        baselines: all of them stand among the rows in the order of rewards, by their names and without a rank.
        pareto: numbers of the trials that get a mark.
        more: further metrics that have a column ("latency" in seconds).
    """
    columns = ("rank", "trial", "reward", "params", "MAdds", *(_header(name) for name in more), "seconds", "genotype")
    table = Table(*columns, title=title, title_justify="left")
    for row in sorted([*rows[:top_k], *baselines], key=lambda row: -row.reward):
        trial = isinstance(row, Row)
        who = (f"{row.rank}{_PARETO * (row.trial in pareto)}", str(row.trial)) if trial else ("", row.name)
        others = ("-" if name not in row.metrics else f"{row.metrics[name]:.4g}" for name in more)
        numbers = (reward(row), count(row.params), count(row.madds), *others, seconds(row.seconds))
        table.add_row(*who, *numbers, row.summary)
    notes = [f"{_PARETO} no trial is better in all objectives"] if pareto else []
    if any(estimated(row) for row in rows[:top_k]):
        notes.append(f"{ESTIMATED} estimated: rejected after the first stage")
    table.caption, table.caption_justify = "; ".join(notes) or None, "left"
    console().print(table)


def estimated(row: Row | Baseline) -> bool:
    """Whether the reward is not of the whole evaluation."""
    return bool(row.metrics.get(REJECTED))


def reward(row: Row | Baseline) -> str:
    """With four decimals, and a mark where it is an estimate."""
    return f"{ESTIMATED if estimated(row) else ''}{row.reward:.4f}"


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


def _header(metric: str) -> str:
    return "latency (s)" if metric == "latency" else metric
