import dataclasses

import numpy as np
import pytest
from small_data import CLASSES, build, pairs, save

from nas_seg.datasets import build_data, inspect, pictures, records
from nas_seg.datasets.source import Pair, Source
from nas_seg.utils.errors import InputError


@pytest.fixture
def odd_pairs(tmp_path) -> list[Pair]:
    """One good pair and one of each oddity."""
    image = save(tmp_path / "image.png", np.full((4, 6, 3), 90, np.uint8))
    good = np.array([[0, 1, 2, 3, 3, 255]] * 4, np.uint8)

    def pair(name: str, label: np.ndarray, **kwargs) -> Pair:
        return Pair(name, image, save(tmp_path / f"{name}.png", label, **kwargs))

    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    return [
        pair("good", good),
        pair("palette", good, palette=True),
        pair("mismatch", good[:2]),
        pair("outside", good + 4),
        pair("empty", np.full((4, 6), 255, np.uint8)),
        pair("colours", np.zeros((4, 6, 3), np.uint8)),
        Pair("broken", broken, None),
    ]


def test_each_oddity_is_told_with_its_file(odd_pairs):
    report = inspect.inspect(inspect.read_pairs(odd_pairs), CLASSES)
    assert (report.num_images, report.num_labels) == (7, 5)
    found = {kind: " ".join(texts) for kind, texts in report.warnings.items()}
    assert set(found) == {
        "palette label, its indices are read",
        "size mismatch",
        "values outside the classes",
        "empty mask, every pixel is ignored",
        "cannot be read",
    }
    assert "palette.png" in found["palette label, its indices are read"]
    assert "mismatch.png: the label is 2x6, its image 4x6" in found["size mismatch"]
    assert "outside.png: 4, 5, 6, 7" in found["values outside the classes"]
    assert "empty.png" in found["empty mask, every pixel is ignored"]
    assert "colours.png" in found["cannot be read"]
    assert "broken.png" in found["cannot be read"]


def test_what_the_builder_would_leave_out_is_counted_and_leaves_no_trace_when_skipped(odd_pairs):
    report = inspect.inspect(inspect.read_pairs(odd_pairs), CLASSES, skip_corrupt=True)
    refused = [pair.name for pair in odd_pairs if not _storable(pair)]
    assert report.num_refused == len(refused) == 4
    kept = inspect.inspect(inspect.read_pairs([pair for pair in odd_pairs if pair.name not in refused]), CLASSES)
    assert (report.counts, report.sizes, report.num_labels) == (kept.counts, kept.sizes, kept.num_labels)
    listed = "\n".join(inspect.describe(report, CLASSES, most=0, list_corrupt=True))
    assert all(f"{name}.png" in listed for name in refused)


def _storable(pair) -> bool:
    try:
        build_data.encode_pair(pair, Source(CLASSES, {}))
    except InputError:
        return False
    return True


def test_values_void_and_sizes_are_counted(odd_pairs):
    report = inspect.inspect(inspect.read_pairs(odd_pairs[:2]), CLASSES)
    # A palette's indices are counted, not its colours.
    assert report.counts == {0: 8, 1: 8, 2: 8, 3: 16, 255: 8}
    assert report.images_with == {0: 2, 1: 2, 2: 2, 3: 2, 255: 2}
    assert report.void_share(255) == pytest.approx(8 / 48)
    assert report.sizes == {(4, 6): 2}


def test_good_pictures_raise_no_warning(odd_pairs):
    report = inspect.inspect(inspect.read_pairs(odd_pairs[:1]), CLASSES)
    assert not report.warnings
    assert inspect.describe(report, CLASSES) == [
        "1 images, 1 labels",
        "sizes: 4x6 (1); mean 4.0 x 6.0",
        "void (label 255): 16.67%",
    ]


def test_long_lists_of_warnings_are_cut(odd_pairs):
    report = inspect.inspect(inspect.read_pairs(odd_pairs[4:5] * 9), CLASSES)
    lines = inspect.describe(report, CLASSES, most=2)
    assert "warning: empty mask, every pixel is ignored: 9" in lines
    assert lines[-1] == "  and 7 more"


