"""The run folder: what a training was made from, how it went, and its weights.

RUN/config.json            format_version, model, train, dataset_dir, versions, command; written first
RUN/metrics.jsonl          one row a line, in the order of steps
RUN/ckpt/step-*            the state that a stopped training goes on from
RUN/ckpt/best.weights.h5   the weights of the best validation score
RUN/ckpt/last.weights.h5   the weights of the last step
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import platform
import re
import shlex
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from typing import Any

import numpy as np

from nas_seg.utils import config
from nas_seg.utils.errors import InputError, unknown
from nas_seg.utils.machine import describe_machine

CONFIG = "config.json"
METRICS = "metrics.jsonl"
CHECKPOINTS = "ckpt"
BEST, LAST = "best", "last"
# An attribute of a weights file.
_CHECKSUM = "nas_seg_crc32"

# What may differ between two starts of one run.
_CIRCUMSTANCES = ("versions", "machine", "command")


def open_run(run_dir: str | os.PathLike, sections: Mapping[str, Any]) -> None:
    """Starts a run folder, or makes sure that the one that is there is of the same run.

    Args:
        run_dir: created where it is missing.
        sections: JSON values by name; all but "versions", "machine" and "command" must be what they were.

    Raises:
        InputError: naming the first field that differs, with its old and its new value.
    """
    check_run(run_dir, sections)
    path = pathlib.Path(run_dir, CONFIG)
    if not path.exists():
        config.write_json(path, {"format_version": config.FORMAT_VERSION} | dict(sections))


def check_run(run_dir: str | os.PathLike, sections: Mapping[str, Any]) -> None:
    """The comparison of `open_run` alone: nothing is written, and a folder without a run passes."""
    path = pathlib.Path(run_dir, CONFIG)
    if not path.exists():
        return
    there = read_config(run_dir)
    for name in [name for name in {**there, **sections} if name not in _CIRCUMSTANCES]:
        field = _first_difference(there.get(name), sections.get(name), name)
        if field is not None:
            where, old, new = field
            raise InputError(f"{path}: {where}: this run has {old!r}, received {new!r}; take another --run_dir")


def section(run_dir: str | os.PathLike, name: str, value: Any) -> Any:
    """The JSON form of a configuration to open a run with.

    Where the folder's own section reads as the same value it is that one: a field that configurations got after the
    run was begun is missing there, and has its default.
    """
    if pathlib.Path(run_dir, CONFIG).exists():
        there = read_config(run_dir).get(name)
        with contextlib.suppress(InputError):
            if there is not None and config.from_json(type(value), there, name) == value:
                return there
    return config.to_json(value)


def circumstances() -> dict[str, Any]:
    """The sections that say how a run was started: the command, the machine, the versions of what matters."""
    packages = ("nas_seg", "tensorflow", "tensorflow-cpu", "keras", "numpy", "optuna")
    versions = {"python": platform.python_version()}
    for name in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    # A storage's password is nobody's business who reads a run.
    command = re.sub(r"(://[^/@\s:]*):[^/@\s]*@", r"\1:***@", shlex.join(["python", *sys.argv]))
    return {"versions": versions, "machine": describe_machine(), "command": command}


def _first_difference(old: Any, new: Any, where: str) -> tuple[str, Any, Any] | None:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in {**old, **new}:
            found = _first_difference(old.get(name), new.get(name), f"{where}.{name}")
            if found is not None:
                return found
        return None
    return None if old == new else (where, old, new)


def read_config(run_dir: str | os.PathLike) -> dict[str, Any]:
    """The sections of RUN/config.json; InputError where the folder is no run's."""
    path = pathlib.Path(run_dir, CONFIG)
    if not path.is_file():
        raise InputError(f"{run_dir}: not a run folder, expected {path}")
    data = config.read_json(path)
    config.check_version(data, path)
    return {name: value for name, value in data.items() if name != "format_version"}


def read_section(run_dir: str | os.PathLike, name: str, annotation: Any) -> Any:
    """One section of RUN/config.json as a value of the type `annotation`."""
    path, sections = pathlib.Path(run_dir, CONFIG), read_config(run_dir)
    if name not in sections:
        raise InputError(f"{path}: section {name!r} is missing")
    return config.from_json(annotation, sections[name], f"{path}: {name}")


def read_dataset_dir(run_dir: str | os.PathLike) -> str:
    """The folder of the records that a run was trained on; an InputError for a converted one, which was on none."""
    if "dataset_dir" not in read_config(run_dir):
        raise InputError(f"--dataset_dir: expected the folder of the records, {run_dir} was converted and tells none")
    return read_section(run_dir, "dataset_dir", str)


def own_dataset_dir(run_dir: str | os.PathLike) -> str | None:
    """As `read_dataset_dir`, None for a converted run; the folder may be out of reach here."""
    told = read_config(run_dir).get("dataset_dir") is not None
    return read_section(run_dir, "dataset_dir", str) if told else None


@contextlib.contextmanager
def lock(run_dir: str | os.PathLike) -> Iterator[None]:
    """Keeps a second process from training in the folder; let go by the system if this one is killed."""
    path = pathlib.Path(run_dir, ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    # A full disk is told as such, by whoever meets it.
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise InputError(f"{run_dir}: expected a folder to write to ({error.strerror})") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"{run_dir}: another process is training in this folder") from None
        yield


