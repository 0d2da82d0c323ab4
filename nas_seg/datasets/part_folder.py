"""A folder that comes into being as a whole: files are gathered beside it, also over several attempts."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

from nas_seg.utils import config
from nas_seg.utils.errors import InputError

PLAN = ".plan.json"


@contextlib.contextmanager
def writing(folder: pathlib.Path, plan: Any, check: Callable[[pathlib.Path], None]) -> Iterator[pathlib.Path]:
    """Yields `.NAME.part` beside `folder`, which takes its place at the end.

    A killed process leaves the part folder, and the next with an equal plan finds what it wrote; one with another plan
    finds it empty. After an InputError nothing is left of it.

    Args:
        folder: what is written.
        plan: JSON; all that the files depend on.
        check: raises an InputError if `folder` is there and may not be replaced.

    Raises:
        InputError: when `folder` cannot be written, or another process is writing it.
    """
    folder = folder.absolute()
    part, old = folder.with_name(f".{folder.name}.part"), folder.with_name(f".{folder.name}.old")
    with _unwritable(folder):
        if old.exists() and not folder.exists():
            # Killed between the two renames below.
            old.rename(folder)
        check(folder)
        part.mkdir(parents=True, exist_ok=True)
        handle = os.open(part, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"{folder}: another process is writing it") from None
        with _unwritable(folder):
            _begin(part, plan)
            try:
                yield part
            except (InputError, OSError):
                shutil.rmtree(part, ignore_errors=True)
                raise
            check(folder)
            if folder.exists():
                folder.rename(old)
            part.rename(folder)
            (folder / PLAN).unlink()
        shutil.rmtree(old, ignore_errors=True)
    finally:
        os.close(handle)


def _begin(part: pathlib.Path, plan: Any) -> None:
    """Empties the part folder unless it was begun with the same plan."""
    plan = {"format_version": config.FORMAT_VERSION, "plan": plan}
    path = part / PLAN
    if path.exists():
        # What cannot be read is another plan.
        with contextlib.suppress(InputError):
            if config.read_json(path) == plan:
                return
    for left in part.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    config.write_json(path, plan)


@contextlib.contextmanager
def _unwritable(folder: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror or error})") from None
