"""The parts of a report that tell of classes and pictures: under the proxy, and of trained networks."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

from nas_seg.datasets.descriptors import FILE_NAME, read_descriptor
from nas_seg.plot import charts, page
from nas_seg.plot.markup import Markup, element, join
from nas_seg.plot.network_results import NetworkResult, data_uri, worst_pictures
from nas_seg.plot.search_result import SearchResult

PICTURES = 6
_TRIALS = 3  # whose classes are shown
_IOU = "iou/"  # metrics of a trial: iou/CLASS

_Scores = Mapping[str, float | None]


def classes(search: SearchResult | None, networks: Sequence[NetworkResult]) -> Markup | None:
    """IoU by class: of the best trials beside the baselines under the proxy, and of trained networks."""
    rows, baselines = (search.rows[:_TRIALS], search.baselines) if search else ((), ())
    trials = {f"rank {row.rank}": _class_scores(row.metrics) for row in rows}
    others = {baseline.name: _class_scores(baseline.metrics) for baseline in baselines}
    parts = []
    proxy = {who: scores for who, scores in (trials | others).items() if scores}
    if proxy:
        drawn = {who: scores for who, scores in proxy.items() if who not in trials or who == "rank 1"}
        parts += _compared("Under the proxy", drawn, proxy)
    if networks:
        trained = {f"{network.run_dir}, {network.split}": network.class_iou for network in networks}
        columns = ["trained network", "split", "images", "mIoU %", "pixel accuracy %"]
        rows = [(n.run_dir, n.split, n.num_images, shown(n.miou), shown(n.pixel_accuracy)) for n in networks]
        parts += [*_compared("Trained networks", trained, trained), page.table(columns, rows, columns[2:])]
    return page.section("IoU of each class", *parts) if parts else None


def pictures(network: NetworkResult) -> Markup:
    """A network's worst pictures first."""
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
            element("figcaption", join([path.stem, f"mIoU {shown(score)} %" if score is not None else None], " · ")),
            element("img", src=data_uri(path), alt=f"{path.stem}: picture, truth, prediction"),
        )
        for path, score in worst
    ]
    return page.section(title, page.note(words), _color_key(network.dataset_dir), *figures)


def shown(value: float | None) -> str:
    """A share in percent."""
    return "absent" if value is None else f"{100 * value:.2f}"


def _class_scores(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name.removeprefix(_IOU): value for name, value in metrics.items() if name.startswith(_IOU)}


def _compared(title: str, drawn: Mapping[str, _Scores], told: Mapping[str, _Scores]) -> list[Markup]:
    """A chart of some and a table of all, whose highest number of each class stands out."""
    names = list(dict.fromkeys(name for scores in told.values() for name in scores))
    percent = {who: [_percent(scores.get(name)) for name in names] for who, scores in drawn.items()}
    chart = page.chart(charts.class_chart(names, percent, "IoU of each class (%)", 100.0))
    table = page.table(["class", *told], [_class_line(name, told) for name in names], [*told])
    return [element("h3", title), page.columns(chart, table)]


def _class_line(name: str, told: Mapping[str, _Scores]) -> list[Markup | str]:
    best = max((scores[name] for scores in told.values() if scores.get(name) is not None), default=None)
    cells = [(shown(scores.get(name)), scores.get(name)) for scores in told.values()]
    several = len(told) > 1 and best is not None
    return [name, *(element("strong", words) if several and value == best else words for words, value in cells)]


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _color_key(dataset_dir: str) -> Markup | None:
    """The classes' colours, where the data set is still there."""
    if not pathlib.Path(dataset_dir, FILE_NAME).is_file():
        return None
    descriptor = read_descriptor(dataset_dir)
    return page.swatches(descriptor.class_names, descriptor.colors)
