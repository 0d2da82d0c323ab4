"""Trains a network, from a genotype of any search or from a preset, on a data set that build_data wrote.

python tools/train.py --dataset_dir=records/camvid --run_dir=runs/top1 --preset=dpc_mobilenet_v2 \\
    --backbone_weights=imagenet --train_crop_size=321,321 --base_learning_rate=0.007

The same command goes on where a stopped training was; eval.py, vis.py and export_model.py read the run folder.
"""

from __future__ import annotations

import dataclasses
import os
import typing

from absl import flags

from nas_seg.train_config import TrainConfig
from nas_seg.utils import app, config, runs
from nas_seg.utils.errors import InputError

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset_dir", None, "Folder with dataset.json and shards, from tools/build_data.py.")
flags.DEFINE_string("run_dir", None, "Folder of the run; made where it is missing, gone on with where it is not.")
flags.DEFINE_string("genotype", None, "Genotype file of any search; or else --preset.")
flags.DEFINE_string("preset", None, "Name of a network of the zoo; or else --genotype.")
flags.DEFINE_integer("output_stride", None, "Of the backbone (default: the network's own).")
flags.DEFINE_multi_integer("atrous_rates", None, "Of ASPP (default: the network's own).")
flags.DEFINE_float("depth_multiplier", None, "Of the backbone's channels (default: the network's own).")
flags.DEFINE_string("strategy", "auto", "Devices: auto, one_device, mirrored, multi_worker (TF_CONFIG) or tpu.")

_DEFINE = {
    bool: flags.DEFINE_boolean,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
    str | None: flags.DEFINE_string,
    tuple[int, int]: flags.DEFINE_list,
    tuple[float, ...]: flags.DEFINE_multi_float,
}
for _field in dataclasses.fields(TrainConfig):
    _kind = typing.get_type_hints(TrainConfig)[_field.name]
    _default = [str(item) for item in _field.default] if _kind == tuple[int, int] else _field.default
    _DEFINE[_kind](_field.name, _default or None if isinstance(_default, tuple) else _default, _field.metadata["help"].capitalize() + ".")


def main() -> None:
    """Flags -> configuration -> fit."""
    train_config = _train_config()
    for name in ("dataset_dir", "run_dir"):
        if not FLAGS[name].value:
            raise InputError(f"--{name}: expected a folder")
    from nas_seg.datasets.descriptors import read_descriptor

    descriptor = read_descriptor(FLAGS.dataset_dir)
    for name in filter(None, (train_config.train_split, train_config.val_split)):
        if not descriptor.split(name).has_labels:
            raise InputError(f"{FLAGS.dataset_dir}: split {name!r} has no labels")
    from nas_seg.utils import distribute

    # Before anything else of TensorFlow, as several workers ask.
    strategy = distribute.get_strategy(FLAGS.strategy)
    _train(train_config, descriptor, strategy)


def _train_config() -> TrainConfig:
    values = {field.name: FLAGS[field.name].value for field in dataclasses.fields(TrainConfig)}
    try:
        height, width = (int(size) for size in values["train_crop_size"])
    except ValueError:
        received = ",".join(values["train_crop_size"])
        raise InputError(f"--train_crop_size: expected height,width, received {received!r}") from None
    values |= {"train_crop_size": (height, width), "label_weights": tuple(values["label_weights"] or ())}
    try:
        return TrainConfig(**values)
    except InputError as error:
        raise InputError(f"--{error}") from None


def _train(train_config: TrainConfig, descriptor, strategy) -> None:
    import keras

    from nas_seg import eval as evaluation
    from nas_seg import model as model_lib
    from nas_seg import presets, train
    from nas_seg.datasets import data_generator, records
    from nas_seg.utils import distribute

    names = ("genotype", "preset", "output_stride", "atrous_rates", "depth_multiplier")
    given = {name: FLAGS[name].value for name in names}
    given["atrous_rates"] = tuple(given["atrous_rates"] or ()) or None
    model_config = presets.network_config(descriptor.num_classes, **given)
    keras.utils.set_random_seed(train_config.seed)
    with strategy.scope():
        model = model_lib.build(model_config)
        model_lib.load_backbone_weights(model, model_config, train_config.backbone_weights)
    sections = {
        "model": config.to_json(model_config),
        "train": config.to_json(train_config),
        "dataset_dir": os.path.abspath(FLAGS.dataset_dir),
    }
    if distribute.is_chief(strategy):
        runs.open_run(FLAGS.run_dir, sections | runs.circumstances())
    predict = evaluation.predictor(model)

    def make_dataset(start_step: int):
        return data_generator.train_dataset(
            FLAGS.dataset_dir,
            train_config.train_split,
            crop_size=train_config.train_crop_size,
            batch_size=train_config.train_batch_size,
            seed=train_config.seed,
            start_step=start_step,
            min_scale_factor=train_config.min_scale_factor,
            max_scale_factor=train_config.max_scale_factor,
            scale_factor_step_size=train_config.scale_factor_step_size,
        )

    def evaluate():
        dataset = data_generator.eval_dataset(FLAGS.dataset_dir, train_config.val_split)
        return evaluation.evaluate(
            model, dataset, descriptor.num_classes, descriptor.ignore_label, predict=predict
        )  # fmt: skip

    splits = [name for name in (train_config.train_split, train_config.val_split) if name]
    try:
        with records.translate_data_errors(FLAGS.dataset_dir, *splits):
            result = train.fit(
                model,
                make_dataset,
                train_config,
                FLAGS.run_dir,
                ignore_label=descriptor.ignore_label,
                evaluate=evaluate if train_config.val_split else None,
                strategy=strategy,
            )
    except train.Diverged as error:
        raise InputError(f"--base_learning_rate: {error}; a lower rate or a longer --slow_start_step may help") from None
    except train.LabelOutOfRange:
        # The step cannot say which picture it was; this finds the first, or the error goes on.
        records.verify(FLAGS.dataset_dir, train_config.train_split)
        raise
    _report(result)


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
