"""A trained model as a SavedModel that needs nothing of this library to run."""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile
from collections.abc import Mapping

import keras
import tensorflow as tf

from nas_seg import common
from nas_seg.inference import probabilities, scorer
from nas_seg.inference_config import InferenceConfig
from nas_seg.utils.errors import InputError

# The tensor, as DeepLab's export_model names it, and what it may hold.
SEMANTIC_PROBABILITIES = "SemanticProbabilities"
PLAIN, DEEPLAB = PROBABILITIES = ("plain", "deeplab")


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

    Args:
        model: images [B, H, W, 3] in [0, 255] -> logits [B, H, W, num_classes].
        export_path: a folder; a SavedModel that is there is replaced, any other content is not.
        inference: how the network looks at a picture, see `nas_seg.inference.scorer`.
        variants: as there.
        semantic_probabilities: a name of `PROBABILITIES`: SemanticProbabilities, float32 [1, H, W, C], beside the
            classes. "plain" ones add up to 1 and have the classes as their arg-max; "deeplab" are the original's, of
            which those of several looks are a softmax of probabilities.

    Raises:
        InputError: where export_path holds something else.
    """
    path = pathlib.Path(export_path)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: expected a folder to write to, received a file")
    if path.is_dir() and any(path.iterdir()) and not (path / "saved_model.pb").is_file():
        raise InputError(f"{path}: expected a new or empty folder, or a SavedModel to replace")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        written = pathlib.Path(folder, "new")
        _write(model, written, inference or InferenceConfig(), variants, semantic_probabilities)
        if path.exists():
            path.rename(pathlib.Path(folder, "old"))
        shutil.move(written, path)


def _write(
    model: keras.Model,
    path: pathlib.Path,
    inference: InferenceConfig,
    variants: Mapping[float, keras.Model] | None,
    semantic_probabilities: str | None,
) -> None:
    spec = tf.TensorSpec((1, *model.input_shape[1:]), tf.uint8, name=common.IMAGE_TENSOR)
    score = scorer(model, inference, variants)

    def predict(images):
        scores = score(tf.cast(images, tf.float32))
        # tf.argmax and not keras.ops.argmax, whose bit tricks TFLite and ONNX do not know.
        outputs = {common.SEMANTIC_PREDICTIONS: tf.argmax(scores, axis=-1, output_type=tf.int32)}
        if semantic_probabilities:
            double = semantic_probabilities == DEEPLAB
            outputs[SEMANTIC_PROBABILITIES] = probabilities(scores, inference, double)
        return outputs

    archive = keras.export.ExportArchive()
    for network in (model, *(variants or {}).values()):
        archive.track(network)
    archive.add_endpoint("serve", predict, input_signature=[spec])
    archive.write_out(str(path), verbose=False)
