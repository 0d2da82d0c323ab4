"""Exported files are timed by processes of their own, which tell what each took and held."""

import importlib.util
import sys

import numpy as np
import pytest
import training
from case import refuse

from nas_seg.benchmark import latency, network_process, tables
from nas_seg.benchmark.timing import GEMM_FLOPS, Timing
from nas_seg.utils.errors import InputError
from nas_seg.utils.flops import count_madds

GEMM = Timing(0.2, 0.1, 0.3, 0.4)


def row(seconds):
    return latency.LatencyRow("net", "tflite", "by", (33, 49), 2.0, 1.5, tuple(seconds), 0.5, GEMM, 99.0)


def test_a_row_tells_median_p95_and_the_share_of_the_matrix_product():
    one = row(np.linspace(0.0, 0.1, 101))
    assert one.median == pytest.approx(0.05) and one.p95 == pytest.approx(0.095)
    assert one.units == pytest.approx(0.25) and one.gflop_per_second == pytest.approx(40)
    assert one.share_of_gemm == pytest.approx(40e9 / (GEMM_FLOPS / 0.2))
    assert tables.to_json(one)["p95"] == one.p95
    latency.show([one])


def test_a_file_is_timed_in_a_process_whose_memory_is_its_own():
    advanced = []
    (one,) = latency.time_networks(
        {"tiny": training.tiny_model}, ["tflite"], (33, 49), repetitions=3, advance=lambda: advanced.append(1)
    )
    assert (one.name, one.format, one.size) == ("tiny", "tflite", (33, 49)) and advanced == [1]
    assert len(one.seconds) == 3 and 0 < one.median <= one.p95 <= max(one.seconds)
    assert one.gflop == pytest.approx(2e-9 * count_madds(training.tiny_model(), 33, 49))
    # This process holds TensorFlow, the network, its conversion and the matrices; the child an interpreter.
    assert 10 < one.peak_mib < network_process._peak_mib()
    assert one.run_by.split()[0] in ("tensorflow", "ai-edge-litert") and one.megabytes < 0.1


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="this Python is a peer")
def test_a_peer_that_cannot_run_is_one_line_with_its_last_words():
    for python, words in [(sys.executable, "No module named 'torch'"), ("/no/python", "No such file")]:
        with pytest.raises(InputError, match=f"{python}: expected a Python with torch and torchvision .*{words}"):
            latency.time_networks({}, ["tflite"], (9, 9), peer_python=python)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--formats=tflight"], "--formats: unknown format 'tflight'"),
        (["--formats=tflite", "--size=0,9"], "--size: expected two sizes of 1 or more, received 0,9"),
        (["--run_dir=none"], "none"),
        pytest.param(
            ["--formats=onnx"],
            "--formats: onnx needs the package tf2onnx: pip install 'nas_seg[onnx]'",
            marks=pytest.mark.skipif(importlib.util.find_spec("tf2onnx") is not None, reason="tf2onnx is installed"),
        ),
    ],
)
def test_what_cannot_be_timed_is_one_line(arguments, message):
    assert message in refuse("benchmark", "--latency", *arguments)
