"""The search spaces of all families, by the kind that a study tells: what reads a study of any of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas_seg.dpc import baselines as dpc_baselines
from nas_seg.dpc.space import DPCSpace
from nas_seg.search.space import SearchSpace
from nas_seg.template import baselines as template_baselines
from nas_seg.template.space import TemplateSpace
from nas_seg.utils import config
from nas_seg.utils.errors import unknown

# The kind of a space -> its class, and the hand-made genotypes that a search in it is measured by.
_SPACES: dict[str, tuple[type[SearchSpace], Mapping[str, Any]]] = {
    DPCSpace.KIND: (DPCSpace, dpc_baselines.BASELINES),
    TemplateSpace.KIND: (TemplateSpace, template_baselines.BASELINES),
}


def read_space(data: Any, where: str = "space of the study") -> SearchSpace:
    """The space that a study was made for, from its JSON form."""
    kind = data.get("kind") if isinstance(data, dict) else None
    if not isinstance(kind, str) or kind not in _SPACES:
        raise unknown("kind of space", kind, _SPACES)
    return config.from_json(_SPACES[kind][0], data, where)


def baselines(space: SearchSpace) -> Mapping[str, Any]:
    """Name -> genotype, of the family that a space is of."""
    return _SPACES[space.KIND][1]
