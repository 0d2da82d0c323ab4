"""Networks of the zoo are timed on what they are said to be timed on."""

import importlib.util
import sys

import pytest

import nas_seg
from nas_seg.benchmark import model, tables, timing
from nas_seg.benchmark.network_process import STEPS
from nas_seg.utils.errors import InputError
from nas_seg.utils.flops import count_madds


def test_a_row_tells_units_and_speed_of_the_operations_counted():
    (row,) = model.time_models(["mobilenet_v2_035"], 5, (65, 97), repetitions=1)
    assert row.gflop == pytest.approx(2e-9 * count_madds(nas_seg.from_preset("mobilenet_v2_035", 5), 65, 97))
    assert row.units == row.timing.median / row.gemm.median
    speed = row.gflop * 1e9 / row.timing.median
    assert row.share_of_gemm == pytest.approx(speed / (timing.GEMM_FLOPS / row.gemm.median))
    # TensorFlow alone holds more than a tenth of a GiB.
    assert row.peak_gib > 0.1
    assert tables.to_json(row)["units"] == row.units


def test_a_training_step_counts_three_passes_of_all_pictures():
    (row,) = model.time_models(["mobilenet_v2_035"], 5, (33, 49), repetitions=1, batch_size=2, training=True)
    assert row.gflop == pytest.approx(2 * 3 * 2e-9 * count_madds(nas_seg.from_preset("mobilenet_v2_035", 5), 33, 49))
    assert row.training and row.batch_size == 2 and row.timing.median > 0
    tables.show_models([row])


def test_the_steps_of_a_peer_take_turns_with_ours(tmp_path):
    """The peer is a script that says what it was asked for, and answers as often as it is asked."""
    script = tmp_path / "python"
    script.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n'
        """echo '{"peak_mib": 512}'\nwhile read _; do echo '{"peak_mib": 1024}'; done\n"""
    )
    script.chmod(0o755)
    rows = model.time_models(["template_arch0"], 5, (33, 49), 1, batch_size=2, training=True, peer_python=script)
    assert [row.name for row in rows] == ["template_arch0", *(f"template_arch0, {what}" for what in STEPS)]
    assert [row.peak_gib for row in rows[1:]] == [1.0, 1.0] and rows[0].peak_gib > 0.1
    assert len({(row.gflop, row.gemm) for row in rows}) == 1
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == [f"-m nas_seg.benchmark.network_process {what} arch0:5:2 33 49" for what in STEPS]


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="this Python is a peer")
@pytest.mark.parametrize(("python", "words"), [(sys.executable, "No module named 'torch'"), ("/no/python", "No such")])
def test_a_peer_without_torch_is_one_line(python, words):
    with pytest.raises(InputError, match=f"{python}: expected a Python with torch .*{words}"):
        model.time_models(["template_arch0"], 5, (9, 9), 1, training=True, peer_python=python)


@pytest.mark.parametrize(
    ("preset", "training", "message"),
    [
        ("template_arch0", False, "expected training beside it"),
        ("mobilenet_v2_035", True, r"expected presets template_\*, received mobilenet_v2_035"),
    ],
)
def test_a_peer_is_refused_where_it_has_no_such_step(preset, training, message):
    with pytest.raises(InputError, match=f"peer_python: {message}"):
        model.time_models([preset], 5, (9, 9), 1, training=training, peer_python="python")


def test_actions_take_turns():
    order = []
    timings = timing.time_in_turns({name: lambda name=name: order.append(name) for name in "ab"}, repetitions=2)
    assert order == ["a", "b"] * 3
    assert timings.keys() == {"a", "b", timing.GEMM} and timings["a"].fastest <= timings["a"].median
