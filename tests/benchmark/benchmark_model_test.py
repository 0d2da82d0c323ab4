"""Networks of the zoo are timed on what they are said to be timed on."""

import pytest

import nas_seg
from nas_seg.benchmark import model, tables, timing
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


def test_actions_take_turns():
    order = []
    timings = timing.time_in_turns({name: lambda name=name: order.append(name) for name in "ab"}, repetitions=2)
    assert order == ["a", "b"] * 3
    assert timings.keys() == {"a", "b", timing.GEMM} and timings["a"].fastest <= timings["a"].median
