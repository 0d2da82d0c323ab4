"""A search of dense prediction cells on a data set; what it shares with others is in `nas_seg.space_search`."""

from __future__ import annotations

import dataclasses
import functools
import os
from typing import TYPE_CHECKING, Any, ClassVar

from nas_seg.common import REWARD
from nas_seg.datasets.descriptors import DatasetDescriptor
from nas_seg.dpc.space import DPCSpace
from nas_seg.search.evaluator import Evaluator
from nas_seg.search_flags import flag
from nas_seg.space_search import SpaceSearch, check, search
from nas_seg.utils.errors import InputError, renamed
from nas_seg.utils.grid import grid_size

if TYPE_CHECKING:
    from nas_seg.dpc_task import ProxyTask

__all__ = ["DPCSearch", "check", "search"]

LATENCY = "latency"


# The flags that have other names than the fields of the task.
_FLAGS = {
    "size": "--cache_size",
    "steps": "--proxy_steps",
    "batch_size": "--proxy_batch_size",
    "base_learning_rate": "--proxy_learning_rate",
    "crop_size": "--proxy_crop_size",
    "dtype_policy": "--proxy_dtype_policy",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DPCSearch(SpaceSearch):
    """What a search of cells is made from; the flags of tools/search_dpc.py."""

    NOUN: ClassVar[str] = "cell"
    OBJECTIVES: ClassVar[tuple[str, ...]] = (*SpaceSearch.OBJECTIVES, LATENCY)

    proxy_steps: int = flag(200, "Optimisation steps of a trial.", 1)
    backbone: str | None = flag(None, "Name of the backbone (default: that of a run folder, or mobilenet_v2).")
    output_stride: int | None = flag(None, "16 or 8; at 8 the cells' rates double (default: as --backbone).")
    depth_multiplier: float | None = flag(None, "Of the backbone's channels (default: as --backbone).")
    divisible_by: int | None = flag(None, "Channels are multiples of it (default: as --backbone).")
    proxy_learning_rate: float = flag(0.3, "Learning rate at the start of a trial; polynomial decay.")
    proxy_crop_size: tuple[int, int] | None = flag(
        None, "height,width of the window of a picture that a step trains on, k*OS+1 (default: all)."
    )
    proxy_dtype_policy: str = flag("float32", "Numbers a trial computes in: float32 or mixed_bfloat16.")
    filters: int = flag(256, "Channels of every branch and of the projection.", 1)
    num_branches: int = flag(5, "Branches of a cell.", 1)
    objectives: tuple[str, ...] = flag(
        (REWARD,),
        "reward, and costs to minimise beside it: params, madds, latency (seconds of the head for one cached picture).",
    )
    baseline: tuple[str, ...] = flag(
        (), "Also score these, which are no trials: conv1x1, aspp, top1 (the published cell)."
    )

    @functools.cached_property
    def space(self) -> DPCSpace:
        return DPCSpace(self.num_branches)

    @property
    def steps(self) -> str:
        return str(self.proxy_steps)

    def make_task(self, data: DatasetDescriptor) -> ProxyTask:
        """The proxy task that the settings ask for; paths in it are absolute."""
        try:
            return self._task(data)
        except InputError as error:
            raise renamed(error, _FLAGS) from None

    def _task(self, data: DatasetDescriptor) -> ProxyTask:
        from nas_seg import features
        from nas_seg.dpc.proxy import ProxyConfig
        from nas_seg.dpc_task import ProxyTask

        weights = self.backbone_weights
        fields = {"name": self.backbone} | {
            name: getattr(self, name) for name in ("output_stride", "depth_multiplier", "divisible_by")
        }
        backbone = features.backbone_config(weights, **fields)
        return ProxyTask(
            dataset_dir=os.path.abspath(self.dataset_dir),
            train_split=self.train_split,
            val_split=self.val_split,
            backbone=backbone,
            backbone_weights=os.path.abspath(weights) if weights and os.path.exists(weights) else weights,
            size=self.cache_size or grid_size(data.split(self.train_split).max_size, backbone.output_stride),
            views=self.cache_views,
            seed=self.seed,
            proxy=ProxyConfig(
                steps=self.proxy_steps,
                batch_size=self.proxy_batch_size,
                base_learning_rate=self.proxy_learning_rate,
                filters=self.filters,
                crop_size=self.proxy_crop_size,
                dtype_policy=self.proxy_dtype_policy,
            ),
        )

    def with_costs(self, evaluator: Any) -> Evaluator:
        return functools.partial(_with_latency, evaluator) if LATENCY in self.objectives else evaluator


def _with_latency(evaluator, genotype, **arguments: Any) -> dict[str, float]:
    """The proxy's metrics and "latency": seconds of the head for one cached picture."""
    from nas_seg.dpc.latency import head_seconds

    metrics = evaluator(genotype, **arguments)
    return metrics | {LATENCY: head_seconds(evaluator.head(genotype)(), evaluator.train.features.shape[1:])}
