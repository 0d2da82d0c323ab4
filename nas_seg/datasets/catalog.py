"""Every kind of data set that records are built from: its name, how it is read, and which arguments mean something."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from nas_seg.datasets import ade20k, camvid, cityscapes, folder, labels, pascal, synthetic, tfds
from nas_seg.datasets.source import Source
from nas_seg.utils.errors import InputError, unknown


class Argument(NamedTuple):
    """The flag of an argument: the word after absl's DEFINE_, and its help."""

    kind: str
    help: str


# What the readers below take, by the names of their parameters; the original builders' flags are among them.
ARGUMENTS = {
    "source_dir": Argument("string", "Folder of the data set."),
    "splits": Argument(
        "list", "Which splits (default: all; cityscapes: those of the fine labels; tfds: NAME=EXPRESSION)."
    ),
    "label_colors": Argument("string", "For labels in colours: a file of lines 'R G B NAME', or 'known'."),
    "label_values": Argument("list", "folder, tfds: class of each stored label value, such as 1:0,2:1,3:255."),
    "classes": Argument("string", "folder, tfds, records: the known data set whose classes these are."),
    "class_names": Argument("list", "folder, tfds, records: names of classes 0, 1, ... (default: classes.json)."),
    "num_classes": Argument("integer", "folder, tfds, records: how many classes, when they have no names."),
    "ignore_label": Argument("integer", "folder, tfds, records: label left out of loss and score (default: 255)."),
    "label_suffix": Argument("string", "folder: what a label's name has after its image's, such as _mask."),
    "val_fraction": Argument("float", "folder, pascal: share of val where there are no splits (default: 0.2)."),
    "seed": Argument("integer", "folder, pascal: draws val; synthetic: draws the scenes (default: 0)."),
    "image_folder": Argument("string", "folder, pascal: the images, instead of source_dir."),
    "semantic_segmentation_folder": Argument("string", "folder, pascal: the labels."),
    "list_folder": Argument("string", "pascal: lists NAME.txt, one a split."),
    "image_format": Argument("string", "pascal: take only images of this format: png, jpg or jpeg (default: any)."),
    "label_format": Argument("string", "pascal, cityscapes, ade20k: png, which labels are; the original's flag."),
    "cityscapes_root": Argument("string", "cityscapes: the same as source_dir."),
    "train_image_folder": Argument("string", "ade20k: images of train, instead of source_dir."),
    "train_image_label_folder": Argument("string", "ade20k: labels of train."),
    "val_image_folder": Argument("string", "ade20k: images of val."),
    "val_image_label_folder": Argument("string", "ade20k: labels of val."),
    "image_feature": Argument("string", "tfds: the feature that is the image (default: the one that can be)."),
    "label_feature": Argument("string", "tfds: the feature that is the label (default: the one that can be)."),
    "data_dir": Argument("string", "tfds: where prepared data sets are (default: TensorFlow Datasets' own place)."),
    "download": Argument("boolean", "tfds: fetch and prepare what is not there."),
    "num_images": Argument("list", "synthetic: pictures of train, val and, if given, test (default: 240,60)."),
    "image_size": Argument("list", "synthetic: height,width in pixels (default: 192,256)."),
}

# A street on fewer pixels has no horizon.
_SMALLEST = 8


def _synthetic(
    num_images: Sequence[str] = ("240", "60"), image_size: Sequence[str] = ("192", "256"), seed: int = 0
) -> Source:
    if seed < 0:
        raise InputError(f"--seed: expected 0 or more, received {seed}")
    size = _integers("image_size", image_size, (2,))
    if min(size) < _SMALLEST:
        raise InputError(f"--image_size: expected sides of {_SMALLEST} or more, received {size[0]},{size[1]}")
    return synthetic.make_source(_integers("num_images", num_images, (2, 3)), size, seed)


def _integers(name: str, values: Sequence[str], counts: tuple[int, ...]) -> tuple[int, ...]:
    try:
        numbers = tuple(int(value) for value in values)
    except ValueError:
        numbers = ()
    if len(numbers) not in counts or min(numbers) < 1:
        raise InputError(f"--{name}: expected {' or '.join(map(str, counts))} positive integers, received {values}")
    return numbers


