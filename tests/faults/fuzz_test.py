"""Mutated genotypes, configurations and records: InputError and nothing else, whatever stands in them."""

import copy
import json

import hypothesis
import pytest
import small_data
import tensorflow as tf
from hypothesis import strategies as st
from trouble import SEED, count

from nas_seg import model as model_lib
from nas_seg.auto_deeplab import genotype as auto_deeplab
from nas_seg.auto_deeplab.search_config import SearchConfig
from nas_seg.auto_deeplab.search_run import StoredSplit
from nas_seg.datasets import example, pictures
from nas_seg.datasets.descriptors import DatasetDescriptor, SplitInfo
from nas_seg.datasets.records import READ_ERRORS
from nas_seg.dpc import genotype as dpc
from nas_seg.presets import network
from nas_seg.template import genotype as template
from nas_seg.train_config import TrainConfig
from nas_seg.utils import config, runs
from nas_seg.utils.errors import InputError

pytestmark = pytest.mark.faults


def fuzz(*strategies):
    """What runs a test with `count("fuzz")` examples of the strategies, the same ones unless a seed is given."""
    settings = hypothesis.settings(
        max_examples=count("fuzz"),
        derandomize=not SEED,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )

    def run(test):
        @settings
        @hypothesis.seed(SEED)
        @hypothesis.given(*strategies)
        def one(example):
            test(example)

        one()

    return run


# (where from 0 to 1, how many bytes are taken out there, what is put in)
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 9), st.binary(max_size=9)), min_size=1, max_size=4)
NUMBERS = st.integers() | st.floats() | st.sampled_from([10**400, -1, 2**63])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=6,
)


def edit(data, edits):
    """Bytes with some taken out and others put in."""
    for where, less, more in edits:
        place = int(where * len(data))
        data = data[:place] + more + data[place + less :]
    return data


def places(data):
    """Every (container, key) of parsed JSON."""
    keys = list(data) if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
    return [(data, key) for key in keys] + [place for key in keys for place in places(data[key])]


@st.composite
def mutated(draw, documents):
    """Bytes of a document, of which some values are others, twice there, missing, or under another name."""
    data = {"": copy.deepcopy(draw(st.sampled_from(documents)))}
    for _ in range(draw(st.integers(1, 3))):
        found = places(data)
        container, key = found[draw(st.integers(0, len(found) - 1))]
        action = draw(st.sampled_from(["replace", "replace", "delete", "double", "rename", "move"]))
        if action == "replace" or container is data:
            container[key] = draw(VALUES)
        elif action == "move":
            other, place = found[draw(st.integers(0, len(found) - 1))]
            container[key] = copy.deepcopy(other[place])
        elif isinstance(container, list):
            container[key : key + 1] = [container[key]] * (2 * (action == "double"))
        else:
            value = container.pop(key)
            if action != "delete":
                container[draw(st.text(max_size=9)) if action == "rename" else key + "s"] = value
    return json.dumps(data[""]).encode()


def documents_of(*values):
    return [{"format_version": 1} | config.to_json(value) for value in values]


