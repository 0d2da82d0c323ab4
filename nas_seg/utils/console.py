"""Where tables are printed."""

from __future__ import annotations

import sys

from rich.console import Console

_WIDTH = 200


def console() -> Console:
    """The terminal; a log or a pipe has no width, and rows are not to be broken there before 200 columns."""
    return Console() if sys.stdout.isatty() else Console(width=_WIDTH)
