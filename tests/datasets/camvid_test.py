import numpy as np
import pytest
from small_data import save, write_camvid

from nas_seg.datasets import build_data, camvid
from nas_seg.datasets.descriptors import read_descriptor
from nas_seg.utils.errors import InputError

GRAY = np.zeros((4, 4), np.uint8)


def test_lists_give_the_order_and_each_image_its_label(tmp_path):
    source = camvid.read_source(write_camvid(tmp_path))
    assert {split: [pair.name for pair in pairs] for split, pairs in source.splits.items()} == {
        "train": ["train2", "train1", "train0"],
        "val": ["val1", "val0"],
        "test": ["test1", "test0"],
    }
    pair = source.splits["train"][0]
    assert pair.image == tmp_path / "train" / "images" / "train2.jpg"
    assert pair.label == tmp_path / "train" / "labels" / "train2.png"


def test_without_lists_a_split_is_every_image_sorted(tmp_path):
    source = camvid.read_source(write_camvid(tmp_path, lists=False))
    assert [pair.name for pair in source.splits["train"]] == ["train0", "train1", "train2"]


def test_a_list_may_name_a_part_of_the_images(tmp_path):
    (write_camvid(tmp_path) / "val.txt").write_text("val0\n\n")
    assert [pair.name for pair in camvid.read_source(tmp_path).splits["val"]] == ["val0"]


def test_records_of_camvid_ignore_eleven(tmp_path):
    build_data.build(camvid.read_source(write_camvid(tmp_path / "in")), tmp_path / "out")
    descriptor = read_descriptor(tmp_path / "out")
    assert (descriptor.num_classes, descriptor.ignore_label) == (11, 11)
    assert {name: info.num_images for name, info in descriptor.splits.items()} == {"train": 3, "val": 2, "test": 2}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda root: (root / "train.txt").write_text("train9\n"),
            r"train/images: expected an image 'train9', found none",
        ),
        (lambda root: (root / "train.txt").write_text("\n"), r"train\.txt: expected one file name a line, found none"),
        (lambda root: (root / "val/labels/val0.png").unlink(), r"val/labels: expected a label 'val0\.png', found none"),
        (lambda root: (root / "val/labels").rename(root / "gone"), r"val/labels: expected a folder, found none"),
        (lambda root: save(root / "val/images/val0.png", GRAY), "expected one file of the name"),
    ],
)
def test_what_is_missing_or_double_is_named(tmp_path, spoil, message):
    spoil(write_camvid(tmp_path))
    with pytest.raises(InputError, match=message):
        camvid.read_source(tmp_path)


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(InputError, match="nowhere: expected a folder, found none"):
        camvid.read_source(tmp_path / "nowhere")
    with pytest.raises(InputError, match="expected folders train, val, test with images/ and labels/, found none"):
        camvid.read_source(tmp_path)
