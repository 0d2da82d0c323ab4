"""The search space of dense prediction cells (the recursive search space of the paper): 5! * 81^5 for five branches."""

from __future__ import annotations

import dataclasses
import functools
from typing import ClassVar

from nas_seg.dpc.genotype import CONV, FEATURES, PYRAMID_POOLING, Branch, DPCGenotype
from nas_seg.search.space import SearchSpace
from nas_seg.utils.errors import InputError

RATES = (1, 3, 6, 9, 12, 15, 18, 21)
GRIDS = (1, 2, 4, 8)


@dataclasses.dataclass(frozen=True)
class DPCSpace(SearchSpace):
    """Cells of `num_branches` branches; branch i reads the features or any branch before it.

    An operation is the 1x1 convolution, a 3x3 separable convolution with a rate in `rates` for each axis, or
    an average over a window of 1/grid of the map with a grid in `grids` for each axis: 81 by default. The
    decisions are b0_input, b0_op, b1_input, ...; input 0 is the features, input k is branch k - 1.
    """

    KIND: ClassVar[str] = "dpc"

    num_branches: int = 5
    rates: tuple[int, ...] = RATES
    grids: tuple[int, ...] = GRIDS

    def __post_init__(self):
        _check_numbers("num_branches", (self.num_branches,))
        _check_numbers("rates", self.rates)
        _check_numbers("grids", self.grids)

    @functools.cached_property
    def ops(self) -> tuple[Branch, ...]:
        """The operations in the order of their numbers, as branches that read the features."""
        pointwise = (Branch(CONV, FEATURES, kernel=1),)
        atrous = tuple(Branch(CONV, FEATURES, kernel=3, rate=(h, w)) for h in self.rates for w in self.rates)
        pools = tuple(Branch(PYRAMID_POOLING, FEATURES, grid_size=(h, w)) for h in self.grids for w in self.grids)
        return pointwise + atrous + pools

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(f"b{i}_{what}" for i in range(self.num_branches) for what in ("input", "op"))

    @functools.cached_property
    def labels(self) -> tuple[tuple[str, ...], ...]:
        ops = tuple(op.op_label for op in self.ops)
        inputs = ("F", *(str(k) for k in range(self.num_branches - 1)))
        return tuple(labels for i in range(self.num_branches) for labels in (inputs[: i + 1], ops))

    def _encode(self, genotype: DPCGenotype) -> list[int]:
        if not isinstance(genotype, DPCGenotype):
            raise InputError(f"expected a genotype of kind 'dpc', received {type(genotype).__name__}")
        if len(genotype.branches) != self.num_branches:
            raise InputError(f"the space has cells of {self.num_branches} branches, received {len(genotype.branches)}")
        choices = []
        for i, branch in enumerate(genotype.branches):
            op = self._op_numbers.get(branch.op_label)
            if op is None:
                raise InputError(
                    f"branch {i}: {branch.op_label} is not in the space: its operations are 1x1, "
                    f"sep3x3 with rates {list(self.rates)} and spp with grids {list(self.grids)}"
                )
            choices += [branch.input + 1, op]
        return choices

    def _decode(self, choices: list[int]) -> DPCGenotype:
        pairs = zip(choices[0::2], choices[1::2], strict=True)
        return DPCGenotype(tuple(dataclasses.replace(self.ops[op], input=i - 1) for i, op in pairs))

    @functools.cached_property
    def _op_numbers(self) -> dict[str, int]:
        return {op.op_label: i for i, op in enumerate(self.ops)}


def _check_numbers(name: str, values: object) -> None:
    ok = isinstance(values, tuple) and all(isinstance(v, int) and not isinstance(v, bool) and v >= 1 for v in values)
    if not ok or not values or len(set(values)) != len(values):
        raise InputError(f"DPCSpace: {name}: expected distinct integers >= 1, received {values!r}")
