"""SIGTERM and Ctrl-C end trainings and searches with 143 and 130 and without a traceback; a folder has one training."""

import signal
import subprocess
import sys

import numpy as np
import pytest
import training
from case import REPOSITORY
from table_problem import WordSpace, evaluate
from trouble import FAULTS, exit_code, wait_until

from nas_seg import train
from nas_seg.datasets import build_data, synthetic
from nas_seg.search.loop import run_search
from nas_seg.search.samplers import make_sampler
from nas_seg.search.study import open_study, read_study, rewards
from nas_seg.utils import runs
from nas_seg.utils.errors import InputError

pytestmark = pytest.mark.faults

SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}
STEPS = 60


def start(*command):
    return subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def stop(process, number):
    """Sends a signal; the code that a shell would tell, once the process has complained of nothing."""
    process.send_signal(number)
    try:
        _, errors = process.communicate(timeout=240)
    finally:
        process.kill()
    assert "Traceback" not in errors, errors
    return exit_code(process)


def last_checkpoint(run_dir):
    """The step of the newest checkpoint, 0 without any."""
    steps = [int(path.stem.removeprefix("step-")) for path in run_dir.glob("ckpt/step-*.index")]
    return max(steps, default=0)


def fit(run_dir, seed=0):
    model = training.tiny_model(seed=seed)
    settings = train.TrainConfig(**training.CONFIG | {"training_number_of_steps": STEPS, "log_steps": 1})
    train.fit(model, training.batches, settings, run_dir, ignore_label=training.IGNORE)
    return training.values(model)


def test_a_stopped_training_has_its_code_and_goes_on_and_a_second_one_in_its_folder_is_refused(tmp_path):
    run_dir, reached = tmp_path / "run", 0
    for number, code in SIGNALS.items():
        # A minute in all: a busy machine must find it still training after the refusal below.
        process = start(FAULTS / "training_worker.py", run_dir, STEPS, 1.0)
        try:
            wait_until(lambda before=reached: last_checkpoint(run_dir) > before, process)
            with pytest.raises(InputError, match="run: another process is training in this folder"):
                fit(run_dir)
            assert stop(process, number) == code
        finally:
            process.kill()
        reached = last_checkpoint(run_dir)
        assert 0 < reached < STEPS
    for received, expected in zip(fit(run_dir, seed=5), fit(tmp_path / "whole"), strict=True):
        np.testing.assert_array_equal(received, expected)


@pytest.mark.parametrize(("number", "code"), SIGNALS.items())
def test_a_stopped_search_has_its_code_and_goes_on_with_the_same_proposals(number, code, tmp_path):
    url, log, space = f"sqlite:///{tmp_path}/study.db", tmp_path / "log", WordSpace()
    process = start(FAULTS.parent / "services" / "search_worker.py", url, "search", 50, 0.3, "machine", log)
    wait_until(lambda: log.exists() and log.read_text().count("begun") > 2, process)
    assert stop(process, number) == code
    study = open_study(url, "search", space, make_sampler("near_best", space, 0))
    told = rewards(study)
    assert len(told) >= 2
    run_search(study, space, evaluate, num_trials=len(told) + 3, seed=0)
    whole = open_study(None, "search", space, make_sampler("near_best", space, 0))
    run_search(whole, space, evaluate, num_trials=len(told) + 3, seed=0)
    assert rewards(study) == rewards(whole)


# Each would take hours; and what counts how far it has come.
TOOLS = {
    "train": (
        ("--preset=mobilenet_v2_035", "--train_crop_size=33,33", "--train_batch_size=2", "--batch_norm_decay=0.5")
        + ("--training_number_of_steps=100000", "--save_interval_steps=2", "--log_steps=2"),
        last_checkpoint,
    ),
    "search_dpc": (
        ("--num_trials=10000", "--proxy_steps=2", "--proxy_batch_size=2", "--filters=4", "--depth_multiplier=0.35")
        + ("--num_branches=2", "--cache_size=33,33"),
        lambda run_dir: len(rewards(read_study(f"sqlite:///{run_dir}/study.db", "search"))),
    ),
    "search_auto_deeplab": (
        ("--crop_size=33,33", "--num_layers=2", "--num_blocks=1", "--filters=2", "--batch_size=2", "--val_images=2")
        + ("--epochs=10000", "--steps_per_epoch=3", "--save_interval_steps=1"),
        lambda run_dir: len(runs.read_metrics(run_dir)),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS)
def test_a_stopped_tool_has_its_code_and_the_same_command_goes_on(tool, tmp_path):
    build_data.build(synthetic.make_source((9, 2), (72, 96), 0), tmp_path / "data", num_shards=1)
    arguments, progress = TOOLS[tool]
    run_dir, reached = tmp_path / "run", 0

    def done():
        try:
            return progress(run_dir)
        except InputError:  # Nothing is there yet.
            return 0

    for number, code in SIGNALS.items():
        folders = (f"--dataset_dir={tmp_path / 'data'}", f"--run_dir={run_dir}")
        process = start(f"tools/{tool}.py", *folders, *arguments)
        wait_until(lambda before=reached: done() > before, process, seconds=600)
        assert stop(process, number) == code
        reached = done()
