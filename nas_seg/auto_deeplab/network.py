"""A found network as a backbone: stem, one cell a layer along the path, low-level features for a decoder.

Around it stands what DeepLab's networks have: ASPP or another head, the decoder of DeepLabv3+, logits.
Source: sections 3.2 and 4.2 of the paper; DeepLab's code (core/nas_network.py) for the stem and how sizes change.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras

from nas_seg.auto_deeplab.cell import Cell
from nas_seg.auto_deeplab.cell import tf1_names as cell_tf1_names
from nas_seg.auto_deeplab.genotype import FINEST_STRIDE, NUM_LEVELS, AutoDeepLabGenotype, published
from nas_seg.auto_deeplab.ops import conv_norm, conv_norm_tf1_names
from nas_seg.core.backbones import SYMMETRIC, Normalization
from nas_seg.core.drop_path import TrainingProgress
from nas_seg.core.resize import ResizeLike
from nas_seg.utils.errors import InputError

AUTO_DEEPLAB = published("auto_deeplab")
_PNASNET_CELL = published("pnasnet_os16").cell
# (filters, strides) of the stem's 3x3 convolutions.
_STEM = ((64, 2), (64, 1), (128, 2))


@dataclasses.dataclass(frozen=True)
class AutoDeepLabBackbone:
    """A found network, of which the path says what its output stride is.

    Attributes:
        genotype: cell and path.
        filter_multiplier: F of the paper: every operator at level i has F * 2^i channels, a cell's output has as many
            times its blocks (nas_stem_output_num_conv_filters). 20, 32 and 48 are the paper's S, M and L.
        drop_path_keep_prob: share of images that keep a path of the last cell at the end of a training.
        drop_path_steps: steps of that training, over which ever more is dropped.
        remove_os32_stride: level 3 has the stride of level 2, though its own channels (nas_remove_os32_stride).
        use_bounded_activation: ReLU6 in the heads; in the network itself nothing is bounded.
    """

    genotype: AutoDeepLabGenotype = AUTO_DEEPLAB
    filter_multiplier: int = 20
    drop_path_keep_prob: float = 1.0
    drop_path_steps: int = 500_000
    remove_os32_stride: bool = False
    use_bounded_activation: bool = False

    def __post_init__(self):
        for name in ("filter_multiplier", "drop_path_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: expected at least 1, received {getattr(self, name)}")
        if not 0.0 < self.drop_path_keep_prob <= 1.0:
            raise InputError(f"drop_path_keep_prob: expected a number in (0, 1], received {self.drop_path_keep_prob}")

    @property
    def name(self) -> str:
        """DeepLab's model variant that has this cell: "nas_pnasnet", and "nas_hnasnet" for all others."""
        return f"nas_{_root(self)}"

    @property
    def output_stride(self) -> int:
        """Input pixels a feature pixel: 4, 8, 16 or 32."""
        return FINEST_STRIDE * 2 ** self.scale(self.genotype.path[-1])

    @property
    def normalization(self) -> Normalization:
        """Images in [-1, 1]."""
        return SYMMETRIC

    @property
    def low_level_strides(self) -> tuple[int, ...]:
        """Strides that a decoder may take features of: 4, and those of the path."""
        return tuple(FINEST_STRIDE * 2**scale for scale in sorted({0, *map(self.scale, self.genotype.path)}))

    def check_low_level(self, strides: Sequence[int]) -> None:
        """InputError for a stride that the path does not come to."""
        known = self.low_level_strides
        if any(stride not in known for stride in strides):
            raise InputError(
                f"decoder_output_stride: expected some of {list(known)}, where the path has features, "
                f"received {list(strides)}"
            )

    def scale(self, level: int) -> int:
        """How many times coarser than the stem's output the maps of a level are, as a power of 2."""
        return min(level, NUM_LEVELS - 2) if self.remove_os32_stride else level

    def connect(self, images) -> tuple[Any, dict[int, Any]]:
        """Images in [-1, 1], [B, H, W, 3] -> features, and low-level features by their stride."""
        return _connect(self, images)

    def tf1_names(self, backbone: keras.Model) -> dict:
        """DeepLab's TF1 variable name -> variable of a backbone built from this."""
        return _tf1_names(self, backbone)