# data set -> what reads it; its parameters are the arguments that mean something to it
READERS: dict[str, Callable[..., Source]] = {
    "ade20k": functools.partial(ade20k.read_source, "ade20k"),
    "ade20k_150": functools.partial(ade20k.read_source, "ade20k_150"),
    "camvid": camvid.read_source,
    "cityscapes": cityscapes.read_source,
    "folder": folder.read_source,
    "pascal_person_part": functools.partial(pascal.read_source, "pascal_person_part"),
    "pascal_voc_seg": functools.partial(pascal.read_source, "pascal_voc_seg"),
    "synthetic": _synthetic,
}
TFDS = "tfds:"
# Shards that are there and lack dataset.json; they have no source.
RECORDS = "records"
_RECORDS_ARGUMENTS = ("source_dir", "classes", "class_names", "num_classes", "ignore_label")
# The original's builders have these for all of its data sets; where nothing depends on them they say nothing.
_FORMATS = {"image_format": ("jpg", "jpeg", "png"), "label_format": ("png",)}
_WITH_FORMATS = ("ade20k", "ade20k_150", "cityscapes", "pascal_person_part", "pascal_voc_seg")
# Short names.
_ALIASES = {"voc": "pascal_voc_seg", "person_part": "pascal_person_part"}


def help_text() -> str:
    """What --dataset may be."""
    return f"One of {', '.join(READERS)}, {TFDS}NAME for any data set of TensorFlow Datasets"


def check(dataset: str | None, given: Mapping[str, Any]) -> None:
    """Raises an InputError for an unknown data set, or an argument that means nothing to it."""
    accepted = _accepted(dataset)
    for name in sorted(given):
        if name not in accepted:
            raise InputError(f"--{name}: means nothing to --dataset={dataset}")


def _accepted(dataset: str | None) -> set[str]:
    if dataset == RECORDS:
        return {*_RECORDS_ARGUMENTS}
    # Any source can be cut down to some splits and read by colours.
    formats = _FORMATS if _ALIASES.get(dataset, dataset) in _WITH_FORMATS else ()
    return {*inspect.signature(_reader(dataset)).parameters, "splits", "label_colors", *formats} & {*ARGUMENTS}


def _reader(dataset: str | None) -> Callable[..., Source]:
    if dataset is not None and dataset.startswith(TFDS) and dataset != TFDS:
        return functools.partial(tfds.read_source, dataset.removeprefix(TFDS))
    name = _ALIASES.get(dataset, dataset)
    if not name:
        raise InputError(f"--dataset: expected one of {', '.join([*READERS, TFDS + 'NAME', RECORDS])}")
    if name not in READERS:
        raise InputError(f"--dataset: {unknown('dataset', dataset, [*READERS, TFDS + 'NAME', RECORDS])}")
    return READERS[name]


def open_source(dataset: str, given: Mapping[str, Any], *, any_value: bool = False) -> Source:
    """Reads where the pictures of a data set are.

    Args:
        dataset: a key of `READERS`, or "tfds:NAME".
        given: arguments of its reader by name.
        any_value: where nothing says the classes of your own pictures, take every value for one.

    Raises:
        InputError: for an argument that means nothing to the data set, and whatever its reader finds wrong.
    """
    check(dataset, given)
    read, given = _reader(dataset), dict(given)
    parameters = inspect.signature(read).parameters
    notices = [_ignore_format(name, given.pop(name)) for name in _FORMATS if name in given and name not in parameters]
    later = {name: given.pop(name) for name in ("splits", "label_colors") if name in given and name not in parameters}
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in given:
            raise InputError(f"--{name}: expected the folder of the pictures of --dataset={dataset}")
    source = read(**given, **({"any_value": True} if any_value and "any_value" in parameters else {}))
    if "splits" in later:
        source = source.choose(later["splits"])
    if "label_colors" in later:
        coding = labels.color_coding(later["label_colors"], source.descriptor)
        source = dataclasses.replace(source, coding=coding)
    return dataclasses.replace(source, notices=(*source.notices, *notices))


def _ignore_format(name: str, value: str) -> str:
    """What the user is told of a format that nothing depends on."""
    if value not in _FORMATS[name]:
        raise InputError(f"--{name}: {unknown('format', value, _FORMATS[name])}")
    return f"--{name} is ignored: pictures are read by what they are"
