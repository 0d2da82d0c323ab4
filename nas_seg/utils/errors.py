"""The one exception for what a user can put right, and the words of its messages; and the one for SIGTERM."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping


class InputError(ValueError):
    """A file, flag or field that is not what was expected; tools print it as one line and exit with 2.

    The message names the file, flag or field, says what was expected and what came.
    """


class Terminated(KeyboardInterrupt):
    """SIGTERM where it is heeded as Ctrl-C is; the exit code tells the two apart."""


def renamed(error: InputError, names: Mapping[str, str]) -> InputError:
    """The same error of a field under another name, where its message begins with one of `names`."""
    message = str(error)
    match = re.match(r"\w+(?=: )", message)
    name = names.get(match[0]) if match else None
    return InputError(name + message[match.end() :]) if name else error


def unknown(what: str, received: object, known: Iterable[str]) -> InputError:
    """An InputError for a name outside `known`, with the nearest known name where there is one."""
    names = sorted(str(name) for name in known)
    near = difflib.get_close_matches(str(received), names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return InputError(f"unknown {what} {received!r}: expected one of {', '.join(names)}.{hint}")
