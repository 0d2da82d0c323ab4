"""Looks at labelled pictures before they are trained on: values, shares, sizes, oddities and a contact sheet."""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.table import Table

from nas_seg.datasets import labels, pictures, suggest
from nas_seg.datasets.descriptors import DatasetDescriptor
from nas_seg.datasets.labels import INDICES, Coding
from nas_seg.datasets.source import Pair
from nas_seg.utils import config
from nas_seg.utils.colormap import colorize
from nas_seg.utils.errors import InputError

# The kinds of warning for pictures that tools/build_data.py refuses, or leaves out with --skip_corrupt.
CORRUPT = "cannot be read"
_MISMATCH, _OUTSIDE = "size mismatch", "values outside the classes"
REFUSED = (CORRUPT, _MISMATCH, _OUTSIDE)


class Sample(NamedTuple):
    """One picture as it was found.

    Attributes:
        where: how warnings name it, by its label where there is one.
        image: uint8 [H, W, 3], or None if it cannot be decoded.
        label: integers [H, W], or None if there is none or it cannot be decoded.
        mode: Pillow's mode of the label picture; "" without one.
        problem: what was wrong with the files, "" if nothing.
        note: what the image is other than RGB of 8 bits, "" if nothing.
        image_where: how warnings name the image; "" as `where`.
    """

    where: str
    image: np.ndarray | None
    label: np.ndarray | None
    mode: str = ""
    problem: str = ""
    note: str = ""
    image_where: str = ""


@dataclasses.dataclass
class Report:
    """What was found in one split.

    Attributes:
        num_images: pictures looked at.
        num_labels: those with a label that could be read.
        num_refused: those with a warning of `REFUSED`.
        counts: pixels of each label value.
        images_with: pictures in which each value occurs.
        pixels_with: labelled pixels, the ignored ones apart, of the pictures in which each value occurs.
        sizes: pictures of each (height, width).
        warnings: kind of oddity -> what is affected, one text each.
        shown: (image, label) pairs for the contact sheet.
    """

    num_images: int = 0
    num_labels: int = 0
    num_refused: int = 0
    counts: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    images_with: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    pixels_with: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    sizes: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    warnings: dict[str, list[str]] = dataclasses.field(default_factory=lambda: collections.defaultdict(list))
    shown: list[tuple[np.ndarray, np.ndarray | None]] = dataclasses.field(default_factory=list)

    def void_share(self, ignore_label: int) -> float:
        """The share of labelled pixels that are ignored, 0..1."""
        return self.counts[ignore_label] / max(sum(self.counts.values()), 1)


def read_pairs(
    pairs: Sequence[Pair], coding: Coding = INDICES, descriptor: DatasetDescriptor | None = None
) -> Iterator[Sample]:
    """Reads pairs of a source; what cannot be read is told, not raised.

    Args:
        pairs: a split of it.
        coding: what its label pictures hold.
        descriptor: its classes, see `labels.decode`.
    """
    for pair in pairs:
        image = label = None
        mode, note, problems = "", "", []
        try:
            picture = pictures.decode_image(pictures.read_bytes(pair.image, pair.image_where), pair.image_where)
            image, note = picture.array, picture.note
        except InputError as problem:
            problems.append(str(problem))
        if pair.label is not None:
            try:
                data = pictures.read_bytes(pair.label, pair.label_where)
                decoded = labels.decode(data, pair.label_where, coding, descriptor)
                label, mode = decoded.array, decoded.mode
            except InputError as problem:
                problems.append(str(problem))
        where = pair.image_where if pair.label is None else pair.label_where
        yield Sample(where, image, label, mode, "; ".join(problems), note, pair.image_where)


def read_records(dataset_dir: str | os.PathLike, split: str, skip_corrupt: bool = False) -> Iterator[Sample]:
    """Reads a split of a built dataset; a record that cannot be parsed is told, a truncated shard is raised.

    So is a record whose checksum does not fit, unless `skip_corrupt`: then it is told too.
    """
    from nas_seg.datasets import example, records

    damaged: list[Sample] = []

    def note_damage(where: str, problem: str) -> None:
        damaged.append(Sample(where, None, None, "", problem))

    opened = records.open_split(dataset_dir, split)
    for where, serialized in records.read_records(opened, note_damage if skip_corrupt else None):
        try:
            record = example.decode(serialized, where)
            yield Sample(where, record.image, record.label, "" if record.label is None else "L")
        except InputError as problem:
            yield Sample(where, None, None, "", str(problem))
    yield from damaged


