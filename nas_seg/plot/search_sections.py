"""The parts of a report that tell of a search: its curve, its leaderboard, its best architectures, its settings."""

from __future__ import annotations

import json
import platform
from collections.abc import Collection, Sequence
from typing import Any

from nas_seg.common import REWARD
from nas_seg.plot import architecture, charts, page, settings
from nas_seg.plot.axes import time_unit
from nas_seg.plot.markup import Markup, element, join
from nas_seg.plot.search_result import SearchResult, Unscored
from nas_seg.search import study as studies
from nas_seg.search.baselines import Baseline
from nas_seg.search.table import ESTIMATED, count, estimated, reward, seconds
from nas_seg.utils.machine import describe_machine

DIAGRAMS = 3
_MOST_ROWS = 50  # of the Pareto set, and of trials without a score
_PARETO = "◆"
_COUNTS = {"madds": "multiply-adds", "params": "parameters"}
_OWN_ROWS = ("command", "machine")
_HEADINGS = {"latency": "latency (s)"}
_NOT_SEED = "Each score is of one training with one seed: the best of many such scores is on average too high."


def lead(search: SearchResult) -> Markup:
    """The outcome in a few lines."""
    counted = page.note(f"{search.description[:1].upper()}{search.description[1:]}.")
    if not search.rows:
        return element("div", element("p", "No trial is scored yet."), counted)
    best = search.rows[0]
    words = ", ".join([f"Best of {len(search.rows)} scored trials: reward {best.reward:.4f}", *_costs_of(best)])
    parts = [element("p", element("strong", words), " · ", element("code", best.summary))]
    if search.baselines:
        other = search.baselines[0]
        words = ", ".join([f"Best baseline: {other.name}, reward {other.reward:.4f}", *_costs_of(other)])
        parts.append(element("p", f"{words}. Best trial less best baseline: {best.reward - other.reward:+.4f}."))
    if search.front:
        parts.append(
            element(
                "p", f"Pareto set of {', '.join(search.objectives)}: {len(search.front)} of {len(search.rows)} trials."
            )
        )
    return element("div", *parts, counted)


def about(search: SearchResult) -> Markup:
    """The command, the settings, the machine."""
    sections = search.sections or _conditions(search)
    command = search.sections.get("command")
    factor, unit = time_unit(search.seconds)
    known = [
        ("Command", element("code", command) if command else None),
        ("Objectives", ", ".join(search.objectives)),
        ("Space", f"{settings.words(search.facts['space'])}: {search.space.size():,} architectures"),
        ("Dates", _dates(search)),
        ("Scoring", f"{search.seconds / factor:.1f} {unit}, all scored and early-stopped trials together"),
        ("Machine", _machine(search)),
        *(
            (settings.title(name), settings.words(value))
            for name, value in settings.flat(sections)
            if name not in _OWN_ROWS
        ),
    ]
    return page.section("Command, machine and settings", page.facts(known))


def curves(search: SearchResult, others: Sequence[SearchResult]) -> Markup:
    """Rewards by trial, by time where searches are compared, and by each cost."""
    searches = [search, *others]
    levels = {baseline.name: baseline.reward for baseline in search.baselines}
    drawings = [charts.search_curve([_by_trial(one) for one in searches], levels=levels)]
    if others:
        factor, unit = time_unit(max(one.seconds for one in searches))
        label = f"{unit} of scoring, summed over the trials"
        by_time = [_by_time(one, factor) for one in searches]
        drawings.append(charts.search_curve(by_time, x_label=label, levels=levels, whole=False))
    ringed = f"Pareto set of {', '.join(search.objectives)}" if len(search.objectives) > 1 else ""
    for cost in search.costs:
        points = [
            charts.Point(baseline.name, baseline.metrics[cost], baseline.reward)
            for baseline in search.baselines
            if cost in baseline.metrics
        ]
        counted = f"{_COUNTS[cost]} of the {search.space.COUNTED}" if cost in _COUNTS else None
        label = counted or _HEADINGS.get(cost, cost)
        drawings.append(charts.pareto_plot([_by_cost(one, cost) for one in searches], label, "reward", points, ringed))
    words = [_difference(search, other) for other in others]
    return page.section("Search", page.columns(*map(page.chart, drawings)), *(page.note(w) for w in words if w))


