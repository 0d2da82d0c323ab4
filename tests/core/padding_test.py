"""Padding to a good size changes nothing where none is needed, and keeps predictions in place."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from nas_seg.core.padding import padded_logits


def _probe():
    """A model that returns its input, and remembers the sizes that it saw."""
    seen = []
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.Rescaling(1.0)(inputs))
    return model, seen, lambda x, training: seen.append(x) or model(x, training=training)


@pytest.mark.parametrize("size, padded", [((360, 480), (385, 481)), ((33, 65), (33, 65)), ((1, 2), (1, 33))])
def test_network_sees_sizes_of_32_k_plus_1_with_the_mean_pixel_beyond_the_image(size, padded):
    _, seen, model = _probe()
    image = np.random.default_rng(0).uniform(0, 255, (1, *size, 3)).astype(np.float32)
    logits = padded_logits(model, image)
    assert tuple(seen[0].shape[1:3]) == padded
    # One subtraction and one addition of 127.5 in float32.
    np.testing.assert_allclose(logits, image, atol=2e-5)
    np.testing.assert_array_equal(np.asarray(seen[0])[:, size[0] :], 127.5)
    np.testing.assert_array_equal(np.asarray(seen[0])[:, :, size[1] :], 127.5)


def test_sizes_known_only_at_run_time_give_the_same():
    model, _, _ = _probe()
    run = tf.function(lambda x: padded_logits(model, x), input_signature=[tf.TensorSpec((1, None, None, 3))])
    image = np.random.default_rng(0).uniform(0, 255, (1, 40, 50, 3)).astype(np.float32)
    np.testing.assert_allclose(run(image), image, atol=2e-5)
