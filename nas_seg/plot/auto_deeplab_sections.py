"""The parts of a report that tell of a gradient search: its curves, alpha and beta, the path by epoch, the network."""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nas_seg.auto_deeplab import retraining, search_run
from nas_seg.auto_deeplab.genotype import FINEST_STRIDE, NUM_LEVELS, OPS, AutoDeepLabGenotype, op_label
from nas_seg.auto_deeplab.relaxation import alpha_probabilities, beta_probabilities, edge_mask
from nas_seg.auto_deeplab.retraining import Retraining
from nas_seg.auto_deeplab.search_config import SearchConfig
from nas_seg.plot import auto_deeplab_diagram, page
from nas_seg.plot.axes import segment, time_unit
from nas_seg.plot.colors import AXIS, FAINT_INK, GRID, SERIES
from nas_seg.plot.curves import line_chart
from nas_seg.plot.heat_map import HeatMap, heat_maps
from nas_seg.plot.markup import Markup, element, svg, text
from nas_seg.search.table import count, seconds
from nas_seg.utils import config as config_lib
from nas_seg.utils import runs
from nas_seg.utils.errors import InputError

# Of the strip of paths: (width, height) of a node, and the shades of the four strides.
_NODE = (22.0, 18.0)
_SHADES = (0.06, 0.22, 0.40, 0.60)


class Epoch(NamedTuple):
    """What is known of a finished epoch: its row of metrics.jsonl, its network, its logits."""

    row: Mapping[str, Any]
    genotype: AutoDeepLabGenotype
    alpha: np.ndarray
    beta: np.ndarray


@dataclasses.dataclass(frozen=True)
class GradientSearch:
    """A run folder of tools/search_auto_deeplab.py as the report shows it."""

    config: SearchConfig
    epochs: Sequence[Epoch]
    sections: Mapping[str, Any]


def read_gradient_search(run_dir: str | os.PathLike) -> GradientSearch:
    """Reads a run folder; InputError names the file that is not what it should be."""
    rows = search_run.read_epochs(run_dir)
    epochs = [Epoch(row, *search_run.read_epoch(run_dir, row["epoch"])) for row in rows]
    return GradientSearch(search_run.read_search_config(run_dir), epochs, runs.read_config(run_dir))


def sections(search: GradientSearch) -> list[Markup]:
    """Everything, in the order of the page."""
    if not search.epochs:
        return [element("p", "No epoch is finished yet."), about(search)]
    return [lead(search), curves(search), logits(search), paths(search), network(search), about(search)]


def lead(search: GradientSearch) -> Markup:
    """The outcome in a few lines."""
    last, config = search.epochs[-1].row, search.config
    words = f"Epoch {last['epoch']} of {config.epochs}: {last['step']} weight steps"
    words += f", {last['architecture_steps']} steps of alpha and beta."
    scores = f"Val mIoU of the supernet: {_score(last['val_miou'])}. The best path's log-probability is "
    scores += f"{last['margin']:.4f} above that of the second-best."
    collapse = last["collapse"]
    return element(
        "div",
        element("p", element("strong", words), " ", element("code", last["genotype"])),
        element("p", scores),
        element("p", element("strong", f"Collapse: {collapse}.")) if collapse else None,
        page.note("The supernet's mIoU tells how well the weights fit, not how good the decoded network will be."),
    )


def curves(search: GradientSearch) -> Markup:
    """Losses, mIoU, entropies and margin by epoch."""
    wanted = {
        "loss": {"trainA, weights": "weight_loss", "trainB, alpha and beta": "architecture_loss"},
        "val mIoU of the supernet": {"val mIoU": "val_miou"},
        "mean entropy (nats)": {"alpha, an edge": "alpha_entropy", "beta, a node": "beta_entropy"},
        "entropy of the paths (nats)": {"all paths": "path_entropy"},
        "margin of the best path (nats)": {"log-probability, best less second-best": "margin"},
    }
    drawings = [page.chart(_line_chart(search, label, names)) for label, names in wanted.items()]
    words = f"Dashed: the end of the {search.config.num_frozen_epochs} epochs in which alpha and beta stay as they are."
    return page.section("Search by epoch", page.columns(*drawings), page.note(words))


