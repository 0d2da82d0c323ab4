"""Flags of several numbers, given as --rates=6,12 or one by one, --rates=6 --rates=12, which is DeepLab's way."""

from __future__ import annotations

import math
from collections.abc import Iterable

from absl import flags

from nas_seg.utils.errors import InputError

# The flags belong to the tool that calls, whose --help shows them.
flags.disclaim_key_flags()

_KINDS = {int: "whole numbers", float: "numbers"}


def define(name: str, default: Iterable[float], text: str) -> None:
    """A flag that `read` reads; text is its help."""
    flags.DEFINE_multi_string(name, [str(number) for number in default] or None, text)
    # absl adds that the flag must be repeated.
    flags.FLAGS[name].help = text


def read(name: str, kind: type[int] | type[float], count: int | None = None, least: float | None = None) -> tuple:
    """What a flag of `define` says, none where it is not given.

    Args:
        name: of the flag.
        kind: int or float.
        count: how many numbers there must be, if there are any.
        least: the smallest number.

    Raises:
        InputError: for other words than finite numbers of this kind, smaller ones, or another count of them.
    """
    words = [word for value in flags.FLAGS[name].value or () for word in value.split(",")]
    try:
        numbers = tuple(kind(word) for word in words)
    except ValueError:
        raise InputError(f"--{name}: expected {_KINDS[kind]}, received {','.join(words)}") from None
    if not all(math.isfinite(number) for number in numbers):
        raise InputError(f"--{name}: expected finite numbers, received {','.join(words)}")
    if least is not None and min(numbers, default=least) < least:
        raise InputError(f"--{name}: expected {_KINDS[kind]} of {least} or more, received {','.join(words)}")
    if count is not None and len(numbers) not in (0, count):
        raise InputError(f"--{name}: expected {count} numbers, received {','.join(words)}")
    return numbers
