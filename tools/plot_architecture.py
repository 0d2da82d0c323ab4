"""Draws an architecture as an SVG file: the branches of a dense prediction cell, and what each of them reads, to scale;
of a network that Auto-DeepLab found its path through the strides, and its cell; of a template network its templates and
layers. The drawing is dark where the reader of a page prefers dark screens, and light on paper.

python tools/plot_architecture.py --genotype=runs/search/genotype.json --output=cell.svg --map_size=65,129
"""

from __future__ import annotations

import pathlib

from absl import flags

from nas_seg.plot import architecture
from nas_seg.plot.markup import adaptive
from nas_seg.utils import app, config, runs
from nas_seg.utils.errors import InputError

FLAGS = flags.FLAGS
flags.DEFINE_string("genotype", None, "File of the genotype; a cell also as DeepLab's JSON list.")
flags.DEFINE_string("run_dir", None, "Run folder of a search, whose best architecture (genotype.json) is drawn.")
flags.DEFINE_string("output", None, "The SVG file to write (default: beside the genotype).")
flags.DEFINE_list("map_size", None, "height,width of a dense prediction cell's map (default: the run's, or 33,33).")
flags.DEFINE_string("title", "", "A line on top of the drawing.")


def main() -> None:
    if bool(FLAGS.genotype) == bool(FLAGS.run_dir):
        raise InputError("--genotype, --run_dir: expected one of the two")
    path = pathlib.Path(FLAGS.genotype or pathlib.Path(FLAGS.run_dir, "genotype.json"))
    genotype = architecture.load_genotype(path)
    map_size, stride = architecture.feature_map(runs.read_config(FLAGS.run_dir) if FLAGS.run_dir else {})
    if FLAGS.map_size is not None:
        map_size = app.height_width("map_size", FLAGS.map_size)
    output = pathlib.Path(FLAGS.output or path.with_suffix(".svg"))
    drawing = architecture.draw(genotype, map_size, stride, FLAGS.title)
    config.write_bytes(output, adaptive(drawing).encode())
    print(f"{genotype.summary()}\ndrawing: {output}")


if __name__ == "__main__":
    app.run(main)
