"""Scores a trained network on a split: IoU of every class, mean IoU, pixel accuracy.

python tools/eval.py --run_dir=runs/top1 --eval_split=test
python tools/eval.py --run_dir=runs/top1 --output_stride=8 --eval_scales=0.75,1,1.25 --add_flipped_images
python tools/eval.py --checkpoint_dir=deeplabv3_mnv2/model.ckpt-30000 --model_variant=mobilenet_v2 \\
    --dataset_dir=records/voc --eval_logdir=scores

Writes RUN/eval_SPLIT.json. The network and its classes come from the run folder; of a TF1 checkpoint the network is
told by DeepLab's flags, and the classes are the data set's.
"""

from __future__ import annotations

import math
import pathlib

from absl import flags

from nas_seg import inference_flags, old_flags
from nas_seg.utils import app, config, runs
from nas_seg.utils.errors import InputError

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset_dir", None, "Folder with dataset.json and shards (default: the run's own).")
flags.DEFINE_string("dataset", None, "Name of the data set, if it is to be checked.")
flags.DEFINE_string("eval_split", "val", "Split to score on.")
flags.DEFINE_string("eval_logdir", None, "Folder for the scores (default: the run folder).")
flags.DEFINE_integer("eval_batch_size", 1, "Pictures at a time, where all have one size.", lower_bound=1)
inference_flags.define("checkpoint_dir", "eval_crop_size", "eval_scales")
old_flags.define("eval")


def main() -> None:
    """Loads, evaluates, prints, writes."""
    old_flags.check("eval")
    inference = inference_flags.read_inference("eval_crop_size", "eval_scales")
    source = inference_flags.read_source("checkpoint_dir")
    from nas_seg.datasets.descriptors import read_descriptor

    if not (FLAGS.dataset_dir or source.run_dir):
        raise InputError("--dataset_dir: expected the folder of the records, which a TF1 checkpoint does not tell")
    if not (FLAGS.eval_logdir or source.run_dir):
        raise InputError("--eval_logdir: expected a folder for the scores, beside a TF1 checkpoint")
    dataset_dir = FLAGS.dataset_dir or runs.read_dataset_dir(source.run_dir)
    descriptor = read_descriptor(dataset_dir)
    old_flags.check_dataset(descriptor.name)
    split = inference_flags.read_split(descriptor, "eval_split")
    if not split.has_labels:
        raise InputError(f"--eval_split: split {FLAGS.eval_split!r} of {dataset_dir} has no labels; see tools/vis.py")
    inference_flags.check_fits(inference, "eval_crop_size", descriptor, FLAGS.eval_split)
    app.import_tensorflow()
    from nas_seg import pipeline, scaled_networks
    from nas_seg.utils.progress import progress

    model_config, model = inference_flags.load(source, descriptor.num_classes)
    predict = scaled_networks.predictor(model, model_config, inference)
    with progress("evaluate", split.num_images) as bar:
        result = pipeline.evaluate_model(
            model,
            model_config,
            dataset_dir,
            FLAGS.eval_split,
            predict=predict,
            batch_size=inference_flags.batch_size("eval_batch_size", split),
            advance=bar.advance,
        )
    _show(result, descriptor.class_names)
    print(f"pixel accuracy {100 * result['pixel_accuracy']:.2f}%, {result['num_images']} images")
    print(f"{source} on {FLAGS.eval_split} of {dataset_dir}")
    path = pathlib.Path(FLAGS.eval_logdir or source.run_dir, f"eval_{FLAGS.eval_split}.json")
    report = _report(result, descriptor.class_names, source, dataset_dir)
    config.write_json(path, report | {"inference": config.to_json(inference)})
    print(f"written: {path}")


def _show(result: dict, class_names: tuple[str, ...]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("class", "IoU %", show_footer=True)
    for name, iou in zip(class_names, result["class_iou"], strict=True):
        table.add_row(name, "absent" if math.isnan(iou) else f"{100 * iou:.2f}")
    table.columns[0].footer, table.columns[1].footer = "mean", f"{100 * result['miou']:.2f}"
    table.columns[1].justify = "right"
    Console().print(table)


def _report(result: dict, class_names: tuple[str, ...], source, dataset_dir: str) -> dict:
    # JSON has no NaN: a class that does not occur, an image without labelled pixels.
    def number(value):
        return None if isinstance(value, float) and math.isnan(value) else value

    ious = [number(iou) for iou in result.pop("class_iou").tolist()]
    images = [{name: number(value) for name, value in image.items()} for image in result.pop("images")]
    return {
        "format_version": config.FORMAT_VERSION,
        "split": FLAGS.eval_split,
        "dataset_dir": str(dataset_dir),
        "weights": str(source),
        **{name: number(value) for name, value in result.items()},
        "class_iou": dict(zip(class_names, ious, strict=True)),
        "images": images,
    }


if __name__ == "__main__":
    app.run(main)
