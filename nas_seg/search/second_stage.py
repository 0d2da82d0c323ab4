"""The second stage of a search as data: which genotypes are trained in full, what came of it, and how it is shown.

Source: Chen et al. (2018), section 4: the 50 best of the proxy were trained as whole networks, and the best of these
was number 12 of the proxy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from rich.table import Table

from nas_seg.search.study import Row
from nas_seg.search.table import count, seconds
from nas_seg.utils import statistics
from nas_seg.utils.console import console


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A genotype to train, as the proxy scored it.

    Attributes:
        name: digest of the genotype, or name of a baseline.
        rank: in the leaderboard when it was chosen; None for a baseline.
        reward, params, madds: of the proxy.
        genotype: of any family.
    """

    name: str
    rank: int | None
    reward: float
    params: float | None
    madds: float | None
    genotype: Any


@dataclasses.dataclass(frozen=True)
class Training:
    """One training of a candidate: its run folder, seed, scores at the last step and the seconds of its steps."""

    run_dir: str
    seed: int
    val_miou: float
    test_miou: float | None
    seconds: float


@dataclasses.dataclass(frozen=True)
class Result:
    """A candidate (its fields as there) and its full score.

    Attributes:
        summary: the genotype on one line.
        val_miou: at the last step, mean over the trainings; None where one failed.
        test_miou: likewise; None where it was not asked for.
        seconds: of all trainings.
        failed: why there is no score.
        trainings: those that ended well.
    """

    name: str
    rank: int | None
    reward: float
    params: float | None
    madds: float | None
    summary: str
    val_miou: float | None
    test_miou: float | None
    seconds: float
    failed: str | None
    trainings: tuple[Training, ...]


@dataclasses.dataclass(frozen=True)
class Correlation:
    """Spearman's rho between reward and full score, with its bootstrap interval; None where it is undefined."""

    rho: float | None
    low: float | None
    high: float | None
    level: float
    pairs: int


@dataclasses.dataclass(frozen=True)
class Reranking:
    """What a second stage found.

    Attributes:
        candidates: from the highest full score down, those that failed last.
        pending: how many more have yet to be trained.
        correlation: over the searched candidates.
        steps: of a training.
        dataset_dir, train_split, val_split, test_split: what they were trained and scored on.
        versions, machine, command: how it was run.
    """

    KIND: ClassVar[str] = "rerank"

    candidates: tuple[Result, ...]
    pending: int
    correlation: Correlation
    steps: int
    dataset_dir: str
    train_split: str
    val_split: str
    test_split: str | None
    versions: dict[str, str]
    machine: str
    command: str


def choose(rows: Sequence[Row], top_k: int, random_k: int, seed: int) -> list[Row]:
    """The best rows of a leaderboard and some of the others, drawn at random; fewer where there are no more.

    A rank correlation over the best alone tells little of a proxy: it sees nothing of what the proxy turned down.
    """
    rest = rows[top_k:]
    drawn = np.random.default_rng(seed).permutation(len(rest))[:random_k]
    return [*rows[:top_k], *(rest[i] for i in sorted(drawn))]


def make_result(candidate: Candidate, trainings: Sequence[Training], failed: str | None = None) -> Result:
    """Joins a candidate with its trainings, at least one of them unless it `failed`."""
    fields = {name: getattr(candidate, name) for name in ("name", "rank", "reward", "params", "madds")}
    return Result(**fields, summary=candidate.genotype.summary(), **mean_scores(trainings, failed))


def mean_scores(trainings: Sequence[Training], failed: str | None) -> dict[str, Any]:
    """The fields of a `Result` that come of its trainings, at least one of them unless it `failed`."""
    tests = [training.test_miou for training in trainings]
    return {
        "val_miou": None if failed else float(np.mean([training.val_miou for training in trainings])),
        "test_miou": None if failed or None in tests else float(np.mean(tests)),
        "seconds": round(sum(training.seconds for training in trainings), 3),
        "failed": failed,
        "trainings": tuple(trainings),
    }


def rank(results: Sequence[Any]) -> tuple[Any, ...]:
    """From the highest val_miou down, those that failed last."""
    return tuple(sorted(results, key=lambda result: (result.failed is not None, -(result.val_miou or 0))))


def winner(ranked: Sequence[Result]) -> Result | None:
    """The searched candidate of the highest full score: baselines are what it is measured by."""
    return next((result for result in ranked if result.rank is not None and not result.failed), None)


def correlate(results: Sequence[Result]) -> Correlation:
    """Over the searched candidates; baselines, which nobody searched, and failed ones are left out."""
    scored = [result for result in results if result.rank is not None and not result.failed]
    columns = [result.reward for result in scored], [result.val_miou for result in scored]
    rho = statistics.spearman(*columns) if scored else None
    interval = (None, None) if rho is None else statistics.bootstrap_interval(statistics.spearman, *columns)
    return Correlation(rho, *interval, statistics.LEVEL, len(scored))


def describe(found: Correlation) -> str:
    """The correlation as one line."""
    what, cells = "Spearman's rho between proxy and full score", f"{found.pairs} cell{'s' * (found.pairs != 1)}"
    if found.pairs < statistics.MIN_PAIRS:
        return f"{what}: not computed, {cells} with a full score where {statistics.MIN_PAIRS} are needed"
    if found.rho is None:
        return f"{what}: undefined, all rewards or all full scores of {cells} are equal"
    interval = f"{100 * found.level:.0f}% interval {found.low:.2f} to {found.high:.2f}"
    return f"{what}: {found.rho:.2f}, {interval} ({cells})"


def show(found: Reranking) -> None:
    """Prints the candidates as a table and the correlation as a line."""
    tested = found.test_split is not None
    columns = ("rank", f"{found.val_split} mIoU", *([f"{found.test_split} mIoU"] if tested else []), "by proxy")
    title = f"{found.steps} steps end to end, scored at the last one; ranked by {found.val_split}"
    table = Table(*columns, "reward", "params", "MAdds", "seconds", "name", "genotype", title=title)
    table.title_justify = "left"
    for place, result in enumerate(found.candidates, start=1):
        scores = (result.val_miou, result.test_miou) if tested else (result.val_miou,)
        table.add_row(
            "" if result.failed else str(place),
            *("failed" if result.failed else f"{score:.4f}" for score in scores),
            "" if result.rank is None else str(result.rank),
            f"{result.reward:.4f}",
            count(result.params),
            count(result.madds),
            seconds(result.seconds),
            result.name,
            result.summary,
        )
    console().print(table)
    print(describe(found.correlation))
