"""What the tests of several folders share."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import zlib

import numpy as np
import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
GOLDEN = REPOSITORY / "tests" / "golden"


def fixtures(*parts: str) -> pathlib.Path:
    """A path below $NAS_SEG_FIXTURES; skips the test, saying so, where that is not set."""
    folder = os.environ.get("NAS_SEG_FIXTURES")
    if not folder:
        pytest.skip("recorded cases: NAS_SEG_FIXTURES names no folder")
    path = pathlib.Path(folder, *parts)
    if not path.exists():
        pytest.skip(f"recorded cases: {path} is not there")
    return path


def run_tool(tool: str, *arguments, columns: int = 60) -> subprocess.CompletedProcess:
    """tools/TOOL.py as a user runs it, in a terminal of so many columns: a narrow one must hide no name or number."""
    return subprocess.run(
        [sys.executable, f"tools/{tool}.py", *map(str, arguments)],
        cwd=REPOSITORY,
        # A pipe would have no progress.
        env=os.environ | {"COLUMNS": str(columns), "NAS_SEG_PROGRESS": "lines"},
        capture_output=True,
        text=True,
    )


def succeed(tool: str, *arguments) -> str:
    """What a tool prints that ends well."""
    done = run_tool(tool, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refuse(tool: str, *arguments) -> str:
    """The one line with which a tool refuses its arguments."""
    done = run_tool(tool, *arguments)
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def recipe_value(name: str, shape, rules, seed: int = 0) -> np.ndarray:
    """The weights that the recorded cases were computed with: a pure function of name and shape.

    Gamma and moving variance are uniform in [0.5, 1.5], beta, moving mean and biases normal with sd 0.1, kernels
    normal with variance gain / fan_in; `rules` lists (pattern, depthwise gain, pointwise gain), first match wins.
    """
    random = np.random.RandomState((zlib.crc32(name.encode()) + seed) & 0xFFFFFFFF)
    leaf = name.rsplit("/", 1)[-1]
    _, depthwise, pointwise = next(rule for rule in rules if re.search(rule[0], name))
    if leaf in ("gamma", "moving_variance"):
        return random.uniform(0.5, 1.5, shape).astype(np.float32)
    if leaf in ("beta", "moving_mean", "biases"):
        return random.normal(0.0, 0.1, shape).astype(np.float32)
    is_depthwise = leaf == "depthwise_weights"
    gain, fan_in = (depthwise, np.prod(shape[:2])) if is_depthwise else (pointwise, np.prod(shape[:-1]))
    return random.normal(0.0, np.sqrt(gain / fan_in), shape).astype(np.float32)


def run_layer_test(layer_class, arguments: dict, input_shape: tuple, output_shape: tuple, trainable: int):
    """Checks a layer's contract: shapes, weight counts, config round trip, a training step, mixed precision.

    Args:
        layer_class: a registered keras layer.
        arguments: of its constructor.
        input_shape: of one input, with the batch.
        output_shape: expected, with the batch.
        trainable: expected number of trainable weights (arrays).
    """
    import keras
    import tensorflow as tf

    random = np.random.default_rng(0)
    inputs = random.normal(size=input_shape).astype(np.float32)
    layer = layer_class(**arguments)
    outputs = layer(inputs)
    assert tuple(outputs.shape) == output_shape
    assert tuple(layer.compute_output_shape(input_shape)) == output_shape
    assert len(layer.trainable_weights) == trainable

    symbolic = layer(keras.Input((None, None, input_shape[-1])))
    assert symbolic.shape[-1] == output_shape[-1]

    config = layer.get_config()
    twin = layer_class.from_config(config)
    assert twin.get_config() == config
    twin.build(input_shape)
    twin.set_weights(layer.get_weights())
    np.testing.assert_array_equal(twin(inputs), outputs)
    registered = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(registered) is layer_class

    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(layer(inputs, training=True)))
    gradients = tape.gradient(loss, [v.value for v in layer.trainable_weights])
    assert all(g is not None and np.isfinite(g).all() for g in gradients)

    half = layer_class(**arguments, dtype="mixed_bfloat16")
    assert half(inputs).dtype == tf.bfloat16
    assert all(v.dtype == "float32" for v in half.weights)
