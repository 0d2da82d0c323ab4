"""The input pipeline is timed beside decoding of the same files."""

import pytest
import tensorflow as tf

from nas_seg.benchmark import pipeline, tables
from nas_seg.datasets import build_data, synthetic
from nas_seg.utils.errors import InputError


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "streets"
    build_data.build(synthetic.make_source((4, 2), (48, 65), 0), folder, num_shards=1)
    return folder


def test_rates_and_their_ratio_are_those_of_the_medians(records, capsys):
    row = pipeline.time_pipeline(records, "train", (33, 33), 2, repetitions=3, batches=2)
    assert row.images == 4 and row.threads >= 1
    assert row.images_per_second == pytest.approx(4 / row.pipeline.median)
    assert row.ratio == pytest.approx(row.images_per_second / row.decoded_per_second)
    assert row.ratio_with_labels == pytest.approx(row.decoding.median / row.pipeline.median)
    need = pipeline.NeedRow("net", row.pipeline, 10.0, row.images_per_second / 10.0)
    pipeline.show(row, [need])
    assert f"goal {pipeline.RATIO_GOAL}" in " ".join(capsys.readouterr().out.split())
    assert tables.to_json(row)["ratio"] == row.ratio


def test_a_need_is_the_pictures_of_a_step_in_its_seconds(monkeypatch, records):
    timing = pipeline.Timing(0.5, 0.5, 0.5, 1.0)
    row = pipeline.PipelineRow("train", (33, 33), 2, 1, 8, timing, timing, timing)
    asked = []

    def time_models(*arguments, training):
        asked.append((*arguments, training))
        return [pipeline.model.ModelRow("net", (33, 33), 2, True, 1.0, timing, timing, 1.0)]

    monkeypatch.setattr(pipeline.model, "time_models", time_models)
    (need,) = pipeline.time_needs(row, ["net"], 8, 3)
    assert asked == [(["net"], 8, (33, 33), 3, 2, True)]
    # Sixteen pictures a second out of the pipeline, four into the network.
    assert (need.images_per_second, need.supply) == (4.0, 4.0)


@pytest.mark.parametrize(("has_label", "channels"), [(False, 3), (True, 3 + 1)])
def test_decoding_sees_every_picture_and_with_labels_every_label(records, has_label, channels):
    decoded = pipeline._decoding(records, "train", 2, has_label).take(2)
    assert [int(n) for batch in decoded for n in tf.unstack(batch)] == [48 * 65 * channels] * 4


def test_an_unknown_split_is_named(records):
    with pytest.raises(InputError, match="unknown split 'trian'"):
        pipeline.time_pipeline(records, "trian", (33, 33), 2)
