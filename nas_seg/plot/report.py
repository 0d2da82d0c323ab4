"""report.html of a search: one file with all that it takes to judge it, and nothing loaded from elsewhere."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

from nas_seg.plot import class_sections, page, search_sections, second_stage
from nas_seg.plot.markup import element
from nas_seg.plot.network_results import read_network_result
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
    search = read_search(run_dir, storage, study_name)
    others = [read_search(other, None, study_name) for other in compare]
    networks = [read_network_result(folder, split) for folder in network_runs]
    default = pathlib.Path(run_dir, second_stage.FOLDER)
    if rerank_dir is None and (default / second_stage.FILE).exists():
        rerank_dir = default
    stage = None if rerank_dir is None else second_stage.read_reranking(rerank_dir)
    title = f"Search report: {pathlib.Path(run_dir).resolve().name}"
    body = (
        element("h1", title),
        search_sections.lead(search),
        search_sections.curves(search, others),
        search_sections.leaderboard(search, top_k),
        search_sections.cells(search),
        class_sections.classes(search, networks),
        None if stage is None else second_stage.second_stage(stage),
        *(class_sections.pictures(network) for network in networks),
        search_sections.about(search),
    )
    path = pathlib.Path(output or pathlib.Path(run_dir, FILE))
    config.write_bytes(path, page.page(title, *body).encode())
    return path
