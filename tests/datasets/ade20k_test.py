import numpy as np
import pytest
from case import fixtures
from small_data import save

from nas_seg.datasets import ade20k, build_data, labels, pictures
from nas_seg.utils.errors import InputError

LABEL = np.array([[0, 1, 150, 12]], np.uint8)


def write(root):
    for folder, name in (("training", "ADE_train_00000001"), ("validation", "ADE_val_00000001")):
        save(root / "images" / folder / f"{name}.jpg", np.zeros((1, 4, 3), np.uint8))
        save(root / "annotations" / folder / f"{name}.png", LABEL)
    return root


def stored(source) -> np.ndarray:
    pair = source.splits["val"][0]
    return labels.decode(pair.label.read_bytes(), "x", source.coding).array


def test_deeplabs_151_classes_ignore_0_and_the_150_begin_behind_it(tmp_path):
    write(tmp_path / "ADEChallengeData2016")
    deeplabs, benchmark = (ade20k.read_source(name, tmp_path) for name in ("ade20k", "ade20k_150"))
    assert {split: [pair.name for pair in pairs] for split, pairs in deeplabs.splits.items()} == {
        "train": ["ADE_train_00000001"],
        "val": ["ADE_val_00000001"],
    }
    np.testing.assert_array_equal(stored(deeplabs), LABEL)
    np.testing.assert_array_equal(stored(benchmark), [[255, 0, 149, 11]])
    assert deeplabs.descriptor.class_names[12] == benchmark.descriptor.class_names[11] == "sidewalk"


def test_the_original_builders_four_folders(tmp_path):
    write(tmp_path)
    folders = {
        f"{split}_{flag}": tmp_path / kind / folder
        for split, folder in (("train", "training"), ("val", "validation"))
        for flag, kind in (("image_folder", "images"), ("image_label_folder", "annotations"))
    }
    assert list(ade20k.read_source("ade20k", **folders).splits) == ["train", "val"]
    del folders["val_image_label_folder"]
    with pytest.raises(InputError, match="--val_image_folder, --val_image_label_folder: expected both or neither"):
        ade20k.read_source("ade20k", **folders)


def test_values_beyond_the_classes_are_refused(tmp_path):
    write(tmp_path)
    save(tmp_path / "annotations" / "validation" / "ADE_val_00000001.png", LABEL + 1)
    with pytest.raises(InputError, match="expected label values 0 to 150 or ignore_label 0, received 151"):
        build_data.build(ade20k.read_source("ade20k", tmp_path), tmp_path / "out")
    with pytest.raises(InputError, match="expected stored values 0 to 150, received 151"):
        build_data.build(ade20k.read_source("ade20k_150", tmp_path), tmp_path / "out")


def test_a_folder_of_something_else_says_what_was_expected(tmp_path):
    (tmp_path / "stuff").mkdir()
    with pytest.raises(InputError, match="expected images/ and annotations/, each with training/ .* found stuff/"):
        ade20k.read_source("ade20k", tmp_path)


def test_real_pictures_are_read_and_the_full_data_sets_coloured_labels_are_refused():
    samples = fixtures("..", "data", "samples", "ade20k")
    source = ade20k.read_source("ade20k", samples)
    assert [pair.name for pair in source.splits["val"]] == [f"ADE_val_0000000{i}" for i in (1, 2, 3)]
    assert set(np.unique(stored(source)).tolist()) == {0, 1, 2, 3, 5, 7, 10, 18}
    colored = samples / "ADE_train_00000970_raw.png"
    with pytest.raises(InputError, match=r"ADE_train_00000970_raw\.png: .* received colours \(mode RGB\)"):
        pictures.decode_label(colored.read_bytes(), colored)
