"""Template networks: genotype, search space and costs; beside them, with Keras, ops, decoder and network."""

from nas_seg.template.genotype import AGGREGATIONS, OPS, Layer, Template, TemplateGenotype, published
from nas_seg.template.plan import count, plan
from nas_seg.template.space import TemplateSpace

__all__ = [
    "TemplateGenotype",
    "Template",
    "Layer",
    "TemplateSpace",
    "OPS",
    "AGGREGATIONS",
    "count",
    "plan",
    "published",
]
