"""Backbone features of a fixed list of pictures, computed once and memory-mapped by every trial.

CACHE/cache.json      format_version, what the features depend on, shapes, checksums; written last
CACHE/features.npy    float16 [N, h, w, C]
CACHE/features_K.npy  the same of further maps, K = 1, 2, ..., where there are any
CACHE/labels.npy      uint8 [N, H, W]
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import pathlib
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from nas_seg.utils import config
from nas_seg.utils.errors import InputError
from nas_seg.utils.progress import progress

_IDENTITY, _MORE, _LABELS, _CHECKSUMS = "made_from", "more", "labels", "crc32"
_FLOAT16_MAX = float(np.finfo(np.float16).max)


@dataclasses.dataclass(frozen=True)
class FeatureCache:
    """Features and labels of N pictures, read from disk as they are touched.

    Attributes:
        features: float16 [N, h, w, C].
        labels: uint8 [N, H, W].
        more: further maps of the same pictures, float16 of sizes and channels of their own.
    """

    features: np.ndarray
    labels: np.ndarray
    more: tuple[np.ndarray, ...] = ()

    def __len__(self) -> int:
        return len(self.features)


def open_or_build(
    folder: str | os.PathLike,
    made_from: Mapping[str, Any],
    count: int,
    compute: Callable[[], Iterable[tuple[np.ndarray, ...]]],
) -> FeatureCache:
    """Opens a cache, computing it first where there is none.

    Several processes may call this at once: one computes, the others wait. A cache appears as a whole or not
    at all.

    Args:
        folder: of this cache alone.
        made_from: all that the features depend on (digests of weights and data, sizes), as JSON values.
        count: N.
        compute: yields (features [B, h, w, C], labels [B, H, W], further maps) batches of N pictures in all.

    Raises:
        InputError: where the folder holds a cache made from something else, naming what differs, or one that
            is damaged; or where it cannot be written.
    """
    folder = pathlib.Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder):
        if not folder.exists():
            _build(folder, made_from, count, compute)
    return _open(folder, made_from, count)


def _open(folder: pathlib.Path, made_from: Mapping[str, Any], count: int) -> FeatureCache:
    path = folder / "cache.json"
    data = config.read_json(path)
    config.check_version(data, path)
    there, wanted = data.get(_IDENTITY), config.to_json(dict(made_from))
    if not isinstance(there, dict):
        raise _damaged(folder, f"cache.json does not say what it was {_IDENTITY.replace('_', ' ')}")
    for name in sorted({*there, *wanted}):
        if there.get(name) != wanted.get(name):
            raise InputError(
                f"{folder}: a feature cache of another {name} (expected {wanted.get(name)!r}, found "
                f"{there.get(name)!r}); delete the folder or name another one"
            )
    try:
        names = _names(len(data.get(_MORE, ())))
        # Caches of earlier versions have no checksums.
        if data.get(_CHECKSUMS) not in (None, _checksums(folder, names)):
            raise ValueError("its bytes are not those that were written")
        arrays = [np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in names]
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(folder, error) from None
    if any(len(array) != count for array in arrays):
        raise InputError(f"{folder}: expected a feature cache of {count} pictures, found {len(arrays[0])}")
    return FeatureCache(*arrays[:2], tuple(arrays[2:]))


def _damaged(folder: pathlib.Path, reason: object) -> InputError:
    words = " ".join(str(reason).split())
    return InputError(f"{folder}: a damaged feature cache ({words}); delete the folder, and it is computed again")


def _checksums(folder: pathlib.Path, names: Iterable[str]) -> dict[str, int]:
    """Of whole files. Trials read all of them anyway, and a flipped bit would change every score unseen."""
    return {name: zlib.crc32(np.memmap(folder / f"{name}.npy", np.uint8, mode="r")) for name in names}


def _build(folder: pathlib.Path, made_from: Mapping[str, Any], count: int, compute: Callable) -> None:
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # Left by a process that was killed; we hold the lock.
    unfinished.mkdir()
    try:
        done, arrays = 0, {}
        with progress(f"cache {folder.name}", count) as bar:
            for batch in compute():
                parts = dict(zip(_names(len(batch) - 2), batch, strict=True))
                if not arrays:
                    arrays = {
                        name: _memmap(unfinished / f"{name}.npy", name, count, part) for name, part in parts.items()
                    }
                end = done + len(batch[0])
                for name, part in parts.items():
                    # A feature beyond float16 would become infinity and ruin every trial.
                    arrays[name][done:end] = part if name == _LABELS else np.clip(part, -_FLOAT16_MAX, _FLOAT16_MAX)
                bar.advance(end - done)
                done = end
        if done != count:
            raise InputError(f"{folder}: expected {count} pictures to cache, received {done}")
        for array in arrays.values():
            array.flush()
        first, labels, *more = (list(array.shape) for array in arrays.values())
        shapes = {"features": first, "labels": labels} | ({_MORE: more} if more else {})
        identity = config.to_json(dict(made_from))
        checksums = {_CHECKSUMS: _checksums(unfinished, arrays)}
        config.write_json(
            unfinished / "cache.json",
            {"format_version": config.FORMAT_VERSION, _IDENTITY: identity} | shapes | checksums,
        )
        os.rename(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _names(num_more: int) -> list[str]:
    """Of the arrays, in the order in which they are computed."""
    return ["features", _LABELS, *(f"features_{k + 1}" for k in range(num_more))]


def _memmap(path: pathlib.Path, name: str, count: int, batch: np.ndarray) -> np.memmap:
    dtype = np.uint8 if name == _LABELS else np.float16
    try:
        array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(count, *batch.shape[1:]))
        if hasattr(os, "posix_fallocate"):
            # The file is all holes so far. Where the disk cannot fill one, the system ends the process by SIGBUS.
            with open(path, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
    return array


@contextlib.contextmanager
def _lock(folder: pathlib.Path) -> Iterator[None]:
    """Held while one process looks for the cache and computes it; freed by the system if it is killed."""
    with open(folder.with_name(f".{folder.name}.lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
