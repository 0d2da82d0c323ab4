"""Who proposes the next genotype: samplers for an Optuna study over a `SearchSpace`.

A proposal is a pure function of the seed, the number of the draw and the finished trials, so that a search
that was stopped and resumed makes the proposals of one that was not.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nas_seg.search.space import SearchSpace
from nas_seg.utils.errors import InputError, unknown

# A trial that repeats a stopped one carries the number of the draw it repeats.
DRAW = "draw"


def distributions(space: SearchSpace) -> dict[str, CategoricalDistribution]:
    """The parameters of a trial: a flat categorical of labels for each decision."""
    return {name: CategoricalDistribution(labels) for name, labels in zip(space.names, space.labels, strict=True)}


def draw_number(study: Study, trial: FrozenTrial) -> int:
    """Which draw of the search a trial is: its number, were no stopped trial ever repeated."""
    if DRAW in trial.user_attrs:
        return trial.user_attrs[DRAW]
    trials = study.get_trials(deepcopy=False)
    return sum(other.number < trial.number and DRAW not in other.user_attrs for other in trials)


def ranking(trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> list[FrozenTrial]:
    """The trials from the best down: by how many others dominate each, then by the first objective, then by age.

    With one objective this is the order of its values.
    """
    sign = 1.0 if directions[0] == StudyDirection.MAXIMIZE else -1.0
    keyed = [(n, -sign * t.values[0], t.number, t) for n, t in zip(dominators(trials, directions), trials, strict=True)]
    return [item[-1] for item in sorted(keyed, key=lambda item: item[:-1])]


def dominators(trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> list[int]:
    """How many others dominate each scored trial: are at least as good in all objectives and better in one."""
    if not trials:
        return []
    signs = np.array([1.0 if d == StudyDirection.MAXIMIZE else -1.0 for d in directions])
    values = np.array([trial.values for trial in trials]) * signs
    if values.shape[1] == 1:
        ordered = np.sort(values[:, 0])
        return (len(values) - np.searchsorted(ordered, values[:, 0], side="right")).tolist()
    as_good = (values[:, None] >= values[None]).all(-1)
    better = (values[:, None] > values[None]).any(-1)
    return (as_good & better).sum(0).tolist()


class SpaceSampler(BaseSampler):
    """A sampler that proposes whole genotypes of a space; a subclass says how in `propose`."""

    def __init__(self, space: SearchSpace, seed: int):
        self.space = space
        self.seed = _at_least("seed", seed, 0)

    @abc.abstractmethod
    def propose(self, rng: np.random.Generator, trials: list[FrozenTrial], study: Study) -> Any:
        """The next genotype.

        Args:
            rng: seeded by the search's seed and the number of the draw.
            trials: the scored trials, oldest first.
            study: for the directions of its objectives.
        """

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return distributions(self.space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, str]:
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        scored = sorted((t for t in trials if set(t.params) == set(search_space)), key=lambda t: t.number)
        rng = np.random.default_rng([self.seed, draw_number(study, trial)])
        return self.space.to_params(self.propose(rng, scored, study))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise InputError(f"{param_name!r} is not a decision of the space {self.space.KIND!r}")


class RandomSampler(SpaceSampler):
    """Every genotype of the space with the same probability."""

    def propose(self, rng: np.random.Generator, trials: list[FrozenTrial], study: Study) -> Any:
        return self.space.sample(rng)


class NearBest(SpaceSampler):
    """The DPC paper's policy: in part uniform, in part near the best cells seen so far.

    Args:
        space: what to draw from.
        seed: of the proposals.
        fraction: probability of a uniform draw; the paper's half.
        pool: a near draw starts at one of this many best trials, each as likely.
        num_mutations: how often a near draw changes one decision of its start.
    """

    def __init__(self, space: SearchSpace, seed: int, fraction: float = 0.5, pool: int = 5, num_mutations: int = 1):
        super().__init__(space, seed)
        if not 0.0 <= fraction <= 1.0:
            raise InputError(f"fraction: expected a number from 0 to 1, received {fraction!r}")
        self.fraction = fraction
        self.pool = _at_least("pool", pool, 1)
        self.num_mutations = _at_least("num_mutations", num_mutations, 1)

    def propose(self, rng: np.random.Generator, trials: list[FrozenTrial], study: Study) -> Any:
        if rng.random() < self.fraction or not trials:
            return self.space.sample(rng)
        best = ranking(trials, study.directions)[: self.pool]
        genotype = self.space.from_params(best[rng.integers(len(best))].params)
        for _ in range(self.num_mutations):
            genotype = self.space.mutate(genotype, rng)
        return genotype


class RegularizedEvolution(SpaceSampler):
    """Ageing evolution (Real et al., AAAI 2019): the best of a few from the youngest `population`, mutated once.

    Args:
        space: what to draw from.
        seed: of the proposals.
        population: how many of the youngest scored trials are alive; the first ones are uniform.
        sample_size: how many of them compete to be the parent, drawn without replacement.
    """

    def __init__(self, space: SearchSpace, seed: int, population: int = 20, sample_size: int = 5):
        super().__init__(space, seed)
        self.population = _at_least("population", population, 1)
        self.sample_size = _at_least("sample_size", sample_size, 1)
        if sample_size > population:
            raise InputError(f"sample_size: expected at most the population of {population}, received {sample_size}")

    def propose(self, rng: np.random.Generator, trials: list[FrozenTrial], study: Study) -> Any:
        if len(trials) < self.population:
            return self.space.sample(rng)
        alive = trials[-self.population :]
        rivals = [alive[i] for i in rng.choice(len(alive), self.sample_size, replace=False)]
        parent = ranking(rivals, study.directions)[0]
        return self.space.mutate(self.space.from_params(parent.params), rng)


class Reseeded(BaseSampler):
    """One of Optuna's own samplers, made anew for every trial with a seed of its own.

    Optuna seeds its generator once in a process: a resumed search would repeat the draws of the first one.

    Args:
        make: a sampler from a seed; it must keep no memory but the study.
        seed: of the search.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int):
        self._make = make
        self._seed = _at_least("seed", seed, 0)
        self._sampler = make(seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        words = np.random.SeedSequence([self._seed, draw_number(study, trial)]).generate_state(1)
        self._sampler = self._make(int(words[0]))
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)


def _tpe(space: SearchSpace, seed: int, **options: Any) -> BaseSampler:
    return Reseeded(lambda s: optuna.samplers.TPESampler(seed=s, **options), seed)


def _nsga2(space: SearchSpace, seed: int, **options: Any) -> BaseSampler:
    return Reseeded(lambda s: optuna.samplers.NSGAIISampler(seed=s, **options), seed)


SAMPLERS: dict[str, Callable[..., BaseSampler]] = {
    "random": RandomSampler,
    "near_best": NearBest,
    "evolution": RegularizedEvolution,
    "tpe": _tpe,
    "nsga2": _nsga2,
}


def make_sampler(
    name: str, space: SearchSpace, seed: int, *, table: Mapping[str, Callable[..., BaseSampler]] = SAMPLERS, **options
) -> BaseSampler:
    """A sampler by name.

    Args:
        name: in the table.
        space: what to draw from.
        seed: of the proposals.
        table: of the samplers to choose from; a search that knows more of them than this module passes its own.
        options: the further arguments of the sampler's class.
    """
    if name not in table:
        raise unknown("sampler", name, table)
    return table[name](space, seed, **options)


def _at_least(name: str, value: int, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{name}: expected an integer >= {least}, received {value!r}")
    return value
