"""Searches dense prediction cells on a dataset: proxy trials on cached features of a frozen backbone.

Writes RUN/config.json, RUN/cache/, RUN/study.db and, after every trial, the best cell so far as RUN/genotype.json.
The same command goes on where it stopped. Given again while it runs, it joins in as one more worker. The sampler, its
options and --early_stop may change from run to run, for they change no score; RUN/config.json has the latest.
"""

from __future__ import annotations

import dataclasses
import sys

from absl import flags

from nas_seg import dpc_search
from nas_seg.search import early_stop, samplers
from nas_seg.utils import app
from nas_seg.utils.errors import InputError

FLAGS = flags.FLAGS
flags.DEFINE_string("run_dir", None, "Folder of the search; made where it is missing, gone on with where it is not.")
flags.DEFINE_string("dataset_dir", None, "Folder with dataset.json and shards, from tools/build_data.py.")
flags.DEFINE_integer("num_trials", 50, "Scored trials to have in the study; failed ones do not count.", lower_bound=1)
flags.DEFINE_integer("proxy_steps", 200, "Optimisation steps of a trial.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Of the proposals, of the initial weights and of the order of the data.", lower_bound=0)
flags.DEFINE_string("backbone_weights", None, "imagenet, an .h5 file in keras.applications' layout, or a run folder.")
flags.DEFINE_string("backbone", None, "Name of the backbone (default: that of a run folder, or mobilenet_v2).")
flags.DEFINE_integer("output_stride", None, "16 or 8; at 8 the cells' rates double (default: as --backbone).")
flags.DEFINE_float("depth_multiplier", None, "Of the backbone's channels (default: as --backbone).")
flags.DEFINE_integer("divisible_by", None, "Channels are multiples of it (default: as --backbone).")
flags.DEFINE_string("train_split", "train", "Split to train trials on.")
flags.DEFINE_string("val_split", "val", "Split whose mIoU is the reward.")
flags.DEFINE_list(
    "cache_size", None, "height,width of the cached pictures (default: the largest of the split, k*OS+1)."
)
flags.DEFINE_integer(
    "cache_views", 1, "Cached views of a training picture; all but the first are augmented.", lower_bound=1
)
flags.DEFINE_integer("proxy_batch_size", 8, "Pictures a step of a trial.", lower_bound=1)
flags.DEFINE_float("proxy_learning_rate", 0.3, "Learning rate at the start of a trial; polynomial decay.")
flags.DEFINE_list(
    "proxy_crop_size", None, "height,width of the window of a picture that a step trains on, k*OS+1 (default: all)."
)
flags.DEFINE_string("proxy_dtype_policy", "float32", "Numbers a trial computes in: float32 or mixed_bfloat16.")
flags.DEFINE_integer("filters", 256, "Channels of every branch and of the projection.", lower_bound=1)
flags.DEFINE_integer("num_branches", 5, "Branches of a cell.", lower_bound=1)
flags.DEFINE_string("sampler", "random", f"What proposes cells: {', '.join(sorted(samplers.SAMPLERS))}.")
flags.DEFINE_float("near_best_fraction", None, "Of --sampler=near_best: share of uniform draws (0.5).")
flags.DEFINE_integer("near_best_pool", None, "Of --sampler=near_best: the best cells that others start from (5).")
flags.DEFINE_integer("near_best_mutations", None, "Of --sampler=near_best: decisions changed in a draw (1).")
flags.DEFINE_integer("evolution_population", None, "Of --sampler=evolution: the youngest cells that are alive (20).")
flags.DEFINE_integer("evolution_sample_size", None, "Of --sampler=evolution: how many compete to be parent (5).")
flags.DEFINE_list(
    "objectives",
    ["reward"],
    "reward, and costs to minimise beside it: params, madds, latency (seconds of the head for one cached picture).",
)
flags.DEFINE_string("early_stop", "none", f"Gives hopeless trials up: {', '.join(early_stop.RULES)}.")
flags.DEFINE_list("baseline", [], "Also score these, which are no trials: conv1x1, aspp, top1 (the published cell).")
flags.DEFINE_integer("workers", 1, "Processes that search at once; each has its share of the cores.", lower_bound=1)
flags.DEFINE_float("time_budget_minutes", None, "No trial starts after so long.", lower_bound=0.0)
flags.DEFINE_string("import_study", None, "Begin with the trials of this file, from tools/leaderboard.py --export.")
flags.DEFINE_string("storage", None, "Database URL of the study (default: sqlite:///RUN/study.db).")
flags.DEFINE_string("study_name", "search", "Name of the study in its storage.")


def main() -> None:
    if not FLAGS.run_dir or not FLAGS.dataset_dir:
        raise InputError("--run_dir and --dataset_dir: expected two folders")
    given = {field.name: FLAGS[field.name].value for field in dataclasses.fields(dpc_search.DPCSearch)}
    lists = {name: tuple(given[name]) for name in ("objectives", "baseline")}
    sizes = {
        name: None if given[name] is None else app.height_width(name, given[name])
        for name in ("cache_size", "proxy_crop_size")
    }
    settings = dpc_search.DPCSearch(**given | lists | sizes)
    dpc_search.search(settings, [sys.executable, *sys.argv])


if __name__ == "__main__":
    app.run(main)
