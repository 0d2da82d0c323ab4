"""The flags of the tools that take a trained network: which one it is, and how it looks at pictures.

The network comes from a run folder, or from a TF1 checkpoint with DeepLab's flags of its architecture. Of a run folder
these flags need not be typed; typed they must agree with it, but for those that a network can change: the output
stride, and the rates of ASPP.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import tempfile
from typing import Any, NamedTuple

from absl import flags

from nas_seg import list_flags, network_flags
from nas_seg.inference_config import InferenceConfig
from nas_seg.utils import runs
from nas_seg.utils.errors import InputError, renamed
from nas_seg.utils.size_range import SizeRange

# The flags belong to the tool that calls, whose --help shows them.
flags.disclaim_key_flags()

# What of a run's network may be another one after the training; no variable depends on it.
_OVERRIDES = ("output_stride", "atrous_rates")
_RANGE = {
    "min_resize_value": "The shorter side that a picture is resized to first (default: as it is).",
    "max_resize_value": "The longer side, where it would become longer.",
    "resize_factor": "Both sides become multiples of it, plus 1.",
}


class Source(NamedTuple):
    """Where a network comes from.

    Attributes:
        run_dir: a run folder, or None.
        tf_checkpoint: prefix of a TF1 checkpoint, or None; one of the two is given.
        weights: which ones of the run.
    """

    run_dir: str | None
    tf_checkpoint: str | None
    weights: str

    def __str__(self) -> str:
        return self.tf_checkpoint or str(runs.find_weights(self.run_dir, self.weights))


def define(checkpoint_flag: str, crop_flag: str, scales_flag: str, **defaults: Any) -> None:
    """Defines the flags; three have other names from tool to tool, and some of the network's other defaults."""
    flags.DEFINE_string("run_dir", None, "Run folder that tools/train.py wrote.")
    flags.DEFINE_string(
        checkpoint_flag, None, "Run folder, or prefix or folder of a TF1 checkpoint, which the flags describe."
    )
    flags.DEFINE_enum("weights", runs.BEST, (runs.BEST, runs.LAST), "Weights of the run.")
    list_flags.define(scales_flag, (1.0,), "Scales of the picture whose probabilities are averaged.")
    flags.DEFINE_boolean("add_flipped_images", False, "Average over the mirrored picture, too, at every scale.")
    flags.DEFINE_boolean(
        "prediction_with_upsampled_logits",
        True,
        "Pick classes at the picture's size; off: at the network's own, enlarged.",
    )
    list_flags.define(
        crop_flag,
        (),
        "height,width that pictures are padded to before they are scaled (default: each to what suits it).",
    )
    for name, text in _RANGE.items():
        flags.DEFINE_integer(name, None, text)
    network_flags.define(**defaults)


def read_inference(crop_flag: str, scales_flag: str) -> InferenceConfig:
    """How the flags say that a network looks; InputError names the flag that is wrong."""
    try:
        return InferenceConfig(
            eval_scales=list_flags.read(scales_flag, float),
            add_flipped_images=flags.FLAGS.add_flipped_images,
            crop_size=list_flags.read(crop_flag, int, 2, least=1) or None,
            size_range=SizeRange(**{name: flags.FLAGS[name].value for name in _RANGE}),
            prediction_with_upsampled_logits=flags.FLAGS.prediction_with_upsampled_logits,
        )
    except InputError as error:
        names = {"eval_scales": f"--{scales_flag}", "crop_size": f"--{crop_flag}"}
        raise renamed(error, names | {name: f"--{name}" for name in _RANGE}) from None


def read_split(descriptor, split_flag: str):
    """The split of a data set that a flag names; InputError with the flag and the nearest name for another."""
    try:
        return descriptor.split(flags.FLAGS[split_flag].value)
    except InputError as error:
        raise InputError(f"--{split_flag}: {error}") from None


def batch_size(batch_flag: str, split) -> int:
    """How many pictures of a split go at a time. Pictures of several sizes go one by one, which changes no result."""
    size = flags.FLAGS[batch_flag].value
    if size > 1 and split.min_size != split.max_size:
        print(f"note: --{batch_flag}: the pictures have several sizes, they go one by one")
        return 1
    return size


def check_fits(inference: InferenceConfig, crop_flag: str, descriptor, split: str) -> None:
    """InputError where pictures of a split are larger than the crop; those that are resized first are not looked at."""
    largest = descriptor.split(split).max_size
    crop = inference.crop_size
    if crop and not inference.size_range.resizes and any(a < b for a, b in zip(crop, largest, strict=True)):
        shown, needed = ",".join(map(str, crop)), ",".join(map(str, largest))
        raise InputError(f"--{crop_flag}: expected at least {needed}, the largest of split {split!r}, received {shown}")


