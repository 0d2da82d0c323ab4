"""Dense prediction cells: genotype, search space, and (with Keras, on first use) the cell itself."""

from nas_seg.dpc.genotype import CITYSCAPES_TOP1, Branch, DPCGenotype, count, published
from nas_seg.dpc.space import DPCSpace

__all__ = ["DPCGenotype", "Branch", "DPCSpace", "DensePredictionCell", "CITYSCAPES_TOP1", "count", "published"]


def __getattr__(name: str):
    if name == "DensePredictionCell":
        # Keras takes seconds to import, and a genotype needs none of it.
        from nas_seg.dpc.cell import DensePredictionCell

        return DensePredictionCell
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
