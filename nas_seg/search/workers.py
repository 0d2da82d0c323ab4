"""Local worker processes: the same command started several times on one study, watched by one parent.

A worker is told by two environment variables which one it is, and how many there are. It ends when its
parent does, even if that is killed: its standard input is a pipe that closes then.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from typing import BinaryIO

from nas_seg.search.interrupts import deferred_interrupts
from nas_seg.utils.errors import InputError

_INDEX, _COUNT = "NAS_SEG_WORKER", "NAS_SEG_WORKERS"
_SECONDS_TO_END = 60.0
_MOST_OUTPUT = 8000  # bytes of a crashed worker's output that are shown


class WorkerFailed(RuntimeError):
    """A worker ended by a bug or a signal; the text has the last of its output, with the traceback."""


def worker_index() -> int | None:
    """The number of this worker, from 0; None in a process that is none."""
    return int(os.environ[_INDEX]) if _INDEX in os.environ else None


def thread_share() -> int:
    """How many threads a process is to use: the cores of the machine over the workers, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get(_COUNT, "1")))


def end_with_parent() -> None:
    """Makes this worker stop as by SIGTERM when its parent is gone."""

    def wait() -> None:
        # Not sys.stdin, whose lock a thread that waits would hold when the interpreter ends.
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def run_workers(command: Sequence[str], num_workers: int, on_poll: Callable[[], None], poll_seconds: float = 0.5):
    """Starts workers and waits until all of them have ended well.

    When one fails, or this process is interrupted, all of them are stopped by SIGTERM, and killed if they do not
    heed it within a minute; none is left when this returns. Ctrl-C and SIGTERM are heeded between polls.

    Args:
        command: of every worker.
        num_workers: how many.
        on_poll: called again and again while they work, to show progress.
        poll_seconds: between two calls.

    Raises:
        InputError: when a worker ended with such an error.
        WorkerFailed: when one ended in any other way than well.
        KeyboardInterrupt: on Ctrl-C and SIGTERM.
    """
    with contextlib.ExitStack() as stack:
        logs = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(num_workers)]
        processes: list[subprocess.Popen] = []
        stack.callback(_stop, processes)
        interrupts = stack.enter_context(deferred_interrupts())
        for index, log in enumerate(logs):
            processes.append(_start(command, index, num_workers, log))
        while True:
            codes = [process.poll() for process in processes]
            for index, code in enumerate(codes):
                if code:
                    raise _failure(index, code, logs[index])
            on_poll()
            interrupts.check()
            if all(code == 0 for code in codes):
                return
            time.sleep(poll_seconds)


def _start(command: Sequence[str], index: int, num_workers: int, log: BinaryIO) -> subprocess.Popen:
    # Workers that share an accelerator must not take all of its memory each.
    ours = {_INDEX: str(index), _COUNT: str(num_workers), "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    return subprocess.Popen(
        command,
        env=os.environ | ours,
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C reaches the parent alone, which stops them in order.
    )


def _stop(processes: Sequence[subprocess.Popen]) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + _SECONDS_TO_END
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        with contextlib.suppress(OSError):
            process.stdin.close()


def _failure(index: int, code: int, log: BinaryIO) -> Exception:
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - _MOST_OUTPUT))
    output = log.read().decode(errors="replace").strip()
    last = output.splitlines()[-1] if output else ""
    if code == 2 and last.startswith("error: "):
        return InputError(last.removeprefix("error: "))
    ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return WorkerFailed(f"worker {index} {ended}; its output:\n{output}")
