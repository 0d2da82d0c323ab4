"""ModelConfig -> keras.Model: the only place that knows all families.

Images come as RGB in [0, 255] of any size; float32 logits go out at the size of the image. Normalisation and the
last resize are inside the model.
"""

from __future__ import annotations

import dataclasses
import os
import typing
import warnings
from typing import Any, ClassVar

import keras

from nas_seg.auto_deeplab.genotype import AutoDeepLabGenotype
from nas_seg.auto_deeplab.network import AutoDeepLabBackbone
from nas_seg.core.backbones import AnyBackbone, BackboneConfig, load_applications_weights, normalize
from nas_seg.core.decoder import DecoderConfig
from nas_seg.core.resize import ResizeLike
from nas_seg.deeplab import network as deeplab
from nas_seg.deeplab.network import DeepLabConfig
from nas_seg.dpc import network as dpc
from nas_seg.dpc.genotype import DPCGenotype
from nas_seg.dpc.network import DPCConfig
from nas_seg.template import network as template
from nas_seg.template.encoder import TemplateEncoder
from nas_seg.template.genotype import TemplateGenotype
from nas_seg.template.network import TemplateConfig
from nas_seg.utils import config as config_lib
from nas_seg.utils import runs
from nas_seg.utils.errors import InputError, unknown

# Rates of ASPP at output stride 1; the paper's 96 / s and its double and triple.
_ATROUS_RATES = (96, 192, 288)


@dataclasses.dataclass(frozen=True)
class AutoDeepLabConfig(DeepLabConfig):
    """A network that Auto-DeepLab found, in DeepLab's surroundings: any of its heads, perhaps its decoder.

    By default they are the paper's (section 4.2): ASPP of rates 12, 24, 36 and a decoder at stride 4. That both have
    dense convolutions is not in the paper; its parameter counts say so.
    """

    KIND: ClassVar[str] = "auto_deeplab"

    backbone: AutoDeepLabBackbone = AutoDeepLabBackbone()
    atrous_rates: tuple[int, ...] = (12, 24, 36)
    aspp_with_separable_conv: bool = False
    decoder: DecoderConfig | None = DecoderConfig(use_separable_conv=False)


@dataclasses.dataclass(frozen=True)
class AutoDeepLabDPCConfig(DPCConfig):
    """A network that Auto-DeepLab found, with a dense prediction cell in place of ASPP."""

    KIND: ClassVar[str] = "auto_deeplab_dpc"

    backbone: AutoDeepLabBackbone = AutoDeepLabBackbone()


NetworkConfig = DeepLabConfig | DPCConfig | AutoDeepLabConfig | AutoDeepLabDPCConfig | TemplateConfig

_FAMILIES = {
    DeepLabConfig: deeplab,
    DPCConfig: dpc,
    AutoDeepLabConfig: deeplab,
    AutoDeepLabDPCConfig: dpc,
    TemplateConfig: template,
}
# A family on another kind of backbone.
_ON_FOUND_BACKBONE = {DeepLabConfig: AutoDeepLabConfig, DPCConfig: AutoDeepLabDPCConfig}


