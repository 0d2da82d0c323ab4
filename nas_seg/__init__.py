"""Architecture search for semantic segmentation, in Keras.

    model = nas_seg.from_preset("dpc_mobilenet_v2", num_classes=11)   # images in [0, 255] -> logits
    model = nas_seg.load("runs/my_run")                               # a trained network
    labels = nas_seg.predict(model, "street.jpg")                     # int32 [H, W]

Importing this package does not import TensorFlow; the first call of a function below does.
"""

from __future__ import annotations

import importlib
import importlib.util

__version__ = "0.1.0"

# name -> module that defines it.
_EXPORTS = {
    "from_preset": "presets",
    "list_presets": "presets",
    "build": "model",
    "load": "model",
    "ModelConfig": "model",
    "predict": "prediction",
}
__all__ = [*_EXPORTS, "__version__"]


def __getattr__(name: str):
    if name in _EXPORTS:
        return getattr(importlib.import_module(f"nas_seg.{_EXPORTS[name]}"), name)
    # nas_seg.metrics.ConfusionMatrix and the like work without an import of their own.
    if not name.startswith("_") and importlib.util.find_spec(f"nas_seg.{name}"):
        return importlib.import_module(f"nas_seg.{name}")
    raise AttributeError(f"module 'nas_seg' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_EXPORTS])
