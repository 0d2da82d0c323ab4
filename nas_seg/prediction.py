"""Labels of any pictures: arrays, files and folders, of any size, whole or in tiles.

    labels = nas_seg.predict(model, "street.jpg")                                  # int32 [H, W]
    for labels in nas_seg.predict(model, "frames", tile_size=513): ...             # one after the other

The module is no `predict.py`: imported, a module of that name would take the place of the function in the package.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nas_seg import common, overlays, picture_files, tiles
from nas_seg.inference import probabilities, scorer
from nas_seg.inference_config import InferenceConfig
from nas_seg.utils import config
from nas_seg.utils.colormap import Color
from nas_seg.utils.errors import InputError

DEFAULT_OVERLAP = 128
# Folders of what `write_predictions` writes.
LABELS, OVERLAYS = "labels", "overlays"

Labels = np.ndarray
# float32 or uint8 [H, W, 3] in [0, 255] -> int32 [H, W], and float32 [H, W, C] or None.
Look = Callable[[np.ndarray], tuple[Labels, np.ndarray | None]]
Result = Labels | tuple[Labels, np.ndarray]


def predict(
    model: keras.Model,
    images: Any,
    inference: InferenceConfig | None = None,
    *,
    variants: Mapping[float, keras.Model] | None = None,
    tile_size: int | None = None,
    tile_overlap: int = DEFAULT_OVERLAP,
    return_probabilities: bool = False,
) -> Result | Iterator[Result]:
    """The class of every pixel.

    One picture gives one result; several give an iterator, which reads, predicts and forgets one after the other.

    With `tile_size` a picture goes through the network in tiles, which bounds what the network needs; the picture
    itself and its labels are in memory. Labels are the whole picture's wherever the network looks no farther from a
    pixel than to the next tile border, and at least `tile_overlap // 2` pixels lie before it: a convolutional network
    whose features see that many pixels on either side, its output stride added, gives the same labels everywhere.
    Three things see more, and labels may then differ anywhere, mostly near the borders of classes: image pooling
    (that of ASPP, of dense prediction cells), which sees the tile instead of the picture; scales other than 1, whose
    features lie at other places in a tile; mirrored looks at pictures whose width is not k * 32 + 1, for the same
    reason.

    Args:
        model: images [B, H, W, 3] in [0, 255] -> logits [B, H, W, C].
        images: an array [H, W, 3] of RGB in [0, 255]; the path of a picture, of a file with several (an animated GIF
            or WebP, a TIFF), of a folder, or a pattern such as `frames/*.png` or `frames/%05d.png`; or several arrays
            and paths of pictures, also [B, H, W, 3].
        inference: scales, mirrored pictures and so on, see `nas_seg.inference.scorer`; None: one look.
        variants: as there.
        tile_size: pixels of a tile's side, k * 32 + 1; None: whole pictures.
        tile_overlap: pixels that neighbouring tiles share at least.
        return_probabilities: return pairs (labels, probabilities float32 [H, W, C]).

    Returns:
        int32 [H, W] or the pair; an iterator of them for a folder, a pattern or several pictures or frames.

    Raises:
        InputError: for a tile that cannot be, a picture that cannot be read, an array of another shape. Of several
            pictures each is read when its turn comes.
    """
    tiles.check(tile_size, tile_overlap, inference)
    pictures, is_one = _pictures(images)
    look = looker(model, inference, variants, return_probabilities=return_probabilities)

    def result(picture) -> Result:
        labels, scores = look_at(look, _read(picture), tile_size, tile_overlap)
        return (labels, scores) if return_probabilities else labels

    return result(next(iter(pictures))) if is_one else map(result, pictures)


def looker(
    model: keras.Model,
    inference: InferenceConfig | None = None,
    variants: Mapping[float, keras.Model] | None = None,
    *,
    return_probabilities: bool = False,
) -> Look:
    """How a model looks at one picture, traced once for all sizes; the arguments are those of `predict`."""
    inference = inference or InferenceConfig()
    score = scorer(model, inference, variants)

    @tf.function(input_signature=[tf.TensorSpec((1, *model.input_shape[1:]), tf.float32)])
    def look(images):
        scores = score(images)
        labels = tf.argmax(scores, axis=-1, output_type=tf.int32)
        return labels, probabilities(scores, inference) if return_probabilities else None

    def on_arrays(image):
        labels, shares = look(np.asarray(image, np.float32)[None])
        return labels[0].numpy(), None if shares is None else shares[0].numpy()

    return on_arrays


def saved_model_looker(path: str | os.PathLike) -> Look:
    """How an exported network looks at a picture: its labels, without probabilities.

    Args:
        path: a SavedModel of tools/export_model.py, or any whose signature "serving_default" takes ImageTensor and
            returns SemanticPredictions.

    Raises:
        InputError: where it is none.
    """
    if not pathlib.Path(path, "saved_model.pb").is_file():
        raise InputError(f"{path}: expected the folder of a SavedModel, found no saved_model.pb")
    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as error:  # The loader raises many unrelated types for a file that is none.
        raise InputError(f"{path}: expected a SavedModel ({' '.join(str(error).split())[:200]})") from None
    serve = loaded.signatures.get("serving_default")
    takes = list(serve.structured_input_signature[1]) if serve else []
    if takes != [common.IMAGE_TENSOR] or common.SEMANTIC_PREDICTIONS not in serve.structured_outputs:
        raise InputError(
            f"{path}: expected a signature serving_default of {common.IMAGE_TENSOR} -> {common.SEMANTIC_PREDICTIONS}, "
            f"received {takes or 'none'} -> {list(serve.structured_outputs) if serve else 'none'}"
        )

    def look(image):
        # A function of the signature lives as long as what it was loaded from.
        inputs = {common.IMAGE_TENSOR: tf.constant(image[None], tf.uint8)}
        return loaded.signatures["serving_default"](**inputs)[common.SEMANTIC_PREDICTIONS][0].numpy(), None

    return look


def look_at(
    look: Look, image: np.ndarray, tile_size: int | None = None, tile_overlap: int = DEFAULT_OVERLAP
) -> tuple[Labels, np.ndarray | None]:
    """Labels int32 [H, W] of one picture, and its probabilities where `look` gives them; tiles as in `predict`."""
    height, width = image.shape[:2]
    labels, shares = np.empty((height, width), np.int32), None
    for row, column in tiles.tiles(height, width, tile_size, tile_overlap):
        tile_labels, tile_shares = look(image[row.seen, column.seen])
        kept, inside = (row.kept, column.kept), (row.kept_inside, column.kept_inside)
        labels[kept] = tile_labels[inside]
        if tile_shares is not None:
            if shares is None:
                shares = np.empty((height, width, tile_shares.shape[-1]), np.float32)
            shares[kept] = tile_shares[inside]
    return labels, shares


def write_predictions(
    look: Look,
    pictures: Mapping[str, pathlib.Path | picture_files.Frame],
    output_dir: str | os.PathLike,
    class_names: Sequence[str],
    colors: Sequence[Color],
    *,
    tile_size: int | None = None,
    tile_overlap: int = DEFAULT_OVERLAP,
    opacity: float = 0.6,
    legend: str = overlays.ALL,
    skip_corrupt: bool = False,
    advance: Callable[[], Any] = lambda: None,
) -> list[str]:
    """Writes OUTPUT_DIR/labels/NAME.png and OUTPUT_DIR/overlays/NAME.png of every picture, one after the other.

    Args:
        look: of `looker` or `saved_model_looker`.
        pictures: name -> file or frame.
        output_dir: made where it is missing.
        class_names: one a class.
        colors: one a class.
        tile_size: as in `predict`.
        tile_overlap: as there.
        opacity: as in `nas_seg.overlays.overlay_png`.
        legend: as there.
        skip_corrupt: leave out pictures that cannot be decoded.
        advance: called after each picture.

    Returns:
        For each picture that was left out, what is wrong with it.

    Raises:
        InputError: for a picture that cannot be decoded, or a file that cannot be written.
    """
    skipped = []
    for name, path in pictures.items():
        try:
            image = picture_files.read_image(path)
        except InputError as error:
            if not skip_corrupt:
                raise
            skipped.append(str(error))
        else:
            labels, _ = look_at(look, image, tile_size, tile_overlap)
            drawn = overlays.overlay_png(image, labels, colors, class_names, opacity=opacity, legend=legend)
            config.write_bytes(pathlib.Path(output_dir, LABELS, f"{name}.png"), overlays.label_png(labels, colors))
            config.write_bytes(pathlib.Path(output_dir, OVERLAYS, f"{name}.png"), drawn)
        advance()
    return skipped


def _pictures(images: Any) -> tuple[Iterable[Any], bool]:
    """What to predict one after the other, and whether it is one picture."""
    if isinstance(images, (str, os.PathLike)):
        found = picture_files.find_images(images)
        return found, os.path.isfile(images) and len(found) == 1
    if getattr(images, "ndim", None) == 3:
        return [images], True
    if not isinstance(images, Iterable):
        raise InputError(f"images: expected arrays [H, W, 3] or paths, received {type(images).__name__}")
    return images, False


def _read(picture: Any) -> np.ndarray:
    """One picture as an array [H, W, 3]."""
    if isinstance(picture, (str, os.PathLike, picture_files.Frame)):
        return picture_files.read_image(picture)
    array = np.asarray(picture)
    if array.ndim != 3 or array.shape[-1] != 3 or not array.size or array.dtype.kind not in "uif":
        raise InputError(f"image: expected numbers [H, W, 3], received {array.dtype} {list(array.shape)}")
    return array