def test_records_are_inspected_as_their_source_is(tmp_path):
    given = pairs([(6, 8), (9, 7)])
    folder = build(tmp_path / "out", train=given)
    one = inspect.inspect(inspect.read_pairs(given), CLASSES, show=2)
    two = inspect.inspect(inspect.read_records(folder, "train"), CLASSES, show=2)
    assert (one.counts, one.sizes, one.num_labels) == (two.counts, two.sizes, two.num_labels)
    np.testing.assert_array_equal(one.shown[1][1], two.shown[1][1])


def test_the_pictures_shown_are_spread_over_all():
    given = [inspect.Sample(str(i), np.full((2, 2, 3), i, np.uint8), None) for i in range(101)]
    shown = inspect.inspect(given, CLASSES, show=5).shown
    values = [int(image[0, 0, 0]) for image, _ in shown]
    assert len(values) == 5
    assert values == sorted(values)
    assert values[0] == 0
    assert values[-1] >= 80


def test_the_histogram_has_a_row_for_each_class_and_each_value_found(odd_pairs):
    report = inspect.inspect(inspect.read_pairs(odd_pairs[:1]), CLASSES)
    table = inspect.histogram(report, CLASSES, "title")
    assert list(table.columns[0].cells) == ["0", "1", "2", "3", "255"]
    assert list(table.columns[1].cells) == ["a", "b", "c", "d", "(ignored)"]


def test_with_any_value_a_class_only_those_found_have_rows(odd_pairs):
    anything = dataclasses.replace(
        CLASSES, num_classes=256, class_names=tuple(map(str, range(256))), colors=((0, 0, 0),) * 256
    )
    report = inspect.inspect(inspect.read_pairs(odd_pairs[:1]), anything)
    assert list(inspect.histogram(report, anything, "title").columns[0].cells) == ["0", "1", "2", "3", "255"]


def test_the_contact_sheet_shows_pictures_and_the_colours_of_their_labels(odd_pairs, tmp_path):
    # As wide as a cell, so that nothing is mixed.
    image, label = np.full((80, 240, 3), 77, np.uint8), np.full((80, 240), 1, np.uint8)
    report = inspect.inspect([inspect.Sample("x", image, label), inspect.Sample("y", image, None)], CLASSES, show=2)
    inspect.write_contact_sheet(tmp_path / "sheet.png", {"train": report}, CLASSES)
    sheet = pictures.decode_image((tmp_path / "sheet.png").read_bytes(), "sheet").array
    assert (sheet == 77).all(-1).sum() >= 2 * 80 * 240
    assert (sheet == (250, 0, 0)).all(-1).sum() >= 80 * 240


def test_damaged_records_are_listed_and_counted_when_they_may_be_skipped(tmp_path):
    folder = build(tmp_path / "out", num_shards=1, train=pairs([(6, 8)] * 9))
    shard = folder / "train-00000-of-00001.tfrecord"
    data, offsets = bytearray(shard.read_bytes()), records.record_offsets(shard)
    for index in (2, 3, 8):
        data[offsets[index] + 60] ^= 1
    shard.write_bytes(data)
    with pytest.raises(InputError, match="record 2: expected whole bytes, its checksum does not fit"):
        inspect.inspect(inspect.read_records(folder, "train"), CLASSES)
    report = inspect.inspect(inspect.read_records(folder, "train", skip_corrupt=True), CLASSES)
    assert (report.num_images, report.num_labels, sum(report.sizes.values())) == (9, 6, 6)
    lines = inspect.describe(report, CLASSES, most=1, list_corrupt=True)
    assert [line.split("record ")[1][0] for line in lines if "checksum" in line] == ["2", "3", "8"]
    assert sum(line.startswith("  and") for line in inspect.describe(report, CLASSES, most=1)) == 1


def test_images_that_will_be_converted_are_told(tmp_path):
    gray = Pair("g", pictures.encode_png(np.zeros((4, 6), np.uint8)), None)
    report = inspect.inspect(inspect.read_pairs([gray]), CLASSES)
    assert report.warnings == {"gray image, becomes RGB of 8 bits": ["image g"]}
    labelled = dataclasses.replace(gray, label=pictures.encode_png(np.zeros((4, 6), np.uint8)))
    # It is the image that is named, not its label.
    assert inspect.inspect(inspect.read_pairs([labelled]), CLASSES).warnings == report.warnings
