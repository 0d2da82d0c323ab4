import numpy as np
import pytest
from case import fixtures
from small_data import save

from nas_seg.datasets import build_data, example, pascal, records
from nas_seg.utils.errors import InputError

IMAGE = np.full((4, 6, 3), 90, np.uint8)
LABEL = np.array([[0, 1, 20, 255, 0, 0]] * 4, np.uint8)


def write_voc(root, lists=True):
    """VOC2012's folders: four pictures, of which x1 is labelled by the augmented set alone; x9 has no label."""
    for stem in ("x1", "x2", "x3", "x4", "x9"):
        save(root / "JPEGImages" / f"{stem}.jpg", IMAGE)
    for stem in ("x2", "x3", "x4"):
        save(root / "SegmentationClass" / f"{stem}.png", LABEL, palette=True)
    for stem in ("x1", "x2"):
        save(root / "SegmentationClassAug" / f"{stem}.png", LABEL)
    if lists:
        folder = root / "ImageSets" / "Segmentation"
        folder.mkdir(parents=True)
        (folder / "train.txt").write_text("x3\nx2\n")
        (folder / "val.txt").write_text("x4\n\n")
        (folder / "trainaug.txt").write_text(
            "/JPEGImages/x1.jpg /SegmentationClassAug/x1.png\n/JPEGImages/x2.jpg /SegmentationClassAug/x2.png\n"
        )
        (folder / "test.txt").write_text("x9\n")
    return root


def names(source):
    return {split: [pair.name for pair in pairs] for split, pairs in source.splits.items()}


@pytest.mark.parametrize("below", ["", "VOC2012", "VOCdevkit/VOC2012"])
def test_each_list_is_a_split_in_its_order_wherever_the_folder_is(tmp_path, below):
    write_voc(tmp_path / below)
    source = pascal.read_source("pascal_voc_seg", tmp_path)
    assert names(source) == {"test": ["x9"], "train": ["x3", "x2"], "train_aug": ["x1", "x2"], "val": ["x4"]}
    assert source.splits["test"][0].label is None


def test_the_augmented_split_takes_the_augmented_labels_and_the_others_their_own(tmp_path):
    splits = pascal.read_source("pascal_voc_seg", write_voc(tmp_path)).splits
    assert {pair.label.parent.name for pair in splits["train_aug"]} == {"SegmentationClassAug"}
    assert {pair.label.parent.name for pair in (*splits["train"], *splits["val"])} == {"SegmentationClass"}


def test_the_original_builders_flags_name_folders_anywhere(tmp_path):
    write_voc(tmp_path / "a")
    (tmp_path / "a" / "JPEGImages").rename(tmp_path / "pictures")
    source = pascal.read_source(
        "pascal_voc_seg",
        image_folder=tmp_path / "pictures",
        semantic_segmentation_folder=tmp_path / "a" / "SegmentationClass",
        list_folder=tmp_path / "a" / "ImageSets" / "Segmentation",
        image_format="jpg",
        splits=["train", "val"],
    )
    assert names(source) == {"train": ["x3", "x2"], "val": ["x4"]}


def test_palette_labels_are_stored_as_their_indices(tmp_path):
    source = pascal.read_source("pascal_voc_seg", write_voc(tmp_path / "in"), splits=["val"])
    build_data.build(source, tmp_path / "out")
    opened = records.open_split(tmp_path / "out", "val")
    parsed = example.parse(opened.read(0), has_label=True, ignore_label=255)
    np.testing.assert_array_equal(parsed["label"], LABEL)


def test_without_lists_the_labelled_pictures_are_cut_and_the_user_is_told(tmp_path):
    source = pascal.read_source("pascal_voc_seg", write_voc(tmp_path, lists=False))
    assert "x9" not in names(source)["train"] + names(source)["val"]
    assert {split: len(pairs) for split, pairs in source.splits.items()} == {"train": 3, "val": 1}
    assert "no ImageSets/Segmentation/, its 4 labelled pictures are cut into 3 train, 1 val" in source.notices[0]


@pytest.mark.parametrize(
    ("spoil", "arguments", "message"),
    [
        (
            lambda root: (root / "JPEGImages").rename(root / "pics"),
            {},
            r"expected JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/ in it or in VOCdevkit/VOC2012/, "
            "found ImageSets/, SegmentationClass/, SegmentationClassAug/, pics/",
        ),
        (
            lambda root: (root / "SegmentationClass/x4.png").unlink(),
            {},
            r"SegmentationClassAug: expected a label 'x4\.png'",
        ),
        (lambda root: (root / "JPEGImages/x2.jpg").unlink(), {}, "JPEGImages: expected an image 'x2', found none"),
        (lambda root: None, {"splits": ["trian"]}, "--splits: unknown split 'trian'.*Did you mean 'train'"),
        (lambda root: None, {"image_format": "gif"}, "--image_format: unknown format 'gif'"),
        (lambda root: None, {"image_format": "png"}, r"JPEGImages: expected \.png files, found none"),
        (lambda root: None, {"list_folder": "nowhere"}, "nowhere: expected a folder, found none"),
        (
            lambda root: (root / "ImageSets/Segmentation/train_aug.txt").write_text("x1\n"),
            {},
            "expected one list of the split 'train_aug', found train_aug.txt too",
        ),
    ],
)
def test_what_is_missing_is_named(tmp_path, spoil, arguments, message):
    spoil(write_voc(tmp_path))
    with pytest.raises(InputError, match=message):
        pascal.read_source("pascal_voc_seg", tmp_path, **arguments)


def test_person_part_has_folders_and_lists_of_its_own(tmp_path):
    for stem in ("a", "b"):
        save(tmp_path / "JPEGImages" / f"{stem}.jpg", IMAGE)
        save(tmp_path / "pascal_person_part_gt" / f"{stem}.png", LABEL % 7, palette=True)
    lists = tmp_path / "pascal_person_part_trainval_list"
    lists.mkdir()
    (lists / "train_id.txt").write_text("b\n")
    (lists / "val.txt").write_text("a\n")
    source = pascal.read_source("pascal_person_part", tmp_path)
    assert names(source) == {"train": ["b"], "val": ["a"]}
    assert source.descriptor.num_classes == 7


@pytest.mark.parametrize(
    ("folder", "name", "count", "found"),
    [
        ("voc", "pascal_voc_seg", 9, {0, 2, 3, 5, 8, 12, 15, 16, 17, 18, 255}),
        ("pascal_person_part", "pascal_person_part", 4, set(range(7))),
    ],
)
def test_real_pictures_keep_the_indices_of_their_palettes(tmp_path, folder, name, count, found):
    samples = fixtures("..", "data", "samples", folder)
    build_data.build(pascal.read_source(name, samples), tmp_path / "out")
    values, pictures = set(), 0
    for split in ("train", "val"):
        opened = records.open_split(tmp_path / "out", split)
        for index in range(opened.info.num_images):
            parsed = example.parse(opened.read(index), has_label=True, ignore_label=255)
            values |= set(np.unique(parsed["label"]).tolist())
            pictures += 1
    assert (pictures, values) == (count, found)
