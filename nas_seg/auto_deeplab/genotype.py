"""A searched network as a value: the cell that every layer repeats, and the path of its layers through the levels.

Source: Liu et al., "Auto-DeepLab: Hierarchical Neural Architecture Search for Semantic Image Segmentation",
CVPR 2019 (arXiv 1901.02985), sections 3.1 (cell) and 3.2 (network).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import numbers
import os
import pathlib
from collections.abc import Sequence
from typing import Any, ClassVar

from nas_seg.utils import config
from nas_seg.utils.errors import InputError, unknown

# The operators of section 3.1 in the order of an edge's logits; "none" is the paper's zero, no connection at all.
# dil_conv is its "atrous conv": a dense convolution at rate 2, which the paper's parameter counts confirm.
NONE = "none"
OPS = (
    NONE,
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
# What a found cell may hold: an edge without connection is no edge; PNASNet's cell has a seventh.
FIXED_OPS = (*OPS[1:], "sep_conv_7x7")
# Level i works at stride 4 * 2**i: 4, 8, 16, 32.
NUM_LEVELS = 4
FINEST_STRIDE = 4

_SHORT = {"max_pool_": "max", "avg_pool_": "avg", "skip_connect": "skip", "sep_conv_": "sep", "dil_conv_": "dil"}
_PUBLISHED = pathlib.Path(__file__).with_name("published")

# (input, op) and the two of a block, whose sum is the block's output.
Edge = tuple[int, str]
Block = tuple[Edge, Edge]


@dataclasses.dataclass(frozen=True)
class AutoDeepLabGenotype:
    """A network: one cell, and the level of every layer.

    Attributes:
        cell: blocks, each of two (input, op). Input 0 is H^{l-2}, the output of the cell before the previous one,
            1 is H^{l-1}, that of the previous cell, 2 + b is block b of the same cell (counted from 0). The two may
            read the same input. The cell's output is the concatenation of all blocks.
        path: level 0 to 3 (stride 4, 8, 16, 32) of each layer, the stem (stride 4) not included: the first is
            0 or 1, neighbours differ by at most 1.

    Raises:
        InputError: names the block or layer that breaks one of these rules.
    """

    KIND: ClassVar[str] = "auto_deeplab"

    cell: tuple[Block, ...]
    path: tuple[int, ...]

    def __post_init__(self):
        object.__setattr__(self, "cell", _checked_cell(self.cell))
        object.__setattr__(self, "path", _checked_path(self.path))

    @property
    def num_blocks(self) -> int:
        """Blocks of the cell."""
        return len(self.cell)

    @property
    def num_layers(self) -> int:
        """Cells of the network, the stem not included."""
        return len(self.path)

    @property
    def strides(self) -> tuple[int, ...]:
        """The output stride of each layer: 4, 8, 16 or 32."""
        return tuple(FINEST_STRIDE * 2**level for level in self.path)

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that depend on cell and path alone."""
        return config.digest(self)

    def summary(self) -> str:
        """The network on one line: the blocks (input, colon, op; plus between the two), then the layers' strides.

        For example "0:dil5x5+1:sep3x3 0:sep3x3+1:dil3x3 @ 4 4 8 16 8".
        """
        blocks = ("+".join(f"{source}:{op_label(op)}" for source, op in block) for block in self.cell)
        return " ".join(blocks) + " @ " + " ".join(map(str, self.strides))

    def save(self, path: str | os.PathLike) -> None:
        """Writes the genotype as JSON with format_version and kind."""
        config.save(path, self)

    @classmethod
    def load(cls, path: str | os.PathLike) -> AutoDeepLabGenotype:
        """Reads what `save` wrote; InputError names the file and the field that is wrong."""
        data = config.read_json(path)
        if isinstance(data, dict) and data.get("kind") != cls.KIND:
            raise InputError(f"{path}: expected a genotype of kind {cls.KIND!r}, received kind {data.get('kind')!r}")
        return config.load(path, cls)


