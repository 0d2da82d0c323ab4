"""Writes a trained network as a SavedModel: ImageTensor, uint8 [1, H, W, 3] -> SemanticPredictions, int32 [1, H, W].

python tools/export_model.py --run_dir=runs/top1 --export_path=exports/top1
python tools/export_model.py --genotype=cell.json --num_classes=11 --checkpoint_path=best.weights.h5 --export_path=out
python tools/export_model.py --checkpoint_path=deeplabv3_mnv2/model.ckpt-30000 --model_variant=mobilenet_v2 \\
    --num_classes=21 --export_path=exports/voc

With a run folder the network and its weights come from there; without one they are named by the other flags.
"""

from __future__ import annotations

import os

from absl import flags

from nas_seg import inference_flags, network_flags, old_flags
from nas_seg.utils import app
from nas_seg.utils.errors import InputError

FLAGS = flags.FLAGS
flags.DEFINE_string("export_path", None, "Folder to write; a SavedModel that is there is replaced.")
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
    path = FLAGS.checkpoint_path or ""
    from_file = path.endswith(_WEIGHTS) and not FLAGS.run_dir
    _check_flags(from_file)
    source = path if from_file else inference_flags.read_source("checkpoint_path")
    app.import_tensorflow()
    from nas_seg import export_model, scaled_networks

    config, model = _load_file(path) if from_file else inference_flags.load(source, FLAGS.num_classes)
    if FLAGS["num_classes"].present and FLAGS.num_classes != config.num_classes:
        raise InputError(f"--num_classes: expected the run's {config.num_classes}, received {FLAGS.num_classes}")
    scaled_networks.check_sizes(config, inference)
    variants = scaled_networks.variants(model, config, inference)
    export_model.export_saved_model(
        model, FLAGS.export_path, inference, variants, semantic_probabilities=FLAGS.semantic_probabilities
    )
    more = ", SemanticProbabilities" if FLAGS.semantic_probabilities else ""
    print(f"weights: {source}")
    print(f"written: {FLAGS.export_path}, a SavedModel: ImageTensor -> SemanticPredictions{more}")


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
