"""Data sets of TensorFlow Datasets: a made-up one, by the package where it is installed, and by a stand-in of it."""

import functools
import sys
import types

import numpy as np
import pytest
import tensorflow as tf

from nas_seg.datasets import build_data, catalog, example, pictures, records, tfds
from nas_seg.datasets.descriptors import read_descriptor
from nas_seg.utils.errors import InputError

NAME = "painted_walls"
COUNTS = {"train": 5, "validation": 2}


def picture(split: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks of 1, 2, 3, as the pets' trimaps are; each picture has its own size."""
    rng = np.random.default_rng([len(split), index])
    mask = rng.integers(1, 4, (6 + index, 9)).astype(np.uint8)
    return np.repeat(mask[..., None] * 60, 3, -1).astype(np.uint8), mask


def stand_in(monkeypatch) -> types.SimpleNamespace:
    """The part of the package that is used, with nothing behind it."""

    class Image:
        def __init__(self, shape):
            self.shape = shape

    Text = type("Text", (), {"shape": ()})
    LabeledImage = type("LabeledImage", (Image,), {"names": ["wall", "paint", "edge"], "num_classes": 3})

    class Splits(dict):
        def __missing__(self, expression):
            name, _, rest = expression.partition("[")
            stop = int(rest.strip(":]")) if rest else None
            return types.SimpleNamespace(num_examples=len(range(COUNTS[name])[:stop]))

    class Builder:
        data_dir = "/data/painted_walls/1.0.0"
        prepared = True
        info = types.SimpleNamespace(
            features={
                "image": Image((None, None, 3)),
                "thumbnail": Image((8, 8, 3)),
                "trimap_mask": Image((None, None, 1)),
                "file_name": Text(),
            },
            splits=Splits({name: types.SimpleNamespace(num_examples=count) for name, count in COUNTS.items()}),
        )

        def is_prepared(self):
            return self.prepared

        def download_and_prepare(self):
            self.prepared = True

        def as_dataset(self, split, shuffle_files, decoders, read_config):
            assert not shuffle_files and set(decoders) == {"image", "trimap_mask"}
            name = split.partition("[")[0]
            drawn = [picture(name, i) for i in range(self.info.splits[split].num_examples)]
            columns = {
                "image": [pictures.encode_png(image) for image, _ in drawn],
                "trimap_mask": [pictures.encode_png(mask) for _, mask in drawn],
            }
            return tf.data.Dataset.from_tensor_slices(columns)

    package = types.ModuleType("tensorflow_datasets")
    package.builder_instance = Builder()

    def builder(name, data_dir=None):
        if name != NAME:
            raise ValueError(f"Dataset {name} not found.\nmany more lines")
        return package.builder_instance

    package.builder = builder
    package.list_builders = lambda with_community_datasets: [NAME, "oxford_iiit_pet"]
    package.ReadConfig = lambda interleave_cycle_length: None
    package.decode = types.SimpleNamespace(SkipDecoding=object)
    package.LabeledImage = LabeledImage
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", package)
    return package


def package_itself(folder):
    """The package, with the made-up data set prepared in a folder; nothing is fetched."""
    real = pytest.importorskip("tensorflow_datasets")
    made = painted_walls(real)(data_dir=str(folder))
    made.download_and_prepare(download_config=real.download.DownloadConfig(try_download_gcs=False))


@functools.cache
def painted_walls(real):
    """The data set's class, which may be registered once."""

    class PaintedWalls(real.core.GeneratorBasedBuilder):
        VERSION = real.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": real.features.Image(shape=(None, None, 3), encoding_format="png"),
                "thumbnail": real.features.Image(shape=(8, 8, 3), encoding_format="png"),
                "trimap_mask": real.features.Image(shape=(None, None, 1)),
                "file_name": real.features.Text(),
            }
            return real.core.DatasetInfo(builder=self, features=real.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split, count) for split, count in COUNTS.items()}

        def _generate_examples(self, split, count):
            for i in range(count):
                image, mask = picture(split, i)
                yield (
                    i,
                    {
                        "image": image,
                        "thumbnail": image[:1, :1].repeat(8, 0).repeat(8, 1),
                        "trimap_mask": mask[..., None],
                        "file_name": str(i),
                    },
                )

    return PaintedWalls


@pytest.fixture(params=["stand-in", "package"])
def data_dir(request, monkeypatch, tmp_path):
    if request.param == "stand-in":
        stand_in(monkeypatch)
    else:
        package_itself(tmp_path / "tfds")
    return tmp_path / "tfds"


