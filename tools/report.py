"""Writes report.html of a search: one file with its curve, leaderboard, Pareto plots, best cells and classes.

python tools/report.py --run_dir=runs/search --network_run=runs/found,runs/top1 --split=test

Of a gradient search (tools/search_auto_deeplab.py) it shows curves, alpha and beta, the path by epoch, the network, and
what tools/retrain_auto_deeplab.py came to. A trained network's scores come from tools/eval.py, its pictures from
tools/vis.py, the second stage of another search from tools/rerank.py.
"""

from __future__ import annotations

from absl import flags

from nas_seg.plot.report import write_report
from nas_seg.utils import app
from nas_seg.utils.errors import InputError

FLAGS = flags.FLAGS
flags.DEFINE_string("run_dir", None, "Run folder of the search.")
flags.DEFINE_string("output", None, "The file to write (default: RUN/report.html).")
flags.DEFINE_list("network_run", [], "Run folders of trained networks, whose classes and pictures are shown too.")
flags.DEFINE_string("rerank_dir", None, "Folder of the second stage (default: RUN/rerank, where there is one).")
flags.DEFINE_string("split", "test", "Split of the networks' scores and pictures.")
flags.DEFINE_list("compare", [], "Run folders of other searches to draw into the same charts.")
flags.DEFINE_string("storage", None, "Database URL of the study (default: sqlite:///RUN/study.db).")
flags.DEFINE_string("study_name", "search", "Name of the study in its storage.")
flags.DEFINE_integer("top_k", 20, "Rows of the leaderboard.", lower_bound=1)


def main() -> None:
    if not FLAGS.run_dir:
        raise InputError("--run_dir: expected the run folder of a search")
    path = write_report(
        FLAGS.run_dir,
        output=FLAGS.output,
        storage=FLAGS.storage,
        study_name=FLAGS.study_name,
        compare=FLAGS.compare,
        network_runs=FLAGS.network_run,
        rerank_dir=FLAGS.rerank_dir,
        split=FLAGS.split,
        top_k=FLAGS.top_k,
    )
    print(f"report: {path} ({path.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    app.run(main)
