"""Trains the best genotypes of a search, and some others drawn at random, end to end; ranks them by their full score.

python tools/rerank.py --run_dir=runs/search --dataset_dir=records/camvid --top_k=5 --random_k=5 --baseline=aspp \\
    --training_number_of_steps=2000 --train_crop_size=353,481 --base_learning_rate=0.007 --test_split=test

Writes RUN/rerank/: rerank.json, genotype.json (the best one), a run folder NAME_seedSEED of each training. The same
command goes on where it stopped, with the same choice; --baseline, --seeds and --test_split may ask for more.
"""

from __future__ import annotations

import dataclasses

from absl import flags

from nas_seg import rerank, train_flags
from nas_seg.search import second_stage
from nas_seg.utils import app
from nas_seg.utils.errors import InputError

FLAGS = flags.FLAGS
flags.DEFINE_string("run_dir", None, "Run folder of the search; its config.json tells the backbone and its weights.")
flags.DEFINE_string("dataset_dir", None, "Folder with dataset.json and shards, from tools/build_data.py.")
flags.DEFINE_string("output_dir", None, "Folder for everything (default: RUN/rerank).")
flags.DEFINE_integer("top_k", 5, "How many of the best by the proxy; as many as there are.", lower_bound=0)
flags.DEFINE_integer("random_k", 5, "How many of the others, drawn with --seed; as many as there are.", lower_bound=0)
flags.DEFINE_list("baseline", [], "Also train these, which the search has scored; rho leaves them out.")
flags.DEFINE_integer(
    "seeds", 1, "Trainings of each: with --seed, --seed + 1, ...; their mean is ranked.", lower_bound=1
)
flags.DEFINE_string("test_split", None, "Also score on this split; it is shown and never ranked by.")
flags.DEFINE_string("storage", None, "Database URL of the study (default: sqlite:///RUN/study.db).")
flags.DEFINE_string("study_name", "search", "Name of the study in its storage.")
flags.DEFINE_enum("strategy", "auto", ("auto", "none", "one_device", "mirrored"), "Devices.")
train_flags.define()


def main() -> None:
    train_config = train_flags.read()
    if not FLAGS.run_dir or not FLAGS.dataset_dir:
        raise InputError("--run_dir and --dataset_dir: expected two folders")
    given = {field.name: FLAGS[field.name].value for field in dataclasses.fields(rerank.Rerank)}
    settings = rerank.Rerank(**given | {"baseline": tuple(given["baseline"])})
    found = rerank.rerank(settings, train_config)
    second_stage.show(found)
    best = second_stage.winner(found.candidates)
    print(f"written: {settings.folder / rerank.FILE}")
    if best is not None:
        print(f"best cell: {settings.folder / 'genotype.json'}")
        print(f"next: python tools/eval.py --run_dir={best.trainings[0].run_dir}")


if __name__ == "__main__":
    app.run(main)