def read_source(checkpoint_flag: str) -> Source:
    """Where the flags say that the network is.

    DeepLab's TRAIN_LOGDIR/model.ckpt-STEP of a run folder is its last weights, if they are of that step.

    Raises:
        InputError: for none, for two that differ, or a place without a network.
    """
    given = {name: flags.FLAGS[name].value for name in ("run_dir", checkpoint_flag) if flags.FLAGS[name].value}
    if len(given) != 1:
        raise InputError(
            f"--run_dir: expected a run folder, or else --{checkpoint_flag}; received {given or 'neither'}"
        )
    ((name, place),) = given.items()
    if name == "run_dir" or pathlib.Path(place, runs.CONFIG).is_file():
        runs.read_config(place)
        return Source(place, None, flags.FLAGS.weights)
    path = pathlib.Path(place)
    step = re.fullmatch(r"model\.ckpt-(\d+)", path.name)
    if step and (path.parent / runs.CONFIG).is_file():
        _check_step(path.parent, int(step[1]), checkpoint_flag)
        return Source(str(path.parent), None, runs.LAST)
    return Source(None, _prefix(path, checkpoint_flag), "")


def _check_step(run_dir: pathlib.Path, step: int, checkpoint_flag: str) -> None:
    there = max((row["step"] for row in runs.read_metrics(run_dir)), default=0)
    if there != step:
        raise InputError(f"--{checkpoint_flag}: {run_dir} is at step {there}, received step {step}")


def _prefix(path: pathlib.Path, checkpoint_flag: str) -> str:
    """Of a TF1 checkpoint: the path itself, or that of the newest one in a folder."""
    if not path.is_dir():
        return str(path)
    names = [file.name.removesuffix(".index") for file in path.glob("*.index")]
    told = path / "checkpoint"
    newest = re.match(r'model_checkpoint_path: "(.*)"', told.read_text(errors="replace")) if told.is_file() else None
    if newest and pathlib.Path(newest[1]).name in names:
        return str(path / pathlib.Path(newest[1]).name)
    if len(names) != 1:
        raise InputError(
            f"--{checkpoint_flag}: expected a run folder or one TF1 checkpoint in {path}, found "
            f"{', '.join(sorted(names)) or 'none'}"
        )
    return str(path / names[0])


def load(source: Source, num_classes: int | None):
    """The network with its weights.

    Args:
        source: of `read_source`.
        num_classes: of a TF1 checkpoint.

    Returns:
        The ModelConfig and the keras.Model.

    Raises:
        InputError: for a flag that contradicts the run, or a checkpoint of another network.
    """
    from nas_seg import convert
    from nas_seg import model as model_lib

    if source.tf_checkpoint:
        config = model_lib.ModelConfig(num_classes, network_flags.read())
        with tempfile.TemporaryDirectory() as folder:
            return config, convert.from_tf1(source.tf_checkpoint, config, os.path.join(folder, "run")).model
    config = model_lib.read_config(source.run_dir)
    _check_num_classes(config.num_classes)
    network_flags.check_agreement(config.network, but=_OVERRIDES)
    config = dataclasses.replace(config, network=_overridden(config.network))
    model = model_lib.build(config)
    model_lib.load_weights(model, runs.find_weights(source.run_dir, source.weights))
    return config, model


def _check_num_classes(expected: int) -> None:
    # Only some of the tools have the flag.
    if "num_classes" in flags.FLAGS and flags.FLAGS["num_classes"].present and flags.FLAGS.num_classes != expected:
        raise InputError(f"--num_classes: expected the run's {expected}, received {flags.FLAGS.num_classes}")


def _overridden(network):
    """A network with the output stride and the rates that were typed."""
    backbone, rates = network.backbone, getattr(network, "atrous_rates", ())
    changes: dict[str, Any] = {}
    try:
        if flags.FLAGS["output_stride"].present and flags.FLAGS.output_stride != backbone.output_stride:
            stride = flags.FLAGS.output_stride
            if "output_stride" not in {field.name for field in dataclasses.fields(backbone)}:
                raise InputError(
                    f"output_stride: expected {backbone.output_stride}, the network's own, received {stride}"
                )
            changes["backbone"] = dataclasses.replace(backbone, output_stride=stride)
            if rates:
                # The same distances in the picture: a finer map has larger rates.
                changes["atrous_rates"] = tuple(max(1, rate * backbone.output_stride // stride) for rate in rates)
        if flags.FLAGS["atrous_rates"].present:
            changes["atrous_rates"] = list_flags.read("atrous_rates", int)
            if len(changes["atrous_rates"]) != len(rates):
                raise InputError(f"atrous_rates: expected {len(rates)} rates as the run's {list(rates)}")
        return dataclasses.replace(network, **changes)
    except InputError as error:
        raise InputError(f"--{error}") from None
