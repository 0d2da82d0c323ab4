"""Which devices a training runs on: tf.distribute strategies by name."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import tensorflow as tf

from nas_seg.utils.errors import InputError, unknown


def get_strategy(name: str = "auto", tpu: str | None = None) -> tf.distribute.Strategy:
    """The strategy of a name; make it before anything else of TensorFlow runs.

    - "none": one device, the first GPU or the CPU; "one_device" is the same.
    - "mirrored": every GPU of this machine, or every logical CPU where there is no GPU.
    - "multi_worker": one process a machine, as the environment variable TF_CONFIG lists them.
    - "tpu": every core of a TPU. It has not been run on one.
    - "auto": multi_worker where TF_CONFIG lists several workers, mirrored where there are several GPUs,
      else none.

    Args:
        name: see above.
        tpu: of "tpu": its name or grpc address; "local" is the one attached to this machine. None: what the environment
            variable TPU_NAME says, or "local".

    Raises:
        InputError: for another name, or where the machine lacks what the name asks for.
    """
    if name == "auto":
        name = _choice()
    if name not in _STRATEGIES:
        raise unknown("strategy", name, ("auto", *_STRATEGIES))
    if tpu and name != "tpu":
        raise InputError(f"tpu: expected none with strategy {name!r}, received {tpu!r}")
    return _tpu(tpu or os.environ.get("TPU_NAME") or "local") if name == "tpu" else _STRATEGIES[name]()


def num_workers(strategy: tf.distribute.Strategy) -> int:
    """How many processes train together."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 1
    cluster = strategy.cluster_resolver.cluster_spec().as_dict()
    return sum(len(cluster.get(kind, ())) for kind in _KINDS)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes the files of a training: true of one process among all workers."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return True
    if resolver.task_type == "worker":
        return resolver.task_id == 0 and not resolver.cluster_spec().as_dict().get("chief")
    return resolver.task_type == "chief"


def _choice() -> str:
    if sum(len(_cluster().get(kind, ())) for kind in _KINDS) > 1:
        return "multi_worker"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "none"


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


def _tpu(name: str) -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, OSError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"strategy 'tpu': expected a TPU {name!r}, found none ({reason})") from None
    return tf.distribute.TPUStrategy(resolver)


_STRATEGIES: dict[str, Callable[..., tf.distribute.Strategy]] = {
    "none": tf.distribute.get_strategy,
    "one_device": tf.distribute.get_strategy,
    "mirrored": _mirrored,
    "multi_worker": _multi_worker,
    "tpu": _tpu,
}
# Of the processes in TF_CONFIG, those that train.
_KINDS = ("chief", "worker")
