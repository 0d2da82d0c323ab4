"""A trial of a template network: learns in both stages, repeats itself, is traced once, survives nothing silently."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from nas_seg.core import backbones
from nas_seg.core.feature_cache import FeatureCache
from nas_seg.metrics import ConfusionMatrix
from nas_seg.search.evaluator import TrialFailed
from nas_seg.template import Layer, Template, TemplateGenotype, count, proxy
from nas_seg.template.encoder import TemplateEncoder
from nas_seg.template.proxy import STAGE0, STAGE1, Scored, TemplateProxyEvaluator
from nas_seg.template.proxy_config import TemplateProxyConfig
from nas_seg.template.proxy_training import Pictures
from nas_seg.template.rejection import Rejection
from nas_seg.utils.errors import InputError

_NETWORK = TemplateGenotype((Template("sep_conv_3x3", "skip_connect", "psum"),), (Layer(0, 1, 0),))
_CONFIG = TemplateProxyConfig(stage0_steps=40, stage1_steps=0, batch_size=4, agg_size=8, stage0_learning_rate=0.02)
_SIZE = (33, 49)


def _cache(seed: int, pictures: int = 8) -> FeatureCache:
    """Maps whose sign tells the class, with noise; a border of ignored labels."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 2, (pictures, 5, 7)).repeat(8, 1).repeat(8, 2)[:, : _SIZE[0], : _SIZE[1]]
    labels = classes.astype(np.uint8)
    maps = []
    for stride, channels in ((8, 32), (4, 24)):
        signs = classes[:, ::stride, ::stride, None] * 2 - 1
        maps.append((signs + rng.normal(0, 0.3, (*signs.shape[:3], channels))).astype(np.float16))
    labels[:, :2] = 255
    return FeatureCache(maps[0], labels, (maps[1],))


def _evaluator(config=_CONFIG, train=None, **options) -> TemplateProxyEvaluator:
    return TemplateProxyEvaluator(train or _cache(0), _cache(1), 2, 255, config, **options)


class _Keeping(TemplateProxyEvaluator):
    """Keeps the decoder of its last trial."""

    def _build(self, genotype):
        self.decoder = super()._build(genotype)
        return self.decoder


@pytest.fixture(scope="module")
def two_stages():
    """An evaluator with both stages, whose pictures are dark or bright."""
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, (8, 5, 7)).repeat(8, 1).repeat(8, 2)[:, : _SIZE[0], : _SIZE[1]].astype(np.uint8)
    images = np.repeat(labels[..., None] * 200.0 + 20, 3, -1).astype(np.float32)
    encoder_config = TemplateEncoder()
    keras.utils.set_random_seed(5)
    encoder = backbones.build_backbone(encoder_config, (4,))
    normalize = backbones.normalize(encoder_config)
    coarse, fine = (np.array(m).astype(np.float16) for m in encoder(normalize(images), training=False))
    cache = FeatureCache(coarse, labels, (fine,))
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).repeat().batch(4)
    pictures = Pictures(encoder, normalize, lambda seed: batches, lambda: (images[i : i + 4] for i in (0, 4)))
    config = dataclasses.replace(_CONFIG, stage0_steps=6, stage1_steps=4)
    return _Keeping(cache, cache, 2, 255, config, ("dark", "bright"), pictures)


def test_a_trial_learns_what_the_maps_tell_and_counts_what_it_trained():
    metrics = _evaluator()(_NETWORK, seed=0)
    # The resize blurs the borders between blocks, so that 1 is out of reach; a guess would have 1/3 to 1/2.
    assert metrics["reward"] > 0.7
    assert metrics["reward"] == metrics[STAGE0] and STAGE1 not in metrics and metrics["rejected"] == 0
    assert (metrics["params"], metrics["madds"]) == count(_NETWORK, 2, 8, 1, *_SIZE)
    assert metrics["trace_seconds"] > 0 and 0 < metrics["trace_share"] < 1


def test_same_seed_gives_the_same_score_and_another_seed_another():
    evaluator = _evaluator(dataclasses.replace(_CONFIG, stage0_steps=5))
    first, again, other = (evaluator(_NETWORK, seed=seed) for seed in (3, 3, 4))
    assert first["reward"] == again["reward"] and first["loss"] == again["loss"] != other["loss"]


