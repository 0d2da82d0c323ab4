"""What the run folder of a training tells: its settings, its rows, the scores of tools/eval.py beside them."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from nas_seg.datasets.descriptors import FILE_NAME, read_descriptor
from nas_seg.plot.network_results import NetworkResult, read_network_result
from nas_seg.utils import config, runs
from nas_seg.utils.errors import InputError

# Of config.json; searches have none.
SECTION = "model"
_TRAIN, _EVAL = "train", "eval_"

Points = list[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """A run folder of tools/train.py as the report shows it.

    Attributes:
        run_dir: the folder.
        sections: of its config.json.
        loss, learning_rate, images_per_second: (step, number) of the training's rows.
        miou: (step, number) of its evaluations.
        best: the row of the best evaluation, or None.
        seconds: of optimisation steps, evaluations not counted.
        networks: the scores of its eval_SPLIT.json files.
    """

    run_dir: pathlib.Path
    sections: Mapping[str, Any]
    loss: Points
    learning_rate: Points
    images_per_second: Points
    miou: Points
    best: Mapping[str, Any] | None
    seconds: float
    networks: Sequence[NetworkResult]

    @property
    def train(self) -> Mapping[str, Any]:
        """The section that tells how it was trained; empty for converted weights."""
        section = self.sections.get(_TRAIN)
        return section if isinstance(section, Mapping) else {}

    @property
    def val_split(self) -> str:
        """The split that its evaluations were on, or an empty name."""
        return str(self.train.get("val_split") or "")

    @property
    def dataset_dir(self) -> pathlib.Path | None:
        """The records that it was trained on, where config.json tells."""
        own = runs.own_dataset_dir(self.run_dir)
        return pathlib.Path(own) if own else None


def is_training(run_dir: str | os.PathLike) -> bool:
    """Whether a folder is the run folder of one network."""
    return pathlib.Path(run_dir, runs.CONFIG).is_file() and SECTION in runs.read_config(run_dir)


def read_training(run_dir: str | os.PathLike) -> TrainingResult:
    """Reads a run folder; InputError names the file that is not what it should be."""
    folder = pathlib.Path(run_dir)
    rows, where = runs.read_metrics(folder), str(folder / runs.METRICS)
    for row in rows:
        if not isinstance(row, dict) or "step" not in row:
            raise InputError(f"{where}: expected rows with a step, received {row!r}")
    splits = [path.stem.removeprefix(_EVAL) for path in sorted(folder.glob(f"{_EVAL}*.json"))]
    return TrainingResult(
        run_dir=folder,
        sections=runs.read_config(folder),
        loss=_points(rows, "loss", where),
        learning_rate=_points(rows, "learning_rate", where),
        images_per_second=_points(rows, "images_per_second", where),
        miou=_points(rows, "val_miou", where),
        best=runs.best_evaluation(rows),
        seconds=sum(value for _, value in _points(rows, "seconds", where)),
        networks=[read_network_result(folder, split) for split in splits],
    )


def own_scores(training: TrainingResult) -> NetworkResult | None:
    """The best evaluation of the training itself, where it tells the classes."""
    row, where = training.best, f"{training.run_dir / runs.METRICS}: val_class_iou"
    if row is None or row.get("val_class_iou") is None:
        return None
    ious = config.from_json(tuple[float | None, ...], row["val_class_iou"], where)
    return NetworkResult(
        run_dir=training.run_dir,
        split=training.val_split,
        miou=row["val_miou"],
        pixel_accuracy=row.get("val_pixel_accuracy"),
        num_images=row.get("val_num_images", 0),
        class_iou=dict(zip(_class_names(training, len(ious)), ious, strict=True)),
        dataset_dir=str(training.dataset_dir or ""),
        image_miou={},
    )


def _class_names(training: TrainingResult, count: int) -> Sequence[str]:
    """Those of the data set, or of an evaluation, or numbers."""
    folder = training.dataset_dir
    known = [read_descriptor(folder).class_names] if folder and (folder / FILE_NAME).is_file() else []
    known += [tuple(network.class_iou) for network in training.networks]
    return next((names for names in known if len(names) == count), [f"class {i}" for i in range(count)])


def _points(rows: Sequence[Mapping[str, Any]], name: str, where: str) -> Points:
    """(step, number) of the rows that have such a number."""
    return [
        (config.from_json(int, row["step"], f"{where}: step"), config.from_json(float, row[name], f"{where}: {name}"))
        for row in rows
        if row.get(name) is not None
    ]