def leaderboard(search: SearchResult, top_k: int) -> Markup:
    """The best trials among the baselines, the Pareto set, and the trials that have no score."""
    if not search.rows and not search.baselines:
        return page.section("Leaderboard", page.note("No trial is scored yet."), _not_scored(search))
    hidden = len(search.rows) - top_k
    parts = [
        _table(search, [*search.rows[:top_k], *search.baselines]),
        page.note(f"{hidden} more scored trials are not shown.") if hidden > 0 else None,
        page.note("Rows without a rank are baselines: made by hand or published, scored as the trials are.")
        if search.baselines
        else None,
        page.note(_NOT_SEED),
        page.note(f"{ESTIMATED}: estimated, the trial was rejected after the first stage.")
        if any(map(estimated, search.rows[:top_k]))
        else None,
        *_pareto_set(search),
        _not_scored(search),
    ]
    return page.section("Leaderboard", *parts)


def cells(search: SearchResult) -> Markup | None:
    """Drawings of the best architectures."""
    if not search.rows:
        return None
    map_size, stride = architecture.feature_map(search.sections or _imported(search))
    parts = []
    for row in search.rows[:DIAGRAMS]:
        drawing = architecture.draw(row.genotype, map_size, stride)
        title = ", ".join([f"Rank {row.rank}: trial {row.trial}, reward {reward(row)}", *_costs_of(row)])
        parts += [element("h3", title), page.diagram(drawing)]
    return page.section("The best architectures", *parts)


def _costs_of(row: studies.Row | Baseline) -> list[str]:
    return [f"{count(row.metrics[key])} {word}" for key, word in _COUNTS.items() if key in row.metrics]


def _table(search: SearchResult, rows: Sequence[studies.Row | Baseline]) -> Markup:
    """Rows in the order of their rewards."""
    more = [name for name in search.objectives if name != REWARD and name not in _COUNTS]
    costs = ["parameters", "multiply-adds", *(_HEADINGS.get(name, name) for name in more), "seconds"]
    numbers = ["rank", "trial", "reward", *costs]
    rows = sorted(rows, key=lambda row: -row.reward)
    lines = [_line(row, more, search.front) for row in rows]
    classes = ["baseline" if isinstance(row, Baseline) else None for row in rows]
    return page.table([*numbers, "architecture"], lines, numbers, classes)


def _line(row: studies.Row | Baseline, more: Sequence[str], front: Collection[int]) -> list[Any]:
    trial = isinstance(row, studies.Row)
    mark = element("span", f"{_PARETO} ", title="in the Pareto set") if trial and row.trial in front else None
    who = [join([mark, row.rank]), row.trial] if trial else ["", row.name]
    others = [_digits(row.metrics[name]) if name in row.metrics else "-" for name in more]
    costs = [count(row.params), count(row.madds), *others, seconds(row.seconds)]
    return [*who, reward(row), *costs, element("code", row.summary)]


def _digits(value: float) -> str:
    """Four digits, with zeros at the end, so that a column stands in line."""
    return f"{value:#.4g}".rstrip(".")


def _pareto_set(search: SearchResult) -> list[Markup]:
    best = [row for row in search.rows if row.trial in search.front]
    if not best:
        return []
    names = ", ".join(search.objectives)
    title = element("h3", f"Pareto set of {names}: {len(best)} of {len(search.rows)} trials")
    words = f"{_PARETO}: no trial is at least as good in all of these and better in one."
    rest = page.note(f"{len(best) - _MOST_ROWS} more are not shown.") if len(best) > _MOST_ROWS else None
    return [title, page.note(words), _table(search, best[:_MOST_ROWS]), *([rest] if rest else [])]


def _not_scored(search: SearchResult) -> Markup | None:
    if not search.unscored:
        return None
    outcomes = [one.outcome for one in search.unscored]
    counts = ", ".join(f"{outcomes.count(kind)} {kind}" for kind in dict.fromkeys(sorted(outcomes, reverse=True)))
    columns = ["trial", "outcome", "last step", "reason", "architecture"]
    rows = [_unscored_line(one) for one in search.unscored[:_MOST_ROWS]]
    hidden = len(search.unscored) - _MOST_ROWS
    rest = page.note(f"{hidden} more are not shown.") if hidden > 0 else None
    table = page.table(columns, rows, ["trial", "last step"])
    return page.details(f"Trials without a score: {counts}", table, rest)


