"""report.html of a search: one file with all that it takes to judge it, and nothing loaded from elsewhere.

A search with a study is told by `search_sections`, a gradient search by `auto_deeplab_sections`.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

from nas_seg.auto_deeplab import retraining, search_run
from nas_seg.plot import auto_deeplab_sections, class_sections, page, search_sections, second_stage
from nas_seg.plot.markup import element
from nas_seg.plot.network_results import NetworkResult, read_network_result
from nas_seg.plot.search_result import read_search
from nas_seg.utils import config

FILE = "report.html"


def write_report(
    run_dir: str | os.PathLike,
    *,
    output: str | os.PathLike | None = None,
    storage: str | None = None,
    study_name: str = "search",
    compare: Sequence[str | os.PathLike] = (),
    network_runs: Sequence[str | os.PathLike] = (),
    rerank_dir: str | os.PathLike | None = None,
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
        rerank_dir: folder of the second stage; None: RUN/rerank, where there is one.
        split: of the networks' scores and pictures.
        top_k: rows of the leaderboard.

    Returns:
        the path of the file.

    Raises:
        InputError: where a folder, the study, a network's scores or the second stage's are missing or not what they
            should be.
    """
    networks = [read_network_result(folder, split) for folder in network_runs]
    title = f"Search report: {pathlib.Path(run_dir).resolve().name}"
    if search_run.is_search(run_dir):
        body = _gradient_search(run_dir, networks)
    else:
        body = _study(run_dir, storage, study_name, compare, networks, rerank_dir, top_k)
    path = pathlib.Path(output or pathlib.Path(run_dir, FILE))
    config.write_bytes(path, page.page(title, element("h1", title), *body).encode())
    return path


def _gradient_search(run_dir: str | os.PathLike, networks: Sequence[NetworkResult]) -> list:
    """The parts of a gradient search's page."""
    *parts, about = auto_deeplab_sections.sections(auto_deeplab_sections.read_gradient_search(run_dir))
    folder = pathlib.Path(run_dir, retraining.FOLDER)
    if (folder / retraining.FILE).exists():
        parts.append(auto_deeplab_sections.retrained(auto_deeplab_sections.read_retraining(folder)))
    classes = class_sections.classes(None, networks)
    return [*parts, classes, *(class_sections.pictures(network) for network in networks), about]


def _study(
    run_dir: str | os.PathLike,
    storage: str | None,
    study_name: str,
    compare: Sequence[str | os.PathLike],
    networks: Sequence[NetworkResult],
    rerank_dir: str | os.PathLike | None,
    top_k: int,
) -> list:
    """The parts of the page of a search with a study."""
    search = read_search(run_dir, storage, study_name)
    others = [read_search(other, None, study_name) for other in compare]
    default = pathlib.Path(run_dir, second_stage.FOLDER)
    if rerank_dir is None and (default / second_stage.FILE).exists():
        rerank_dir = default
    stage = None if rerank_dir is None else second_stage.read_reranking(rerank_dir)
    return [
        search_sections.lead(search),
        search_sections.curves(search, others),
        search_sections.leaderboard(search, top_k),
        search_sections.cells(search),
        class_sections.classes(search, networks),
        None if stage is None else second_stage.second_stage(stage),
        *(class_sections.pictures(network) for network in networks),
        search_sections.about(search),
    ]
