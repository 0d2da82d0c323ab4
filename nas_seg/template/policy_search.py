"""The policy as a sampler: a controller that learns by REINFORCE or PPO from the scored trials of a study.

What the policy knows is a function of the search's seed and the scored trials in the order in which they ended: the
trials are the whole record, and a search that goes on, or another worker of it, learns from them anew.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from nas_seg.search import samplers
from nas_seg.search.space import SearchSpace
from nas_seg.template.controller import AUTOREGRESSIVE, HIDDEN, MODES, Controller, Weights
from nas_seg.utils.errors import InputError, unknown

PPO, REINFORCE = ALGORITHMS = ("ppo", "reinforce")
# A proposal is the first of so many draws that the study has not scored. A policy all of whose draws are known is asked
# for as many at the next temperature: so near the best it found the search goes on. Last comes a uniform draw.
DRAWS, TEMPERATURES = 12, (1.0, 2.0, 4.0, 8.0)
# States kept to go on from: more than one, for trials of several workers may come to light out of order.
_KEPT_STATES = 8
_MOST_LOG_RATIO = 60.0  # No ratio of probabilities overflows.
_ADAM_DECAYS, _ADAM_EPSILON = (0.9, 0.999), 1e-8


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
    """How a policy learns. The defaults are for searches of about a hundred trials; README.md says what was tried.

    Attributes:
        algorithm: of `ALGORITHMS`. REINFORCE (Williams 1992) makes one step on each new trial; PPO (Schulman et al.
            2017, eq. 7) goes through the latest trials again after each.
        mode, hidden: of the controller.
        learning_rate: of Adam.
        entropy_weight: of the entropy, in nats, beside the advantage.
        baseline_decay: the baseline is an exponential moving average of the rewards, the first of which it starts as;
            it takes a reward in before that reward's advantage is computed.
        normalize: divide advantages by the standard deviation of the latest rewards.
        max_grad_norm: gradients of a greater norm, over all weights, are scaled down to it.
        buffer_size: how many of the latest trials PPO learns from, and rewards are normalised by.
        clip: of PPO, how far a ratio of probabilities may leave 1.
        epochs: of PPO, how often each trial of the buffer is gone through after a new one.
        batch_size: of PPO, trials in a step.
    """

    algorithm: str = REINFORCE
    mode: str = AUTOREGRESSIVE
    hidden: int = HIDDEN
    learning_rate: float = 0.005
    entropy_weight: float = 0.01
    baseline_decay: float = 0.95
    normalize: bool = True
    max_grad_norm: float = 2.0
    buffer_size: int = 100
    clip: float = 0.5
    epochs: int = 1
    batch_size: int = 10

    def __post_init__(self):
        for name, known in (("algorithm", ALGORITHMS), ("mode", MODES)):
            if getattr(self, name) not in known:
                raise unknown(name, getattr(self, name), known)
        for name in ("hidden", "buffer_size", "epochs", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"{name}: expected an integer >= 1, received {value!r}")
        for name, right, words in (
            ("learning_rate", lambda x: x > 0, "a number above 0"),
            ("max_grad_norm", lambda x: x > 0, "a number above 0"),
            ("entropy_weight", lambda x: x >= 0, "a number of at least 0"),
            ("clip", lambda x: 0 < x < 1, "a number between 0 and 1"),
            ("baseline_decay", lambda x: 0 <= x < 1, "a number from 0 to below 1"),
        ):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not math.isfinite(value) or not right(value):
                raise InputError(f"{name}: expected {words}, received {value!r}")


@dataclasses.dataclass(frozen=True)
class PolicyState:
    """What a policy is after some trials. Nothing is ever written into it.

    Attributes:
        weights: of the controller.
        means, squares: Adam's moments of the gradient, like the weights.
        num_steps: of Adam.
        baseline: None before the first trial.
        vectors: [k, n] int, the latest trials, no more than the buffer holds.
        rewards: [k].
        log_probs: [k], of the vectors at the time they were learnt from first.
    """

    weights: Weights
    means: Weights
    squares: Weights
    num_steps: int
    baseline: float | None
    vectors: np.ndarray
    rewards: np.ndarray
    log_probs: np.ndarray


def initial_state(controller: Controller, seed: int) -> PolicyState:
    """A policy that has seen nothing."""
    weights = controller.initial(np.random.default_rng([seed, 0, 2]))  # Not a stream of the proposals, [seed, draw].
    zeros = {name: np.zeros_like(value) for name, value in weights.items()}
    vectors = np.zeros((0, len(controller.num_choices)), np.int64)
    return PolicyState(weights, zeros, zeros, 0, None, vectors, np.zeros(0), np.zeros(0))


def observe(
    controller: Controller,
    config: PolicyConfig,
    state: PolicyState,
    vector: Sequence[int],
    reward: float,
    rng: np.random.Generator,
) -> PolicyState:
    """The policy after one more trial; `rng` orders the mini-batches."""
    size, decay = config.buffer_size, config.baseline_decay
    log_prob = controller.evaluate(state.weights, [vector]).log_probs
    baseline = reward if state.baseline is None else decay * state.baseline + (1.0 - decay) * reward
    state = dataclasses.replace(
        state,
        baseline=baseline,
        vectors=np.concatenate([state.vectors, [vector]])[-size:],
        rewards=np.append(state.rewards, reward)[-size:],
        log_probs=np.append(state.log_probs, log_prob)[-size:],
    )
    advantage = advantages(config, state.rewards, baseline)
    for rows in batches(config, len(state.rewards), rng):
        evaluation = controller.evaluate(state.weights, state.vectors[rows])
        _, slopes = gains(config, evaluation.log_probs, state.log_probs[rows], advantage[rows])
        # Adam goes down, and what is to grow is the mean of gains and weighted entropies.
        d_log_probs = -slopes / len(rows)
        d_entropies = np.full(len(rows), -config.entropy_weight / len(rows))
        state = adam_step(config, state, evaluation.pull_back(d_log_probs, d_entropies))
    return state


def gains(
    config: PolicyConfig, log_probs: np.ndarray, old: np.ndarray, advantage: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What each vector adds to the goal of a step, and the slope of that in its log-probability; all [B].

    Args:
        config: REINFORCE: advantage times log-probability, whose expected gradient is that of the expected reward.
            PPO: eq. 7 of its paper.
        log_probs: of the vectors under the policy.
        old: at the time they were learnt from first.
        advantage: of the vectors.
    """
    if config.algorithm == REINFORCE:
        return advantage * log_probs, advantage
    ratio = np.exp(np.minimum(log_probs - old, _MOST_LOG_RATIO))
    free, clipped = ratio * advantage, np.clip(ratio, 1.0 - config.clip, 1.0 + config.clip) * advantage
    return np.minimum(free, clipped), np.where(free <= clipped, free, 0.0)


