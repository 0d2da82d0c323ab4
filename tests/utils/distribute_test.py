import json
import types

import pytest
import tensorflow as tf

from nas_seg.utils import distribute
from nas_seg.utils.errors import InputError


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)


@pytest.mark.parametrize("name", ["none", "one_device"])
def test_one_device_is_the_default_strategy(name):
    assert distribute.get_strategy(name) is tf.distribute.get_strategy()
    assert distribute.is_chief(distribute.get_strategy(name))
    assert distribute.num_workers(distribute.get_strategy(name)) == 1


def test_mirrored_spans_the_devices_of_this_machine():
    strategy = distribute.get_strategy("mirrored")
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    assert isinstance(strategy, tf.distribute.MirroredStrategy)
    assert strategy.num_replicas_in_sync == len(devices)
    assert distribute.is_chief(strategy)
    assert distribute.num_workers(strategy) == 1


def test_auto_takes_the_gpus_there_are(monkeypatch):
    for gpus, expected in [(0, "none"), (1, "none"), (2, "mirrored")]:
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind, gpus=gpus: [kind] * gpus)
        assert distribute._choice() == expected


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [
        ({"worker": ["a:1", "b:1"]}, "multi_worker"),
        ({"chief": ["a:1"], "worker": ["b:1"]}, "multi_worker"),
        ({"worker": ["a:1"]}, "none"),
    ],
)
def test_auto_follows_the_workers_that_tf_config_lists(monkeypatch, cluster, expected):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster}))
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    assert distribute._choice() == expected


@pytest.mark.parametrize(
    ("cluster", "task", "expected"),
    [
        ({"worker": ["a:1", "b:1"]}, ("worker", 0), True),
        ({"worker": ["a:1", "b:1"]}, ("worker", 1), False),
        ({"chief": ["a:1"], "worker": ["b:1"]}, ("worker", 0), False),
        ({"chief": ["a:1"], "worker": ["b:1"]}, ("chief", 0), True),
    ],
)
def test_exactly_one_process_is_the_chief(cluster, task, expected):
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(cluster), task_type=task[0], task_id=task[1]
    )
    assert distribute.is_chief(types.SimpleNamespace(cluster_resolver=resolver)) == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mirored", "unknown strategy 'mirored'.*Did you mean 'mirrored'"),
        ("multi_worker", "expected the environment variable TF_CONFIG to list the workers"),
    ],
)
def test_a_strategy_that_cannot_be_had_is_named(name, message):
    with pytest.raises(InputError, match=message):
        distribute.get_strategy(name)


@pytest.mark.parametrize(("tpu", "environment", "expected"), [
    (None, None, "local"), (None, "pod-3", "pod-3"), ("grpc://10.0.0.2:8470", "pod-3", "grpc://10.0.0.2:8470"),
])  # fmt: skip
def test_a_tpu_that_is_not_there_is_named(monkeypatch, tpu, environment, expected):
    asked = []

    def resolver(tpu):
        asked.append(tpu)
        raise ValueError("no such\nTPU")

    monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", resolver)
    monkeypatch.delenv("TPU_NAME", raising=False)
    if environment:
        monkeypatch.setenv("TPU_NAME", environment)
    with pytest.raises(InputError, match=rf"expected a TPU '{expected}', found none \(no such TPU\)"):
        distribute.get_strategy("tpu", tpu)
    assert asked == [expected]


def test_the_name_of_a_tpu_needs_its_strategy():
    with pytest.raises(InputError, match="tpu: expected none with strategy 'none', received 'pod-3'"):
        distribute.get_strategy("auto", "pod-3")


@pytest.mark.parametrize("text", ["{", "[1]", '{"cluster": 3}'])
def test_a_broken_cluster_description_is_refused(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(InputError, match="TF_CONFIG: expected a JSON object"):
        distribute.get_strategy("auto")
