"""One network of a ranking trained end to end: its run folder, and its scores as data.

The score is the mIoU at the last step: that of the best step would be the maximum of several noisy scores.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence

from nas_seg.search.second_stage import Training
from nas_seg.train_config import TrainConfig
from nas_seg.utils import config, runs
from nas_seg.utils.errors import InputError


@dataclasses.dataclass(frozen=True)
class _Score:
    """The mIoU of the last weights of a run on a split."""

    split: str
    miou: float


def is_trained(run_dir: pathlib.Path) -> bool:
    """Whether a training has ended there."""
    return runs.weights_path(run_dir, runs.LAST).exists()


def train(
    network,
    train_config: TrainConfig,
    dataset_dir: str,
    run_dir: pathlib.Path,
    strategy,
    test_split: str | None,
) -> Training:
    """Trains a network (a `ModelConfig`) in its run folder unless that is done, and reads its scores there.

    Raises:
        InputError: where the folder holds another training, or no picture of the validation split could be scored.
    """
    import keras

    from nas_seg import pipeline

    if is_trained(run_dir):
        values = {"model": network, "train": train_config}
        sections = {name: runs.section(run_dir, name, value) for name, value in values.items()}
        runs.check_run(run_dir, sections | {"dataset_dir": os.path.abspath(dataset_dir)})
    else:
        keras.backend.clear_session()
        pipeline.train(network, train_config, dataset_dir, run_dir, strategy)
    rows = runs.read_metrics(run_dir)
    miou = next((row["val_miou"] for row in reversed(rows) if "val_miou" in row), None)
    if miou is None:
        split = train_config.val_split
        raise InputError(f"{run_dir}: expected a mIoU at the last step: does split {split!r} have labelled pixels?")
    seconds = round(sum(row.get("seconds", 0.0) for row in rows), 3)
    return Training(str(run_dir), train_config.seed, miou, _test_miou(run_dir, dataset_dir, test_split), seconds)


def train_seeds(
    name: str, configs: Sequence[TrainConfig], train_one: Callable[[TrainConfig], Training]
) -> tuple[list[Training], str | None]:
    """Trains a network with every seed, up to the first that fails.

    Returns:
        the trainings that ended well, and why the network has no score: where one seed fails, the mean of the others
        would flatter it.
    """
    import tensorflow as tf

    from nas_seg.train import Diverged

    trainings = []
    for one in configs:
        try:
            trainings.append(train_one(one))
        except (Diverged, tf.errors.ResourceExhaustedError) as error:
            failed = f"seed {one.seed}: {error if isinstance(error, Diverged) else 'out of memory'}"
            print(f"{name} failed: {failed}", flush=True)
            return trainings, failed
        print(f"{name}: {one.val_split} mIoU {trainings[-1].val_miou:.4f}", flush=True)
    return trainings, None


def _test_miou(run_dir: pathlib.Path, dataset_dir: str, split: str | None) -> float | None:
    """The score of the last weights on a split; computed once."""
    if not split:
        return None
    from nas_seg import pipeline

    path = run_dir / f"last_{split}.json"
    if not path.exists():
        scores = pipeline.evaluate(run_dir, dataset_dir, split, runs.LAST)
        config.save(path, _Score(split, float(scores["miou"])))
    return config.load(path, _Score).miou
