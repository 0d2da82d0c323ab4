"""Trains cells in the proxy task of a search under several seeds, and compares them on any splits, paired by seed.

python tools/compare_cells.py --run_dir=runs/search --cells=runs/search/genotype.json,top1,aspp --splits=val,test

The same command goes on where it stopped; more cells or seeds may be added.
"""

from __future__ import annotations

import os

from absl import flags

from nas_seg import dpc_compare
from nas_seg.dpc.baselines import BASELINES
from nas_seg.utils import app, runs
from nas_seg.utils.errors import InputError, renamed

FLAGS = flags.FLAGS
flags.DEFINE_string("run_dir", None, "Run folder of a search with tools/search_dpc.py: its proxy task and caches.")
flags.DEFINE_list("cells", [], f"Genotype files, and any of {', '.join(BASELINES)}.")
flags.DEFINE_integer("top_k", 0, "Also so many of the best cells of the search, by their digests.", lower_bound=0)
flags.DEFINE_string("reference", "aspp", "The cell that the others are measured against.")
flags.DEFINE_integer("num_seeds", 5, "Each cell is trained with so many seeds.", lower_bound=1)
flags.DEFINE_integer(
    "first_seed", 0, "The first of them. A search has chosen by its own seed, which flatters the cell.", lower_bound=0
)
flags.DEFINE_list("splits", ["val"], "Splits to score on.")
flags.DEFINE_string("output_dir", None, "Folder of the comparison (default: RUN/compare).")
flags.DEFINE_integer("proxy_steps", None, "Optimisation steps (default: the search's).", lower_bound=1)
flags.DEFINE_float("proxy_learning_rate", None, "Learning rate at the start (default: the search's).")
flags.DEFINE_integer("filters", None, "Channels of every branch (default: the search's).", lower_bound=1)
flags.DEFINE_string("proxy_dtype_policy", None, "float32 or mixed_bfloat16 (default: the search's).")

_OVERRIDES = {
    "steps": "proxy_steps",
    "base_learning_rate": "proxy_learning_rate",
    "filters": "filters",
    "dtype_policy": "proxy_dtype_policy",
}


def main() -> None:
    if not FLAGS.run_dir:
        raise InputError("--run_dir: expected the run folder of a search")
    runs.read_config(FLAGS.run_dir)
    comparison = dpc_compare.Comparison(
        run_dir=FLAGS.run_dir,
        output_dir=FLAGS.output_dir or os.path.join(FLAGS.run_dir, "compare"),
        cells=dpc_compare.read_cells(FLAGS.cells) | dpc_compare.best_cells(FLAGS.run_dir, FLAGS.top_k),
        reference=FLAGS.reference,
        num_seeds=FLAGS.num_seeds,
        splits=tuple(FLAGS.splits),
        first_seed=FLAGS.first_seed,
        overrides={field: FLAGS[flag].value for field, flag in _OVERRIDES.items()},
    )
    app.import_tensorflow()
    try:
        dpc_compare.show(dpc_compare.compare(comparison))
    except InputError as error:
        raise renamed(error, {field: f"--{flag}" for field, flag in _OVERRIDES.items()}) from None


if __name__ == "__main__":
    app.run(main)
