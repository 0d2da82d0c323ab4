"""Makes a run folder of a TF1 DeepLab checkpoint, for eval.py, vis.py, export_model.py and nas_seg.load; and back.

python tools/convert_checkpoint.py --tf_checkpoint=deeplabv3_mnv2/model.ckpt-30000 --output_dir=runs/voc \\
    --num_classes=21 --model_variant=mobilenet_v2
python tools/convert_checkpoint.py --to_tf1=old/model.ckpt --run_dir=runs/voc
python tools/convert_checkpoint.py --run_dir=runs/voc --output_dir=runs/mine --num_classes=11 \\
    --initialize_last_layer=false

The network is told by the flags that it was trained with; their names and defaults are the original's.
"""

from __future__ import annotations

import math
import os

from absl import flags

from nas_seg import list_flags, network_flags
from nas_seg.utils import app, runs
from nas_seg.utils.errors import InputError

FLAGS = flags.FLAGS
flags.DEFINE_string("tf_checkpoint", None, "Prefix of a TF1 checkpoint (its .index and .data files).")
flags.DEFINE_string("run_dir", None, "Run folder to take the network from, in place of --tf_checkpoint.")
flags.DEFINE_string("output_dir", None, "Run folder to make.")
flags.DEFINE_string("to_tf1", None, "Prefix of a TF1 checkpoint to write from --run_dir.")
flags.DEFINE_enum("weights", runs.BEST, (runs.BEST, runs.LAST), "Weights of the run that --to_tf1 writes.")
flags.DEFINE_integer("num_classes", 21, "Of the labels, the background among them.", lower_bound=1)
flags.DEFINE_boolean("initialize_last_layer", True, "Take over the logits, too; off for other classes.")
list_flags.define("crop_size", (513, 513), "height,width of a picture to tell the network's multiply-adds for.")
network_flags.define()

# What says how a network is made, and is of no use where one is only written.
_NEW_NETWORK = ("output_dir", "tf_checkpoint", "num_classes", "initialize_last_layer", "crop_size")


def main() -> None:
    if FLAGS.to_tf1:
        _write_tf1()
        return
    if bool(FLAGS.tf_checkpoint) == bool(FLAGS.run_dir) or not FLAGS.output_dir:
        raise InputError("expected --output_dir and one of --tf_checkpoint and --run_dir")
    size = list_flags.read("crop_size", int, 2, least=1)
    app.import_tensorflow()
    from nas_seg import convert
    from nas_seg.model import ModelConfig, read_config

    if FLAGS.tf_checkpoint:
        config = ModelConfig(FLAGS.num_classes, network_flags.read())
        done = convert.from_tf1(FLAGS.tf_checkpoint, config, FLAGS.output_dir, FLAGS.initialize_last_layer)
    else:
        network_flags.check_agreement(read_config(FLAGS.run_dir).network)
        done = convert.from_run(FLAGS.run_dir, FLAGS.num_classes, FLAGS.output_dir, FLAGS.initialize_last_layer)
    _report(done, size)


def _write_tf1() -> None:
    if not FLAGS.run_dir:
        raise InputError("--run_dir: expected the run folder that --to_tf1 is written from")
    for name in (*_NEW_NETWORK, *network_flags.typed()):
        if FLAGS[name].present:
            raise InputError(f"--{name}: expected none beside --to_tf1, which writes the run's network as it is")
    if os.path.exists(f"{FLAGS.to_tf1}.index"):
        raise InputError(f"--to_tf1: {FLAGS.to_tf1}.index is there already; take another name")
    app.import_tensorflow()
    from nas_seg import convert

    count = convert.to_tf1(FLAGS.run_dir, FLAGS.to_tf1, FLAGS.weights)
    print(f"written: {FLAGS.to_tf1}.index, .data-00000-of-00001 ({count} variables)")


def _report(done, size: tuple[int, int]) -> None:
    from nas_seg.utils.flops import count_madds

    madds = count_madds(done.model, *size)
    parameters = sum(math.prod(variable.shape) for variable in done.model.trainable_variables)
    print(f"{parameters:,} trainable parameters, {madds / 1e9:.2f} B multiply-adds at {size[0]} x {size[1]}")
    print(f"{done.filled} variables taken over, {done.ignored} of the training ignored")
    for text, names in (("left as initialised", done.fresh), ("not used", done.unused)):
        for name in names:
            print(f"{text}: {name}")
    print(f"written: {FLAGS.output_dir}")
    print(f"next: python tools/eval.py --run_dir={FLAGS.output_dir} --dataset_dir=...")


if __name__ == "__main__":
    app.run(main)
