"""Trains a network, from a genotype of any search or from a preset, on a data set that build_data wrote.

python tools/train.py --dataset_dir=records/camvid --run_dir=runs/top1 --preset=dpc_mobilenet_v2 \\
    --backbone_weights=imagenet --train_crop_size=321,321 --base_learning_rate=0.007

The same command goes on where a stopped training was; eval.py, vis.py and export_model.py read the run folder.
"""

from __future__ import annotations

import os

from absl import flags

from nas_seg import train_flags
from nas_seg.utils import app, runs
from nas_seg.utils.errors import InputError

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset_dir", None, "Folder with dataset.json and shards, from tools/build_data.py.")
flags.DEFINE_string("run_dir", None, "Folder of the run; made where it is missing, gone on with where it is not.")
flags.DEFINE_string("genotype", None, "Genotype file of any search, or run folder of Auto-DeepLab's; or else --preset.")
flags.DEFINE_boolean("allow_unfinished", False, "Take what a run folder of an unfinished search has found so far.")
flags.DEFINE_string("preset", None, "Name of a network of the zoo; or else --genotype.")
flags.DEFINE_integer("output_stride", None, "Of the backbone (default: the network's own).")
flags.DEFINE_multi_integer("atrous_rates", None, "Of ASPP (default: the network's own).")
flags.DEFINE_float("depth_multiplier", None, "Of the backbone's channels (default: the network's own).")
flags.DEFINE_integer("divisible_by", None, "The backbone's channels are multiples of it (default: the network's own).")
flags.DEFINE_float(
    "drop_path_keep_prob", None, "Of Auto-DeepLab's networks: share of images that keep a path at the end."
)
flags.DEFINE_string("strategy", "auto", "Devices: auto, one_device, mirrored, multi_worker (TF_CONFIG) or tpu.")
train_flags.define()

_NETWORK = ("genotype", "preset", "output_stride", "atrous_rates", "depth_multiplier", "divisible_by")


def main() -> None:
    """Flags -> configuration -> fit."""
    train_config = train_flags.read()
    for name in ("dataset_dir", "run_dir"):
        if not FLAGS[name].value:
            raise InputError(f"--{name}: expected a folder")
    from nas_seg.datasets.descriptors import read_descriptor

    descriptor = read_descriptor(FLAGS.dataset_dir, train_config.train_split, train_config.val_split)
    genotype = _genotype()
    app.import_tensorflow()
    from nas_seg.utils import distribute

    # Before anything else of TensorFlow, as several workers ask.
    strategy = distribute.get_strategy(FLAGS.strategy)
    from nas_seg import pipeline
    from nas_seg.train import Diverged

    model_config = _model_config(descriptor.num_classes, genotype)
    try:
        _report(pipeline.train(model_config, train_config, FLAGS.dataset_dir, FLAGS.run_dir, strategy))
    except Diverged as error:
        hint = "a lower rate or a longer --slow_start_step may help"
        raise InputError(f"--base_learning_rate: {error}; {hint}") from None


def _genotype() -> str | None:
    """The file that --genotype names: itself, or what the search in that folder has found."""
    if not FLAGS.genotype or not os.path.isdir(FLAGS.genotype):
        return FLAGS.genotype
    from nas_seg.auto_deeplab import search_run

    return str(search_run.finished_genotype(FLAGS.genotype, FLAGS.allow_unfinished))


def _model_config(num_classes: int, genotype: str | None):
    from nas_seg import presets

    given = {name: FLAGS[name].value for name in _NETWORK} | {"genotype": genotype}
    if FLAGS.drop_path_keep_prob is not None:
        given |= {
            "drop_path_keep_prob": FLAGS.drop_path_keep_prob,
            "drop_path_steps": FLAGS.training_number_of_steps,
        }
    given["atrous_rates"] = tuple(given["atrous_rates"] or ()) or None
    return presets.network_config(num_classes, backbone_weights=FLAGS.backbone_weights, **given)


def _report(result: dict) -> None:
    scores = f", loss {result['loss']:.4f}" if "loss" in result else ""
    if "val_miou" in result:
        scores += f", best val mIoU {100 * result['val_miou']:.2f}% at step {result['best_step']}"
    print(f"trained to step {result['step']}{scores}")
    print(f"weights: {runs.find_weights(FLAGS.run_dir)}")
    print(f"written: {FLAGS.run_dir}/{runs.CONFIG}, {runs.METRICS}, {runs.CHECKPOINTS}/")
    print(f"next: python tools/eval.py --run_dir={FLAGS.run_dir}")


if __name__ == "__main__":
    app.run(main)
