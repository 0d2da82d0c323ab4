import numpy as np
import pytest
from small_data import save, write_camvid, write_cityscapes

from nas_seg.datasets import build_data, catalog
from nas_seg.datasets.descriptors import KNOWN, read_descriptor
from nas_seg.utils import config
from nas_seg.utils.colormap import colorize
from nas_seg.utils.errors import InputError


def test_every_argument_means_something_to_some_data_set():
    names = [*catalog.READERS, "tfds:x", catalog.RECORDS]
    for argument in catalog.ARGUMENTS:
        assert any(argument in catalog._accepted(name) for name in names), argument


def test_every_known_data_set_has_a_reader():
    assert set(KNOWN) <= set(catalog.READERS)


@pytest.mark.parametrize(
    ("dataset", "given", "message"),
    [
        ("camvit", {}, "--dataset: unknown dataset 'camvit'.*Did you mean 'camvid'"),
        (None, {}, "--dataset: expected one of ade20k"),
        ("tfds:", {}, "--dataset: unknown dataset 'tfds:'"),
        ("camvid", {"num_classes": 3}, "--num_classes: means nothing to --dataset=camvid"),
        ("camvid", {}, "--source_dir: expected the folder of the pictures of --dataset=camvid"),
        ("voc", {}, "--source_dir: expected the data set's folder"),
        ("cityscapes", {}, "--source_dir: expected the folder of leftImg8bit and gtFine"),
        ("ade20k", {}, "--source_dir: expected the folder with images/ and annotations/"),
        ("folder", {}, "--source_dir: expected the folder of the pictures, or --image_folder"),
        ("folder", {"image_folder": "x"}, "--image_folder, --semantic_segmentation_folder: expected both or neither"),
        ("synthetic", {"image_size": ["5"]}, "--image_size: expected 2 positive integers"),
        ("synthetic", {"image_size": ["7", "9"]}, "--image_size: expected sides of 8 or more, received 7,9"),
        ("synthetic", {"seed": -1}, "--seed: expected 0 or more, received -1"),
        ("cityscapes", {"label_format": "jpg"}, "--label_format: unknown format 'jpg': expected one of png"),
        ("camvid", {"label_format": "png"}, "--label_format: means nothing to --dataset=camvid"),
        ("records", {"seed": 1}, "--seed: means nothing to --dataset=records"),
    ],
)
def test_bad_arguments_are_named(dataset, given, message):
    with pytest.raises(InputError, match=message):
        catalog.open_source(dataset, given)


def test_formats_that_the_original_builders_have_are_taken_and_told_to_say_nothing(tmp_path):
    write_cityscapes(tmp_path)
    plain = catalog.open_source("cityscapes", {"source_dir": str(tmp_path)})
    typed = catalog.open_source(
        "cityscapes", {"source_dir": str(tmp_path), "image_format": "png", "label_format": "png"}
    )
    assert typed.splits == plain.splits and typed.coding == plain.coding
    assert [notice.split(":")[0] for notice in typed.notices] == [
        "--image_format is ignored",
        "--label_format is ignored",
    ]


def test_any_source_can_be_cut_down_to_some_of_its_splits(tmp_path):
    given = {"source_dir": str(write_camvid(tmp_path)), "splits": ["val", "test"]}
    assert list(catalog.open_source("camvid", given).splits) == ["val", "test"]
    with pytest.raises(InputError, match="--splits: unknown split 'vall'"):
        catalog.open_source("camvid", given | {"splits": ["vall"]})


def test_coloured_labels_of_a_known_data_set_are_refused_and_then_read(tmp_path):
    write_camvid(tmp_path / "in")
    label = np.arange(192, dtype=np.uint8).reshape(12, 16) % 12
    for path in (tmp_path / "in").glob("*/labels/*.png"):
        save(path, colorize(label, KNOWN["camvid"].colors))
    given = {"source_dir": str(tmp_path / "in")}
    with pytest.raises(InputError, match=r"labels/\w+\.png: .*its colours are those of camvid: --label_colors=known"):
        build_data.build(catalog.open_source("camvid", given), tmp_path / "out")
    build_data.build(catalog.open_source("camvid", given | {"label_colors": "known"}), tmp_path / "out")
    from nas_seg.datasets import example, records

    opened = records.open_split(tmp_path / "out", "train")
    np.testing.assert_array_equal(example.decode(opened.read(0).numpy(), "x").label, label)


def test_a_file_of_colours_is_all_that_your_own_coloured_labels_need(tmp_path):
    label = np.array([[0, 1, 1, 0]], np.uint8)
    for stem in ("a", "b"):
        save(tmp_path / "pics" / f"{stem}.png", np.zeros((1, 4, 3), np.uint8))
        save(tmp_path / "masks" / f"{stem}_L.png", colorize(label, ((9, 9, 9), (200, 0, 0))))
    (tmp_path / "colors.txt").write_text("9 9 9 sea\n200 0 0 land\n0 0 0 Void\n")
    source = catalog.open_source(
        "folder",
        {
            "image_folder": str(tmp_path / "pics"),
            "semantic_segmentation_folder": str(tmp_path / "masks"),
            "label_suffix": "_L",
            "label_colors": str(tmp_path / "colors.txt"),
        },
    )
    descriptor = build_data.build(source, tmp_path / "out")
    assert (descriptor.class_names, descriptor.colors) == (("sea", "land"), ((9, 9, 9), (200, 0, 0)))
    assert descriptor.name == tmp_path.name


def test_your_own_pictures_may_have_the_classes_of_a_known_data_set(tmp_path):
    for stem in ("a", "b"):
        save(tmp_path / "images" / f"{stem}.png", np.zeros((1, 4, 3), np.uint8))
        save(tmp_path / "labels" / f"{stem}.png", np.zeros((1, 4), np.uint8))
    source = catalog.open_source("folder", {"source_dir": str(tmp_path), "classes": "cityscapes"})
    assert source.descriptor.class_names == KNOWN["cityscapes"].class_names
    with pytest.raises(InputError, match="--classes: unknown data set 'cityscape'.*Did you mean 'cityscapes'"):
        catalog.open_source("folder", {"source_dir": str(tmp_path), "classes": "cityscape"})


def test_stored_values_of_your_own_labels_are_mapped(tmp_path):
    for stem in ("a", "b"):
        save(tmp_path / "images" / f"{stem}.png", np.zeros((1, 4, 3), np.uint8))
        save(tmp_path / "labels" / f"{stem}.png", np.array([[0, 255, 255, 0]], np.uint8))
    given = {"source_dir": str(tmp_path), "num_classes": 2, "label_values": ["0:0", "255:1"]}
    build_data.build(catalog.open_source("folder", given), tmp_path / "out")
    assert read_descriptor(tmp_path / "out").num_classes == 2


def test_inspecting_takes_every_value_for_a_class_where_nothing_says_them(tmp_path):
    for stem in ("a", "b"):
        save(tmp_path / "images" / f"{stem}.png", np.zeros((1, 4, 3), np.uint8))
        save(tmp_path / "labels" / f"{stem}.png", np.zeros((1, 4), np.uint8))
    given = {"source_dir": str(tmp_path)}
    assert catalog.open_source("folder", given, any_value=True).descriptor.num_classes == 256
    config.write_json(tmp_path / "classes.json", {"names": ["sea"]})
    assert catalog.open_source("folder", given, any_value=True).descriptor.num_classes == 1
    assert catalog.open_source("cityscapes", {"source_dir": str(write_cityscapes(tmp_path / "c"))}, any_value=True)
