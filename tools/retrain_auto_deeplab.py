"""Trains the network of a gradient search, random networks of the same space and baselines, all at one budget.

python tools/retrain_auto_deeplab.py --run_dir=runs/auto_deeplab --dataset_dir=records/camvid \\
    --random_architectures=4 --filter_multiplier=8 --training_number_of_steps=2000 --train_crop_size=321,321 \\
    --base_learning_rate=0.05 --test_split=test

Writes RUN/retrain/: retrain.json, the genotypes, a run folder NAME_seedSEED of each training. The same command goes on
where it stopped; --random_architectures, --baseline, --seeds and --test_split may ask for more. Every run folder is
one of tools/train.py's: eval.py, vis.py and export_model.py read it.
"""

from __future__ import annotations

import dataclasses

from absl import flags

from nas_seg import auto_deeplab_retrain, train_flags
from nas_seg.auto_deeplab import retraining
from nas_seg.utils import app
from nas_seg.utils.errors import InputError

FLAGS = flags.FLAGS
flags.DEFINE_string("run_dir", None, "Run folder of the search, from tools/search_auto_deeplab.py.")
flags.DEFINE_string("dataset_dir", None, "Folder with dataset.json and shards, from tools/build_data.py.")
flags.DEFINE_string("output_dir", None, "Folder for everything (default: RUN/retrain).")
flags.DEFINE_integer("random_architectures", 4, "How many draws from the searched space are trained.", lower_bound=0)
flags.DEFINE_integer("random_seed", 0, "Of the draws: draw i has this and i as its seed.", lower_bound=0)
flags.DEFINE_list("baseline", ["deeplabv3plus_mobilenet_v2"], "Presets that are trained, too.")
flags.DEFINE_integer("seeds", 1, "Trainings of each: with --seed, --seed + 1, ...; their mean counts.", lower_bound=1)
flags.DEFINE_string("test_split", None, "Also score on this split.")
flags.DEFINE_integer("filter_multiplier", 20, "F of the searched and the random networks.", lower_bound=1)
flags.DEFINE_bool("allow_unfinished", False, "Take the latest network of a search that has not come to its end.")
flags.DEFINE_enum("strategy", "auto", ("auto", "none", "one_device", "mirrored"), "Devices.")
train_flags.define()


def main() -> None:
    train_config = train_flags.read()
    if not FLAGS.run_dir or not FLAGS.dataset_dir:
        raise InputError("--run_dir and --dataset_dir: expected two folders")
    given = {field.name: FLAGS[field.name].value for field in dataclasses.fields(auto_deeplab_retrain.Retrain)}
    settings = auto_deeplab_retrain.Retrain(**given | {"baseline": tuple(given["baseline"])})
    retraining.show(auto_deeplab_retrain.retrain(settings, train_config))
    print(f"written: {settings.folder / retraining.FILE}")
    print(f"next: python tools/report.py --run_dir={FLAGS.run_dir}")


if __name__ == "__main__":
    app.run(main)
