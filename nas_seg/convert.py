"""TF1 checkpoints of DeepLab's code to run folders, and back; a trained network for other classes."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import tempfile
from typing import Any

import keras

from nas_seg import model as model_lib
from nas_seg.core import checkpoint, tf1_checkpoint
from nas_seg.model import ModelConfig
from nas_seg.utils import config as config_lib
from nas_seg.utils import runs
from nas_seg.utils.errors import InputError

# What a training keeps beside the network: the step, and slots of optimisers and of moving averages.
_STEP = "global_step"
_SLOTS = ("/Momentum", "/ExponentialMovingAverage", "/Adam", "/Adam_1")
_OF_OPTIMIZER = ("beta1_power", "beta2_power")
_LAST_LAYER = "logits/"


@dataclasses.dataclass(frozen=True)
class Converted:
    """What a conversion did.

    Attributes:
        filled: how many variables of the network got a value.
        fresh: names of those that were left as they were initialised.
        ignored: how many of the checkpoint are of a training, not of the network.
        unused: names of the checkpoint that the network has no place for.
        model: the network.
    """

    filled: int
    fresh: tuple[str, ...]
    ignored: int
    unused: tuple[str, ...]
    model: keras.Model


def from_tf1(
    prefix: str | os.PathLike, config: ModelConfig, run_dir: str | os.PathLike, initialize_last_layer: bool = True
) -> Converted:
    """Makes a run folder of a TF1 checkpoint.

    Args:
        prefix: of the checkpoint (format V2).
        config: the network that it is of; of other classes only without its last layer.
        run_dir: made; there must be no run in it.
        initialize_last_layer: False leaves the logits as they are initialised (DeepLab's flag).

    Raises:
        InputError: for a checkpoint that is missing, damaged or of another network, naming the variable. Nothing is
            written then.
    """
    _check_free(run_dir)
    shapes = tf1_checkpoint.read_shapes(prefix)
    model = model_lib.build(config)
    names = model_lib.tf1_names(model, config)
    wanted = _taken_over(names, initialize_last_layer)
    _check_shapes(prefix, shapes, wanted, config)
    checkpoint.assign(wanted, tf1_checkpoint.read(prefix, list(wanted)))
    others = sorted(set(shapes) - set(names))
    ignored = [name for name in others if name == _STEP or name.endswith(_SLOTS) or name in _OF_OPTIMIZER]
    _write_run(run_dir, model, config, {"tf_checkpoint": os.path.abspath(prefix)})
    return Converted(
        filled=len(wanted),
        fresh=tuple(sorted(set(names) - set(wanted))),
        ignored=len(ignored),
        unused=tuple(sorted(set(others) - set(ignored))),
        model=model,
    )


def from_run(
    source: str | os.PathLike, num_classes: int, run_dir: str | os.PathLike, initialize_last_layer: bool
) -> Converted:
    """Makes a run folder of another one's network, for other classes where `initialize_last_layer` is False.

    Raises:
        InputError: for a folder that is no run, or for other classes with the last layer.
    """
    _check_free(run_dir)
    before = model_lib.read_config(source)
    if initialize_last_layer and before.num_classes != num_classes:
        raise InputError(
            f"--num_classes: expected the {before.num_classes} of {source}, received {num_classes}; "
            "--initialize_last_layer=false takes over all but the last layer"
        )
    config = dataclasses.replace(before, num_classes=num_classes)
    model = model_lib.build(config)
    old = model_lib.tf1_names(model_lib.load(source), before)
    names = model_lib.tf1_names(model, config)
    wanted = _taken_over(names, initialize_last_layer)
    for name, variable in wanted.items():
        variable.assign(old[name].value)
    _write_run(run_dir, model, config, {"run_dir": os.path.abspath(source)})
    return Converted(len(wanted), tuple(sorted(set(names) - set(wanted))), 0, (), model)


def to_tf1(run_dir: str | os.PathLike, prefix: str | os.PathLike, weights: str = runs.BEST) -> int:
    """Writes a run folder's network as a TF1 checkpoint that DeepLab's code restores; how many variables it has."""
    config = model_lib.read_config(run_dir)
    names = model_lib.tf1_names(model_lib.load(run_dir, weights), config)
    tf1_checkpoint.write(prefix, {name: keras.ops.convert_to_numpy(variable) for name, variable in names.items()})
    return len(names)


def _taken_over(names: dict[str, Any], initialize_last_layer: bool) -> dict[str, Any]:
    """The variables that get a value."""
    return {name: v for name, v in names.items() if initialize_last_layer or not name.startswith(_LAST_LAYER)}


def _check_free(run_dir: str | os.PathLike) -> None:
    if pathlib.Path(run_dir, runs.CONFIG).exists():
        raise InputError(f"--output_dir: {run_dir} holds a run already; take another folder")


def _check_shapes(prefix, shapes: dict[str, tuple[int, ...]], wanted: dict[str, Any], config: ModelConfig) -> None:
    """InputError that names the variable, before anything is read."""
    missing = [name for name in wanted if name not in shapes]
    if missing:
        more = f" (and {len(missing) - 1} more of {len(wanted)})" if len(missing) > 1 else ""
        raise InputError(
            f"{prefix}: {missing[0]}: expected in the checkpoint, found none{more}; do the flags describe its network?"
        )
    for name, variable in wanted.items():
        expected, received = tuple(variable.shape), shapes[name]
        if expected == received:
            continue
        if name.startswith(_LAST_LAYER) and expected[:-1] == received[:-1]:
            raise InputError(
                f"{prefix}: {name} is of {received[-1]} classes, received --num_classes={config.num_classes}; "
                "--initialize_last_layer=false takes over all but the last layer"
            )
        raise InputError(f"{prefix}: {name}: expected shape {expected}, found {received}")


def _write_run(run_dir: str | os.PathLike, model: keras.Model, config: ModelConfig, source: dict[str, Any]) -> None:
    """A run folder appears with its weights or not at all."""
    run_dir = pathlib.Path(run_dir)
    try:
        run_dir.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=run_dir.parent, prefix=f".{run_dir.name}.") as folder:
            made = pathlib.Path(folder, "run")
            runs.save_weights(model, runs.weights_path(made, runs.LAST))
            sections = {"model": config_lib.to_json(config), "converted_from": source}
            runs.open_run(made, sections | runs.circumstances())
            if run_dir.is_dir():
                run_dir.rmdir()  # An empty folder may be there; one with files is none of ours.
            os.replace(made, run_dir)
    except OSError as error:
        raise InputError(f"--output_dir: {run_dir}: cannot be written ({error.strerror})") from None
