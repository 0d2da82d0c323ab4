"""The state that a stopped run goes on from, in one .npz file: variables by their place, and numbers beside them."""

from __future__ import annotations

import os
import pathlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nas_seg.utils import config
from nas_seg.utils.errors import InputError

_VERSION = "format_version"
# What reading an archive raises whose bytes somebody changed; RuntimeError: encrypted, or of an unknown compression.
_DAMAGE = (
    OSError, ValueError, EOFError, KeyError, AttributeError, RuntimeError, zipfile.BadZipFile, zlib.error
)  # fmt: skip


def save_state(path: str | os.PathLike, variables: Sequence[Any], numbers: Mapping[str, Any]) -> None:
    """Writes the values of variables, as a whole or not at all. One process at a time may write a file.

    Args:
        path: ends in .npz; its folder is made where it is missing.
        variables: keras.Variable; `load_state` takes them in the same order.
        numbers: arrays or numbers by name.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {f"variable_{i:05d}": variable.numpy() for i, variable in enumerate(variables)}
    arrays |= {f"number_{name}": np.asarray(value) for name, value in numbers.items()}
    # What a killed process left is written over.
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            np.savez(file, **arrays, **{_VERSION: np.asarray(config.FORMAT_VERSION)})
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_state(path: str | os.PathLike, variables: Sequence[Any]) -> dict[str, np.ndarray]:
    """Assigns the values that `save_state` wrote; returns the numbers.

    Raises:
        InputError: for a file that is damaged, or has other variables; nothing is assigned then.
    """
    arrays = _read(pathlib.Path(path))
    version = arrays.pop(_VERSION, None)
    if version is None or version.tolist() != config.FORMAT_VERSION:
        raise InputError(f"{path}: expected format_version {config.FORMAT_VERSION}, received {version}")
    values = [arrays[name] for name in sorted(arrays) if name.startswith("variable_")]
    if len(values) != len(variables):
        raise InputError(
            f"{path}: checkpoint of another network: expected {len(variables)} variables, received {len(values)}"
        )
    for variable, value in zip(variables, values, strict=True):
        if tuple(variable.shape) != value.shape:
            raise InputError(
                f"{path}: checkpoint of another network: {variable.path}: expected shape {tuple(variable.shape)}, "
                f"received {value.shape}"
            )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return {name.removeprefix("number_"): array for name, array in arrays.items() if name.startswith("number_")}


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except _DAMAGE as error:
        raise InputError(f"{path}: the checkpoint cannot be read ({str(error) or type(error).__name__})") from None
