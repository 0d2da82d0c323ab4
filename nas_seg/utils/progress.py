"""Progress with time left: a bar on a terminal, a line now and then in a log file, nothing in a pipe.

The environment variable `VARIABLE` says otherwise, for this process and those that it starts: a name of `STYLES`.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from collections.abc import Iterator

from rich import progress as rich_progress

from nas_seg.utils.errors import InputError, unknown

VARIABLE = "NAS_SEG_PROGRESS"
BAR, LINES, QUIET = STYLES = ("bar", "lines", "quiet")
_SECONDS_BETWEEN_LINES = 10.0


class _Lines:
    """Prints `label 30/100 · loss 0.71 · 12 s, 28 s left` at most every ten seconds, and once at the end."""

    def __init__(self, label: str, total: int, done: int):
        self._label, self._total, self._done, self._first = label, total, done, done
        self._start = time.monotonic()
        self._last = self._start

    def advance(self, count: int = 1, **numbers: float) -> None:
        self._done += count
        now = time.monotonic()
        if self._done < self._total and now - self._last < _SECONDS_BETWEEN_LINES:
            return
        self._last = now
        spent = now - self._start
        left = spent / max(self._done - self._first, 1) * (self._total - self._done)
        shown = "".join(f" · {name} {_short(value)}" for name, value in numbers.items())
        print(f"{self._label} {self._done}/{self._total}{shown} · {spent:.0f} s, {left:.0f} s left", flush=True)


class _Bar:
    def __init__(self, label: str, total: int, done: int, bar: rich_progress.Progress):
        self._bar, self._label = bar, label
        self._task = bar.add_task(label, total=total, completed=done)

    def advance(self, count: int = 1, **numbers: float) -> None:
        shown = "".join(f" · {name} {_short(value)}" for name, value in numbers.items())
        self._bar.update(self._task, advance=count, description=self._label + shown)


class _Nothing:
    def advance(self, count: int = 1, **numbers: float) -> None:
        pass


def _short(value: float) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def style() -> str:
    """How progress is shown: a name of `STYLES`.

    Raises:
        InputError: where the environment variable names no style.
    """
    asked = os.environ.get(VARIABLE)
    if asked:
        if asked not in STYLES:
            raise InputError(f"{VARIABLE}: {unknown('style', asked, STYLES)}")
        return asked
    if sys.stdout.isatty():
        return BAR
    try:
        # Whoever reads a pipe wants the results alone.
        return QUIET if stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode) else LINES
    except (OSError, ValueError):
        # No file behind it: standard output was replaced, or is closed.
        return LINES


@contextlib.contextmanager
def progress(label: str, total: int, done: int = 0) -> Iterator[_Lines | _Bar | _Nothing]:
    """Yields an object with `advance(count=1, **numbers)`; `numbers` are shown beside the bar.

    Args:
        label: what is being done.
        total: how many steps there are in all.
        done: how many were done before (after a resume).
    """
    shown = style()
    if shown != BAR:
        yield _Lines(label, total, done) if shown == LINES else _Nothing()
        return
    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeElapsedColumn(),
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns) as bar:
        yield _Bar(label, total, done, bar)
