"""The logits of a network at its own stride, or brought to the size of the image in another way."""

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


def corner_rules(model: keras.Model) -> list[bool | None]:
    """For each output of a model whether the bilinear `ResizeLike` that it comes from aligns corners.

    None for outputs that come from no such layer.
    """
    layers = [layer for layer in model.layers if isinstance(layer, ResizeLike) and not layer.nearest]
    rules = {id(layer.output): layer.align_corners for layer in layers}
    return [rules.get(id(output)) for output in model.outputs]


def nearest_logits(model: keras.Model) -> keras.Model:
    """The same network, whose logits are brought to the size of the image by the nearest and not bilinearly.

    Their arg-max is that of the native logits, enlarged.

    Args:
        model: images [B, H, W, 3] -> logits [B, H, W, C].
    """
    last = next(
        (layer for layer in model.layers if isinstance(layer, ResizeLike) and layer.output is model.output), None
    )
    if last is None:
        return model
    resize = ResizeLike(last.align_corners, nearest=True, dtype="float32")
    return keras.Model(model.input, resize([last.input[0], model.input]))
