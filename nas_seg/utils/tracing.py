"""Graphs that live too short for TensorFlow's optimiser."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def quick_tracing() -> Iterator[None]:
    """Within it TensorFlow runs graphs of this process as they are traced.

    Its graph optimiser takes a time with each function that a graph of thousands of operations needs long to win back:
    over a supernet longer than tracing does. Every call of such a function belongs within: it is optimised when it is
    first called.
    """
    import tensorflow as tf

    option = "disable_meta_optimizer"
    before = tf.config.optimizer.get_experimental_options().get(option, False)
    tf.config.optimizer.set_experimental_options({option: True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({option: before})
