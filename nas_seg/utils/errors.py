"""The one exception for what a user can put right, and the words of its messages; and the one for SIGTERM."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """A file, flag or field that is not what was expected; tools print it as one line and exit with 2.

    The message names the file, flag or field, says what was expected and what came.
    """


class Terminated(KeyboardInterrupt):
    """SIGTERM where it is heeded as Ctrl-C is; the exit code tells the two apart."""


def unknown(what: str, received: object, known: Iterable[str]) -> InputError:
    """An InputError for a name outside `known`, with the nearest known name where there is one."""
    names = sorted(str(name) for name in known)
    near = difflib.get_close_matches(str(received), names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return InputError(f"unknown {what} {received!r}: expected one of {', '.join(names)}.{hint}")
