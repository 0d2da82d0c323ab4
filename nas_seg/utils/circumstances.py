"""How a run was started: for its config.json, not part of what the run is."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import sys

_PACKAGES = ("nas_seg", "tensorflow", "tensorflow-cpu", "keras", "numpy", "optuna")


def circumstances() -> dict:
    """{"versions": package -> version, "command": the command line}."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"versions": versions, "command": shlex.join(sys.argv)}
