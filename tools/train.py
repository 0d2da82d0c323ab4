"""Trains a network, from a genotype of any search, a preset or DeepLab's flags, on a data set that build_data wrote.

python tools/train.py --dataset_dir=records/camvid --run_dir=runs/top1 --preset=dpc_mobilenet_v2 \\
    --backbone_weights=imagenet --train_crop_size=321,321 --base_learning_rate=0.007
python tools/train.py --dataset_dir=records/camvid --run_dir=runs/fine_tuned --tf_initial_checkpoint=runs/voc \\
    --initialize_last_layer=false

The same command goes on where a stopped training was; eval.py, vis.py and export_model.py read the run folder. Without
--genotype and --preset the network is that of --tf_initial_checkpoint, where this is a run folder and no flag describes
another one, or else the one that DeepLab's flags describe.
"""

from __future__ import annotations

import dataclasses
import os

from absl import flags

from nas_seg import list_flags, network_flags, old_flags, train_flags
from nas_seg.utils import app, runs
from nas_seg.utils.errors import InputError

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset_dir", None, "Folder with dataset.json and shards, from tools/build_data.py.")
flags.DEFINE_string("dataset", None, "Name of the data set, if it is to be checked.")
flags.DEFINE_string("run_dir", None, "Folder of the run; made where it is missing, gone on with where it is not.")
flags.DEFINE_alias("train_logdir", "run_dir")
flags.DEFINE_string("genotype", None, "Genotype file of any search, or run folder of Auto-DeepLab's.")
flags.DEFINE_boolean("allow_unfinished", False, "Take what a run folder of an unfinished search has found so far.")
flags.DEFINE_string("preset", None, "Name of a network of the zoo.")
flags.DEFINE_float(
    "drop_path_keep_prob", None, "Of Auto-DeepLab's networks: share of images that keep a path at the end."
)
flags.DEFINE_string(
    "strategy", "auto", "Devices: auto, none (just one), mirrored, multi_worker (TF_CONFIG), tpu (untested)."
)
flags.DEFINE_string("tpu", None, "Of --strategy=tpu, untested: its name or address (default: TPU_NAME, or local).")
network_flags.define()
train_flags.define()
old_flags.define("train")

# What of DeepLab's flags a genotype's or a preset's network takes.
_OVERRIDES = ("output_stride", "atrous_rates", "depth_multiplier", "divisible_by")


def main() -> None:
    """Flags -> configuration -> fit."""
    old_flags.check("train")
    for name in ("dataset_dir", "run_dir"):
        if not FLAGS[name].value:
            raise InputError(f"--{name}: expected a folder")
    train_config = train_flags.read()
    from nas_seg.datasets.descriptors import read_descriptor

    descriptor = read_descriptor(FLAGS.dataset_dir, train_config.train_split, train_config.val_split)
    old_flags.check_dataset(descriptor.name)
    genotype = _genotype()
    app.import_tensorflow()
    from nas_seg.utils import distribute

    # Before anything else of TensorFlow, as several workers ask.
    strategy = distribute.get_strategy(FLAGS.strategy, FLAGS.tpu)
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
        if FLAGS.allow_unfinished:
            raise InputError("--allow_unfinished: expected the run folder of a search as --genotype beside it")
        return FLAGS.genotype
    from nas_seg.auto_deeplab import search_run

    return str(search_run.finished_genotype(FLAGS.genotype, FLAGS.allow_unfinished))


def _model_config(num_classes: int, genotype: str | None):
    from nas_seg import model, presets

    drop_path = {}
    if FLAGS.drop_path_keep_prob not in (None, 1.0):
        drop_path = {
            "drop_path_keep_prob": FLAGS.drop_path_keep_prob,
            "drop_path_steps": FLAGS.training_number_of_steps,
        }
    if genotype or FLAGS.preset:
        return presets.network_config(
            num_classes,
            genotype=genotype,
            preset=FLAGS.preset,
            backbone_weights=FLAGS.backbone_weights,
            **_overrides(),
            **drop_path,
        )
    initial = FLAGS.tf_initial_checkpoint
    own = initial and os.path.isdir(initial) and not network_flags.typed()
    network = model.read_config(initial).network if own else network_flags.read()
    try:
        backbone = dataclasses.replace(network.backbone, **drop_path)
    except TypeError:
        raise InputError("--drop_path_keep_prob: expected 1 for a network that no search has found") from None
    return model.ModelConfig(num_classes, dataclasses.replace(network, backbone=backbone))


def _overrides() -> dict:
    """What DeepLab's flags change of a genotype's or a preset's network."""
    typed = network_flags.typed()
    for name in typed:
        if name not in _OVERRIDES:
            raise InputError(f"--{name}: --{'preset' if FLAGS.preset else 'genotype'} says the network; give either")
    values = {name: FLAGS[name].value for name in typed}
    if "atrous_rates" in values:
        values["atrous_rates"] = list_flags.read("atrous_rates", int)
    return values


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