def adam_step(config: PolicyConfig, state: PolicyState, gradient: Weights) -> PolicyState:
    """A step of Adam (Kingma and Ba 2015, algorithm 1) down a gradient whose norm is bounded."""
    norm = math.sqrt(sum(float(np.vdot(value, value)) for value in gradient.values()))
    factor = min(1.0, config.max_grad_norm / norm) if norm else 1.0
    first, second = _ADAM_DECAYS
    step = state.num_steps + 1
    rate = config.learning_rate * math.sqrt(1.0 - second**step) / (1.0 - first**step)
    weights, means, squares = {}, {}, {}
    for name, value in gradient.items():
        value = value * factor
        means[name] = first * state.means[name] + (1.0 - first) * value
        squares[name] = second * state.squares[name] + (1.0 - second) * value**2
        weights[name] = state.weights[name] - rate * means[name] / (np.sqrt(squares[name]) + _ADAM_EPSILON)
    return dataclasses.replace(state, weights=weights, means=means, squares=squares, num_steps=step)


def advantages(config: PolicyConfig, rewards: np.ndarray, baseline: float) -> np.ndarray:
    """How much better than the baseline each of the latest rewards is."""
    spread = rewards.std() if config.normalize else 1.0
    return (rewards - baseline) / (spread or 1.0)


