"""Ctrl-C and SIGTERM that come when they can be heeded.

An exception that a signal raises in the middle of a database call may be swallowed there, or leave half of it done.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from nas_seg.utils.errors import Terminated


class Interrupts:
    """What has come so far; made by `deferred_interrupts`."""

    def __init__(self):
        self._received: int | None = None
        self._open = False

    def check(self) -> None:
        """Raises KeyboardInterrupt if a signal has come; Terminated, which is one, for SIGTERM."""
        if self._received is not None:
            raise _interrupt(self._received)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Within this a signal raises KeyboardInterrupt as it comes."""
        self._open = True
        try:
            self.check()
            yield
        finally:
            self._open = False

    def handle(self, number: int, frame: Any) -> None:
        """The handler; whoever sends a second signal does not want to wait."""
        again, self._received = self._received is not None, number
        if self._open or again:
            raise _interrupt(number)


@contextlib.contextmanager
def deferred_interrupts() -> Iterator[Interrupts]:
    """Within this, Ctrl-C and SIGTERM wait for `check` or `at_once`. Only a main thread can handle signals."""
    interrupts = Interrupts()
    with _handled(interrupts.handle, signal.SIGINT, signal.SIGTERM):
        yield interrupts


@contextlib.contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Within this, SIGTERM raises Terminated, which is heeded wherever Ctrl-C is."""

    def interrupt(number: int, frame: Any) -> None:
        raise _interrupt(number)

    with _handled(interrupt, signal.SIGTERM):
        yield


def _interrupt(number: int) -> KeyboardInterrupt:
    return Terminated() if number == signal.SIGTERM else KeyboardInterrupt()


@contextlib.contextmanager
def _handled(handler: Any, *numbers: int) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
