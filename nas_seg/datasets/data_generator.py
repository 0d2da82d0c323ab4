"""Records to batches: a repeatable training stream, one pass for evaluation, fixed views for a feature cache.

Each record is found by its place in its shard, so any order costs the same and a resumed run starts in the middle of
an epoch without reading what came before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from nas_seg import common
from nas_seg.datasets import example, input_preprocess, records
from nas_seg.datasets.input_preprocess import Augmentation
from nas_seg.datasets.preprocess_utils import MEAN_PIXEL
from nas_seg.utils.errors import InputError
from nas_seg.utils.size_range import SizeRange

Size = tuple[int, int]
# Of cached views: scales 0.75, 1, ..., 2 of the whole picture, flipped or not. Small scales waste a cache on padding,
# so they begin later than in training.
VIEW_AUGMENTATION = Augmentation(min_scale_factor=0.75)


def train_dataset(
    dataset_dir: str | os.PathLike,
    split: str,
    *,
    crop_size: Size,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    min_scale_factor: float = 0.5,
    max_scale_factor: float = 2.0,
    scale_factor_step_size: float = 0.25,
    flip: bool = True,
    mean_pixel: tuple[float, float, float] = MEAN_PIXEL,
    size_range: SizeRange | None = None,
    base_size: Size | None = None,
    indices: Sequence[int] | None = None,
) -> tf.data.Dataset:
    """An endless stream of augmented batches; batch k depends on `seed` and k alone.

    Every epoch is a permutation of the split, or of the given part of it, drawn from (seed, epoch); the augmentation of
    an example is drawn from (seed, its place in the stream). So a stream begun at `start_step` goes on exactly as an
    uninterrupted one would.

    Args:
        dataset_dir: folder with dataset.json.
        split: name of a split with labels.
        crop_size: (height, width) of the pictures.
        batch_size: global batch size.
        seed: 0 or more.
        start_step: how many batches to leave out at the start.
        min_scale_factor: smallest random scale.
        max_scale_factor: largest random scale.
        scale_factor_step_size: distance between scales; 0 draws from the whole range.
        flip: mirror half of the pictures.
        mean_pixel: RGB that a crop is padded with.
        size_range: what a picture is resized to before it is scaled; both are done in one, from its own pixels.
        base_size: (height, width) that every picture is resized to before it is scaled, in place of a size_range.
        indices: places of the records to draw from, each once; None for all.

    Returns:
        A dataset of {common.IMAGE: float32 [batch, *crop_size, 3] in 0..255, common.LABEL: int32 [batch, *crop_size]}.

    Raises:
        InputError: naming the file or argument that is wrong.
    """
    opened = records.open_split(dataset_dir, split)
    if not opened.info.has_labels:
        raise InputError(f"split {split!r} of {dataset_dir}: expected labels to train on, it has none")
    _check_positive(batch_size=batch_size, crop_height=crop_size[0], crop_width=crop_size[1])
    if base_size is not None:
        _check_positive(base_height=base_size[0], base_width=base_size[1])
    if size_range and base_size:
        raise InputError(f"base_size: expected none beside a size_range, received {tuple(base_size)}")
    size_range = size_range or SizeRange()
    augmentation = Augmentation(min_scale_factor, max_scale_factor, scale_factor_step_size, flip, mean_pixel)
    order_seed, augment_seed = tf.unstack(tf.random.split(tf.constant([seed, 0], tf.int64), 2))
    chosen = _check_indices(indices, opened.info.num_images)
    count, first = len(chosen), start_step * batch_size

    def order_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        draws = tf.random.stateless_uniform([count], _fold(order_seed, epoch), dtype=tf.float32)
        order = tf.gather(chosen, tf.argsort(draws, stable=True))
        return tf.data.Dataset.from_tensor_slices((epoch * count + tf.range(count, dtype=tf.int64), order))

    def load(place: tf.Tensor, index: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = _read(opened, index)
        image, label = input_preprocess.augment(
            parsed[common.IMAGE],
            parsed[common.LABEL],
            _fold(augment_seed, place),
            crop_size=tuple(crop_size),
            ignore_label=opened.descriptor.ignore_label,
            augmentation=augmentation,
            base_size=base_size or size_range.resized(tf.unstack(tf.shape(parsed[common.LABEL])), tf),
        )
        return {common.IMAGE: image, common.LABEL: label}

    epochs = tf.data.Dataset.range(first // count, tf.int64.max)
    # What is skipped here are pairs of integers: nothing is read for them.
    stream = epochs.flat_map(order_epoch).skip(first % count)
    return _finish(_map(stream, load).batch(batch_size, drop_remainder=True))


def eval_dataset(
    dataset_dir: str | os.PathLike, split: str, *, batch_size: int = 1, size: Size | None = None
) -> tf.data.Dataset:
    """One pass over whole pictures, in order.

    Args:
        dataset_dir: folder with dataset.json.
        split: name of a split.
        batch_size: pictures a batch; the last batch may be smaller.
        size: (height, width) to resize to; None leaves the pictures as they are.

    Returns:
        A dataset of {common.IMAGE: float32 [B, H, W, 3] in 0..255, common.LABEL: int32 [B, H, W],
        common.IMAGE_NAME: string [B]}. Without labels every label is the ignored one.

    Raises:
        InputError: naming the file or argument that is wrong.
    """
    opened = records.open_split(dataset_dir, split)
    _check_positive(batch_size=batch_size)
    info = opened.info
    uniform = info.min_size if info.min_size == info.max_size else None
    if batch_size > 1 and size is None and uniform is None:
        raise InputError(
            f"batch_size: expected 1 for split {split!r}, whose pictures have several sizes, or a size to resize "
            f"them to; received {batch_size}"
        )

    def load(index: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = _read(opened, index)
        image, label = tf.cast(parsed[common.IMAGE], tf.float32), tf.cast(parsed[common.LABEL], tf.int32)
        if size is not None:
            image, label = input_preprocess.resize(image, label, tuple(size))
        elif uniform is not None:
            image, label = tf.ensure_shape(image, [*uniform, 3]), tf.ensure_shape(label, uniform)
        return {common.IMAGE: image, common.LABEL: label, common.IMAGE_NAME: parsed[common.IMAGE_NAME]}

    return _finish(_map(tf.data.Dataset.range(info.num_images), load).batch(batch_size))


def view_dataset(
    dataset_dir: str | os.PathLike,
    split: str,
    *,
    size: Size,
    views: int = 1,
    seed: int = 0,
    augmentation: Augmentation | None = None,
) -> tf.data.Dataset:
    """A fixed, finite list of pictures of one size: what a feature cache is computed from.

    Element v * N + i is view v of picture i of N. View 0 is the whole picture resized; each further view is an
    augmented one, at a random scale around view 0's. So fewer views are the beginning of more.

    Args:
        dataset_dir: folder with dataset.json.
        split: name of a split.
        size: (height, width) of every view.
        views: views a picture, at least 1.
        seed: draws the augmented views.
        augmentation: what is drawn; None: `VIEW_AUGMENTATION`.

    Returns:
        A dataset, not batched, of {common.IMAGE: float32 [*size, 3], common.LABEL: int32 [*size]}.

    Raises:
        InputError: naming the file or argument that is wrong.
    """
    opened = records.open_split(dataset_dir, split)
    _check_positive(views=views, height=size[0], width=size[1])
    augmentation = augmentation or VIEW_AUGMENTATION
    count = opened.info.num_images
    seed_pair = tf.constant([seed, 1], tf.int64)

    def load(place: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = _read(opened, place % count)
        image, label = parsed[common.IMAGE], parsed[common.LABEL]
        image, label = tf.cond(
            place < count,
            lambda: input_preprocess.resize(image, label, tuple(size)),
            lambda: input_preprocess.augment(
                image,
                label,
                _fold(seed_pair, place),
                crop_size=tuple(size),
                ignore_label=opened.descriptor.ignore_label,
                augmentation=augmentation,
                base_size=tuple(size),
            ),
        )
        return {common.IMAGE: image, common.LABEL: label}

    return _finish(_map(tf.data.Dataset.range(views * count), load))


def _read(opened: records.Split, index: tf.Tensor) -> dict[str, tf.Tensor]:
    return example.parse(
        opened.read(index), has_label=opened.info.has_labels, ignore_label=opened.descriptor.ignore_label
    )


def _map(dataset: tf.data.Dataset, load: Callable) -> tf.data.Dataset:
    return dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def _finish(dataset: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    # The shards are read by place: there are no input files to give out among workers, only elements.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options).prefetch(tf.data.AUTOTUNE)


def _fold(seed: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    return tf.random.fold_in(seed, number)


def _check_indices(indices: Sequence[int] | None, num_images: int) -> np.ndarray:
    """The places to draw from, int32."""
    if indices is None:
        return np.arange(num_images, dtype=np.int32)
    chosen = np.asarray(sorted(set(indices)), np.int32)
    if not len(chosen) or len(chosen) != len(indices) or chosen[0] < 0 or chosen[-1] >= num_images:
        raise InputError(f"indices: expected some of 0 to {num_images - 1}, each once, received {list(indices)[:8]}")
    return np.asarray(indices, np.int32)


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise InputError(f"{name}: expected 1 or more, received {value}")