def auto_deeplab_config(genotype: AutoDeepLabGenotype) -> AutoDeepLabConfig:
    """The network around a genotype, with ASPP's rates for the stride that its path ends at."""
    backbone = AutoDeepLabBackbone(genotype)
    return AutoDeepLabConfig(backbone, atrous_rates=tuple(rate // backbone.output_stride for rate in _ATROUS_RATES))


def with_backbone(network: NetworkConfig, backbone: AnyBackbone) -> NetworkConfig:
    """The same network on another backbone, of the family that has this kind of backbone."""
    values = {field.name: getattr(network, field.name) for field in dataclasses.fields(network)}
    found = isinstance(backbone, AutoDeepLabBackbone)
    for family, on_found in _ON_FOUND_BACKBONE.items():
        if isinstance(network, family):
            return (on_found if found else family)(**values | {"backbone": backbone})
    raise TypeError(f"{type(network).__name__} is the configuration of no family")


# Families whose search writes a genotype: kind -> (genotype, configuration around it).
_GENOTYPES = {
    DPCGenotype.KIND: (DPCGenotype, DPCConfig),
    AutoDeepLabGenotype.KIND: (AutoDeepLabGenotype, auto_deeplab_config),
    TemplateGenotype.KIND: (TemplateGenotype, TemplateConfig),
}


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A whole network.

    Attributes:
        num_classes: channels of the logits.
        network: the configuration of one family.
    """

    num_classes: int
    network: NetworkConfig

    def __post_init__(self):
        expected = typing.get_type_hints(type(self.network))["backbone"]
        if not isinstance(self.network.backbone, expected):
            raise InputError(
                f"network: expected a backbone of {expected.__name__} with {type(self.network).__name__}, received "
                f"{type(self.network.backbone).__name__}"
            )
        if self.num_classes < 1:
            raise InputError(f"num_classes: expected at least 1, received {self.num_classes}")


def build(config: ModelConfig) -> keras.Model:
    """Builds a network with fresh weights.

    Returns:
        A keras.Model, RGB [B, H, W, 3] in [0, 255] -> float32 logits [B, H, W, num_classes]. Its layer
        "backbone" is the backbone; everything after it is the head.
    """
    images = keras.Input((None, None, 3), name="image")
    normalized = normalize(config.network.backbone)(images)
    logits = connect(config, normalized)
    return keras.Model(images, ResizeLike(dtype="float32", name="logits_at_image_size")([logits, images]))


def connect(config: ModelConfig, normalized):
    """Normalised images -> logits at the network's own stride, as tensors of one graph."""
    return _FAMILIES[type(config.network)].connect(config.network, config.num_classes, normalized)


def tf1_names(model: keras.Model, config: ModelConfig) -> dict:
    """DeepLab's TF1 variable name -> variable, every one of a model built from `config`."""
    return _FAMILIES[type(config.network)].tf1_names(model, config.network)


def load(run_dir: str | os.PathLike, weights: str = "best") -> keras.Model:
    """The network of a run folder with its trained weights.

    Args:
        run_dir: a folder that tools/train.py wrote.
        weights: "best" (by validation mIoU) or "last".

    Raises:
        InputError: when the folder holds no config.json, no weights, or weights of another network.
    """
    model = build(read_config(run_dir))
    load_weights(model, runs.find_weights(run_dir, weights))
    return model


def read_config(run_dir: str | os.PathLike) -> ModelConfig:
    """The ModelConfig of a run folder."""
    return runs.read_section(run_dir, "model", ModelConfig)


def load_weights(model: keras.Model, path: str | os.PathLike) -> None:
    """Loads a `.weights.h5` file, or the best weights of a run folder; another network's are an InputError."""
    if os.path.isdir(path):
        path = runs.find_weights(path)
    if not os.path.isfile(path):
        raise InputError(f"{path}: expected a .weights.h5 file, found none")
    runs.check_weights(path)
    try:
        # Keras warns of every layer before it raises.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.load_weights(str(path))
    except Exception as error:  # h5py and Keras raise many unrelated types for a file that does not fit.
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{path}: expected weights of this network ({reason})") from None


def load_backbone_weights(model: keras.Model, config: ModelConfig, weights: str | os.PathLike | None) -> None:
    """Fills the backbone of a built network.

    Args:
        model: of `build(config)`.
        config: what it was built from.
        weights: None (leave it as it is), "imagenet", an .h5 file in keras.applications' layout, or a run
            folder whose network has the same backbone.
    """
    fill_backbone(model.get_layer("backbone"), config.network.backbone, weights)


def fill_backbone(backbone: keras.Model, config: AnyBackbone, weights: str | os.PathLike | None) -> None:
    """Fills a backbone built from `config`; `weights` as in `load_backbone_weights`."""
    if weights is None:
        return
    weights = os.fspath(weights)
    is_template = isinstance(config, TemplateEncoder)
    if not os.path.isdir(weights):
        if is_template:
            config.load_pretrained(backbone, weights)
        else:
            load_applications_weights(backbone, config, weights)
        return
    donor, trained = read_config(weights).network.backbone, load(weights).get_layer("backbone")
    if is_template and isinstance(donor, BackboneConfig) and donor.name == "mobilenet_v2":
        # The encoder is the beginning of one.
        config.check_keras(weights)
        config.take_over(backbone, trained)
        return
    if is_template and isinstance(donor, TemplateEncoder) and donor != config:
        raise InputError(f"{weights}: expected a run whose encoder is {config.variant!r}, found {donor.variant!r}")
    shapes = [[tuple(v.shape) for v in network.weights] for network in (trained, backbone)]
    if shapes[0] != shapes[1]:
        raise InputError(f"{weights}: expected a run with this backbone, found one of other shapes")
    backbone.set_weights(trained.get_weights())


def read_genotype(path: str | os.PathLike) -> DPCConfig | AutoDeepLabConfig | TemplateConfig:
    """Reads a genotype file of any family as its family's default network."""
    kind = genotype_kind(config_lib.read_json(path))
    if not isinstance(kind, str) or kind not in _GENOTYPES:
        raise InputError(f"{path}: {unknown('kind of genotype', kind, _GENOTYPES)}")
    genotype, network = _GENOTYPES[kind]
    return network(genotype.load(path))


def genotype_kind(data: Any) -> Any:
    """The kind of a genotype from its parsed file, None where it tells none.

    Two families have files of their own, bare lists: DeepLab's dense prediction cell is one of objects, a template
    network one of lists. Everything else names its kind.
    """
    if isinstance(data, list):
        return TemplateGenotype.KIND if data and isinstance(data[0], list) else DPCGenotype.KIND
    return data.get("kind") if isinstance(data, dict) else None
