"""A network and a data set joined into a run folder: what tools/train.py does, as one call."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from nas_seg import common, initial_checkpoint
from nas_seg import eval as evaluation
from nas_seg import model as model_lib
from nas_seg import train as training
from nas_seg.core import tf1_checkpoint
from nas_seg.core.backbones import mean_pixel
from nas_seg.core.conv import all_layers
from nas_seg.core.drop_path import TrainingProgress
from nas_seg.datasets import data_generator, records
from nas_seg.datasets.descriptors import DatasetDescriptor, read_descriptor
from nas_seg.model import ModelConfig
from nas_seg.train_config import TrainConfig
from nas_seg.utils import distribute, runs, scalars
from nas_seg.utils.errors import InputError

# Pictures of the evaluated split that TensorBoard shows.
_SHOWN = 3
_SCALES = ("min_scale_factor", "max_scale_factor", "scale_factor_step_size")


def train(
    model_config: ModelConfig,
    train_config: TrainConfig,
    dataset_dir: str | os.PathLike,
    run_dir: str | os.PathLike,
    strategy: tf.distribute.Strategy | None = None,
) -> dict[str, Any]:
    """Trains a network on a data set into a run folder, from where the folder stands.

    Args:
        model_config: what to train.
        train_config: how; its splits are of the data set.
        dataset_dir: folder with dataset.json.
        run_dir: made where it is missing, gone on with where it is of the same run.
        strategy: of `nas_seg.utils.distribute`.

    Returns:
        What `nas_seg.train.fit` returns.

    Raises:
        InputError: for a folder of another run, weights that do not fit, damaged records, labels out of range, fewer
            shards than workers.
        nas_seg.train.Diverged: when the loss is not a finite number.
    """
    strategy = strategy or tf.distribute.get_strategy()
    descriptor = read_descriptor(dataset_dir)
    _check_shards(descriptor, train_config.train_split, distribute.num_workers(strategy), dataset_dir)
    weights = train_config.label_weights
    if weights and len(weights) != descriptor.num_classes:
        raise InputError(f"label_weights: expected {descriptor.num_classes}, one a class, received {len(weights)}")
    sections = {
        "model": runs.section(run_dir, "model", model_config),
        "train": runs.section(run_dir, "train", train_config),
        "dataset_dir": os.path.abspath(dataset_dir),
    }
    runs.check_run(run_dir, sections)
    splits = [name for name in (train_config.train_split, train_config.val_split) if name]
    for name in splits:
        # Damaged shards must not leave a run folder behind either.
        records.open_split(dataset_dir, name)
    keras.utils.set_random_seed(train_config.seed)
    with strategy.scope():
        model = _build(model_config, train_config)
        model_lib.load_backbone_weights(model, model_config, train_config.backbone_weights)
        if runs.latest_checkpoint(run_dir) is None:
            _start_from(model, model_config, train_config)
    # Only now: weights that do not fit must not leave a run folder behind.
    if distribute.is_chief(strategy):
        runs.open_run(run_dir, sections | runs.circumstances())
    try:
        with records.translate_data_errors(dataset_dir, *splits):
            return training.fit(
                model,
                _batches(train_config, dataset_dir, mean_pixel(model.get_layer("normalize"))),
                train_config,
                run_dir,
                ignore_label=descriptor.ignore_label,
                evaluate=_evaluation(model, train_config, dataset_dir, descriptor),
                strategy=strategy,
            )
    except training.LabelOutOfRange:
        # The step cannot say which picture it was; this finds the first, or the error goes on.
        records.verify(dataset_dir, train_config.train_split)
        raise


def _check_shards(descriptor: DatasetDescriptor, split: str, workers: int, dataset_dir: str | os.PathLike) -> None:
    """InputError where several workers would have to share a file."""
    shards = descriptor.split(split).num_shards
    if workers > max(shards, 1):
        raise InputError(
            f"{dataset_dir}: split {split!r}: expected at least {workers} shards, one for each of {workers} workers, "
            f"received {shards}; tools/build_data.py --num_shards={workers} writes as many"
        )


def _build(model_config: ModelConfig, train_config: TrainConfig) -> keras.Model:
    """A fresh network that computes in the numbers of the training; its variables are float32 whatever they are."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(train_config.dtype_policy)
    try:
        model = model_lib.build(model_config)
    finally:
        keras.config.set_dtype_policy(before)
    for layer in all_layers(model):
        if isinstance(layer, TrainingProgress):
            layer.calls_per_step *= train_config.micro_batches
    return model


