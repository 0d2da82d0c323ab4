"""The training loop: one for one device, mirrored GPUs, several workers and TPUs.

A batch is split over the replicas and the loss is divided by the labelled pixels of the whole batch, so
the number of replicas does not change what is learnt. Stopped at any moment and started again, a training
ends with the weights of an uninterrupted one: the state in a checkpoint is every variable of the model
(those of dropout's random numbers too) and of the optimizer, and batch k of the data depends on k alone.

With `micro_batches` the devices go through their share of a batch in parts and add up the gradients. The loss is still
divided by the labelled pixels of the whole batch; batch normalisation and hard-pixel mining see one part at a time, and
the moving averages move with each part.
"""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nas_seg import common, gradients, losses, optimizers
from nas_seg.core import conv
from nas_seg.core.encoder_decoder import loss_model
from nas_seg.core.native_logits import corner_rules, native_logits
from nas_seg.train_config import TrainConfig
from nas_seg.utils import distribute, runs, scalars
from nas_seg.utils.errors import InputError
from nas_seg.utils.progress import progress

__all__ = ["Diverged", "LabelOutOfRange", "TrainConfig", "fit"]

# Numbers of so small a range that gradients are scaled up before they are rounded to them.
_SCALED = "mixed_float16"


class Diverged(ArithmeticError):
    """The loss stopped being a number; the message names the step."""


class LabelOutOfRange(InputError):
    """A label is neither a class of the model nor the ignored one; the message names the batches."""


