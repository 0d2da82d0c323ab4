"""The whole path in minutes: records -> backbone -> search -> training -> scores -> pictures -> a deployable file.

python tools/quickstart.py                        on street scenes drawn by NumPy, nothing to download
python tools/quickstart.py --camvid_dir=DIR       on CamVid (a folder with train/, val/ and test/);
    --backbone_weights=FILE                       ... from ImageNet weights, not from a minute of training

Every step is a command of this library, printed as it is run; the same command goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shlex
import subprocess
import sys
import time

from absl import flags

from nas_seg.common import MAX_SEED
from nas_seg.utils import app, config
from nas_seg.utils.errors import InputError

FLAGS = flags.FLAGS
flags.DEFINE_string("output_dir", "runs/quickstart", "Folder for everything.")
flags.DEFINE_string("camvid_dir", None, "CamVid in place of drawn scenes.")
flags.DEFINE_string("backbone_weights", None, "In place of a trained backbone: imagenet, an .h5 file or a run folder.")
flags.DEFINE_boolean("short", False, "An eighth of the steps: shows that everything works, not how well.")
flags.DEFINE_integer("seed", 0, "Of everything that is drawn.", 0, MAX_SEED)

TOOLS = os.path.relpath(pathlib.Path(__file__).resolve().parent)
# Runs the exported network as somebody would who has TensorFlow and nothing of ours.
DEPLOYED = """
import os, sys
stderr = os.dup(2)
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # TensorFlow's start-up notices
import numpy as np, tensorflow as tf
os.dup2(stderr, 2)
network = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
image = np.random.default_rng(0).integers(0, 256, (1, 180, 240, 3), np.uint8)
labels = network(ImageTensor=tf.constant(image))["SemanticPredictions"].numpy()
assert "nas_seg" not in sys.modules and labels.shape == (1, 180, 240)
print(f"SavedModel: image {image.shape} {image.dtype} -> labels {labels.shape} {labels.dtype}, without nas_seg")
"""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much of everything.

    Attributes:
        crop: height,width of training crops.
        backbone: ending of the presets, by the backbone's width.
        backbone_steps, proxy_steps, train_steps: optimisation steps.
        seconds: of the steps below on two cores, for the time left.
        pictures: drawn for train, val and test.
    """

    crop: str
    backbone: str
    backbone_steps: int
    num_trials: int
    proxy_steps: int
    train_steps: int
    seconds: tuple[int, ...]
    pictures: str = "320,80,80"


DRAWN = Plan("145,193", "_035", 200, 12, 30, 60, (10, 55, 80, 40, 40, 11, 11, 10, 14, 6))
CAMVID = Plan("353,481", "_035", 60, 12, 100, 60, (8, 60, 300, 60, 60, 20, 20, 12, 10, 5))
# ImageNet weights are at their best at full width.
CAMVID_FROM_WEIGHTS = dataclasses.replace(CAMVID, backbone="")


