"""Searches dense prediction cells on a dataset: proxy trials on cached features of a frozen backbone.

Writes RUN/config.json, RUN/cache/, RUN/study.db and, after every trial, the best cell so far as RUN/genotype.json.
The same command goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import pathlib

from absl import flags

from nas_seg.search import samplers, study
from nas_seg.utils import app, config, runs
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
flags.DEFINE_integer("filters", 256, "Channels of every branch and of the projection.", lower_bound=1)
flags.DEFINE_integer("num_branches", 5, "Branches of a cell.", lower_bound=1)
flags.DEFINE_enum("sampler", "random", sorted(samplers.SAMPLERS), "What proposes cells.")
flags.DEFINE_string("storage", None, "Database URL of the study (default: sqlite:///RUN/study.db).")
flags.DEFINE_string("study_name", "search", "Name of the study in its storage.")


def main() -> None:
    if not FLAGS.run_dir or not FLAGS.dataset_dir:
        raise InputError("--run_dir and --dataset_dir: expected two folders")
    app.import_tensorflow()
    from nas_seg.datasets.descriptors import read_descriptor
    from nas_seg.dpc.space import DPCSpace
    from nas_seg.search.loop import run_search
    from nas_seg.search.table import show

    run_dir, space = pathlib.Path(FLAGS.run_dir), DPCSpace(FLAGS.num_branches)
    data = read_descriptor(FLAGS.dataset_dir)
    evaluator, conditions = make_evaluator(run_dir, data)
    opened = study.open_study(
        FLAGS.storage or study.default_storage(run_dir),
        FLAGS.study_name,
        space,
        samplers.make_sampler(FLAGS.sampler, space, FLAGS.seed),
        conditions=conditions,
    )

    def keep_best(_) -> None:
        rows = study.leaderboard(opened, space)
        if rows:
            config.save(run_dir / "genotype.json", rows[0].genotype)

    ended = run_search(opened, space, evaluator, num_trials=FLAGS.num_trials, seed=FLAGS.seed, on_trial=keep_best)
    rows = study.leaderboard(opened, space)
    show(rows, f"{run_dir}: {len(rows)} trials of {FLAGS.proxy_steps} steps ({ended})")
    print(f"best cell: {run_dir / 'genotype.json'}")
    print(f"next: python tools/train.py --genotype={run_dir / 'genotype.json'} --run_dir=runs/found ...")


def make_evaluator(run_dir: pathlib.Path, data):
    """(evaluator, what its scores depend on); writes the run's config.json first, then its caches."""
    from nas_seg import features
    from nas_seg.dpc.cell import check_output_stride
    from nas_seg.dpc.proxy import ProxyConfig, ProxyEvaluator

    weights = FLAGS.backbone_weights
    backbone_config = features.backbone_config(
        weights,
        name=FLAGS.backbone,
        output_stride=FLAGS.output_stride,
        depth_multiplier=FLAGS.depth_multiplier,
        divisible_by=FLAGS.divisible_by,
    )
    check_output_stride(backbone_config.output_stride)
    proxy = ProxyConfig(FLAGS.proxy_steps, FLAGS.proxy_batch_size, FLAGS.proxy_learning_rate, filters=FLAGS.filters)
    size = _cache_size(data, backbone_config.output_stride)
    sections = {
        "proxy": config.to_json(proxy),
        "backbone": config.to_json(backbone_config) | {"weights": weights},
        "data": {"dataset_dir": os.path.abspath(FLAGS.dataset_dir), "train": FLAGS.train_split, "val": FLAGS.val_split},
        "cache": {"size": list(size), "views": FLAGS.cache_views},
        "seed": FLAGS.seed,
    }
    backbone = features.load_backbone(backbone_config, weights, FLAGS.seed)
    runs.open_run(run_dir, sections | runs.circumstances())
    caches = [
        features.cache_features(
            run_dir / "cache" / split, FLAGS.dataset_dir, split, backbone, backbone_config, size, views, FLAGS.seed
        )
        for split, views in ((FLAGS.train_split, FLAGS.cache_views), (FLAGS.val_split, 1))
    ]
    evaluator = ProxyEvaluator(*caches, data.num_classes, data.ignore_label, backbone_config.output_stride, proxy)
    return evaluator, {name: json.dumps(value, sort_keys=True) for name, value in sections.items()}


def _cache_size(data, output_stride: int) -> tuple[int, int]:
    from nas_seg.features import grid_size

    if FLAGS.cache_size is None:
        return grid_size(data.split(FLAGS.train_split).max_size, output_stride)
    try:
        height, width = (int(n) for n in FLAGS.cache_size)
    except ValueError:
        raise InputError(f"--cache_size: expected height,width, received {','.join(FLAGS.cache_size)}") from None
    return height, width


if __name__ == "__main__":
    app.run(main)
