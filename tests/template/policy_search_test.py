"""Tests the policy on tables whose optimum is known, and that it is a function of the trials."""

import dataclasses
import itertools
import math
import types

import numpy as np
import pytest
from table_problem import WordSpace, all_scores, evaluate

from nas_seg.search import samplers
from nas_seg.search.evaluator import TrialFailed
from nas_seg.search.loop import run_search
from nas_seg.search.study import open_study
from nas_seg.template import policy_search
from nas_seg.template.controller import MODES, Controller
from nas_seg.template.policy_search import ALGORITHMS, PPO, REINFORCE, PolicyConfig, PolicySampler
from nas_seg.template.space import TemplateSpace
from nas_seg.utils.errors import InputError

SPACE = WordSpace()
SETTINGS = list(itertools.product(ALGORITHMS, MODES))
HIDDEN = 16  # Where how well it learns is not the question.


def make_sampler(seed, **options):
    return policy_search.make_sampler("policy", SPACE, seed, **({"hidden": HIDDEN} | options))


def search(sampler, num_trials, evaluator=evaluate, storage=None):
    study = open_study(storage, "search", SPACE, sampler)
    run_search(study, SPACE, evaluator, num_trials=num_trials, seed=0)
    return study


def words(study):
    return ["".join(trial.params.values()) for trial in study.trials]


def scores(sampler, num_trials):
    """Rewards of a search without a database: the sampler is shown the trials as a study would show them."""
    trials, draw = {}, 0
    while len(trials) < num_trials:
        rng = np.random.default_rng([sampler.seed, draw])
        word, draw = sampler.propose(rng, list(trials.values()), None), draw + 1
        trial = types.SimpleNamespace(
            number=draw, datetime_complete=draw, params=SPACE.to_params(word), values=[evaluate(word, seed=0)["reward"]]
        )
        trials.setdefault(word, trial)
    return [trial.values[0] for trial in trials.values()]


@pytest.mark.parametrize(("algorithm", "mode"), SETTINGS)
def test_policy_beats_random_within_80_trials(algorithm, mode):
    seeds = range(4)
    policy = np.array([scores(PolicySampler(SPACE, seed, algorithm=algorithm, mode=mode), 80) for seed in seeds])
    random = np.array([scores(samplers.RandomSampler(SPACE, seed), 80) for seed in seeds])
    # The table's values have an sd of 0.76: means of 20 trials have one of 0.17, those of 80 one of 0.09.
    late, chance = policy[:, -20:].mean(1), random[:, -20:].mean(1)
    assert (late > chance).sum() >= 3
    assert late.mean() > chance.mean() + 0.4
    # The best of 80 random words has an sd of 0.3; of the mean of four differences it is 0.2.
    assert policy.max(1).mean() > random.max(1).mean() + 0.2


@pytest.mark.parametrize(("algorithm", "mode"), SETTINGS)
def test_sampler_made_anew_makes_the_proposals_of_one_that_was_there_from_the_start(algorithm, mode):
    options = {"algorithm": algorithm, "mode": mode, "buffer_size": 8, "batch_size": 3}
    whole = search(make_sampler(1, **options), 20)
    resumed = search(make_sampler(1, **options), 11)
    resumed.sampler = make_sampler(1, **options)
    run_search(resumed, SPACE, evaluate, num_trials=20, seed=0)
    assert words(resumed) == words(whole)
    assert words(search(make_sampler(2, **options), 5)) != words(whole)[:5]


def test_search_stopped_in_a_trial_goes_on_as_if_it_had_not_been(tmp_path):
    def stops(genotype, *, seed):
        if len(scored) == 2:
            raise KeyboardInterrupt
        scored.append(genotype)
        return evaluate(genotype, seed=seed)

    scored, storage = [], f"sqlite:///{tmp_path}/study.db"
    whole = search(make_sampler(1), 4)
    with pytest.raises(KeyboardInterrupt):
        search(make_sampler(1), 4, stops, storage)
    stopped = search(make_sampler(1), 4, storage=storage)
    done = [word for word, trial in zip(words(stopped), stopped.trials, strict=True) if trial.value is not None]
    assert done == words(whole)


