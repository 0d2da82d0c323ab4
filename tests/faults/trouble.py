"""What goes wrong for the tests of this folder: kills at drawn moments, full disks, damaged files; and how often.

NAS_SEG_FAULTS=full takes the full counts, NAS_SEG_FAULT_SEED=N other moments and other damage; both are printed with
every failure by pytest, for each test prints what it draws.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import resource
import subprocess
import time
from collections.abc import Callable, Iterator

FAULTS = pathlib.Path(__file__).resolve().parent
FULL = os.environ.get("NAS_SEG_FAULTS") == "full"
SEED = int(os.environ.get("NAS_SEG_FAULT_SEED", "0"))
# What: (in every run of the tests, in full).
_COUNTS = {"search kills": (5, 50), "training kills": (3, 20), "flips": (10, 200), "fuzz": (400, 10_000)}


def count(what: str) -> int:
    """How often a fault is tried."""
    return _COUNTS[what][FULL]


def drawn(name: str) -> random.Random:
    """The random numbers of one test."""
    return random.Random(f"{SEED} {name}")


def wait_until(true: Callable[[], bool], process: subprocess.Popen, seconds: float = 240) -> None:
    """Waits for something that a process does; it must not end before."""
    deadline = time.monotonic() + seconds
    while not true():
        if process.poll() is not None:
            raise AssertionError(f"it ended with {process.returncode}: {process.stderr.read()[-2000:]}")
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.02)


def exit_code(process: subprocess.Popen, seconds: float = 240) -> int:
    """As a shell tells it: 128 more than the signal where a signal ended the process."""
    code = process.wait(seconds)
    return code if code >= 0 else 128 - code


def flip(path: pathlib.Path, rng: random.Random) -> str:
    """Flips one bit of a file; says which."""
    data = bytearray(path.read_bytes())
    place, bit = rng.randrange(len(data)), rng.randrange(8)
    data[place] ^= 1 << bit
    path.write_bytes(data)
    return f"bit {bit} of byte {place} of {len(data)} in {path.name}"


def truncate(path: pathlib.Path, rng: random.Random) -> str:
    """Cuts a file off anywhere before its end; says where."""
    size = path.stat().st_size
    left = rng.randrange(size)
    os.truncate(path, left)
    return f"{path.name} cut to {left} of {size} bytes"


class Disk:
    """A folder whose disk can be filled: a small tmpfs, or files limited in size where mounting is refused."""

    def __init__(self, folder: pathlib.Path, mebibytes: int = 16):
        self.folder, self.bytes = folder, mebibytes << 20
        folder.mkdir()
        options = ["mount", "-t", "tmpfs", "-o", f"size={self.bytes}", "tmpfs", str(folder)]
        try:
            self.mounted = subprocess.run(options, capture_output=True).returncode == 0
        except FileNotFoundError:
            self.mounted = False
        self._ballast = folder.parent / "ballast" if not self.mounted else folder / ".ballast"

    @contextlib.contextmanager
    def full(self, room: int = 0) -> Iterator[None]:
        """Within this only so many bytes can be written: in all on a tmpfs, else in each file of this process."""
        if not self.mounted:
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
            try:
                yield
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            return
        left = os.statvfs(self.folder)
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, left.f_bavail * left.f_frsize - room)
        try:
            yield
        finally:
            self._ballast.unlink()

    def close(self) -> None:
        """Gives the folder's contents up."""
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True, capture_output=True)
