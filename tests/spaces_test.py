"""A study's space is found by the kind that it tells."""

import pytest

from nas_seg import spaces
from nas_seg.dpc import DPCSpace
from nas_seg.dpc.baselines import BASELINES
from nas_seg.utils import config
from nas_seg.utils.errors import InputError


def test_a_space_comes_back_from_its_json_form_with_its_baselines():
    space = spaces.read_space(config.to_json(DPCSpace(num_branches=3)))
    assert space == DPCSpace(num_branches=3)
    assert spaces.baselines(space) == BASELINES


@pytest.mark.parametrize(
    "data, message",
    [
        ({"kind": "dcp", "num_branches": 3}, "unknown kind of space 'dcp'.*Did you mean 'dpc'"),
        ({"num_branches": 3}, "unknown kind of space None"),
        ({"kind": ["dpc"]}, "unknown kind of space"),
        ({"kind": "dpc", "branches": 3}, "space of the study: unknown field 'branches'"),
    ],
)
def test_a_space_of_no_family_is_refused(data, message):
    with pytest.raises(InputError, match=message):
        spaces.read_space(data)
