"""Backbones: one table, name -> how to build it. Adding one is a file and a row."""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from collections.abc import Callable

import keras
import numpy as np

from nas_seg.core.backbones import mobilenet_v2
from nas_seg.utils.errors import InputError, unknown


@dataclasses.dataclass(frozen=True)
class BackboneConfig:
    """Which backbone, and how dense its features are.

    Attributes:
        name: a row of `BACKBONES`.
        output_stride: input pixels a feature pixel, 8, 16 or 32.
        depth_multiplier: scales the channels.
        divisible_by: channels are multiples of it; None for DeepLab's rule.
    """

    name: str = "mobilenet_v2"
    output_stride: int = 16
    depth_multiplier: float = 1.0
    divisible_by: int | None = None

    def __post_init__(self):
        if self.name not in BACKBONES:
            raise unknown("backbone", self.name, BACKBONES)
        if self.output_stride not in (8, 16, 32):
            raise InputError(f"output_stride: expected 8, 16 or 32, received {self.output_stride}")
        if self.depth_multiplier <= 0:
            raise InputError(f"depth_multiplier: expected a number above 0, received {self.depth_multiplier}")
        if self.divisible_by is not None and self.divisible_by < 1:
            raise InputError(f"divisible_by: expected at least 1, received {self.divisible_by}")


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A row of the table.

    Attributes:
        build: (output_stride, depth_multiplier, divisible_by) -> keras.Model named "backbone".
        applications: the network's class name in keras.applications.
        applications_names: () -> our layer name -> (convolution, batch norm) names there.
    """

    build: Callable[[int, float, int | None], keras.Model]
    applications: str
    applications_names: Callable[[], dict[str, tuple[str, str]]]


BACKBONES = {
    "mobilenet_v2": Backbone(mobilenet_v2.build_mobilenet_v2, "MobileNetV2", mobilenet_v2.applications_names),
}


def build_backbone(config: BackboneConfig) -> keras.Model:
    """Images normalised to [-1, 1], [B, H, W, 3] -> features at config.output_stride; named "backbone"."""
    row = BACKBONES[config.name]
    return row.build(config.output_stride, config.depth_multiplier, config.divisible_by)


def weights_digest(backbone: keras.Model) -> str:
    """Twelve hexadecimal digits that depend on the values of all weights of a backbone."""
    state = hashlib.sha256()
    for value in backbone.get_weights():
        state.update(np.ascontiguousarray(value).tobytes())
    return state.hexdigest()[:12]


def load_applications_weights(backbone: keras.Model, config: BackboneConfig, weights: str) -> None:
    """Fills a backbone from weights in keras.applications' layout (include_top=False).

    Strides that became rates keep their weights, so one file serves every output stride.

    Args:
        backbone: of `build_backbone(config)`.
        config: what it was built from.
        weights: "imagenet" (Keras downloads the file once) or the path of an .h5 file.

    Raises:
        InputError: when the file is missing, is no such file, or holds other shapes.
    """
    row = BACKBONES[config.name]
    network = getattr(keras.applications, row.applications)
    download = "imagenet" if weights == "imagenet" else None
    try:
        with warnings.catch_warnings():
            # Keras warns of every empty container that an older file does not list.
            warnings.simplefilter("ignore")
            source = network(
                input_shape=(224, 224, 3), alpha=config.depth_multiplier, include_top=False, weights=download
            )
            if download is None:
                source.load_weights(weights)
    except Exception as error:  # h5py, Keras and the downloader raise a dozen unrelated types here.
        reason = str(error).splitlines()[0][:200]
        raise InputError(
            f"{weights}: expected {row.applications} weights (alpha {config.depth_multiplier}, no top) "
            f"in keras.applications' layout ({reason})"
        ) from None
    for ours, (conv, norm) in row.applications_names().items():
        layer = backbone.get_layer(ours)
        for target, name in ((layer.conv, conv), (layer.norm, norm)):
            values = source.get_layer(name).get_weights()
            shapes = [tuple(v.shape) for v in values], [tuple(v.shape) for v in target.weights]
            if shapes[0] != shapes[1]:
                raise InputError(
                    f"{weights}: layer {name} has shapes {shapes[0]}, the network has {shapes[1]}; "
                    f"keras.applications rounds channels to multiples of 8 (divisible_by=8)"
                )
            target.set_weights(values)
