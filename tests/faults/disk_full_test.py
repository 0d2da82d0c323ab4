"""A disk that is full while something is written: one line, exit code 2, and nothing lost that was whole before.

On a small tmpfs where mounting is allowed; elsewhere files are limited in size.
"""

import contextlib
import sys

import numpy as np
import pytest
import small_data
import training
from table_problem import WordSpace, evaluate
from trouble import Disk

from nas_seg import train
from nas_seg.core.feature_cache import open_or_build
from nas_seg.datasets import build_data, pictures
from nas_seg.datasets.descriptors import read_descriptor
from nas_seg.datasets.source import Pair, Source
from nas_seg.search.loop import run_search
from nas_seg.search.samplers import make_sampler
from nas_seg.search.study import open_study
from nas_seg.utils import app, config, runs
from nas_seg.utils.errors import InputError
from nas_seg.utils.state_file import save_state

pytestmark = pytest.mark.faults


@pytest.fixture
def disk(tmp_path):
    made = Disk(tmp_path / "disk")
    print("a tmpfs" if made.mounted else "a limit of file sizes")
    yield made
    made.close()


@pytest.fixture
def ended(monkeypatch, capsys):
    """Runs a tool's main as a tool; its exit code and the line that it ends with."""

    def run(main):
        monkeypatch.setattr(sys, "argv", ["tool"])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            app.run(main)
        error = capsys.readouterr().err
        assert "Traceback" not in error
        return caught.value.code, error.splitlines()[-1]

    return run


def fit(run_dir, evaluate, seed=0):
    model = training.tiny_model(seed=seed)
    settings = train.TrainConfig(**training.CONFIG)
    train.fit(model, training.batches, settings, run_dir, ignore_label=training.IGNORE, evaluate=evaluate)
    return training.values(model), [(row["step"], row.get("loss")) for row in runs.read_metrics(run_dir)]


def scores_of(scores):
    """What evaluates to them, one after the other."""
    left = list(scores)
    return lambda: {"miou": left.pop(0)}


# The scores at steps 10 and 20: where the first is the higher one, no weights are written at step 10.
@pytest.mark.parametrize(("written", "scores"), [("weights", (0.2, 0.5)), ("checkpoint", (0.0, 0.5))])
def test_a_training_goes_on_from_its_last_checkpoint_once_there_is_room(written, scores, disk, ended, tmp_path):
    run_dir = disk.folder / "run"
    expected = fit(tmp_path / "whole", scores_of(scores))
    with contextlib.ExitStack() as stack:

        def fill():
            stack.enter_context(disk.full())
            return {"miou": scores[0] if written == "weights" else float("nan")}

        code, line = ended(lambda: fit(run_dir, fill))
    assert code == 2 and line.startswith("error: nothing more can be written: "), line
    assert line.endswith("the same command goes on once there is room")
    assert runs.latest_checkpoint(run_dir).endswith("step-6")
    values, rows = fit(run_dir, scores_of(scores), seed=5)
    assert rows == expected[1]
    for a, b in zip(values, expected[0], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_state_of_a_search_is_kept_where_the_next_cannot_be_written(disk, ended):
    class Variable:
        def numpy(self):
            return np.zeros(100_000)

    path = disk.folder / "ckpt" / "state.npz"
    save_state(path, [Variable()], {"step": 1})
    before = path.read_bytes()
    with disk.full(room=50_000):
        code, line = ended(lambda: save_state(path, [Variable()], {"step": 2}))
    assert code == 2 and line.startswith("error: nothing more can be written"), line
    assert path.read_bytes() == before and [file.name for file in path.parent.iterdir()] == ["state.npz"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_records_are_written_as_a_whole_or_not_at_all(overwrite, disk, ended, tmp_path):
    rng = np.random.default_rng(0)
    # Noise, which no PNG makes smaller: 40 of 36 KB.
    noise = [pictures.encode_png(rng.integers(0, 256, (96, 128, 3)).astype(np.uint8)) for _ in range(40)]
    label = pictures.encode_png(np.zeros((96, 128), np.uint8))
    source = Source(small_data.CLASSES, {"train": [Pair(f"p{i}", image, label) for i, image in enumerate(noise)]})
    folder = disk.folder / "out"
    if overwrite:
        small_data.build(folder, train=small_data.pairs([(6, 8)]))
    with disk.full(room=200_000):
        code, line = ended(lambda: build_data.build(source, folder, num_shards=2, overwrite=overwrite))
    assert code == 2 and line.startswith("error: ") and str(disk.folder) in line, line
    assert folder.exists() == overwrite and {path.name for path in disk.folder.iterdir()} <= {"out"}
    if overwrite:
        assert read_descriptor(folder).splits["train"].num_images == 1
    build_data.build(source, folder, num_shards=2, overwrite=overwrite)
    build_data.build(source, tmp_path / "whole", num_shards=2)
    files = [{path.name: path.read_bytes() for path in made.iterdir()} for made in (folder, tmp_path / "whole")]
    assert files[0] == files[1]


def test_a_feature_cache_is_written_as_a_whole_or_not_at_all(disk, ended):
    computed = []

    def compute():
        computed.append(1)
        yield np.ones((2, 50, 50, 64)), np.zeros((2, 100, 100))

    def build():
        return open_or_build(disk.folder / "train", {"weights": "abc"}, 2, compute)

    # A memory-mapped file of holes would be made, and the process ended by SIGBUS where they are filled.
    with disk.full(room=100_000):
        code, line = ended(build)
    assert code == 2 and "features.npy: cannot be written" in line, line
    assert [path.name for path in disk.folder.iterdir()] == [".train.lock"]
    assert len(build()) == 2 and len(computed) == 2


def test_a_study_keeps_what_was_told_and_goes_on_once_there_is_room(disk, ended):
    space, url = WordSpace(), f"sqlite:///{disk.folder}/study.db"

    def search(storage, evaluator, num_trials=6):
        study = open_study(storage, "search", space, make_sampler("near_best", space, 0))
        run_search(study, space, evaluator, num_trials=num_trials, seed=0)
        return [(trial.params, trial.values) for trial in study.trials if trial.values is not None]

    calls = []
    with contextlib.ExitStack() as stack:

        def fill(genotype, *, seed):
            calls.append(genotype)
            if len(calls) == 3:
                stack.enter_context(disk.full())
            return evaluate(genotype, seed=seed)

        code, line = ended(lambda: search(url, fill, num_trials=200))
    assert code == 2 and "study.db: the storage stopped answering" in line, line
    assert line.endswith("what it holds is kept, and the same command goes on once it is back")
    again = search(url, evaluate, num_trials=len(calls) + 2)
    whole = search(None, evaluate, num_trials=len(calls) + 2)
    assert sorted(map(repr, again)) == sorted(map(repr, whole))


def test_a_document_is_kept_where_its_successor_cannot_be_written(disk):
    path = disk.folder / "config.json"
    config.write_json(path, {"old": 1})
    with disk.full(room=4096), pytest.raises(InputError, match=r"config\.json: cannot be written \("):
        config.write_json(path, {"new": "x" * 100_000})
    assert config.read_json(path) == {"old": 1}
    assert [file.name for file in disk.folder.iterdir()] == ["config.json"]
