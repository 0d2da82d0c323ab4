"""The proxy: learns, repeats itself under a seed, survives nothing silently."""

import numpy as np
import pytest

from nas_seg.core.feature_cache import FeatureCache
from nas_seg.dpc.genotype import DPCGenotype, count
from nas_seg.dpc.proxy import ProxyConfig, ProxyEvaluator
from nas_seg.search.evaluator import TrialFailed
from nas_seg.utils.errors import InputError

_CELL = DPCGenotype.from_list([{"op": "conv", "kernel": 3, "rate": [1, 1], "input": -1}])
_CONFIG = ProxyConfig(steps=30, batch_size=4, base_learning_rate=0.1, label_stride=1, filters=8)


def _cache(seed: int, count: int = 12) -> FeatureCache:
    """Features whose sign tells the class, with noise; a border of ignored labels."""
    random = np.random.default_rng(seed)
    classes = random.integers(0, 2, (count, 5, 7))
    features = random.normal(0, 0.3, (count, 5, 7, 6)) + (classes * 2 - 1)[..., None]
    labels = classes.repeat(4, 1).repeat(4, 2)
    labels[:, :2] = 255
    return FeatureCache(features.astype(np.float16), labels.astype(np.uint8))


def _evaluator(config=_CONFIG, **changes) -> ProxyEvaluator:
    return ProxyEvaluator(_cache(0), _cache(1), 2, 255, config=config, **changes)


def test_trial_learns_what_the_features_tell():
    metrics = _evaluator()(_CELL, seed=0)
    # The resize blurs the borders between 4-pixel blocks, so that 1 is out of reach; a guess would have 1/3.
    assert metrics["reward"] > 0.6
    assert metrics["pixel_accuracy"] > metrics["reward"]
    assert (metrics["params"], metrics["madds"]) == count(_CELL, 6, 5, 7, 8)


def test_class_ious_are_reported_by_name_and_average_to_the_reward():
    metrics = _evaluator(class_names=("low", "high"))(_CELL, seed=0)
    assert metrics["reward"] == pytest.approx((metrics["iou/low"] + metrics["iou/high"]) / 2)


def test_same_seed_gives_the_same_score_and_another_seed_another():
    evaluator = _evaluator()
    first, again, other = (evaluator(_CELL, seed=seed) for seed in (3, 3, 4))
    for name in ("reward", "loss", "pixel_accuracy"):
        assert first[name] == again[name]
    assert first["loss"] != other["loss"]


def test_divergence_is_a_failed_trial_with_its_reason():
    # A rate this high throws the weights out of float32 within a few steps.
    config = ProxyConfig(steps=30, batch_size=4, base_learning_rate=1e30, label_stride=1, filters=8)
    with pytest.raises(
        TrialFailed, match=r"diverged: (loss (nan|inf) at step \d+ of 30|.* is not finite after 30 steps)"
    ):
        _evaluator(config)(_CELL, seed=0)


def test_features_that_are_not_numbers_are_a_failed_trial_though_relu_hides_them():
    bad = _cache(0)
    features = np.full_like(bad.features, np.nan)
    evaluator = ProxyEvaluator(FeatureCache(features, bad.labels), _cache(1), 2, 255, config=_CONFIG)
    with pytest.raises(TrialFailed, match="diverged"):
        evaluator(_CELL, seed=0)


def test_batch_larger_than_the_cache_is_refused():
    with pytest.raises(InputError, match="batch_size: expected at most the 12 cached pictures"):
        _evaluator(ProxyConfig(batch_size=13))


@pytest.mark.parametrize("field", ["steps", "batch_size", "label_stride", "filters", "base_learning_rate"])
def test_impossible_configuration_is_refused_by_field(field):
    with pytest.raises(InputError, match=field):
        ProxyConfig(**{field: 0})
