import zipfile

import numpy as np
import pytest
from small_data import save, write_cityscapes

from nas_seg.datasets import archives, build_data, cityscapes, example, records
from nas_seg.datasets.descriptors import read_descriptor
from nas_seg.utils.errors import InputError


def names(source):
    return {split: [pair.name for pair in pairs] for split, pairs in source.splits.items()}


def frames(*cities):
    return [f"{city}_000000_000019_leftImg8bit" for city in cities]


def test_nineteen_of_the_label_ids_are_classes_and_all_others_are_ignored(tmp_path):
    build_data.build(cityscapes.read_source(write_cityscapes(tmp_path / "in")), tmp_path / "out")
    opened = records.open_split(tmp_path / "out", "val_fine")
    label = example.parse(opened.read(0), has_label=True, ignore_label=255)["label"].numpy()
    path = tmp_path / "in/gtFine/val/aachen/aachen_000000_000019_gtFine_labelIds.png"
    from PIL import Image

    ids = np.asarray(Image.open(path))
    expected = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 31: 16, 32: 17, 33: 18} | {i: i - 13 for i in range(19, 29)}
    np.testing.assert_array_equal(label, np.vectorize(lambda i: expected.get(i, 255))(ids))
    assert len(set(label.ravel().tolist())) == 20


def test_the_table_is_that_of_the_cityscapes_scripts():
    helpers = pytest.importorskip("cityscapesscripts.helpers.labels")
    theirs = {row.trainId: (row.id, row.name, row.color) for row in helpers.labels if 0 <= row.trainId < 255}
    row = cityscapes.KNOWN["cityscapes"]
    assert theirs == {i: (cityscapes.LABEL_IDS[i], row.class_names[i], row.colors[i]) for i in range(19)}


def test_splits_have_deeplabs_names_and_shards(tmp_path):
    source = cityscapes.read_source(write_cityscapes(tmp_path / "in"))
    assert names(source) == {name: frames("aachen", "berlin") for name in ("train_fine", "val_fine", "test_fine")}
    assert source.num_shards == 10


def test_coarse_and_joint_splits_are_built_when_asked_for(tmp_path):
    write_cityscapes(tmp_path, coarse=True)
    assert list(cityscapes.read_source(tmp_path).splits) == ["train_fine", "val_fine", "test_fine"]
    source = cityscapes.read_source(
        cityscapes_root=tmp_path, splits=["train_coarse", "trainval_fine", "trainval_coarse"]
    )
    assert {split: len(pairs) for split, pairs in source.splits.items()} == {
        "train_coarse": 4,
        "trainval_fine": 4,
        "trainval_coarse": 6,
    }
    assert {pair.label.parts[-4] for pair in source.splits["train_coarse"]} == {"gtCoarse"}


def test_the_official_archives_give_the_same_records_without_unpacking(tmp_path):
    splits = ["train_fine", "val_fine", "train_coarse"]
    digests = []
    for zipped in (False, True):
        folder = write_cityscapes(tmp_path / f"in{zipped}", coarse=True, zipped=zipped)
        before = sorted(folder.rglob("*"))
        build_data.build(cityscapes.read_source(folder, splits=splits), tmp_path / f"out{zipped}")
        assert sorted(folder.rglob("*")) == before
        digests.append({name: info.digest for name, info in read_descriptor(tmp_path / f"out{zipped}").splits.items()})
    assert digests[0] == digests[1]


def test_test_pictures_may_lack_labels(tmp_path):
    write_cityscapes(tmp_path)
    for path in (tmp_path / "gtFine/test").rglob("*.png"):
        path.unlink()
    assert [pair.label for pair in cityscapes.read_source(tmp_path).splits["test_fine"]] == [None, None]


def test_train_ids_made_by_the_scripts_are_read_where_there_are_no_label_ids(tmp_path):
    write_cityscapes(tmp_path / "in")
    for path in (tmp_path / "in/gtFine").rglob("*_labelIds.png"):
        path.unlink()
        save(path.with_name(path.name.replace("labelIds", "labelTrainIds")), np.full((8, 12), 18, np.uint8))
    build_data.build(cityscapes.read_source(tmp_path / "in", splits=["val_fine"]), tmp_path / "out")
    opened = records.open_split(tmp_path / "out", "val_fine")
    assert set(example.decode(opened.read(0).numpy(), "x").label.ravel().tolist()) == {18}


def test_an_incomplete_archive_is_named(tmp_path):
    write_cityscapes(tmp_path, zipped=True)
    path = tmp_path / "gtFine_trainvaltest.zip"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"gtFine_trainvaltest\.zip: expected a whole zip archive, it is incomplete"):
        cityscapes.read_source(tmp_path)


def test_a_damaged_file_in_an_archive_is_named(tmp_path):
    write_cityscapes(tmp_path / "in", zipped=True)
    path = tmp_path / "in" / "leftImg8bit_trainvaltest.zip"
    data = bytearray(path.read_bytes())
    place = data.index(b"train/berlin/berlin_000000_000019_leftImg8bit.png") + 100
    data[place : place + 40] = bytes(40)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"zip/leftImg8bit/train/berlin/.*png: cannot be read from its archive"):
        build_data.build(cityscapes.read_source(tmp_path / "in"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_that_unpacks_to_more_than_a_picture_is_refused_before_it_does(tmp_path, monkeypatch):
    write_cityscapes(tmp_path / "in", zipped=True)
    source = cityscapes.read_source(tmp_path / "in")
    # Half a gibibyte of zeros takes seconds to pack; what is compared is what the archive says of a file.
    monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 50)
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("it is unpacked"))
    with pytest.raises(InputError, match=r"zip/leftImg8bit/train/.*png: expected at most 0 MiB, 0 MiB when unpacked"):
        build_data.build(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _rename(*names):
    def spoil(root):
        (root / names[0]).rename(root / names[1])

    return spoil


@pytest.mark.parametrize(
    ("spoil", "splits", "message"),
    [
        (_rename("leftImg8bit", "images"), [], "expected leftImg8bit/SPLIT/CITY/.*found gtFine/, images/"),
        (_rename("gtFine", "labels"), [], "expected gtFine/SPLIT/CITY/.*found labels/, leftImg8bit/"),
        (lambda root: None, ["train_coarse"], "expected gtCoarse/SPLIT/CITY/"),
        (
            _rename("leftImg8bit/train", "x"),
            ["train_fine"],
            "expected leftImg8bit/train/ as a folder or in leftImg8bit",
        ),
        (
            _rename("gtFine/val/berlin", "x"),
            [],
            "gtFine/val/berlin: expected a label 'berlin_000000_000019_gtFine_...Ids.png', found none",
        ),
        (lambda root: None, ["val"], "--splits: unknown split 'val'.*val_fine"),
    ],
)
def test_a_wrong_layout_says_what_was_expected(tmp_path, spoil, splits, message):
    spoil(write_cityscapes(tmp_path))
    with pytest.raises(InputError, match=message):
        cityscapes.read_source(tmp_path, splits=splits)


def test_a_submissions_files_are_named_by_frame():
    expected = "berlin_000000_000019_labelIds.png"
    assert cityscapes.submission_name("berlin_000000_000019_leftImg8bit") == expected
    # As DeepLab's records may name it.
    assert cityscapes.submission_name("leftImg8bit/test/berlin/berlin_000000_000019_leftImg8bit.png") == expected
    with pytest.raises(InputError, match="picture 'street': expected a name such as berlin_000000_000019"):
        cityscapes.submission_name("street")
