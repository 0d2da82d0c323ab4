"""A trained model as a SavedModel that needs nothing of this library to run."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from nas_seg import common
from nas_seg.inference import probabilities, raw_scorer
from nas_seg.inference_config import InferenceConfig
from nas_seg.utils.errors import InputError

# More tensors that DeepLab's export_model names; beside them `nas_seg.common` has the picture and its classes.
SEMANTIC_PROBABILITIES = "SemanticProbabilities"
RAW_PREDICTIONS, RAW_PROBABILITIES = "RawSemanticPredictions", "RawSemanticProbabilities"
# What probabilities may be.
PLAIN, DEEPLAB = PROBABILITIES = ("plain", "deeplab")
# The endpoint of a SavedModel that is its signature "serving_default", and the one with all four outputs.
SERVE, ALL_OUTPUTS = "serve", "all_outputs"
# What was found of an export is told in this file beside it.
REPORT = "export.json"
# A folder with one of these is an export, which a new one may take the place of.
_MARKS = ("saved_model.pb", REPORT)


class Endpoint(NamedTuple):
    """What a signature puts out beside SemanticPredictions.

    Attributes:
        probabilities: a name of `PROBABILITIES`: SemanticProbabilities, of that kind; None: not them.
        raw: RawSemanticPredictions, and with `probabilities` RawSemanticProbabilities.
    """

    probabilities: str | None = None
    raw: bool = False


def export_saved_model(
    model: keras.Model,
    export_path: str | os.PathLike,
    inference: InferenceConfig | None = None,
    variants: Mapping[float, keras.Model] | None = None,
    *,
    semantic_probabilities: str | None = None,
) -> None:
    """Writes a SavedModel with DeepLab's tensor names: one image in, its class indices out.

    The signature "serving_default" takes ImageTensor, uint8 [1, H, W, 3] of any size, RGB, and returns
    SemanticPredictions, int32 [1, H, W]. Preprocessing, padding to a good size, the resize back and arg-max are inside.

    The signature "all_outputs" returns the original's four. SemanticProbabilities are float32 [1, H, W, C].
    RawSemanticPredictions, float32 [1, h, w] as in the original, and RawSemanticProbabilities, float32 [1, h, w, C],
    have the size that the network sees: of the picture as `inference.size_range` resizes it, padded to
    `inference.crop_size`; without either they are the other two. A signature computes all that it returns, and the
    probabilities of a large picture fill gigabytes: this is why it is one of its own. Both share one set of weights.

    Args:
        model: images [B, H, W, 3] in [0, 255] -> logits [B, H, W, num_classes].
        export_path: a folder; a SavedModel that is there is replaced, any other content is not.
        inference: how the network looks at a picture, see `nas_seg.inference.scorer`.
        variants: as there.
        semantic_probabilities: a name of `PROBABILITIES`: "serving_default" returns SemanticProbabilities, too.
            "plain" ones (those of "all_outputs" unless this says otherwise) add up to 1 and have the classes as their
            arg-max; "deeplab" are the original's, of which those of several looks are a softmax of probabilities.

    Raises:
        InputError: where export_path holds something else.
    """
    with replaced_folder(export_path) as written:
        write(model, written, inference, variants, served(semantic_probabilities))


def served(semantic_probabilities: str | None = None) -> dict[str, Endpoint]:
    """The signatures of a SavedModel that is served."""
    return {SERVE: Endpoint(semantic_probabilities), ALL_OUTPUTS: Endpoint(semantic_probabilities or PLAIN, raw=True)}


@contextlib.contextmanager
def replaced_folder(export_path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """A path for a new folder, which takes the place of `export_path` when all went well.

    Raises:
        InputError: where export_path is neither new, nor empty, nor an export, or cannot be written.
    """
    path = pathlib.Path(export_path)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: expected a folder to write to, received a file")
    if path.is_dir() and any(path.iterdir()) and not any((path / mark).is_file() for mark in _MARKS):
        raise InputError(f"{path}: expected a new or empty folder, or a SavedModel to replace")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
    with temporary as folder:
        written = pathlib.Path(folder, "new")
        yield written
        if path.exists():
            path.rename(pathlib.Path(folder, "old"))
        shutil.move(written, path)


def write(
    model: keras.Model,
    path: str | os.PathLike,
    inference: InferenceConfig | None = None,
    variants: Mapping[float, keras.Model] | None = None,
    endpoints: Mapping[str, Endpoint] | None = None,
    size: tuple[int, int] | None = None,
) -> None:
    """Writes a SavedModel to a new folder.

    Args:
        model: as in `export_saved_model`.
        path: the folder.
        inference: as there.
        variants: as there.
        endpoints: by the names of their signatures; the first is "serving_default", too.
        size: (height, width) of the images; None: any.
    """
    inference = inference or InferenceConfig()
    sides = tuple(size) if size else model.input_shape[1:3]
    spec = tf.TensorSpec((1, *sides, 3), tf.uint8, name=common.IMAGE_TENSOR)
    score = raw_scorer(model, inference, variants)
    archive = keras.export.ExportArchive()
    for network in (model, *(variants or {}).values()):
        archive.track(network)
    for name, endpoint in (endpoints or {SERVE: Endpoint()}).items():
        archive.add_endpoint(name, _predictor(score, inference, endpoint), input_signature=[spec])
    archive.write_out(str(path), verbose=False)


def _predictor(score: Callable[[Any], Any], inference: InferenceConfig, endpoint: Endpoint) -> Callable[[Any], Any]:
    def predict(images):
        raw, scores = score(tf.cast(images, tf.float32))
        # tf.argmax and not keras.ops.argmax, whose bit tricks TFLite and ONNX do not know.
        labels = tf.argmax(scores, axis=-1, output_type=tf.int32)
        outputs, kind = {common.SEMANTIC_PREDICTIONS: labels}, endpoint.probabilities
        if kind:
            outputs[SEMANTIC_PROBABILITIES] = probabilities(scores, inference, kind == DEEPLAB)
        if endpoint.raw:
            outputs[RAW_PREDICTIONS] = tf.cast(tf.argmax(raw, axis=-1, output_type=tf.int32), tf.float32)
        if endpoint.raw and kind:
            # The same tensor twice where nothing is cut off or resized.
            same = raw is scores
            plain = outputs[SEMANTIC_PROBABILITIES] if same else probabilities(raw, inference, kind == DEEPLAB)
            outputs[RAW_PROBABILITIES] = plain
        return outputs

    return predict
