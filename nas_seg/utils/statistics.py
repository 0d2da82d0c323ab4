"""Rank correlation, bootstrap and Student's interval: how far a handful of scores can be trusted."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from nas_seg.utils.errors import InputError

MIN_PAIRS = 3
DRAWS = 2000
LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Summary:
    """A mean and how sure it is.

    Attributes:
        mean: of the values.
        sd: their standard deviation, with n - 1 below; None for a single value.
        low, high: the interval of the mean; None for a single value.
        n: how many values.
    """

    mean: float
    sd: float | None
    low: float | None
    high: float | None
    n: int


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman's rank correlation of pairs; equal values share the average of their ranks.

    Returns:
        a number in [-1, 1]; None for fewer than three pairs and where all x or all y are equal: no rank says
        anything there.

    Raises:
        InputError: for columns of different lengths, or numbers that are not finite.
    """
    columns = _columns(x, y)
    if columns.shape[1] < MIN_PAIRS:
        return None
    ranks = np.stack([_ranks(column) for column in columns])
    a, b = ranks - ranks.mean(axis=1, keepdims=True)
    scale = math.sqrt((a @ a) * (b @ b))
    return float(a @ b) / scale if scale else None


def bootstrap_interval(
    statistic: Callable[..., float | None],
    *columns: Sequence[float],
    seed: int = 0,
    draws: int = DRAWS,
    level: float = LEVEL,
) -> tuple[float, float] | None:
    """The percentile bootstrap interval of a statistic of paired rows.

    Rows are drawn with replacement, as many as there are. A draw without the statistic (all values equal) is drawn
    again, so the interval is that of the draws that have one. With ten rows it is a rough guide.

    Args:
        statistic: columns -> a number, or None where it is undefined.
        columns: of one length.
        seed: of the draws.
        draws: how many.
        level: share of the draws in the interval.

    Returns:
        (low, high), or None where the rows themselves have no such statistic.

    Raises:
        InputError: for columns of different lengths, numbers that are not finite, or a level outside (0, 1).
    """
    rows = _columns(*columns)
    _check_level(level)
    if statistic(*rows) is None:
        return None
    rng, values = np.random.default_rng(seed), []
    while len(values) < draws:
        value = statistic(*rows[:, rng.integers(rows.shape[1], size=rows.shape[1])])
        if value is not None:
            values.append(value)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mean_interval(values: Sequence[float], level: float = LEVEL) -> Summary:
    """Mean, standard deviation and Student's t interval of the mean, such as of differences paired over seeds.

    Raises:
        InputError: for no values, numbers that are not finite, or a level outside (0, 1).
    """
    (column,) = _columns(values)
    _check_level(level)
    n, mean = len(column), float(np.mean(column))
    if n == 1:
        return Summary(mean, None, None, None, n)
    sd = float(np.std(column, ddof=1))
    half = student_quantile(level, n - 1) * sd / math.sqrt(n)
    return Summary(mean, sd, mean - half, mean + half, n)


def student_quantile(level: float, degrees: int) -> float:
    """The t that |T| stays below with probability `level`, T of Student's distribution."""
    low, high = 0.0, 1.0
    while _student_share(high, degrees) < level:
        high *= 2
    # Halving ends where doubles do.
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if _student_share(middle, degrees) < level else (low, middle)
    return high


def _student_share(t: float, degrees: int) -> float:
    """P(|T| < t), a finite sum for whole degrees of freedom (Abramowitz & Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term, total = cosine if odd else 1.0, 0.0
    for power in range(odd, degrees - 1, 2):
        total += term
        term *= cosine * cosine * (power + 1) / (power + 2)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def _ranks(values: np.ndarray) -> np.ndarray:
    """1 for the smallest; the average of their places for equal ones."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]


def _columns(*columns: Sequence[float]) -> np.ndarray:
    """The columns as rows of one array, float64 [columns, n]."""
    lengths = [len(column) for column in columns]
    if not lengths or len(set(lengths)) > 1 or not lengths[0]:
        raise InputError(f"statistics: expected columns of one length, 1 or more, received lengths {lengths}")
    array = np.asarray(columns, np.float64)
    if not np.isfinite(array).all():
        raise InputError("statistics: expected finite numbers, received one that is not")
    return array


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise InputError(f"level: expected a number in (0, 1), received {level!r}")
