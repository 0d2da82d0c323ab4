"""Scores a trained network on a split: IoU of every class, mean IoU, pixel accuracy.

python tools/eval.py --run_dir=runs/top1 --eval_split=test

Writes RUN/eval_SPLIT.json. The network and its classes come from the run folder.
"""

from __future__ import annotations

import math
import pathlib

from absl import flags

from nas_seg.utils import app, config, runs
from nas_seg.utils.errors import InputError

FLAGS = flags.FLAGS
flags.DEFINE_string("run_dir", None, "Run folder that tools/train.py wrote.")
flags.DEFINE_string("dataset_dir", None, "Folder with dataset.json and shards (default: the run's own).")
flags.DEFINE_string("eval_split", "val", "Split to score on.")
flags.DEFINE_enum("weights", runs.BEST, (runs.BEST, runs.LAST), "Weights of the run.")


def main() -> None:
    """Loads, evaluates, prints, writes."""
    if not FLAGS.run_dir:
        raise InputError("--run_dir: expected a run folder")
    from nas_seg.datasets.descriptors import read_descriptor

    dataset_dir = FLAGS.dataset_dir or runs.read_dataset_dir(FLAGS.run_dir)
    descriptor = read_descriptor(dataset_dir)
    split = descriptor.split(FLAGS.eval_split)
    if not split.has_labels:
        raise InputError(f"--eval_split: split {FLAGS.eval_split!r} of {dataset_dir} has no labels; see tools/vis.py")
    app.import_tensorflow()
    from nas_seg import pipeline
    from nas_seg.utils.progress import progress

    weights = runs.find_weights(FLAGS.run_dir, FLAGS.weights)
    with progress("evaluate", split.num_images) as bar:
        result = pipeline.evaluate(FLAGS.run_dir, dataset_dir, FLAGS.eval_split, FLAGS.weights, bar.advance)
    _show(result, descriptor.class_names)
    print(f"pixel accuracy {100 * result['pixel_accuracy']:.2f}%, {result['num_images']} images")
    print(f"{weights} on {FLAGS.eval_split} of {dataset_dir}")
    path = pathlib.Path(FLAGS.run_dir, f"eval_{FLAGS.eval_split}.json")
    config.write_json(path, _report(result, descriptor.class_names, weights, dataset_dir))
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


def _report(result: dict, class_names: tuple[str, ...], weights: pathlib.Path, dataset_dir: str) -> dict:
    # JSON has no NaN: a class that does not occur, an image without labelled pixels.
    def number(value):
        return None if isinstance(value, float) and math.isnan(value) else value

    ious = [number(iou) for iou in result.pop("class_iou").tolist()]
    images = [{name: number(value) for name, value in image.items()} for image in result.pop("images")]
    return {
        "format_version": config.FORMAT_VERSION,
        "split": FLAGS.eval_split,
        "dataset_dir": str(dataset_dir),
        "weights": str(weights),
        **{name: number(value) for name, value in result.items()},
        "class_iou": dict(zip(class_names, ious, strict=True)),
        "images": images,
    }


if __name__ == "__main__":
    app.run(main)
