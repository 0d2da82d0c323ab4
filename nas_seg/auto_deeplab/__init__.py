"""Auto-DeepLab: the genotype, and beside it decoding, the networks of genotypes and the supernet."""

from nas_seg.auto_deeplab.genotype import FIXED_OPS, OPS, AutoDeepLabGenotype, num_cells, num_paths, published

__all__ = ["AutoDeepLabGenotype", "OPS", "FIXED_OPS", "num_cells", "num_paths", "published"]
