"""A trained model as a SavedModel that needs nothing of this library to run."""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile

import keras
import tensorflow as tf

from nas_seg import common
from nas_seg.core.padding import padded_logits
from nas_seg.utils.errors import InputError


def export_saved_model(model: keras.Model, export_path: str | os.PathLike) -> None:
    """Writes a SavedModel with DeepLab's tensor names: one image in, its class indices out.

    The signature "serving_default" takes ImageTensor, uint8 [1, H, W, 3] of any size, RGB, and returns
    SemanticPredictions, int32 [1, H, W]. Preprocessing, padding to a good size, the resize back and arg-max are inside.

    Args:
        model: images [B, H, W, 3] in [0, 255] -> logits [B, H, W, num_classes].
        export_path: a folder; a SavedModel that is there is replaced, any other content is not.

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
        _write(model, written)
        if path.exists():
            path.rename(pathlib.Path(folder, "old"))
        shutil.move(written, path)


def _write(model: keras.Model, path: pathlib.Path) -> None:
    spec = tf.TensorSpec((1, *model.input_shape[1:]), tf.uint8, name=common.IMAGE_TENSOR)

    def predict(images):
        logits = padded_logits(model, tf.cast(images, tf.float32))
        # tf.argmax and not keras.ops.argmax, whose bit tricks TFLite and ONNX do not know.
        return {common.SEMANTIC_PREDICTIONS: tf.argmax(logits, axis=-1, output_type=tf.int32)}

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", predict, input_signature=[spec])
    archive.write_out(str(path), verbose=False)
