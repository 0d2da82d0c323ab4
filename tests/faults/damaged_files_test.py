"""Files cut short or with a flipped bit: one line that names them, or the last good ones; never a new beginning."""

import contextlib
import pathlib
import shutil

import h5py
import numpy as np
import pytest
import small_data
import tensorflow as tf
import training
from table_problem import WordSpace, evaluate
from trouble import count, drawn, flip, truncate

from nas_seg import model as model_lib
from nas_seg import train
from nas_seg.auto_deeplab import genotype as auto_deeplab
from nas_seg.auto_deeplab import search_run
from nas_seg.core.feature_cache import open_or_build
from nas_seg.datasets import data_generator, records
from nas_seg.search.loop import run_search
from nas_seg.search.samplers import make_sampler
from nas_seg.search.study import leaderboard, open_study, read_study
from nas_seg.utils import config, runs
from nas_seg.utils.errors import InputError
from nas_seg.utils.state_file import load_state, save_state

pytestmark = pytest.mark.faults

SPACE, STEPS = WordSpace(), 20


def train_on(run_dir, seed=5):
    """Goes on with a training, by a network of another seed: one that began anew would end otherwise."""
    model = training.tiny_model(seed=seed)
    settings = train.TrainConfig(**training.CONFIG)
    train.fit(model, training.batches, settings, run_dir, ignore_label=training.IGNORE)
    return training.values(model)


def make_training(folder):
    train_on(folder, seed=0)


def load_weights(folder):
    model = training.tiny_model(seed=5)
    model_lib.load_weights(model, folder / "ckpt" / "last.weights.h5")
    return [v.numpy() for v in model.weights]


def make_records(folder):
    small_data.build(folder, num_shards=2, train=small_data.pairs([(12, 16)] * 6))


def read_records(folder):
    with records.translate_data_errors(folder, "train"):
        batches = data_generator.eval_dataset(folder, "train").as_numpy_iterator()
        return [array for batch in batches for array in batch.values()]


def make_cache(folder):
    rng = np.random.default_rng(0)
    parts = [(rng.normal(size=(4, 3, 5, 8)), rng.integers(0, 4, (4, 9, 13)), rng.normal(size=(4, 2, 2, 3)))] * 2
    open_or_build(folder / "train", {"weights": "abc"}, 8, lambda: iter(parts))


def read_cache(folder):
    cache = open_or_build(folder / "train", {"weights": "abc"}, 8, lambda: pytest.fail("it is computed anew"))
    return [np.array(array) for array in (cache.features, cache.labels, *cache.more)]


def search(folder, num_trials):
    study = open_study(f"sqlite:///{folder}/study.db", "search", SPACE, make_sampler("near_best", SPACE, 0))
    run_search(study, SPACE, evaluate, num_trials=num_trials, seed=0)
    return study


def make_study(folder):
    folder.mkdir()
    search(folder, 8)


def read_search(folder):
    opened = read_study(f"sqlite:///{folder}/study.db", "search")
    rows = leaderboard(opened, SPACE)
    # It can be gone on with, too.
    search(folder, 9)
    return sorted((row.trial, row.genotype.letters, row.reward) for row in rows)


class Variable:
    """As much of keras.Variable as a state needs."""

    path, shape = "kernel", (30, 7)

    def __init__(self):
        self.value = np.zeros(self.shape, np.float32)

    def numpy(self):
        return np.arange(210, dtype=np.float32).reshape(self.shape)

    def assign(self, value):
        self.value = value


def make_state(folder):
    save_state(folder / "state.npz", [Variable(), Variable()], {"step": 7})


def read_state(folder):
    variables = [Variable(), Variable()]
    numbers = load_state(folder / "state.npz", variables)
    return [*(variable.value for variable in variables), numbers["step"]]