def history(num_trials, seed=0):
    rng = np.random.default_rng(seed)
    vectors = [tuple(rng.integers(0, SPACE.num_choices).tolist()) for _ in range(num_trials)]
    return tuple((vector, float(all_scores()[vector])) for vector in vectors)


def same(a, b):
    return all(np.array_equal(a.weights[name], b.weights[name]) for name in a.weights)


def test_state_depends_on_the_trials_alone_whatever_was_asked_before():
    trials, sampler = history(14), PolicySampler(SPACE, 0, hidden=HIDDEN)
    fresh = PolicySampler(SPACE, 0, hidden=HIDDEN).state(trials)
    for part in (trials[:5], trials[:9] + trials[10:13], trials[:2], history(6, seed=1), trials):
        state = sampler.state(part)
    assert same(state, fresh)
    assert not same(state, sampler.state((*trials[1::-1], *trials[2:])))


def test_trials_already_learnt_from_are_not_learnt_from_again(monkeypatch):
    calls = []
    observe = policy_search.observe
    monkeypatch.setattr(policy_search, "observe", lambda *args: calls.append(args[3]) or observe(*args))
    trials, sampler = history(12), PolicySampler(SPACE, 0, hidden=HIDDEN)
    sampler.state(trials[:10])
    assert len(calls) == 10
    # A trial of another worker that ended earlier and came to light later: two are learnt from once more.
    sampler.state((*trials[:8], trials[11], *trials[8:10]))
    assert len(calls) == 13


def test_workers_learn_in_the_order_in_which_trials_ended():
    sampler = make_sampler(0)
    study = open_study(None, "search", SPACE, sampler)
    started = [study.ask(samplers.distributions(SPACE)) for _ in range(4)]
    for trial in (started[2], started[0], started[3]):
        study.tell(trial, float(trial.number))
    seen = []
    sampler.state = lambda trials: (
        seen.append([reward for _, reward in trials]) or policy_search.initial_state(sampler.controller, 0)
    )
    study.ask(samplers.distributions(SPACE))
    assert seen == [[2.0, 0.0, 3.0]]


def test_failed_trials_teach_nothing():
    def fails_at_a(genotype, *, seed):
        if genotype.letters.startswith("a"):
            raise TrialFailed("a")
        return evaluate(genotype, seed=seed)

    sampler, taught = make_sampler(0), []
    state = sampler.state
    sampler.state = lambda trials: taught.append(trials) or state(trials)
    study = search(sampler, 12, fails_at_a)
    assert any(word.startswith("a") for word in words(study))
    assert len(taught[-1]) == 11
    assert not any(vector[0] == 0 for vector, _ in taught[-1])
    assert 0.0 not in [reward for _, reward in taught[-1]]


def test_policy_that_knows_one_word_alone_goes_on_near_it():
    sampler = make_sampler(0)
    state = sampler.state(())
    favourite, weights = (3, 1, 4, 1, 5, 2), dict(state.weights)
    sampler.controller = dataclasses.replace(sampler.controller, heads=tuple(range(6)))
    weights["head_kernel"] = np.zeros((6, HIDDEN, 6), np.float32)
    weights["head_bias"] = 12.0 * np.eye(6, dtype=np.float32)[list(favourite)]
    weights["embedding"] = np.zeros((6, 6, HIDDEN), np.float32)
    sampler.state = lambda trials: dataclasses.replace(state, weights=weights)
    proposed = [SPACE.encode(word) for word in (_propose(sampler, []), _propose(sampler, [favourite]))]
    assert tuple(proposed[0]) == favourite
    # Odds of 160,000 to 1 for a letter are 20 to 1 at a temperature of 4.
    assert 1 <= (proposed[1] != favourite).sum() <= 3


def test_policy_proposes_no_network_that_is_scored_in_other_words():
    space = TemplateSpace(num_templates=2, num_layers=1)
    sampler = policy_search.make_sampler("policy", space, 0, hidden=HIDDEN)
    scored = space.encode(space.sample(np.random.default_rng(0)))
    at = space.names.index
    unused = 1 - scored[at("l0_template")]
    # As a policy draws that has settled on the layer; nothing reads the other template.
    drawn = np.tile(scored, (policy_search.DRAWS, 1))
    drawn[:, at(f"t{unused}_op1")] = np.arange(policy_search.DRAWS) % 6
    drawn[-1, at("l0_repeats")] = (scored[at("l0_repeats")] + 1) % 4
    sampler.controller = types.SimpleNamespace(sample=lambda *_: drawn)
    sampler.state = lambda _: types.SimpleNamespace(weights=None)
    trial = types.SimpleNamespace(
        number=0, datetime_complete=0, params=space.to_params(space.decode(scored)), values=[1.0]
    )
    proposed = space.encode(sampler.propose(np.random.default_rng(0), [trial], None))
    np.testing.assert_array_equal(proposed, drawn[-1])