def test_the_second_stage_trains_the_encoder_too_and_every_trial_begins_with_the_pretrained_one(two_stages):
    encoder = two_stages._encoder.pictures.encoder
    before = {v.path: v.numpy() for v in encoder.weights}
    first = two_stages(_NETWORK, seed=0)
    changed = {v.path for v in encoder.weights if not np.array_equal(v.numpy(), before[v.path])}
    # Statistics stay those that the maps were cached with.
    assert changed == {v.path for v in encoder.trainable_weights} and len(changed) < len(before)
    again = two_stages(_NETWORK, seed=0)
    assert first[STAGE0] == again[STAGE0] and first[STAGE1] == again[STAGE1] == first["reward"]
    assert first["loss"] == again["loss"]


def test_one_trace_serves_both_stages_and_the_encoders_are_made_once_in_a_search(two_stages):
    two_stages(_NETWORK, seed=0)
    first = two_stages.decoder
    two_stages(_NETWORK, seed=0)
    for decoder in (first, two_stages.decoder):
        assert decoder._step._function.experimental_get_tracing_count() == 1
        assert decoder._predict._function.experimental_get_tracing_count() == 1
    assert two_stages.decoder is not first
    for timed in (two_stages._encoder.forward, two_stages._encoder.backward, two_stages._encoder._predict):
        assert timed._function.experimental_get_tracing_count() == 1


def test_a_network_that_does_worse_than_others_did_is_spared_the_second_stage_and_its_reward_is_an_estimate(two_stages):
    history = [{STAGE0: 9.0, STAGE1: 9.5}, {STAGE0: 9.0, "rejected": 1.0}, {STAGE0: 9.0, STAGE1: 9.1}]
    rule = Rejection(decay=0.1)
    metrics = two_stages(_NETWORK, seed=0, scored=lambda: Scored(rule, history))
    assert metrics["rejected"] == 1 and STAGE1 not in metrics
    # The others gained 0.5 and 0.1 in the second stage.
    assert metrics["reward"] == pytest.approx(metrics[STAGE0] + 0.3)
    # Where nobody went through the second stage, there is nothing to estimate from, and nobody is rejected.
    alone = two_stages(_NETWORK, seed=0, scored=lambda: Scored(rule, history[1:2]))
    assert alone["rejected"] == 0 and alone["reward"] == alone[STAGE1]


@pytest.mark.parametrize(("score", "gain", "reward"), [(0.2, 0.3, 0.5), (0.2, -0.3, 0.0), (0.8, 0.3, 1.0)])
def test_an_estimated_reward_is_the_score_and_the_mean_gain_of_others_within_0_and_1(score, gain, reward):
    history = [{STAGE0: 0.5, STAGE1: 0.5 + gain + 0.1}, {STAGE0: 0.4}, {STAGE0: 0.5, STAGE1: 0.5 + gain - 0.1}]
    assert proxy.estimate(score, history) == pytest.approx(reward)


def test_the_reward_is_the_cube_root_of_three_scores_from_which_absent_classes_are_left_out():
    matrix = ConfusionMatrix(4, 255)
    # Of classes 0 and 1 alone, but 2 is predicted once; 3 is nowhere.
    matrix.update(np.array([0, 0, 0, 0, 1, 1, 255]), np.array([0, 0, 0, 1, 1, 2, 3]))
    ious = (3 / 4, 1 / 3, 0.0)
    miou, accuracy, weighted = sum(ious) / 3, (3 / 4 + 1 / 2) / 2, (4 * ious[0] + 2 * ious[1]) / 6
    scores = proxy.scores_of(matrix, ("a", "b", "c", "d"))
    assert scores["reward"] == pytest.approx((miou * accuracy * weighted) ** (1 / 3))
    assert [scores[name] for name in ("miou", "mean_accuracy", "fw_iou")] == pytest.approx([miou, accuracy, weighted])
    assert {name: scores[f"iou/{name}"] for name in "abc"} == pytest.approx(dict(zip("abc", ious, strict=True)))
    assert "iou/d" not in scores


