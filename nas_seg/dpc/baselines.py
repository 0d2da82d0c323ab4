"""Context modules made by hand or found by others, as cells: what a search is measured by.

As cells they have the head, the projection and the training of every trial. DeepLab's own ASPP differs from the
cell here in the place of the dropout alone, which stands after the projection there.
"""

from __future__ import annotations

from nas_seg.dpc.genotype import CITYSCAPES_TOP1, CONV, FEATURES, PYRAMID_POOLING, Branch, DPCGenotype

_POINTWISE = Branch(CONV, FEATURES, kernel=1)
# Chen et al., "Rethinking Atrous Convolution" (2017): the rates at output stride 16.
_ASPP_RATES = (6, 12, 18)

BASELINES: dict[str, DPCGenotype] = {
    "conv1x1": DPCGenotype((_POINTWISE,)),
    "aspp": DPCGenotype(
        (
            Branch(PYRAMID_POOLING, FEATURES, grid_size=(1, 1)),
            _POINTWISE,
            *(Branch(CONV, FEATURES, kernel=3, rate=(rate, rate)) for rate in _ASPP_RATES),
        )
    ),
    "top1": CITYSCAPES_TOP1,
}
