"""Labels pictures of your own: a PNG of class indices for each, and its classes' colours over it with a legend.

python tools/predict.py --run_dir=runs/top1 --input=street.jpg --output_dir=seen
python tools/predict.py --run_dir=runs/top1 --input=photos --output_dir=seen --tile_size=513 --skip_corrupt
python tools/predict.py --saved_model=exports/top1 --input=frames/%05d.png --output_dir=seen

Writes OUTPUT_DIR/labels/NAME.png, whose palette are the classes' colours, and OUTPUT_DIR/overlays/NAME.png. An animated
GIF or WebP and a TIFF of several pages are taken frame by frame, to NAME_00000.png and on. Of any other video the input
are its frames: ffmpeg -i clip.mp4 frames/%05d.png makes them, ffmpeg -i seen/overlays/%05d.png labelled.mp4 the video.
"""

from __future__ import annotations

import os
import pathlib

from absl import flags

from nas_seg import inference_flags, network_flags, overlays, picture_files, tiles
from nas_seg.utils import app, config
from nas_seg.utils.errors import InputError, unknown

FLAGS = flags.FLAGS
flags.DEFINE_string("input", None, "A picture, a folder of them, an animated GIF or WebP, a pattern: frames/%05d.png.")
flags.DEFINE_string("output_dir", None, "Folder for the PNGs.")
flags.DEFINE_string("saved_model", None, "Folder of an exported network, in place of --run_dir.")
flags.DEFINE_integer("num_classes", 21, "Channels of a TF1 checkpoint's logits, where no data set says it.", 1)
flags.DEFINE_string("dataset_dir", None, "Folder whose dataset.json names the classes (default: the run's own).")
flags.DEFINE_string("classes", None, "The known data set whose classes these are, such as cityscapes.")
flags.DEFINE_float("opacity", 0.6, "Of the colours over the picture.", lower_bound=0.0, upper_bound=1.0)
flags.DEFINE_enum(
    "legend", None, overlays.LEGENDS, "Classes that it shows (default: all, where their names are known)."
)
flags.DEFINE_integer("tile_size", None, "Side of tiles that pictures are predicted in, k * 32 + 1 (default: none).")
flags.DEFINE_integer("tile_overlap", 128, "Pixels that neighbouring tiles share at least.")
flags.DEFINE_boolean("skip_corrupt", False, "Leave out pictures that cannot be decoded, and list them.")
inference_flags.define("checkpoint_path", "crop_size", "eval_scales")

# What an exported network has in it.
_INSIDE = ("run_dir", "checkpoint_path", "weights", "num_classes", "eval_scales", "add_flipped_images", "crop_size")
_INSIDE += ("min_resize_value", "max_resize_value", "resize_factor")


def main() -> None:
    """Finds the pictures and the network, predicts, draws."""
    for name in ("input", "output_dir"):
        if not FLAGS[name].value:
            raise InputError(f"--{name}: expected {'pictures' if name == 'input' else 'a folder to write to'}")
    inference = inference_flags.read_inference("crop_size", "eval_scales")
    source = _source()
    try:
        tiles.check(FLAGS.tile_size, FLAGS.tile_overlap, inference)
    except InputError as error:
        raise InputError(f"--{error}") from None
    paths = picture_files.find_images(FLAGS.input)
    pictures = dict(zip(picture_files.output_names(paths), paths, strict=True))
    output_dir = pathlib.Path(FLAGS.output_dir)
    _check_writable(output_dir)
    known = _classes(source)
    look, num_classes = _looker(source, inference, known)
    class_names, colors = known or overlays.class_names_and_colors(num_classes)
    from nas_seg import prediction
    from nas_seg.utils.progress import progress

    with progress("predict", len(pictures)) as bar:
        skipped = prediction.write_predictions(
            look,
            pictures,
            output_dir,
            class_names,
            colors,
            tile_size=FLAGS.tile_size,
            tile_overlap=FLAGS.tile_overlap,
            opacity=FLAGS.opacity,
            legend=FLAGS.legend or (overlays.ALL if known else overlays.PRESENT),
            skip_corrupt=FLAGS.skip_corrupt,
            advance=bar.advance,
        )
    if skipped:
        print(f"skipped {len(skipped)} of {len(paths)}:", *skipped, sep="\n  ")
    if len(skipped) == len(paths):
        raise InputError(f"--input: expected pictures, none of {len(paths)} could be decoded; {skipped[0]}")
    print(f"written: {len(paths) - len(skipped)} pictures, into labels and overlays of {output_dir}")


