"""Which drawing and genotype class belong to a kind of architecture: one row a family."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from nas_seg.auto_deeplab.genotype import AutoDeepLabGenotype
from nas_seg.dpc.genotype import DPCGenotype
from nas_seg.plot.auto_deeplab_diagram import network_svg
from nas_seg.plot.cell_diagram import MAP_SIZE, dpc_svg
from nas_seg.plot.template_diagram import template_svg
from nas_seg.template.genotype import TemplateGenotype
from nas_seg.utils import config
from nas_seg.utils.errors import InputError, unknown

_TASK = "task"  # section of a search's config.json


class Family(NamedTuple):
    """What can be done with a kind of architecture.

    Attributes:
        genotype: its class.
        load: path -> genotype.
        draw: (genotype, map_size, output_stride, title) -> SVG text.
    """

    genotype: type
    load: Callable[[Any], Any]
    draw: Callable[..., str]


def _draw_network(genotype: AutoDeepLabGenotype, map_size: tuple[int, int], output_stride: int, title: str) -> str:
    # A path has a map at every stride, and nothing of it is drawn to the scale of one.
    return network_svg(genotype, title)


def _draw_template(genotype: TemplateGenotype, map_size: tuple[int, int], output_stride: int, title: str) -> str:
    # Its maps have strides of their own.
    return template_svg(genotype, title)


FAMILIES = {
    DPCGenotype.KIND: Family(DPCGenotype, DPCGenotype.load, dpc_svg),
    AutoDeepLabGenotype.KIND: Family(AutoDeepLabGenotype, AutoDeepLabGenotype.load, _draw_network),
    TemplateGenotype.KIND: Family(TemplateGenotype, TemplateGenotype.load, _draw_template),
}


def load_genotype(path: str | os.PathLike) -> Any:
    """Reads a genotype of any family by the kind in its file.

    A bare list of lists is the published form of a template network, any other DeepLab's form of a cell.
    """
    data = config.read_json(path)
    nested = isinstance(data, list) and data and isinstance(data[0], list)
    bare = TemplateGenotype.KIND if nested else DPCGenotype.KIND
    return _family(data.get("kind") if isinstance(data, dict) else bare, f"{path}: ").load(path)


def of_network(network: Any, where: str = "network") -> Any:
    """The genotype in a network's section of a training's config.json; None for a network made by hand."""
    found = network.get("genotype", _backbone_of(network).get("genotype")) if isinstance(network, Mapping) else None
    if not isinstance(found, Mapping):
        return None
    return config.from_json(_family(found.get("kind"), f"{where}: ").genotype, found, f"{where}.genotype")


def draw(genotype: Any, map_size: tuple[int, int] = MAP_SIZE, output_stride: int = 16, title: str = "") -> str:
    """The drawing of a genotype as SVG text, by its kind; see the family's own function."""
    return _family(genotype.KIND, "").draw(genotype, map_size, output_stride, title)


def feature_map(sections: Mapping[str, Any]) -> tuple[tuple[int, int], int]:
    """((height, width) of the feature map, output stride) of a search, from the sections of its config.json.

    A search that says nothing of its task has the map of a 513 x 513 crop at output stride 16, and so has one of
    template networks, whose drawings tell no sizes.
    """
    task = sections.get(_TASK)
    if task is None or "variant" in _backbone_of(task):
        return MAP_SIZE, 16
    try:
        stride = config.from_json(int, sections[_TASK]["backbone"]["output_stride"], "task.backbone.output_stride")
        size = config.from_json(tuple[int, int], sections[_TASK]["size"], "task.size")
    except (KeyError, TypeError):
        raise InputError("config.json: expected task.backbone.output_stride and task.size (height, width)") from None
    if stride < 1 or min(size) < 1:
        raise InputError(f"config.json: expected sizes above 0, received output_stride {stride}, size {size}")
    # Strided layers with padding leave the rounded-up share: k * stride + 1 pixels are k + 1 positions.
    return tuple(-(-side // stride) for side in size), stride


def _backbone_of(task: Any) -> Mapping[str, Any]:
    """The fields of the backbone of a task or a network; none where it tells none."""
    backbone = task.get("backbone") if isinstance(task, Mapping) else None
    return backbone if isinstance(backbone, Mapping) else {}


def _family(kind: Any, where: str) -> Family:
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise InputError(f"{where}{unknown('kind of architecture', kind, FAMILIES)}")
    return FAMILIES[kind]
