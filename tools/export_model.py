"""Writes a trained network for other run times: ImageTensor, uint8 [1, H, W, 3] -> SemanticPredictions, int32.

python tools/export_model.py --run_dir=runs/top1 --export_path=exports/top1
python tools/export_model.py --genotype=cell.json --num_classes=11 --checkpoint_path=best.weights.h5 --export_path=out
python tools/export_model.py --checkpoint_path=deeplabv3_mnv2/model.ckpt-30000 --model_variant=mobilenet_v2 \\
    --num_classes=21 --export_path=exports/voc
python tools/export_model.py --run_dir=runs/top1 --export_path=exports/phone --format=tflite,tflite_int8,onnx \\
    --export_size=360,480

Each file is run afterwards on pictures of the data set, and compared with the network; EXPORT_PATH/export.json tells.
With a run folder the network and its weights come from there; without one they are named by the other flags.
"""

from __future__ import annotations

import os

from absl import flags

from nas_seg import export_formats, inference_flags, list_flags, network_flags, old_flags
from nas_seg.utils import app, runs
from nas_seg.utils import config as config_lib
from nas_seg.utils.errors import InputError

FLAGS = flags.FLAGS
flags.DEFINE_string("export_path", None, "Folder to write; an export that is there is replaced.")
flags.DEFINE_list("format", [export_formats.SAVED_MODEL], f"Some of {', '.join(export_formats.FORMATS)}.")
list_flags.define("export_size", (), "height,width of the pictures, for all formats but saved_model.")
flags.DEFINE_string("dataset_dir", None, "Records whose pictures are compared and calibrated on (default: the run's).")
flags.DEFINE_string("calibration_dir", None, "Folder of pictures that tflite_int8 and _int16x8 are calibrated on.")
flags.DEFINE_integer("calibration_images", 100, "How many of them.", lower_bound=1)
flags.DEFINE_integer("check_images", 4, "Pictures that the files are compared on; 0: none.", lower_bound=0)
flags.DEFINE_string("genotype", None, "With weights of a .weights.h5 file: genotype file of any search.")
flags.DEFINE_string("preset", None, "With weights of a .weights.h5 file: name of a network of the zoo.")
flags.DEFINE_integer("num_classes", 21, "Channels of the logits, where no run folder says it.", lower_bound=1)
flags.DEFINE_enum(
    "semantic_probabilities",
    None,
    ("plain", "deeplab"),
    "Also put out SemanticProbabilities: plain, or with DeepLab's second softmax over several scales (default: none).",
)
# As in the original, which exports for accuracy.
inference_flags.define("checkpoint_path", "crop_size", "inference_scales", output_stride=8)
old_flags.define("export_model")

_WEIGHTS = ".weights.h5"


