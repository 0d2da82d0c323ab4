"""A feature cache is computed once, appears as a whole, and is refused when it was made from something else."""

import multiprocessing

import numpy as np
import pytest

from nas_seg.core.feature_cache import open_or_build
from nas_seg.utils.errors import InputError

_MADE_FROM = {"weights": "abc", "size": [9, 9]}


def _batches(count=5, value=1.0):
    for first in range(0, count, 2):
        n = min(2, count - first)
        yield np.full((n, 2, 3, 4), value, np.float32), np.full((n, 9, 9), first, np.int32)


def test_cache_holds_what_was_computed_in_half_precision(tmp_path):
    cache = open_or_build(tmp_path / "train", _MADE_FROM, 5, _batches)
    assert cache.features.dtype == np.float16 and cache.features.shape == (5, 2, 3, 4)
    assert cache.labels.dtype == np.uint8 and cache.labels[:, 0, 0].tolist() == [0, 0, 2, 2, 4]
    assert isinstance(cache.features, np.memmap) and len(cache) == 5


def test_second_opening_computes_nothing(tmp_path):
    open_or_build(tmp_path / "train", _MADE_FROM, 5, _batches)
    cache = open_or_build(tmp_path / "train", _MADE_FROM, 5, lambda: pytest.fail("computed again"))
    assert len(cache) == 5


def test_cache_of_other_weights_is_refused_naming_what_differs(tmp_path):
    open_or_build(tmp_path / "train", _MADE_FROM, 5, _batches)
    with pytest.raises(InputError, match=r"train: a feature cache of another weights \(expected 'xyz', found 'abc'\)"):
        open_or_build(tmp_path / "train", _MADE_FROM | {"weights": "xyz"}, 5, _batches)


def test_failed_computation_leaves_nothing_behind(tmp_path):
    def breaks():
        yield from _batches(2)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        open_or_build(tmp_path / "train", _MADE_FROM, 5, breaks)
    assert [path.name for path in tmp_path.iterdir()] == [".train.lock"]
    assert len(open_or_build(tmp_path / "train", _MADE_FROM, 5, _batches)) == 5


def test_too_few_pictures_are_refused(tmp_path):
    with pytest.raises(InputError, match="expected 6 pictures to cache, received 5"):
        open_or_build(tmp_path / "train", _MADE_FROM, 6, _batches)


def test_truncated_array_is_refused_naming_the_folder(tmp_path):
    open_or_build(tmp_path / "train", _MADE_FROM, 5, _batches)
    path = tmp_path / "train" / "features.npy"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="train: a damaged feature cache"):
        open_or_build(tmp_path / "train", _MADE_FROM, 5, _batches)


def test_features_beyond_half_precision_stay_finite(tmp_path):
    cache = open_or_build(tmp_path / "train", _MADE_FROM, 5, lambda: _batches(value=1e6))
    assert np.isfinite(cache.features).all()


def _count_computations(folder, queue):
    def compute():
        queue.put(1)
        yield from _batches()

    open_or_build(folder, _MADE_FROM, 5, compute)


def test_of_two_processes_one_computes(tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_count_computations, args=(tmp_path / "train", queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    assert queue.get(timeout=5) == 1 and queue.empty()