def _start_from(model: keras.Model, model_config: ModelConfig, train_config: TrainConfig) -> None:
    """Fills a network from what tf_initial_checkpoint names, if anything, and tells what that had."""
    source = train_config.tf_initial_checkpoint
    if not source:
        return
    names = model_lib.tf1_names(model, model_config)
    last_layer = {
        name: getattr(train_config, name) for name in ("initialize_last_layer", "last_layers_contain_logits_only")
    }
    if os.path.isdir(source):
        donor = model_lib.tf1_names(model_lib.load(source), model_lib.read_config(source))
        shapes = {name: variable.shape for name, variable in donor.items()}
        chosen = initial_checkpoint.choose(names, shapes, source, **last_layer)
        arrays = {name: keras.ops.convert_to_numpy(donor[name]) for name in chosen}
    else:
        chosen = initial_checkpoint.choose(names, tf1_checkpoint.read_shapes(source), source, **last_layer)
        arrays = tf1_checkpoint.read(source, chosen)
    print(f"started from {source}: {initial_checkpoint.fill(names, arrays)}")


def _batches(
    train_config: TrainConfig, dataset_dir, pixel: tuple[float, float, float]
) -> Callable[[int], tf.data.Dataset]:
    def make_dataset(start_step: int):
        return data_generator.train_dataset(
            dataset_dir,
            train_config.train_split,
            crop_size=train_config.train_crop_size,
            batch_size=train_config.train_batch_size,
            seed=train_config.seed,
            start_step=start_step,
            mean_pixel=pixel,
            size_range=train_config.size_range,
            **{name: getattr(train_config, name) for name in _SCALES},
        )

    return make_dataset


def _evaluation(model, train_config: TrainConfig, dataset_dir, descriptor: DatasetDescriptor):
    if not train_config.val_split:
        return None
    predict = evaluation.predictor(model)

    def evaluate():
        dataset = data_generator.eval_dataset(dataset_dir, train_config.val_split)
        scores = evaluation.evaluate(model, dataset, descriptor.num_classes, descriptor.ignore_label, predict=predict)
        pairs = ((batch[common.IMAGE][0], batch[common.LABEL][0]) for batch in dataset.take(_SHOWN))
        shown = functools.partial(scalars.overlays, predict, pairs, descriptor.colors)
        # A row of metrics.jsonl is for the curve; the images' own scores are for tools/eval.py.
        return {name: score for name, score in scores.items() if name != "images"} | {common.PICTURES: shown}

    return evaluate


def evaluate(
    run_dir: str | os.PathLike,
    dataset_dir: str | os.PathLike,
    split: str,
    weights: str = runs.BEST,
    advance: Callable[[int], Any] = lambda count: None,
) -> dict[str, Any]:
    """Scores a run folder's network on a split: what `nas_seg.eval.evaluate` returns.

    Raises:
        InputError: where the split has no labels, or the data set has other classes than the network.
    """
    check_classes(run_dir, dataset_dir)
    config, model = model_lib.read_config(run_dir), model_lib.load(run_dir, weights)
    return evaluate_model(model, config, dataset_dir, split, advance=advance)


def evaluate_model(
    model: keras.Model,
    config: ModelConfig,
    dataset_dir: str | os.PathLike,
    split: str,
    *,
    predict: Callable[[Any], tf.Tensor] | None = None,
    batch_size: int = 1,
    advance: Callable[[int], Any] = lambda count: None,
) -> dict[str, Any]:
    """The same for a network with its weights in it.

    Args:
        model: of `nas_seg.model.build(config)`.
        config: what it was built from.
        dataset_dir: folder with dataset.json.
        split: with labels.
        predict: how it looks at the pictures, such as `nas_seg.scaled_networks.predictor`; None: once.
        batch_size: pictures a batch; more than one where all are of one size.
        advance: as `nas_seg.eval.evaluate` has it.
    """
    descriptor = read_descriptor(dataset_dir, split)
    check_num_classes(config.num_classes, dataset_dir)
    with records.translate_data_errors(dataset_dir, split):
        dataset = data_generator.eval_dataset(dataset_dir, split, batch_size=batch_size)
        return evaluation.evaluate(
            model, dataset, descriptor.num_classes, descriptor.ignore_label, predict=predict, advance=advance
        )


def check_classes(run_dir: str | os.PathLike, dataset_dir: str | os.PathLike) -> None:
    """InputError unless a run's network and a data set have the same number of classes."""
    check_num_classes(model_lib.read_config(run_dir).num_classes, dataset_dir)


def check_num_classes(num_classes: int, dataset_dir: str | os.PathLike) -> None:
    """InputError unless a data set has this number of classes, which is a network's."""
    received = read_descriptor(dataset_dir).num_classes
    if num_classes != received:
        raise InputError(f"{dataset_dir}: expected the network's {num_classes} classes, received {received}")
