"""Padding to a good size changes nothing where none is needed, and keeps predictions in place."""

import numpy as np
import pytest
import tensorflow as tf

from nas_seg.core.backbones import BackboneConfig, normalize
from nas_seg.core.padding import padded_logits


class _Probe:
    """Stands for a model: returns its images and remembers them; with a layer "normalize" where one is given."""

    def __init__(self, normalize=None):
        self.layers = [normalize] if normalize else []
        self.seen = None

    def __call__(self, images, training):
        self.seen = images
        return images


@pytest.mark.parametrize("size, padded", [((360, 480), (385, 481)), ((33, 65), (33, 65)), ((1, 2), (1, 33))])
@pytest.mark.parametrize(
    "backbone, pixel",
    [(None, [127.5] * 3), ("xception_41", [127.5] * 3), ("resnet_v1_50", [123.15, 115.90, 103.06])],
)
def test_network_sees_sizes_of_32_k_plus_1_with_the_mean_pixel_beyond_the_image(size, padded, backbone, pixel):
    model = _Probe(backbone and normalize(BackboneConfig(backbone)))
    image = np.random.default_rng(0).uniform(0, 255, (1, *size, 3)).astype(np.float32)
    logits = padded_logits(model, image)
    assert tuple(model.seen.shape[1:3]) == padded
    # One subtraction and one addition of the mean pixel in float32.
    np.testing.assert_allclose(logits, image, atol=2e-5)
    seen = np.asarray(model.seen)
    for beyond in (seen[:, size[0] :], seen[:, :, size[1] :]):
        np.testing.assert_array_equal(beyond, np.broadcast_to(np.float32(pixel), beyond.shape))


def test_sizes_known_only_at_run_time_give_the_same():
    model = _Probe()
    run = tf.function(lambda x: padded_logits(model, x), input_signature=[tf.TensorSpec((1, None, None, 3))])
    image = np.random.default_rng(0).uniform(0, 255, (1, 40, 50, 3)).astype(np.float32)
    np.testing.assert_allclose(run(image), image, atol=2e-5)