def _propose(sampler, known):
    trials = [
        types.SimpleNamespace(number=0, datetime_complete=0, params=SPACE.to_params(SPACE.decode(word)), values=[1.0])
        for word in known
    ]
    return sampler.propose(np.random.default_rng(0), trials, None)


def test_baseline_starts_as_the_first_reward_and_takes_each_in_before_its_advantage():
    config = PolicyConfig(hidden=4, baseline_decay=0.75, normalize=False)
    controller = Controller.of(SPACE, config.mode, 4)
    state, rng = policy_search.initial_state(controller, 0), np.random.default_rng(0)
    first = policy_search.observe(controller, config, state, [0] * 6, 2.0, rng)
    assert first.baseline == 2.0
    second = policy_search.observe(controller, config, first, [1] * 6, 4.0, rng)
    assert second.baseline == 0.75 * 2.0 + 0.25 * 4.0
    np.testing.assert_allclose(policy_search.advantages(config, second.rewards, second.baseline), [-0.5, 1.5])
    scaled = policy_search.advantages(PolicyConfig(), second.rewards, second.baseline)
    np.testing.assert_allclose(scaled, [-0.5, 1.5])  # The rewards' standard deviation is 1.
    assert policy_search.advantages(PolicyConfig(), first.rewards, first.baseline) == [0.0]


def test_first_trial_teaches_nothing_without_an_entropy_bonus():
    config = PolicyConfig(hidden=4, entropy_weight=0.0)
    controller = Controller.of(SPACE, config.mode, 4)
    state = policy_search.initial_state(controller, 0)
    after = policy_search.observe(controller, config, state, [0] * 6, 2.0, np.random.default_rng(0))
    assert same(state, after)


def test_batches_of_ppo_take_every_trial_of_the_buffer_once_an_epoch():
    config = PolicyConfig(algorithm=PPO, epochs=3, batch_size=4)
    rows = policy_search.batches(config, 10, np.random.default_rng(0))
    assert [len(batch) for batch in rows] == [4, 4, 2] * 3
    for epoch in range(3):
        assert sorted(np.concatenate(rows[3 * epoch : 3 * epoch + 3])) == list(range(10))
    reinforce = policy_search.batches(dataclasses.replace(config, algorithm=REINFORCE), 10, np.random.default_rng(0))
    assert [batch.tolist() for batch in reinforce] == [[9]]


def test_buffer_holds_the_latest_trials_and_no_empty_places():
    config = PolicyConfig(hidden=4, buffer_size=3)
    controller = Controller.of(SPACE, config.mode, 4)
    state, rng = policy_search.initial_state(controller, 0), np.random.default_rng(0)
    for i in range(5):
        state = policy_search.observe(controller, config, state, [i] * 6, float(i), rng)
        assert len(state.vectors) == len(state.rewards) == len(state.log_probs) == min(i + 1, 3)
    assert state.rewards.tolist() == [2.0, 3.0, 4.0]
    assert state.vectors[:, 0].tolist() == [2, 3, 4]


def test_slopes_are_those_of_the_gains():
    rng = np.random.default_rng(0)
    old, advantage = rng.normal(size=50), rng.normal(size=50)
    log_probs = old + 0.3 * rng.normal(size=50)
    for algorithm in ALGORITHMS:
        config = PolicyConfig(algorithm=algorithm, clip=0.2)
        gains, slopes = policy_search.gains(config, log_probs, old, advantage)
        assert gains.shape == slopes.shape == (50,)
        up, down = (policy_search.gains(config, log_probs + d, old, advantage)[0] for d in (1e-6, -1e-6))
        np.testing.assert_allclose(slopes, (up - down) / 2e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("ratio", "advantage", "slope"),
    [(1.5, 1.0, 0.0), (1.5, -1.0, -1.5), (0.5, 1.0, 0.5), (0.5, -1.0, 0.0), (1.1, 2.0, 2.2), (0.9, -2.0, -1.8)],
)
def test_ppo_stops_where_the_policy_has_moved_far_enough(ratio, advantage, slope):
    log_probs, old = np.array([math.log(ratio)]), np.zeros(1)
    _, slopes = policy_search.gains(PolicyConfig(algorithm=PPO, clip=0.2), log_probs, old, np.array([advantage]))
    np.testing.assert_allclose(slopes, [slope])


