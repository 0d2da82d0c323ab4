"""Backbones: one table, name -> how to build it. Adding one is a file and a row."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np

from nas_seg.core.backbones import mobilenet_v2, resnet, xception
from nas_seg.core.checkpoint import names_of
from nas_seg.utils.config import to_json
from nas_seg.utils.errors import InputError, unknown


class AnyBackbone(Protocol):
    """What the configuration of every backbone has, of those in `BACKBONES` and of those that a search has found."""

    name: str
    output_stride: int
    use_bounded_activation: bool

    @property
    def normalization(self) -> Normalization:
        """Of its images."""

    def check_low_level(self, strides: Sequence[int]) -> None:
        """InputError for strides, in descending order, that it has no features for a decoder of."""

    def connect(self, images: Any) -> tuple[Any, Mapping[int, Any]]:
        """Normalised images [B, H, W, 3] -> features, and features for a decoder by their stride."""

    def tf1_names(self, backbone: keras.Model) -> dict:
        """DeepLab's TF1 variable name -> variable, every one of a backbone built from this."""


@dataclasses.dataclass(frozen=True)
class BackboneConfig:
    """Which of the `BACKBONES`, and how dense its features are.

    Attributes:
        name: a row of `BACKBONES`.
        output_stride: input pixels a feature pixel, 8, 16 or 32.
        depth_multiplier: scales the channels; of MobileNet alone.
        divisible_by: channels are multiples of it, None for DeepLab's rule; of MobileNet alone.
        multi_grid: factors of the rates in the last block, None for (1, 1, 1); of Xception (the last unit's three
            convolutions) and ResNet (the last block's three units).
        use_bounded_activation: ReLU6 and clipped sums, in the heads too. MobileNet-v2 is always so, ResNet never.
    """

    name: str = "mobilenet_v2"
    output_stride: int = 16
    depth_multiplier: float = 1.0
    divisible_by: int | None = None
    multi_grid: tuple[int, int, int] | None = None
    use_bounded_activation: bool = False

    def __post_init__(self):
        if self.name not in BACKBONES:
            raise unknown("backbone", self.name, BACKBONES)
        if self.output_stride not in (8, 16, 32):
            raise InputError(f"output_stride: expected 8, 16 or 32, received {self.output_stride}")
        if not 0 < self.depth_multiplier < math.inf:
            raise InputError(f"depth_multiplier: expected a finite number above 0, received {self.depth_multiplier}")
        if self.divisible_by is not None and self.divisible_by < 1:
            raise InputError(f"divisible_by: expected at least 1, received {self.divisible_by}")
        grid = self.multi_grid
        if grid is not None and (len(grid) != 3 or any(rate < 1 for rate in grid)):
            raise InputError(f"multi_grid: expected three rates of at least 1, received {list(grid)}")
        self._check_options()

    def _check_options(self) -> None:
        """Refuses an option that the network has not, where it is not at its default."""
        options = BACKBONES[self.name].options
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name not in _ALWAYS and field.name not in options and value != field.default:
                others = ", ".join(name for name, row in BACKBONES.items() if field.name in row.options)
                raise InputError(
                    f"{field.name}: expected {field.default} for backbone {self.name!r}, received {value}; "
                    f"backbones that have it: {others}"
                )

    @property
    def normalization(self) -> Normalization:
        """Of its images."""
        return BACKBONES[self.name].normalization

    def check_low_level(self, strides: Sequence[int]) -> None:
        """InputError for strides, in descending order, that are not below that of the features."""
        if strides[0] >= self.output_stride:
            raise InputError(
                f"decoder_output_stride: expected strides below output_stride {self.output_stride}, "
                f"received {list(strides)}"
            )

    def connect(self, images) -> tuple[Any, dict[int, Any]]:
        """Normalised images [B, H, W, 3] -> features, and features for a decoder by their stride."""
        row = BACKBONES[self.name]
        options = {name: getattr(self, name) for name in row.options}
        network = keras.Model(images, row.features(images, output_stride=self.output_stride, **options))
        scopes = {stride: scope for stride, scope in row.low_level.items() if stride < self.output_stride}
        return network.output, {stride: network.get_layer(_layer_name(s)).output for stride, s in scopes.items()}

    def tf1_names(self, backbone: keras.Model) -> dict:
        """DeepLab's TF1 variable name -> variable, every one of a backbone built from this."""
        row, names = BACKBONES[self.name], {}
        for scope in row.scopes():
            names |= names_of(backbone.get_layer(_layer_name(scope)), f"{row.root}/{scope}")
        return names


# Fields that every backbone takes: heads heed bounded activations whatever the backbone.
_ALWAYS = ("name", "output_stride", "use_bounded_activation")


@dataclasses.dataclass(frozen=True)
class Normalization:
    """Which image a backbone wants: scale * RGB in [0, 255] + offset, the scale alike for all channels or not."""

    scale: float | tuple[float, float, float]
    offset: tuple[float, float, float]


