import numpy as np
import pytest

from nas_seg.utils import colormap
from nas_seg.utils.errors import InputError


def test_pascal_colormap_has_the_published_colours():
    colors = colormap.pascal_colormap()
    assert len(set(colors)) == 256
    # background, aeroplane, bicycle, person, tv/monitor, and the void of VOC's palette.
    expected = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    assert {i: colors[i] for i in expected} == expected
    assert colors[255] == (224, 224, 192)


def test_cityscapes_has_nineteen_different_colours():
    assert len(set(colormap.CITYSCAPES)) == 19


def test_colorize_gives_each_class_its_colour_and_the_rest_the_ignored_one():
    label = np.array([[0, 1], [255, -1]])
    colored = colormap.colorize(label, [(1, 2, 3), (4, 5, 6)], (7, 8, 9))
    assert colored.dtype == np.uint8
    assert colored.tolist() == [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [7, 8, 9]]]


def test_colorize_refuses_what_is_no_label_map():
    with pytest.raises(InputError, match=r"expected integers \[H, W\], received float32 \[2, 2\]"):
        colormap.colorize(np.zeros((2, 2), np.float32), [(0, 0, 0)])


def test_overlay_mixes_by_alpha_and_leaves_ignored_pixels_alone():
    image = np.full((1, 2, 3), 100, np.uint8)
    mixed = colormap.overlay(image, np.array([[0, 9]]), [(200, 0, 100)], alpha=0.25)
    assert mixed.tolist() == [[[125, 75, 100], [100, 100, 100]]]
    assert mixed.dtype == np.uint8


def test_overlay_can_mark_ignored_pixels():
    mixed = colormap.overlay(np.zeros((1, 1, 3), np.uint8), np.array([[9]]), [(1, 1, 1)], 1.0, ignore_color=(5, 6, 7))
    assert mixed.tolist() == [[[5, 6, 7]]]


def test_overlay_refuses_a_label_of_another_size():
    with pytest.raises(InputError, match=r"expected shape \[2, 2, 3\]"):
        colormap.overlay(np.zeros((3, 2, 3), np.uint8), np.zeros((2, 2), np.uint8), [(0, 0, 0)])


def test_a_panel_is_the_picture_in_whole_numbers_and_each_label_over_it():
    image = np.array([[[-3.0, 0.6, 300.0], [10.0, 20.0, 30.0]]], np.float32)
    labels = [np.array([[0, 255]]), np.array([[255, 0]])]
    bare, first, second = colormap.panel(image, labels, [(100, 100, 100)])
    assert bare.dtype == np.uint8 and bare.tolist() == [[[0, 1, 255], [10, 20, 30]]]
    np.testing.assert_array_equal(first[0, 1], bare[0, 1])
    # 0.4 of the picture, 0.6 of the colour.
    assert first[0, 0].tolist() == [60, 60, 162] and second[0, 1].tolist() == [64, 68, 72]
