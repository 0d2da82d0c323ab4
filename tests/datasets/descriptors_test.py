import dataclasses
import json

import pytest
from small_data import CLASSES

from nas_seg.datasets.descriptors import KNOWN, SplitInfo, read_descriptor
from nas_seg.utils import config
from nas_seg.utils.errors import InputError

INFO = SplitInfo(3, 2, True, "0123456789ab", (4, 5), (6, 7))


def test_descriptor_survives_its_file(tmp_path):
    descriptor = dataclasses.replace(CLASSES, splits={"train": INFO})
    config.save(tmp_path / "dataset.json", descriptor)
    assert read_descriptor(tmp_path) == descriptor
    assert json.loads((tmp_path / "dataset.json").read_text())["format_version"] == 1


def test_camvid_ignores_eleven_and_not_255():
    camvid = KNOWN["camvid"]
    assert (camvid.num_classes, camvid.ignore_label) == (11, 11)
    assert dict(zip(camvid.class_names, camvid.colors, strict=True))["Road"] == (128, 64, 128)


def test_the_papers_data_sets_have_deeplabs_numbers_of_classes_and_ignored_labels():
    expected = {
        "pascal_voc_seg": (21, 255),
        "pascal_person_part": (7, 255),
        "cityscapes": (19, 255),
        "ade20k": (151, 0),
        "ade20k_150": (150, 255),
    }
    assert {name: (KNOWN[name].num_classes, KNOWN[name].ignore_label) for name in expected} == expected
    assert KNOWN["ade20k"].class_names[1:] == KNOWN["ade20k_150"].class_names


@pytest.mark.parametrize("name", KNOWN)
def test_each_known_dataset_has_different_names_and_colours(name):
    row = KNOWN[name]
    # The benchmark draws ADE20K's roads and skyscrapers in the same grey.
    twice = 1 if name.startswith("ade20k") else 0
    assert len(set(row.class_names)) == row.num_classes == len(set(row.colors)) + twice


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": 0}, "num_classes: expected 1 to 256, received 0"),
        ({"splits": {"../train": INFO}}, "splits: expected names without a folder, received '../train'"),
        ({"splits": {"..": INFO}}, "splits: expected names without a folder, received '..'"),
        ({"splits": {"": INFO}}, "splits: expected names without a folder, received ''"),
        ({"class_names": ("a",)}, "class_names: expected 4, one a class, received 1"),
        ({"colors": ((0, 0, 256),) * 4}, "colors: expected channels of 0 to 255"),
        ({"ignore_label": -1}, "ignore_label: expected 0 to 255, received -1"),
    ],
)
def test_contradictions_are_refused_by_field(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(CLASSES, **change)


def test_unknown_split_names_the_nearest():
    descriptor = dataclasses.replace(CLASSES, splits={"train": INFO, "val": INFO})
    with pytest.raises(InputError, match=r"unknown split 'trian'.*Did you mean 'train'"):
        descriptor.split("trian")


def test_missing_folder_and_missing_file_are_named(tmp_path):
    with pytest.raises(InputError, match="nowhere: expected a folder of records, found none"):
        read_descriptor(tmp_path / "nowhere")
    with pytest.raises(InputError, match=f"{tmp_path}: expected dataset.json beside the records"):
        read_descriptor(tmp_path)


def test_another_format_version_is_refused_by_name(tmp_path):
    config.write_json(tmp_path / "dataset.json", {"format_version": 99} | config.to_json(CLASSES))
    with pytest.raises(InputError, match=r"dataset\.json: expected format_version 1, received 99"):
        read_descriptor(tmp_path)
