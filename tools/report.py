"""Writes report.html of a search or a training: one file to judge it by, for any browser.

python tools/report.py --run_dir=runs/search --network_run=runs/found,runs/top1 --split=test
python tools/report.py --run_dir=runs/found --num_images=12

Of a search it shows curve, leaderboard, Pareto plots, best cells and classes; of a gradient search
(tools/search_auto_deeplab.py) curves, alpha and beta, the path by epoch, the network, and what
tools/retrain_auto_deeplab.py came to. Beside either a trained network's scores come from tools/eval.py, its pictures
from tools/vis.py, the second stage of another search from tools/rerank.py.

Of a training it shows loss, learning rate and mIoU by step, and runs the network on its validation split: which
classes it takes for which, IoU of each class, the worst pictures first.
"""

from __future__ import annotations

import pathlib

from absl import flags

from nas_seg.plot import training_result
from nas_seg.plot.report import write_report
from nas_seg.utils import app
from nas_seg.utils.errors import InputError

FLAGS = flags.FLAGS
flags.DEFINE_string("run_dir", None, "Run folder of a search or a training.")
flags.DEFINE_string("output", None, "The file to write (default: RUN/report.html).")
flags.DEFINE_list("network_run", [], "Beside a search: run folders of trained networks, for classes and pictures.")
flags.DEFINE_string("rerank_dir", None, "Folder of the second stage (default: RUN/rerank, where there is one).")
flags.DEFINE_string(
    "split", None, "Split of scores and pictures (default: test beside a search, a training's own validation split)."
)
flags.DEFINE_list("compare", [], "Run folders of other searches to draw into the same charts.")
flags.DEFINE_string("storage", None, "Database URL of the study (default: sqlite:///RUN/study.db).")
flags.DEFINE_string("study_name", "search", "Name of the study in its storage.")
flags.DEFINE_integer("top_k", 20, "Rows of the leaderboard.", lower_bound=1)
flags.DEFINE_string("dataset_dir", None, "Records for a training's pictures (default: those that it was trained on).")
flags.DEFINE_integer(
    "num_images", 12, "How many of a training's worst pictures are shown; 0: its network is not run.", lower_bound=0
)

# Options of the page, by the names of their flags.
_OPTIONS = {
    "storage": "storage",
    "study_name": "study_name",
    "compare": "compare",
    "network_run": "network_runs",
    "rerank_dir": "rerank_dir",
    "split": "split",
    "top_k": "top_k",
    "dataset_dir": "dataset_dir",
    "num_images": "num_images",
}


def main() -> None:
    if not FLAGS.run_dir:
        raise InputError("--run_dir: expected the run folder of a search or a training")
    options = {option: FLAGS[flag].value for flag, option in _OPTIONS.items()}
    if pathlib.Path(FLAGS.run_dir).is_dir() and training_result.is_training(FLAGS.run_dir) and FLAGS.num_images:
        app.import_tensorflow()
    path = write_report(FLAGS.run_dir, output=FLAGS.output, **options)
    print(f"report: {path} ({path.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    app.run(main)
