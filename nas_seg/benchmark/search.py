"""How fast the search itself is: trials an hour by several workers, what the study adds to a trial, a resumption.

Genotypes are those of the DPC space, and scoring one takes a fixed time: what is measured is all that is not a trial.
"""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.study import Study
from optuna.trial import TrialState, create_trial
from rich.table import Table

from nas_seg.common import REWARD
from nas_seg.dpc.genotype import DPCGenotype
from nas_seg.dpc.space import DPCSpace
from nas_seg.search import study as studies
from nas_seg.search.liveness import WORKER, this_worker
from nas_seg.search.loop import run_search
from nas_seg.search.samplers import distributions, make_sampler
from nas_seg.utils import config
from nas_seg.utils.console import console
from nas_seg.utils.progress import progress

# Goals: the study's share of a trial of a minute, and a study of a thousand trials gone on with.
OVERHEAD_GOAL, RESUME_GOAL_SECONDS = 0.02, 5.0
_WORKER = "import sys; from nas_seg.benchmark.search import work; work(*sys.argv[1:])"
_FIRST, _SPENT = "first", "spent"


@dataclasses.dataclass(frozen=True)
class SearchRow:
    """A search by some processes on one study.

    Attributes:
        workers: processes.
        trials: that they scored.
        seconds: from the start of the first trial to the end of the last.
        per_hour: trials of all processes together.
        of_ideal: per_hour over that of as many processes that do nothing but score.
    """

    workers: int
    trials: int
    seconds: float
    per_hour: float
    of_ideal: float


@dataclasses.dataclass(frozen=True)
class OverheadRow:
    """What the study adds to a trial.

    Attributes:
        study_trials: in the study before.
        resume_seconds: from the start of a process to its first trial.
        seconds, cpu_seconds: a trial that takes no time of its own; in the process, without the database server.
        share: of a trial of `trial_seconds`.
    """

    study_trials: int
    resume_seconds: float
    seconds: float
    cpu_seconds: float
    share: float


def measure(
    storage: str | None = None,
    workers: Sequence[int] = (1, 2),
    worker_trials: int = 20,
    sleep_seconds: float = 0.2,
    study_trials: Sequence[int] = (0, 1000),
    trial_seconds: float = 60.0,
) -> dict[str, Any]:
    """All figures: {"workers": [SearchRow], "overhead": [OverheadRow]}.

    Args:
        storage: database URL; its studies are removed at the end. None: a file that is thrown away.
        workers: numbers of processes to search with.
        worker_trials: trials for each process.
        sleep_seconds: that scoring takes in these searches.
        study_trials: sizes of studies to go on with.
        trial_seconds: of a real trial, that the overhead is a share of.

    Raises:
        InputError: when the storage cannot be opened.
    """
    with progress("benchmark", len(workers) + len(study_trials)) as bar, tempfile.TemporaryDirectory() as folder:
        url = storage or studies.default_storage(folder)
        rows: list[SearchRow] = []
        for count in workers:
            rows.append(time_workers(url, count, worker_trials, sleep_seconds))
            bar.advance()
        overhead = []
        for size in study_trials:
            overhead.append(time_overhead(url, size, worker_trials, trial_seconds))
            bar.advance()
    return {"workers": rows, "overhead": overhead}


def time_workers(url: str, workers: int, worker_trials: int, sleep_seconds: float) -> SearchRow:
    """A search by some processes, of `worker_trials` for each, in a study of its own."""
    with _study(url) as study:
        trials = workers * worker_trials
        processes = [_start(url, study.study_name, trials, sleep_seconds) for _ in range(workers)]
        for process in processes:
            _end(process)
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    begun, ended = min(t.datetime_start for t in complete), max(t.datetime_complete for t in complete)
    seconds = (ended - begun).total_seconds()
    per_hour = 3600.0 * len(complete) / seconds
    return SearchRow(workers, len(complete), seconds, per_hour, per_hour * sleep_seconds / (3600.0 * workers))