def main() -> None:
    """Runs the steps one after the other, each in a process of its own."""
    if FLAGS.camvid_dir and not pathlib.Path(FLAGS.camvid_dir).is_dir():
        raise InputError(f"--camvid_dir: the folder {FLAGS.camvid_dir} does not exist")
    plan = DRAWN if not FLAGS.camvid_dir else CAMVID_FROM_WEIGHTS if FLAGS.backbone_weights else CAMVID
    if FLAGS.short:
        eighth = {name: getattr(plan, name) // 8 for name in ("backbone_steps", "proxy_steps", "train_steps")}
        seconds = tuple(s // 3 + 3 for s in plan.seconds)
        plan = dataclasses.replace(plan, num_trials=3, pictures="80,16,16", seconds=seconds, **eighth)
    out, start = pathlib.Path(FLAGS.output_dir), time.monotonic()
    steps = make_steps(plan, out)
    for number, (title, command) in enumerate(steps, start=1):
        if command is None:
            continue
        gone, left = time.monotonic() - start, sum(plan.seconds[number - 1 :])
        print(f"\n[{number}/{len(steps)}] {title} · {gone:.0f} s gone, about {left} s left on two cores")
        print(f"$ {shlex.join(['python', *command])}" if command[0] != "-I" else "$ python -I ...", flush=True)
        code = subprocess.run([sys.executable, *command]).returncode
        if code:
            raise InputError(f"step {number} ({title}) ended with exit code {code}; the same command goes on from here")
    report(out, time.monotonic() - start, more_trials=search_command(plan, out, num_trials=40))


def make_steps(plan: Plan, out: pathlib.Path) -> list[tuple[str, list[str] | None]]:
    """(title, command) of every step; None where there is nothing to do."""
    records, search = out / "records", out / "search"
    backbone = FLAGS.backbone_weights or str(out / "backbone")
    data, seed = f"--dataset_dir={records}", f"--seed={FLAGS.seed}"
    source = (
        ["--dataset=camvid", f"--source_dir={FLAGS.camvid_dir}"]
        if FLAGS.camvid_dir
        else ["--dataset=synthetic", f"--num_images={plan.pictures}", "--image_size=144,192", seed]
    )
    common = [data, seed, f"--train_crop_size={plan.crop}", "--save_interval_steps=50", "--eval_interval_steps=100000"]
    common += ["--min_scale_factor=1.0", "--max_scale_factor=1.25"]

    def train(name: str, steps: int, rate: float, *what: str) -> list[str]:
        numbers = [f"--training_number_of_steps={steps}", f"--base_learning_rate={rate}"]
        return tool("train", f"--run_dir={out / name}", *what, *common, *numbers)

    start = f"--backbone_weights={backbone}"
    # A fresh head on a trained backbone: the head learns fast, the backbone keeps what it knows.
    fine_tune = (start, "--last_layer_gradient_multiplier=10")
    return [
        ("pictures to records", tool("build_data", *source, f"--output_dir={records}")
         if not (records / "dataset.json").exists() else None),
        ("a small backbone, with a 1x1 head", train("backbone", plan.backbone_steps, 0.2, "--preset=mobilenet_v2_035")
         if not FLAGS.backbone_weights else None),
        ("search: random cells on its cached features", search_command(plan, out, plan.num_trials)),
        ("the best cell, trained with its backbone",
         train("found", plan.train_steps, 0.03, f"--genotype={search / 'genotype.json'}", *fine_tune)),
        ("ASPP, trained alike",
         train("aspp", plan.train_steps, 0.03, f"--preset=deeplabv3_mobilenet_v2{plan.backbone}", *fine_tune)),
        ("score of the cell", tool("eval", f"--run_dir={out / 'found'}", "--eval_split=test")),
        ("score of ASPP", tool("eval", f"--run_dir={out / 'aspp'}", "--eval_split=test")),
        ("pictures", tool("vis", f"--run_dir={out / 'found'}", "--vis_split=test", "--num_images=8")),
        ("a SavedModel", tool("export_model", f"--run_dir={out / 'found'}", f"--export_path={out / 'saved_model'}")),
        ("the SavedModel alone", ["-I", "-c", DEPLOYED, str(out / "saved_model")]),
    ]  # fmt: skip


def search_command(plan: Plan, out: pathlib.Path, num_trials: int) -> list[str]:
    """The search, until there are so many trials."""
    numbers = (f"--num_trials={num_trials}", f"--proxy_steps={plan.proxy_steps}", f"--seed={FLAGS.seed}")
    weights = FLAGS.backbone_weights or out / "backbone"
    return tool(
        "search_dpc",
        f"--run_dir={out / 'search'}",
        f"--dataset_dir={out / 'records'}",
        f"--backbone_weights={weights}",
        *numbers,
    )


def tool(name: str, *arguments: str) -> list[str]:
    """The command line of a tool, for Python."""
    return [os.path.join(TOOLS, f"{name}.py"), *arguments]


def report(out: pathlib.Path, seconds: float, more_trials: list[str]) -> None:
    """Prints the scores side by side, what was written, and what to do next."""
    from rich.console import Console
    from rich.table import Table

    found, aspp = (config.read_json(out / name / "eval_test.json") for name in ("found", "aspp"))
    table = Table("class", "found cell", "ASPP", title="IoU % on test", show_footer=True)
    for name, iou in found["class_iou"].items():
        table.add_row(name, percent(iou), percent(aspp["class_iou"][name]))
    for column, text in zip(table.columns, ("mean", percent(found["miou"]), percent(aspp["miou"])), strict=True):
        column.footer = text
    Console().print(table)
    print(f"done in {seconds:.0f} s. Written to {out}:")
    for path, what in (
        ("records/", "the data set as TFRecords, with dataset.json"),
        ("search/", "study.db, cached features, genotype.json: the best cell"),
        ("found/, aspp/", "run folders: config.json, metrics.jsonl, weights, eval_test.json"),
        ("found/vis_test/", "image | truth | prediction"),
        ("saved_model/", "the network for TensorFlow Serving and the like"),
    ):
        print(f"  {path:<17}{what}")
    print("next:")
    print(f"  python tools/leaderboard.py --run_dir={out}/search")
    print(f"  python tools/report.py --run_dir={out}/search --network_run={out}/found,{out}/aspp")
    print(f"  {shlex.join(['python', *more_trials])}")


def percent(share: float | None) -> str:
    """A share in per cent, or a word for a class that does not occur."""
    return "absent" if share is None else f"{100 * share:.1f}"


if __name__ == "__main__":
    app.run(main)