def low_level_layer(path: Sequence[int], level: int) -> int | None:
    """The layer whose output a decoder takes as features of a level; None is the stem.

    At stride 4 it is the last of the path (Cell_2 of the published one). Of a coarser level it is the last from which
    the path goes on to a coarser one still (Cell_5 and Cell_7, as in DeepLab's code): later ones are on the way back.
    """
    layers = [layer for layer, own in enumerate(path) if own == level]
    outward = [layer for layer in layers if layer + 1 < len(path) and path[layer + 1] > level]
    if level > 0 and outward:
        return outward[-1]
    return layers[-1] if layers else None


def _connect(config: AutoDeepLabBackbone, images) -> tuple[Any, dict[int, Any]]:
    path, outputs = config.genotype.path, _stem(images)
    progress = []
    if config.drop_path_keep_prob < 1.0:
        progress = [TrainingProgress(config.drop_path_steps, name="progress")(images)]
    # Of the last two outputs; a map of stride 2 is at -1. All maps of a scale have one size, whatever the image's.
    scales, at_scale = [-1, 0], {0: outputs[-1]}
    for layer, level in enumerate(path):
        before_previous, previous = outputs[-2:]
        source, target = scales[-1], config.scale(level)
        if target < source:
            # On images of 32 k + 1 pixels this is DeepLab's 2 n - 1.
            source = target
            previous = ResizeLike(name=f"previous_{layer}")([previous, at_scale[target]])
        if scales[-2] != source:
            before_previous = ResizeLike(name=f"before_previous_{layer}")([before_previous, previous])
        cell = Cell(
            config.genotype.cell,
            config.filter_multiplier * 2**level,
            strides=2 ** (target - source),
            drop_path_keep_prob=config.drop_path_keep_prob,
            index=layer,
            num_cells=len(path),
            name=_cell_name(layer),
        )
        outputs.append(cell([before_previous, previous, *progress]))
        scales.append(target)
        at_scale[target] = outputs[-1]
    features = keras.layers.ReLU(name="features")(outputs[-1])
    return features, {stride: _low_level(path, stride, outputs) for stride in config.low_level_strides}


def _stem(images) -> list:
    """The outputs of the stem's last two convolutions, at strides 2 and 4, before their ReLU: cells have their own."""
    x, outputs = images, []
    for i, (filters, strides) in enumerate(_STEM):
        x = keras.layers.ReLU(name=f"conv{i - 1}_relu")(x) if i else x
        x = conv_norm(filters, 3, strides, name=f"conv{i}")(x)
        outputs.append(x)
    return outputs[-2:]


def _low_level(path: Sequence[int], stride: int, outputs: Sequence[Any]):
    layer = low_level_layer(path, (stride // FINEST_STRIDE).bit_length() - 1)
    # The stem's two outputs come first.
    return outputs[1 if layer is None else layer + 2]


def _cell_name(layer: int) -> str:
    return f"cell_{layer}"


def _root(config: AutoDeepLabBackbone) -> str:
    """The scope of the network in TF1 checkpoints."""
    return "pnasnet" if config.genotype.cell == _PNASNET_CELL else "hnasnet"


def _tf1_names(config: AutoDeepLabBackbone, backbone: keras.Model) -> dict:
    root, names = _root(config), {}
    for i in range(len(_STEM)):
        names |= conv_norm_tf1_names(backbone.get_layer(f"conv{i}"), f"{root}/conv{i}/weights", f"{root}/conv{i}_bn")
    for layer in range(config.genotype.num_layers):
        names |= cell_tf1_names(backbone.get_layer(_cell_name(layer)), f"{root}/{_cell_name(layer)}")
    return names