@pytest.mark.parametrize("mode", MODES)
def test_expected_reinforce_gradient_is_that_of_the_expected_reward(mode):
    controller = Controller((2, 3, 2), (0, 1, 0), warmup_steps=1, mode=mode, hidden=4)
    rng = np.random.default_rng(5)
    weights = {name: 10.0 * value.astype(np.float64) for name, value in controller.initial(rng).items()}
    vectors = np.array(list(itertools.product(range(2), range(3), range(2))))
    reward, config = rng.normal(size=12), PolicyConfig(algorithm=REINFORCE)

    def expected_reward(weights):
        return np.exp(controller.evaluate(weights, vectors).log_probs) @ reward

    result = controller.evaluate(weights, vectors)
    probabilities = np.exp(result.log_probs)
    # A baseline changes nothing in the mean.
    _, slopes = policy_search.gains(config, result.log_probs, result.log_probs, reward - 0.7)
    gradient = result.pull_back(probabilities * slopes, np.zeros(12))
    direction = {name: rng.normal(size=value.shape) for name, value in weights.items()}
    up, down = (
        expected_reward({name: value + sign * 1e-5 * direction[name] for name, value in weights.items()})
        for sign in (1, -1)
    )
    along = sum(np.vdot(gradient[name], direction[name]) for name in weights)
    np.testing.assert_allclose(along, (up - down) / 2e-5, rtol=1e-6)


def test_adam_is_that_of_keras_with_a_bounded_norm():
    keras = pytest.importorskip("keras")
    config, rng = PolicyConfig(learning_rate=0.01, max_grad_norm=1.5), np.random.default_rng(0)
    state = policy_search.initial_state(Controller((2, 3), (0, 1), hidden=4), 0)
    variables = {name: keras.Variable(value) for name, value in state.weights.items()}
    adam = keras.optimizers.Adam(0.01, epsilon=1e-8, global_clipnorm=1.5)
    for size in (0.01, 1.0, 0.1):
        gradient = {n: size * rng.normal(size=v.shape).astype(np.float32) for n, v in state.weights.items()}
        state = policy_search.adam_step(config, state, gradient)
        adam.apply([keras.ops.convert_to_tensor(value) for value in gradient.values()], list(variables.values()))
    for name, value in state.weights.items():
        # Three steps of about 0.01 in float32, rounded otherwise: a ten-thousandth of a step.
        np.testing.assert_allclose(value, np.array(variables[name]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"algorithm": "pp"}, "unknown algorithm 'pp'.*Did you mean 'ppo'"),
        ({"mode": "seeing"}, "unknown mode 'seeing'"),
        ({"learning_rate": 0.0}, "learning_rate: expected a number above 0"),
        ({"clip": 1.0}, "clip: expected a number between 0 and 1"),
        ({"baseline_decay": 1.0}, "baseline_decay: expected a number from 0 to below 1"),
        ({"entropy_weight": float("nan")}, "entropy_weight: expected a number of at least 0"),
        ({"batch_size": 0}, "batch_size: expected an integer >= 1"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_options_are_named(options, expected):
    with pytest.raises(InputError, match=expected):
        policy_search.make_sampler("policy", SPACE, **({"seed": 0} | options))


def test_policy_stands_beside_the_samplers_of_every_search():
    assert set(policy_search.SAMPLERS) == {*samplers.SAMPLERS, "policy"}
    assert isinstance(policy_search.make_sampler("evolution", SPACE, 0), samplers.RegularizedEvolution)
    with pytest.raises(InputError, match="unknown sampler 'polcy'.*Did you mean 'policy'"):
        policy_search.make_sampler("polcy", SPACE, 0)
