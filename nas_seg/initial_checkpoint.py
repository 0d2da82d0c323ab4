"""A network filled from a checkpoint of another one, as far as they agree: where a fine-tuning starts.

The variables are matched by DeepLab's names for them. What the checkpoint has not stays as it was initialised, and of
the last layers a training may want nothing (DeepLab's utils/train_utils.py, get_model_init_fn).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nas_seg.utils.errors import InputError

# Scopes of all that is not backbone; the first is the logits'.
_LAST_LAYERS = ("logits", "image_pooling", "aspp", "concat_projection", "decoder", "meta_architecture")


def is_last_layer(name: str, logits_only: bool) -> bool:
    """Whether a variable of this name is of the last layers: the logits alone, or all that follows the backbone."""
    scope = name.split("/", 1)[0]
    return scope.startswith(_LAST_LAYERS[:1] if logits_only else _LAST_LAYERS)


def choose(
    names: Mapping[str, Any],
    shapes: Mapping[str, Sequence[int]],
    source: object,
    *,
    initialize_last_layer: bool = True,
    last_layers_contain_logits_only: bool = False,
) -> list[str]:
    """Names of the variables that a checkpoint fills.

    Args:
        names: DeepLab's name -> variable of the network.
        shapes: the same name -> shape of what the checkpoint has.
        source: the checkpoint, for messages.
        initialize_last_layer: the last layers, too.
        last_layers_contain_logits_only: which these are, see `is_last_layer`.

    Raises:
        InputError: for a variable of another shape, or where nothing is left.
    """
    wanted = [
        name
        for name in names
        if name in shapes and (initialize_last_layer or not is_last_layer(name, last_layers_contain_logits_only))
    ]
    for name in wanted:
        expected, received = tuple(names[name].shape), tuple(shapes[name])
        if expected == received:
            continue
        hint = "do the flags describe its network?"
        if is_last_layer(name, logits_only=True):
            hint = (
                "--initialize_last_layer=false leaves out the last layers, with --last_layers_contain_logits_only the "
                "logits alone"
            )
        raise InputError(f"--tf_initial_checkpoint: {source}: {name}: expected {expected}, found {received}; {hint}")
    if not wanted:
        raise InputError(f"--tf_initial_checkpoint: {source}: expected variables of this network, found none")
    return wanted


def fill(names: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """Fills variables; one line that says what was filled and what was not."""
    for name, array in arrays.items():
        names[name].assign(array)
    fresh = sorted({name.split("/", 1)[0] for name in names if name not in arrays})
    return f"{len(arrays)} of {len(names)} variables" + (f"; fresh: {', '.join(fresh)}" if fresh else "")
