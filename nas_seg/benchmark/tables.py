"""The figures of a benchmark as a person reads them, and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from nas_seg.benchmark.model import ModelRow
from nas_seg.benchmark.supernet import SupernetRow
from nas_seg.benchmark.timing import GEMM_FLOPS
from nas_seg.utils.console import console


def show_proxy(result: Mapping[str, Any]) -> None:
    """Prints what `nas_seg.benchmark.proxy.measure` returns."""
    out = console()
    gemm = result["steps"]["gemm"]
    out.print(
        f"unit: 2048 x 2048 x 2048 float32 product, {gemm.median:.3f} s, {GEMM_FLOPS / gemm.median / 1e9:.0f} GFLOP/s"
    )
    steps = Table("cell", "numbers", "s/step", "range", "units", "GFLOP", "GFLOP/s", "of GEMM", title="Training step")
    for row in result["steps"]["rows"]:
        timing = row.timing
        span = f"{timing.fastest:.3f} to {timing.slowest:.3f}"
        speed = (f"{timing.median / gemm.median:.2f}", f"{row.gflop:.1f}", f"{row.gflop / timing.median:.0f}")
        steps.add_row(row.cell, row.dtype_policy, f"{timing.median:.3f}", span, *speed, f"{row.share_of_gemm:.2f}")
    out.print(steps)
    cached = result["trials"][0]
    trials = Table("features", "s/step", "trace", "val", "s/trial", "trials/h", "cached is", "tracing", title="Trial")
    for row in result["trials"]:
        numbers = (row.step_seconds, row.trace_seconds, row.val_seconds, row.seconds, row.per_hour)
        ratio, share = f"{row.seconds / cached.seconds:.1f} x", f"{100 * row.trace_share:.1f}%"
        trials.add_row(row.name, *(f"{number:.3g}" for number in numbers), ratio, share)
    out.print(trials)
    if result["workers"]:
        workers = Table("processes", "trials", "s", "trials/h", "s with start", title="Search")
        for row in result["workers"]:
            numbers = (row.trial_seconds, row.per_hour, row.wall_seconds)
            workers.add_row(str(row.workers), str(row.trials), *(f"{number:.4g}" for number in numbers))
        out.print(workers)


def show_models(rows: Sequence[ModelRow]) -> None:
    """Prints what `nas_seg.benchmark.model.time_models` returns."""
    title = "Labels of pictures, arg-max included, or a training step; unit: the 2048^3 float32 product beside it"
    shown = Table(
        "preset", "what", "batch", "s", "range", "unit, s", "units", "GFLOP/s", "of GEMM", "peak GiB", title=title
    )
    for row in rows:
        timing = row.timing
        span, what = f"{timing.fastest:.3f} to {timing.slowest:.3f}", "step" if row.training else "labels"
        batch = f"{row.batch_size}x{row.size[0]}x{row.size[1]}"
        speed = (f"{row.units:.2f}", f"{row.gflop / timing.median:.0f}", f"{row.share_of_gemm:.2f}")
        unit = f"{row.gemm.median:.3f}"
        shown.add_row(row.name, what, batch, f"{timing.median:.3f}", span, unit, *speed, f"{row.peak_gib:.1f}")
    console().print(shown)


def show_supernet(row: SupernetRow) -> None:
    """Prints what `nas_seg.benchmark.supernet.time_supernet` returns."""
    height, width = row.crop_size
    title = (
        f"Supernet: {row.num_layers} layers, {row.filters} filters, {row.num_blocks} blocks, "
        f"{row.million_weights:.1f} M weights; batch {row.batch_size} of {height}x{width}; unit: {row.gemm_s:.3f} s"
    )
    shown = Table("step", "s", "range", "units", "first, s", "peak GiB", title=title)
    for name, timing, units, first, peak in (
        ("weights", row.weight_step, row.weight_step_units, row.trace_s, row.peak_gib),
        ("alpha and beta", row.arch_step, row.arch_step_units, row.arch_trace_s, row.peak_gib_all),
    ):
        span = f"{timing.fastest:.3f} to {timing.slowest:.3f}"
        shown.add_row(name, f"{timing.median:.3f}", span, f"{units:.1f}", f"{first:.1f}", f"{peak:.2f}")
    console().print(shown)


def to_json(value: Any) -> Any:
    """Rows as objects with their derived figures."""
    if dataclasses.is_dataclass(value):
        derived = {name: getattr(value, name) for name, item in vars(type(value)).items() if isinstance(item, property)}
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)} | derived
    if isinstance(value, Mapping):
        return {name: to_json(item) for name, item in value.items()}
    return [to_json(item) for item in value] if isinstance(value, (list, tuple)) else value
