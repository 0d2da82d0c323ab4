"""Picture files to arrays and back, with Pillow: images as RGB, labels as class indices."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from nas_seg.utils.errors import InputError

# Pillow's names of the two formats that DeepLab's records hold -> the word in the record.
FORMATS = {"JPEG": "jpeg", "PNG": "png"}
# One channel: gray (8, 1 or 16 bits), or a palette whose INDEX is the class.
LABEL_MODES = ("L", "1", "P", "I;16", "I")


class Picture(NamedTuple):
    """A decoded file: the array, "jpeg" or "png", and Pillow's mode ("P" is a palette)."""

    array: np.ndarray
    format: str
    mode: str


def read_bytes(source: str | os.PathLike | bytes, where: object) -> bytes:
    """The content of a file, or `source` itself when it is bytes; InputError naming `where` if unreadable."""
    if isinstance(source, bytes):
        return source
    try:
        return pathlib.Path(source).read_bytes()
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror})") from None


def decode_image(data: bytes, where: object) -> Picture:
    """Decodes a JPEG or PNG image to uint8 RGB [H, W, 3].

    Raises:
        InputError: naming `where`, if the bytes are no complete picture of these formats.
    """
    picture = _open(data, where)
    with _decoding(where):
        return Picture(np.asarray(picture.convert("RGB")), FORMATS[picture.format], picture.mode)


def decode_label(data: bytes, where: object) -> Picture:
    """Decodes a PNG label to class indices [H, W].

    A palette picture gives its indices, never the luminance of its colours, which is what most decoders return
    when asked for one channel.

    Raises:
        InputError: naming `where`, if it is no PNG or is coded in colours.
    """
    picture = _open(data, where)
    if picture.format != "PNG":
        raise InputError(f"{where}: expected a PNG label (lossless), received {picture.format}")
    if picture.mode not in LABEL_MODES:
        raise InputError(
            f"{where}: expected a label of one channel of class indices, received colours (mode {picture.mode}); "
            "convert it to indices first"
        )
    with _decoding(where):
        array = np.asarray(picture)
    return Picture(array.astype(np.uint8) if array.dtype == bool else array, "png", picture.mode)


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
    return picture
