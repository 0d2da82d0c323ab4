"""The supernet of Auto-DeepLab as the paper writes it: one op at a time, one edge at a time, one cell at a time.

Slow, and short enough to be checked against the equations by eye. It reads the weights of a `Supernet`; what the
paper leaves open is as in nas_seg/auto_deeplab/README.md. Choices of one op an edge and of a single path come in as
probabilities of 0 and 1.
"""

from __future__ import annotations

import tensorflow as tf

EPSILON = 1e-5


def normalize(x):
    """Batch normalisation with the statistics of the batch, without gamma and beta."""
    mean, variance = tf.nn.moments(x, (0, 1, 2), keepdims=True)
    return (x - mean) / tf.sqrt(variance + EPSILON)


def conv(x, kernel, rate=1, strides=1):
    """A convolution, SAME; with a rate weight by weight, which knows gradients also in float64."""
    if rate == 1:
        return tf.nn.conv2d(x, kernel, strides, "SAME")
    reach = kernel.shape[0] // 2 * rate
    padded = tf.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    rows, columns = ([i * rate for i in range(size)] for size in kernel.shape[:2])
    height, width = x.shape[1:3]
    return tf.add_n(
        [
            padded[:, row : row + height, column : column + width] @ kernel[row // rate, column // rate]
            for row in rows
            for column in columns
        ]
    )


def separable(x, kernels):
    """(ReLU, depthwise, pointwise, BN) twice."""
    for depthwise, pointwise in (kernels[:2], kernels[2:]):
        x = tf.nn.depthwise_conv2d(tf.nn.relu(x), depthwise, (1, 1, 1, 1), "SAME")
        x = normalize(conv(x, pointwise))
    return x


def atrous(x, kernels):
    """ReLU, dense convolution at rate 2, BN."""
    return normalize(conv(tf.nn.relu(x), kernels[0], rate=2))


# Name of an op -> function of (x, kernels of that op on that edge).
OPS = {
    "none": lambda x, _: tf.zeros_like(x),
    "max_pool_3x3": lambda x, _: normalize(tf.nn.max_pool2d(x, 3, 1, "SAME")),
    "avg_pool_3x3": lambda x, _: normalize(tf.nn.avg_pool2d(x, 3, 1, "SAME")),
    "skip_connect": lambda x, _: x,
    "sep_conv_3x3": separable,
    "sep_conv_5x5": separable,
    "dil_conv_3x3": atrous,
    "dil_conv_5x5": atrous,
}


def mixed_op(x, probabilities, ops, kernels):
    """Eq. 2: the sum over all ops of an edge.

    Args:
        x: [N, H, W, c].
        probabilities: [len(ops)].
        ops: names.
        kernels: name -> kernels.
    """
    return tf.add_n([probabilities[k] * OPS[op](x, kernels.get(op)) for k, op in enumerate(ops)])


def cell(s0, s1, alpha, ops, kernels, num_blocks):
    """Eq. 1 to 5. s0 is None where H^{l-2} does not exist: its edges are left out.

    Args:
        alpha: [edges, ops], softmaxed; edges block by block, inputs in order.
        kernels: edge -> name -> kernels.
    """
    states, edge = [s0, s1], 0
    for block in range(num_blocks):
        terms = []
        for source in range(block + 2):
            if states[source] is not None:
                terms.append(mixed_op(states[source], alpha[edge], ops, kernels[edge]))
            edge += 1
        states.append(tf.add_n(terms))
    return tf.concat(states[2:], -1)


def kernels_of_edges(cell_weights, ops, num_blocks):
    """The kernels of a cell of a `Supernet`, taken apart: edge -> op -> kernels as the functions above take them."""
    found = {}
    for block in range(num_blocks):
        for source in range(block + 2):
            kernels = cell_weights["inputs"].get(str(source), {})
            # The blocks that read an input are consecutive, and their kernels lie one after another.
            position = block - max(source - 1, 0)
            found[len(found)] = {op: _own(kernels[op], position) for op in ops if op in kernels}
    return found


def _own(kernels, position):
    kernels = {name: tf.convert_to_tensor(value) for name, value in kernels.items()}
    if "kernel" in kernels:
        channels = kernels["kernel"].shape[2]
        return [kernels["kernel"][..., position * channels : (position + 1) * channels]]
    depthwise = kernels["depthwise"][:, :, :, position, :, None]
    pointwise = kernels["pointwise"][:, None, None, :, position]
    return [depthwise[0], pointwise[0], depthwise[1], pointwise[1]]


def bilinear(x, size):
    """Aligned corners, pixel by pixel: every output is a weighted mean of the four inputs around it."""
    for axis, target in ((1, size[0]), (2, size[1])):
        step = (x.shape[axis] - 1) / max(target - 1, 1)
        slices = []
        for place in (index * step for index in range(target)):
            low = min(int(place), x.shape[axis] - 1)
            high = min(low + 1, x.shape[axis] - 1)
            before, after = tf.gather(x, low, axis=axis), tf.gather(x, high, axis=axis)
            slices.append(before * (1 - place + low) + after * (place - low))
        x = tf.stack(slices, axis)
    return x


def resample(x, kernel, direction, size):
    """ReLU; H^{l-1} down by a convolution of stride 2, up by bilinear interpolation and a 1x1 convolution; BN."""
    x = tf.nn.relu(x)
    if direction == "down":
        return normalize(conv(x, kernel, strides=2))
    return normalize(conv(bilinear(x, size) if direction == "up" else x, kernel[None, None]))


def outgoing(beta):
    """Eq. 7 for one layer, [4, 3] -> {(from, to): weight}, softmax over the edges that leave a level."""
    weights = {}
    for level in range(4):
        ends = [level + k - 1 for k in range(3) if 0 <= level + k - 1 <= 3]
        shares = tf.nn.softmax([beta[level, end - level + 1] for end in ends])
        weights |= {(level, end): shares[i] for i, end in enumerate(ends)}
    return weights


def supernet(net, images, alpha=None):
    """Logits of a `Supernet`, eq. 6 node by node and edge by edge.

    Args:
        alpha: probabilities [edges, ops], default the softmax of the net's.
    """
    alpha = tf.nn.softmax(tf.convert_to_tensor(net.alpha)) if alpha is None else alpha
    beta, nodes, hidden = tf.convert_to_tensor(net.beta), net._nodes, {}
    hidden[-1, 0] = stem(net, images)
    sizes = {0: hidden[-1, 0].shape[1:3]}
    for layer in range(net.num_layers):
        weights = outgoing(beta[layer])
        for level in range(min(layer + 1, 3) + 1):
            # A coarser level is half the finer one, rounded up, as stride-2 convolutions make it.
            sizes.setdefault(level, [-(-side // 2) for side in sizes.get(level - 1, ())])
            before = hidden.get((layer - 2, level))
            terms = []
            entered = [source for source in (level - 1, level, level + 1) if (layer - 1, source) in hidden]
            for index, source in enumerate(entered):
                own = nodes[layer, level]["cells"][index if len(nodes[layer, level]["cells"]) > 1 else 0]
                entry = tf.convert_to_tensor(nodes[layer, level]["entries"][index])
                direction = {-1: "down", 0: "same", 1: "up"}[source - level]
                s1 = resample(hidden[layer - 1, source], entry, direction, sizes[level])
                s0 = None
                if before is not None:
                    s0 = resample(before, tf.convert_to_tensor(own["before"]), "same", sizes[level])
                kernels = kernels_of_edges(own, net.ops, net.num_blocks)
                terms.append(weights[source, level] * cell(s0, s1, alpha, net.ops, kernels, net.num_blocks))
            hidden[layer, level] = tf.add_n(terms)
    return tf.add_n(
        [
            bilinear(aspp(net, hidden[net.num_layers - 1, level], level), images.shape[1:3])
            for level in range(min(net.num_layers, 3) + 1)
        ]
    )


def stem(net, images):
    """Two convolutions of stride 2."""
    x = images / 127.5 - 1
    first, second = (tf.convert_to_tensor(kernel) for kernel in net._stem)
    return normalize(conv(tf.nn.relu(normalize(conv(x, first, strides=2))), second, strides=2))


def aspp(net, x, level):
    """1x1, 3x3 at rate 96 / s, image pooling; concatenated, then the classes."""
    kernels = {name: tf.convert_to_tensor(value) for name, value in net._heads[level].items()}
    x = tf.nn.relu(x)
    point = tf.nn.relu(normalize(conv(x, kernels["point"][None, None])))
    atrous = tf.nn.relu(normalize(conv(x, kernels["atrous"], rate=96 // (4 * 2**level))))
    pooled = tf.reduce_mean(x, (1, 2), keepdims=True)
    pooled = tf.nn.relu(conv(pooled, kernels["pooled"][None, None]) + kernels["pooled_bias"])
    features = tf.concat([point, atrous, pooled + tf.zeros_like(point)], -1)
    return conv(features, kernels["logits"][None, None]) + kernels["logits_bias"]