def published(name: str) -> AutoDeepLabGenotype:
    """A published network by name: "auto_deeplab", "pnasnet_os8", "pnasnet_os16", "pnasnet_os32"."""
    names = sorted(path.stem for path in _PUBLISHED.glob("*.json"))
    if name not in names:
        raise unknown("published network", name, names)
    return AutoDeepLabGenotype.load(_PUBLISHED / f"{name}.json")


def op_label(op: str) -> str:
    """The short name of an op: "sep3x3", "dil5x5" (atrous, rate 2), "max3x3", "avg3x3", "skip", "none"."""
    for name, short in _SHORT.items():
        if op.startswith(name):
            return short + op.removeprefix(name)
    return op


def num_paths(num_layers: int, first_level_fixed: bool = False) -> int:
    """How many paths there are: walks on the ladder of four levels that start at the stem's level 0.

    Args:
        num_layers: of a path, the stem not included.
        first_level_fixed: count only those whose first layer is at level 0. The paper's 2.9e4 for 12 layers is
            this number (28,657); with the first layer free, as section 3.2 describes it, there are 75,025.
    """
    walks = [1, 0, 0, 0]
    for _ in range(num_layers - first_level_fixed):
        walks = [sum(walks[max(level - 1, 0) : level + 2]) for level in range(NUM_LEVELS)]
    return sum(walks)


def num_cells(num_blocks: int = 5, num_ops: int = len(OPS)) -> int:
    """How many cells the paper counts (section 3.1): block b has (b + 2)^2 ordered pairs of inputs, repetition
    included, and num_ops^2 of ops, zero included. 5 blocks and 8 ops: 556,627,761,561,600."""
    return math.prod((b + 2) ** 2 * num_ops**2 for b in range(num_blocks))


def _checked_cell(cell: Any) -> tuple[Block, ...]:
    if not _is_list(cell):
        raise InputError(f"cell: expected a list of blocks, received {cell!r}")
    if not cell:
        raise InputError("cell: expected at least one block, received none")
    return tuple(_checked_block(b, block) for b, block in enumerate(cell))


def _checked_block(b: int, block: Any) -> Block:
    if not _is_list(block) or len(block) != 2 or not all(_is_list(edge) and len(edge) == 2 for edge in block):
        raise InputError(f"cell[{b}]: expected two pairs of input and op, received {block!r}")
    for i, (source, op) in enumerate(block):
        if not isinstance(op, str) or op not in FIXED_OPS:
            raise InputError(f"cell[{b}][{i}]: {unknown('op', op, FIXED_OPS)}")
        if not _is_int(source) or not 0 <= source < b + 2:
            meaning = "0 is H^(l-2), 1 is H^(l-1)" + (", 2 + b is block b" if b else "")
            raise InputError(f"cell[{b}][{i}]: expected input 0 to {b + 1} ({meaning}), received {source!r}")
    return tuple((int(source), op) for source, op in block)


def _checked_path(path: Any) -> tuple[int, ...]:
    if not _is_list(path):
        raise InputError(f"path: expected a list of levels, received {path!r}")
    if not path:
        raise InputError("path: expected at least one layer, received none")
    for layer, level in enumerate(path):
        if not _is_int(level) or not 0 <= level < NUM_LEVELS:
            raise InputError(f"path[{layer}]: expected a level of 0 to {NUM_LEVELS - 1}, received {level!r}")
    # The stem is at level 0, and the rule holds from there on.
    for layer, (before, level) in enumerate(itertools.pairwise((0, *path))):
        if abs(level - before) > 1:
            source = f"layer {layer - 1} is at level {before}" if layer else "the stem is at level 0"
            near = " or ".join(str(n) for n in range(max(before - 1, 0), min(before + 2, NUM_LEVELS)))
            raise InputError(f"path[{layer}]: {source}, expected level {near} next, received {level}")
    return tuple(map(int, path))


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_int(value: Any) -> bool:
    """Also NumPy's integers, as decoded paths and levels come in."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
