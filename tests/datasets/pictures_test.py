import io
import resource
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from small_data import save

from nas_seg.datasets import example, pictures
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


@pytest.mark.parametrize(
    "old, new", [(b"IEND", b"IEN\0"), (b"\0\0\0\0IEND", b"\0\0\0\0\0IEND"), (b"IEND\xae", b"IEND\0")]
)
def test_a_png_that_is_damaged_after_its_pixels_is_refused_as_tensorflow_does(old, new):
    data = pictures.encode_png(LABEL).replace(old, new)
    assert Image.open(io.BytesIO(data)).load()  # Pillow would take it.
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.io.decode_png(data)
    with pytest.raises(InputError, match="^x: expected a complete PNG, it is damaged$"):
        pictures.decode_label(data, "x")


def test_a_gray_or_palette_image_becomes_rgb():
    gray = pictures.decode_image(pictures.encode_png(LABEL), "x")
    np.testing.assert_array_equal(gray.array, np.repeat(LABEL[..., None], 3, -1))
    assert gray.format == "png"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.png: cannot be read \(No such file or directory\)"):
        pictures.read_bytes(tmp_path / "none.png", tmp_path / "none.png")


def png(array_or_picture, **options) -> bytes:
    picture = array_or_picture if isinstance(array_or_picture, Image.Image) else Image.fromarray(array_or_picture)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", **options)
    return buffer.getvalue()


COLORS = np.random.default_rng(2).integers(0, 256, (3, 4, 4)).astype(np.uint8)


@pytest.mark.parametrize(
    ("data", "note"),
    [
        (pictures.encode_png(COLORS[..., :3]), ""),
        (pictures.encode_jpeg(COLORS[..., :3]), ""),
        (png(LABEL), "gray"),
        (png(LABEL.astype(np.uint16) * 4000), "16-bit gray"),
        (png(COLORS), "alpha"),
        (png(COLORS[..., :2]), "gray alpha"),
        (png(Image.fromarray(LABEL).convert("P")), "palette"),
        (png(LABEL > 5), "gray"),
        (png(COLORS[..., :3], transparency=(1, 2, 3)), "alpha"),
    ],
)
def test_what_is_not_plain_rgb_is_noted_and_decoded_as_tensorflow_does(data, note):
    picture = pictures.decode_image(data, "x")
    assert (picture.note, picture.array.dtype, picture.array.shape) == (note, np.uint8, (3, 4, 3))
    import tensorflow as tf

    expected = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE").numpy()
    np.testing.assert_array_equal(picture.array, expected)


@pytest.mark.parametrize("kind", ["image", "label"])
def test_a_picture_that_would_fill_the_memory_is_refused_and_by_the_reader_of_records_too(kind):
    """A few bytes that say to be 900 million pixels."""
    small = pictures.encode_png(np.zeros((40, 40), np.uint8))
    header = struct.pack(">II", 30_000, 30_000) + small[24:29]
    bomb = small[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + small[33:]
    decode = pictures.decode_image if kind == "image" else pictures.decode_label
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=r"x\.png: expected a JPEG or PNG picture, .*decompression bomb"):
        decode(bomb, "x.png")
    image, label = (bomb, small) if kind == "image" else (small, bomb)
    record = example.encode(image, label, name="x", image_format="png", size=(40, 40))
    with pytest.raises(tf.errors.InvalidArgumentError, match="too large"):
        example.parse(tf.constant(record), has_label=True, ignore_label=255)
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10
    )  # KiB; one byte a pixel were 879 MiB.


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_gray_labels_of_few_bits_give_the_values_as_stored(bits):
    values = LABEL % (1 << bits)
    data = bits_png(values, bits)
    picture = pictures.decode_label(data, "x")
    np.testing.assert_array_equal(picture.array, values)
    assert picture.note == f"{bits}-bit"


def bits_png(values: np.ndarray, bits: int) -> bytes:
    """A gray PNG of few bits a pixel, which Pillow does not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    height, width = values.shape
    shifts = 8 - bits * (1 + np.arange(width) % (8 // bits))
    rows = b""
    for row in values.astype(int):
        packed = bytearray(-(-width * bits // 8))
        for place, (value, shift) in enumerate(zip(row.tolist(), shifts.tolist(), strict=True)):
            packed[place * bits // 8] |= value << shift
        rows += b"\0" + bytes(packed)
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
