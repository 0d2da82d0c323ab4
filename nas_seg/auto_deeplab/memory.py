"""How much memory a search takes, by counting what its supernet keeps for the gradient; no TensorFlow.

The counts follow `supernet` and `supernet_cell` value by value; a test compares them with what is traced.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

from nas_seg.auto_deeplab.genotype import FINEST_STRIDE, NUM_LEVELS
from nas_seg.auto_deeplab.relaxation import edge_mask, num_edges
from nas_seg.auto_deeplab.search_config import SearchConfig
from nas_seg.utils.errors import InputError

GIB = 2**30
_FLOAT = 4  # bytes
# Widths of the stem's two convolutions: 64 and that of a node at stride 4.
_STEM_FILTERS = 64
# (separable, atrous): sizes of the kernels of the ops with weights, each with two.
_KERNELS = (3, 5)
# Measured, see README.md, section Search: TensorFlow and the input pipeline; the traced graphs of the steps (one of
# both kinds, or one of each) and of the scores, with the kernels that are kept for them, for one evaluation of a cell
# of five blocks, which has twenty edges; what a gradient needs at its peak beside the kept values, as a share of them.
_BASE = 0.9 * GIB
_GRAPH, _SEPARATE_GRAPHS, _GRAPH_EDGES = 22 * 2**20, 36 * 2**20, 20
_WORKSPACE = 0.15
# Of one input of a cell, as multiples of c filters at its pixels: itself, its ReLU, the pools as they are (2) and with
# the normalised ones and itself in a row (3), the max pool once more.
_INPUT_VALUES = 8
# Of one edge of a cell: a separable op keeps what both of its convolutions put out and the ReLU between them, an atrous
# op what it puts out.
_EDGE_VALUES = 2 * 3 + 2 * 1


@dataclasses.dataclass(frozen=True)
class MemoryEstimate:
    """Bytes at the peak of a weight step, by what they hold.

    Attributes:
        base: TensorFlow itself.
        graphs: of the steps and of the scores, as they are traced.
        weights: values, gradients and momenta.
        activations: what the forward pass keeps for the gradient.
        workspace: of the gradient.
    """

    base: int
    graphs: int
    weights: int
    activations: int
    workspace: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.base + self.graphs + self.weights + self.activations + self.workspace

    def describe(self) -> str:
        """On one line, in GiB."""
        names = ("activations", "workspace", "weights", "graphs", "base")
        parts = ", ".join(f"{name} {getattr(self, name) / GIB:.2f}" for name in names)
        return f"about {self.total / GIB:.1f} GiB ({parts})"


def estimate_memory(config: SearchConfig, num_classes: int) -> MemoryEstimate:
    """What a search will take at its peak."""
    count = _FLOAT * kept_values(config, num_classes)
    if config.dtype_policy != "float32":
        count //= 2
    workspace = _WORKSPACE * count
    if config.recompute:
        # One cell at a time has its values again.
        sizes = (config.filters * 2**level * _pixels(config, level) for level in range(NUM_LEVELS))
        workspace += _FLOAT * _cell_values(config.num_blocks) * max(sizes)
    weights = 3 * _FLOAT * count_weights(config, num_classes)
    cells = sum(edges for _, _, edges, _ in _nodes(config))
    each = _SEPARATE_GRAPHS if config.separate_graphs else _GRAPH
    graphs = each * cells * num_edges(config.num_blocks) // _GRAPH_EDGES
    return MemoryEstimate(round(_BASE), graphs, weights, count, round(workspace))


def check_memory(config: SearchConfig, num_classes: int, memory_gib: float) -> None:
    """Raises InputError where a search takes more than there is; the message says what would fit.

    Args:
        memory_gib: that the search may take.
    """
    limit, found = memory_gib * GIB, estimate_memory(config, num_classes)
    if found.total <= limit:
        return
    parts = (n for n in range(config.micro_batches + 1, config.batch_size + 1) if config.batch_size % n == 0)
    smaller = (dataclasses.replace(config, micro_batches=n) for n in parts)
    fitting = next((one for one in smaller if estimate_memory(one, num_classes).total <= limit), None)
    if fitting is not None:
        hint = f"--micro_batches={fitting.micro_batches} fits"
    else:
        hint = "a smaller --crop_size takes less" if config.recompute else "--recompute takes less"
    size = "x".join(map(str, config.crop_size))
    raise InputError(
        f"--batch_size: {config.micro_batch_size} pictures of {size} at once take {found.describe()}, expected at most "
        f"--memory_gib={memory_gib:g}; {hint}"
    )


def kept_values(config: SearchConfig, num_classes: int) -> int:
    """Numbers that the forward pass of a (micro) batch keeps for the gradient."""
    total = _stem_values(config)
    for layer, level, edges, has_before in _nodes(config):
        channels, blocks = config.filters * 2**level, config.num_blocks
        inside = 1 if config.recompute else _cell_values(blocks)
        # An edge: the two ends of the normalisation where it enters, the cell, the cell's output.
        values = edges * (2 + inside + blocks) + blocks
        if has_before:
            values += 2 + _INPUT_VALUES + _EDGE_VALUES * blocks
        if layer == config.num_layers - 1:
            # The head: two branches and their ReLU, as wide as the node.
            values += 4 * blocks
        total += values * channels * _pixels(config, level)
    # At the size of the image: logits, and what the loss keeps of them.
    height, width = config.crop_size
    return total + 4 * config.micro_batch_size * height * width * num_classes


def count_weights(config: SearchConfig, num_classes: int) -> int:
    """Weights of the supernet, alpha and beta not among them."""
    blocks = config.num_blocks
    total = 9 * 3 * _STEM_FILTERS + 9 * _STEM_FILTERS * blocks * config.filters
    for layer, level, edges, has_before in _nodes(config):
        channels = config.filters * 2**level
        for source in range(edges):
            total += _entry_weights(level, source, layer, channels, blocks)
        cells = 1 if config.shared_weights else edges
        inside = sum(_edge_weights(channels) * targets for targets in _targets(blocks))
        inside += (_edge_weights(channels) * blocks + blocks * channels * channels) if has_before else 0
        total += cells * inside
        if layer == config.num_layers - 1:
            width = blocks * channels
            total += width * width * (1 + 9 + 1) + 3 * width * num_classes + width + num_classes
    return total


def _entry_weights(level: int, number: int, layer: int, channels: int, blocks: int) -> int:
    """Of the convolution by which the edge `number` enters a node: 3x3 from a finer level, else 1x1."""
    source = _sources(layer, level)[number]
    if source < level:
        return 9 * blocks * channels // 2 * channels
    return blocks * channels * (2 if source > level else 1) * channels


def _edge_weights(channels: int) -> int:
    """Of one edge of a cell: a dense and twice a separable kernel of each size."""
    return sum(size * size * channels**2 + 2 * (size * size * channels + channels**2) for size in _KERNELS)


def _targets(blocks: int) -> list[int]:
    """How many blocks read H^{l-1} and each of the blocks."""
    return [blocks, *range(blocks - 1, 0, -1)]


def _cell_values(blocks: int) -> int:
    """Kept inside a cell on one edge, as multiples of c filters at its pixels."""
    return sum(_INPUT_VALUES + _EDGE_VALUES * targets for targets in _targets(blocks))


def _stem_values(config: SearchConfig) -> int:
    """What both convolutions put out, and their ReLU."""
    height, width = (-(-side // 2) for side in config.crop_size)
    first = 2 * config.micro_batch_size * height * width * _STEM_FILTERS
    return first + 2 * _pixels(config, 0) * config.num_blocks * config.filters


def _pixels(config: SearchConfig, level: int) -> int:
    stride = FINEST_STRIDE * 2**level
    return config.micro_batch_size * math.prod(-(-side // stride) for side in config.crop_size)


def _nodes(config: SearchConfig) -> Iterator[tuple[int, int, int, bool]]:
    """(layer, level, edges that arrive, whether H^{l-2} exists) of every node."""
    for layer in range(config.num_layers):
        for level in range(NUM_LEVELS):
            edges = len(_sources(layer, level))
            if edges:
                yield layer, level, edges, layer >= 1 and level <= layer - 1


def _sources(layer: int, level: int) -> list[int]:
    """The levels that a node is entered from."""
    mask = edge_mask(layer + 1)[layer]
    near = range(max(level - 1, 0), min(level + 2, NUM_LEVELS))
    return [source for source in near if mask[source, level - source + 1]]
