"""The networks on Keras' other backends compute what they compute on TensorFlow, and learn there."""

import importlib.util
import os
import subprocess
import sys

import backends
import numpy as np
import pytest
import tensorflow as tf
from case import REPOSITORY

from nas_seg.losses import MaskedCrossEntropy


@pytest.fixture(scope="module", params=["jax", "torch"])
def computed(request, tmp_path_factory):
    """What `backends` writes on another backend, by the name of the network."""
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"the package {request.param} is not installed")
    folder = tmp_path_factory.mktemp(request.param)
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests"), *filter(None, sys.path)])
    environment = os.environ | {"KERAS_BACKEND": request.param, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
    # Code that is compiled quickly; it runs once.
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    command = [sys.executable, str(REPOSITORY / "tests" / "backends.py"), str(folder)]
    subprocess.run(command, env=environment, check=True)
    return {name: dict(np.load(folder / f"{name}.npz")) for name in backends.NETWORKS}


@pytest.mark.parametrize("name", backends.NETWORKS)
def test_a_network_computes_and_learns_on_another_backend_as_on_tensorflow(computed, name):
    model, (images, labels), there = backends.build(name), backends.batch(), computed[name]
    # Float32 sums in other orders.
    logits = model(images, training=False)
    np.testing.assert_allclose(there["logits"], logits, rtol=0, atol=3e-5 * np.std(logits))
    with tf.GradientTape() as tape:
        loss = MaskedCrossEntropy(backends.IGNORE)(labels, model(images, training=True))
    assert float(there["loss"]) == pytest.approx(float(loss), rel=1e-5)
    gradients = tape.gradient(loss, [variable.value for variable in model.trainable_weights])
    moved = [there[f"w{i:03d}"] - before.numpy() for i, before in enumerate(model.trainable_weights)]
    steps = np.concatenate([step.ravel() for step in moved])
    expected = np.concatenate([-0.01 * tf.convert_to_tensor(gradient).numpy().ravel() for gradient in gradients])
    # Statistics of a few numbers enlarge what differs.
    assert np.linalg.norm(steps - expected) < 1e-3 * np.linalg.norm(expected)