def test_windows_cut_maps_labels_and_a_teachers_logits_at_the_same_place():
    cache = _cache(0)
    rows, columns = np.mgrid[: _SIZE[0], : _SIZE[1]]
    place = 64.0 * (rows // 4) + columns // 4
    cache.more[0][..., 0], cache.features[..., 0] = place[::4, ::4], place[::8, ::8]
    teacher = np.repeat(place[None, ::4, ::4, None], len(cache), 0).astype(np.float16)
    cache.labels[:] = rows // 4 * 16 + columns // 4
    cache = FeatureCache(cache.features, cache.labels, (*cache.more, teacher))
    config = dataclasses.replace(_CONFIG, stage0_steps=6, crop_size=(17, 25))
    corners = set()
    for fine, coarse, labels, logits in _evaluator(config, cache).batches(0):
        assert fine.shape[1:3] == (5, 7) and coarse.shape[1:3] == (3, 4) and labels.shape[1:] == (5, 7)
        np.testing.assert_array_equal(fine[:, ::2, ::2, 0], coarse[..., 0])
        np.testing.assert_array_equal(fine[..., 0], logits[..., 0])
        np.testing.assert_array_equal(fine[..., 0] // 64 * 16 + fine[..., 0] % 64, labels)
        corners |= {int(corner) for corner in labels[:, 0, 0]}
    # 24 windows out of 3 x 4 places; seeing 3 places or fewer has a chance below 1e-10.
    assert len(corners) > 3


def test_a_teacher_teaches_where_no_label_does():
    cache = _cache(0)
    labels = np.full_like(cache.labels, 255)
    wanted = cache.labels[:, ::4, ::4]
    logits = np.stack([wanted == 0, wanted != 0], -1) * 4.0 - 2.0
    taught = FeatureCache(cache.features, labels, (*cache.more, logits.astype(np.float16)))
    config = dataclasses.replace(_CONFIG, distillation=1.0)
    # Without it the labels that are all ignored leave the network as it was drawn.
    assert _evaluator(config, taught)(_NETWORK, seed=0)["reward"] > 0.7
    untaught = dataclasses.replace(config, distillation=0.0)
    assert _evaluator(untaught, taught)(_NETWORK, seed=0)["reward"] < 0.6


def test_losses_are_reported_at_tenths_of_both_stages(two_stages):
    told = []
    two_stages(_NETWORK, seed=0, report=lambda step, loss: told.append((step, loss)))
    assert [step for step, _ in told] == list(range(1, 10)) and all(np.isfinite(loss) for _, loss in told)


def test_divergence_is_a_failed_trial_with_its_reason():
    with pytest.raises(TrialFailed, match="diverged: "):
        _evaluator(dataclasses.replace(_CONFIG, stage0_steps=8, stage0_learning_rate=1e30))(_NETWORK, seed=0)
    bad = _cache(0)
    with pytest.raises(TrialFailed, match="diverged: loss nan"):
        _evaluator(train=FeatureCache(np.full_like(bad.features, np.nan), bad.labels, bad.more))(_NETWORK, seed=0)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"stage0_steps": 0, "stage1_steps": 0}, "stage0_steps, stage1_steps: expected a step in one of them"),
        ({"stage1_steps": -1}, "stage1_steps: expected at least 0, received -1"),
        ({"batch_size": 0}, "batch_size: expected at least 1"),
        ({"min_scale_factor": 2.0}, "min_scale_factor, max_scale_factor: expected 0 < min <= max, received 2.0, 1.5"),
        ({"encoder_learning_rate": 0.0}, "encoder_learning_rate: expected a number above 0"),
        ({"polyak_decay": 1.0}, r"polyak_decay: expected a number in \[0, 1\)"),
        ({"sep_repeats": 0}, "sep_repeats: expected at least 1"),
    ],
)
def test_impossible_configuration_is_refused_by_field(values, message):
    with pytest.raises(InputError, match=message):
        TemplateProxyConfig(**values)


def test_a_crop_beside_the_positions_of_the_map_and_a_batch_larger_than_the_cache_are_refused():
    for crop in ((18, 25), (41, 25), (1, 25)):
        with pytest.raises(InputError, match=r"crop_size: expected k \* 8 \+ 1, at most the pictures' 33,49"):
            _evaluator(dataclasses.replace(_CONFIG, crop_size=crop))
    with pytest.raises(InputError, match="batch_size: expected at most the 8 cached pictures, got 9"):
        _evaluator(dataclasses.replace(_CONFIG, batch_size=9))
