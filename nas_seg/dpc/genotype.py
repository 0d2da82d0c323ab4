"""A dense prediction cell as a value: its branches, its JSON, and its cost before anything is built.

Source: Chen et al., "Searching for Efficient Multi-Scale Architectures for Dense Image Prediction", NeurIPS
2018, the dense prediction cell of its recursive search space; the JSON list is the one that DeepLab's code reads.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from nas_seg.utils import config
from nas_seg.utils.dimension import pooling_window
from nas_seg.utils.errors import InputError, unknown

FEATURES = -1
CONV = "conv"
PYRAMID_POOLING = "pyramid_pooling"

# Which keys DeepLab's JSON has for each op, and those that its code computes and writes back beside them.
_KEYS = {CONV: {"op", "input", "kernel", "rate"}, PYRAMID_POOLING: {"op", "input", "grid_size"}}
_COMPUTED_KEYS = {CONV: set(), PYRAMID_POOLING: {"kernel", "target_size"}}
_PUBLISHED = pathlib.Path(__file__).with_name("published")


@dataclasses.dataclass(frozen=True)
class Branch:
    """One branch: an operation on the backbone features or on the output of an earlier branch.

    Attributes:
        op: "conv" or "pyramid_pooling".
        input: -1 reads the backbone features (any negative number is stored as -1), k >= 0 reads branch k.
        kernel: of a conv, (height, width); an int stands for a square. (1, 1) is a plain convolution, all
            others are depthwise-separable. None for pooling.
        rate: of a conv other than 1x1, (height, width) in positions of the feature map at output stride 16.
        grid_size: of pooling, (height, width): the averaging window is about 1/grid of the map.
    """

    op: str
    input: int
    kernel: int | tuple[int, int] | None = None
    rate: tuple[int, int] | None = None
    grid_size: tuple[int, int] | None = None

    def __post_init__(self):
        if self.op not in _KEYS:
            raise unknown("op", self.op, _KEYS)
        if not _is_int(self.input):
            raise InputError(f"input: expected an integer (-1: backbone features), received {self.input!r}")
        square = (self.kernel, self.kernel) if _is_int(self.kernel) else self.kernel
        values = {
            "input": max(self.input, FEATURES),
            "kernel": _pair("kernel", square),
            "rate": _pair("rate", self.rate),
            "grid_size": _pair("grid_size", self.grid_size),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        needed = {CONV: ("kernel", "rate"), PYRAMID_POOLING: ("grid_size",)}[self.op]
        for name in ("kernel", "rate", "grid_size"):
            needs = name in needed and not (name == "rate" and self.is_pointwise)
            if needs and values[name] is None:
                raise InputError(f"{name} is missing: {self.op} needs it")
            if values[name] is not None and not needs:
                raise InputError(f"{name}: {_plain_name(self)} has none, received {list(values[name])}")

    @property
    def is_pointwise(self) -> bool:
        """Whether this is the plain 1x1 convolution."""
        return self.op == CONV and self.kernel == (1, 1)

    @property
    def op_label(self) -> str:
        """The operation as text: "1x1", "sep3x3(1x6)" (rate) or "spp(4x2)" (grid)."""
        if self.op == PYRAMID_POOLING:
            return f"spp({_times(self.grid_size)})"
        return "1x1" if self.is_pointwise else f"sep{_times(self.kernel)}({_times(self.rate)})"

    @property
    def input_label(self) -> str:
        """The input as text: "F" for the backbone features, else the number of the branch."""
        return "F" if self.input == FEATURES else str(self.input)


@dataclasses.dataclass(frozen=True)
class DPCGenotype:
    """A cell: its branches in order. All of them are concatenated, also those that feed another one.

    Raises:
        InputError: when there is no branch, or one reads itself or a later one.
    """

    KIND: ClassVar[str] = "dpc"

    branches: tuple[Branch, ...]

    def __post_init__(self):
        if not isinstance(self.branches, Sequence) or not all(isinstance(b, Branch) for b in self.branches):
            raise InputError(f"branches: expected a tuple of Branch, received {self.branches!r}")
        object.__setattr__(self, "branches", tuple(self.branches))
        if not self.branches:
            raise InputError("branches: expected at least one branch, received none")
        for i, branch in enumerate(self.branches):
            if branch.input >= i:
                earlier = f"-1 (backbone features) to {i - 1}" if i else "-1 (backbone features)"
                raise InputError(
                    f"branch {i} reads branch {branch.input}, which is not an earlier one: input can be {earlier}"
                )

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits; the same for every JSON form of the same cell."""
        return config.digest(self)

    def summary(self) -> str:
        """The cell on one line, for example "F:sep3x3(1x6) 0:sep3x3(18x15)": input, colon, operation."""
        return " ".join(f"{branch.input_label}:{branch.op_label}" for branch in self.branches)

    def to_list(self) -> list[dict[str, Any]]:
        """DeepLab's JSON list; each call makes a new one."""
        return [_to_entry(branch) for branch in self.branches]

    @classmethod
    def from_list(cls, entries: Any, where: str = "cell") -> DPCGenotype:
        """Reads DeepLab's JSON list (already parsed); `where` names it in messages."""
        if not isinstance(entries, (list, tuple)):
            raise InputError(f"{where}: expected a list of branches, received {entries!r}")
        branches = []
        for i, entry in enumerate(entries):
            try:
                branches.append(_from_entry(entry))
            except InputError as problem:
                raise InputError(f"{where}: branch {i}: {problem}") from None
        try:
            return cls(tuple(branches))
        except InputError as problem:
            raise InputError(f"{where}: {problem}") from None

    @classmethod
    def load(cls, path: str | os.PathLike) -> DPCGenotype:
        """Reads a cell from a file: DeepLab's bare list, or what `save` wrote."""
        data = config.read_json(path)
        if isinstance(data, list):
            return cls.from_list(data, str(path))
        if isinstance(data, dict) and data.get("kind") != cls.KIND:
            raise InputError(
                f"{path}: expected a genotype of kind {cls.KIND!r} or DeepLab's list of branches, "
                f"received kind {data.get('kind')!r}"
            )
        return config.load(path, cls)

    def save(self, path: str | os.PathLike, bare: bool = False) -> None:
        """Writes the cell; `bare` writes DeepLab's list, which other programs read but which has no version."""
        if bare:
            config.write_json(path, self.to_list())
        else:
            config.save(path, self)


