"""The flags of TrainConfig, one a field, for the tools that train: each of them calls `define` and `read`."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence

from absl import flags

from nas_seg import list_flags
from nas_seg.train_config import TrainConfig
from nas_seg.utils import app
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
    int | None: flags.DEFINE_integer,
    tuple[int, int]: list_flags.define,
    tuple[float, ...]: list_flags.define,
}
# In place of numbers: the weights that the labels of train_split give, to this power.
_COUNTED = {"auto": 1.0, "sqrt": 0.5}
_MORE = {"label_weights": "; auto: median frequency over train_split; sqrt: its square root"}


def define() -> None:
    """Defines a flag for every field of TrainConfig, with its default and its help."""
    kinds = typing.get_type_hints(TrainConfig)
    for field in dataclasses.fields(TrainConfig):
        text = field.metadata["help"] + _MORE.get(field.name, "") + "."
        _DEFINE[kinds[field.name]](field.name, field.default, text[0].upper() + text[1:])


def read() -> TrainConfig:
    """The configuration that the parsed flags say; InputError names the flag that is wrong.

    With --label_weights=auto or sqrt the labels of --dataset_dir are counted.
    """
    values = {field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(TrainConfig)}
    values["train_crop_size"] = app.height_width("train_crop_size", _last_pair(values["train_crop_size"]))
    word = ",".join(values["label_weights"] or ())
    values["label_weights"] = () if word in _COUNTED else list_flags.read("label_weights", float)
    try:
        config = TrainConfig(**values)
    except InputError as error:
        raise InputError(f"--{error}") from None
    return dataclasses.replace(config, label_weights=_counted(word, config.train_split)) if word in _COUNTED else config


def _last_pair(words: Sequence[str]) -> Sequence[str]:
    """One number a flag, as DeepLab had its crops until 2018, or all in one flag, of which the last counts."""
    return words[-1].split(",") if any("," in word for word in words) else words


def _counted(word: str, split: str) -> tuple[float, ...]:
    if not flags.FLAGS["dataset_dir"].value:
        raise InputError(f"--label_weights={word}: expected --dataset_dir beside it")
    app.import_tensorflow()
    from nas_seg import label_weights

    weights = label_weights.median_frequency(flags.FLAGS["dataset_dir"].value, split)
    return tuple(weight ** _COUNTED[word] for weight in weights)
