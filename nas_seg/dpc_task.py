"""The proxy task of a search on a data set: what its scores depend on, its feature caches, its evaluator."""

from __future__ import annotations

import dataclasses
import os

import keras

from nas_seg import features
from nas_seg.core.backbones import BackboneConfig
from nas_seg.core.feature_cache import FeatureCache
from nas_seg.datasets.descriptors import read_descriptor
from nas_seg.dpc.cell import check_output_stride
from nas_seg.dpc.proxy import ProxyConfig, ProxyEvaluator, check_crop
from nas_seg.utils import runs
from nas_seg.utils.errors import InputError

SECTION = "task"  # of a run's config.json


@dataclasses.dataclass(frozen=True)
class ProxyTask:
    """All that the score of a cell depends on.

    Attributes:
        dataset_dir: folder with dataset.json.
        train_split, val_split: to train a cell on, and to score it on.
        backbone: frozen.
        backbone_weights: what `nas_seg.model.load_backbone_weights` takes.
        size: (height, width) in pixels that every picture is brought to.
        views: cached views of a training picture.
        seed: of what the backbone lacks, the views, and a trial.
        proxy: how a trial trains.
    """

    dataset_dir: str
    train_split: str
    val_split: str
    backbone: BackboneConfig
    backbone_weights: str | None
    size: tuple[int, int]
    views: int
    seed: int
    proxy: ProxyConfig

    def __post_init__(self):
        if min(self.size) < 1:
            raise InputError(f"size: expected two of 1 or more, received {list(self.size)}")
        check_output_stride(self.backbone.output_stride)
        check_crop(self.proxy.crop_size, self.size, self.backbone.output_stride)

    def load_backbone(self) -> keras.Model:
        """The backbone with its weights."""
        return features.load_backbone(self.backbone, self.backbone_weights, self.seed)

    def open(self, run_dir: str | os.PathLike, backbone: keras.Model) -> tuple[ProxyEvaluator, dict[str, str]]:
        """(evaluator, what its scores depend on) over the caches of a run folder, made where they are missing.

        Raises:
            InputError: where the folder holds caches of other features, or crop and map do not fit.
        """
        train = self.cache(run_dir, backbone, self.train_split, self.views)
        val = self.cache(run_dir, backbone, self.val_split)
        data = read_descriptor(self.dataset_dir)
        facts = (data.num_classes, data.ignore_label, self.backbone.output_stride, self.proxy, data.class_names)
        return ProxyEvaluator(train, val, *facts), features.conditions(self, backbone)

    def cache(self, run_dir: str | os.PathLike, backbone: keras.Model, split: str, views: int = 1) -> FeatureCache:
        """The features of a split; with one view they are of whole pictures."""
        folder = features.cache_folder(run_dir, split, views > 1)
        return features.cache_features(
            folder, self.dataset_dir, split, backbone, self.backbone, self.size, views, self.seed
        )


def read_task(run_dir: str | os.PathLike) -> ProxyTask:
    """The proxy task of the run folder of a search of cells."""
    if "teacher" in (runs.read_config(run_dir).get(SECTION) or ()):
        raise InputError(f"{run_dir}: expected the run folder of a search of cells, found one of template networks")
    return runs.read_section(run_dir, SECTION, ProxyTask)