def logits(search: GradientSearch) -> Markup:
    """alpha and beta as probabilities: before they are searched, in the middle and now."""
    chosen = _chosen(search)
    edges = [f"block {b} < {source}" for b in range(search.config.num_blocks) for source in range(2 + b)]
    alphas = [HeatMap(_title(one), alpha_probabilities(one.alpha)) for one in chosen]
    steps = [(i, k) for i in range(NUM_LEVELS) for k in range(3) if 0 <= i + k - 1 < NUM_LEVELS]
    names = [f"{_stride(i)} to {_stride(i + k - 1)}" for i, k in steps]
    betas = [HeatMap(_title(one), _by_step(one.beta, steps)) for one in chosen]
    layers = [str(number) for number in range(1, search.config.num_layers + 1)]
    return page.section(
        "alpha and beta",
        element("h3", "alpha: probability of each op on each edge of the cell"),
        page.diagram(
            heat_maps(alphas, edges, [op_label(op) for op in OPS], "softmax of alpha over the ops of an edge")
        ),
        page.note("block b < j: input j of block b; 0 is H(l-2), 1 is H(l-1), 2 + b is block b. none is the zero op."),
        element("h3", "beta: probability of each step between strides, by layer"),
        page.diagram(heat_maps(betas, names, layers, "softmax of beta over the steps that leave a node")),
    )


def paths(search: GradientSearch) -> Markup:
    """The decoded path of every epoch."""
    changes = sum(a.genotype.path != b.genotype.path for a, b in itertools.pairwise(search.epochs))
    words = "An epoch is a column, a layer a row; numbers are strides. Dashed: alpha and beta begin to move. "
    words += f"Epochs that end with another path than the one before: {changes}."
    return page.section("Path by epoch", page.diagram(_strip(search)), page.note(words))


def network(search: GradientSearch) -> Markup:
    """The decoded network of the last epoch, drawn."""
    last = search.epochs[-1]
    drawing = auto_deeplab_diagram.network_svg(last.genotype, beta=last.beta)
    return page.section(f"The network after epoch {last.row['epoch']}", page.diagram(drawing))


def read_retraining(folder: str | os.PathLike) -> Retraining:
    """Reads FOLDER/retrain.json; InputError where it is missing or not such a file."""
    path = pathlib.Path(folder, retraining.FILE)
    if not path.is_file():
        raise InputError(f"{path}: not found; it is written by tools/retrain_auto_deeplab.py")
    return config_lib.load(path, Retraining)


def retrained(found: Retraining) -> Markup:
    """The searched network beside random ones and baselines, all trained at one budget."""
    tests = [f"{found.test_split} mIoU"] if found.test_split else []
    numbers = [f"{found.val_split} mIoU", *tests, "parameters", "multiply-adds", "seconds"]
    rows = []
    for one in found.outcomes:
        scores = (one.val_miou, one.test_miou)[: 1 + len(tests)]
        shown = ["failed" if one.failed else "-" if score is None else f"{score:.4f}" for score in scores]
        row = [one.name, *shown, count(one.params), count(one.madds), seconds(one.seconds)]
        rows.append([*row, element("code", one.summary)])
    classes = ["baseline" if one.group != retraining.SEARCHED else None for one in found.outcomes]
    words = f"{found.steps} steps each, the score is that of the last one; multiply-adds at {_words(found.size)}."
    left = f" {found.pending} more are still to be trained." if found.pending else ""
    return page.section(
        "Trained from fresh weights",
        element("p", f"{retraining.describe(found)}."),
        page.table(["network", *numbers, "architecture"], rows, numbers, classes),
        page.note(words + left),
        *(page.note(f"{one.name} failed: {one.failed}") for one in found.outcomes if one.failed),
        page.facts([("Command", element("code", found.command)), ("Machine", found.machine)]),
    )


