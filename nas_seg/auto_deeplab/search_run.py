"""The run folder of a gradient search: what lies where, and reading it. No TensorFlow.

RUN/config.json                    how it was started; section `SECTION` holds the SearchConfig; written first
RUN/split.json                     which records of the training split are trainA and trainB; never drawn again
RUN/metrics.jsonl                  a row an epoch
RUN/ckpt/state.npz                 weights, alpha, beta, the state of both optimizers, the step
RUN/genotypes/epoch_NNN.json       what alpha and beta stood for after an epoch
RUN/logits/epoch_NNN.npz           alpha and beta themselves
RUN/genotype.json, alpha_beta.npz  those of the latest finished epoch
"""

from __future__ import annotations

import dataclasses
import io
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from nas_seg.auto_deeplab.decode import LOGITS_FILE, read_logits
from nas_seg.auto_deeplab.genotype import OPS, AutoDeepLabGenotype
from nas_seg.auto_deeplab.search_config import SearchConfig
from nas_seg.utils import config, runs
from nas_seg.utils.errors import InputError

# Of config.json; no other kind of run has it.
SECTION = "gradient_search"
GENOTYPE, SPLIT, STATE = "genotype.json", "split.json", "ckpt/state.npz"


@dataclasses.dataclass(frozen=True)
class StoredSplit:
    """RUN/split.json.

    Attributes:
        split: of the data set.
        digest: of its records, as dataset.json has it.
        seed: of the draw.
        train_a, train_b: places of the records in the split.
    """

    split: str
    digest: str
    seed: int
    train_a: tuple[int, ...]
    train_b: tuple[int, ...]


def is_search(run_dir: str | os.PathLike) -> bool:
    """Whether a folder is the run folder of a gradient search."""
    path = pathlib.Path(run_dir, runs.CONFIG)
    return path.is_file() and SECTION in runs.read_config(run_dir)


def read_search_config(run_dir: str | os.PathLike) -> SearchConfig:
    """How a search was started."""
    return runs.read_section(run_dir, SECTION, SearchConfig)


def read_epochs(run_dir: str | os.PathLike) -> list[dict[str, Any]]:
    """The rows of the finished epochs, in order."""
    return [row for row in runs.read_metrics(run_dir) if "epoch" in row]


def finished_genotype(run_dir: str | os.PathLike, allow_unfinished: bool = False) -> pathlib.Path:
    """The file of the network that a search has found.

    Args:
        run_dir: run folder of the search.
        allow_unfinished: take the latest one also where the search has not come to its end.

    Raises:
        InputError: where it has not, or where the folder is none of a gradient search.
    """
    if not is_search(run_dir):
        raise InputError(f"{run_dir}: expected the run folder of tools/search_auto_deeplab.py")
    done, path = read_epochs(run_dir), pathlib.Path(run_dir, GENOTYPE)
    epochs = read_search_config(run_dir).epochs
    if not done or not path.is_file():
        raise InputError(f"{run_dir}: the search has not finished an epoch yet, there is no network to train")
    if len(done) < epochs and not allow_unfinished:
        raise InputError(
            f"{run_dir}: expected a finished search, received one at epoch {len(done)} of {epochs}; "
            "--allow_unfinished takes its latest network"
        )
    return path


def write_epoch(
    run_dir: str | os.PathLike, epoch: int, genotype: AutoDeepLabGenotype, logits: Mapping[str, np.ndarray]
) -> None:
    """Writes what an epoch (from 1) has come to, under its number and as the latest."""
    arrays = io.BytesIO()
    np.savez(arrays, **logits, primitives=np.array(OPS), format_version=np.array(config.FORMAT_VERSION))
    for path in (logits_path(run_dir, epoch), pathlib.Path(run_dir, LOGITS_FILE)):
        config.write_bytes(path, arrays.getvalue())
    for path in (genotype_path(run_dir, epoch), pathlib.Path(run_dir, GENOTYPE)):
        genotype.save(path)


def genotype_path(run_dir: str | os.PathLike, epoch: int) -> pathlib.Path:
    """Of the network after an epoch, counted from 1."""
    return pathlib.Path(run_dir, "genotypes", f"epoch_{epoch:03d}.json")


def logits_path(run_dir: str | os.PathLike, epoch: int) -> pathlib.Path:
    """Of alpha and beta after an epoch, counted from 1."""
    return pathlib.Path(run_dir, "logits", f"epoch_{epoch:03d}.npz")


def read_epoch(run_dir: str | os.PathLike, epoch: int) -> tuple[AutoDeepLabGenotype, np.ndarray, np.ndarray]:
    """(network, alpha, beta) after an epoch, counted from 1."""
    return AutoDeepLabGenotype.load(genotype_path(run_dir, epoch)), *read_logits(logits_path(run_dir, epoch))
