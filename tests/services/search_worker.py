"""A worker of a search, as if on a machine of the given name: URL STUDY TRIALS SECONDS MACHINE LOG.

It takes the seconds for each word, and adds a line "begun WORD" or "ended WORD" to the log for each. A worker that is
silent for four seconds is taken for dead, and a server that is away for fifteen is given up.
"""

import os
import pathlib
import platform
import sys
import time

_TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(_TESTS.parent), str(_TESTS / "search")]

from table_problem import WordSpace, evaluate  # noqa: E402

from nas_seg.search import storage  # noqa: E402
from nas_seg.search.interrupts import sigterm_as_interrupt  # noqa: E402
from nas_seg.search.loop import run_search  # noqa: E402
from nas_seg.search.samplers import make_sampler  # noqa: E402
from nas_seg.search.study import open_study  # noqa: E402
from nas_seg.utils import app  # noqa: E402

URL, STUDY, TRIALS, SECONDS, MACHINE, LOG = sys.argv[1:]
del sys.argv[1:]
storage.HEARTBEAT_SECONDS, storage.GRACE_SECONDS, storage.SECONDS_TO_WAIT = 0.5, 4, 15
platform.node = lambda: MACHINE
# The lock of a machine's processes is a file, which two machines do not share.
_lock_path = storage._lock_path
storage._lock_path = lambda *place: _lock_path(*place).with_suffix(f".{MACHINE}")


def write(line):
    with open(LOG, "a") as file:
        file.write(line + "\n")


def slow(genotype, *, seed):
    write(f"begun {genotype.letters} {os.getpid()}")
    time.sleep(float(SECONDS))
    write(f"ended {genotype.letters} {os.getpid()}")
    return evaluate(genotype, seed=seed)


def main():
    with sigterm_as_interrupt():
        space = WordSpace()
        study = open_study(URL, STUDY, space, make_sampler("near_best", space, 0))
        print(run_search(study, space, slow, num_trials=int(TRIALS), seed=0))


app.run(main)
