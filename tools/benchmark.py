"""Times what the library does on this machine, each beside the machine's own matrix product in the same run.

python tools/benchmark.py --proxy --run_dir=runs/search

--proxy: the proxy task of a search. A step of ASPP and of the published cell in float32 and in mixed_bfloat16; a trial
from cached features, with the frozen backbone in each step, and end to end; a search by one and by two processes.
"""

from __future__ import annotations

import os
import pathlib

from absl import flags

from nas_seg.utils import app, config, runs
from nas_seg.utils.errors import InputError

FLAGS = flags.FLAGS
flags.DEFINE_boolean("proxy", False, "Time the proxy task of --run_dir.")
flags.DEFINE_string("run_dir", None, "Run folder of a search with tools/search_dpc.py: its proxy task and caches.")
flags.DEFINE_integer("repetitions", 9, "Timed steps of each kind, in turns.", lower_bound=1)
flags.DEFINE_integer("uncached_steps", 5, "Timed steps of the ways without a cache.", lower_bound=1)
flags.DEFINE_list("workers", ["1", "2"], "Numbers of processes to search with; empty: no such search.")
flags.DEFINE_integer("worker_trials", 4, "Trials of each process in these searches.", lower_bound=1)
flags.DEFINE_string("output", None, "Write the figures to this JSON file, too.")


def main() -> None:
    if not FLAGS.proxy:
        raise InputError("--proxy: expected something to time")
    if not FLAGS.run_dir:
        raise InputError("--run_dir: expected the run folder of a search")
    if not all(word.isdecimal() and int(word) > 0 for word in FLAGS.workers):
        raise InputError(f"--workers: expected whole numbers above 0, received {','.join(FLAGS.workers)!r}")
    runs.read_config(FLAGS.run_dir)  # Before the seconds that TensorFlow takes.
    app.import_tensorflow()
    from nas_seg.benchmark import proxy, tables
    from nas_seg.dpc_task import read_task

    result = proxy.measure(
        read_task(FLAGS.run_dir),
        FLAGS.run_dir,
        pathlib.Path(__file__).with_name("search_dpc.py"),
        FLAGS.repetitions,
        FLAGS.uncached_steps,
        [int(word) for word in FLAGS.workers],
        FLAGS.worker_trials,
    )
    tables.show_proxy(result)
    if FLAGS.output:
        facts = runs.circumstances() | {"run_dir": os.path.abspath(FLAGS.run_dir)}
        config.write_json(FLAGS.output, {"format_version": config.FORMAT_VERSION} | facts | tables.to_json(result))
        print(f"written: {FLAGS.output}")


if __name__ == "__main__":
    app.run(main)
