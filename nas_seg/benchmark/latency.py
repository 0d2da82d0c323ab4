"""How fast a network is in each format that it is exported to, beside the machine's matrix product in the same run.

Each file is run by a process of its own (`network_process`), which tells the memory of this format alone. All files of
a network and the matrix product take turns, so that other work on the machine meets all alike; the processes that wait
for their turn sleep.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from rich.table import Table

from nas_seg import export_formats, sample_pictures
from nas_seg.benchmark.children import answering
from nas_seg.benchmark.network_process import PEERS
from nas_seg.benchmark.timing import GEMM, GEMM_FLOPS, Timing, time_in_turns
from nas_seg.utils.console import console
from nas_seg.utils.errors import InputError
from nas_seg.utils.flops import count_madds

# What quantised arithmetic costs does not depend on the ranges that a calibration finds.
_CALIBRATION = 2


@dataclasses.dataclass(frozen=True)
class LatencyRow:
    """One network in one format: the labels of one picture, uint8 in, int32 out.

    Attributes:
        name: of the network.
        format: a name in `export_formats.FORMATS`, or "peer".
        run_by: the run time and its version.
        size: (height, width) of the picture.
        gflop: floating-point operations of the convolutions at this size, in billions: twice the multiply-adds. A
            network pads other sizes than k * 32 + 1 inside, which is not counted.
        megabytes: of the file; None for a peer.
        seconds: of every timed picture.
        first: seconds of the very first one.
        gemm: of the matrix product in the same run.
        peak_mib: the most memory that the process has held, its libraries included, in MiB.
    """

    name: str
    format: str
    run_by: str
    size: tuple[int, int]
    gflop: float
    megabytes: float | None
    seconds: tuple[float, ...]
    first: float
    gemm: Timing
    peak_mib: float

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    @property
    def p95(self) -> float:
        """95% of the pictures took no longer."""
        return float(np.percentile(self.seconds, 95))

    @property
    def units(self) -> float:
        """The median over that of the matrix product."""
        return self.median / self.gemm.median

    @property
    def gflop_per_second(self) -> float:
        return self.gflop / self.median

    @property
    def share_of_gemm(self) -> float:
        """GFLOP/s over those of the matrix product."""
        return self.gflop_per_second * 1e9 / (GEMM_FLOPS / self.gemm.median)


def time_networks(
    networks: Mapping[str, Callable[[], keras.Model]],
    formats: Sequence[str],
    size: tuple[int, int],
    repetitions: int = 9,
    peer_python: str | os.PathLike | None = None,
    advance: Callable[[], Any] = lambda: None,
) -> list[LatencyRow]:
    """Exports networks, and times every file of each in turns.

    Args:
        networks: name -> how it is made; one is in memory at a time.
        formats: names in `export_formats.FORMATS`.
        size: (height, width) of the picture.
        repetitions: timed pictures of each file.
        peer_python: the Python of an environment with torch and torchvision, whose network is then timed, too.
        advance: called after each network.

    Raises:
        InputError: for a format that cannot be written, a peer that does not run.
    """
    export_formats.check(formats, size)
    rows = []
    for name, make in networks.items():
        keras.backend.clear_session()
        with tempfile.TemporaryDirectory() as folder:
            gflop, files = _export(make(), folder, formats, size)
            commands = {
                one: (sys.executable, one, str(pathlib.Path(folder, file["file"]))) for one, file in files.items()
            }
            about = {one: (name, gflop, file["bytes"] / 1e6) for one, file in files.items()}
            rows += _time(commands, about, size, repetitions)
        advance()
    if peer_python:
        commands = {peer: (str(peer_python), peer, "") for peer in PEERS}
        try:
            rows += _time(commands, {peer: (peer, None, None) for peer in PEERS}, size, repetitions)
        except (OSError, RuntimeError) as error:
            raise InputError(f"{peer_python}: expected a Python with torch and torchvision ({error})") from None
        advance()
    return rows


def _export(model: keras.Model, folder: str, formats: Sequence[str], size) -> tuple[float, dict[str, dict]]:
    """GFLOP of a network, and what export.json tells of each file."""
    calibration = sample_pictures.drawn(size, _CALIBRATION)
    report = export_formats.export(model, folder, formats, size=size, calibration=calibration)
    return 2e-9 * count_madds(model, *size), report["files"]


def _time(
    commands: Mapping[str, tuple[str, str, str]],
    about: Mapping[str, tuple[str, float | None, float | None]],
    size: tuple[int, int],
    repetitions: int,
) -> list[LatencyRow]:
    """Rows of the processes (Python, what, path), in turns with one another and the matrix product."""
    with contextlib.ExitStack() as stack:
        # One after the other: the first picture of each has the machine for itself.
        tellers = {one: stack.enter_context(answering(*command, size)) for one, command in commands.items()}
        told = {one: [teller()] for one, teller in tellers.items()}
        actions = {one: lambda one=one: told[one].append(tellers[one]()) for one in commands}
        gemm = time_in_turns(actions, repetitions)[GEMM]
    rows = []
    for one, answers in told.items():
        (name, gflop, megabytes), facts = about[one], answers[0]
        row = LatencyRow(
            name=name,
            format=one if one in export_formats.FORMATS else "peer",
            run_by=facts["run_by"],
            size=tuple(size),
            gflop=facts["gflop"] if gflop is None else gflop,
            megabytes=megabytes,
            # But for the first, and the one before the turns.
            seconds=tuple(answer["seconds"] for answer in answers[2:]),
            first=facts["seconds"],
            gemm=gemm,
            peak_mib=answers[-1]["peak_mib"],
        )
        rows.append(row)
    return rows


def show(rows: Iterable[LatencyRow]) -> None:
    """Prints rows as a table."""
    shown = Table(
        "network", "format", "MB", "ms", "p95", "first", "units", "GFLOP/s", "of GEMM", "peak MiB", "by",
        title="Labels of one picture; unit: the 2048^3 float32 product in between",
    )  # fmt: skip
    for row in rows:
        times = (f"{1000 * seconds:.1f}" for seconds in (row.median, row.p95, row.first))
        speed = (f"{row.units:.3f}", f"{row.gflop_per_second:.0f}", f"{row.share_of_gemm:.2f}", f"{row.peak_mib:.0f}")
        megabytes = "" if row.megabytes is None else f"{row.megabytes:.1f}"
        shown.add_row(row.name, row.format, megabytes, *times, *speed, row.run_by)
    console().print(shown)
