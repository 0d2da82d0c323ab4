"""Cached features of a data set's split under a frozen backbone: what the proxies train on."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from nas_seg import model as model_lib
from nas_seg.common import IMAGE, LABEL
from nas_seg.core import backbones
from nas_seg.core.backbones import AnyBackbone, BackboneConfig
from nas_seg.core.feature_cache import FeatureCache, open_or_build
from nas_seg.datasets import records
from nas_seg.datasets.data_generator import VIEW_AUGMENTATION, view_dataset
from nas_seg.datasets.descriptors import read_descriptor
from nas_seg.utils import config as config_lib
from nas_seg.utils.grid import grid_size as grid_size

_BATCH_SIZE = 8


class Teacher(NamedTuple):
    """A trained network whose logits are cached beside the features.

    Attributes:
        logits: RGB [B, H, W, 3] in [0, 255] -> what is cached, [B, h, w, num_classes].
        digest: of all that this depends on.
    """

    logits: Callable[[Any], Any]
    digest: str


def backbone_config(weights: str | None, **overrides) -> BackboneConfig:
    """The backbone of a run folder, or MobileNet-v2 at output stride 16, with some fields replaced.

    Args:
        weights: what `nas_seg.model.load_backbone_weights` takes.
        overrides: fields of BackboneConfig; those that are None stay as they are.
    """
    base = model_lib.read_config(weights).network.backbone if weights and os.path.isdir(weights) else BackboneConfig()
    return dataclasses.replace(base, **{name: value for name, value in overrides.items() if value is not None})


def load_backbone(
    backbone: AnyBackbone, weights: str | None, seed: int = 0, low_level_strides: Sequence[int] = ()
) -> keras.Model:
    """A backbone with weights: normalised images -> features, and maps at further strides where they are asked for.

    Without `weights` it is drawn from `seed`.
    """
    keras.utils.set_random_seed(seed)
    built = backbones.build_backbone(backbone, low_level_strides)
    model_lib.fill_backbone(built, backbone, weights)
    return built


def conditions(task: Any, backbone: keras.Model) -> dict[str, str]:
    """What the scores of a proxy task depend on by content, as JSON; neither file names nor folders, for studies move.

    Args:
        task: with the fields dataset_dir, train_split, val_split, backbone, proxy, size, views and seed.
        backbone: of the task, with its weights.
    """
    data = read_descriptor(task.dataset_dir)
    found = {name: config_lib.to_json(getattr(task, name)) for name in ("proxy", "size", "views", "seed")} | {
        "backbone": backbones.identity(task.backbone) | {"weights": backbones.weights_digest(backbone)},
        "data": {split: data.split(split).digest for split in (task.train_split, task.val_split)},
    }
    return {name: json.dumps(value, sort_keys=True) for name, value in found.items()}


def cache_folder(run_dir: str | os.PathLike, split: str, more: bool) -> pathlib.Path:
    """Of the features of a split in the folder of a search.

    Args:
        run_dir: of the search.
        split: name.
        more: whether they are of more than whole pictures, to train on: then one split may be trained on and scored.
    """
    return pathlib.Path(run_dir, "cache", f"{split}-to-train-on" if more else split)


def cache_features(
    folder: str | os.PathLike,
    dataset_dir: str | os.PathLike,
    split: str,
    backbone: keras.Model,
    backbone_config: AnyBackbone,
    size: tuple[int, int],
    views: int = 1,
    seed: int = 0,
    teacher: Teacher | None = None,
) -> FeatureCache:
    """Opens or computes the features of a split.

    Args:
        folder: of this cache alone.
        dataset_dir: folder with dataset.json.
        split: a split with labels.
        backbone: built from `backbone_config`, with its weights; further maps that it puts out are cached too.
        size: (height, width) in pixels that every picture is brought to.
        views: of each picture; the first is the whole picture, the others are augmented ones.
        seed: of the augmented views.
        teacher: its logits are the cache's last map.

    Raises:
        InputError: where the folder holds features of other weights, data or sizes.
    """
    info = records.open_split(dataset_dir, split).info
    made_from = {
        "weights": backbones.weights_digest(backbone),
        "backbone": backbones.identity(backbone_config),
        "data": info.digest,
        "split": split,
        "size": list(size),
        "views": views,
        "seed": seed if views > 1 else 0,
    }
    if teacher is not None:
        made_from["teacher"] = teacher.digest

    normalize = backbones.normalize(backbone_config)
    augmentation = dataclasses.replace(VIEW_AUGMENTATION, mean_pixel=backbones.mean_pixel(normalize))

    @tf.function
    def maps(images):
        return tf.nest.flatten(backbone(normalize(images), training=False))

    def compute():
        with records.translate_data_errors(dataset_dir, split):
            pictures = view_dataset(
                dataset_dir, split, size=tuple(size), views=views, seed=seed, augmentation=augmentation
            )
            for batch in pictures.batch(_BATCH_SIZE):
                first, *more = maps(batch[IMAGE])
                more += [] if teacher is None else [teacher.logits(batch[IMAGE])]
                yield first.numpy(), batch[LABEL].numpy(), *(one.numpy() for one in more)

    return open_or_build(folder, made_from, info.num_images * views, compute)
