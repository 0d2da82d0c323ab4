"""Pictures a second out of a training's input pipeline, beside decoding alone and beside what a step takes in."""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from collections.abc import Sequence

import tensorflow as tf
from rich.table import Table

from nas_seg.benchmark import model
from nas_seg.benchmark.timing import Timing
from nas_seg.common import IMAGE, LABEL
from nas_seg.datasets import data_generator, example, records
from nas_seg.utils.console import console

# Of the speed of decoding the pictures alone; what is left is for labels, augmentation and putting batches together.
RATIO_GOAL = 0.6
_WARM_BATCHES = 2


@dataclasses.dataclass(frozen=True)
class PipelineRow:
    """The input pipeline and decoding of the same records, in turns, with the same number of threads.

    Attributes:
        split: of the data set.
        crop_size: (height, width) that pictures are cut to.
        batch_size: pictures a batch.
        threads: that either may use.
        images: pictures that each timing is of.
        pipeline: reading, decoding, augmentation, batches.
        pictures: reading and decoding of the pictures alone.
        decoding: reading and decoding of picture and label.
    """

    split: str
    crop_size: tuple[int, int]
    batch_size: int
    threads: int
    images: int
    pipeline: Timing
    pictures: Timing
    decoding: Timing

    @property
    def images_per_second(self) -> float:
        """Out of the pipeline."""
        return self.images / self.pipeline.median

    @property
    def decoded_per_second(self) -> float:
        """By decoding the pictures alone."""
        return self.images / self.pictures.median

    @property
    def ratio(self) -> float:
        """Speed of the pipeline over that of decoding the pictures alone."""
        return self.pictures.median / self.pipeline.median

    @property
    def ratio_with_labels(self) -> float:
        """Speed of the pipeline over that of decoding pictures and labels, which it cannot do without."""
        return self.decoding.median / self.pipeline.median


@dataclasses.dataclass(frozen=True)
class NeedRow:
    """What the training step of a network takes in.

    Attributes:
        name: of the preset.
        step: seconds of a step.
        images_per_second: that it could use.
        supply: images a second of the pipeline over that; below 1 a training waits for its pictures.
    """

    name: str
    step: Timing
    images_per_second: float
    supply: float


def time_pipeline(
    dataset_dir: str | os.PathLike,
    split: str,
    crop_size: tuple[int, int],
    batch_size: int,
    repetitions: int = 9,
    batches: int = 8,
) -> PipelineRow:
    """Times the pipeline of a training with its defaults, and decoding, one after the other and again.

    Args:
        dataset_dir: folder with dataset.json.
        split: with labels.
        crop_size: (height, width).
        batch_size: pictures a batch.
        repetitions: timings of each.
        batches: that a timing is of.

    Raises:
        InputError: naming the file or argument that is wrong.
    """
    threads = len(os.sched_getaffinity(0))
    pipeline = data_generator.train_dataset(dataset_dir, split, crop_size=crop_size, batch_size=batch_size, seed=0)
    peers = (_decoding(dataset_dir, split, batch_size, has_label=labels) for labels in (False, True))
    datasets = [_with_threads(one, threads) for one in (pipeline, *peers)]
    with records.translate_data_errors(dataset_dir, split):
        first = [_seconds(dataset, 1) for dataset in datasets]
        turns = [[_seconds(dataset, batches) for dataset in datasets] for _ in range(repetitions)]
    timings = [
        Timing(statistics.median(times), min(times), max(times), once)
        for times, once in zip(zip(*turns, strict=True), first, strict=True)
    ]
    return PipelineRow(split, tuple(crop_size), batch_size, threads, batches * batch_size, *timings)


def time_needs(row: PipelineRow, presets: Sequence[str], num_classes: int, repetitions: int = 9) -> list[NeedRow]:
    """Times a training step of presets on batches such as the pipeline's."""
    steps = model.time_models(presets, num_classes, row.crop_size, repetitions, row.batch_size, training=True)
    needs = [row.batch_size / step.timing.median for step in steps]
    return [
        NeedRow(step.name, step.timing, need, row.images_per_second / need)
        for step, need in zip(steps, needs, strict=True)
    ]


def show(row: PipelineRow, needs: Sequence[NeedRow]) -> None:
    """Prints the figures."""
    height, width = row.crop_size
    title = (
        f"Pictures of {row.split} to batches of {row.batch_size}x{height}x{width}, {row.threads} threads; "
        f"{row.ratio:.2f} of decoding pictures, goal {RATIO_GOAL}"
    )
    table = Table("what", "images/s", "range", "of decoding pictures", title=title)
    kinds = {"input pipeline": row.pipeline, "decoding pictures": row.pictures, "pictures and labels": row.decoding}
    for name, timing in kinds.items():
        span = f"{row.images / timing.slowest:.0f} to {row.images / timing.fastest:.0f}"
        table.add_row(name, f"{row.images / timing.median:.0f}", span, f"{row.pictures.median / timing.median:.2f}")
    console().print(table)
    wanted = Table("preset", "s/step", "takes in, images/s", "supply", title="What a training step needs")
    for need in needs:
        wanted.add_row(need.name, f"{need.step.median:.3f}", f"{need.images_per_second:.1f}", f"{need.supply:.1f} x")
    console().print(wanted)


def _decoding(dataset_dir: str | os.PathLike, split: str, batch_size: int, has_label: bool) -> tf.data.Dataset:
    """Records of a split, read and decoded without end, with their labels or without; a number for each comes out."""
    opened = records.open_split(dataset_dir, split)

    def decode(index):
        ignore_label = opened.descriptor.ignore_label
        parsed = example.parse(opened.read(index), has_label=has_label, ignore_label=ignore_label)
        # What is not asked for is not computed.
        return tf.size(parsed[IMAGE]) + (tf.size(parsed[LABEL]) if has_label else 0)

    places = tf.data.Dataset.range(opened.info.num_images).shuffle(opened.info.num_images, seed=0).repeat()
    decoded = places.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return decoded.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def _with_threads(dataset: tf.data.Dataset, threads: int) -> tf.data.Dataset:
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    return dataset.with_options(options)


def _seconds(dataset: tf.data.Dataset, batches: int) -> float:
    """Seconds of some batches, after the first ones: an iterator of its own, so that nothing is made in other turns."""
    iterator = iter(dataset)
    for _ in range(_WARM_BATCHES):
        next(iterator)
    start = time.perf_counter()
    for _ in range(batches):
        next(iterator)
    return time.perf_counter() - start