def batches(config: PolicyConfig, num_trials: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Which trials of the buffer each step takes.

    Args:
        config: PPO takes all trials, `epochs` times in a new order; REINFORCE the latest one alone.
        num_trials: in the buffer.
        rng: of the orders.
    """
    if config.algorithm == REINFORCE:
        return [np.array([num_trials - 1])]
    orders = [rng.permutation(num_trials) for _ in range(config.epochs)]
    return [order[i : i + config.batch_size] for order in orders for i in range(0, num_trials, config.batch_size)]


class PolicySampler(samplers.SpaceSampler):
    """Proposes what the policy draws; it learns from the first objective of the scored trials, the reward.

    Failed trials, and those that were stopped early or had been scored before, teach nothing. Trials of other
    samplers teach as the policy's own do: their log-probabilities under the policy are taken when it learns from them.

    Args:
        space: what to draw from.
        seed: of the initial weights, of the order of mini-batches and of the proposals.
        options: fields of `PolicyConfig`.
    """

    def __init__(self, space: SearchSpace, seed: int, **options: Any):
        super().__init__(space, seed)
        self.config = PolicyConfig(**options)
        if "epochs" in options and self.config.algorithm != PPO:
            raise InputError(f"epochs: an option of the algorithm {PPO!r}, received {self.config.algorithm!r}")
        self.controller = Controller.of(space, self.config.mode, self.config.hidden)
        self._known: list[tuple[tuple, PolicyState]] = []
        self._identities: dict[tuple[int, ...], Any] = {}

    def propose(self, rng: np.random.Generator, trials: list[FrozenTrial], study: Study) -> Any:
        ended = sorted(trials, key=lambda trial: (trial.datetime_complete, trial.number))
        history = tuple((self._vector(trial), float(trial.values[0])) for trial in ended)
        # One network may be written in several ways, and the study refuses each of them.
        scored = [self._identity(vector) for vector, _ in history]
        weights = self.state(history).weights
        for temperature in TEMPERATURES:
            for vector in self.controller.sample(weights, rng, DRAWS, temperature).tolist():
                if self._identity(tuple(vector)) not in scored:
                    return self.space.decode(vector)
        return self.space.sample(rng)

    def state(self, history: tuple[tuple[tuple[int, ...], float], ...]) -> PolicyState:
        """The policy after trials, given as (vector, reward) in the order in which they ended."""
        self._known = [(past, state) for past, state in self._known if history[: len(past)] == past]
        past, state = self._known[-1] if self._known else ((), initial_state(self.controller, self.seed))
        for i in range(len(past), len(history)):
            rng = np.random.default_rng([self.seed, i, 1])
            state = observe(self.controller, self.config, state, *history[i], rng)
            self._known = [*self._known, (history[: i + 1], state)][-_KEPT_STATES:]
        return state

    def _identity(self, vector: tuple[int, ...]) -> Any:
        if vector not in self._identities:
            self._identities[vector] = self.space.identity(self.space.to_params(self.space.decode(vector)))
        return self._identities[vector]

    def _vector(self, trial: FrozenTrial) -> tuple[int, ...]:
        names = zip(self.space.names, self.space.labels, strict=True)
        return tuple(labels.index(trial.params[name]) for name, labels in names)


# Of any search by name: those of `nas_seg.search`, which knows no papers, and the policy.
SAMPLERS: dict[str, Callable[..., BaseSampler]] = {**samplers.SAMPLERS, "policy": PolicySampler}
make_sampler = functools.partial(samplers.make_sampler, table=SAMPLERS)
