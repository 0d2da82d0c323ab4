"""Processes that run one network each and answer whenever they are asked; see `network_process`."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import nas_seg

_PACKAGE_FOLDER = pathlib.Path(nas_seg.__file__).parent.parent


@contextlib.contextmanager
def answering(python: str, what: str, path: str, size: tuple[int, int]) -> Iterator[Callable[[], dict[str, Any]]]:
    """A function that returns what a process says of its next run; RuntimeError with its last words if it ends."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(_PACKAGE_FOLDER), os.environ.get("PYTHONPATH", "")])}
    command = [python, "-m", "nas_seg.benchmark.network_process", what, path, *map(str, size)]
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        )
        asked = False

        def next_answer():
            nonlocal asked
            # The first run is unasked.
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write("\n" if asked else "")
                child.stdin.flush()
            asked = True
            line = child.stdout.readline()
            if not line:
                errors.seek(0)
                words = errors.read().strip().splitlines() or ["it ended"]
                raise RuntimeError(f"{what}: {words[-1]}")
            return json.loads(line)

        try:
            yield next_answer
        finally:
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()
            child.wait()
            child.stdout.close()
