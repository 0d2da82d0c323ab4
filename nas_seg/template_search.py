"""A search of template networks on a data set; what it shares with others is in `nas_seg.space_search`."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from nas_seg.datasets.descriptors import DatasetDescriptor, read_descriptor
from nas_seg.search import study as studies
from nas_seg.search.evaluator import Evaluator, TrialStopped
from nas_seg.search.samplers import SpaceSampler
from nas_seg.search_flags import flag
from nas_seg.space_search import SpaceSearch, check, search
from nas_seg.template.genotype import NUM_LAYERS, NUM_TEMPLATES, TemplateGenotype
from nas_seg.template.plan import Count
from nas_seg.template.proxy_config import COARSE_STRIDE, TemplateProxyConfig, check_crop
from nas_seg.template.rejection import Rejection
from nas_seg.template.space import TemplateSpace
from nas_seg.utils import runs
from nas_seg.utils.errors import InputError, renamed
from nas_seg.utils.grid import grid_size

if TYPE_CHECKING:
    from nas_seg.template_task import TemplateTask

__all__ = ["TemplateSearch", "Within", "check", "search"]

# Pictures are cached at sizes k * 32 + 1: corners align with maps down to stride 32, and coarser ones are rare.
_GRID = 32
# A sampler is asked so often for a network within the limits; the last one is then given up by the evaluator.
_MOST_DRAWS = 1000
# Limits that none of so many drawn networks keeps are refused.
_PROBES = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class TemplateSearch(SpaceSearch):
    """What a search of template networks is made from; the flags of tools/search_template.py."""

    NOUN: ClassVar[str] = "network"

    num_trials: int = flag(100, "Scored trials to have in the study; failed ones do not count.", 1)
    stage0_steps: int = flag(80, "Steps of the decoder alone, on cached maps of the encoder; 0 skips the stage.", 0)
    stage1_steps: int = flag(30, "Steps of all weights, on pictures; 0 skips the stage.", 0)
    # A base's field, with another default.
    proxy_batch_size: int = flag(4, "Pictures a step of a trial.", 1)
    proxy_crop_size: tuple[int, int] | None = flag(
        None, "height,width of what a step sees of a picture, each 8 k + 1 (default: half of both)."
    )
    stage0_learning_rate: float = flag(7e-3, "Of the decoder's Adam in the first stage.")
    stage1_learning_rate: float = flag(2e-3, "Of the decoder's Adam in the second stage.")
    encoder_learning_rate: float = flag(1e-4, "Of the encoder's Adam.")
    min_scale_factor: float = flag(0.75, "Smallest random scale of a picture in the second stage.")
    max_scale_factor: float = flag(1.5, "Largest random scale of a picture in the second stage.")
    polyak_decay: float = flag(0.9, "Decay of averaged weights, which are scored; 0: none are averaged.")
    early_rejection: bool = flag(
        True, "Spare networks the second stage whose score after the first is low beside the others'."
    )
    rejection_decay: float = flag(0.95, "Decay of the average of scores that --early_rejection compares with.")
    teacher: str | None = flag(
        None, "Run folder, .keras file or SavedModel whose logits the decoder also learns in the first stage."
    )
    distillation: float = flag(0.3, "Weight of the squared difference to the teacher's logits.", 0.0)
    encoder: str = flag("keras", "Conventions of the encoder: keras, whose weights fit, or peer.")
    agg_size: int = flag(48, "Channels before the last convolution of a trial's network.", 1)
    sep_repeats: int = flag(1, "Times in a row that a trial's network applies a separable convolution.", 1)
    num_templates: int = flag(NUM_TEMPLATES, "Templates of a network.", 1)
    num_layers: int = flag(NUM_LAYERS, "Layers of a network.", 1)
    max_params: float | None = flag(
        None, "Parameters that a network may have, encoder included and as a trial trains it; more are not proposed.", 0
    )
    max_madds: float | None = flag(
        None, "Multiply-adds that it may take for a cached picture, likewise; 5e8 is half a billion.", 0
    )
    baseline: tuple[str, ...] = flag((), "Also score these, which are no trials: arch0, arch1 (the published ones).")

    @functools.cached_property
    def space(self) -> TemplateSpace:
        return TemplateSpace(self.num_templates, self.num_layers)

    @property
    def steps(self) -> str:
        return f"{self.stage0_steps} + {self.stage1_steps}"

    @property
    def proposals(self) -> dict[str, Any]:
        rejection = self.rejection_decay if self.early_rejection else None
        limits = {"max_params": self.max_params, "max_madds": self.max_madds}
        return super().proposals | limits | {"rejection_decay": rejection}

    @property
    def limits(self) -> dict[str, float]:
        """Of what a network costs, those that are given."""
        given = {"params": self.max_params, "madds": self.max_madds}
        return {name: limit for name, limit in given.items() if limit is not None}

    def size(self, data: DatasetDescriptor) -> tuple[int, int]:
        """(height, width) of the cached pictures."""
        return self.cache_size or grid_size(data.split(self.train_split).max_size, _GRID)

    def proxy(self, data: DatasetDescriptor) -> TemplateProxyConfig:
        """How a trial trains."""
        half = tuple(side // 2 + 1 for side in self.size(data))
        names = {field.name for field in dataclasses.fields(TemplateProxyConfig)}
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name in names}
        crop_size = self.proxy_crop_size or grid_size(half, COARSE_STRIDE)
        return TemplateProxyConfig(batch_size=self.proxy_batch_size, crop_size=crop_size, **given)

    def costs(self, data: DatasetDescriptor) -> Callable[[TemplateGenotype], Count]:
        """What counts the network that a trial makes of a genotype."""
        proxy, size = self.proxy(data), self.size(data)
        return lambda genotype: proxy.costs(genotype, data.num_classes, size)

    def excess(self, cost: Count) -> str | None:
        """By how much a network is beyond the limits, None for one that keeps them."""
        for name, limit in self.limits.items():
            if getattr(cost, name) > limit:
                return f"{getattr(cost, name):,} {name}, --max_{name}={limit:.10g}"
        return None

    def check(self, data: DatasetDescriptor) -> None:
        Rejection(decay=self.rejection_decay)
        if self.cache_size and any(side % COARSE_STRIDE != 1 or side <= COARSE_STRIDE for side in self.cache_size):
            height, width = self.cache_size
            raise InputError(f"--cache_size: expected sizes of k * {COARSE_STRIDE} + 1, received {height},{width}")
        try:
            check_crop(self.proxy(data).crop_size, self.size(data))
        except InputError as error:
            raise renamed(error, {"crop_size": "--proxy_crop_size"}) from None
        self._check_limits(data)
        if self.teacher is not None:
            _check_teacher(self.teacher, data)
            if not self.stage0_steps:
                raise InputError("--teacher: expected --stage0_steps above 0, in which it is learnt from, received 0")

    def _check_limits(self, data: DatasetDescriptor) -> None:
        if not self.limits:
            return
        costs, rng, drawn = self.costs(data), np.random.default_rng(0), []
        for _ in range(_PROBES):
            drawn.append(costs(self.space.sample(rng)))
            if self.excess(drawn[-1]) is None:
                return
        limits = self.limits
        least = {name: min(getattr(cost, name) for cost in drawn) for name in limits}
        for name, limit in limits.items():
            if limit < least[name]:
                which = f"the least of {_PROBES:,} drawn networks"
                raise InputError(f"--max_{name}: expected {least[name]:,} ({which}) or more, received {limit:.10g}")
        given = " and ".join(f"{limit:.10g}" for limit in limits.values())
        names = ", ".join(f"--max_{name}" for name in limits)
        raise InputError(f"{names}: none of {_PROBES:,} drawn networks keeps both limits, received {given}")

    def make_sampler(self) -> BaseSampler:
        inner = super().make_sampler()
        if not self.limits or not isinstance(inner, SpaceSampler):
            return inner
        costs = self.costs(read_descriptor(self.dataset_dir))
        return Within(inner, lambda genotype: self.excess(costs(genotype)) is None)

    def make_task(self, data: DatasetDescriptor) -> TemplateTask:
        """The proxy task that the settings ask for; paths in it are absolute."""
        from nas_seg.template.encoder import TemplateEncoder
        from nas_seg.template_task import TemplateTask

        def absolute(path: str | None) -> str | None:
            return os.path.abspath(path) if path and os.path.exists(path) else path

        return TemplateTask(
            dataset_dir=os.path.abspath(self.dataset_dir),
            train_split=self.train_split,
            val_split=self.val_split,
            backbone=TemplateEncoder(self.encoder),
            backbone_weights=absolute(self.backbone_weights),
            size=self.size(data),
            views=self.cache_views,
            seed=self.seed,
            proxy=self.proxy(data),
            teacher=absolute(self.teacher),
        )

    def in_study(self, evaluator: Any, opened: Study) -> Evaluator:
        costs = self.costs(read_descriptor(self.dataset_dir))
        options = {"scored": functools.partial(self._scored, opened)} if self.early_rejection else {}

        def evaluate(genotype: TemplateGenotype, **arguments: Any) -> dict[str, float]:
            beyond = self.excess(costs(genotype))
            if beyond is not None:
                raise TrialStopped(beyond)
            return evaluator(genotype, **arguments, **options)

        return evaluate

    def _scored(self, opened: Study):
        from nas_seg.template.proxy import Scored

        trials = opened.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return Scored(Rejection(decay=self.rejection_decay), [trial.user_attrs[studies.METRICS] for trial in trials])


class Within(SpaceSampler):
    """The first draw of another sampler that is allowed; what is not never enters the study, nor counts as a trial.

    Args:
        inner: it draws as often as needed from one generator, so that a search that goes on draws the same.
        allowed: whether a genotype is.
    """

    def __init__(self, inner: SpaceSampler, allowed: Callable[[Any], bool]):
        super().__init__(inner.space, inner.seed)
        self._inner, self._allowed = inner, allowed

    def propose(self, rng: np.random.Generator, trials: list[FrozenTrial], study: Study) -> Any:
        for _ in range(_MOST_DRAWS):
            genotype = self._inner.propose(rng, trials, study)
            if self._allowed(genotype):
                break
        return genotype


def _check_teacher(path: str, data: DatasetDescriptor) -> None:
    """InputError for what is found wrong with a teacher without TensorFlow."""
    if not os.path.exists(path):
        raise InputError(f"--teacher: expected a run folder, a .keras file or a SavedModel, found no {path}")
    if not os.path.isfile(os.path.join(path, runs.CONFIG)):
        return
    model = runs.read_config(path).get("model")
    classes = model.get("num_classes") if isinstance(model, dict) else None
    if classes != data.num_classes:
        raise InputError(
            f"--teacher={path}: expected logits of the data set's {data.num_classes} classes, received {classes}"
        )