PETS = {"label_values": ["1:0", "2:1", "3:2"], "class_names": ["wall", "paint", "edge"]}


def test_every_split_becomes_records_with_the_masks_values_mapped(data_dir, tmp_path):
    source = catalog.open_source(f"tfds:{NAME}", {"data_dir": str(data_dir), **PETS})
    build_data.build(source, tmp_path / "out", num_shards=2)
    descriptor = read_descriptor(tmp_path / "out")
    assert {name: info.num_images for name, info in descriptor.splits.items()} == {"train": 5, "val": 2}
    assert (descriptor.name, descriptor.class_names) == (NAME, ("wall", "paint", "edge"))
    opened = records.open_split(tmp_path / "out", "train")
    found = [example.decode(serialized, where) for where, serialized in records.read_records(opened)]
    # The package stores examples in an order of its own, the same every time; sizes tell which is which.
    for record in found:
        image, mask = picture("train", len(record.label) - 6)
        np.testing.assert_array_equal(record.image, image)
        np.testing.assert_array_equal(record.label, mask - 1)
    assert [record.name for record in found] == [f"train_{i:06d}" for i in range(5)]
    again = build_data.build(source, tmp_path / "again")
    assert again.splits["train"].digest == descriptor.splits["train"].digest


def test_parts_of_splits_get_names(data_dir):
    given = {"data_dir": str(data_dir), "splits": ["train=train[:3]", "val=validation"], **PETS}
    source = catalog.open_source(f"tfds:{NAME}", given)
    assert {name: len(pairs) for name, pairs in source.splits.items()} == {"train": 3, "val": 2}
    # Any order may be asked for, as after a kill.
    pairs = source.splits["train"]
    assert [pairs[2].name, pairs[0].name] == ["train_3_000002", "train_3_000000"]
    assert pairs[2] == list(pairs)[2]


def test_a_data_set_that_does_not_say_its_classes_needs_them(data_dir):
    with pytest.raises(
        InputError, match=f"tfds:{NAME}: feature 'trimap_mask' does not say its classes: expected .*--num"
    ):
        catalog.open_source(f"tfds:{NAME}", {"data_dir": str(data_dir)})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"label_feature": "mask"}, "--label_feature: unknown feature 'mask': expected one of .*trimap_mask"),
        ({"splits": ["tests"]}, "--splits: unknown split 'tests'"),
    ],
)
def test_unknown_features_and_splits_are_named(monkeypatch, given, message):
    stand_in(monkeypatch)
    with pytest.raises(InputError, match=message):
        catalog.open_source(f"tfds:{NAME}", {**PETS, **given})


def test_the_labels_names_come_from_the_feature_that_knows_them(monkeypatch):
    package = stand_in(monkeypatch)
    package.builder_instance.info.features["trimap_mask"] = package.LabeledImage((None, None, 1))
    assert tfds.read_source(NAME).descriptor.class_names == ("wall", "paint", "edge")


def test_several_possible_labels_must_be_told_apart(monkeypatch):
    package = stand_in(monkeypatch)
    features = package.builder_instance.info.features
    features["instance_mask"] = features["trimap_mask"]
    with pytest.raises(
        InputError, match="--label_feature: expected the name of one of .*; several of them could be it"
    ):
        tfds.read_source(NAME, num_classes=3)


def test_what_is_not_prepared_is_fetched_only_when_asked(monkeypatch):
    package = stand_in(monkeypatch)
    package.builder_instance.prepared = False
    with pytest.raises(InputError, match=f"tfds:{NAME}: expected it prepared in /data/.*; --download fetches it"):
        tfds.read_source(NAME, num_classes=4)
    assert len(tfds.read_source(NAME, num_classes=4, download=True).splits["train"]) == 5


def test_an_unknown_data_set_is_answered_with_the_nearest(monkeypatch):
    stand_in(monkeypatch)
    with pytest.raises(InputError, match="has no 'oxford_iit_pet'; did you mean 'oxford_iiit_pet'"):
        tfds.read_source("oxford_iit_pet")


def test_without_the_package_its_name_is_the_answer(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(
        InputError, match=r"--dataset=tfds:x: expected the package tensorflow-datasets \(pip install"
    ) as e:
        tfds.read_source("x")
    assert "\n" not in str(e.value)
