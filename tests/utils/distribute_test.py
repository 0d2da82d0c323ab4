import json
import types

import pytest
import tensorflow as tf

from nas_seg.utils import distribute
from nas_seg.utils.errors import InputError


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)


def test_one_device_is_the_default_strategy():
    assert distribute.get_strategy("one_device") is tf.distribute.get_strategy()
    assert distribute.is_chief(distribute.get_strategy("one_device"))


def test_mirrored_spans_the_devices_of_this_machine():
    strategy = distribute.get_strategy("mirrored")
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    assert isinstance(strategy, tf.distribute.MirroredStrategy)
    assert strategy.num_replicas_in_sync == len(devices)
    assert distribute.is_chief(strategy)


def test_auto_takes_the_gpus_there_are(monkeypatch):
    for gpus, expected in [(0, "one_device"), (1, "one_device"), (2, "mirrored")]:
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind, gpus=gpus: [kind] * gpus)
        assert distribute._choice() == expected


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [
        ({"worker": ["a:1", "b:1"]}, "multi_worker"),
        ({"chief": ["a:1"], "worker": ["b:1"]}, "multi_worker"),
        ({"worker": ["a:1"]}, "one_device"),
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


@pytest.mark.parametrize("text", ["{", "[1]", '{"cluster": 3}'])
def test_a_broken_cluster_description_is_refused(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(InputError, match="TF_CONFIG: expected a JSON object"):
        distribute.get_strategy("auto")
