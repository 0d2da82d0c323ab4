"""The machine that a number comes from, in words."""

from __future__ import annotations

import os
import pathlib
import platform
import re


def describe_machine(proc: str | os.PathLike = "/proc") -> str:
    """Processor, cores, memory and system, for example "AMD EPYC 9B14, 2 cores, 7.8 GiB, Linux 6.1.0".

    Args:
        proc: where the kernel tells of itself; what cannot be read there is left out or asked of Python.
    """
    model = _field(pathlib.Path(proc, "cpuinfo"), r"model name\s*:\s*(.+)") or platform.machine()
    memory = _field(pathlib.Path(proc, "meminfo"), r"MemTotal:\s*(\d+) kB")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parts = [" ".join(model.split()), f"{cores} core{'s' if cores != 1 else ''}"]
    parts += [f"{int(memory) / 2**20:.1f} GiB"] if memory else []
    return ", ".join([*parts, f"{platform.system()} {platform.release()}"])


def _field(path: pathlib.Path, pattern: str) -> str | None:
    try:
        found = re.search(pattern, path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return found.group(1) if found else None
