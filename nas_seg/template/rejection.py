"""Early rejection: networks that do badly after the first stage of a trial are spared the second.

Source: the authors' code (Nekrasov et al.), whose counter of trials counts some of them twice and so misses steps of
its schedule; here every trial counts once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from nas_seg.utils.errors import InputError


@dataclasses.dataclass(frozen=True)
class Rejection:
    """Rejects a score below an average of those before it, with some leniency that shrinks as the search goes on.

    A score s goes on where s > m * (1 - u * delta): m is an exponential moving average of the scores, this one
    included, u is uniform in [0, 1), and delta is multiplied by a factor each time that a number of scores is reached.

    Attributes:
        decay: of the average. The authors' 0.99 is for thousands of trials: it takes some 200 until the average is near
            the scores.
        start: of the average; near 0, so that the first trials are not judged by a few.
        delta: to begin with.
        factors: (number of scores, factor), as in the authors' code.
    """

    decay: float = 0.95
    start: float = 0.01
    delta: float = 0.9
    factors: tuple[tuple[int, float], ...] = ((100, 0.9), (200, 0.8), (300, 0.7), (400, 0.6))

    def __post_init__(self):
        if not 0.0 <= self.decay < 1.0:
            raise InputError(f"rejection_decay: expected a number from 0 to below 1, received {self.decay!r}")

    def rejects(self, earlier: Sequence[float], score: float, draw: float) -> bool:
        """Whether a network is to be given up.

        Args:
            earlier: scores of the same stage of all trials before it, in their order.
            score: its own.
            draw: u.
        """
        average = self.start
        for one in (*earlier, score):
            average = self.decay * average + (1.0 - self.decay) * one
        return score <= average * (1.0 - draw * self.leniency(len(earlier) + 1))

    def leniency(self, count: int) -> float:
        """delta when `count` scores are known."""
        return self.delta * math.prod(factor for reached, factor in self.factors if count >= reached)
