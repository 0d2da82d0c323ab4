"""Searches a network by gradient descent (Auto-DeepLab): cells and path at once, on two halves of a training split.

python tools/search_auto_deeplab.py --preset=laptop --dataset_dir=records/camvid --run_dir=runs/auto_deeplab

Writes RUN/genotype.json and report.html after every epoch; beside them config.json, split.json, metrics.jsonl, the
network and the logits of each epoch, and for TensorBoard, where it is installed, RUN/tensorboard. The same command goes
on where it stopped. --preset is a table of defaults; every other flag wins over it.
"""

from __future__ import annotations

import dataclasses
import typing

from absl import flags

from nas_seg import auto_deeplab_search
from nas_seg.auto_deeplab.search_config import PRESETS, SearchConfig, make_config
from nas_seg.auto_deeplab.search_run import GENOTYPE
from nas_seg.utils import app
from nas_seg.utils.errors import InputError

FLAGS = flags.FLAGS
flags.DEFINE_string("run_dir", None, "Folder of the search; made where it is missing, gone on with where it is not.")
flags.DEFINE_string("dataset_dir", None, "Folder with dataset.json and shards, from tools/build_data.py.")
flags.DEFINE_string("preset", "paper", f"Defaults of the flags below: {' or '.join(PRESETS)}.")
flags.DEFINE_bool("estimate_memory", False, "Only print how much memory the search would take; nothing is written.")
flags.DEFINE_float("memory_gib", None, "Refuse a search that would take more than so many GiB.", lower_bound=0.0)

_DEFINE = {
    bool: flags.DEFINE_boolean,
    int: flags.DEFINE_integer,
    int | None: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
    tuple[int, int]: flags.DEFINE_list,
}


def _define() -> None:
    """A flag for every field of SearchConfig; without a default of its own, for those are the preset's."""
    kinds = typing.get_type_hints(SearchConfig)
    for field in dataclasses.fields(SearchConfig):
        values = {name: _words(row.get(field.name, field.default)) for name, row in PRESETS.items()}
        if field.default is None:
            default = ""
        elif len(set(values.values())) == 1:
            default = f" (default: {_words(field.default)})"
        else:
            default = f" ({', '.join(f'{name}: {value}' for name, value in values.items())})"
        text = field.metadata["help"]
        _DEFINE[kinds[field.name]](field.name, None, f"{text[:1].upper()}{text[1:]}{default}.")


def _words(value: typing.Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


_define()


def main() -> None:
    given = {field.name: FLAGS[field.name].value for field in dataclasses.fields(SearchConfig)}
    given = {name: value for name, value in given.items() if value is not None}
    if "crop_size" in given:
        given["crop_size"] = app.height_width("crop_size", given["crop_size"])
    try:
        config = make_config(FLAGS.preset, given)
    except InputError as error:
        raise InputError(str(error) if str(error).startswith("unknown") else f"--{error}") from None
    if not FLAGS.dataset_dir or not (FLAGS.run_dir or FLAGS.estimate_memory):
        raise InputError("--run_dir and --dataset_dir: expected two folders")
    if FLAGS.memory_gib is not None:
        auto_deeplab_search.check_memory(config, FLAGS.dataset_dir, FLAGS.memory_gib)
    print(f"memory: {auto_deeplab_search.estimate(config, FLAGS.dataset_dir).describe()}")
    if FLAGS.estimate_memory:
        return
    auto_deeplab_search.check(config, FLAGS.dataset_dir, FLAGS.run_dir)
    app.import_tensorflow()
    from nas_seg.auto_deeplab.supernet import configure_process
    from nas_seg.train import Diverged

    configure_process()
    try:
        row = auto_deeplab_search.search(config, FLAGS.dataset_dir, FLAGS.run_dir)
    except Diverged as error:
        raise InputError(f"--learning_rate, --architecture_learning_rate: {error}; lower ones may help") from None
    print(f"searched {row['step']} weight steps and {row['architecture_steps']} steps of alpha and beta")
    print(f"network: {FLAGS.run_dir}/{GENOTYPE}: {row['genotype']}")
    print(f"written: {FLAGS.run_dir}/report.html")
    print(f"next: python tools/retrain_auto_deeplab.py --run_dir={FLAGS.run_dir} --dataset_dir={FLAGS.dataset_dir} ...")


if __name__ == "__main__":
    app.run(main)