CELL = dpc.published("cityscapes_top1")
NETWORK = auto_deeplab.published("auto_deeplab")
TEMPLATE = template.published("arch0")
GENOTYPES = [*documents_of(CELL, NETWORK, TEMPLATE), CELL.to_list(), TEMPLATE.to_lists()]
SPLIT = SplitInfo(4, 1, True, "0123456789ab", (12, 16), (12, 16))
NETWORKS = ("dpc_xception_71", "auto_deeplab_s", "template_arch0", "deeplabv3plus_resnet_v1_50_beta")
RUNS = [
    {"format_version": 1, "train": config.to_json(TrainConfig()), "dataset_dir": "records"}
    | {"model": config.to_json(model_lib.ModelConfig(19, network(name)))}
    for name in NETWORKS
]
CONFIGS = {
    SearchConfig: documents_of(SearchConfig()),
    StoredSplit: documents_of(StoredSplit("train", "0" * 12, 0, (0, 2), (1, 3))),
    DatasetDescriptor: documents_of(
        DatasetDescriptor("d", 2, ("a", "b"), ((0, 0, 0), (9, 9, 9)), 255, {"train": SPLIT})
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def read_or_refuse(read, path, data):
    """What is read of a file with such content; None where it is refused as it should be."""
    path.write_bytes(data)
    try:
        return read(path)
    except InputError as problem:
        assert str(path.parent) in str(problem), problem
        return None


def check_genotype(folder, data):
    found = read_or_refuse(model_lib.read_genotype, folder / "genotype.json", data)
    if found is not None:
        # What is taken is a genotype: it can be told, written and read again.
        genotype = getattr(found, "genotype", None) or found.backbone.genotype
        assert genotype.summary()
        genotype.save(folder / "again.json")
        assert type(genotype).load(folder / "again.json") == genotype


def test_genotypes_of_all_families_are_read_or_refused(folder):
    mangled = st.builds(edit, st.sampled_from([json.dumps(document).encode() for document in GENOTYPES]), EDITS)
    fuzz(mutated(GENOTYPES) | mangled)(lambda data: check_genotype(folder, data))


def check_run(folder, data):
    for name, annotation in (("model", model_lib.ModelConfig), ("train", TrainConfig), ("dataset_dir", str)):
        read_or_refuse(
            lambda path, n=name, a=annotation: runs.read_section(path.parent, n, a), folder / runs.CONFIG, data
        )


def test_configurations_of_runs_are_read_or_refused(folder):
    mangled = st.builds(edit, st.sampled_from([json.dumps(document).encode() for document in RUNS]), EDITS)
    fuzz(mutated(RUNS) | mangled)(lambda data: check_run(folder, data))


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__name__)
def test_other_configurations_are_read_or_refused(kind, folder):
    mangled = st.builds(edit, st.just(json.dumps(CONFIGS[kind][0]).encode()), EDITS)
    read = lambda path: config.load(path, kind)  # noqa: E731
    fuzz(mutated(CONFIGS[kind]) | mangled)(lambda data: read_or_refuse(read, folder / "config.json", data))


(PAIR,) = small_data.pairs([(12, 16)])
JPEG = pictures.encode_jpeg(pictures.decode_image(PAIR.image, "").array)
RECORDS = [
    example.encode(image, PAIR.label, name="p", image_format=kind, size=(12, 16))
    for image, kind in ((PAIR.image, "png"), (JPEG, "jpeg"))
]


@st.composite
def mutated_records(draw):
    """A tf.Example with other bytes, or one whose pictures or features are others."""
    serialized = draw(st.sampled_from(RECORDS))
    if draw(st.booleans()):
        return edit(serialized, draw(EDITS))
    record = tf.train.Example.FromString(serialized)
    feature = record.features.feature
    for _ in range(draw(st.integers(1, 2))):
        key = draw(st.sampled_from(sorted(feature)))
        action = draw(st.sampled_from(["edit", "edit", "delete", "double", "empty", "numbers", "bytes", "swap"]))
        held = feature[key].bytes_list.value
        if action == "edit" and held:
            held[0] = edit(held[0], draw(EDITS))
        elif action == "delete":
            del feature[key]
        elif action == "double" and held:
            held.append(held[0])
        elif action == "numbers":
            feature[key].int64_list.value[:] = draw(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3))
        elif action == "bytes":
            feature[key].bytes_list.value[:] = draw(st.lists(st.binary(max_size=9), max_size=3))
        elif action == "swap":
            feature[key].CopyFrom(feature[draw(st.sampled_from(sorted(feature)))])
        else:
            feature[key].Clear()
        if not feature:
            break
    return record.SerializeToString()


@pytest.fixture(scope="module")
def parse():
    """How a training reads a record."""
    signature = [tf.TensorSpec([], tf.string)]
    return tf.function(
        lambda record: example.parse(record, has_label=True, ignore_label=255), input_signature=signature
    )


def check_record(parse, serialized):
    try:
        parse(tf.constant(serialized))
        parsed = True
    except READ_ERRORS:
        parsed = False
    try:
        record = example.decode(serialized, "here")
    except InputError as problem:
        assert str(problem).startswith("here: ") and "\n" not in str(problem), problem
    else:
        # What stops a training is what the check, which can name the record, finds too.
        assert parsed or record.label is None, serialized


def test_records_are_read_or_refused_and_what_a_training_cannot_read_the_check_finds(parse):
    fuzz(mutated_records())(lambda serialized: check_record(parse, serialized))
