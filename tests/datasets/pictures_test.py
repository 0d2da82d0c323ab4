import io

import numpy as np
import pytest
from PIL import Image
from small_data import save

from nas_seg.datasets import pictures
from nas_seg.utils.errors import InputError

LABEL = np.arange(12, dtype=np.uint8).reshape(3, 4)


def test_a_palette_label_gives_its_indices_not_its_colours(tmp_path):
    data = save(tmp_path / "label.png", LABEL, palette=True).read_bytes()
    label = pictures.decode_label(data, "label.png")
    assert label.mode == "P"
    np.testing.assert_array_equal(label.array, LABEL)
    # The trap: the same bytes as one channel of luminance are other numbers.
    assert (np.asarray(Image.open(io.BytesIO(data)).convert("L")) != LABEL).any()


def test_a_one_bit_label_gives_zero_and_one():
    buffer = io.BytesIO()
    Image.fromarray(LABEL > 5).save(buffer, "PNG")
    np.testing.assert_array_equal(pictures.decode_label(buffer.getvalue(), "x").array, LABEL > 5)


def test_a_16_bit_label_keeps_values_beyond_255():
    buffer = io.BytesIO()
    Image.fromarray(LABEL.astype(np.uint16) * 100).save(buffer, "PNG")
    np.testing.assert_array_equal(pictures.decode_label(buffer.getvalue(), "x").array, LABEL.astype(int) * 100)


def test_a_label_in_colours_is_refused_by_name():
    data = pictures.encode_png(np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(InputError, match=r"one\.png: expected a label of one channel .* received colours \(mode RGB\)"):
        pictures.decode_label(data, "one.png")


def test_a_jpeg_label_is_refused():
    with pytest.raises(InputError, match="expected a PNG label"):
        pictures.decode_label(pictures.encode_jpeg(np.zeros((8, 8, 3), np.uint8)), "x")


@pytest.mark.parametrize("kind", ["empty", "text", "truncated jpeg", "truncated png"])
def test_bytes_that_are_no_whole_picture_are_refused_by_name(kind):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    jpeg, png = pictures.encode_jpeg(noise), pictures.encode_png(noise)
    data = {
        "empty": b"",
        "text": b"no picture",
        "truncated jpeg": jpeg[: len(jpeg) // 2],
        "truncated png": png[: len(png) // 2],
    }[kind]
    with pytest.raises(InputError, match=r"a/b\.jpg: expected a JPEG or PNG picture"):
        pictures.decode_image(data, "a/b.jpg")


def test_a_gray_or_palette_image_becomes_rgb():
    gray = pictures.decode_image(pictures.encode_png(LABEL), "x")
    np.testing.assert_array_equal(gray.array, np.repeat(LABEL[..., None], 3, -1))
    assert gray.format == "png"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.png: cannot be read \(No such file or directory\)"):
        pictures.read_bytes(tmp_path / "none.png", tmp_path / "none.png")
