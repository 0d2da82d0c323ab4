"""ModelConfig -> keras.Model: the only place that knows all families.

Images come as RGB in [0, 255] of any size; float32 logits go out at the size of the image. Normalisation and the
last resize are inside the model.
"""

from __future__ import annotations

import dataclasses
import os

import keras

from nas_seg.core.backbones import BackboneConfig, load_applications_weights, normalize
from nas_seg.core.resize import ResizeLike
from nas_seg.deeplab import network as deeplab
from nas_seg.deeplab.network import DeepLabConfig
from nas_seg.dpc import network as dpc
from nas_seg.dpc.genotype import DPCGenotype
from nas_seg.dpc.network import DPCConfig
from nas_seg.utils import config as config_lib
from nas_seg.utils import runs
from nas_seg.utils.errors import InputError, unknown

_FAMILIES = {DeepLabConfig: deeplab, DPCConfig: dpc}
# Families whose search writes a genotype: kind -> (genotype, configuration around it).
_GENOTYPES = {DPCGenotype.KIND: (DPCGenotype, DPCConfig)}


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A whole network.

    Attributes:
        num_classes: channels of the logits.
        network: the configuration of one family.
    """

    num_classes: int
    network: DeepLabConfig | DPCConfig

    def __post_init__(self):
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
    try:
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


def fill_backbone(backbone: keras.Model, config: BackboneConfig, weights: str | os.PathLike | None) -> None:
    """Fills a backbone built from `config`; `weights` as in `load_backbone_weights`."""
    if weights is None:
        return
    weights = os.fspath(weights)
    if not os.path.isdir(weights):
        load_applications_weights(backbone, config, weights)
        return
    trained = load(weights).get_layer("backbone")
    shapes = [[tuple(v.shape) for v in network.weights] for network in (trained, backbone)]
    if shapes[0] != shapes[1]:
        raise InputError(f"{weights}: expected a run with this backbone, found one of other shapes")
    backbone.set_weights(trained.get_weights())


def read_genotype(path: str | os.PathLike) -> DPCConfig:
    """Reads a genotype file of any family as its family's default network."""
    data = config_lib.read_json(path)
    # DeepLab's own file of a dense prediction cell is a bare list; everything else names its kind.
    kind = DPCGenotype.KIND if isinstance(data, list) else data.get("kind") if isinstance(data, dict) else None
    if kind not in _GENOTYPES:
        raise InputError(f"{path}: {unknown('kind of genotype', kind, _GENOTYPES)}")
    genotype, network = _GENOTYPES[kind]
    return network(genotype.load(path))
