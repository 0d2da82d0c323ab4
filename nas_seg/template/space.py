"""The search space of template networks: 173,939,110,768,450,260,172,800 of them, many alike."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar

from nas_seg.search.space import SearchSpace
from nas_seg.template.genotype import (
    AGGREGATIONS,
    NUM_ENCODER_MAPS,
    NUM_LAYERS,
    NUM_TEMPLATES,
    OPS,
    REPEATS,
    STRIDES,
    TemplateGenotype,
)
from nas_seg.utils.errors import InputError


@dataclasses.dataclass(frozen=True)
class TemplateSpace(SearchSpace):
    """Networks of `num_templates` templates and `num_layers` layers.

    The decisions are t0_op1, t0_op2, t0_aggregation, ..., then l0_input1, l0_input2, l0_template, l0_repeats,
    l0_stride, ...: a vector is the flat action of `TemplateGenotype.to_action`. Layers of the first half may stride.
    The stride of the others is a decision with one choice, as in the authors' code, so that actions are the same.

    Encodings are counted, not networks: a template that no layer applies and the order of the templates make no
    difference, see `TemplateGenotype.digest`.
    """

    KIND: ClassVar[str] = "template"
    COUNTED: ClassVar[str] = "whole network"

    num_templates: int = NUM_TEMPLATES
    num_layers: int = NUM_LAYERS

    def __post_init__(self):
        for name in ("num_templates", "num_layers"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"TemplateSpace: {name}: expected an integer of at least 1, received {value!r}")

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        templates = [f"t{i}_{what}" for i in range(self.num_templates) for what in ("op1", "op2", "aggregation")]
        parts = ("input1", "input2", "template", "repeats", "stride")
        return (*templates, *(f"l{i}_{what}" for i in range(self.num_layers) for what in parts))

    @functools.cached_property
    def labels(self) -> tuple[tuple[str, ...], ...]:
        templates = (OPS, OPS, AGGREGATIONS) * self.num_templates
        template = _strings(range(self.num_templates))
        layers = []
        for i in range(self.num_layers):
            inputs = _strings(range(NUM_ENCODER_MAPS + i))
            layers += [inputs, inputs, template, _strings(REPEATS), _strings(self._strides(i))]
        return (*templates, *layers)

    def _strides(self, layer: int) -> tuple[int, ...]:
        return STRIDES if layer < self.num_layers // 2 else STRIDES[:1]

    def identity(self, params: Mapping[str, str]) -> Any:
        """The digest, which many ways to write a network share."""
        return self.from_params(params).digest if set(self.names) <= params.keys() else params

    def _encode(self, genotype: TemplateGenotype) -> list[int]:
        if not isinstance(genotype, TemplateGenotype):
            raise InputError(f"expected a genotype of kind 'template', received {type(genotype).__name__}")
        for what, expected in (("templates", self.num_templates), ("layers", self.num_layers)):
            received = len(getattr(genotype, what))
            if received != expected:
                raise InputError(f"the space has networks of {expected} {what}, received {received}")
        for i, layer in enumerate(genotype.layers):
            if layer.stride not in self._strides(i):
                raise InputError(
                    f"layers[{i}]: stride: expected 1, received {layer.stride}: in the space layers before "
                    f"{self.num_layers // 2} alone stride"
                )
        return genotype.to_action()

    def _decode(self, choices: list[int]) -> TemplateGenotype:
        return TemplateGenotype.from_action(choices, self.num_templates, self.num_layers)


def _strings(values) -> tuple[str, ...]:
    return tuple(str(value) for value in values)