# What is damaged: how it is made in a folder, how it is read, the files, and how often of `count("flips")`.
CASES = {
    "checkpoint": (make_training, train_on, "ckpt/step-20.*", 1),
    "checkpoint list": (make_training, train_on, "ckpt/checkpoint", 0.5),
    "weights": (make_training, load_weights, "ckpt/last.weights.h5", 1),
    "shard": (make_records, read_records, "*.tfrecord", 2),
    "cache": (make_cache, read_cache, "train/*", 4),
    "search state": (make_state, read_state, "state.npz", 4),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Gives the folder of a case as it was written, and what is read from it."""
    made = {}

    def get(make, read):
        if make not in made:
            folder = tmp_path_factory.mktemp("whole") / "folder"
            make(folder)
            made[make] = folder
        return made[make], read(made[make])

    return get


def refused_or(expected, read, folder, told):
    """Reads a damaged folder: an InputError that names a file of it in one line, or what was there."""
    try:
        received = read(folder)
    except InputError as problem:
        assert str(folder) in str(problem) and "\n" not in str(problem), told
        return True
    for a, b in zip(received, expected, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=told)
    return False


@pytest.mark.parametrize("damage", [flip, truncate])
@pytest.mark.parametrize("case", CASES)
def test_a_damaged_file_is_named_or_what_was_in_it_is_found(case, damage, whole, tmp_path):
    make, read, pattern, share = CASES[case]
    folder, expected = whole(make, read)
    rng, refused = drawn(f"{case} {damage.__name__}"), 0
    tries = max(1, int(share * count("flips")))
    for attempt in range(tries):
        copy = tmp_path / str(attempt)
        shutil.copytree(folder, copy)
        told = damage(rng.choice(sorted(copy.glob(pattern))), rng)
        refused += refused_or(expected, read, copy, told)
        shutil.rmtree(copy)
    print(f"{case}: {refused} of {tries} refused, the others read as they were")


def test_a_flipped_bit_of_a_weight_is_refused(whole, tmp_path):
    folder, _ = whole(make_training, load_weights)
    path = pathlib.Path(shutil.copytree(folder, tmp_path / "run"), "ckpt", "last.weights.h5")
    with h5py.File(path, "r") as file:
        places = []
        file.visititems(lambda _, item: places.append(item.id.get_offset()) if isinstance(item, h5py.Dataset) else None)
    data = bytearray(path.read_bytes())
    data[places[0]] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"last\.weights\.h5: the weights are damaged"):
        load_weights(tmp_path / "run")


@pytest.mark.parametrize("lost", ["checkpoint", "step-20.index", "step-20.data-00000-of-00001"])
def test_a_training_that_has_lost_a_file_of_its_checkpoint_does_not_begin_anew(lost, whole, tmp_path):
    folder, expected = whole(make_training, train_on)
    copy = shutil.copytree(folder, tmp_path / "run")
    (copy / "ckpt" / lost).unlink()
    refused_or(expected, train_on, copy, lost)


def test_without_any_whole_checkpoint_a_training_is_refused(whole, tmp_path):
    folder, _ = whole(make_training, train_on)
    copy = shutil.copytree(folder, tmp_path / "run")
    for path in copy.glob("ckpt/step-*.index"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match="step-20: the checkpoint cannot be read|expected a checkpoint, none can"):
        train_on(copy)


def test_a_kill_amid_the_first_save_leaves_no_checkpoint_and_nothing_to_complain_of(tmp_path):
    (tmp_path / "ckpt").mkdir()
    (tmp_path / "ckpt" / "step-6.index").write_bytes(b"half")
    assert runs.latest_checkpoint(tmp_path) is None


@pytest.mark.parametrize("damage", [flip, truncate])
def test_a_damaged_study_is_refused_in_one_line_or_read(damage, tmp_path):
    make_study(tmp_path / "whole")
    expected = read_search(tmp_path / "whole")[:8]
    rng, refused, other = drawn(f"study {damage.__name__}"), 0, 0
    for attempt in range(count("flips")):
        copy = shutil.copytree(tmp_path / "whole", tmp_path / str(attempt))
        told = damage(copy / "study.db", rng)
        try:
            received = read_search(copy)
        except InputError as problem:
            assert "\n" not in str(problem), told
            refused += 1
            continue
        # SQLite has no checksums: a flipped letter of a word or digit of a score is another word or score.
        assert len(received) >= 8 and damage is flip, told
        other += received[:8] != expected
    print(f"study: {refused} of {count('flips')} refused, {other} read otherwise than written")
    assert other <= 1 + count("flips") // 20


def test_a_study_cut_to_nothing_does_not_begin_anew(tmp_path):
    make_study(tmp_path / "run")
    (tmp_path / "run" / "study.db").write_bytes(b"")
    with pytest.raises(InputError, match=r"study\.db: the file is empty, but was not; put it back, or delete"):
        search(tmp_path / "run", 9)


def make_config(folder):
    network = model_lib.ModelConfig(4, model_lib.read_genotype(auto_deeplab._PUBLISHED / "auto_deeplab.json"))
    runs.open_run(folder, {"model": config.to_json(network), "train": config.to_json(train.TrainConfig())})


def read_config(folder):
    return model_lib.read_config(folder), runs.read_section(folder, "train", train.TrainConfig)


def make_genotype(folder):
    auto_deeplab.published("auto_deeplab").save(folder / "genotype.json")


def read_genotype(folder):
    return model_lib.read_genotype(folder / "genotype.json")


def make_halves(folder):
    config.save(folder / "split.json", search_run.StoredSplit("train", "0" * 12, 0, (0, 2), (1, 3)))


def read_halves(folder):
    return config.load(folder / "split.json", search_run.StoredSplit)


DOCUMENTS = {
    "config.json": (make_config, read_config),
    "genotype.json": (make_genotype, read_genotype),
    "split.json": (make_halves, read_halves),
    "dataset.json": (make_records, read_records),
}


@pytest.mark.parametrize("damage", [flip, truncate])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_damaged_document_is_refused_in_one_line_unless_it_says_something_else(name, damage, tmp_path):
    make, read = DOCUMENTS[name]
    make(tmp_path / "whole")
    data, rng = (tmp_path / "whole" / name).read_bytes(), drawn(f"{name} {damage.__name__}")
    for _ in range((2 if name == "dataset.json" else 20) * count("flips")):
        (tmp_path / "whole" / name).write_bytes(data)
        told = damage(tmp_path / "whole" / name, rng)
        with contextlib.suppress(InputError):
            read(tmp_path / "whole")
            # Only the last line's end may go unmissed.
            left = (tmp_path / "whole" / name).read_bytes()
            assert damage is flip or left == data[:-1], told


@pytest.fixture(autouse=True)
def quiet():
    """TensorFlow complains of each damaged file on its own, too."""
    level = tf.get_logger().level
    tf.get_logger().setLevel("FATAL")
    yield
    tf.get_logger().setLevel(level)


def test_all_files_of_a_checkpoint_are_among_the_damaged(whole):
    folder, _ = whole(make_training, train_on)
    names = {path.name for path in pathlib.Path(folder, "ckpt").iterdir()}
    assert names == {
        "checkpoint",
        "last.weights.h5",
        *(f"step-{step}.{part}" for step in (18, 20) for part in ("index", "data-00000-of-00001")),
    }