def fit(
    model: keras.Model,
    make_dataset: Callable[[int], tf.data.Dataset],
    config: TrainConfig,
    run_dir: str | os.PathLike,
    *,
    ignore_label: int,
    evaluate: Callable[[], Mapping[str, Any]] | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> dict[str, Any]:
    """Trains a model to the configured step, from where the run folder stands.

    Args:
        model: images [B, H, W, 3] -> logits [B, H, W, num_classes]; made under `strategy.scope()`, and with Keras'
            dtype policy as `config` says.
        make_dataset: first step -> endless batches {"image": [B, H, W, 3], "label": int [B, H, W]}; batch k
            must depend on k alone for an exact resume.
        config: what to do.
        run_dir: gets metrics.jsonl and ckpt/, see `nas_seg.utils.runs`.
        ignore_label: label of the pixels that are not learnt from.
        evaluate: scores the model as it is, with "miou" among the scores, which picks the best weights; perhaps with
            "pictures", what makes the pictures that TensorBoard shows, see `nas_seg.utils.scalars`.
        strategy: of `nas_seg.utils.distribute`; every worker must call `fit` alike.

    Returns:
        step, and where known loss (of the last row), val_miou and best_step (of the best weights).

    Raises:
        Diverged: when the loss is not a finite number.
        LabelOutOfRange: for a label that is neither a class nor `ignore_label`.
        InputError: for a checkpoint of another network, a folder in use, or a batch that cannot be shared evenly.
    """
    strategy = strategy or tf.distribute.get_strategy()
    _check_shares(config, strategy.num_replicas_in_sync)
    decay = config.batch_norm_decay
    if decay is None:
        decay = conv.decay_for(config.training_number_of_steps)
    conv.set_batch_norm(model, config.fine_tune_batch_norm, strategy.num_replicas_in_sync > 1, max_momentum=decay)
    with strategy.scope():
        optimizer = make_optimizer(config)
        optimizer.build(model.trainable_variables)
    train_steps = compile_steps(model, optimizer, config, ignore_label, strategy)
    run_dir = pathlib.Path(run_dir)
    with _output_folder(strategy, run_dir) as output:
        state = _State(model, optimizer, run_dir, output)
        step = state.restore()
        rows = [row for row in runs.read_metrics(run_dir) if row["step"] <= step]
        runs.write_metrics(output, rows)
        total = config.training_number_of_steps
        if step == 0 and config.fine_tune_batch_norm:
            _take_first_statistics(model, make_dataset, strategy)
        batches = iter(_distribute(strategy, make_dataset(step))) if step < total else None
        told = scalars.writer(output)
        with progress("train", total, done=step) as bar:
            while step < total:
                first, step = step, _next_stop(step, config)
                row = _run(train_steps, batches, first, step, optimizer, config)
                _record(output, rows, row)
                told.row(row)
                bar.advance(step - first, loss=row["loss"])
                if evaluate is not None and (step % config.eval_interval_steps == 0 or step == total):
                    with _averaged(model, optimizer):
                        told.pictures(_evaluate(model, evaluate, step, output, rows), step)
                    told.row(rows[-1])
                # After the evaluation: what a checkpoint stands for has been measured already.
                if step % config.save_interval_steps == 0 or step == total:
                    state.save(step)
        with _averaged(model, optimizer):
            runs.save_weights(model, runs.weights_path(output, runs.LAST))
    return _summary(step, rows)


def _take_first_statistics(model, make_dataset, strategy) -> None:
    """Moving averages that nobody has set yet become the statistics of the first batch.

    They begin with mean 0 and variance 1, of which exp(-5) is left at the end of a short training (`conv.decay_for`).
    Where activations vary by much less than 1 that is too much: a network of many layers evaluates to nothing.
    """
    layers = [layer for layer in conv.all_layers(model) if isinstance(layer, conv.BatchNorm) and layer.is_fresh()]
    if not layers:
        return
    averages = {id(v) for layer in layers for v in (layer.moving_mean, layer.moving_variance)}
    others = [variable for variable in model.non_trainable_variables if id(variable) not in averages]
    kept, momenta = [keras.ops.convert_to_numpy(v) for v in others], [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0

    @tf.function
    def look(images):
        strategy.run(lambda images: model(images, training=True), args=(images,))

    look(next(iter(_distribute(strategy, make_dataset(0))))[common.IMAGE])
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    # Random numbers and counted steps are those before it.
    for variable, value in zip(others, kept, strict=True):
        variable.assign(value)


@contextlib.contextmanager
def _averaged(model, optimizer) -> Iterator[None]:
    """The model with the averages of its weights in their place, where the optimizer keeps any (Polyak averaging).

    The moving averages of batch normalisation stay those of the weights themselves.
    """
    if not getattr(optimizer, "inner_optimizer", optimizer).use_ema:
        yield
        return
    variables = model.trainable_variables
    weights = [keras.ops.convert_to_numpy(variable) for variable in variables]
    optimizer.finalize_variable_values(variables)
    try:
        yield
    finally:
        for variable, value in zip(variables, weights, strict=True):
            variable.assign(value)


def make_optimizer(config: TrainConfig) -> keras.optimizers.Optimizer:
    """The optimizer that a training configuration asks for, with dynamic loss scaling for float16."""
    optimizer = optimizers.from_config(config)
    return keras.optimizers.LossScaleOptimizer(optimizer) if config.dtype_policy == _SCALED else optimizer


def compile_steps(model, optimizer, config: TrainConfig, ignore_label: int, strategy) -> Callable:
    """Steps of `fit`, traced: (iterator, count) -> mean loss, first step with a loss that is not finite, stray labels.

    Where every loss is finite the first step is -1.
    """
    # oneDNN's gradients are kept from call to call; TensorFlow makes them anew by default, to save memory.
    os.environ.setdefault("TF_MKL_OPTIMIZE_PRIMITIVE_MEMUSE", "0")
    # One loss for each scale of an image pyramid and one for the merged logits, as in DeepLab.
    network = loss_model(model)
    corners = corner_rules(network)
    # The loss resizes logits itself, faster than the network does.
    resizes = config.upsample_logits and None not in corners
    if resizes or not config.upsample_logits:
        network = native_logits(network)

    def costs_of(images, labels):
        """(sum, count) of each loss on a replica."""
        sums = []
        outputs = keras.tree.flatten(network(images, training=True))
        for logits, align_corners in zip(outputs, corners, strict=True):
            cost, count = losses.cross_entropy_sum(
                logits,
                labels if config.upsample_logits else losses.labels_like(labels, logits),
                ignore_label,
                label_weights=config.label_weights,
                top_k_percent_pixels=config.top_k_percent_pixels,
                hard_example_mining_step=config.hard_example_mining_step,
                step=optimizer.iterations,
                align_corners=align_corners if resizes else None,
            )
            sums.append((cost, count))
        return sums

    variables, parts = model.trainable_variables, config.micro_batches
    rules = gradients.rules(model, config, strategy.num_replicas_in_sync)
    if parts == 1:
        gradients_of = gradients.at_once(costs_of, optimizer, variables)
    else:
        add_part, gradients_of = gradients.in_parts(
            costs_of, optimizer, variables, parts, len(network.outputs), strategy
        )

    def replica_step(batch):
        labels = tf.cast(batch[common.LABEL], tf.int32)
        known = (labels >= 0) & (labels < model.output_shape[-1]) | (labels == ignore_label)
        loss = gradients.apply(optimizer, rules, *gradients_of(batch[common.IMAGE], labels))
        return loss, tf.reduce_sum(tf.cast(~known, tf.int32))

    @tf.function
    def train_steps(iterator, count):
        total, stray, bad_step = tf.constant(0.0), tf.constant(0), tf.constant(-1)
        for _ in tf.range(count):
            step, batch = tf.cast(optimizer.iterations.value, tf.int32), next(iterator)
            if parts > 1:
                for part in tf.range(parts):
                    strategy.run(add_part, args=(batch[common.IMAGE], batch[common.LABEL], part))
            loss, outside = (
                strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None)
                for value in strategy.run(replica_step, args=(batch,))
            )
            total, stray = total + loss, stray + outside
            bad_step = tf.where(tf.math.is_finite(loss) | (bad_step >= 0), bad_step, step)
        return total / tf.cast(count, tf.float32), bad_step, stray

    return train_steps


def _check_shares(config: TrainConfig, replicas: int) -> None:
    """InputError unless every device gets equal parts of every batch."""
    parts = replicas * config.micro_batches
    if config.train_batch_size % parts:
        of = f"{replicas} devices" + (f" x {config.micro_batches} micro_batches" if config.micro_batches > 1 else "")
        raise InputError(f"train_batch_size: expected a multiple of {parts} ({of}), received {config.train_batch_size}")


def _distribute(strategy: tf.distribute.Strategy, dataset: tf.data.Dataset):
    """Splits each batch over the replicas; several workers share each batch, not the files."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return strategy.experimental_distribute_dataset(dataset.with_options(options))


def _next_stop(step: int, config: TrainConfig) -> int:
    """The next step after which something is written. It depends on the step alone, as an exact resume asks."""
    intervals = (config.log_steps, config.save_interval_steps, config.eval_interval_steps)
    return min(config.training_number_of_steps, *(step - step % interval + interval for interval in intervals))


def _run(train_steps, batches, first: int, stop: int, optimizer, config: TrainConfig) -> dict[str, Any]:
    """Trains from step `first` to `stop`; the row of metrics.jsonl that tells of it."""
    start = time.perf_counter()
    loss, bad_step, stray = (value.numpy() for value in train_steps(batches, tf.constant(stop - first)))
    seconds = time.perf_counter() - start
    if stray:
        raise LabelOutOfRange(
            f"labels: {stray} pixels of batches {first}..{stop - 1} are neither a class of the model nor ignore_label"
        )
    if bad_step >= 0:
        raise Diverged(f"the loss is no longer a finite number at step {bad_step}")
    return {
        "step": stop,
        "loss": float(loss),
        "learning_rate": float(optimizer.learning_rate),
        "seconds": round(seconds, 3),
        "images_per_second": round((stop - first) * config.train_batch_size / seconds, 3),
    }


def _evaluate(model, evaluate, step: int, output: pathlib.Path, rows: list[dict]) -> Callable:
    """Scores the model and keeps its weights if none before had a higher mIoU; what makes pictures that show it."""
    before, scores = runs.best_evaluation(rows), dict(evaluate())
    make_pictures = scores.pop(common.PICTURES, dict)
    _record(output, rows, {"step": step} | {f"val_{name}": _plain(value) for name, value in scores.items()})
    if runs.best_evaluation(rows) is not before:
        runs.save_weights(model, runs.weights_path(output, runs.BEST))
    return make_pictures


def _record(output: pathlib.Path, rows: list[dict], row: dict) -> None:
    rows.append(row)
    runs.append_metrics(output, row)


def _plain(value: Any) -> Any:
    """A score as JSON has it: NaN, the score of nothing, becomes null."""
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.tolist()]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _summary(step: int, rows: list[dict]) -> dict[str, Any]:
    best, trained = runs.best_evaluation(rows), [row for row in rows if "loss" in row]
    summary = {"step": step}
    if trained:
        summary["loss"] = trained[-1]["loss"]
    if best:
        summary |= {"val_miou": best["val_miou"], "best_step": best["step"]}
    return summary


@contextlib.contextmanager
def _output_folder(strategy: tf.distribute.Strategy, run_dir: pathlib.Path) -> Iterator[pathlib.Path]:
    """The run folder for the one process that writes; elsewhere a folder that is thrown away.

    Reading a variable that is spread over the workers needs all of them, so all go through the motions.
    """
    if distribute.is_chief(strategy):
        with runs.lock(run_dir):
            yield run_dir
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield pathlib.Path(folder)


class _State:
    """Every variable that a training goes on from, in a tf.train.Checkpoint keyed by its place in the order."""

    def __init__(self, model, optimizer, run_dir: pathlib.Path, output: pathlib.Path):
        self._step = optimizer.iterations
        # Before the manager, which reads the list of checkpoints itself.
        self._latest = runs.latest_checkpoint(run_dir)
        self._variables = {f"{i:04d}": v for i, v in enumerate([*model.variables, *optimizer.variables])}
        self._checkpoint = tf.train.Checkpoint(state={key: v.value for key, v in self._variables.items()})
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, str(output / runs.CHECKPOINTS), max_to_keep=2, checkpoint_name="step"
        )

    def save(self, step: int) -> None:
        self._manager.save(checkpoint_number=step)

    def restore(self) -> int:
        """Loads the newest checkpoint, if there is one; returns the step to go on from."""
        path = self._latest
        if path is not None:
            try:
                self._check(path)
                self._checkpoint.restore(path).assert_existing_objects_matched()
            except (tf.errors.OpError, ValueError, LookupError, AssertionError) as error:
                if isinstance(error, InputError):
                    raise
                raise InputError(f"{path}: the checkpoint cannot be read ({str(error).splitlines()[0]})") from None
        return int(self._step.numpy())

    def _check(self, path: str) -> None:
        shapes = dict(tf.train.list_variables(path))
        for key, variable in self._variables.items():
            there = shapes.get(f"state/{key}/.ATTRIBUTES/VARIABLE_VALUE")
            if there is None or tuple(there) != tuple(variable.shape):
                raise InputError(
                    f"{path}: checkpoint of another network: {variable.path}: expected shape"
                    f" {tuple(variable.shape)}, received {None if there is None else tuple(there)}"
                )
