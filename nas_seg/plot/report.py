"""report.html of a search: one file with all that it takes to judge it, and nothing loaded from elsewhere."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import os
import pathlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from nas_seg.common import REWARD
from nas_seg.datasets.descriptors import FILE_NAME, read_descriptor
from nas_seg.plot import architecture, charts, page
from nas_seg.plot.markup import Markup, element, join
from nas_seg.plot.network_results import NetworkResult, data_uri, read_network_result, worst_pictures
from nas_seg.search import study as studies
from nas_seg.search.space import SearchSpace
from nas_seg.search.table import count, seconds
from nas_seg.utils import config, runs
from nas_seg.utils.errors import InputError
from nas_seg.utils.machine import describe_machine

FILE = "report.html"
DIAGRAMS = 3
PICTURES = 6
IOU = "iou/"  # metrics of a trial: iou/CLASS
_COSTS = {"madds": "multiply-adds", "params": "parameters"}
_MOST_REASONS = 10


@dataclasses.dataclass(frozen=True)
class _Search:
    """A study as the report shows it; `sections` are those of RUN/config.json, or empty."""

    name: str
    facts: Mapping[str, Any]
    space: SearchSpace
    rows: Sequence[studies.Row]
    trials: Sequence[FrozenTrial]
    description: str
    sections: Mapping[str, Any]


def write_report(
    run_dir: str | os.PathLike,
    *,
    output: str | os.PathLike | None = None,
    storage: str | None = None,
    study_name: str = "search",
    compare: Sequence[str | os.PathLike] = (),
    network_runs: Sequence[str | os.PathLike] = (),
    split: str = "test",
    top_k: int = 20,
) -> pathlib.Path:
    """Writes the report of a search, as a whole or not at all.

    Args:
        run_dir: run folder of the search.
        output: the file; None: RUN/report.html.
        storage: database URL of the study; None: RUN/study.db.
        study_name: of the study in its storage.
        compare: run folders of other searches, each with a study of the same name, drawn into the same charts.
        network_runs: run folders of trained networks, with eval_SPLIT.json and perhaps vis_SPLIT/.
        split: of the networks' scores and pictures.
        top_k: rows of the leaderboard.

    Returns:
        the path of the file.

    Raises:
        InputError: where a folder, the study or a network's scores are missing or not what they should be.
    """
    search = _read(run_dir, storage, study_name)
    others = [_read(other, None, study_name) for other in compare]
    networks = [read_network_result(folder, split) for folder in network_runs]
    title = f"Search report: {pathlib.Path(run_dir).resolve().name}"
    body = (
        element("h1", title),
        _lead(search),
        _about(search),
        _curves(search, others),
        _leaderboard(search, top_k),
        _cells(search),
        _classes(search, networks),
        *(_pictures(network) for network in networks),
    )
    path = pathlib.Path(output or pathlib.Path(run_dir, FILE))
    config.write_bytes(path, page.page(title, *body).encode())
    return path


def _read(run_dir: str | os.PathLike, storage: str | None, study_name: str) -> _Search:
    folder = pathlib.Path(run_dir)
    if not folder.is_dir():
        raise InputError(f"{folder}: expected the run folder of a search, found none")
    study = studies.read_study(storage or studies.default_storage(folder), study_name)
    facts = study.user_attrs[studies.FACTS]
    space = architecture.load_space(facts["space"])
    # A study that was imported from a file may stand in a folder that no search has run in.
    sections = runs.read_config(folder) if (folder / runs.CONFIG).exists() else {}
    return _Search(
        name=folder.name or str(folder),
        facts=facts,
        space=space,
        rows=studies.leaderboard(study, space),
        trials=study.get_trials(deepcopy=False),
        description=studies.describe(study),
        sections=sections,
    )


def _lead(search: _Search) -> Markup:
    if not search.rows:
        return element("p", "No trial is scored yet.")
    best = search.rows[0]
    costs = [f"{count(best.metrics[key])} {word}" for key, word in _COSTS.items() if key in best.metrics]
    words = f"Best of {len(search.rows)} scored trials: reward {best.reward:.4f}"
    return element("p", element("strong", ", ".join([words, *costs])), " · ", element("code", best.summary))


def _about(search: _Search) -> Markup:
    sections = search.sections or search.facts["conditions"]
    command = search.sections.get("command")
    factor, unit = charts.time_unit(_scoring_seconds(search))
    known = [
        ("Command", element("code", command) if command else None),
        ("Trials", search.description),
        ("Objectives", ", ".join(search.facts["objectives"])),
        ("Space", f"{_words(search.facts['space'])}: {search.space.size():,} architectures"),
        ("Dates", _dates(search.trials)),
        ("Scoring", f"{_scoring_seconds(search) / factor:.1f} {unit}, all trials together"),
        ("Machine", _machine(search.trials)),
        *((name[:1].upper() + name[1:], _words(value)) for name, value in sections.items() if name != "command"),
    ]
    return page.section("What was searched", page.facts(known))


def _dates(trials: Sequence[FrozenTrial]) -> str:
    started = [trial.datetime_start for trial in trials if trial.datetime_start]
    ended = [trial.datetime_complete for trial in trials if trial.datetime_complete]
    return f"{min(started):%Y-%m-%d %H:%M} to {max(ended):%Y-%m-%d %H:%M}" if started and ended else ""


def _machine(trials: Sequence[FrozenTrial]) -> str:
    """The machine at hand, and where the trials ran if that was another one."""
    hosts = {trial.user_attrs[studies.WORKER]["host"] for trial in trials if studies.WORKER in trial.user_attrs}
    if hosts <= {platform.node()}:
        return describe_machine()
    return f"{describe_machine()} (where this page was made; trials ran on {', '.join(sorted(hosts))})"


def _scoring_seconds(search: _Search) -> float:
    return sum(row.seconds or 0.0 for row in search.rows)


def _words(value: Any) -> str:
    """A JSON value on a line: "steps 200 · batch_size 8"."""
    if isinstance(value, Mapping):
        return " · ".join(f"{key} {_words(item)}" for key, item in value.items() if item is not None)
    if isinstance(value, (list, tuple)):
        return ", ".join(_words(item) for item in value)
    return str(value)


def _curves(search: _Search, others: Sequence[_Search]) -> Markup:
    searches = [search, *others]
    drawings = [charts.search_curve([_curve(one) for one in searches])]
    if others:
        factor, unit = charts.time_unit(max(_scoring_seconds(one) for one in searches))
        label = f"{unit} of scoring, summed over the trials"
        drawings.append(charts.search_curve([_curve(one, factor) for one in searches], x_label=label))
    cost = _cost(search)
    if cost is not None:
        label = _COSTS.get(cost, cost) + (" of the searched part" if cost in _COSTS else "")
        drawings.append(charts.pareto_plot([_costs(one, cost) for one in searches], label))
    words = [_difference(search, other) for other in others]
    return page.section("Search", page.columns(*map(page.chart, drawings)), *(page.note(w) for w in words if w))


def _curve(search: _Search, time_factor: float | None = None) -> charts.Series:
    """Rewards by the number of the scored trial, or by the time spent in units of `time_factor` seconds."""
    rows = sorted(search.rows, key=lambda row: row.trial)
    spent = itertools.accumulate(row.seconds or 0.0 for row in rows)
    xs = range(1, len(rows) + 1) if time_factor is None else [s / time_factor for s in spent]
    return charts.Series(search.name, xs, [row.reward for row in rows], [_note(row) for row in rows])


def _costs(search: _Search, cost: str) -> charts.Series:
    rows = [row for row in search.rows if cost in row.metrics]
    xs, ys = [row.metrics[cost] for row in rows], [row.reward for row in rows]
    return charts.Series(search.name, xs, ys, [_note(row) for row in rows])


def _note(row: studies.Row) -> str:
    return f"rank {row.rank}, trial {row.trial}: reward {row.reward:.4f}, {row.summary}"


def _cost(search: _Search) -> str | None:
    """The metric that rewards are drawn against: the second objective, or else what the evaluator counted."""
    wanted = [name for name in search.facts["objectives"] if name != REWARD] + list(_COSTS)
    return next((name for name in wanted if any(name in row.metrics for row in search.rows)), None)


def _difference(search: _Search, other: _Search) -> str:
    """What must be known before the rewards of two searches are compared."""
    ours, theirs = search.facts["conditions"], other.facts["conditions"]
    names = sorted(name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name))
    names += ["space"] if search.facts["space_digest"] != other.facts["space_digest"] else []
    return f"{other.name} was scored under other conditions than {search.name}: {', '.join(names)}." if names else ""


def _leaderboard(search: _Search, top_k: int) -> Markup:
    more = [name for name in search.facts["objectives"] if name != REWARD and name not in _COSTS]
    numbers = ["rank", "trial", "reward", *more, "parameters", "multiply-adds", "seconds"]
    rows = [
        [
            row.rank,
            row.trial,
            f"{row.reward:.4f}",
            *(f"{row.metrics[name]:.4g}" for name in more),
            count(row.params),
            count(row.madds),
            seconds(row.seconds),
            element("code", row.summary),
        ]
        for row in search.rows[:top_k]
    ]
    table = page.table([*numbers, "architecture"], rows, numbers) if rows else page.note("No trial is scored yet.")
    hidden = len(search.rows) - top_k
    rest = page.note(f"{hidden} more scored trials are not shown.") if hidden > 0 else None
    return page.section("Leaderboard", table, rest, *_not_scored(search))


def _not_scored(search: _Search) -> list[Markup]:
    failed = [trial for trial in search.trials if trial.state == TrialState.FAIL]
    reasons = collections.Counter(trial.user_attrs.get(studies.REASON, "no reason given") for trial in failed)
    parts = [page.note(search.description[:1].upper() + search.description[1:] + ". Only complete trials count.")]
    if reasons:
        rows = reasons.most_common(_MOST_REASONS)
        parts.append(page.table(["failed", "reason"], [(number, reason) for reason, number in rows], ["failed"]))
    if len(reasons) > _MOST_REASONS:
        parts.append(page.note(f"{len(reasons) - _MOST_REASONS} more reasons are not shown."))
    return parts


def _cells(search: _Search) -> Markup | None:
    if not search.rows:
        return None
    map_size, stride = architecture.feature_map(search.sections)
    parts = []
    for row in search.rows[:DIAGRAMS]:
        drawing = architecture.draw(row.genotype, map_size, stride)
        costs = [f"{count(row.metrics[key])} {word}" for key, word in _COSTS.items() if key in row.metrics]
        title = ", ".join([f"Rank {row.rank}: trial {row.trial}, reward {row.reward:.4f}", *costs])
        parts += [element("h3", title), page.diagram(drawing)]
    return page.section("The best architectures", *parts)


def _classes(search: _Search, networks: Sequence[NetworkResult]) -> Markup | None:
    scores: dict[str, Mapping[str, float | None]] = {}
    if search.rows:
        metrics = search.rows[0].metrics
        found = {name.removeprefix(IOU): value for name, value in metrics.items() if name.startswith(IOU)}
        scores |= {f"best trial of {search.name} (proxy)": found} if found else {}
    scores |= {f"{network.run_dir}, {network.split}": network.class_iou for network in networks}
    if not scores:
        return None
    names = list(dict.fromkeys(name for ious in reversed(scores.values()) for name in ious))
    percent = {who: [_percent(ious.get(name)) for name in names] for who, ious in scores.items()}
    parts = [page.chart(charts.bar_chart(names, percent, "IoU of each class (%)", limit=100.0))]
    if networks:
        columns = ["trained network", "split", "images", "mIoU %", "pixel accuracy %"]
        rows = [(n.run_dir, n.split, n.num_images, _shown(n.miou), _shown(n.pixel_accuracy)) for n in networks]
        parts.append(page.table(columns, rows, columns[2:]))
    return page.section("Classes", page.columns(*parts))


def _pictures(network: NetworkResult) -> Markup:
    title = f"Pictures of {network.run_dir}, {network.split}"
    worst, total = worst_pictures(network, PICTURES)
    if not worst:
        command = f"python tools/vis.py --run_dir={network.run_dir} --vis_split={network.split}"
        return page.section(title, page.note("None are drawn yet: ", element("code", command)))
    scored = any(score is not None for _, score in worst)
    order = f"The {len(worst)} worst" if scored else f"The first {len(worst)}"
    words = f"{order} of the {total} drawn: picture, truth (where there is one), prediction."
    figures = [
        element(
            "figure",
            element("figcaption", join([path.stem, f"mIoU {_shown(score)} %" if score is not None else None], " · ")),
            element("img", src=data_uri(path), alt=f"{path.stem}: picture, truth, prediction"),
        )
        for path, score in worst
    ]
    return page.section(title, page.note(words), _color_key(network.dataset_dir), *figures)


def _color_key(dataset_dir: str) -> Markup | None:
    """The classes' colours, where the data set is still there."""
    if not pathlib.Path(dataset_dir, FILE_NAME).is_file():
        return None
    descriptor = read_descriptor(dataset_dir)
    return page.swatches(descriptor.class_names, descriptor.colors)


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _shown(value: float | None) -> str:
    return "absent" if value is None else f"{100 * value:.2f}"