def _source():
    """Where the network is: an inference_flags.Source, or None for an exported one."""
    if not FLAGS.saved_model:
        return inference_flags.read_source("checkpoint_path")
    typed = [name for name in _INSIDE if FLAGS[name].present] + network_flags.typed()
    if typed:
        raise InputError(f"--{typed[0]}: expected none beside --saved_model, which has it inside")
    if not pathlib.Path(FLAGS.saved_model, "saved_model.pb").is_file():
        raise InputError(f"--saved_model: expected the folder of a SavedModel, found none in {FLAGS.saved_model}")
    return None


def _check_writable(folder: pathlib.Path) -> None:
    """InputError where a folder cannot be made or written to; makes nothing."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise InputError(f"--output_dir: expected a folder to write to, {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"--output_dir: {there} cannot be written to")


def _classes(source):
    """(names, colours) as the flags, the run's data set or the export say it; None where nothing does."""
    from nas_seg.datasets.descriptors import KNOWN, find_own, read_descriptor

    if FLAGS.dataset_dir and FLAGS.classes:
        raise InputError("--classes: expected none beside --dataset_dir, which says it")
    if FLAGS.classes and FLAGS.classes not in KNOWN:
        raise InputError(f"--classes: {unknown('data set', FLAGS.classes, KNOWN)}")
    if FLAGS.classes:
        return KNOWN[FLAGS.classes].class_names, KNOWN[FLAGS.classes].colors
    folder = FLAGS.dataset_dir
    if not folder and FLAGS.saved_model:
        return _told(pathlib.Path(FLAGS.saved_model, "export.json"))
    if not folder and source and source.run_dir:
        # A network that was not trained here has none, and another machine's may be out of reach.
        folder = find_own(source.run_dir)
    if folder:
        descriptor = read_descriptor(folder)
        return descriptor.class_names, descriptor.colors
    return None


def _told(file: pathlib.Path):
    """(names, colours) as tools/export_model.py wrote them beside the network."""
    from nas_seg.datasets.descriptors import DatasetDescriptor

    if not file.is_file():
        return None
    data = config.read_json(file)
    config.check_version(data, file)
    if "class_names" not in data:
        return None
    names = config.from_json(tuple[str, ...], data["class_names"], f"{file}: class_names")
    colors = config.from_json(tuple[tuple[int, int, int], ...], data.get("colors"), f"{file}: colors")
    try:
        DatasetDescriptor("export", len(names), names, colors, ignore_label=255, splits={})
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    return names, colors


def _looker(source, inference, known):
    """How the network looks at a picture, and its number of classes (256 where nothing says it)."""
    app.import_tensorflow()
    from nas_seg import prediction, scaled_networks

    if source is None:
        return prediction.saved_model_looker(FLAGS.saved_model), 256
    if known and source.tf_checkpoint and not FLAGS["num_classes"].present:
        FLAGS.num_classes = len(known[0])
    model_config, model = inference_flags.load(source, FLAGS.num_classes)
    if known and len(known[0]) != model_config.num_classes:
        flag = "classes" if FLAGS.classes else "dataset_dir"
        raise InputError(
            f"--{flag}: expected the network's {model_config.num_classes} classes, received {len(known[0])}"
        )
    scaled_networks.check_sizes(model_config, inference)
    variants = scaled_networks.variants(model, model_config, inference)
    return prediction.looker(model, inference, variants), model_config.num_classes


if __name__ == "__main__":
    app.run(main)
