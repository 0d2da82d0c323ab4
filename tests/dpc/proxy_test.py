"""The proxy: learns, repeats itself under a seed, survives nothing silently."""

import dataclasses

import keras
import numpy as np
import pytest

from nas_seg.core.feature_cache import FeatureCache
from nas_seg.dpc import proxy
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


def _corner_aligned(seed: int) -> FeatureCache:
    """The same at stride 8 with labels of 8 k + 1 pixels, whose every eighth lies on a position of the map."""
    cache = _cache(seed)
    labels = cache.labels.repeat(2, 1).repeat(2, 2)
    return FeatureCache(cache.features, labels[:, 4:37, 4:53].copy())


def _evaluator(config=_CONFIG, cache=_cache, **changes) -> ProxyEvaluator:
    stride = {"output_stride": 8} if cache is _corner_aligned else {}
    return ProxyEvaluator(cache(0), cache(1), 2, 255, config=config, **stride | changes)


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


def test_crop_of_the_whole_map_is_no_crop():
    whole, cropped = (
        _evaluator(dataclasses.replace(_CONFIG, crop_size=crop, steps=5), cache=_corner_aligned)
        for crop in (None, (33, 49))
    )
    for name in ("reward", "loss"):
        assert whole(_CELL, seed=1)[name] == cropped(_CELL, seed=1)[name]


def test_crops_cut_features_and_labels_at_the_same_place():
    cache = _corner_aligned(0)
    # Features that say where they are: the label of a position is 10 * row + column.
    rows, columns = np.mgrid[:5, :7]
    cache.features[..., 0], cache.features[..., 1] = rows, columns
    cache.labels[:, ::8, ::8] = 10 * rows + columns
    config = ProxyConfig(steps=6, batch_size=4, label_stride=8, crop_size=(17, 25))
    seen = set()
    for features, labels in proxy._batches(cache, config, proxy._window(config, 8), seed=0):
        assert features.shape == (4, 3, 4, 6) and labels.shape == (4, 3, 4)
        np.testing.assert_array_equal(10 * features[..., 0] + features[..., 1], labels)
        seen |= {int(label) for label in labels[:, 0, 0]}
    # 24 windows out of 3 x 4 places; seeing 3 places or fewer has a chance below 1e-10.
    assert len(seen) > 3


@pytest.mark.parametrize("crop", [(18, 25), (41, 25), (1, 25)])
def test_crop_beside_the_positions_of_the_map_is_refused(crop):
    with pytest.raises(InputError, match=r"crop_size: expected k \* 8 \+ 1"):
        _evaluator(dataclasses.replace(_CONFIG, crop_size=crop), cache=_corner_aligned)


def test_bfloat16_trial_computes_in_bfloat16_keeps_float32_weights_and_logits_and_learns_as_well():
    config = dataclasses.replace(_CONFIG, dtype_policy="mixed_bfloat16")
    evaluator = _evaluator(config)
    model, _ = evaluator.fit(evaluator.head(_CELL), seed=0)
    assert model.get_layer("dense_prediction_cell").compute_dtype == "bfloat16"
    assert {w.dtype for w in model.trainable_weights} == {"float32"} and model.outputs[0].dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"
    # Eight bits of mantissa move the score of this easy task by less than a twentieth.
    assert evaluator.measure(model, evaluator.val)["reward"] == pytest.approx(
        _evaluator()(_CELL, seed=0)["reward"], abs=0.05
    )


def test_unknown_dtype_policy_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="mixed_bfloat16"):
        ProxyConfig(dtype_policy="bfloat16")
