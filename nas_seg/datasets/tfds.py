"""Any data set of TensorFlow Datasets with an image and a label picture; the encoded bytes are taken as they are."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

from nas_seg import common
from nas_seg.datasets import labels
from nas_seg.datasets.classes import read_classes
from nas_seg.datasets.source import Pair, Source
from nas_seg.utils.errors import InputError, unknown

# TensorFlow Datasets' word for it, and the tools'.
_SPLIT_NAMES = {"validation": common.VAL_SPLIT}
# A feature of one channel whose name says that it is a label.
_LABEL_WORDS = re.compile("mask|segmentation|label|annotation")


def read_source(
    name: str,
    *,
    image_feature: str | None = None,
    label_feature: str | None = None,
    splits: Sequence[str] = (),
    data_dir: str | os.PathLike | None = None,
    download: bool = False,
    classes: str | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] = (),
    ignore_label: int | None = None,
    label_colors: str | None = None,
    label_values: Sequence[str] = (),
) -> Source:
    """Opens a builder.

    Args:
        name: as `tfds.builder` takes it: "oxford_iiit_pet", "oxford_iiit_pet:4.0.0", "name/config".
        image_feature: the feature that is the image; None: "image", or the only one of three channels.
        label_feature: the feature that is the label; None: the only one of one channel with a telling name.
        splits: which, by their names or as `NAME=EXPRESSION` ("val=train[90%:]"); none: all. "validation" becomes
            "val" in the records.
        data_dir: where the prepared data sets are; None: TensorFlow Datasets' own place.
        download: fetch and prepare the data set where it is not there.
        classes, num_classes, class_names, ignore_label, label_colors: see `classes.read_classes`; not needed where
            the feature itself says its labels.
        label_values: see `labels.value_coding`.

    Raises:
        InputError: when the package, the data set, a feature or a split is missing, or nothing says the classes.
    """
    builder = _open(name, data_dir, download)
    features = dict(builder.info.features.items())
    image = _find_feature(name, "image_feature", image_feature, features, _is_image)
    label = _find_feature(name, "label_feature", label_feature, features, _is_label)
    own_colors = label_colors in (None, labels.KNOWN_COLORS)
    if not class_names and num_classes is None and classes is None and own_colors:
        known = getattr(features[label], "num_classes", None)
        class_names = tuple(getattr(features[label], "names", None) or ())
        num_classes = known if not class_names else None
    descriptor = read_classes(
        classes=classes,
        class_names=class_names,
        num_classes=num_classes,
        ignore_label=ignore_label,
        label_colors=label_colors,
        where=f"tfds:{name}: feature {label!r} does not say its classes",
    ).describe(re.sub(r"\W+", "_", name))
    coding = labels.value_coding(label_values) if label_values else labels.INDICES
    coding = labels.color_coding(label_colors, descriptor) if label_colors else coding
    chosen = dict(_split(text) for text in splits or builder.info.splits)
    return Source(
        descriptor, {split: Examples(builder, expression, image, label) for split, expression in chosen.items()}, coding
    )


def _open(name: str, data_dir, download: bool):
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise InputError(
            f"--dataset=tfds:{name}: expected the package tensorflow-datasets (pip install tensorflow-datasets "
            f"importlib_resources), received: {error}"
        ) from None
    try:
        builder = tfds.builder(name, **({"data_dir": os.fspath(data_dir)} if data_dir else {}))
    except (ValueError, FileNotFoundError) as error:
        near = difflib.get_close_matches(name, tfds.list_builders(with_community_datasets=False), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"({_first_line(error)})"
        raise InputError(f"--dataset: TensorFlow Datasets has no {name!r}; {hint}") from None
    if download:
        try:
            builder.download_and_prepare()
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(f"tfds:{name}: cannot be fetched and prepared ({_first_line(error)})") from None
    if not builder.is_prepared():
        raise InputError(
            f"tfds:{name}: expected it prepared in {builder.data_dir}, found none; --download fetches it, --data_dir "
            "names another place"
        )
    return builder


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _find_feature(name: str, flag: str, given: str | None, features: dict[str, Any], fits) -> str:
    if given is not None:
        if given not in features:
            raise InputError(f"--{flag}: {unknown('feature', given, features)}")
        return given
    found = [key for key, feature in features.items() if fits(key, feature)]
    if len(found) != 1 and common.IMAGE in found and flag == "image_feature":
        return common.IMAGE
    if len(found) != 1:
        raise InputError(
            f"--{flag}: expected the name of one of tfds:{name}'s features {', '.join(features)}; "
            f"{'several' if found else 'none'} of them could be it"
        )
    return found[0]


def _is_image(key: str, feature: Any) -> bool:
    return type(feature).__name__ == "Image" and tuple(feature.shape)[-1:] in ((3,), (4,), (None,))


def _is_label(key: str, feature: Any) -> bool:
    if type(feature).__name__ == "LabeledImage":
        return True
    is_gray = type(feature).__name__ == "Image" and tuple(feature.shape)[-1:] == (1,)
    return is_gray and _LABEL_WORDS.search(key) is not None


def _split(text: str) -> tuple[str, str]:
    """Name in the records and expression of tfds."""
    name, separator, expression = text.partition("=")
    return (name, expression) if separator else (_SPLIT_NAMES.get(text, text), text)


class Examples(Sequence):
    """The pairs of a split, read in order as they are asked for; going back begins anew.

    Attributes:
        identity: all that they depend on, see `source.identity`.
    """

    def __init__(self, builder: Any, expression: str, image: str, label: str):
        self._builder, self._expression, self._image, self._label = builder, expression, image, label
        try:
            self._count = builder.info.splits[expression].num_examples
        except (KeyError, ValueError) as error:
            raise InputError(
                f"--splits: {unknown('split', expression, builder.info.splits)} ({_first_line(error)})"
            ) from None
        self.identity = repr((str(builder.data_dir), expression, image, label, self._count))
        self._next, self._stream = 0, self._read(0)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Pair:
        if not 0 <= index < self._count:
            raise IndexError(index)
        if index != self._next:
            self._stream = self._read(index)
        self._next = index + 1
        return next(self._stream)

    def _read(self, first: int) -> Iterator[Pair]:
        import tensorflow_datasets as tfds

        plain = tfds.decode.SkipDecoding()
        dataset = self._builder.as_dataset(
            split=self._expression,
            shuffle_files=False,
            decoders={self._image: plain, self._label: plain},
            # One file after the other: the order of the records is that of the files.
            read_config=tfds.ReadConfig(interleave_cycle_length=1),
        )
        for index, example in enumerate(dataset.skip(first), first):
            name = f"{re.sub(r'[^A-Za-z0-9]+', '_', self._expression).strip('_')}_{index:06d}"
            yield Pair(name, example[self._image].numpy(), example[self._label].numpy())