def time_overhead(url: str, study_trials: int, trials: int, trial_seconds: float) -> OverheadRow:
    """Goes on with a study of so many trials, in a process of its own, with trials that take no time."""
    with _study(url) as study:
        _fill(study, study_trials)
        start = time.perf_counter()
        process = _start(url, study.study_name, study_trials + trials, 0.0)
        process.stdout.readline()
        resumed = time.perf_counter() - start
        seconds, cpu_seconds = (spent / trials for spent in _end(process))
    return OverheadRow(study_trials, resumed, seconds, cpu_seconds, seconds / (seconds + trial_seconds))


def work(url: str, study_name: str, num_trials: str, sleep_seconds: str) -> None:
    """A worker process: says when its first trial begins, and at the end what wall and processor time it has spent."""
    lines, begun = sys.stdout, []

    def score(genotype: DPCGenotype, *, seed: int) -> dict[str, float]:
        if not begun:
            begun.extend((time.perf_counter(), time.process_time()))
            print(_FIRST, file=lines, flush=True)
        time.sleep(float(sleep_seconds))
        return {REWARD: _reward(genotype)}

    # Progress must not stand among the lines that the parent reads.
    with contextlib.redirect_stdout(sys.stderr):
        run_search(_open(url, study_name), DPCSpace(), score, num_trials=int(num_trials), seed=0)
    if begun:
        print(_SPENT, time.perf_counter() - begun[0], time.process_time() - begun[1], file=lines, flush=True)


def _reward(genotype: DPCGenotype) -> float:
    """Any number that is a genotype's own."""
    return int(config.digest(genotype), 16) / 16**12


def _open(url: str, study_name: str) -> Study:
    return studies.open_study(url, study_name, DPCSpace(), make_sampler("random", DPCSpace(), 0))


@contextlib.contextmanager
def _study(url: str) -> Iterator[Study]:
    """A new study, which is gone afterwards."""
    study = _open(url, f"benchmark-{uuid.uuid4().hex}")
    try:
        yield study
    finally:
        optuna.delete_study(study_name=study.study_name, storage=study._storage)


def _fill(study: Study, count: int) -> None:
    """Adds scored trials, as a search leaves them."""
    space, rng = DPCSpace(), np.random.default_rng(1)
    for _ in range(count):
        genotype = space.sample(rng)
        reward = _reward(genotype)
        attributes = {WORKER: this_worker(), studies.METRICS: {REWARD: reward}, studies.SECONDS: 60.0}
        params = space.to_params(genotype)
        study.add_trial(
            create_trial(value=reward, params=params, distributions=distributions(space), user_attrs=attributes)
        )


def _start(url: str, study_name: str, trials: int, sleep_seconds: float) -> subprocess.Popen:
    command = [sys.executable, "-c", _WORKER, url, study_name, str(trials), str(sleep_seconds)]
    # Not a pipe for what nobody reads while the worker runs: it would fill.
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _end(process: subprocess.Popen) -> tuple[float, float] | None:
    """(wall, processor) seconds of a worker from its first trial on; None where others were quicker."""
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"a worker of the benchmark ended with exit code {process.returncode}")
    spent = [line.split()[1:] for line in output.splitlines() if line.startswith(_SPENT)]
    return (float(spent[0][0]), float(spent[0][1])) if spent else None


def show(result: Mapping[str, Any], trial_seconds: float) -> None:
    """Prints what `measure` returns."""
    out = console()
    table = Table("processes", "trials", "s", "trials/h", "of ideal", title="Search")
    for row in result["workers"]:
        table.add_row(
            str(row.workers), str(row.trials), f"{row.seconds:.1f}", f"{row.per_hour:.0f}", f"{row.of_ideal:.2f}"
        )
    out.print(table)
    title = f"Study, beside trials of {trial_seconds:g} s (goals: {OVERHEAD_GOAL:.0%}, {RESUME_GOAL_SECONDS:g} s)"
    table = Table("trials in it", "resumed in, s", "s/trial", "of it CPU", "share", title=title)
    for row in result["overhead"]:
        numbers = (f"{row.resume_seconds:.2f}", f"{row.seconds:.3f}", f"{row.cpu_seconds:.3f}", f"{row.share:.2%}")
        table.add_row(str(row.study_trials), *numbers)
    out.print(table)
