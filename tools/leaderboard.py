"""Shows the best genotypes of a search among its baselines; saves one of them, or the whole study as a file."""

from __future__ import annotations

import pathlib

from absl import flags

from nas_seg.search import records, study
from nas_seg.search.table import show_study
from nas_seg.spaces import read_space
from nas_seg.utils import app, config
from nas_seg.utils.errors import InputError

FLAGS = flags.FLAGS
flags.DEFINE_string("run_dir", None, "Run folder of the search; its study is sqlite:///RUN/study.db.")
flags.DEFINE_string("storage", None, "Database URL of the study, where it is not in the run folder.")
flags.DEFINE_string("study_name", "search", "Name of the study in its storage.")
flags.DEFINE_integer("top_k", 10, "How many rows to show.", lower_bound=1)
flags.DEFINE_string("export", None, "Write the whole study to this JSON file.")
flags.DEFINE_string("save_genotype", None, "Write the genotype of --rank to this JSON file.")
flags.DEFINE_integer("rank", 1, "Which row --save_genotype takes.", lower_bound=1)


def main() -> None:
    if not FLAGS.run_dir and not FLAGS.storage:
        raise InputError("--run_dir: expected the run folder of a search (or --storage a database URL)")
    if FLAGS.run_dir and not FLAGS.storage and not pathlib.Path(FLAGS.run_dir).is_dir():
        raise InputError(f"--run_dir: the folder {FLAGS.run_dir} does not exist")
    storage = FLAGS.storage or study.default_storage(FLAGS.run_dir)
    found = study.read_study(storage, FLAGS.study_name)
    space = read_space(found.user_attrs[study.FACTS]["space"])
    scored = len(study.rewards(found))
    if FLAGS.save_genotype and scored < FLAGS.rank:
        raise InputError(f"--rank: expected at most {scored} (scored trials), received {FLAGS.rank}")
    rows = show_study(found, space, study.describe(found), FLAGS.top_k)
    if FLAGS.save_genotype:
        config.save(FLAGS.save_genotype, rows[FLAGS.rank - 1].genotype)
        print(f"genotype of rank {FLAGS.rank}: {FLAGS.save_genotype}")
    if FLAGS.export:
        records.export_study(found, FLAGS.export)
        print(f"study: {FLAGS.export}")


if __name__ == "__main__":
    app.run(main)
