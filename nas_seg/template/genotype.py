"""A template network as a value: a few templates, and layers that say which template joins which two maps.

Source: Nekrasov, Shen, Reid, "Template-Based Automatic Search of Compact Semantic Segmentation Architectures",
WACV 2020 (arXiv 1904.02365); the nested lists and the flat action are those of its code.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any, ClassVar

from nas_seg.utils import config
from nas_seg.utils.errors import InputError, unknown

# In the order of the numbers that stand for them in the published lists.
OPS = (
    "sep_conv_3x3",
    "sep_conv_5x5",
    "global_average_pool",
    "max_pool_3x3",
    "sep_conv_5x5_dil6",
    "skip_connect",
)
AGGREGATIONS = ("psum", "cat")
REPEATS = (1, 2, 3, 4)
STRIDES = (1, 2)
# The pool of maps starts with the encoder's two; layer k puts its output at NUM_ENCODER_MAPS + k.
NUM_ENCODER_MAPS = 2
NUM_TEMPLATES, NUM_LAYERS = 3, 7

_SHORT = {
    "sep_conv_3x3": "sep3x3",
    "sep_conv_5x5": "sep5x5",
    "global_average_pool": "gap",
    "max_pool_3x3": "max3x3",
    "sep_conv_5x5_dil6": "sep5x5(6)",
    "skip_connect": "skip",
}
_PUBLISHED = pathlib.Path(__file__).with_name("published")


@dataclasses.dataclass(frozen=True)
class Template:
    """Two ops, each on an input of its own, and how their outputs become one map.

    Attributes:
        op1, op2: of `OPS`, on the first and the second input.
        aggregation: of `AGGREGATIONS`: "psum", a sum weighted by channel, or "cat", a concatenation.
    """

    op1: str
    op2: str
    aggregation: str

    def __post_init__(self):
        for name, known in (("op1", OPS), ("op2", OPS), ("aggregation", AGGREGATIONS)):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in known:
                raise InputError(f"{name}: {unknown('op' if known is OPS else name, value, known)}")

    def summary(self) -> str:
        """For example "cat(max3x3,sep5x5)"."""
        return f"{self.aggregation}({op_label(self.op1)},{op_label(self.op2)})"


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer: a template on two maps of the pool, applied once or several times.

    Attributes:
        input1, input2: 0 and 1 are the encoder's maps at strides 4 and 8, 2 + k is the output of layer k. The two may
            be the same.
        template: which of the genotype's templates, from 0.
        repeats: how often the template is applied, of `REPEATS`.
        stride: of `STRIDES`, in positions of the input; it multiplies the channels too.
    """

    input1: int
    input2: int
    template: int
    repeats: int = 1
    stride: int = 1

    def __post_init__(self):
        for name in ("input1", "input2", "template"):
            if not _is_int(getattr(self, name)) or getattr(self, name) < 0:
                raise InputError(f"{name}: expected an integer of at least 0, received {getattr(self, name)!r}")
        for name, known in (("repeats", REPEATS), ("stride", STRIDES)):
            value = getattr(self, name)
            if not _is_int(value) or value not in known:
                raise InputError(f"{name}: expected one of {', '.join(map(str, known))}, received {value!r}")