def main() -> None:
    """Loads a network, writes it."""
    old_flags.check("export_model")
    if not FLAGS.export_path:
        raise InputError("--export_path: expected a folder to write")
    inference = inference_flags.read_inference("crop_size", "inference_scales")
    size = list_flags.read("export_size", int, 2, least=1) or None
    try:
        export_formats.check(FLAGS.format, size)
    except InputError as error:
        raise InputError(f"--{error}") from None
    path = FLAGS.checkpoint_path or ""
    from_file = path.endswith(_WEIGHTS) and not FLAGS.run_dir
    _check_flags(from_file)
    source = path if from_file else inference_flags.read_source("checkpoint_path")
    dataset_dir = _dataset_dir(None if from_file else source.run_dir)
    calibrated = any(export_formats.FORMATS[name].calibrated for name in FLAGS.format)
    if calibrated and not (FLAGS.calibration_dir or dataset_dir):
        needing = next(name for name in FLAGS.format if export_formats.FORMATS[name].calibrated)
        raise InputError(f"--calibration_dir: expected a folder of real pictures, or --dataset_dir, for {needing}")
    app.import_tensorflow()
    from nas_seg import sample_pictures, scaled_networks
    from nas_seg.utils.progress import progress

    config, model = _load_file(path) if from_file else inference_flags.load(source, FLAGS.num_classes)
    scaled_networks.check_sizes(config, inference)
    variants = scaled_networks.variants(model, config, inference)
    about = _about(config, dataset_dir) | {"weights": str(source), "inference": config_lib.to_json(inference)}
    calibration = pictures = ()
    if calibrated:
        found = sample_pictures.to_calibrate(dataset_dir, FLAGS.calibration_dir, FLAGS.calibration_images, size)
        calibration, about["calibrated_on"] = found
    if FLAGS.check_images:
        found = sample_pictures.to_compare(
            dataset_dir, FLAGS.calibration_dir, FLAGS.check_images, size, largest=_crop(config.network, inference)
        )
        pictures, about["compared_on"] = found
    with progress("export", len(FLAGS.format)) as bar:
        report = export_formats.export(
            model,
            FLAGS.export_path,
            FLAGS.format,
            inference,
            variants,
            semantic_probabilities=FLAGS.semantic_probabilities,
            size=size,
            calibration=calibration,
            pictures=pictures,
            about=about | runs.circumstances(),
            advance=bar.advance,
        )
    more = ", SemanticProbabilities" if FLAGS.semantic_probabilities else ""
    print(f"weights: {source}")
    for name, file in report["files"].items():
        print(f"{name}: {_shown(file)}")
    print(f"compared on: {about.get('compared_on', 'nothing')}")
    what = "a SavedModel" if FLAGS.format == [export_formats.SAVED_MODEL] else ", ".join(FLAGS.format)
    print(f"written: {FLAGS.export_path}, {what}: ImageTensor -> SemanticPredictions{more}")


def _shown(file: dict) -> str:
    agreement = (
        f", labels agree on {100 * file['label_agreement']:.3f}% of the pixels, probabilities differ by "
        f"{file['max_probability_error']:.2g} at most ({file['run_by']})"
        if "label_agreement" in file
        else ""
    )
    return f"{file['bytes'] / 1e6:.2f} MB{agreement}"


def _crop(network, inference) -> tuple[int, int] | None:
    """The size that pictures are padded to, or that the network's own windows are of; None for any."""
    return inference.crop_size or getattr(network, "pooling_crop_size", None) or getattr(network, "crop_size", None)


def _dataset_dir(run_dir: str | None) -> str | None:
    """The typed one, or the run's own where it is still there."""
    from nas_seg.datasets.descriptors import find_own, read_descriptor

    if FLAGS.dataset_dir:
        read_descriptor(FLAGS.dataset_dir)
        return FLAGS.dataset_dir
    return find_own(run_dir) if run_dir else None


def _about(config, dataset_dir: str | None) -> dict:
    """The network's classes, by name where the data set is its own."""
    from nas_seg.datasets.descriptors import read_descriptor

    descriptor = read_descriptor(dataset_dir) if dataset_dir else None
    if descriptor is None or descriptor.num_classes != config.num_classes:
        return {"num_classes": config.num_classes}
    names, colors = list(descriptor.class_names), config_lib.to_json(descriptor.colors)
    return {"num_classes": config.num_classes, "class_names": names, "colors": colors}


def _check_flags(from_file: bool) -> None:
    """Refuses flags that something else decides."""
    described = [name for name in ("genotype", "preset") if FLAGS[name].present]
    if not from_file:
        if described:
            told = "the run folder says it" if FLAGS.run_dir else "a run folder or the flags of the architecture say it"
            raise InputError(f"--{described[0]}: {told}; it is for --checkpoint_path=FILE{_WEIGHTS}")
        return
    if not FLAGS["num_classes"].present:
        raise InputError("--num_classes: expected the channels of the logits, beside a file of weights")
    if described and network_flags.typed():
        raise InputError(f"--{network_flags.typed()[0]}: --{described[0]} says the network; give either")


def _load_file(path: str):
    from nas_seg import model as model_lib
    from nas_seg import presets

    if FLAGS.genotype or FLAGS.preset:
        config = presets.network_config(FLAGS.num_classes, genotype=FLAGS.genotype, preset=FLAGS.preset)
    else:
        config = model_lib.ModelConfig(FLAGS.num_classes, network_flags.read())
    model = model_lib.build(config)
    model_lib.load_weights(model, os.fspath(path))
    return config, model


if __name__ == "__main__":
    app.run(main)
