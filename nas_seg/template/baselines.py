"""The published networks, which a search in their space is measured by."""

from __future__ import annotations

from nas_seg.template.genotype import TemplateGenotype, published

BASELINES: dict[str, TemplateGenotype] = {name: published(name) for name in ("arch0", "arch1")}
