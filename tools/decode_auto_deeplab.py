"""Decodes the logits of an Auto-DeepLab search into a network: the cell and the most probable path.

python tools/decode_auto_deeplab.py --run_dir=runs/search --output=genotype.json --plot_dir=drawings

Prints the network (per block "input:op+input:op", then the stride of every layer), the path's log-probability and its
margin over the second-best path, and the entropies of alpha and beta. Needs no TensorFlow.
"""

from __future__ import annotations

import pathlib

from absl import flags

from nas_seg.auto_deeplab import AutoDeepLabGenotype
from nas_seg.auto_deeplab import decode as decoding
from nas_seg.plot import auto_deeplab_diagram
from nas_seg.plot.markup import adaptive
from nas_seg.utils import app, config
from nas_seg.utils.errors import InputError

FLAGS = flags.FLAGS
flags.DEFINE_string("logits", None, "An .npz file with arrays alpha [20, 8] and beta [layers, 4, 3].")
flags.DEFINE_string("run_dir", None, f"Run folder of a search, which holds them as {decoding.LOGITS_FILE}.")
flags.DEFINE_string("output", None, "Where to write the genotype as JSON (default: it is only printed).")
flags.DEFINE_string("plot_dir", None, "Folder for drawings: path.svg, shaded by beta, and cell.svg.")
flags.DEFINE_bool(
    "border_correction", False, "Not the paper's rule: multiply the steps that leave stride 4 or 32 by 2/3."
)


def main() -> None:
    if bool(FLAGS.logits) == bool(FLAGS.run_dir):
        raise InputError("--logits, --run_dir: expected one of the two")
    source = pathlib.Path(FLAGS.logits or FLAGS.run_dir)
    if FLAGS.logits and source.is_dir():
        raise InputError(
            f"--logits: expected an .npz file, received the folder {source}; a folder is given as --run_dir"
        )
    if FLAGS.run_dir and not source.is_dir():
        raise InputError(f"--run_dir: expected the run folder of a search, received {source}")
    alpha, beta = decoding.read_logits(source)
    path = decoding.best_path(beta, border_correction=FLAGS.border_correction)
    genotype = AutoDeepLabGenotype(decoding.decode_cell(alpha), path.levels)
    drawings = {
        "path.svg": adaptive(auto_deeplab_diagram.path_svg(genotype, beta=beta)),
        "cell.svg": adaptive(auto_deeplab_diagram.cell_svg(genotype)),
    }
    if FLAGS.output:
        genotype.save(FLAGS.output)
    for name, drawing in drawings.items() if FLAGS.plot_dir else ():
        config.write_bytes(pathlib.Path(FLAGS.plot_dir, name), drawing.encode())
    measured = decoding.entropies(alpha, beta)
    print(genotype.summary())
    print(f"digest: {genotype.digest}")
    print(f"path: log-probability {path.log_probability:.6f}, margin to the second-best {path.margin:.6f}")
    print(f"entropy (nats): alpha {measured.alpha:.4f}, beta {measured.beta:.4f}, paths {measured.path:.4f}")
    if FLAGS.output:
        print(f"genotype: {FLAGS.output}")
    if FLAGS.plot_dir:
        print(f"drawings: {', '.join(str(pathlib.Path(FLAGS.plot_dir, name)) for name in drawings)}")


if __name__ == "__main__":
    app.run(main)
