"""Picture files to arrays and back, with Pillow: images as RGB, labels as class indices."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from nas_seg.datasets.archives import File
from nas_seg.utils.errors import InputError

# Pillow's names of the two formats that DeepLab's records hold -> the word in the record.
FORMATS = {"JPEG": "jpeg", "PNG": "png"}
# One channel: gray (8, 1 or 16 bits), or a palette whose INDEX is the class.
LABEL_MODES = ("L", "1", "P", "I;16", "I")


# Pillow stretches gray PNGs of 2 and 4 bits to 0..255; a label needs the values as stored.
_STRETCHED = {2: 85, 4: 17}


class ColoredLabel(InputError):
    """A label picture that holds colours where class indices are expected."""


class Picture(NamedTuple):
    """A decoded file.

    Attributes:
        array: the pixels.
        format: "jpeg" or "png".
        mode: Pillow's; "P" is a palette.
        note: what the file is other than plain, 8 bits a channel ("16-bit gray", "alpha"); "" if plain.
    """

    array: np.ndarray
    format: str
    mode: str
    note: str = ""


def read_bytes(source: File | bytes, where: object) -> bytes:
    """The content of a file, or `source` itself when it is bytes; InputError naming `where` if unreadable."""
    if isinstance(source, bytes):
        return source
    try:
        return source.read_bytes()
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror})") from None


def decode_image(data: bytes, where: object) -> Picture:
    """Decodes a JPEG or PNG image to uint8 RGB [H, W, 3].

    Gray becomes three equal channels, of 16 bits the upper 8 are kept, alpha is dropped: as TensorFlow's decoders do.

    Raises:
        InputError: naming `where`, if the bytes are no complete picture of these formats.
    """
    picture = _open(data, where)
    with _decoding(where):
        return Picture(_rgb(picture), FORMATS[picture.format], picture.mode, _note(picture, data))


def decode_label(data: bytes, where: object) -> Picture:
    """Decodes a PNG label to class indices [H, W].

    A palette picture gives its indices, never the luminance of its colours, which is what most decoders return
    when asked for one channel.

    Raises:
        ColoredLabel: naming `where`, if it is coded in colours.
        InputError: naming `where`, if it is no PNG.
    """
    picture = _open_label(data, where)
    if picture.mode not in LABEL_MODES:
        raise ColoredLabel(
            f"{where}: expected a label of one channel of class indices, received colours (mode {picture.mode})"
        )
    depth = _bits(data)
    with _decoding(where):
        array = np.asarray(picture)
    if picture.mode == "L" and depth in _STRETCHED:
        array = array // _STRETCHED[depth]
    note = "" if depth == 8 else f"{depth}-bit"
    return Picture(array.astype(np.uint8) if array.dtype == bool else array, "png", picture.mode, note)


def decode_label_colors(data: bytes, where: object) -> Picture:
    """Decodes a PNG label to its colours, uint8 [H, W, 3]; an InputError naming `where` if it is no PNG."""
    picture = _open_label(data, where)
    with _decoding(where):
        return Picture(_rgb(picture), "png", picture.mode)


def _open_label(data: bytes, where: object) -> Image.Image:
    picture = _open(data, where)
    if picture.format != "PNG":
        raise InputError(f"{where}: expected a PNG label (lossless), received {picture.format}")
    return picture


def _rgb(picture: Image.Image) -> np.ndarray:
    if picture.mode.startswith("I"):
        # Pillow's own conversion would clip everything above 255.
        gray = (np.asarray(picture).astype(np.int32) >> 8).astype(np.uint8)
        return np.repeat(gray[..., None], 3, -1)
    return np.asarray(picture.convert("RGB"))


def _bits(data: bytes) -> int:
    """Bits a channel as a PNG's header says; 8 for JPEG."""
    return data[24] if data.startswith(b"\x89PNG") else 8


def _note(picture: Image.Image, data: bytes) -> str:
    words = ["16-bit"] if _bits(data) == 16 else []
    words += {"L": ["gray"], "1": ["gray"], "LA": ["gray"], "P": ["palette"], "CMYK": ["CMYK"]}.get(picture.mode, [])
    words += ["gray"] if picture.mode.startswith("I") else []
    words += ["alpha"] if "A" in picture.mode or "transparency" in picture.info else []
    return " ".join(words)


def encode_png(array: np.ndarray) -> bytes:
    """PNG bytes of uint8 [H, W] or [H, W, 3]."""
    return _encode(array, "PNG", compress_level=6)


def encode_jpeg(array: np.ndarray, quality: int = 92) -> bytes:
    """Baseline JPEG bytes of uint8 [H, W, 3]."""
    return _encode(array, "JPEG", quality=quality)


def _encode(array: np.ndarray, image_format: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, image_format, **options)
    return buffer.getvalue()


@contextlib.contextmanager
def _decoding(where: object) -> Iterator[None]:
    """Turns whatever a decoder raises on foreign bytes into an InputError naming the file."""
    try:
        yield
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(f"{where}: expected a JPEG or PNG picture, it cannot be decoded ({error})") from None


def _open(data: bytes, where: object) -> Image.Image:
    if not data:
        raise InputError(f"{where}: expected a JPEG or PNG picture, the file is empty")
    with _decoding(where):
        try:
            picture = Image.open(io.BytesIO(data), formats=tuple(FORMATS))
        except Image.UnidentifiedImageError:
            raise InputError(f"{where}: expected a JPEG or PNG picture, received something else") from None
        picture.load()
        # Pillow needs no end of a PNG and no right checksums; the decoder of the input pipeline does.
        if picture.format == "PNG" and not _is_whole_png(data):
            raise InputError(f"{where}: expected a complete PNG, it is damaged")
    return picture


def _is_whole_png(data: bytes) -> bool:
    """Whether all chunks that a PNG's pixels need are there up to the last one, each with its own checksum."""
    at, end = 8, False
    while not end and at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        body, checksum = data[at + 4 : at + 8 + length], data[at + 8 + length : at + 12 + length]
        # A small first letter: comments and the like, which a decoder may pass over.
        if body[:1].isupper() and checksum != struct.pack(">I", zlib.crc32(body)):
            return False
        at, end = at + 12 + length, body[:4] == b"IEND"
    return end
