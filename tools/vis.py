"""Draws what a trained network sees: one PNG a picture, image | truth | prediction.

python tools/vis.py --run_dir=runs/top1 --vis_split=test --num_images=20

The network, its classes and their colours come from the run folder and its data set.
"""

from __future__ import annotations

import pathlib

from absl import flags

from nas_seg.utils import app, runs
from nas_seg.utils.errors import InputError

FLAGS = flags.FLAGS
flags.DEFINE_string("run_dir", None, "Run folder that tools/train.py wrote.")
flags.DEFINE_string("dataset_dir", None, "Folder with dataset.json and shards (default: the run's own).")
flags.DEFINE_string("vis_split", "val", "Split whose pictures are drawn.")
flags.DEFINE_string("output_dir", None, "Folder for the PNGs (default: RUN/vis_SPLIT).")
flags.DEFINE_integer("num_images", None, "How many pictures, from the first on (default: all).", lower_bound=1)
flags.DEFINE_boolean("also_save_raw_predictions", False, "Write grey PNGs of the class indices too, into raw/.")
flags.DEFINE_enum("weights", runs.BEST, (runs.BEST, runs.LAST), "Weights of the run.")


def main() -> None:
    """Loads, predicts, draws."""
    if not FLAGS.run_dir:
        raise InputError("--run_dir: expected a run folder")
    from nas_seg.datasets.descriptors import read_descriptor

    dataset_dir = FLAGS.dataset_dir or runs.read_dataset_dir(FLAGS.run_dir)
    descriptor = read_descriptor(dataset_dir)
    split = descriptor.split(FLAGS.vis_split)
    output_dir = pathlib.Path(FLAGS.output_dir or pathlib.Path(FLAGS.run_dir, f"vis_{FLAGS.vis_split}"))
    if output_dir.exists() and not output_dir.is_dir():
        raise InputError(f"--output_dir: expected a folder, {output_dir} is a file")
    app.import_tensorflow()
    from nas_seg import common, pipeline, vis
    from nas_seg import eval as evaluation
    from nas_seg import model as model_lib
    from nas_seg.datasets import data_generator, records
    from nas_seg.utils.progress import progress

    pipeline.check_classes(FLAGS.run_dir, dataset_dir)
    predict = evaluation.predictor(model_lib.load(FLAGS.run_dir, FLAGS.weights))
    count = min(FLAGS.num_images or split.num_images, split.num_images)
    with records.translate_data_errors(dataset_dir, FLAGS.vis_split), progress("draw", count) as bar:
        dataset = data_generator.eval_dataset(dataset_dir, FLAGS.vis_split).take(count)
        if not split.has_labels:
            dataset = dataset.map(lambda batch: {k: v for k, v in batch.items() if k != common.LABEL})
        paths = vis.visualize(
            predict,
            dataset,
            descriptor.colors,
            output_dir,
            also_save_raw_predictions=FLAGS.also_save_raw_predictions,
            advance=bar.advance,
        )
    print(f"written: {len(paths)} pictures, {paths[0]} and on")


if __name__ == "__main__":
    app.run(main)
