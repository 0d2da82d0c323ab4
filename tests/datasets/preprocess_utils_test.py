import pathlib

import numpy as np
import pytest
import tensorflow as tf

from nas_seg.datasets import preprocess_utils as ops

# Resizes recorded from the original DeepLab code.
RECORDED = np.load(pathlib.Path(__file__).parents[1] / "golden" / "resize_align_corners.npz", allow_pickle=False)


@pytest.mark.parametrize("name", [name for name in RECORDED if name.startswith("rs_") and "_to_" in name])
def test_bilinear_resize_equals_the_recorded_one(name):
    source, _, size = name.partition("_to_")
    height, width = map(int, size.split("x"))
    # The same op, so the same float32 arithmetic up to the order of sums in another build.
    resized = ops.resize_image(RECORDED[source][0], (height, width))
    np.testing.assert_allclose(resized, RECORDED[name][0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in RECORDED if name.startswith("nn_lab_to_")])
def test_nearest_resize_equals_the_recorded_one(name):
    height, width = map(int, name.removeprefix("nn_lab_to_").split("x"))
    label = RECORDED["nn_lab"][0, ..., 0]
    np.testing.assert_array_equal(ops.resize_label(label, (height, width)), RECORDED[name][0, ..., 0])


@pytest.mark.parametrize("crop", [(5, 7), (1, 1), (8, 3)])
@pytest.mark.parametrize("size", [(5, 6), (9, 13), (17, 40), (33, 65), (1, 8)])
def test_a_scaled_crop_is_the_crop_of_the_scaled_picture(size, crop):
    rng = np.random.default_rng(0)
    image, label = rng.integers(0, 256, (9, 13, 3)).astype(np.uint8), rng.integers(0, 9, (9, 13)).astype(np.uint8)
    whole, whole_label = ops.resize_image(image, size).numpy(), ops.resize_label(label, size).numpy()
    crop = np.minimum(size, crop)
    for top in range(size[0] - crop[0] + 1):
        offset = np.array([top, rng.integers(size[1] - crop[1] + 1)])
        rows, columns = slice(top, top + crop[0]), slice(offset[1], offset[1] + crop[1])
        part = ops.crop_scaled_image(image, np.array(size), offset, crop)
        # Values of 0..255 mixed in float32 in another order: 2e-5 a rounding, a few of them.
        np.testing.assert_allclose(part, whole[rows, columns], rtol=0, atol=1e-3)
        part = ops.crop_scaled_label(label, np.array(size), offset, crop)
        np.testing.assert_array_equal(part, whole_label[rows, columns])


def test_a_picture_of_one_pixel_can_be_scaled():
    image = np.full((1, 1, 3), 7, np.uint8)
    size = np.array([3, 4])
    assert (ops.crop_scaled_image(image, size, np.array([1, 1]), np.array([2, 3])).numpy() == 7).all()


def test_scales_are_the_steps_between_the_two_ends():
    draws = {float(ops.random_scale([0, i], 0.5, 2.0, 0.25)) for i in range(200)}
    assert sorted(draws) == [0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]


def test_step_zero_draws_from_the_whole_range_and_equal_ends_give_themselves():
    draws = np.array([float(ops.random_scale([0, i], 0.5, 2.0, 0)) for i in range(100)])
    assert len(set(draws)) > 90
    assert draws.min() >= 0.5
    assert draws.max() <= 2
    assert float(ops.random_scale([0, 0], 1.5, 1.5, 0.25)) == 1.5


def test_the_scaled_size_is_truncated():
    assert ops.scaled_size(tf.constant([361, 479]), tf.constant(0.75)).numpy().tolist() == [270, 359]
    assert ops.scaled_size(tf.constant([1, 3]), tf.constant(0.5)).numpy().tolist() == [1, 1]


def test_offsets_reach_both_ends_and_are_zero_where_the_crop_covers_all():
    offsets = np.array([ops.random_offset([0, i], tf.constant([5, 3]), (3, 4)) for i in range(60)])
    assert set(offsets[:, 0]) == {0, 1, 2}
    assert set(offsets[:, 1]) == {0}


def test_padding_goes_to_the_bottom_and_the_right():
    padded = ops.pad_to(tf.ones((2, 3, 3)), (4, 5), 127.5).numpy()
    assert (padded[:2, :3] == 1).all()
    assert (padded[2:] == 127.5).all()
    assert (padded[:, 3:] == 127.5).all()


def test_half_of_the_draws_are_flips():
    assert 8 < sum(bool(ops.draw_flip([0, i])) for i in range(40)) < 32


@pytest.mark.parametrize("size", [(5, 6), (9, 13), (17, 40), (1, 8), (12, 1)])
def test_a_flipped_crop_and_its_padding_are_those_of_the_plain_one_mirrored(size):
    rng = np.random.default_rng(1)
    image, label = rng.integers(0, 256, (9, 13, 3)).astype(np.uint8), rng.integers(0, 9, (9, 13)).astype(np.uint8)
    crop = np.minimum(size, (6, 7))
    for cut, picture, value in ((ops.crop_scaled_image, image, 127.5), (ops.crop_scaled_label, label, 255)):
        plain, flipped = (
            ops.pad_to(cut(picture, np.array(size), np.zeros(2, np.int32), crop, flip), (6, 7), value, flip)
            for flip in (False, tf.constant(True))
        )
        np.testing.assert_array_equal(flipped, plain[:, ::-1])


def test_padding_takes_a_value_for_each_channel():
    padded = ops.pad_to(tf.fill((2, 3, 3), 7.0), (3, 4), (123.15, 115.9, 103.06)).numpy()
    np.testing.assert_array_equal(padded[:2, :3], 7.0)
    np.testing.assert_array_equal(padded[2], np.float32([[123.15, 115.9, 103.06]] * 4))
    np.testing.assert_array_equal(padded[:, 3], np.float32([[123.15, 115.9, 103.06]] * 3))
