"""Times what the library does on this machine, each beside the machine's own matrix product in the same run.

python tools/benchmark.py --proxy --run_dir=runs/search

python tools/benchmark.py --model --preset=mobilenet_v2,dpc_mobilenet_v2

python tools/benchmark.py --supernet --crop_size=129,129 --batch_size=2 --json=supernet.json

--proxy: the proxy task of a search. A step of ASPP and of the published cell in float32 and in mixed_bfloat16; a trial
from cached features, with the frozen backbone in each step, and end to end; a search by one and by two processes.
--model: networks of the zoo, the labels of pictures or, with --training, a training step; then --peer_python names an
environment with torch, whose steps of the same template networks are timed in turns with them.
--supernet: a step of the weights and one of alpha and beta of Auto-DeepLab's supernet.
--latency: networks of --preset, or the trained one of --run_dir, in every format of --formats: median, p95, memory of a
process that runs this file alone. --peer_python names an environment with torch and torchvision to compare with.
--pipeline: the input pipeline of a training on --dataset_dir beside decoding the same files, and beside what a training
step of --preset takes in.
--search: the search without its trials: what the study adds to one, trials an hour by one and by two processes, the
seconds until a study of a thousand trials goes on; in a file, or in the database of --storage. It needs no TensorFlow.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from typing import Any

from absl import flags

from nas_seg import export_formats
from nas_seg.search.storage import shown_url
from nas_seg.utils import app, config, runs
from nas_seg.utils.errors import InputError, unknown

FLAGS = flags.FLAGS
flags.DEFINE_boolean("proxy", False, "Time the proxy task of --run_dir.")
flags.DEFINE_string("run_dir", None, "--proxy: of a search with tools/search_dpc.py; --latency: of a training.")
flags.DEFINE_integer("repetitions", 9, "Timed steps of each kind, in turns.", lower_bound=1)
flags.DEFINE_integer("uncached_steps", 5, "Timed steps of the ways without a cache.", lower_bound=1)
flags.DEFINE_list("workers", ["1", "2"], "Numbers of processes to search with; empty: no such search.")
flags.DEFINE_integer("worker_trials", None, "Trials of each process: 4 for --proxy, 20 for --search.", lower_bound=1)
flags.DEFINE_boolean("model", False, "Time the networks of --preset.")
flags.DEFINE_list("preset", ["mobilenet_v2", "dpc_mobilenet_v2"], "Networks of the zoo.")
flags.DEFINE_list("size", ["513", "513"], "height,width of the pictures of --model and --latency.")
flags.DEFINE_boolean("training", False, "With --model: time a training step and not the labels.")
flags.DEFINE_integer("num_classes", None, "Of the networks: 21; of the supernet: 19.", lower_bound=1)
flags.DEFINE_boolean("latency", False, "Time the networks of --preset, or of --run_dir, in every format of --formats.")
flags.DEFINE_list("formats", None, "Of tools/export_model.py (default: all whose packages are installed).")
flags.DEFINE_string(
    "peer_python",
    None,
    "With --latency: a Python with torch and torchvision, to time its DeepLabv3, too; with --model --training: "
    "one with torch, to time steps of template networks.",
)
flags.DEFINE_boolean("supernet", False, "Time the steps of Auto-DeepLab's supernet.")
flags.DEFINE_list("crop_size", ["129", "129"], "height,width of the supernet's pictures.")
flags.DEFINE_integer("num_layers", 12, "Of the supernet.", lower_bound=1)
flags.DEFINE_integer("filters", 8, "F of the supernet.", lower_bound=1)
flags.DEFINE_integer("blocks", 5, "B of the supernet.", lower_bound=1)
flags.DEFINE_integer("batch_size", None, "Pictures at once: 1 for --model, 2 for --supernet.", lower_bound=1)
flags.DEFINE_boolean("shared_weights", True, "Cells entered from different levels share weights.")
flags.DEFINE_boolean("recompute", False, "Compute cells again for the gradient: less memory, more time.")
flags.DEFINE_boolean("separate_graphs", False, "Steps of alpha and beta have a graph of their own, see the search.")
flags.DEFINE_boolean("pipeline", False, "Time the input pipeline of a training on --dataset_dir.")
flags.DEFINE_string("dataset_dir", None, "With --pipeline: folder with dataset.json and shards.")
flags.DEFINE_string("train_split", "train", "With --pipeline: its split.")
flags.DEFINE_list("train_crop_size", ["321", "321"], "height,width of the crops of --pipeline.")
flags.DEFINE_integer("train_batch_size", 8, "Pictures a batch of --pipeline.", lower_bound=1)
flags.DEFINE_boolean("search", False, "Time a search whose trials take a fixed time.")
flags.DEFINE_string("storage", None, "Database URL for --search (default: a file that is thrown away).")
flags.DEFINE_float("sleep_seconds", 0.2, "Of a trial of --search, with --workers.", lower_bound=0.001)
flags.DEFINE_list("study_trials", ["0", "1000"], "Trials in the studies that --search goes on with; may be empty.")
flags.DEFINE_float("trial_seconds", 60.0, "Of the real trial that the study's overhead is a share of.", 0.001)
flags.DEFINE_string("output", None, "Write the figures to this JSON file, too.")
flags.DEFINE_alias("json", "output")


def main() -> None:
    modes = {
        "proxy": _time_proxy,
        "model": _time_models,
        "latency": _time_latency,
        "supernet": _time_supernet,
        "pipeline": _time_pipeline,
        "search": _time_search,
    }
    wanted = [name for name in modes if FLAGS[name].value]
    if len(wanted) != 1:
        raise InputError(f"expected one of {', '.join('--' + name for name in modes)}")
    figures = modes[wanted[0]]()
    if FLAGS.output:
        facts = {"format_version": config.FORMAT_VERSION, "mode": wanted[0]} | runs.circumstances()
        config.write_json(FLAGS.output, facts | figures)
        print(f"written: {FLAGS.output}")


def _time_proxy() -> dict[str, Any]:
    if not FLAGS.run_dir:
        raise InputError("--run_dir: expected the run folder of a search")
    workers = _numbers("workers", 1)
    runs.read_config(FLAGS.run_dir)  # Before the seconds that TensorFlow takes.
    app.import_tensorflow()
    from nas_seg.benchmark import proxy, tables
    from nas_seg.dpc_task import read_task

    result = proxy.measure(
        read_task(FLAGS.run_dir),
        FLAGS.run_dir,
        pathlib.Path(__file__).with_name("search_dpc.py"),
        FLAGS.repetitions,
        FLAGS.uncached_steps,
        workers,
        FLAGS.worker_trials or 4,
    )
    tables.show_proxy(result)
    return {"run_dir": os.path.abspath(FLAGS.run_dir)} | tables.to_json(result)


def _time_models() -> dict[str, Any]:
    size = app.height_width("size", FLAGS.size)
    app.import_tensorflow()
    from nas_seg.benchmark import model, tables

    _check_presets(FLAGS.preset)
    num_classes, batch_size = FLAGS.num_classes or 21, FLAGS.batch_size or 1
    try:
        rows = model.time_models(
            FLAGS.preset, num_classes, size, FLAGS.repetitions, batch_size, FLAGS.training, FLAGS.peer_python
        )
    except InputError as error:
        raise InputError(f"--{error}" if str(error).startswith("peer_python") else str(error)) from None
    tables.show_models(rows)
    return {"models": tables.to_json(rows)}


def _time_latency() -> dict[str, Any]:
    size = app.height_width("size", FLAGS.size)
    formats = export_formats.installed() if FLAGS.formats is None else FLAGS.formats
    try:
        export_formats.check(formats, size)
    except InputError as error:
        flag, _, message = str(error).partition(": ")
        raise InputError(f"--{'formats' if flag == 'format' else 'size'}: {message}") from None
    if FLAGS.run_dir:
        runs.find_weights(FLAGS.run_dir)
    app.import_tensorflow()
    import nas_seg
    from nas_seg.benchmark import latency, tables
    from nas_seg.utils.progress import progress

    presets = FLAGS.preset if FLAGS["preset"].present or not FLAGS.run_dir else []
    _check_presets(presets)
    networks = {name: functools.partial(nas_seg.from_preset, name, FLAGS.num_classes or 21) for name in presets}
    if FLAGS.run_dir:
        networks[FLAGS.run_dir] = functools.partial(nas_seg.load, FLAGS.run_dir)
    with progress("latency", len(networks) + bool(FLAGS.peer_python)) as bar:
        rows = latency.time_networks(networks, formats, size, FLAGS.repetitions, FLAGS.peer_python, advance=bar.advance)
    latency.show(rows)
    return {"networks": tables.to_json(rows)}


def _time_supernet() -> dict[str, Any]:
    crop_size = app.height_width("crop_size", FLAGS.crop_size)
    app.import_tensorflow()
    from nas_seg.auto_deeplab.supernet import Supernet, configure_process
    from nas_seg.benchmark import supernet, tables
    from nas_seg.utils.tracing import quick_tracing

    configure_process()
    net = Supernet(
        FLAGS.num_classes or 19,
        FLAGS.num_layers,
        FLAGS.blocks,
        FLAGS.filters,
        shared_weights=FLAGS.shared_weights,
        recompute=FLAGS.recompute,
    )
    with quick_tracing():
        row = supernet.time_supernet(net, crop_size, FLAGS.batch_size or 2, FLAGS.repetitions, FLAGS.separate_graphs)
    tables.show_supernet(row)
    return tables.to_json(row)


def _time_pipeline() -> dict[str, Any]:
    crop_size = app.height_width("train_crop_size", FLAGS.train_crop_size)
    if not FLAGS.dataset_dir:
        raise InputError("--dataset_dir: expected a folder")
    from nas_seg.datasets.descriptors import read_descriptor

    descriptor = read_descriptor(FLAGS.dataset_dir, FLAGS.train_split)
    app.import_tensorflow()
    from nas_seg.benchmark import pipeline, tables

    _check_presets(FLAGS.preset)
    size = FLAGS.train_batch_size
    row = pipeline.time_pipeline(FLAGS.dataset_dir, FLAGS.train_split, crop_size, size, FLAGS.repetitions)
    needs = pipeline.time_needs(row, FLAGS.preset, descriptor.num_classes, FLAGS.repetitions) if FLAGS.preset else []
    pipeline.show(row, needs)
    facts = {"dataset_dir": os.path.abspath(FLAGS.dataset_dir), "ratio_goal": pipeline.RATIO_GOAL}
    return facts | tables.to_json(row) | {"needs": tables.to_json(needs)}


def _time_search() -> dict[str, Any]:
    workers, sizes = _numbers("workers", 1), _numbers("study_trials", 0)
    from nas_seg.benchmark import search

    trials, seconds = FLAGS.worker_trials or 20, FLAGS.trial_seconds
    result = search.measure(FLAGS.storage, workers, trials, FLAGS.sleep_seconds, sizes, seconds)
    search.show(result, seconds)
    rows = {name: [dataclasses.asdict(row) for row in rows] for name, rows in result.items()}
    return {"storage": shown_url(FLAGS.storage) if FLAGS.storage else "sqlite", "trial_seconds": seconds} | rows


def _check_presets(names: list[str]) -> None:
    import nas_seg

    for name in names:
        if name not in nas_seg.list_presets():
            raise unknown("--preset", name, nas_seg.list_presets())


def _numbers(flag: str, least: int) -> list[int]:
    """The whole numbers of a list flag."""
    words = FLAGS[flag].value
    if not all(word.isdecimal() and int(word) >= least for word in words):
        raise InputError(f"--{flag}: expected whole numbers above {least - 1}, received {','.join(words)!r}")
    return [int(word) for word in words]


if __name__ == "__main__":
    app.run(main)
