"""TF1 checkpoints (format V2: PREFIX.index and PREFIX.data-*) as arrays by name, and back."""

from __future__ import annotations

import os
import pathlib
import tempfile
from collections.abc import Mapping

import numpy as np

from nas_seg.utils.errors import InputError

# What Saver writes beside the two files that matter.
_PARTS = (".meta", ".index", ".data-00000-of-00001")


def read_shapes(prefix: str | os.PathLike) -> dict[str, tuple[int, ...]]:
    """The shape of every variable of a checkpoint.

    Raises:
        InputError: where there is none, or it is damaged; a file of the checkpoint is given in place of its prefix.
    """
    return {name: tuple(shape) for name, shape in _open(prefix).get_variable_to_shape_map().items()}


def read(prefix: str | os.PathLike, names: list[str] | None = None) -> dict[str, np.ndarray]:
    """Variables of a checkpoint by name: all, or the given ones.

    Raises:
        InputError: as `read_shapes`, and naming the variable whose values are cut off or damaged.
    """
    import tensorflow as tf

    reader = _open(prefix)
    arrays = {}
    for name in sorted(reader.get_variable_to_shape_map()) if names is None else names:
        try:
            arrays[name] = np.asarray(reader.get_tensor(name))
        except (tf.errors.OpError, RuntimeError, ValueError, IndexError) as error:
            raise InputError(f"{prefix}: damaged checkpoint, {name} cannot be read ({_reason(error)})") from None
    return arrays


def write(prefix: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a checkpoint of one shard, as a whole or not at all: the index, the file that makes it one, comes last."""
    import tensorflow as tf

    prefix = pathlib.Path(prefix)
    names = sorted(arrays)
    try:
        prefix.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=prefix.parent, prefix=f".{prefix.name}.") as folder:
            made = os.path.join(folder, "ckpt")
            tf.raw_ops.SaveV2(
                prefix=made,
                tensor_names=names,
                shape_and_slices=[""] * len(names),
                tensors=[tf.constant(arrays[name]) for name in names],
            )
            for part in reversed(_PARTS[1:]):
                os.replace(made + part, f"{prefix}{part}")
    except OSError as error:
        raise InputError(f"{prefix}: cannot be written ({error.strerror})") from None


def _open(prefix: str | os.PathLike):
    import tensorflow as tf

    path = os.fspath(prefix)
    for part in _PARTS:
        if path.endswith(part):
            raise InputError(f"{path}: expected the prefix of a checkpoint, {path.removesuffix(part)}")
    if not os.path.isfile(f"{path}.index"):
        raise InputError(f"{path}: no TF1 checkpoint, expected the file {path}.index")
    try:
        return tf.train.load_checkpoint(path)
    except (tf.errors.OpError, RuntimeError, ValueError, IndexError) as error:
        raise InputError(f"{path}: damaged checkpoint ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
