"""What came of retraining: the searched network beside random draws of its space and networks made by hand, as data.

Without random architectures at the same budget no number tells whether a search has found anything.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import ClassVar

from rich.table import Table

from nas_seg.search.second_stage import Training, mean_scores
from nas_seg.search.table import count, seconds
from nas_seg.utils.console import console

FOLDER, FILE = "retrain", "retrain.json"
SEARCHED, RANDOM, BASELINE = "searched", "random", "baseline"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A network and its scores.

    Attributes:
        name: "searched", "random_0", ..., or a preset.
        group: SEARCHED, RANDOM or BASELINE.
        summary: the genotype on one line; the preset where there is none.
        params: trainable weights.
        madds: multiply-adds of one whole picture.
        val_miou: at the last step, mean over the trainings; None where one failed.
        test_miou: likewise; None where it was not asked for.
        seconds: of the steps of all trainings.
        failed: why there is no score.
        trainings: those that ended well.
    """

    name: str
    group: str
    summary: str
    params: int
    madds: int
    val_miou: float | None
    test_miou: float | None
    seconds: float
    failed: str | None
    trainings: tuple[Training, ...]


@dataclasses.dataclass(frozen=True)
class Retraining:
    """What a retraining found.

    Attributes:
        outcomes: from the highest score on val_split down, those that failed last.
        pending: how many networks have yet to be trained.
        steps: of a training.
        size: (height, width) of the picture that multiply-adds are counted on.
        dataset_dir, train_split, val_split, test_split: what they were trained and scored on.
        versions, machine, command: how it was run.
    """

    KIND: ClassVar[str] = "auto_deeplab_retraining"

    outcomes: tuple[Outcome, ...]
    pending: int
    steps: int
    size: tuple[int, int]
    dataset_dir: str
    train_split: str
    val_split: str
    test_split: str | None
    versions: dict[str, str]
    machine: str
    command: str


def make_outcome(
    name: str, group: str, summary: str, counts: tuple[int, int], trainings: Sequence[Training], failed: str | None
) -> Outcome:
    """Joins a network with its trainings, at least one of them unless it `failed`."""
    return Outcome(name, group, summary, *counts, **mean_scores(trainings, failed))


def describe(found: Retraining) -> str:
    """The searched network against the random ones, in words: the difference in points of mIoU and in their sd."""
    lines = [_against_random(found.outcomes, name, getattr(found, name)) for name in ("val_split", "test_split")]
    return "; ".join(line for line in lines if line) or "No comparison yet: it takes the searched and a random network"


def show(found: Retraining) -> None:
    """Prints the networks as a table, and the comparison."""
    tests = [f"{found.test_split} mIoU"] if found.test_split else []
    title = f"{found.steps} steps each, scored at the last one; MAdds at {found.size[0]}x{found.size[1]}"
    table = Table("name", f"{found.val_split} mIoU", *tests, "params", "MAdds", "seconds", "network", title=title)
    table.title_justify = "left"
    for one in found.outcomes:
        scores = (one.val_miou, one.test_miou)[: 1 + len(tests)]
        shown = ("failed" if one.failed else "-" if score is None else f"{score:.4f}" for score in scores)
        table.add_row(one.name, *shown, count(one.params), count(one.madds), seconds(one.seconds), one.summary)
    console().print(table)
    print(describe(found))


def _against_random(outcomes: Sequence[Outcome], field: str, split: str | None) -> str | None:
    scores = {one.name: (one.group, one.val_miou if field == "val_split" else one.test_miou) for one in outcomes}
    searched = [score for group, score in scores.values() if group == SEARCHED and score is not None]
    drawn = [score for group, score in scores.values() if group == RANDOM and score is not None]
    if not searched or not drawn:
        return None
    mean = statistics.fmean(drawn)
    words = f"{split}: searched {100 * searched[0]:.2f}, mean of {len(drawn)} random {100 * mean:.2f}"
    words += f", difference {100 * (searched[0] - mean):+.2f} points"
    deviation = statistics.stdev(drawn) if len(drawn) > 1 else 0.0
    return f"{words} or {(searched[0] - mean) / deviation:+.1f} sd of the random ones" if deviation else words
