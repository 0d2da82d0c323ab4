"""Cells against one another in the proxy task of a search, paired over seeds, on splits that it never saw.

OUTPUT/config.json       the proxy task and the splits; written first
OUTPUT/metrics.jsonl     a row for each cell and seed; more of both may be added later
OUTPUT/comparison.json   means, and differences to the reference, with their intervals
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from nas_seg import spaces
from nas_seg.common import MAX_SEED, REWARD
from nas_seg.datasets.descriptors import read_descriptor
from nas_seg.dpc.baselines import BASELINES
from nas_seg.dpc.genotype import DPCGenotype
from nas_seg.search import study, table
from nas_seg.search.evaluator import TrialFailed
from nas_seg.utils import config, runs
from nas_seg.utils.console import console
from nas_seg.utils.errors import InputError, unknown
from nas_seg.utils.progress import progress
from nas_seg.utils.statistics import Summary, mean_interval, spearman

SUMMARY = "comparison.json"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        run_dir: of a search of cells: its proxy task and its caches.
        output_dir: of the comparison alone.
        cells: by name.
        reference: the name that the others are measured against.
        num_seeds: every cell is trained with so many seeds.
        splits: with labels, to score on.
        overrides: fields of the proxy to replace, such as steps; those that are None stay as they are.
        first_seed: the least of the seeds. A cell that was chosen by its score under some seeds is compared under
            others: under those it owes part of its score to chance.
    """

    run_dir: str
    output_dir: str
    cells: Mapping[str, DPCGenotype]
    reference: str
    num_seeds: int
    splits: tuple[str, ...]
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    first_seed: int = 0

    def __post_init__(self):
        if not self.cells:
            raise InputError("cells: expected one or more, received none")
        if not self.splits:
            raise InputError("splits: expected one or more, received none")
        if self.reference not in self.cells:
            raise InputError(f"reference: {unknown('cell', self.reference, self.cells)}")
        if self.num_seeds < 1:
            raise InputError(f"num_seeds: expected at least 1, received {self.num_seeds}")
        if not 0 <= self.first_seed <= MAX_SEED + 1 - self.num_seeds:
            raise InputError(
                f"first_seed: expected 0 to {MAX_SEED + 1 - self.num_seeds}, of the last of {self.num_seeds} seeds, "
                f"received {self.first_seed}"
            )

    @property
    def seeds(self) -> range:
        """Of the trainings."""
        return range(self.first_seed, self.first_seed + self.num_seeds)


def read_cells(names: Sequence[str]) -> dict[str, DPCGenotype]:
    """Cells by name: of baselines, and of genotype files by the files' names."""
    cells: dict[str, DPCGenotype] = {}
    for name in names:
        path = pathlib.Path(name)
        if name not in BASELINES and not path.is_file():
            raise InputError(f"cell {name!r}: expected a genotype file or one of {', '.join(BASELINES)}")
        short = name if name in BASELINES else path.stem
        if short in cells:
            raise InputError(f"cell {name!r}: expected one cell of each name, received two of {short!r}")
        cells[short] = BASELINES[name] if name in BASELINES else DPCGenotype.load(path)
    return cells


def best_cells(run_dir: str, top_k: int) -> dict[str, DPCGenotype]:
    """The best cells of a search by their digests; as many as there are."""
    if not top_k:
        return {}
    opened = study.read_study(study.default_storage(run_dir), "search")
    rows = study.leaderboard(opened, spaces.read_space(opened.user_attrs[study.FACTS]["space"]))
    return dict(list({row.digest: row.genotype for row in rows}.items())[:top_k])


def compare(comparison: Comparison) -> dict[str, Any]:
    """Trains what is still to be trained, scores it, and writes the summary.

    Returns:
        what comparison.json holds.

    Raises:
        InputError: where the folder is of another task, or a split has no labels.
    """
    from nas_seg.dpc_task import SECTION, read_task

    task = read_task(comparison.run_dir)
    replaced = {name: value for name, value in comparison.overrides.items() if value is not None}
    task = dataclasses.replace(task, proxy=dataclasses.replace(task.proxy, **replaced))
    read_descriptor(task.dataset_dir, *comparison.splits)
    output = pathlib.Path(comparison.output_dir)
    sections = {SECTION: runs.section(output, SECTION, task), "splits": list(comparison.splits)}
    runs.check_run(output, sections)
    with runs.lock(output):
        runs.open_run(output, sections | runs.circumstances())
        rows = runs.read_metrics(output)
        runs.write_metrics(output, rows)  # Without a last line that a kill cut short.
        _train_missing(comparison, task, rows)
    summary = summarize(comparison, rows)
    config.write_json(output / SUMMARY, {"format_version": config.FORMAT_VERSION} | summary)
    return summary


