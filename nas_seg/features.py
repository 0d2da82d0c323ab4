"""Cached features of a data set's split under a frozen backbone: what the proxies train on."""

from __future__ import annotations

import dataclasses
import os

import keras
import tensorflow as tf

from nas_seg import model as model_lib
from nas_seg.common import IMAGE, LABEL
from nas_seg.core import backbones
from nas_seg.core.backbones import BackboneConfig
from nas_seg.core.feature_cache import FeatureCache, open_or_build
from nas_seg.datasets import records
from nas_seg.datasets.data_generator import VIEW_AUGMENTATION, view_dataset

_BATCH_SIZE = 8


def backbone_config(weights: str | None, **overrides) -> BackboneConfig:
    """The backbone of a run folder, or MobileNet-v2 at output stride 16, with some fields replaced.

    Args:
        weights: what `nas_seg.model.load_backbone_weights` takes.
        overrides: fields of BackboneConfig; those that are None stay as they are.
    """
    base = model_lib.read_config(weights).network.backbone if weights and os.path.isdir(weights) else BackboneConfig()
    return dataclasses.replace(base, **{name: value for name, value in overrides.items() if value is not None})


def load_backbone(backbone: BackboneConfig, weights: str | None, seed: int = 0) -> keras.Model:
    """A backbone with weights: normalised images -> features. Without `weights`, drawn from `seed`."""
    keras.utils.set_random_seed(seed)
    built = backbones.build_backbone(backbone)
    model_lib.fill_backbone(built, backbone, weights)
    return built


def grid_size(size: tuple[int, int], output_stride: int) -> tuple[int, int]:
    """The size k * output_stride + 1 nearest to a picture's, where corners of map and picture align."""
    return tuple(max(1, round((n - 1) / output_stride)) * output_stride + 1 for n in size)


def cache_features(
    folder: str | os.PathLike,
    dataset_dir: str | os.PathLike,
    split: str,
    backbone: keras.Model,
    backbone_config: BackboneConfig,
    size: tuple[int, int],
    views: int = 1,
    seed: int = 0,
) -> FeatureCache:
    """Opens or computes the features of a split.

    Args:
        folder: of this cache alone.
        dataset_dir: folder with dataset.json.
        split: a split with labels.
        backbone: built from `backbone_config`, with its weights.
        size: (height, width) in pixels that every picture is brought to.
        views: of each picture; the first is the whole picture, the others are augmented ones.
        seed: of the augmented views.

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

    normalize = backbones.normalize(backbone_config)
    augmentation = dataclasses.replace(VIEW_AUGMENTATION, mean_pixel=backbones.mean_pixel(normalize))

    @tf.function
    def features(images):
        return backbone(normalize(images), training=False)

    def compute():
        with records.translate_data_errors(dataset_dir, split):
            pictures = view_dataset(
                dataset_dir, split, size=tuple(size), views=views, seed=seed, augmentation=augmentation
            )
            for batch in pictures.batch(_BATCH_SIZE):
                yield features(batch[IMAGE]).numpy(), batch[LABEL].numpy()

    return open_or_build(folder, made_from, info.num_images * views, compute)
