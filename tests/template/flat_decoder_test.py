"""The decoder of a trial is the decoder of a network, weight for weight: as drawn, in a step, and at inference."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from nas_seg.core import conv
from nas_seg.template import TemplateGenotype, TemplateSpace
from nas_seg.template.flat_decoder import FlatDecoder
from nas_seg.template.network import TemplateConfig, head

# All operations, both aggregations, strides in the first layers and outputs of several strides, the coarsest first.
_STRIDED = TemplateGenotype.from_lists(
    [
        [[4, 3, 1], [5, 4, 0], [2, 1, 0]],
        [[0, 1, 0, 2, 1], [1, 0, 1, 1, 1], [0, 2, 2, 0, 1], [1, 1, 0, 0, 0], [0, 0, 1, 3, 0]],
    ]
)
_CASES = [
    (_STRIDED, {"agg_size": 12, "sep_repeats": 2, "stride_rule": "peer"}),
    (_STRIDED, {"agg_size": 12, "sep_repeats": 2, "stride_rule": "once"}),
    *((TemplateSpace().sample(np.random.default_rng(i)), {"agg_size": 48, "sep_repeats": 1}) for i in range(4)),
]
_MOMENTUM, _CLASSES = 0.8, 5


def _both(genotype, options):
    """The Keras model and ours, drawn by the same seed, with our two vectors; maps and labels."""
    made = []
    for make in (_keras, lambda *_: _flat(genotype, options)):
        keras.utils.set_random_seed(7)
        made.append(make(genotype, options))
    rng = np.random.default_rng(3)
    # Odd and even sizes, for strides round up; large enough that no statistics are of a few values, mostly noise.
    maps = [rng.normal(size=(4, h, w, c)).astype(np.float32) for h, w, c in ((51, 66, 24), (26, 33, 32))]
    return *made, [tf.constant(m) for m in maps]


def _keras(genotype, options):
    inputs = [keras.Input((None, None, channels)) for channels in (24, 32)]
    model = keras.Model(inputs, head(TemplateConfig(genotype, **options), _CLASSES, inputs))
    conv.set_batch_norm(model, max_momentum=_MOMENTUM)
    return model


def _flat(genotype, options):
    decoder = FlatDecoder(genotype, _CLASSES, **options, momentum=_MOMENTUM)
    return decoder, *(tf.constant(vector) for vector in decoder.initial())


def _assert_near(ours, theirs, share):
    """Within a share of the largest number: of sums in another order each is off by a little of the whole."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= share * max(1.0, np.abs(theirs).max())


@pytest.mark.parametrize("genotype, options", _CASES)
def test_a_decoder_as_vectors_is_the_one_of_layers(genotype, options):
    model, (decoder, weights, statistics), maps = _both(genotype, options)
    drawn = decoder.named(weights, statistics)
    theirs = {v.path: v.numpy() for v in model.weights}
    assert drawn.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(drawn[name], value, err_msg=name)
    decayed = decoder.named(decoder.decay(0.5), np.zeros(statistics.shape))
    kernels = {kernel.path for kernel in conv.regularized_kernels(model)}
    assert {name for name, value in decayed.items() if np.all(value == 0.5)} == kernels
    assert all(np.all(value == 0) for name, value in decayed.items() if name not in kernels)

    with tf.GradientTape(persistent=True) as tape:
        tape.watch([weights, *maps])
        logits, after = decoder.train(weights, statistics, maps)
        expected = model(maps, training=True)
        # A weight for each logit, for the sum of normalised values has no gradient.
        slopes = tf.constant(np.random.default_rng(0).normal(size=expected.shape), tf.float32)
        ours, others = (tf.reduce_mean(slopes * values) for values in (logits, expected))
    _assert_near(logits, expected, 1e-4)
    variables = [v.value for v in model.trainable_variables]
    of_weights, *of_maps = tape.gradient(ours, [weights, *maps])
    *of_variables, of_fine, of_coarse = tape.gradient(others, [*variables, *maps])
    mine = decoder.named(of_weights, after)
    largest = max(float(tf.reduce_max(tf.abs(gradient))) for gradient in of_variables)
    for variable, gradient in zip(model.trainable_variables, of_variables, strict=True):
        error = np.abs(mine[variable.path] - gradient).max() / largest
        assert error < 1e-4, (variable.path, error)
    for one, other in zip(of_maps, (of_fine, of_coarse), strict=True):
        _assert_near(one / largest, other / largest, 1e-4)
    for variable in model.non_trainable_variables:
        _assert_near(mine[variable.path], variable.numpy(), 1e-4)
    _assert_near(decoder.predict(weights, after, maps), model(maps, training=False), 1e-4)
