"""report.html of a search or a training: one file with all that it takes to judge it; nothing is loaded from elsewhere.

What a folder is decides which parts its page has: one row of `KINDS` each.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from nas_seg.auto_deeplab import retraining, search_run
from nas_seg.datasets.descriptors import FILE_NAME, read_descriptor
from nas_seg.plot import (
    auto_deeplab_sections,
    class_sections,
    page,
    search_sections,
    second_stage,
    split_scores,
    training_result,
    training_sections,
)
from nas_seg.plot.markup import element
from nas_seg.plot.network_results import NetworkResult, read_network_result
from nas_seg.plot.search_result import read_search
from nas_seg.utils import config, runs
from nas_seg.utils.errors import InputError

FILE = "report.html"
_EVALUATED = "test"  # split of the networks that are shown beside a search


@dataclasses.dataclass(frozen=True)
class Options:
    """What a page shows beside its folder's own; each kind of folder takes some of it.

    Attributes:
        storage: database URL of a study; None: RUN/study.db.
        study_name: of the study in its storage.
        compare: run folders of other searches, each with a study of the same name, drawn into the same charts.
        network_runs: run folders of trained networks, with eval_SPLIT.json and perhaps vis_SPLIT/.
        rerank_dir: folder of the second stage; None: RUN/rerank, where there is one.
        split: of scores and pictures; None: test beside a search, a training's own validation split.
        top_k: rows of the leaderboard.
        dataset_dir: records for a training's pictures; None: those that it was trained on, where they still are.
        num_images: how many of a training's worst pictures are shown; 0: its network is not run.
    """

    storage: str | None = None
    study_name: str = "search"
    compare: Sequence[str | os.PathLike] = ()
    network_runs: Sequence[str | os.PathLike] = ()
    rerank_dir: str | os.PathLike | None = None
    split: str | None = None
    top_k: int = 20
    dataset_dir: str | os.PathLike | None = None
    num_images: int = 12


def write_report(
    run_dir: str | os.PathLike, *, output: str | os.PathLike | None = None, **options: Any
) -> pathlib.Path:
    """Writes the report of a search or a training, as a whole or not at all.

    Args:
        run_dir: run folder.
        output: the file; None: RUN/report.html.
        options: fields of `Options`.

    Returns:
        the path of the file.

    Raises:
        InputError: where a folder, the study, a network's scores or the second stage's are missing or not what they
            should be, or an option means nothing for the folder.
    """
    folder, wanted = pathlib.Path(run_dir), Options(**options)
    kind = next(kind for kind in KINDS if kind.is_one(folder))
    for field in dataclasses.fields(Options):
        value = getattr(wanted, field.name)
        # An empty list is as good as none.
        if field.name not in kind.options and (value or field.default) != field.default:
            raise InputError(f"{field.name}: means nothing for {kind.name}, which {folder} is a folder of")
    title = f"{kind.title}: {folder.resolve().name}"
    body = kind.body(folder, wanted)
    path = pathlib.Path(output or folder / FILE)
    config.write_bytes(path, page.page(title, element("h1", title), *body).encode())
    return path


def _gradient_search(folder: pathlib.Path, options: Options) -> list:
    """The parts of a gradient search's page."""
    *parts, about = auto_deeplab_sections.sections(auto_deeplab_sections.read_gradient_search(folder))
    retrained = folder / retraining.FOLDER
    if (retrained / retraining.FILE).exists():
        parts.append(auto_deeplab_sections.retrained(auto_deeplab_sections.read_retraining(retrained)))
    networks = _networks(options)
    classes = class_sections.classes(None, networks)
    return [*parts, classes, *(class_sections.pictures(network) for network in networks), about]


def _training(folder: pathlib.Path, options: Options) -> list:
    """The parts of the page of a training; pictures where data set and weights are there."""
    training = training_result.read_training(folder)
    dataset_dir, split = options.dataset_dir or training.dataset_dir, options.split or training.val_split
    reason = _left_out(folder, dataset_dir, split, options)
    scores = None if reason else split_scores.score_split(folder, dataset_dir, split, options.num_images)
    return training_sections.sections(training, scores, reason)


def _left_out(folder: pathlib.Path, dataset_dir: str | os.PathLike | None, split: str, options: Options) -> str:
    """Why a training's page has no pictures, in a sentence; empty where it has."""
    command = f"python tools/report.py --run_dir={folder}"
    if options.num_images == 0:
        return "The network was not run for this page: confusions and pictures are left out."
    if options.dataset_dir is None and (dataset_dir is None or not pathlib.Path(dataset_dir, FILE_NAME).is_file()):
        where = f"{dataset_dir} is not there" if dataset_dir else "the run does not tell its data set"
        return f"Confusions and pictures are left out, for {where}: {command} --dataset_dir=RECORDS shows them."
    descriptor = read_descriptor(dataset_dir)
    if not split:
        return f"Confusions and pictures are left out, for the training had no validation: {command} --split=SPLIT."
    descriptor.split(split)
    if not any(runs.weights_path(folder, which).is_file() for which in (runs.BEST, runs.LAST)):
        return "Confusions and pictures are left out, for the training has not saved weights yet."
    return ""


def _study(folder: pathlib.Path, options: Options) -> list:
    """The parts of the page of a search with a study."""
    networks = _networks(options)
    search = read_search(folder, options.storage, options.study_name)
    others = [read_search(other, None, options.study_name) for other in options.compare]
    rerank_dir = options.rerank_dir
    if rerank_dir is None and (folder / second_stage.FOLDER / second_stage.FILE).exists():
        rerank_dir = folder / second_stage.FOLDER
    stage = None if rerank_dir is None else second_stage.read_reranking(rerank_dir)
    return [
        search_sections.lead(search),
        search_sections.curves(search, others),
        search_sections.leaderboard(search, options.top_k),
        search_sections.cells(search),
        class_sections.classes(search, networks),
        None if stage is None else second_stage.second_stage(stage),
        *(class_sections.pictures(network) for network in networks),
        search_sections.about(search),
    ]


def _networks(options: Options) -> list[NetworkResult]:
    return [read_network_result(folder, options.split or _EVALUATED) for folder in options.network_runs]


class Kind(NamedTuple):
    """A kind of run folder.

    Attributes:
        name: in messages.
        title: of its pages.
        is_one: whether a folder is of this kind.
        body: (folder, options) -> parts of the page.
        options: fields of `Options` that it takes.
    """

    name: str
    title: str
    is_one: Callable[[pathlib.Path], bool]
    body: Callable[[pathlib.Path, Options], list]
    options: tuple[str, ...]


# The first whose folder it is; a study may stand in a folder that tells nothing of it.
KINDS = (
    Kind("a gradient search", "Search report", search_run.is_search, _gradient_search, ("network_runs", "split")),
    Kind(
        "a training",
        "Training report",
        training_result.is_training,
        _training,
        ("split", "dataset_dir", "num_images"),
    ),
    Kind(
        "a search by trials",
        "Search report",
        lambda folder: True,
        _study,
        ("storage", "study_name", "compare", "network_runs", "rerank_dir", "split", "top_k"),
    ),
)
