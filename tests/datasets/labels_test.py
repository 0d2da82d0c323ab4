import numpy as np
import pytest
from small_data import CLASSES

from nas_seg.datasets import labels, pictures
from nas_seg.datasets.descriptors import KNOWN
from nas_seg.utils.colormap import colorize
from nas_seg.utils.errors import InputError

LABEL = np.array([[0, 1, 2], [3, 3, 255]], np.uint8)
COLORED = pictures.encode_png(colorize(LABEL, CLASSES.colors))


def decode(data: bytes, coding=labels.INDICES, descriptor=None) -> np.ndarray:
    return labels.decode(data, "one.png", coding, descriptor).array


def colors_file(tmp_path, text: str) -> str:
    (tmp_path / "colors.txt").write_text(text)
    return str(tmp_path / "colors.txt")


def test_stored_values_become_classes_and_others_are_refused():
    coding = labels.value_coding(["7:0", "8:1", "200:255"])
    np.testing.assert_array_equal(decode(pictures.encode_png(np.array([[7, 8, 200]], np.uint8)), coding), [[0, 1, 255]])
    with pytest.raises(InputError, match=r"one\.png: expected stored values 7 to 8, 200, received 9"):
        decode(pictures.encode_png(np.array([[7, 9]], np.uint8)), coding)


def test_a_refusal_of_colours_offers_the_data_sets_own_when_they_are_these():
    with pytest.raises(InputError, match=r"received colours \(mode RGB\); .* those of small: --label_colors=known"):
        decode(COLORED, descriptor=CLASSES)
    with pytest.raises(InputError, match=r"--label_colors=FILE, with lines such as .* \(4 colours: \(0,0,0\) "):
        decode(COLORED, descriptor=KNOWN["cityscapes"])


def test_the_data_sets_own_colours_are_read_and_what_is_no_class_is_refused():
    # The fourth colour of `small` is that of class 0, black, which therefore is no void.
    coding = labels.color_coding("known", CLASSES)
    np.testing.assert_array_equal(decode(COLORED, coding), [[0, 1, 2], [3, 3, 0]])
    strange = pictures.encode_png(np.full((2, 2, 3), 77, np.uint8))
    with pytest.raises(
        InputError, match=r"one\.png: expected the 5 colours of --label_colors, received 1 others: \(77,"
    ):
        decode(strange, coding)


def test_black_and_pascals_rim_are_void_where_they_are_no_class():
    coding = labels.color_coding("known", KNOWN["camvid"])
    data = pictures.encode_png(np.array([[[0, 0, 0], [224, 224, 192], [128, 128, 128]]], np.uint8))
    np.testing.assert_array_equal(decode(data, coding), [[11, 11, 0]])


def test_colours_that_two_classes_share_cannot_be_read():
    with pytest.raises(InputError, match=r"two classes of ade20k have the colour \(140, 140, 140\), give a FILE"):
        labels.color_coding("known", KNOWN["ade20k"])


def test_a_file_says_what_colours_mean_by_name_by_index_and_as_void(tmp_path):
    text = "# a comment\n0 0 0 void\n250,0,0, b\n0 250 0\t3\n\n0 0 250 b\n"
    coding = labels.color_coding(colors_file(tmp_path, text), CLASSES)
    np.testing.assert_array_equal(decode(COLORED, coding), [[255, 1, 3], [1, 1, 255]])


def test_with_colours_a_palette_and_a_black_and_white_mask_are_read_by_colour_too(tmp_path):
    coding = labels.color_coding(colors_file(tmp_path, "0 0 0 a\n255 255 255 b\n"), CLASSES)
    mask = np.array([[0, 255], [255, 0]], np.uint8)
    np.testing.assert_array_equal(decode(pictures.encode_png(mask), coding), [[0, 1], [1, 0]])
    # A palette in another order than the classes': index 0 is white.
    from io import BytesIO

    from PIL import Image

    picture = Image.new("P", (2, 2))
    picture.putpalette([255, 255, 255, 0, 0, 0])
    picture.putdata([1, 0, 0, 1])
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    np.testing.assert_array_equal(decode(buffer.getvalue(), coding), [[0, 1], [1, 0]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3\n", r"colors\.txt: line 1: expected 'R G B NAME' with numbers of 0 to 255, received '1 2 3'"),
        ("1 2 256 a\n", r"line 1: expected 'R G B NAME'"),
        ("1 2 3 a\n1 2 3 b\n", r"line 2: the colour \(1, 2, 3\) stands there twice"),
        ("# nothing\n", r"expected lines 'R G B NAME', found none"),
        ("1 2 3 roads\n", r"colors\.txt: unknown class 'roads': expected one of a, b, c, d, void"),
    ],
)
def test_a_bad_file_of_colours_is_refused_by_line(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        labels.color_coding(colors_file(tmp_path, text), CLASSES)


def test_a_missing_file_of_colours_and_bad_values_are_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.txt: cannot be read"):
        labels.color_coding(str(tmp_path / "none.txt"), CLASSES)
    for text in ("1", "1:x", "1:256", "-1:0"):
        with pytest.raises(InputError, match="--label_values: expected STORED:CLASS pairs"):
            labels.value_coding([text])
