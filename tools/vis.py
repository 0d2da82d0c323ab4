"""Draws what a trained network sees: one PNG a picture, image | truth | prediction.

python tools/vis.py --run_dir=runs/top1 --vis_split=test --num_images=20

For the Cityscapes server, label ids of the original size instead:

python tools/vis.py --run_dir=runs/cityscapes --vis_split=test_fine --cityscapes_submission

The network, its classes and their colours come from the run folder and its data set; of a TF1 checkpoint the network is
told by DeepLab's flags.
"""

from __future__ import annotations

import pathlib

from absl import flags

from nas_seg import inference_flags, old_flags
from nas_seg.utils import app, colormap, runs
from nas_seg.utils.errors import InputError, unknown

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset_dir", None, "Folder with dataset.json and shards (default: the run's own).")
flags.DEFINE_string("dataset", None, "Name of the data set, if it is to be checked.")
flags.DEFINE_string("vis_split", "val", "Split whose pictures are drawn.")
flags.DEFINE_string("output_dir", None, "Folder for the PNGs (default: RUN/vis_SPLIT).")
flags.DEFINE_alias("vis_logdir", "output_dir")
flags.DEFINE_integer("vis_batch_size", 1, "Pictures at a time, where all have one size.", lower_bound=1)
flags.DEFINE_string("colormap_type", None, "Colours of pascal, cityscapes or ade20k (default: the data set's own).")
flags.DEFINE_integer("num_images", None, "How many pictures, from the first on (default: all).", lower_bound=1)
flags.DEFINE_boolean("also_save_raw_predictions", False, "Write grey PNGs of the class indices too, into raw/.")
flags.DEFINE_boolean(
    "cityscapes_submission", False, "Write PNGs of Cityscapes' label ids alone (default folder: RUN/submission_SPLIT)."
)
inference_flags.define("checkpoint_dir", "vis_crop_size", "eval_scales")
old_flags.define("vis")


def main() -> None:
    """Loads, predicts, draws."""
    old_flags.check("vis")
    inference = inference_flags.read_inference("vis_crop_size", "eval_scales")
    source = inference_flags.read_source("checkpoint_dir")
    from nas_seg.datasets.descriptors import KNOWN, read_descriptor

    for name in ("dataset_dir", "output_dir"):
        if not (FLAGS[name].value or source.run_dir):
            raise InputError(f"--{name}: expected a folder, which a TF1 checkpoint does not tell")
    dataset_dir = FLAGS.dataset_dir or runs.read_dataset_dir(source.run_dir)
    descriptor = read_descriptor(dataset_dir)
    old_flags.check_dataset(descriptor.name)
    split = inference_flags.read_split(descriptor, "vis_split")
    inference_flags.check_fits(inference, "vis_crop_size", descriptor, FLAGS.vis_split)
    colors = _colors(descriptor)
    kind = "submission" if FLAGS.cityscapes_submission else "vis"
    output_dir = pathlib.Path(FLAGS.output_dir or pathlib.Path(source.run_dir, f"{kind}_{FLAGS.vis_split}"))
    if output_dir.exists() and not output_dir.is_dir():
        raise InputError(f"--output_dir: expected a folder, {output_dir} is a file")
    if FLAGS.cityscapes_submission and FLAGS.also_save_raw_predictions:
        raise InputError("--also_save_raw_predictions: means nothing with --cityscapes_submission")
    if FLAGS.cityscapes_submission and descriptor.class_names != KNOWN["cityscapes"].class_names:
        raise InputError(
            f"--cityscapes_submission: expected the 19 classes of cityscapes, {dataset_dir} has those of "
            f"{descriptor.name!r}"
        )
    app.import_tensorflow()
    from nas_seg import common, pipeline, scaled_networks, vis
    from nas_seg.datasets import cityscapes, data_generator, records
    from nas_seg.utils.progress import progress

    config, model = inference_flags.load(source, descriptor.num_classes)
    pipeline.check_num_classes(config.num_classes, dataset_dir)
    predict = scaled_networks.predictor(model, config, inference)
    batch_size = inference_flags.batch_size("vis_batch_size", split)
    count = min(FLAGS.num_images or split.num_images, split.num_images)
    with records.translate_data_errors(dataset_dir, FLAGS.vis_split), progress("draw", count) as bar:
        dataset = data_generator.eval_dataset(dataset_dir, FLAGS.vis_split, batch_size=batch_size)
        dataset = dataset.unbatch().take(count).batch(batch_size)
        if not split.has_labels:
            dataset = dataset.map(lambda batch: {k: v for k, v in batch.items() if k != common.LABEL})
        if FLAGS.cityscapes_submission:
            ids, file_name = cityscapes.LABEL_IDS, cityscapes.submission_name
            paths = vis.write_label_ids(predict, dataset, ids, file_name, output_dir, advance=bar.advance)
        else:
            paths = vis.visualize(
                predict,
                dataset,
                colors,
                output_dir,
                also_save_raw_predictions=FLAGS.also_save_raw_predictions,
                advance=bar.advance,
            )
    print(f"written: {len(paths)} pictures, {paths[0]} and on")


def _colors(descriptor) -> tuple[tuple[int, int, int], ...]:
    """One a class: the data set's own, or those of --colormap_type."""
    if FLAGS.colormap_type is None:
        return descriptor.colors
    from nas_seg.datasets.descriptors import KNOWN

    tables = {
        "pascal": colormap.pascal_colormap(),
        "cityscapes": colormap.CITYSCAPES,
        "ade20k": KNOWN["ade20k"].colors,
    }
    if FLAGS.colormap_type not in tables:
        raise InputError(f"--colormap_type: {unknown('colours', FLAGS.colormap_type, tables)}")
    found = tables[FLAGS.colormap_type][: descriptor.num_classes]
    if len(found) < descriptor.num_classes:
        raise InputError(
            f"--colormap_type: expected {descriptor.num_classes} colours, {FLAGS.colormap_type} has {len(found)}"
        )
    return found


if __name__ == "__main__":
    app.run(main)
