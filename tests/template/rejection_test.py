"""Early rejection: the rule by hand, its schedule, and what a rejected network is worth."""

import numpy as np
import pytest

from nas_seg.template.rejection import Rejection
from nas_seg.utils.errors import InputError


def test_the_average_begins_at_its_start_and_takes_the_score_in_before_it_judges():
    rule = Rejection(decay=0.5, start=0.2, delta=0.0)
    # 0.2 -> 0.4 -> 0.5 with 0.6; then 0.5 * 0.5 + 0.5 * s is below s for every s above 0.5.
    assert not rule.rejects([0.6, 0.6], 0.51, 0.3)
    assert rule.rejects([0.6, 0.6], 0.39, 0.3)


def test_leniency_lets_a_draw_near_one_pass_where_one_near_zero_is_rejected():
    rule = Rejection(decay=0.0, delta=0.9)
    # With decay 0 the average is the score itself: no draw rejects one that is above 0 but that of 0 leniency.
    assert rule.rejects([], 0.5, 0.0) and not rule.rejects([], 0.5, 0.1)
    lenient = Rejection(decay=0.9, start=1.0)
    average = 0.9 * 1.0 + 0.1 * 0.4
    share = 1 - 0.4 / average
    assert lenient.rejects([], 0.4, share / 0.9 - 1e-6) and not lenient.rejects([], 0.4, share / 0.9 + 1e-6)


def test_every_step_of_the_schedule_is_taken_at_its_count_and_none_is_missed():
    rule = Rejection()
    expected = {99: 0.9, 100: 0.81, 199: 0.81, 200: 0.648, 299: 0.648, 300: 0.4536, 400: 0.27216, 5000: 0.27216}
    for count, delta in expected.items():
        assert rule.leniency(count) == pytest.approx(delta), count


def test_one_history_has_one_verdict():
    history = np.random.default_rng(0).uniform(0.2, 0.5, 60).tolist()
    verdicts = [[Rejection().rejects(history, s, 0.2) for s in np.linspace(0, 0.6, 40)] for _ in range(2)]
    assert verdicts[0] == verdicts[1]
    # The worse are rejected, the better not, and there is one border between them.
    assert verdicts[0] == sorted(verdicts[0], reverse=True) and len(set(verdicts[0])) == 2


def test_a_decay_that_is_none_is_refused():
    with pytest.raises(InputError, match="rejection_decay: expected a number from 0 to below 1, received 1.0"):
        Rejection(decay=1.0)
