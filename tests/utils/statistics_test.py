"""Statistics against SciPy's numbers, published tables and brute force."""

import itertools
import math

import numpy as np
import pytest

from nas_seg.utils.errors import InputError
from nas_seg.utils.statistics import Summary, bootstrap_interval, mean_interval, spearman, student_quantile


@pytest.mark.parametrize(
    "x, y, expected",
    [
        # IQ and hours of television, the worked example of many textbooks: 1 - 6 * 194 / (10 * 99) = -29 / 165.
        ([106, 86, 100, 101, 99, 103, 97, 113, 112, 110], [7, 0, 27, 50, 28, 29, 20, 12, 6, 17], -29 / 165),
        # Ties in both columns; scipy.stats.spearmanr, SciPy 1.17.1.
        ([1, 2, 2, 3, 5, 5, 5], [2, 1, 4, 4, 3, 7, 7], 0.6764666413954515),
        ([0.43, 0.42, 0.42, 0.41, 0.40], [0.5, 0.52, 0.48, 0.49, 0.47], 0.6668859288553503),
        ([1, 2, 3], [10, 20, 1000], 1.0),
        ([1, 2, 3], [3, 2, 1], -1.0),
    ],
)
def test_rank_correlation_is_that_of_the_textbook_and_of_scipy(x, y, expected):
    assert spearman(x, y) == pytest.approx(expected, abs=1e-14)
    assert spearman(y, x) == spearman(x, y)
    # Ranks alone count.
    assert spearman([math.exp(v / 50) for v in x], y) == spearman(x, y)


def test_rank_correlation_is_undefined_for_two_pairs_and_for_equal_values():
    assert spearman([1, 2], [1, 2]) is None
    assert spearman([1, 1, 1], [1, 2, 3]) is None and spearman([1, 2, 3], [5, 5, 5]) is None


def test_bootstrap_of_the_mean_is_the_distribution_of_all_draws():
    values = [0.0, 1.0, 4.0, 10.0]
    means = sorted(np.mean(draw) for draw in itertools.product(values, repeat=4))
    expected = np.quantile(means, [0.1, 0.9])
    # 20,000 of draws that take a step of 0.25 or more: the quantile falls on its step.
    assert bootstrap_interval(lambda x: float(np.mean(x)), values, draws=20000, level=0.8) == pytest.approx(expected)


def test_bootstrap_keeps_pairs_together_and_draws_again_where_all_are_equal():
    calls = []

    def statistic(x, y):
        assert (y == 2 * x).all()
        calls.append(spearman(x, y))
        return calls[-1]

    assert bootstrap_interval(statistic, [1, 2, 3], [2, 4, 6], draws=50) == (1.0, 1.0)
    # Three of three equal: 3 of 27 draws.
    assert None in calls and sum(value is not None for value in calls) == 1 + 50


def test_bootstrap_depends_on_its_seed_and_is_none_for_constants():
    rng = np.random.default_rng(0)
    x = rng.random(12)
    y = x + rng.random(12)
    low, high = bootstrap_interval(spearman, x, y)
    assert -1 <= low < spearman(x, y) < high <= 1
    assert bootstrap_interval(spearman, x, y) == (low, high) != bootstrap_interval(spearman, x, y, seed=1)
    assert bootstrap_interval(spearman, x, np.ones(12)) is None


@pytest.mark.parametrize(
    "level, degrees, expected",
    [
        # Any printed table of Student's distribution has these.
        (0.95, 1, 12.706), (0.95, 2, 4.303), (0.95, 4, 2.776), (0.95, 30, 2.042), (0.95, 120, 1.980), (0.9, 5, 2.015),
        (0.99, 3, 5.841),
        # scipy.stats.t.ppf, SciPy 1.17.1.
        (0.95, 9, 2.262157162798205), (0.95, 1000, 1.9623390808264083), (0.99, 29, 2.756385903670605),
    ],
)  # fmt: skip
def test_student_quantiles_are_those_of_the_tables(level, degrees, expected):
    printed = 1e-9 if len(str(expected)) > 8 else 5e-4
    assert student_quantile(level, degrees) == pytest.approx(expected, abs=printed)


def test_mean_interval_is_scipys():
    summary = mean_interval([0.3, -0.1, 0.5, 0.9, 0.2])
    assert (summary.mean, summary.sd, summary.n) == (pytest.approx(0.36), pytest.approx(0.37148351242013417), 5)
    assert (summary.low, summary.high) == pytest.approx((-0.10125770329836148, 0.8212577032983615), abs=1e-12)
    wider = mean_interval([0.3, -0.1, 0.5, 0.9, 0.2], level=0.99)
    assert (wider.low, wider.high) == pytest.approx((-0.4048896865098912, 1.1248896865098912), abs=1e-12)
    assert mean_interval([0.5]) == Summary(0.5, None, None, None, 1)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: spearman([1, 2, 3], [1, 2]), r"one length, 1 or more, received lengths \[3, 2\]"),
        (lambda: spearman([1, 2, math.nan], [1, 2, 3]), "expected finite numbers"),
        (lambda: bootstrap_interval(spearman, [1, 2, 3], [1, 2]), "one length"),
        (lambda: bootstrap_interval(spearman, [1, 2, 3], [1, 2, 3], level=95), r"level: expected a number in \(0, 1\)"),
        (lambda: mean_interval([]), r"received lengths \[0\]"),
        (lambda: mean_interval([1.0, math.inf]), "expected finite numbers"),
        (lambda: mean_interval([1.0, 2.0], level=1), "level"),
    ],
)
def test_columns_that_are_none_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
