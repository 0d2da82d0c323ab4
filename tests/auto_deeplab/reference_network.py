"""DeepLab's searched networks in TensorFlow's own operations, one at a time: what the layers are compared with.

It reads variables by their TF1 names and sizes as the original does, by 2 n - 1 and n / 2, so it runs on images of
32 k + 1 pixels alone. The original counts H^{l-1} as state 0 and H^{l-2} as state 1; genotypes have it the other way.
"""

from __future__ import annotations

import tensorflow as tf

from nas_seg.utils.dimension import scale_dimension

EPSILON = 1e-3


def network(names: dict, root: str, genotype, images, remove_os32_stride: bool = False) -> list:
    """Images in [-1, 1] -> the outputs of the stem's last two convolutions and of every cell, then the features."""
    x, outputs = images, []
    for i, strides in enumerate((2, 1, 2)):
        x = tf.nn.relu(x) if i else x
        x = _norm(names, f"{root}/conv{i}_bn", _conv(x, names[f"{root}/conv{i}/weights"], strides))
        outputs.append(x)
    outputs, before = outputs[1:], 0
    for i, level in enumerate(genotype.path):
        keeps = remove_os32_stride and 3 in (before, level)
        net, strides = outputs[-1], 2 if level > before and not keeps else 1
        if level < before and not keeps:
            net = _resize(net, 2)
        outputs.append(_cell(names, f"{root}/cell_{i}", genotype.cell, net, outputs[-2], strides))
        before = level
    return [*outputs, tf.nn.relu(outputs[-1])]


def _cell(names, scope, blocks, net, previous, strides):
    filters = names[f"{scope}/1x1/weights"].shape[-1]
    if previous.shape[2] != net.shape[2]:
        previous = tf.compat.v1.image.resize_bilinear(previous, net.shape[1:3], align_corners=True)
    if previous.shape[3] != filters:
        previous = _norm(names, f"{scope}/prev_bn", _conv(tf.nn.relu(previous), names[f"{scope}/prev_1x1/weights"]))
    net = _norm(names, f"{scope}/beginning_bn", _conv(tf.nn.relu(net), names[f"{scope}/1x1/weights"]))
    states = [previous, net]
    for b, block in enumerate(blocks):
        states.append(
            sum(
                _op(names, f"{scope}/comb_iter_{b}/{side}", op, states[source], strides if source < 2 else 1)
                for side, (source, op) in zip(("left", "right"), block, strict=True)
            )
        )
    return tf.concat(states[2:], axis=-1)


def _op(names, scope, op, x, strides):
    kind, size = op.rsplit("_", 1)
    if kind == "sep_conv":
        for i in (1, 2):
            kernel = names[f"{scope}/separable_{size}_{i}/depthwise_weights"]
            x = _conv(tf.nn.relu(x), kernel, strides if i == 1 else 1, operation=_depthwise)
            x = _conv(x, names[f"{scope}/separable_{size}_{i}/pointwise_weights"])
            x = _norm(names, f"{scope}/bn_sep_{size}_{i}", x)
        return x
    if kind == "dil_conv":
        x = tf.nn.relu(x)
        x = _resize(x, 0.5) if strides == 2 else x
        x = _conv(x, names[f"{scope}/atrous_{size}/weights"], rate=1 if strides == 2 else 2)
        return _norm(names, f"{scope}/bn_atr_{size}", x)
    if kind == "max_pool":
        return tf.nn.max_pool2d(x, 3, strides, "SAME")
    if kind == "avg_pool":
        return tf.nn.avg_pool2d(x, 3, strides, "SAME")
    if strides == 1:
        return x
    return _norm(names, f"{scope}/bn_1", _conv(tf.nn.relu(x), names[f"{scope}/1x1/weights"], strides))


def _depthwise(x, kernel, strides, padding, dilations):
    return tf.nn.depthwise_conv2d(x, kernel, (1, strides, strides, 1), padding, dilations=(dilations, dilations))


def _conv(x, kernel, strides=1, rate=1, operation=tf.nn.conv2d):
    if strides == 1:
        return operation(x, kernel, 1, "SAME", dilations=rate)
    pad = kernel.shape[0] - 1
    padding = (pad // 2, pad - pad // 2)
    return operation(tf.pad(x, ((0, 0), padding, padding, (0, 0))), kernel, strides, "VALID", dilations=1)


def _norm(names, scope, x):
    mean, variance, offset, scale = (
        names[f"{scope}/{name}"] for name in ("moving_mean", "moving_variance", "beta", "gamma")
    )
    return tf.nn.batch_normalization(x, mean, variance, offset, scale, EPSILON)


def _resize(x, scale):
    size = [scale_dimension(n, scale) for n in x.shape[1:3]]
    return tf.compat.v1.image.resize_bilinear(x, size, align_corners=True)
