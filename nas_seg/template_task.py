"""The proxy task of a search of template networks: what its scores depend on, its caches, its evaluator."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from nas_seg import features
from nas_seg import model as model_lib
from nas_seg.common import IMAGE, LABEL
from nas_seg.core import backbones
from nas_seg.core.feature_cache import FeatureCache
from nas_seg.core.resize import resize_bilinear
from nas_seg.datasets import data_generator, records
from nas_seg.datasets.descriptors import read_descriptor
from nas_seg.features import Teacher
from nas_seg.template.encoder import TemplateEncoder
from nas_seg.template.plan import ENCODER_MAPS
from nas_seg.template.proxy import TemplateProxyEvaluator
from nas_seg.template.proxy_config import LABEL_STRIDE, TemplateProxyConfig, check_crop
from nas_seg.template.proxy_training import Pictures
from nas_seg.utils import runs
from nas_seg.utils.errors import InputError


@dataclasses.dataclass(frozen=True)
class TemplateTask:
    """All that the score of a network depends on.

    Attributes:
        dataset_dir: folder with dataset.json.
        train_split, val_split: to train a network on, and to score it on.
        backbone: the encoder.
        backbone_weights: what `nas_seg.model.load_backbone_weights` takes.
        size: (height, width) in pixels that cached pictures are brought to.
        views: cached views of a training picture.
        seed: of what the encoder lacks, the views, and a trial.
        proxy: how a trial trains.
        teacher: a run folder, a .keras file or the folder of a SavedModel; None for none.
    """

    dataset_dir: str
    train_split: str
    val_split: str
    backbone: TemplateEncoder
    backbone_weights: str | None
    size: tuple[int, int]
    views: int
    seed: int
    proxy: TemplateProxyConfig
    teacher: str | None = None

    def __post_init__(self):
        check_crop(self.proxy.crop_size, self.size)

    def load_backbone(self) -> keras.Model:
        """The encoder with its weights: normalised images -> the maps at strides 8 and 4.

        A teacher that cannot be read is refused here, too, before a search writes anything.
        """
        self._teacher  # noqa: B018
        return features.load_backbone(self.backbone, self.backbone_weights, self.seed, (ENCODER_MAPS[0].stride,))

    def open(self, run_dir: str | os.PathLike, backbone: keras.Model) -> tuple[TemplateProxyEvaluator, dict[str, str]]:
        """(evaluator, what its scores depend on) over the caches of a run folder, made where they are missing.

        Raises:
            InputError: where the folder holds caches of other maps, or the teacher's logits are of other classes.
        """
        data = read_descriptor(self.dataset_dir)
        found = features.conditions(self, backbone)
        teacher = self._teacher
        if teacher is not None:
            found["teacher"] = teacher.digest
        if self.proxy.stage1_steps:
            # Earlier studies scaled the pictures' own size.
            found["second stage"] = "scales of the cached size"
        evaluator = TemplateProxyEvaluator(
            self.cache(run_dir, backbone, self.train_split, self.views, teacher),
            self.cache(run_dir, backbone, self.val_split),
            data.num_classes,
            data.ignore_label,
            self.proxy,
            data.class_names,
            self._pictures(backbone) if self.proxy.stage1_steps else None,
        )
        return evaluator, found

    @functools.cached_property
    def _teacher(self) -> Teacher | None:
        if not self.teacher:
            return None
        return load_teacher(self.teacher, read_descriptor(self.dataset_dir).num_classes, self.size)

    def cache(
        self,
        run_dir: str | os.PathLike,
        backbone: keras.Model,
        split: str,
        views: int = 1,
        teacher: Teacher | None = None,
    ) -> FeatureCache:
        """The maps of a split; with one view they are of whole pictures."""
        folder = features.cache_folder(run_dir, split, views > 1 or teacher is not None)
        return features.cache_features(
            folder, self.dataset_dir, split, backbone, self.backbone, self.size, views, self.seed, teacher
        )

    def _pictures(self, backbone: keras.Model) -> Pictures:
        normalize = backbones.normalize(self.backbone)

        # Made once: an iterator costs little, a dataset the tracing of its functions.
        @functools.cache
        def training(seed: int) -> tf.data.Dataset:
            return data_generator.train_dataset(
                self.dataset_dir,
                self.train_split,
                crop_size=self.proxy.crop_size or self.size,
                batch_size=self.proxy.batch_size,
                seed=seed,
                min_scale_factor=self.proxy.min_scale_factor,
                max_scale_factor=self.proxy.max_scale_factor,
                mean_pixel=backbones.mean_pixel(normalize),
                base_size=self.size,
            )

        @functools.cache
        def validation() -> tf.data.Dataset:
            pictures = data_generator.view_dataset(self.dataset_dir, self.val_split, size=self.size)
            return pictures.batch(self.proxy.batch_size)

        def train(seed: int) -> Iterator[tuple[Any, Any]]:
            with records.translate_data_errors(self.dataset_dir, self.train_split):
                for batch in training(seed):
                    yield batch[IMAGE], batch[LABEL]

        def val() -> Iterator[Any]:
            with records.translate_data_errors(self.dataset_dir, self.val_split):
                for batch in validation():
                    yield batch[IMAGE]

        return Pictures(backbone, normalize, train, val)


def load_teacher(path: str, num_classes: int, size: tuple[int, int]) -> Teacher:
    """A trained network, RGB [B, H, W, 3] in [0, 255] -> logits [B, h, w, num_classes] of any size.

    Args:
        path: a run folder, a .keras file, or the folder of a SavedModel with one input and one output.
        num_classes: of the data set.
        size: (height, width) of the pictures, on whose positions of stride 4 the logits are taken.

    Raises:
        InputError: where there is no such network, or its logits are not of these classes.
    """
    network, digest = _load_network(path)
    grid = tuple(-(-side // LABEL_STRIDE) for side in size)

    # Without AutoGraph, whose stack would stand before what is wrong with a network.
    @tf.function(autograph=False)
    def logits(images):
        return resize_bilinear(tf.cast(network(images), tf.float32), grid)

    try:
        shape = logits(tf.zeros((1, *size, 3))).shape
    except (TypeError, ValueError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"--teacher={path}: expected a network of pictures [1, {size[0]}, {size[1]}, 3] ({reason})"
        ) from None
    if shape[-1] != num_classes:
        raise InputError(
            f"--teacher={path}: expected logits of the data set's {num_classes} classes, received {shape[-1]}"
        )
    return Teacher(logits, digest)


def _load_network(path: str) -> tuple[Callable[[Any], Any], str]:
    """(images -> logits, digest of the weights)."""
    if pathlib.Path(path, runs.CONFIG).is_file():
        model = model_lib.load(path)
    elif os.path.isdir(path):
        return _load_saved_model(path)
    else:
        try:
            # A file of somebody else's must not bring its own code.
            model = keras.models.load_model(path, compile=False, safe_mode=True)
        except Exception as error:  # Keras, zipfile and h5py raise many unrelated types for a file that is none.
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"--teacher={path}: expected a run folder, a .keras file or a SavedModel ({reason})"
            ) from None
    return functools.partial(model, training=False), backbones.weights_digest(model)


def _load_saved_model(path: str) -> tuple[Callable[[Any], Any], str]:
    try:
        loaded = tf.saved_model.load(path)
        signature = loaded.signatures["serving_default"]
    except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"--teacher={path}: expected a run folder, a .keras file or a SavedModel ({reason})") from None
    inputs, outputs = signature.structured_input_signature[1], signature.structured_outputs
    if len(inputs) != 1 or len(outputs) != 1:
        names = f"inputs {sorted(inputs)}, outputs {sorted(outputs)}"
        raise InputError(f"--teacher={path}: expected a SavedModel with one input and one output, found {names}")
    ((name, spec),) = inputs.items()
    (output,) = outputs
    state = hashlib.sha256()
    for file in sorted(pathlib.Path(path).rglob("*")):
        if file.is_file():
            state.update(file.read_bytes())

    def network(images):
        # The signature's functions live as long as what they were loaded with.
        return loaded.signatures["serving_default"](**{name: tf.cast(images, spec.dtype)})[output]

    return network, state.hexdigest()[:12]