def about(search: GradientSearch) -> Markup:
    """The command, the settings, the machine."""
    spent = sum(one.row["seconds"] for one in search.epochs)
    factor, unit = time_unit(spent)
    settings = " · ".join(
        f"{f.name} {_words(getattr(search.config, f.name))}" for f in dataclasses.fields(SearchConfig)
    )
    known = [
        ("Command", element("code", search.sections.get("command", ""))),
        ("Machine", search.sections.get("machine")),
        ("Time", f"{spent / factor:.1f} {unit} of steps, evaluations not counted" if search.epochs else None),
        ("Memory", f"at most {max(one.row['peak_gib'] for one in search.epochs):.2f} GiB" if search.epochs else None),
        ("Data set", search.sections.get("dataset_dir")),
        ("Settings", settings),
        ("Versions", " · ".join(f"{k} {v}" for k, v in search.sections.get("versions", {}).items())),
    ]
    return page.section("Command, machine and settings", page.facts(known))


def _chosen(search: GradientSearch) -> list[Epoch]:
    """At most three epochs: the last one before alpha and beta move, the last one, and that in the middle between."""
    last = len(search.epochs)
    first = min(max(search.config.num_frozen_epochs, 1), last)
    return [search.epochs[number - 1] for number in sorted({first, (first + last + 1) // 2, last})]


def _title(one: Epoch) -> str:
    return f"epoch {one.row['epoch']}"


def _by_step(beta: np.ndarray, steps: Sequence[tuple[int, int]]) -> np.ndarray:
    """[steps, layers]; NaN where there is no such step."""
    weights = np.where(edge_mask(len(beta)), beta_probabilities(beta), np.nan)
    return np.array([weights[:, level, direction] for level, direction in steps])


def _stride(level: int) -> int:
    return FINEST_STRIDE * 2**level


def _score(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"


def _words(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _line_chart(search: GradientSearch, y_label: str, names: Mapping[str, str]) -> str:
    """Numbers of the rows by epoch, and where alpha and beta begin to move."""
    lines = {
        name: [(one.row["epoch"], one.row[key]) for one in search.epochs if one.row[key] is not None]
        for name, key in names.items()
    }
    return line_chart(lines, "epoch", y_label, at=search.config.num_frozen_epochs)


def _strip(search: GradientSearch) -> str:
    """The strides of all layers, epoch beside epoch."""
    left, top, size = 70.0, 34.0, 10.5
    epochs, layers = len(search.epochs), search.config.num_layers
    parts = [text(12, 16, "layer", size, fill=FAINT_INK), text(left, 14, "epoch", size, fill=FAINT_INK)]
    for layer in range(layers):
        y = top + (layer + 0.5) * _NODE[1] + 4
        parts.append(text(left - 8, y, str(layer + 1), size, fill=FAINT_INK, text_anchor="end"))
    middle = {"text_anchor": "middle"}
    for column, one in enumerate(search.epochs):
        x = left + column * _NODE[0]
        parts.append(text(x + _NODE[0] / 2, top - 6, str(one.row["epoch"]), size, fill=FAINT_INK, **middle))
        for layer, level in enumerate(one.genotype.path):
            y = top + layer * _NODE[1]
            parts.append(
                element(
                    "rect", x=x, y=y, width=_NODE[0], height=_NODE[1], fill=SERIES[0], fill_opacity=_SHADES[level],
                    stroke=GRID, class_="node",
                )
            )  # fmt: skip
            parts.append(text(x + _NODE[0] / 2, y + _NODE[1] / 2 + 4, str(_stride(level)), size, **middle))
    bottom = top + layers * _NODE[1]
    frozen = search.config.num_frozen_epochs
    if 0 < frozen < epochs:
        x = left + frozen * _NODE[0]
        parts.append(segment(x, top - 4, x, bottom + 4, AXIS, "5 3", 2.0, class_="frozen"))
    return str(svg(max(left + epochs * _NODE[0] + 12, 240), bottom + 12, "path by epoch", *parts))
