"""The flags of TrainConfig, one a field, for the tools that train: each of them calls `define` and `read`."""

from __future__ import annotations

import dataclasses
import typing

from absl import flags

from nas_seg.train_config import TrainConfig
from nas_seg.utils.errors import InputError

# The flags belong to the tool that calls, whose --help shows them.
flags.disclaim_key_flags()

_DEFINE = {
    bool: flags.DEFINE_boolean,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
    str | None: flags.DEFINE_string,
    float | None: flags.DEFINE_float,
    tuple[int, int]: flags.DEFINE_list,
    tuple[float, ...]: flags.DEFINE_multi_float,
}


def define() -> None:
    """Defines a flag for every field of TrainConfig, with its default and its help."""
    kinds = typing.get_type_hints(TrainConfig)
    for field in dataclasses.fields(TrainConfig):
        kind, default = kinds[field.name], field.default
        if kind == tuple[int, int]:
            default = [str(size) for size in default]
        elif isinstance(default, tuple):
            default = default or None
        _DEFINE[kind](field.name, default, field.metadata["help"].capitalize() + ".")


def read() -> TrainConfig:
    """The configuration that the parsed flags say; InputError names the flag that is wrong."""
    values = {field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(TrainConfig)}
    try:
        height, width = (int(size) for size in values["train_crop_size"])
    except ValueError:
        received = ",".join(values["train_crop_size"])
        raise InputError(f"--train_crop_size: expected height,width, received {received!r}") from None
    values |= {"train_crop_size": (height, width), "label_weights": tuple(values["label_weights"] or ())}
    try:
        return TrainConfig(**values)
    except InputError as error:
        raise InputError(f"--{error}") from None
