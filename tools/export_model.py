"""Writes a trained network as a SavedModel: ImageTensor, uint8 [1, H, W, 3] -> SemanticPredictions, int32 [1, H, W].

python tools/export_model.py --run_dir=runs/top1 --export_path=exports/top1
python tools/export_model.py --genotype=cell.json --num_classes=11 --checkpoint_path=best.weights.h5 --export_path=out

With a run folder the network and its weights come from there; without one they are named by the other flags.
"""

from __future__ import annotations

from absl import flags

from nas_seg.utils import app, runs
from nas_seg.utils.errors import InputError

FLAGS = flags.FLAGS
flags.DEFINE_string("export_path", None, "Folder to write; a SavedModel that is there is replaced.")
flags.DEFINE_string("run_dir", None, "Run folder that tools/train.py wrote.")
flags.DEFINE_enum("weights", runs.BEST, (runs.BEST, runs.LAST), "Weights of the run.")
flags.DEFINE_string("genotype", None, "Without --run_dir: genotype file of any search.")
flags.DEFINE_string("preset", None, "Without --run_dir: name of a network of the zoo.")
flags.DEFINE_integer("num_classes", None, "Without --run_dir: channels of the logits.", lower_bound=1)
flags.DEFINE_string("checkpoint_path", None, "Without --run_dir: .weights.h5 file of the network.")

_ARCHITECTURE = ("genotype", "preset", "num_classes", "checkpoint_path")


def main() -> None:
    """Loads a network, writes it."""
    if not FLAGS.export_path:
        raise InputError("--export_path: expected a folder to write")
    if FLAGS.run_dir:
        for name in _ARCHITECTURE:
            if FLAGS[name].present:
                raise InputError(f"--{name}: the run folder says it; give either --run_dir or --{name}")
        runs.read_config(FLAGS.run_dir)
        source = runs.find_weights(FLAGS.run_dir, FLAGS.weights)
    else:
        for name in ("num_classes", "checkpoint_path"):
            if FLAGS[name].value is None:
                raise InputError(f"--{name}: expected a value, or --run_dir")
        source = FLAGS.checkpoint_path
    app.import_tensorflow()
    from nas_seg import export_model, presets
    from nas_seg import model as model_lib

    if FLAGS.run_dir:
        model = model_lib.load(FLAGS.run_dir, FLAGS.weights)
    else:
        model = model_lib.build(presets.network_config(FLAGS.num_classes, genotype=FLAGS.genotype, preset=FLAGS.preset))
        model_lib.load_weights(model, source)
    export_model.export_saved_model(model, FLAGS.export_path)
    print(f"weights: {source}")
    print(f"written: {FLAGS.export_path}, a SavedModel: ImageTensor -> SemanticPredictions")


if __name__ == "__main__":
    app.run(main)