def inspect(
    samples: Iterable[Sample], descriptor: DatasetDescriptor, show: int = 0, skip_corrupt: bool = False
) -> Report:
    """Counts what is in `samples` and gathers what looks wrong.

    Args:
        samples: the pictures.
        descriptor: says which values are classes and which is ignored.
        show: keep this many pairs for a contact sheet, spread over all.
        skip_corrupt: of pictures with a warning of `REFUSED` count nothing else, as if they were not there.
    """
    report = Report()
    keep = _Spread(show)
    for sample in samples:
        report.num_images += 1
        found = () if sample.label is None else np.unique(sample.label, return_counts=True)
        refusals = _refusals(sample, found, descriptor)
        for kind, text in refusals:
            report.warnings[kind].append(text)
        report.num_refused += bool(refusals)
        if refusals and skip_corrupt:
            continue
        if sample.image is not None:
            report.sizes[sample.image.shape[:2]] += 1
            if sample.note:
                kind = f"{sample.note} image, becomes RGB of 8 bits"
                report.warnings[kind].append(sample.image_where or sample.where)
            keep.offer((sample.image, sample.label))
        if sample.label is not None:
            _count(sample, *found, descriptor, report)
    report.shown = keep.pick()
    return report


def _refusals(sample: Sample, found: Sequence[np.ndarray], descriptor: DatasetDescriptor) -> list[tuple[str, str]]:
    """Kind and text of what forbids to store a picture; `found` are its label's values and their pixels."""
    refusals = [(CORRUPT, sample.problem)] if sample.problem else []
    if not found:
        return refusals
    if sample.image is not None and sample.label.shape != sample.image.shape[:2]:
        sizes = "x".join(map(str, sample.label.shape)), "x".join(map(str, sample.image.shape[:2]))
        refusals.append((_MISMATCH, f"{sample.where}: the label is {sizes[0]}, its image {sizes[1]}"))
    outside = [value for value in found[0].tolist() if not _is_known(value, descriptor)]
    if outside:
        refusals.append((_OUTSIDE, f"{sample.where}: {', '.join(map(str, outside[:8]))}"))
    return refusals


def _count(
    sample: Sample, values: np.ndarray, counts: np.ndarray, descriptor: DatasetDescriptor, report: Report
) -> None:
    report.num_labels += 1
    report.counts.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    report.images_with.update(values.tolist())
    labelled = int(counts[values != descriptor.ignore_label].sum())
    report.pixels_with.update(dict.fromkeys(values.tolist(), labelled))
    if sample.mode == "P":
        report.warnings["palette label, its indices are read"].append(sample.where)
    if values.tolist() == [descriptor.ignore_label]:
        report.warnings["empty mask, every pixel is ignored"].append(sample.where)


def _is_known(value: int, descriptor: DatasetDescriptor) -> bool:
    return 0 <= value < descriptor.num_classes or value == descriptor.ignore_label


class _Spread:
    """Keeps items spread over a stream of unknown length: a video's neighbouring frames would all look alike."""

    def __init__(self, count: int):
        self._count, self._stride, self._seen, self._kept = count, 1, 0, []

    def offer(self, item: object) -> None:
        """Shows it the next item of the stream."""
        if self._seen % self._stride == 0 and self._count:
            self._kept.append(item)
            if len(self._kept) > 4 * self._count:
                self._kept, self._stride = self._kept[::2], self._stride * 2
        self._seen += 1

    def pick(self) -> list:
        """At most `count` items, evenly spread, in the stream's order."""
        if len(self._kept) <= self._count:
            return self._kept
        return [self._kept[int(i)] for i in np.linspace(0, len(self._kept) - 1, self._count).round()]


def histogram(report: Report, descriptor: DatasetDescriptor, title: str) -> Table:
    """A table of the values found: pixels, share, and in how many pictures."""
    table = Table(title=title, title_justify="left")
    for column, justify in (("label", "right"), ("class", "left"), ("share of pixels", "right"), ("images", "right")):
        table.add_column(column, justify=justify)
    total = max(sum(report.counts.values()), 1)
    for value in sorted(report.counts | {v: 0 for v in range(descriptor.num_classes) if descriptor.num_classes < 256}):
        share, images = report.counts[value] / total, report.images_with[value]
        table.add_row(str(value), _name(value, descriptor), f"{share:.3%}", str(images))
    return table


def _name(value: int, descriptor: DatasetDescriptor) -> str:
    if value == descriptor.ignore_label:
        return "(ignored)"
    return descriptor.class_names[value] if 0 <= value < descriptor.num_classes else "(outside the classes)"