def _train_missing(comparison: Comparison, task, rows: list[dict[str, Any]]) -> None:
    done = {(row["digest"], row["seed"]) for row in rows}
    # Seed by seed, so that a comparison that is stopped is still a paired one.
    wanted = [(seed, name) for seed in comparison.seeds for name in comparison.cells]
    todo = [(seed, name) for seed, name in wanted if (comparison.cells[name].digest, seed) not in done]
    if not todo:
        return
    backbone = task.load_backbone()
    evaluator, _ = task.open(comparison.run_dir, backbone)
    caches = {split: task.cache(comparison.run_dir, backbone, split) for split in comparison.splits}
    with progress("compare", len(wanted), len(wanted) - len(todo)) as bar:
        for seed, name in todo:
            cell, start = comparison.cells[name], time.monotonic()
            row = {"cell": name, "digest": cell.digest, "summary": cell.summary(), "seed": seed}
            row |= evaluator.costs(cell)
            try:
                model, training = evaluator.fit(evaluator.head(cell), seed=seed)
                row |= training | {"scores": {split: evaluator.measure(model, caches[split]) for split in caches}}
            except TrialFailed as failure:
                row |= {"failed": str(failure)}
            row |= {"seconds": round(time.monotonic() - start, 3)}
            rows.append(row)
            runs.append_metrics(comparison.output_dir, row)
            bar.advance(1, **{split: 100 * score[REWARD] for split, score in row.get("scores", {}).items()})


def summarize(comparison: Comparison, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means of every cell, differences to the reference paired by seed, and how far seeds rank the cells alike."""
    rows = [row for row in rows if row["seed"] in comparison.seeds]
    by_cell = {
        name: {row["seed"]: row for row in rows if row["digest"] == cell.digest and "failed" not in row}
        for name, cell in comparison.cells.items()
    }
    entries = []
    for name, cell in comparison.cells.items():
        own = by_cell[name]
        splits = {split: _against(own, by_cell[comparison.reference], split) for split in comparison.splits}
        failed = [row["failed"] for row in rows if row["digest"] == cell.digest and "failed" in row]
        costs = {cost: next((row[cost] for row in own.values()), None) for cost in ("params", "madds")}
        seconds = sum(row["seconds"] for row in own.values())
        entries.append(
            {"cell": name, "summary": cell.summary(), "failed": failed, "seconds": seconds} | costs | {"splits": splits}
        )
    agreement = {split: _agreement(by_cell, split) for split in comparison.splits}
    return {
        "reference": comparison.reference,
        "seeds": list(comparison.seeds),
        "cells": entries,
        "agreement_of_seeds": agreement,
    }


def _against(own: Mapping[int, Mapping], reference: Mapping[int, Mapping], split: str) -> dict[str, Any]:
    """{"score": Summary, "difference": Summary or None}, in mIoU."""
    scores = {seed: row["scores"][split][REWARD] for seed, row in own.items()}
    others = {seed: row["scores"][split][REWARD] for seed, row in reference.items()}
    differences = [scores[seed] - others[seed] for seed in sorted(scores) if seed in others]
    return {
        "score": _summary(list(scores.values())),
        "difference": None if own is reference else _summary(differences),
    }


def _summary(values: Sequence[float]) -> dict[str, Any] | None:
    return dataclasses.asdict(mean_interval(values)) if values else None


def _agreement(by_cell: Mapping[str, Mapping[int, Mapping]], split: str) -> float | None:
    """Mean Spearman correlation between the rankings of two seeds; None where no two seeds rank three cells."""
    seeds = sorted(set.intersection(*(set(own) for own in by_cell.values())))
    ranked = [[own[seed]["scores"][split][REWARD] for own in by_cell.values()] for seed in seeds]
    pairs = [spearman(*pair) for pair in itertools.combinations(ranked, 2)]
    known = [rho for rho in pairs if rho is not None]
    return statistics.fmean(known) if known else None


def show(summary: Mapping[str, Any]) -> None:
    """Prints what `compare` returns as a table, scores in percent."""
    splits = list(summary["agreement_of_seeds"])
    reference = summary["reference"]
    columns = [column for split in splits for column in (f"{split} mIoU", f"against {reference} (95%)")]
    shown = Table("cell", "params", "MAdds", *columns, "seeds", "genotype", title="mIoU: mean and standard deviation")
    for entry in summary["cells"]:
        scores = [text for split in splits for text in _texts(entry["splits"][split])]
        first = entry["splits"][splits[0]]["score"]
        n = str(first["n"]) if first else f"0 ({entry['failed'][0]})"
        costs = (table.count(entry["params"]), table.count(entry["madds"]))
        shown.add_row(entry["cell"], *costs, *scores, n, entry["summary"])
    console().print(shown)
    for split, rho in summary["agreement_of_seeds"].items():
        if rho is not None:
            print(f"{split}: mean Spearman correlation of the cells' ranks between two seeds: {rho:.2f}")


def _texts(scores: Mapping[str, Any]) -> tuple[str, str]:
    score, difference = (scores[name] and Summary(**scores[name]) for name in ("score", "difference"))
    mean = "-" if score is None else f"{100 * score.mean:.2f}" + (f" ± {100 * score.sd:.2f}" if score.sd else "")
    if difference is None:
        return mean, "-"
    interval = "" if difference.low is None else f" [{100 * difference.low:+.2f}, {100 * difference.high:+.2f}]"
    return mean, f"{100 * difference.mean:+.2f}{interval}"
