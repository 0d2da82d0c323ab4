"""The supernet's steps are timed on what they are said to be timed on."""

import json
import subprocess
import sys

import pytest
import tensorflow as tf
from case import REPOSITORY

from nas_seg.auto_deeplab.supernet import Supernet
from nas_seg.benchmark import supernet


def test_each_step_changes_its_own_variables_alone():
    net = Supernet(3, 1, 1, 1)
    images, labels = tf.fill((1, 17, 17, 3), 50.0), tf.zeros((1, 17, 17), tf.int32)
    weight_step, arch_step = supernet.make_steps(net, images, labels)

    def values():
        return [v.numpy() for v in net.architecture_variables], [v.numpy() for v in net.weight_variables]

    before = values()
    first = weight_step()
    after_weights = values()
    assert _equal(before[0], after_weights[0]) and not _equal(before[1], after_weights[1])
    second = arch_step()
    after_both = values()
    assert not _equal(after_weights[0], after_both[0]) and _equal(after_weights[1], after_both[1])
    assert second < first, "a step of the weights lowers the loss on its own batch"


def _equal(some, others):
    return all((a == b).all() for a, b in zip(some, others, strict=True))


def test_tool_writes_seconds_memory_and_unit(tmp_path):
    path = tmp_path / "figures.json"
    sizes = ["--crop_size=17,33", "--num_layers=1", "--filters=1", "--blocks=1", "--batch_size=1", "--repetitions=1"]
    done = subprocess.run(
        [sys.executable, "tools/benchmark.py", "--supernet", *sizes, f"--json={path}"],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads(path.read_text())
    for name in ("weight_step_s", "arch_step_s", "gemm_s", "trace_s", "peak_gib"):
        assert figures[name] > 0, name
    assert figures["trace_s"] > figures["weight_step_s"], "the first step is traced"
    assert figures["weight_step_units"] == pytest.approx(figures["weight_step_s"] / figures["gemm_s"])
    assert figures["crop_size"] == [17, 33] and figures["mode"] == "supernet"
    assert figures["peak_gib_all"] >= figures["peak_gib"]


def test_tool_refuses_a_crop_that_is_none():
    done = subprocess.run(
        [sys.executable, "tools/benchmark.py", "--supernet", "--crop_size=0,33"],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and "--crop_size" in done.stderr.splitlines()[-1]