# DeepLab's preprocessing: to [-1, 1], or less the mean pixel of ImageNet.
SYMMETRIC = Normalization(2.0 / 255.0, (-1.0, -1.0, -1.0))
_LESS_MEAN = Normalization(1.0, (-123.15, -115.90, -103.06))


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A row of the table. A layer is named after its scope in TF1 checkpoints, slashes as underscores.

    Attributes:
        features: (images, output_stride=, **options) -> features, as tensors of one graph.
        options: further fields of BackboneConfig that the network has.
        root: scope of the network in TF1 checkpoints.
        scopes: () -> scopes of its ConvNorm layers below the root; they hold all of its variables.
        low_level: stride -> scope of the layer whose output a decoder takes.
        normalization: of its images.
        applications: the network's class name in keras.applications; None where that has it otherwise.
        applications_names: () -> our layer name -> (convolution, batch norm) names there.
    """

    features: Callable
    options: tuple[str, ...]
    root: str
    scopes: Callable[[], Sequence[str]]
    low_level: Mapping[int, str]
    normalization: Normalization = SYMMETRIC
    applications: str | None = None
    applications_names: Callable[[], dict[str, tuple[str, str]]] | None = None


def _xception(name: str) -> Backbone:
    return Backbone(
        features=functools.partial(xception.features, name),
        options=("multi_grid", "use_bounded_activation"),
        root=name,
        scopes=functools.partial(xception.scopes, name),
        low_level=xception.low_level(name),
    )


def _resnet(depth: int, beta: bool) -> Backbone:
    return Backbone(
        features=functools.partial(resnet.features, depth, beta),
        options=("multi_grid",),
        root=f"resnet_v1_{depth}",
        scopes=functools.partial(resnet.scopes, depth, beta),
        low_level=resnet.low_level(depth),
        normalization=SYMMETRIC if beta else _LESS_MEAN,
    )


BACKBONES = {
    "mobilenet_v2": Backbone(
        features=mobilenet_v2.features,
        options=("depth_multiplier", "divisible_by"),
        root="MobilenetV2",
        scopes=mobilenet_v2.scopes,
        low_level=mobilenet_v2.LOW_LEVEL,
        applications="MobileNetV2",
        applications_names=mobilenet_v2.applications_names,
    ),
    "xception_41": _xception("xception_41"),
    "xception_65": _xception("xception_65"),
    "xception_71": _xception("xception_71"),
    "resnet_v1_50": _resnet(50, beta=False),
    "resnet_v1_50_beta": _resnet(50, beta=True),
    "resnet_v1_101": _resnet(101, beta=False),
    "resnet_v1_101_beta": _resnet(101, beta=True),
}


def build_backbone(config: AnyBackbone, low_level_strides: Sequence[int] = ()) -> keras.Model:
    """A backbone with fresh weights, a model named "backbone".

    Args:
        config: which one.
        low_level_strides: of endpoints for a decoder. They change nothing about the weights and their order.

    Returns:
        Images of `normalize(config)`, [B, H, W, 3] -> features at config.output_stride, or with low-level strides
        [features, low-level features of each stride in the order asked for].

    Raises:
        InputError: for a stride that has no endpoint.
    """
    images = keras.Input((None, None, 3), name="images")
    features, endpoints = config.connect(images)
    for stride in low_level_strides:
        if stride not in endpoints:
            raise InputError(
                f"low-level stride {stride}: {config.name} at output stride {config.output_stride} has endpoints of "
                f"stride {', '.join(map(str, endpoints))}"
            )
    low_level = [endpoints[stride] for stride in low_level_strides]
    return keras.Model(images, [features, *low_level] if low_level else features, name="backbone")


def _layer_name(scope: str) -> str:
    return scope.replace("/", "_")


def normalize(config: AnyBackbone) -> keras.layers.Layer:
    """The layer "normalize": RGB in [0, 255] -> what the backbone of `config` takes."""
    normalization = config.normalization
    # One number where the channels agree.
    offset = normalization.offset if len(set(normalization.offset)) > 1 else normalization.offset[0]
    return keras.layers.Rescaling(normalization.scale, offset, name="normalize")


def mean_pixel(normalize: keras.layers.Rescaling) -> tuple[float, float, float]:
    """The RGB value that a layer of `normalize` maps to 0: what images are padded with."""
    pairs = zip(*(np.broadcast_to(values, 3) for values in (normalize.offset, normalize.scale)), strict=True)
    return tuple(float(-offset / scale) for offset, scale in pairs)


def tf1_names(backbone: keras.Model, config: AnyBackbone) -> dict:
    """DeepLab's TF1 variable name -> variable, every one of a backbone built from `config`."""
    return config.tf1_names(backbone)


def identity(config: AnyBackbone) -> dict[str, Any]:
    """The JSON form by which caches and studies know a backbone.

    Fields that BackboneConfig got after the first caches were written are left out at their defaults, so that those
    caches still fit.
    """
    later = {"multi_grid": None, "use_bounded_activation": False}
    return {name: value for name, value in to_json(config).items() if name not in later or value != later[name]}


def weights_digest(backbone: keras.Model) -> str:
    """Twelve hexadecimal digits that depend on the values of all weights of a backbone."""
    state = hashlib.sha256()
    for value in backbone.get_weights():
        state.update(np.ascontiguousarray(value).tobytes())
    return state.hexdigest()[:12]


def load_applications_weights(backbone: keras.Model, config: AnyBackbone, weights: str) -> None:
    """Fills a backbone from weights in keras.applications' layout (include_top=False).

    Strides that became rates keep their weights, so one file serves every output stride.

    Args:
        backbone: of `build_backbone(config)`.
        config: what it was built from.
        weights: "imagenet" (Keras downloads the file once) or the path of an .h5 file.

    Raises:
        InputError: when keras.applications has no such backbone, or when the file is missing, is no such file, or
            holds other shapes.
    """
    row = BACKBONES.get(config.name)
    if row is None or row.applications is None:
        known = ", ".join(name for name, other in BACKBONES.items() if other.applications)
        raise InputError(
            f"{weights}: expected a run folder for backbone {config.name!r}; weights in keras.applications' layout "
            f"are read for {known} alone"
        )
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
