"""From the logits of a search to the network that they stand for, in NumPy alone.

Source: Auto-DeepLab (arXiv 1901.02985), section 4.3: the cell keeps two predecessors a block, the network the path
of the highest probability. Layouts of alpha and beta: see `relaxation`.
"""

from __future__ import annotations

import os
import pathlib
import zipfile
import zlib
from typing import Any, NamedTuple

import numpy as np

from nas_seg.auto_deeplab.genotype import NONE, NUM_LEVELS, OPS, AutoDeepLabGenotype, Block
from nas_seg.auto_deeplab.relaxation import (
    NUM_DIRECTIONS,
    alpha_probabilities,
    beta_probabilities,
    edge_mask,
    entropy,
    num_edges,
)
from nas_seg.utils import config
from nas_seg.utils.errors import InputError

# The file of a search's run folder, and the names that its arrays have there and in files of other origin.
LOGITS_FILE = "alpha_beta.npz"
_NAMES = {"alpha": ("alpha", "alphas_logits"), "beta": ("beta", "betas_logits")}
# Log-probabilities (of paths, of ops) nearer than this are a tie: sums of the same numbers in another order differ by
# less.
_TIE = 1e-12
# Of one array when unpacked: a thousand times what alpha and beta of a search have.
_MAX_ARRAY_BYTES = 1 << 24


class Path(NamedTuple):
    """The most probable path.

    Attributes:
        levels: of each layer, 0 to 3.
        log_probability: natural logarithm of the product of its transition probabilities.
        margin: its log-probability less that of the second-best path, >= 0; 0 is a tie.
    """

    levels: tuple[int, ...]
    log_probability: float
    margin: float


class Entropies(NamedTuple):
    """How undecided the logits are, in nats: 0 where each softmax has settled on one choice.

    Attributes:
        alpha: mean over the edges of the cell; at most ln 8 = 2.08.
        beta: mean over the nodes that paths reach; at most ln 3 = 1.10, at border nodes ln 2 = 0.69.
        path: of the distribution of whole paths, which weighs each node by how probably a path is there.
    """

    alpha: float
    beta: float
    path: float


def decode(alpha: Any, beta: Any, *, border_correction: bool = False) -> AutoDeepLabGenotype:
    """The discrete network that the logits of a search stand for.

    Args:
        alpha: logits of the ops, [20, 8] for five blocks.
        beta: logits of the transitions, [layers, 4, 3].
        border_correction: see `best_path`.

    Raises:
        InputError: on another shape or a value that is no finite number.
    """
    return AutoDeepLabGenotype(decode_cell(alpha), best_path(beta, border_correction=border_correction).levels)


def decode_cell(alpha: Any) -> tuple[Block, ...]:
    """The cell: per block the two strongest inputs, each with its most likely op; both without the zero op.

    The strength of an input is the largest probability among its other ops, after a softmax over all of them: an
    edge that leans towards zero is a weak one. In ties (strengths whose logarithms are within 1e-12, equal logits of
    ops) the smaller input and the op that stands first in `OPS` win.

    Args:
        alpha: logits of the ops, [edges, 8].

    Returns:
        blocks of two (input, op), the smaller input first.
    """
    alpha = _checked_alpha(alpha)
    others = np.where(np.array(OPS) == NONE, -np.inf, alpha)
    best = others.argmax(axis=1)
    # As logarithms, for where zero is all but certain the probabilities of the others underflow.
    strengths = others.max(axis=1) - np.logaddexp.reduce(alpha, axis=1)
    blocks, row = [], 0
    while row < len(alpha):
        num_inputs = 2 + len(blocks)
        left, kept = strengths[row : row + num_inputs].copy(), []
        for _ in range(2):
            kept.append(int(np.argmax(left >= left.max() - _TIE)))
            left[kept[-1]] = -np.inf
        blocks.append(tuple((int(source), OPS[best[row + source]]) for source in sorted(kept)))
        row += num_inputs
    return tuple(blocks)


def best_path(beta: Any, *, border_correction: bool = False) -> Path:
    """The path of the highest probability from the stem to any level of the last layer (Viterbi's algorithm).

    Of paths that tie (log-probabilities within 1e-12) the one that comes first when levels are compared from the
    first layer on: equal logits give the path that stays at stride 4. That one is the most probable then because
    border nodes share 1 among two edges and not three, a bias that an untrained beta has under the paper's rule;
    among its rivals is the path that leaves stride 4 in the last layer, with the same probability.

    Args:
        beta: logits of the transitions, [layers, 4, 3].
        border_correction: multiply what leaves border nodes by 2/3, as the code of other projects does.
    """
    steps = _log_transitions(_checked_beta(beta), border_correction)
    num_layers = len(steps)
    # to_go[l, i]: log-probability of the best way from level i, before layer l, to the end.
    to_go = np.zeros((num_layers + 1, NUM_LEVELS))
    for layer in reversed(range(num_layers)):
        to_go[layer] = np.max(steps[layer] + to_go[layer + 1], axis=1)
    levels, level, so_far, second = [], 0, 0.0, -np.inf
    for layer in range(num_layers):
        # The best path that shares the layers before and enters this one at each of the levels.
        through = so_far + steps[layer, level] + to_go[layer + 1]
        # The least level that still leads to a tie; by rounding alone none might be left, but for the maximum.
        chosen = int(np.argmax(through >= min(to_go[0, 0] - _TIE, through.max())))
        second = max(second, float(np.max(np.delete(through, chosen))))
        so_far += float(steps[layer, level, chosen])
        levels.append(chosen)
        level = chosen
    return Path(tuple(levels), so_far, max(so_far - second, 0.0))