def _unscored_line(one: Unscored) -> list[Any]:
    summary = "-" if one.summary is None else element("code", one.summary)
    return [one.trial, one.outcome, "-" if one.step is None else one.step, one.reason, summary]


def _by_trial(search: SearchResult) -> charts.Series:
    """Rewards by the number of the scored trial; a trial without a score stands between its neighbours."""
    rows = sorted(search.rows, key=lambda row: row.trial)
    before = [sum(row.trial < one.trial for row in rows) for one in search.unscored]
    unscored = []
    for i, (one, place) in enumerate(zip(search.unscored, before, strict=True)):
        share = (before[: i + 1].count(place)) / (before.count(place) + 1)
        unscored.append((one.outcome, place + share, f"trial {one.trial} {one.outcome}: {one.reason}"))
    rewards, notes = [row.reward for row in rows], [_note(row) for row in rows]
    return charts.Series(search.name, range(1, len(rows) + 1), rewards, notes, unscored)


def _by_time(search: SearchResult, factor: float) -> charts.Series:
    """Rewards by the time spent in units of `factor` seconds; trials that were stopped early have their share."""
    spent, xs, rows, unscored = 0.0, [], [], []
    for one in sorted([*search.rows, *search.unscored], key=lambda one: one.trial):
        spent += (one.seconds or 0.0) / factor
        if isinstance(one, Unscored):
            unscored.append((one.outcome, spent, f"trial {one.trial} {one.outcome}: {one.reason}"))
        else:
            rows.append(one)
            xs.append(spent)
    return charts.Series(search.name, xs, [row.reward for row in rows], [_note(row) for row in rows], unscored)


def _by_cost(search: SearchResult, cost: str) -> charts.Series:
    rows = [row for row in search.rows if cost in row.metrics]
    xs, ys = [row.metrics[cost] for row in rows], [row.reward for row in rows]
    front = [i for i, row in enumerate(rows) if row.trial in search.front] if len(search.objectives) > 1 else None
    return charts.Series(search.name, xs, ys, [_note(row) for row in rows], front=front)


def _note(row: studies.Row) -> str:
    return f"rank {row.rank}, trial {row.trial}: reward {reward(row)}, {row.summary}"


def _difference(search: SearchResult, other: SearchResult) -> str:
    """What must be known before the rewards of two searches are compared."""
    ours, theirs = search.facts["conditions"], other.facts["conditions"]
    names = sorted(name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name))
    names += ["space"] if search.facts["space_digest"] != other.facts["space_digest"] else []
    return f"{other.name} was scored under other conditions than {search.name}: {', '.join(names)}." if names else ""


def _dates(search: SearchResult) -> str:
    started = [trial.datetime_start for trial in search.trials if trial.datetime_start]
    ended = [trial.datetime_complete for trial in search.trials if trial.datetime_complete]
    return f"{min(started):%Y-%m-%d %H:%M} to {max(ended):%Y-%m-%d %H:%M}" if started and ended else ""


def _machine(search: SearchResult) -> str:
    """Where the search was started, or else the machine at hand; and where the trials ran if that was another one."""
    if "machine" in search.sections:
        return settings.words(search.sections["machine"])
    hosts = {trial.user_attrs[studies.WORKER]["host"] for trial in search.trials if studies.WORKER in trial.user_attrs}
    if hosts <= {platform.node()}:
        return describe_machine()
    return f"{describe_machine()} (where this page was made; trials ran on {', '.join(sorted(hosts))})"


def _conditions(search: SearchResult) -> dict[str, Any]:
    return {name: _parsed(value) for name, value in search.facts["conditions"].items()}


def _imported(search: SearchResult) -> dict[str, Any]:
    """What the conditions of a study without a run folder tell of its task."""
    known = _conditions(search)
    return {"task": known} if {"size", "backbone"} <= known.keys() else {}


def _parsed(value: Any) -> Any:
    """What a condition says: some are JSON."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value