class Count(NamedTuple):
    """What a cell costs: trainable parameters, and multiply-adds for one image."""

    params: int
    madds: int


def count(
    genotype: DPCGenotype,
    in_channels: int,
    height: int,
    width: int,
    filters: int = 256,
    with_projection: bool = False,
    concat_filters: int = 256,
) -> Count:
    """Counts a cell before it is built.

    By default what the paper's Table 1 counts as the context module: the convolution weights of the branches.

    Args:
        genotype: the cell.
        in_channels: channels of the backbone features.
        height, width: of the feature map, for example 65 x 129 for a 1025 x 2049 image at output stride 16.
        filters: channels of every branch.
        with_projection: also count batch normalisation (gamma and beta; no multiply-adds) and the 1x1
            convolution to `concat_filters` channels after the concatenation: all that can be trained.
        concat_filters: channels after the projection.
    """
    params = madds = 0
    for branch in genotype.branches:
        channels = in_channels if branch.input == FEATURES else filters
        weights, normalised, positions = channels * filters, filters, height * width
        if branch.op == PYRAMID_POOLING:
            # The 1x1 convolution runs on what the VALID average leaves, before the resize back to the map.
            windows = [pooling_window(s, g) for s, g in zip((height, width), branch.grid_size, strict=True)]
            positions = (height - windows[0] + 1) * (width - windows[1] + 1)
        elif not branch.is_pointwise:
            weights += channels * branch.kernel[0] * branch.kernel[1]
            normalised += channels
        params += weights + (2 * normalised if with_projection else 0)
        madds += weights * positions
    if with_projection:
        weights = len(genotype.branches) * filters * concat_filters
        params += weights + 2 * concat_filters
        madds += weights * height * width
    return Count(params, madds)


def published(name: str) -> DPCGenotype:
    """A published cell by name: "cityscapes_top1"."""
    names = sorted(path.stem for path in _PUBLISHED.glob("*.json"))
    if name not in names:
        raise unknown("published cell", name, names)
    return DPCGenotype.load(_PUBLISHED / f"{name}.json")


def _from_entry(entry: Any) -> Branch:
    if not isinstance(entry, Mapping):
        raise InputError(f"expected an object, received {entry!r}")
    for key in ("op", "input"):
        if key not in entry:
            raise InputError(f"field {key!r} is missing")
    op = entry["op"]
    if not isinstance(op, str) or op not in _KEYS:
        raise unknown("op", op, _KEYS)
    for key in entry:
        if key not in _KEYS[op] | _COMPUTED_KEYS[op]:
            raise InputError(str(unknown(f"field of {op}", key, _KEYS[op])))
    fields = {key: entry[key] for key in entry if key in _KEYS[op]}
    if op == CONV and fields.get("kernel") in (1, [1, 1], (1, 1)):
        # DeepLab ignores the rate of a 1x1 convolution.
        fields.pop("rate", None)
    return Branch(**fields)


def _to_entry(branch: Branch) -> dict[str, Any]:
    if branch.op == PYRAMID_POOLING:
        return {"op": branch.op, "input": branch.input, "grid_size": list(branch.grid_size)}
    kernel = branch.kernel[0] if branch.kernel[0] == branch.kernel[1] else list(branch.kernel)
    rate = {} if branch.is_pointwise else {"rate": list(branch.rate)}
    return {"op": branch.op, "input": branch.input, "kernel": kernel} | rate


def _pair(name: str, value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    ok = isinstance(value, (tuple, list)) and len(value) == 2 and all(_is_int(v) and v >= 1 for v in value)
    if not ok:
        raise InputError(f"{name}: expected two integers >= 1 (height, width), received {value!r}")
    return tuple(value)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _plain_name(branch: Branch) -> str:
    return "a 1x1 conv" if branch.is_pointwise else branch.op


def _times(pair: tuple[int, int]) -> str:
    return f"{pair[0]}x{pair[1]}"


CITYSCAPES_TOP1 = published("cityscapes_top1")