def entropies(alpha: Any, beta: Any) -> Entropies:
    """How far alpha and beta are from a decision; see `Entropies`. Beta is taken without border correction."""
    beta = _checked_beta(beta)
    of_nodes, reached = entropy(beta_probabilities(beta)), edge_mask(len(beta)).any(axis=2)
    transitions = np.exp(_log_transitions(beta, False))
    presence, of_paths = np.eye(NUM_LEVELS)[0], 0.0
    for layer in range(len(beta)):
        of_paths += float(presence @ of_nodes[layer])
        presence = presence @ transitions[layer]
    of_edges = entropy(alpha_probabilities(_checked_alpha(alpha)))
    return Entropies(float(of_edges.mean()), float(of_nodes[reached].mean()), of_paths)


def read_logits(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """(alpha, beta) of an .npz file, or of the run folder of a search, which holds one as alpha_beta.npz.

    The arrays are named alpha and beta (or alphas_logits and betas_logits). A list of op names in it, `primitives`,
    has to be `OPS`: with another order of the ops every number would mean something else.

    Raises:
        InputError: names the file and what is wrong with it.
    """
    path = pathlib.Path(path)
    path = path / LOGITS_FILE if path.is_dir() else path
    arrays = _read_arrays(path, {"primitives", "format_version", *sum(_NAMES.values(), ())})
    if "format_version" in arrays and arrays["format_version"].tolist() != config.FORMAT_VERSION:
        raise InputError(
            f"{path}: expected format_version {config.FORMAT_VERSION}, received {arrays['format_version'].tolist()!r}"
        )
    if "primitives" in arrays and arrays["primitives"].tolist() != list(OPS):
        received = arrays["primitives"].tolist()
        raise InputError(f"{path}: ops of another list: expected primitives {', '.join(OPS)}, received {received}")
    found = [next((arrays[name] for name in names if name in arrays), None) for names in _NAMES.values()]
    for wanted, array in zip(_NAMES, found, strict=True):
        if array is None:
            raise InputError(f"{path}: expected arrays alpha and beta, found no {wanted}")
    try:
        return _checked_alpha(found[0]), _checked_beta(found[1])
    except InputError as problem:
        raise InputError(f"{path}: {problem}") from None


def _read_arrays(path: pathlib.Path, wanted: set[str]) -> dict[str, np.ndarray]:
    expected = f"{path}: expected an .npz file with arrays alpha and beta"
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise InputError(f"{expected}, received a file of another format")
            with zipfile.ZipFile(file) as archive:
                size = max((info.file_size for info in archive.infolist()), default=0)
            if size > _MAX_ARRAY_BYTES:
                raise InputError(f"{expected}, received one of {size >> 20} MiB when unpacked")
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files if name in wanted}
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, EOFError, KeyError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{expected} ({error})") from None


def _log_transitions(beta: np.ndarray, border_correction: bool) -> np.ndarray:
    """Log-probabilities by target, [layers, level before, level]; -inf where there is no edge."""
    weights = beta_probabilities(beta, border_correction=border_correction)
    with np.errstate(divide="ignore"):  # log 0 = -inf is what a missing edge is to have
        logs = np.log(weights)
    steps = np.full((len(beta), NUM_LEVELS, NUM_LEVELS), -np.inf)
    for level in range(NUM_LEVELS):
        for direction in range(NUM_DIRECTIONS):
            if 0 <= level + direction - 1 < NUM_LEVELS:
                steps[:, level, level + direction - 1] = logs[:, level, direction]
    return steps


def _checked_alpha(alpha: Any) -> np.ndarray:
    array = _numbers("alpha", alpha)
    rows = array.shape[0] if array.ndim == 2 else 0
    legal_rows = {num_edges(num_blocks) for num_blocks in range(1, rows + 1)}
    if array.ndim != 2 or array.shape[1] != len(OPS) or rows not in legal_rows:
        raise InputError(
            f"alpha: expected [edges, {len(OPS)}] with 2 + 3 + ... edges, one term a block ([20, {len(OPS)}] for "
            f"five), received {list(array.shape)}"
        )
    return _finite("alpha", array)


def _checked_beta(beta: Any) -> np.ndarray:
    array = _numbers("beta", beta)
    if array.ndim != 3 or array.shape[1:] != (NUM_LEVELS, NUM_DIRECTIONS) or not len(array):
        raise InputError(
            f"beta: expected [layers, {NUM_LEVELS}, {NUM_DIRECTIONS}] with at least one layer, received "
            f"{list(array.shape)}"
        )
    return _finite("beta", array)


def _numbers(name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError:
        raise InputError(f"{name}: expected an array of logits, received lists of unequal lengths") from None
    if array.dtype.kind not in "fiu":
        raise InputError(f"{name}: expected real numbers, received values of type {array.dtype}")
    return array.astype(np.float64)


def _finite(name: str, array: np.ndarray) -> np.ndarray:
    wrong = np.argwhere(~np.isfinite(array))
    if len(wrong):
        where = wrong[0].tolist()
        raise InputError(f"{name}: expected finite logits, received {array[tuple(where)]} at {where}")
    return array
