"""Whole pictures of any size through a network that was made for sizes of k * stride + 1.

With aligned corners the features of a picture of 145 rows lie on rows 0, 16, ... 144. On 144 rows TensorFlow's SAME
padding puts them elsewhere, the resize of the logits does not know, and the prediction is shifted by up to half a
feature: several points of mIoU. DeepLab pads every picture to such a size (its eval_crop_size), and so does this.
"""

from __future__ import annotations

from keras import ops

from nas_seg.core.backbones import mean_pixel

# Sizes of 32 k + 1 are good for every output stride.
_GRID = 32
_GREY = (127.5, 127.5, 127.5)


def padded_logits(model, images):
    """Logits of images padded at the bottom and the right to sizes 32 k + 1, cut back to the images' size.

    Args:
        model: a keras.Model, images [B, H, W, 3] in [0, 255] -> logits [B, H, W, C]; used for inference. Images
            are padded with the pixel that its layer "normalize" maps to 0, mid-grey where it has none.
        images: float [B, H, W, 3] of any size.

    Returns:
        float32 [B, H, W, C].
    """
    height, width = ops.shape(images)[1:3]
    padding = [(0, 0), (0, _missing(height)), (0, _missing(width)), (0, 0)]
    normalize = next((layer for layer in model.layers if layer.name == "normalize"), None)
    pixel = ops.convert_to_tensor(mean_pixel(normalize) if normalize else _GREY, images.dtype)
    # ops.pad takes no tensors for a constant on every backend; shifted by the pixel, the constant is 0.
    padded = ops.pad(images - pixel, padding) + pixel
    return model(padded, training=False)[:, :height, :width]


def _missing(size):
    """Rows or columns from `size` up to the next 32 k + 1."""
    return (1 - size) % _GRID