def describe(report: Report, descriptor: DatasetDescriptor, most: int = 5, list_corrupt: bool = False) -> list[str]:
    """Lines on counts, sizes, void share and warnings; at most `most` examples a warning.

    With `list_corrupt` all of `REFUSED` are listed.
    """
    lines = [f"{report.num_images} images, {report.num_labels} labels"]
    sizes = [f"{height}x{width} ({count})" for (height, width), count in report.sizes.most_common(most)]
    more = f" and {len(report.sizes) - most} more" if len(report.sizes) > most else ""
    mean = f"; mean {' x '.join(f'{x:.1f}' for x in suggest.mean_size(report.sizes))}" if report.sizes else ""
    lines.append(f"sizes: {', '.join(sizes)}{more}{mean}")
    lines.append(f"void (label {descriptor.ignore_label}): {report.void_share(descriptor.ignore_label):.2%}")
    for kind, texts in report.warnings.items():
        shown = texts if list_corrupt and kind in REFUSED else texts[:most]
        lines.append(f"warning: {kind}: {len(texts)}")
        lines.extend(f"  {text}" for text in shown)
        if len(texts) > len(shown):
            lines.append(f"  and {len(texts) - len(shown)} more")
    return lines


def suggestions(report: Report, descriptor: DatasetDescriptor) -> list[str]:
    """Flags of tools/train.py that suit the pictures, a line each with the reason."""
    lines = []
    if report.sizes:
        height, width = suggest.crop_size(report.sizes)
        lines.append(
            f"--train_crop_size={height},{width}  (covers 95% of the pictures, at most {suggest.LARGEST_CROP}; "
            "smaller ones of k * 16 + 1 save memory)"
        )
    if report.num_labels and descriptor.num_classes < 256:
        weights = suggest.class_weights(
            report.counts, report.pixels_with, descriptor.num_classes, descriptor.ignore_label
        )
        lines.append(
            f"--label_weights={','.join(f'{weight:.4g}' for weight in weights)}  (median frequency, if rare classes "
            "are to count more; --label_weights=sqrt, its square root, is milder)"
        )
    return lines


_CELL, _GAP, _LINE = 240, 6, 18


def contact_sheet(reports: dict[str, Report], descriptor: DatasetDescriptor, columns: int = 3) -> np.ndarray:
    """Pictures beside their coloured labels, split by split, over a legend; uint8 RGB.

    Args:
        reports: what `inspect(..., show=n)` found, by split.
        descriptor: names and colours.
        columns: pairs in a row.
    """
    width = columns * (2 * _CELL + _GAP) + _GAP
    rows = []
    for split, report in reports.items():
        pairs = report.shown
        rows.append(_text_row(split, width))
        for begin in range(0, len(pairs), columns):
            rows.append(_pair_row(pairs[begin : begin + columns], descriptor, width))
    values = sorted({value for report in reports.values() for value in report.counts})
    rows.extend(_legend(values, descriptor, width))
    return np.concatenate(rows)


def _text_row(text: str, width: int) -> np.ndarray:
    row = Image.new("RGB", (width, _LINE + _GAP), "white")
    ImageDraw.Draw(row).text((_GAP, _GAP // 2), text, fill="black", font=ImageFont.load_default(14))
    return np.asarray(row)


def _pair_row(pairs: Sequence[tuple], descriptor: DatasetDescriptor, width: int) -> np.ndarray:
    shapes = [image.shape for image, _ in pairs]
    height = max(max(1, round(_CELL * shape[0] / shape[1])) for shape in shapes)
    row = Image.new("RGB", (width, height + _GAP), "white")
    for i, (image, label) in enumerate(pairs):
        size = (_CELL, max(1, round(_CELL * image.shape[0] / image.shape[1])))
        left = _GAP + i * (2 * _CELL + _GAP)
        row.paste(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR), (left, 0))
        if label is not None:
            colored = Image.fromarray(colorize(label, descriptor.colors))
            row.paste(colored.resize(size, Image.Resampling.NEAREST), (left + _CELL, 0))
    return np.asarray(row)


def _legend(values: Sequence[int], descriptor: DatasetDescriptor, width: int) -> list[np.ndarray]:
    entries = list(range(descriptor.num_classes)) if descriptor.num_classes <= 40 else []
    entries += [value for value in values if value not in entries]
    per_row = max(1, width // 180)
    rows = []
    for begin in range(0, len(entries), per_row):
        row = Image.new("RGB", (width, _LINE + _GAP), "white")
        draw = ImageDraw.Draw(row)
        for i, value in enumerate(entries[begin : begin + per_row]):
            color = tuple(int(c) for c in colorize(np.array([[value]]), descriptor.colors)[0, 0])
            left = _GAP + i * 180
            draw.rectangle((left, 3, left + 22, 3 + _LINE - 2), fill=color, outline="black")
            text = f"{value} {_name(value, descriptor)}"
            draw.text((left + 28, 2), text[:22], fill="black", font=ImageFont.load_default(13))
        rows.append(np.asarray(row))
    return rows


def write_contact_sheet(path: str | os.PathLike, reports: dict[str, Report], descriptor: DatasetDescriptor) -> None:
    """Writes `contact_sheet` as a PNG file."""
    config.write_bytes(path, pictures.encode_png(contact_sheet(reports, descriptor)))