def read_metrics(run_dir: str | os.PathLike) -> list[dict[str, Any]]:
    """The rows of RUN/metrics.jsonl; a last line that a kill cut short is left out. No file: no rows."""
    path = pathlib.Path(run_dir, METRICS)
    if not path.exists():
        return []
    *lines, _torn = path.read_text(encoding="utf-8", errors="replace").split("\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise InputError(f"{path}:{number}: expected JSON ({error})") from None
    if not rows:
        return []
    config.check_version(rows[0], f"{path}:1")
    return rows[1:]


def append_metrics(run_dir: str | os.PathLike, row: Mapping[str, Any]) -> None:
    """Adds one row, visible to other processes at once."""
    path = pathlib.Path(run_dir, METRICS)
    if not path.exists():
        write_metrics(run_dir, [])
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def write_metrics(run_dir: str | os.PathLike, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replaces all rows: when a run goes on, what was measured after its checkpoint is measured again."""
    lines = [{"format_version": config.FORMAT_VERSION}, *rows]
    config.write_bytes(pathlib.Path(run_dir, METRICS), "".join(json.dumps(line) + "\n" for line in lines).encode())


def best_evaluation(rows: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The row of metrics.jsonl with the highest validation mIoU, the earliest of equals; None where none has one."""
    return max((row for row in rows if row.get("val_miou") is not None), key=lambda row: row["val_miou"], default=None)


def latest_checkpoint(run_dir: str | os.PathLike) -> str | None:
    """The prefix of the checkpoint that a training goes on from; None where there is none yet.

    It is the one that RUN/ckpt/checkpoint names, which TensorFlow writes last. Where that list is damaged, or what it
    names is gone, it is the newest whole one, and the list is written anew: TensorFlow's own function would find none,
    and the training would begin again.

    Raises:
        InputError: where there was one, and none is whole.
    """
    import tensorflow as tf

    folder = pathlib.Path(run_dir, CHECKPOINTS)
    with contextlib.suppress(ValueError):  # Bytes that are no text.
        state = tf.train.get_checkpoint_state(str(folder))
        if state is not None and os.path.isfile(f"{state.model_checkpoint_path}.index"):
            return state.model_checkpoint_path
    # step-12.index; a kill amid the first save leaves one that is not whole, and no list.
    numbers = {
        int(path.stem.removeprefix("step-")): str(path.with_suffix("")) for path in folder.glob("step-[0-9]*.index")
    }
    whole = [numbers[number] for number in sorted(numbers) if _is_whole(numbers[number])]
    if whole:
        tf.compat.v1.train.update_checkpoint_state(str(folder), whole[-1], whole)
        return whole[-1]
    if (folder / "checkpoint").exists():
        raise InputError(f"{folder}: expected a checkpoint, none can be read; put it back, or delete the folder")
    return None


def _is_whole(prefix: str) -> bool:
    """Whether every value of a checkpoint can be read; each has a checksum."""
    import tensorflow as tf

    try:
        reader = tf.train.load_checkpoint(prefix)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except (tf.errors.OpError, ValueError, LookupError, RuntimeError):
        return False
    return True


def weights_path(run_dir: str | os.PathLike, which: str) -> pathlib.Path:
    """Where the weights BEST or LAST of a run lie."""
    return pathlib.Path(run_dir, CHECKPOINTS, f"{which}.weights.h5")


def find_weights(run_dir: str | os.PathLike, which: str = BEST) -> pathlib.Path:
    """The weights of a run: BEST (the last ones where no validation picked any) or LAST.

    Raises:
        InputError: where there are none yet.
    """
    if which not in (BEST, LAST):
        raise unknown("weights", which, (BEST, LAST))
    paths = [weights_path(run_dir, name) for name in dict.fromkeys((which, LAST))]
    for path in paths:
        if path.is_file():
            return path
    raise InputError(f"{run_dir}: no weights yet, expected {' or '.join(str(path) for path in paths)}")


def save_weights(model: Any, path: str | os.PathLike) -> None:
    """`model.save_weights`, as a whole or not at all, with a checksum. One process at a time may write a file."""
    import h5py

    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Keras asks for this ending. What a killed process left is written over.
    temporary = path.with_name(f".{path.name.removesuffix('.weights.h5')}.part.weights.h5")
    try:
        model.save_weights(temporary)
        with h5py.File(temporary, "a") as file:
            file.attrs[_CHECKSUM] = _checksum(file)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_weights(path: str | os.PathLike) -> None:
    """InputError for a file of `save_weights` whose values are not those that were written; HDF5 itself would not tell.

    Other programs' files, which have no checksum, pass.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            whole = file.attrs.get(_CHECKSUM) in (None, _checksum(file))
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: the weights cannot be read ({' '.join(str(error).split())[:200]})") from None
    if not whole:
        raise InputError(f"{path}: the weights are damaged, their values are not those that were written")


def _checksum(file: Any) -> int:
    """Of the names and values of all arrays of an open HDF5 file."""
    import h5py

    found = 0

    def add(name: str, item: Any) -> None:
        nonlocal found
        if isinstance(item, h5py.Dataset):
            found = zlib.crc32(np.asarray(item[()]).tobytes(), zlib.crc32(name.encode(), found))

    file.visititems(add)
    return found
