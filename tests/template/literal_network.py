"""A template network as its authors' code runs it, step by step on arrays: what the layers are compared with.

It reads the published lists and PyTorch's names and layout, decides every resize by comparing the sizes at hand, and
slides every window over a padded map at stride 1 before it throws positions away.
"""

from __future__ import annotations

import numpy as np

EPSILON = 1e-5
_UNITS = (("2.0", 1, False), ("3.0", 2, False), ("3.1", 1, True), ("4.0", 2, False), ("4.1", 1, True), ("4.2", 1, True))
_SEPARABLE = {0: (3, 1), 1: (5, 1), 4: (5, 6)}


def network(weights, lists, image, sep_repeats: int) -> dict[str, np.ndarray]:
    """An image [3, H, W] -> the maps of encoder and layers by their recorded names, and the logits."""
    weights = {name: np.asarray(value, np.float64) for name, value in weights.items()}
    found = dict(zip(("enc_0", "enc_1"), _encoder(weights, np.asarray(image, np.float64)), strict=True))
    templates, layers = lists
    pool, read = [found["enc_0"], found["enc_1"]], set()
    for i, (loc1, loc2, template, repeats, stride) in enumerate(layers):
        read |= {loc1, loc2}
        op1, op2, aggregation = templates[template]
        x1, x2 = pool[loc1], pool[loc2]
        larger = i >= len(layers) // 2
        for t in range(repeats + 1):
            name = f"decoder._ops.{i}."
            factor = 2**stride if t == 0 else 1
            y1 = _op(weights, f"{name}{3 * t}.", op1, x1, len(x1) * factor, 2**stride, sep_repeats)
            y2 = _op(weights, f"{name}{3 * t + 1}.", op2, x2, len(x2) * factor, 2**stride, sep_repeats)
            y = _aggregate(weights, f"{name}{3 * t + 2}.", aggregation, y1, y2, larger)
            for key, value in (("op0", y1), ("op1", y2), ("agg", y)):
                found[f"block{i}_rep{t}_{key}"] = value
            x1, x2 = x2, y
        pool.append(y)
    joined = None
    for number in range(2, len(pool)):
        if number not in read:
            joined = pool[number] if joined is None else _join(joined, pool[number])
    found["collect"] = joined
    x = _conv_norm(weights, "decoder.pre_clf.0", "decoder.pre_clf.1", np.maximum(joined, 0))
    bias = weights["decoder.conv_clf.bias"][:, None, None]
    found["logits"] = _conv(x, weights["decoder.conv_clf.weight"]) + bias
    return found


def _encoder(weights, x):
    x = _conv_norm(weights, "encoder.layer1.0", "encoder.layer1.1", x, strides=2, top=6)
    maps = []
    for place, strides, adds in _UNITS:
        name = f"encoder.layer{place}.conv."
        y = _conv_norm(weights, f"{name}0", f"{name}1", x, top=6)
        y = _norm(weights, f"{name}4", _depthwise(y, weights[f"{name}3.weight"], strides)).clip(0, 6)
        y = _norm(weights, f"{name}7", _conv(y, weights[f"{name}6.weight"]))
        x = x + y if adds else y
        maps.append(x)
    return maps[2], maps[5]


def _op(weights, name, op, x, channels, strides, sep_repeats):
    if op in _SEPARABLE:
        for r in range(sep_repeats):
            x = _depthwise(x, weights[f"{name}op.sep_{r}.0.weight"], strides, _SEPARABLE[op][1])
            x = _conv_norm(weights, f"{name}op.sep_{r}.1", f"{name}op.sep_{r}.2", x)
        return x
    if op == 2:
        pooled = _conv_norm(weights, f"{name}conv1x1.0", f"{name}conv1x1.1", x.mean((1, 2), keepdims=True))
        return pooled * np.ones_like(x[:1])
    if op == 3:
        x = _norm(weights, f"{name}conv1x1.1", _conv(x, weights[f"{name}conv1x1.0.weight"]))
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
        height, width = x.shape[1:]
        windows = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
        return np.max(windows, axis=0)[:, ::strides, ::strides]
    return np.concatenate([x] * (channels // len(x)))


def _aggregate(weights, name, aggregation, x, y, larger):
    channels = max(len(x), len(y))
    x, y = (
        z if len(z) == channels else _conv_norm(weights, f"{name}adapt.conv{i}.0", f"{name}adapt.conv{i}.1", z)
        for i, z in enumerate((x, y))
    )
    size = max(x.shape[1:], y.shape[1:]) if larger else min(x.shape[1:], y.shape[1:])
    x, y = resize(x, size), resize(y, size)
    if aggregation == 0:
        return weights[f"{name}a"][:, None, None] * x + weights[f"{name}b"][:, None, None] * y
    both = np.maximum(_norm(weights, f"{name}conv1x1.0", np.concatenate([x, y])), 0)
    return _conv(both, weights[f"{name}conv1x1.2.weight"])


def _join(x, y):
    # The original compares heights alone, and fails where they are equal and the widths are not.
    size = max(x.shape[1:], y.shape[1:])
    return np.concatenate([resize(x, size), resize(y, size)])


def resize(x, size):
    """[C, h, w] -> [C, *size], bilinear: centres at half pixels, no antialiasing."""
    rows, columns = (_interpolation(old, new) for old, new in zip(x.shape[1:], size, strict=True))
    return rows @ x @ columns.T


def _interpolation(old: int, new: int) -> np.ndarray:
    matrix = np.zeros((new, old))
    for i in range(new):
        position = max((i + 0.5) * old / new - 0.5, 0.0)
        first = int(position)
        matrix[i, first] += 1 - (position - first)
        matrix[i, min(first + 1, old - 1)] += position - first
    return matrix


def _conv_norm(weights, conv, norm, x, strides=1, top=np.inf):
    return _norm(weights, norm, _conv(x, weights[f"{conv}.weight"])[:, ::strides, ::strides]).clip(0, top)


def _norm(weights, name, x):
    gamma, beta, mean, variance = (
        weights[f"{name}.{key}"][:, None, None] for key in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / np.sqrt(variance + EPSILON) * gamma + beta


def _conv(x, kernel):
    taps = _taps(x, kernel.shape[2], 1)
    return sum(np.tensordot(kernel[:, :, i, j], tap, 1) for (i, j), tap in taps)


def _depthwise(x, kernel, strides=1, rate=1):
    taps = _taps(x, kernel.shape[2], rate)
    return sum(kernel[:, :, i, j, None] * tap for (i, j), tap in taps)[:, ::strides, ::strides]


def _taps(x, size, rate):
    """The map shifted for each tap of a kernel, zeros coming in."""
    border, (height, width) = size // 2 * rate, x.shape[1:]
    padded = np.pad(x, ((0, 0), (border, border), (border, border)))
    for i in range(size):
        for j in range(size):
            yield (i, j), padded[:, i * rate : i * rate + height, j * rate : j * rate + width]
