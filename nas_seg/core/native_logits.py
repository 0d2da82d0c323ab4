"""The logits of a network at its own stride, before they are brought to the size of the image."""

from __future__ import annotations

import keras

from nas_seg.core.resize import ResizeLike


def native_logits(model: keras.Model) -> keras.Model:
    """The same network without the resizes that its outputs come from.

    Args:
        model: images [B, H, W, 3] -> logits [B, H, W, C], one output or several; those that are no result of a
            `ResizeLike` stay as they are.

    Returns:
        A model of the same layers, images -> logits [B, h, w, C], or a list of them.
    """
    own = {id(layer.output): layer.input[0] for layer in model.layers if isinstance(layer, ResizeLike)}
    outputs = [own.get(id(output), output) for output in model.outputs]
    return keras.Model(model.input, outputs if outputs[1:] else outputs[0])
