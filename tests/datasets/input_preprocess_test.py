import numpy as np
import pytest
import tensorflow as tf
from small_data import coded_picture

from nas_seg.datasets import preprocess_utils as ops
from nas_seg.datasets.input_preprocess import Augmentation, augment
from nas_seg.utils.errors import InputError

IGNORE = 255


@tf.function(reduce_retracing=True)
def draw(image, label, seed):
    return augment(image, label, seed, crop_size=(33, 41), ignore_label=IGNORE, augmentation=Augmentation())


def pictures(sizes=((24, 30), (60, 90), (33, 41))):
    rng = np.random.default_rng(0)
    return [coded_picture(rng, *size) for size in sizes]


def test_crops_have_the_size_and_types_promised():
    for image, label in pictures():
        for i in range(10):
            crop, crop_label = draw(image, label, tf.constant([0, i]))
            assert (crop.shape, crop.dtype) == ((33, 41, 3), tf.float32)
            assert (crop_label.shape, crop_label.dtype) == ((33, 41), tf.int32)
            assert 0 <= crop.numpy().min() <= crop.numpy().max() <= 255


def test_padding_is_the_mean_pixel_and_ignored():
    image, label = pictures()[0]
    for i in range(20):
        crop, crop_label = (x.numpy() for x in draw(image, label, tf.constant([1, i])))
        # Mixtures of 0, 50, 100 and 150 can be 127.5 too, but no label within the picture is the ignored one.
        assert (crop[crop_label == IGNORE] == 127.5).all()
        inside = crop_label != IGNORE
        rows, columns = inside.any(1).sum(), inside.any(0).sum()
        assert inside.sum() == rows * columns
        assert inside[:rows].any() and not inside[rows:].any()


def test_labels_follow_their_pixels():
    """Each channel is 50 times the label: resizes, crops and flips of both must agree away from borders of blocks."""
    agreeing = total = 0
    for image, label in pictures():
        for i in range(20):
            crop, crop_label = (x.numpy() for x in draw(image, label, tf.constant([2, i])))
            inside = crop_label != IGNORE
            # The nearest of four pixels has a quarter of the weight at least; they differ by 150 at most.
            assert np.abs(crop[..., 0] - 50 * crop_label)[inside].max() <= 0.75 * 150 + 1e-2
            agreeing += (np.abs(crop[..., 0] - 50 * crop_label)[inside] < 1e-2).sum()
            total += inside.sum()
    assert agreeing / total > 0.3


def test_the_fast_order_equals_scaling_the_whole_picture_and_cropping_then():
    """With all draws taken from the same seeds, written out in the original order."""
    for image, label in pictures():
        for i in range(12):
            seed = tf.constant([3, i])
            fast, fast_label = draw(image, label, seed)
            scale_seed, offset_seed, flip_seed = tf.unstack(tf.random.split(seed, 3))
            size = ops.scaled_size(tf.constant(label.shape), ops.random_scale(scale_seed, 0.5, 2.0, 0.25))
            whole, whole_label = ops.resize_image(image, size), ops.resize_label(label, size)
            padded = tf.maximum(size, (33, 41)).numpy().tolist()
            whole = ops.pad_to(whole, padded, 127.5)
            whole_label = ops.pad_to(whole_label, padded, IGNORE)
            top, left = ops.random_offset(offset_seed, tf.constant(padded), (33, 41)).numpy()
            whole, whole_label = whole[top : top + 33, left : left + 41], whole_label[top : top + 33, left : left + 41]
            if tf.random.stateless_uniform([], flip_seed) < 0.5:
                whole, whole_label = whole[:, ::-1], whole_label[:, ::-1]
            # Float32 rounding of places and mixtures of 0..255.
            np.testing.assert_allclose(fast, whole, rtol=0, atol=2e-3)
            np.testing.assert_array_equal(fast_label, whole_label)


def test_equal_seeds_draw_equal_crops_and_others_do_not():
    image, label = pictures()[1]
    first, again, other = (draw(image, label, tf.constant(seed))[0].numpy() for seed in ([4, 1], [4, 1], [4, 2]))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_the_global_seed_changes_nothing():
    image, label = pictures()[1]
    crops = []
    for seed in (1, 2):
        tf.random.set_seed(seed)
        kwargs = {"crop_size": (33, 41), "ignore_label": IGNORE, "augmentation": Augmentation()}
        crops.append(augment(image, label, tf.constant([5, 5]), **kwargs)[0].numpy())
    np.testing.assert_array_equal(*crops)


def test_without_augmentation_the_crop_is_the_picture():
    image, label = pictures()[2]
    still = Augmentation(min_scale_factor=1, max_scale_factor=1, flip=False)
    crop, crop_label = augment(
        image, label, tf.constant([0, 0]), crop_size=(33, 41), ignore_label=IGNORE, augmentation=still
    )
    np.testing.assert_array_equal(crop, image.astype(np.float32))
    np.testing.assert_array_equal(crop_label, label)


def test_a_base_size_is_what_scale_one_means():
    image, label = pictures()[1]
    still = Augmentation(min_scale_factor=1, max_scale_factor=1, flip=False)
    crop, crop_label = augment(
        image,
        label,
        tf.constant([0, 0]),
        crop_size=(20, 30),
        ignore_label=IGNORE,
        augmentation=still,
        base_size=(20, 30),
    )
    np.testing.assert_allclose(crop, ops.resize_image(image, (20, 30)), rtol=0, atol=1e-3)
    np.testing.assert_array_equal(crop_label, ops.resize_label(label, (20, 30)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_scale_factor": 0.0}, "expected 0 < min <= max, received 0.0, 2.0"),
        ({"min_scale_factor": 3.0}, "expected 0 < min <= max, received 3.0, 2.0"),
        ({"scale_factor_step_size": -1.0}, "scale_factor_step_size: expected 0 or more, received -1.0"),
    ],
)
def test_bad_scales_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        Augmentation(**arguments)
