"""Which devices a training runs on: tf.distribute strategies by name."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import tensorflow as tf

from nas_seg.utils.errors import InputError, unknown


def get_strategy(name: str = "auto") -> tf.distribute.Strategy:
    """The strategy of a name; make it before anything else of TensorFlow runs.

    - "one_device": the first GPU, or the CPU.
    - "mirrored": every GPU of this machine, or every logical CPU where there is no GPU.
    - "multi_worker": one process a machine, as the environment variable TF_CONFIG lists them.
    - "tpu": every core of the attached TPU. It has not been run on one.
    - "auto": multi_worker where TF_CONFIG lists several workers, mirrored where there are several GPUs,
      else one_device.

    Raises:
        InputError: for another name, or where the machine lacks what the name asks for.
    """
    if name == "auto":
        name = _choice()
    if name not in _STRATEGIES:
        raise unknown("strategy", name, ("auto", *_STRATEGIES))
    return _STRATEGIES[name]()


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes the files of a training: true of one process among all workers."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return True
    if resolver.task_type == "worker":
        return resolver.task_id == 0 and not resolver.cluster_spec().as_dict().get("chief")
    return resolver.task_type == "chief"


def _choice() -> str:
    if sum(len(_cluster().get(kind, ())) for kind in ("chief", "worker")) > 1:
        return "multi_worker"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "one_device"


def _cluster() -> dict:
    text = os.environ.get("TF_CONFIG", "") or "{}"
    try:
        return dict(json.loads(text).get("cluster", {}))
    except (ValueError, AttributeError, TypeError):
        raise InputError(f"TF_CONFIG: expected a JSON object with 'cluster' and 'task', received {text!r}") from None


def _mirrored() -> tf.distribute.Strategy:
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def _multi_worker() -> tf.distribute.Strategy:
    if not _cluster():
        raise InputError("strategy 'multi_worker': expected the environment variable TF_CONFIG to list the workers")
    return tf.distribute.MultiWorkerMirroredStrategy()


def _tpu() -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu="local")
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, tf.errors.OpError) as error:
        raise InputError(f"strategy 'tpu': no TPU is attached ({error})") from None
    return tf.distribute.TPUStrategy(resolver)


_STRATEGIES: dict[str, Callable[[], tf.distribute.Strategy]] = {
    "one_device": tf.distribute.get_strategy,
    "mirrored": _mirrored,
    "multi_worker": _multi_worker,
    "tpu": _tpu,
}