@dataclasses.dataclass(frozen=True)
class TemplateGenotype:
    """Templates and layers. Layers that no later one reads are the network's outputs, joined before the classifier.

    Raises:
        InputError: naming the layer that reads a map or a template that is not there.
    """

    KIND: ClassVar[str] = "template"

    templates: tuple[Template, ...]
    layers: tuple[Layer, ...]

    def __post_init__(self):
        for name, kind in (("templates", Template), ("layers", Layer)):
            items = getattr(self, name)
            if not _is_list(items) or not all(isinstance(item, kind) for item in items):
                raise InputError(f"{name}: expected a tuple of {kind.__name__}, received {items!r}")
            if not items:
                raise InputError(f"{name}: expected at least one, received none")
            object.__setattr__(self, name, tuple(items))
        for i, layer in enumerate(self.layers):
            for name in ("input1", "input2"):
                source, last = getattr(layer, name), NUM_ENCODER_MAPS + i - 1
                if source > last:
                    raise InputError(
                        f"layers[{i}]: {name}: expected 0 to {last} (0, 1: maps of the encoder; 2 + k: layer k, of "
                        f"which {i} come before), received {source}"
                    )
            if layer.template >= len(self.templates):
                raise InputError(
                    f"layers[{i}]: template: expected 0 to {len(self.templates) - 1}, received {layer.template}"
                )

    @property
    def outputs(self) -> tuple[int, ...]:
        """Numbers in the pool of the maps that the classifier takes: of layers that no layer reads, in order."""
        read = {source for layer in self.layers for source in (layer.input1, layer.input2)}
        pool = range(NUM_ENCODER_MAPS, NUM_ENCODER_MAPS + len(self.layers))
        return tuple(number for number in pool if number not in read)

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits, the same however its templates are named and ordered.

        Templates that no layer applies, and the order in which the templates stand, do not matter; nor does which of a
        template's two ops comes first in a layer that applies it once. (A layer that applies it again goes on with what
        the second one read.)
        """
        layers = []
        for layer in self.layers:
            template = self.templates[layer.template]
            branches = [[layer.input1, template.op1], [layer.input2, template.op2]]
            if layer.repeats == 1:
                branches.sort()
            layers.append([branches, template.aggregation, layer.repeats, layer.stride])
        return config.digest(layers)

    def summary(self) -> str:
        """The network on one line: the templates, then per layer inputs, colon, template, repeats and stride.

        For example "T0=cat(max3x3,sep3x3) T1=psum(gap,skip) | 0,1:T0/2 2,1:T1x3": "/2" is a stride, "x3" repeats.
        """
        templates = (f"T{i}={template.summary()}" for i, template in enumerate(self.templates))
        return " ".join(templates) + " | " + " ".join(_layer_label(layer) for layer in self.layers)

    def to_lists(self) -> list[list[list[int]]]:
        """The published form, [[[op1, op2, aggregation], ...], [[input1, input2, template, repeats - 1, stride], ...]].

        Ops and aggregations are numbers in `OPS` and `AGGREGATIONS`; the last number of a layer counts in `STRIDES`.
        """
        templates = [[OPS.index(t.op1), OPS.index(t.op2), AGGREGATIONS.index(t.aggregation)] for t in self.templates]
        layers = [
            [la.input1, la.input2, la.template, REPEATS.index(la.repeats), STRIDES.index(la.stride)]
            for la in self.layers
        ]
        return [templates, layers]

    @classmethod
    def from_lists(cls, lists: Any, where: str = "genotype") -> TemplateGenotype:
        """Reads the published form; `where` names it in messages."""
        if not _is_list(lists) or len(lists) != 2 or not all(_is_list(part) for part in lists):
            raise InputError(f"{where}: expected two lists, of templates and of layers, received {_short(lists)}")
        templates = [
            Template(**_named(row, _TEMPLATE_CHOICES, f"{where}: templates[{i}]")) for i, row in enumerate(lists[0])
        ]
        layers = [Layer(**_named(row, _LAYER_CHOICES, f"{where}: layers[{i}]")) for i, row in enumerate(lists[1])]
        try:
            return cls(tuple(templates), tuple(layers))
        except InputError as problem:
            raise InputError(f"{where}: {problem}") from None

    def to_action(self) -> list[int]:
        """`to_lists` as one list, templates first: 44 integers for three templates and seven layers."""
        return [number for part in self.to_lists() for row in part for number in row]

    @classmethod
    def from_action(
        cls, action: Any, num_templates: int = NUM_TEMPLATES, num_layers: int = NUM_LAYERS
    ) -> TemplateGenotype:
        """Reads the flat form; InputError on another length, a choice that is none, or a map that is not there yet."""
        widths = len(_TEMPLATE_CHOICES), len(_LAYER_CHOICES)
        split = widths[0] * num_templates
        total = split + widths[1] * num_layers
        numbers = action.tolist() if hasattr(action, "tolist") else action
        if not _is_list(numbers) or len(numbers) != total:
            received = f"{len(numbers)} of them" if _is_list(numbers) else repr(numbers)
            raise InputError(
                f"action: expected {total} integers ({widths[0]} for each of {num_templates} templates, {widths[1]} "
                f"for each of {num_layers} layers), received {received}"
            )
        return cls.from_lists([_rows(numbers[:split], widths[0]), _rows(numbers[split:], widths[1])], "action")

    def save(self, path: str | os.PathLike, bare: bool = False) -> None:
        """Writes the genotype; `bare` writes the published lists, which other programs read, without a version."""
        if bare:
            config.write_json(path, self.to_lists())
        else:
            config.save(path, self)

    @classmethod
    def load(cls, path: str | os.PathLike) -> TemplateGenotype:
        """Reads what `save` wrote, in either form; InputError names the file and the field that is wrong."""
        data = config.read_json(path)
        if isinstance(data, list):
            return cls.from_lists(data, str(path))
        if isinstance(data, dict) and data.get("kind") != cls.KIND:
            raise InputError(
                f"{path}: expected a genotype of kind {cls.KIND!r} or the lists of templates and layers, received kind "
                f"{data.get('kind')!r}"
            )
        return config.load(path, cls)


def op_label(op: str) -> str:
    """The short name of an op, for example "sep5x5(6)" for the 5x5 convolution of rate 6."""
    return _SHORT[op]


def published(name: str) -> TemplateGenotype:
    """A published network by name: "arch0" or "arch1"."""
    names = sorted(path.stem for path in _PUBLISHED.glob("*.json"))
    if name not in names:
        raise unknown("published network", name, names)
    return TemplateGenotype.load(_PUBLISHED / f"{name}.json")


# What the numbers of a row stand for, in their order; None: for themselves.
_TEMPLATE_CHOICES = {"op1": OPS, "op2": OPS, "aggregation": AGGREGATIONS}
_LAYER_CHOICES = {"input1": None, "input2": None, "template": None, "repeats": REPEATS, "stride": STRIDES}


def _named(row: Any, choices: dict[str, Sequence | None], where: str) -> dict[str, Any]:
    """A row of the published lists as the fields that its numbers stand for."""
    if not _is_list(row) or len(row) != len(choices):
        raise InputError(f"{where}: expected {len(choices)} integers ({', '.join(choices)}), received {_short(row)}")
    values = {}
    for (name, known), number in zip(choices.items(), row, strict=True):
        last = len(known) - 1 if known is not None else None
        if not _is_int(number) or number < 0 or (last is not None and number > last):
            meaning = f" ({', '.join(map(str, known))})" if known is not None else ""
            limit = f"0 to {last}" if known is not None else "an integer of at least 0"
            raise InputError(f"{where}: {name}: expected {limit}{meaning}, received {number!r}")
        values[name] = number if known is None else known[number]
    return values


def _rows(numbers: Sequence[int], width: int) -> list[list[int]]:
    return [list(numbers[i : i + width]) for i in range(0, len(numbers), width)]


def _layer_label(layer: Layer) -> str:
    repeats = f"x{layer.repeats}" if layer.repeats > 1 else ""
    stride = f"/{layer.stride}" if layer.stride > 1 else ""
    return f"{layer.input1},{layer.input2}:T{layer.template}{repeats}{stride}"


def _short(value: Any) -> str:
    """A value as it stands in a message, cut where it is long."""
    words = repr(value)
    return words if len(words) <= 80 else words[:77] + "..."


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
