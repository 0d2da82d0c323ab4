import numpy as np
import pytest
from small_data import save

from nas_seg.datasets import build_data, folder
from nas_seg.utils import config
from nas_seg.utils.errors import InputError

IMAGE = np.zeros((4, 6, 3), np.uint8)
LABEL = np.zeros((4, 6), np.uint8)


def fill(root, count: int, labels: bool = True):
    for i in range(count):
        save(root / "images" / f"im{i}.{'jpg' if i % 2 else 'png'}", IMAGE)
        if labels:
            save(root / "labels" / f"im{i}.png", LABEL)
    return root


def names(pairs) -> list[str]:
    return [pair.name for pair in pairs]


def test_splits_are_the_subfolders_and_test_may_lack_labels(tmp_path):
    fill(tmp_path / "val", 1)
    fill(tmp_path / "train", 2)
    fill(tmp_path / "extra", 1)
    fill(tmp_path / "test", 2, labels=False)
    source = folder.read_source(tmp_path, num_classes=3)
    assert list(source.splits) == ["train", "val", "test", "extra"]
    assert [pair.label is None for pair in source.splits["test"]] == [True, True]
    descriptor = build_data.build(source, tmp_path / "out")
    assert {name: info.has_labels for name, info in descriptor.splits.items()} == {
        "train": True,
        "val": True,
        "test": False,
        "extra": True,
    }


def test_one_folder_is_cut_by_a_seeded_draw(tmp_path):
    fill(tmp_path, 10)
    cuts = [folder.read_source(tmp_path, num_classes=3, val_fraction=0.3, seed=seed).splits for seed in (0, 0, 1)]
    assert [len(cuts[0]["train"]), len(cuts[0]["val"])] == [7, 3]
    assert sorted(names(cuts[0]["train"]) + names(cuts[0]["val"])) == sorted(f"im{i}" for i in range(10))
    assert names(cuts[0]["val"]) == names(cuts[1]["val"]) != names(cuts[2]["val"])


def test_val_gets_one_picture_at_least_and_train_too(tmp_path):
    fill(tmp_path, 2)
    for fraction in (0.01, 0.99):
        splits = folder.read_source(tmp_path, num_classes=3, val_fraction=fraction).splits
        assert [len(splits["train"]), len(splits["val"])] == [1, 1]


def test_classes_come_from_the_file(tmp_path):
    fill(tmp_path, 2)
    content = {"names": ["sea", "land"], "colors": [[0, 0, 255], [0, 255, 0]], "ignore_label": 9}
    config.write_json(tmp_path / "classes.json", content)
    descriptor = folder.read_source(tmp_path).descriptor
    assert (descriptor.class_names, descriptor.colors) == (("sea", "land"), ((0, 0, 255), (0, 255, 0)))
    assert (descriptor.num_classes, descriptor.ignore_label) == (2, 9)


def test_arguments_win_over_the_file(tmp_path):
    fill(tmp_path, 2)
    config.write_json(tmp_path / "classes.json", {"names": ["sea"], "ignore_label": 9})
    assert folder.read_source(tmp_path, ignore_label=0).descriptor.ignore_label == 0
    assert folder.read_source(tmp_path, class_names=["a", "b"]).descriptor.class_names == ("a", "b")
    descriptor = folder.read_source(tmp_path, num_classes=2).descriptor
    assert (descriptor.class_names, descriptor.ignore_label) == (("class_0", "class_1"), 255)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"expected classes\.json in it, or --class_names, or --num_classes"),
        ({"num_classes": 2, "class_names": ["a"]}, "num_classes: expected 1, one a class name, received 2"),
        ({"num_classes": 2, "val_fraction": 1.0}, "val_fraction: expected more than 0 and less than 1, received 1.0"),
        ({"num_classes": 0}, "num_classes: expected 1 to 256, received 0"),
        ({"num_classes": -1, "class_names": ["a"]}, "num_classes: expected 1 to 256, received -1"),
        ({"class_names": ["a", "b", "a"]}, "class_names: expected different names, received 'a' twice"),
        ({"class_names": ["a"], "classes": "camvid"}, "--class_names: expected none beside --classes=camvid"),
        ({"num_classes": 2, "seed": -1}, "seed: expected 0 or more, received -1"),
    ],
)
def test_bad_arguments_are_named(tmp_path, arguments, message):
    fill(tmp_path, 2)
    with pytest.raises(InputError, match=message):
        folder.read_source(tmp_path, **arguments)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "labels/im0.png").unlink(), r"labels: expected a label 'im0\.png', found none"),
        (
            lambda root: (root / "images/im0.png").unlink(),
            r"labels/im0\.png: expected an image of that name in .*images",
        ),
        (lambda root: (root / "labels").rename(root / "masks"), "labels: expected a folder, found none"),
        (lambda root: (root / "images").rename(root / "pictures"), "expected images/ and labels/, or folders such as"),
        (
            lambda root: (root / "classes.json").write_text('{"name": []}'),
            r"classes\.json: unknown field 'name'.*'names'",
        ),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, spoil, message):
    fill(tmp_path, 2)
    config.write_json(tmp_path / "classes.json", {"names": ["sea"]})
    spoil(tmp_path)
    with pytest.raises(InputError, match=message):
        folder.read_source(tmp_path)


def test_an_empty_folder_is_named(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match=r"images: expected \.jpg, \.jpeg, \.png files, found none"):
        folder.read_source(tmp_path, num_classes=2)


def test_train_without_labels_is_refused(tmp_path):
    fill(tmp_path / "train", 1, labels=False)
    with pytest.raises(InputError, match="train/labels: expected a folder, found none"):
        folder.read_source(tmp_path, num_classes=2)
