"""Strides that become rates: how a network made for stride 32 gives denser features with the same weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def atrous_plan(strides: Iterable[int], target: int) -> Iterator[tuple[int, int]]:
    """Yields the (stride, rate) that each unit of a chain runs with.

    The unit that would go beyond the target stride keeps the present rate; those after it see a rate that has
    grown by its stride (slim's `stack_blocks_dense`).

    Args:
        strides: of the units at the network's own stride, in order.
        target: product of the strides to be reached.
    """
    reached = rate = 1
    for stride in strides:
        if reached == target:
            yield 1, rate
            rate *= stride
        else:
            yield stride, 1
            reached *= stride
