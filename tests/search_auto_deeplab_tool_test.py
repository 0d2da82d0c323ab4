"""tools/search_auto_deeplab.py: searches, survives Ctrl-C and a kill bit for bit, refuses what does not fit."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from case import REPOSITORY

from nas_seg import auto_deeplab_search
from nas_seg.auto_deeplab import decode, search_run
from nas_seg.auto_deeplab.genotype import AutoDeepLabGenotype
from nas_seg.auto_deeplab.search_config import SearchConfig
from nas_seg.datasets import build_data, synthetic
from nas_seg.utils import runs
from nas_seg.utils.errors import InputError

TINY = SearchConfig(
    num_layers=2,
    num_blocks=1,
    filters=2,
    crop_size=(33, 33),
    batch_size=2,
    val_images=3,
    epochs=4,
    steps_per_epoch=3,
    save_interval_steps=1,
)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "streets"
    build_data.build(synthetic.make_source((9, 4), (72, 96), 0), folder, num_shards=2)
    return folder


@pytest.fixture(scope="module")
def searched(records, tmp_path_factory):
    """A search that nobody interrupted."""
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    subprocess.run(_command(records, run_dir), cwd=REPOSITORY, check=True)
    return run_dir


def _command(records, run_dir, *arguments):
    fields = {name: value for name, value in dataclasses.asdict(TINY).items() if value is not None}
    words = {k: ",".join(map(str, v)) if isinstance(v, tuple) else v for k, v in fields.items()}
    flags = [f"--{name}={value}" for name, value in words.items()]
    tool = [sys.executable, "tools/search_auto_deeplab.py"]
    return [*tool, *flags, f"--dataset_dir={records}", f"--run_dir={run_dir}", *arguments]


def _refuse(*arguments):
    done = subprocess.run(_command(*arguments), cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    return done.stderr.splitlines()[-1]


def _state(run_dir):
    with np.load(run_dir / search_run.STATE) as file:
        return {name: file[name] for name in file.files if name != "number_seconds"}


def _rows(run_dir):
    rows = runs.read_metrics(run_dir)
    return [{k: v for k, v in row.items() if k not in ("seconds", "peak_gib")} for row in rows]


def _signal_after(process, run_dir, step, number):
    """Sends a signal once the checkpoint of a step is there."""
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline and process.poll() is None:
        if (run_dir / search_run.STATE).exists() and int(_state(run_dir)["number_step"]) >= step:
            process.send_signal(number)
            return
        time.sleep(0.02)
    raise AssertionError(f"no checkpoint of step {step}")


def test_every_epoch_is_decoded_and_scored(searched):
    rows = _rows(searched)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4] and [row["step"] for row in rows] == [3, 6, 9, 12]
    assert [row["architecture_steps"] for row in rows] == [0, 0, 3, 6]
    for row in rows:
        genotype, alpha, beta = search_run.read_epoch(searched, row["epoch"])
        assert decode.decode(alpha, beta) == genotype and row["genotype"] == genotype.summary()
        assert 0 <= row["val_miou"] <= 1 and row["margin"] >= 0
        assert row["alpha_entropy"] == pytest.approx(decode.entropies(alpha, beta).alpha)
        assert (row["architecture_loss"] is None) == (row["epoch"] <= 2)
    assert AutoDeepLabGenotype.load(searched / "genotype.json") == genotype
    assert search_run.finished_genotype(searched) == searched / "genotype.json"
    np.testing.assert_array_equal(decode.read_logits(searched)[0], alpha)
    assert "Epoch 4 of 4" in (searched / "report.html").read_text()


def test_alpha_and_beta_stay_for_the_frozen_epochs_and_move_then(searched):
    logits = [search_run.read_epoch(searched, epoch)[1:] for epoch in (1, 2, 3, 4)]
    for array in range(2):
        np.testing.assert_array_equal(logits[0][array], logits[1][array])
        assert np.abs(logits[1][array] - logits[2][array]).max() > 1e-3
        assert np.abs(logits[2][array] - logits[3][array]).max() > 1e-3


def test_the_halves_are_stored_disjoint_and_whole(searched):
    split = json.loads((searched / "split.json").read_text())
    assert sorted(split["train_a"] + split["train_b"]) == list(range(9))
    assert len(split["train_a"]) == 5 and split["format_version"] == 1


def test_a_search_stopped_and_killed_ends_bit_for_bit_as_an_uninterrupted_one(records, searched, tmp_path):
    run_dir = tmp_path / "run"
    stopped = subprocess.Popen(_command(records, run_dir), cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    _signal_after(stopped, run_dir, 2, signal.SIGTERM)
    output, _ = stopped.communicate()
    assert stopped.returncode == 143 and "the same command goes on from there" in output
    halves = (run_dir / "split.json").read_bytes()
    step = int(_state(run_dir)["number_step"])
    assert 2 <= step < 12
    with pytest.raises(InputError, match="--allow_unfinished|not finished an epoch"):
        search_run.finished_genotype(run_dir)

    killed = subprocess.Popen(_command(records, run_dir), cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    _signal_after(killed, run_dir, max(step, 7) + 1, signal.SIGKILL)
    killed.wait()
    assert step < int(_state(run_dir)["number_step"]) < 12

    subprocess.run(_command(records, run_dir), cwd=REPOSITORY, check=True)
    assert (run_dir / "split.json").read_bytes() == halves == (searched / "split.json").read_bytes()
    assert _rows(run_dir) == _rows(searched)
    expected, received = _state(searched), _state(run_dir)
    assert received.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(received[name], value, err_msg=name)
    names = ["logits/epoch_003.npz", "genotypes/epoch_003.json", "alpha_beta.npz", "genotype.json"]
    assert all((run_dir / name).read_bytes() == (searched / name).read_bytes() for name in names)


def test_a_finished_search_is_not_searched_further(records, searched):
    before = (searched / search_run.STATE).stat().st_mtime_ns
    row = auto_deeplab_search.search(TINY, records, searched)
    assert row["epoch"] == 4 and (searched / search_run.STATE).stat().st_mtime_ns == before


def test_halves_of_other_pictures_are_refused(records, searched, tmp_path):
    run_dir = shutil.copytree(searched, tmp_path / "run")
    split = json.loads((run_dir / "split.json").read_text())
    for changes, message in (
        ({"digest": "0" * 12}, "halves of other pictures"),
        ({"train_b": split["train_a"]}, "all 9 records, each once"),
    ):
        (run_dir / "split.json").write_text(json.dumps(split | changes))
        with pytest.raises(InputError, match=f"split.json: .*{message}"):
            auto_deeplab_search.search(TINY, records, run_dir)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"batch_size": 5}, "--train_split: 'train' is too small to halve: expected at least 10 pictures"),
        ({"train_split": "trian"}, "unknown split 'trian'.*Did you mean 'train'"),
        ({"seed": 1}, "gradient_search.seed: this run has 0, received 1"),
        ({"epochs": 5}, "gradient_search.epochs: this run has 4, received 5"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(records, searched, changes, message):
    with pytest.raises(InputError, match=message):
        auto_deeplab_search.search(dataclasses.replace(TINY, **changes), records, searched)


def test_the_tool_refuses_in_one_line_and_writes_nothing(records, tmp_path):
    for arguments, message in (
        (("--crop_size=33",), "--crop_size: expected height,width, received 33"),
        (("--preset=labtop",), "Did you mean 'laptop'"),
        (("--frozen_epochs=4",), "--frozen_epochs: expected 0 or more and fewer than epochs 4"),
        (("--memory_gib=0.5",), "expected at most --memory_gib=0.5"),
        (("--batch_size=8",), "too small to halve"),
    ):
        line = _refuse(records, tmp_path / "run", *arguments)
        assert line.startswith("error: ") and message in line, line
    assert not (tmp_path / "run").exists()


def test_the_memory_is_estimated_without_a_search(records, tmp_path):
    command = _command(records, tmp_path / "run", "--estimate_memory")
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("memory: about ") and "GiB" in done.stdout
    assert not (tmp_path / "run").exists()
