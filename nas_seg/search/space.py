"""A search space: genotypes as vectors of bounded integers, one for each decision."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from nas_seg.utils import config
from nas_seg.utils.errors import InputError, unknown


class SearchSpace(abc.ABC):
    """A product of decisions, each among a few labelled choices.

    A concrete space is a frozen dataclass whose fields are its arguments (so it has a JSON form) and says
    what the decisions are (`names`, `labels`) and how a genotype answers them (`_encode`, `_decode`); every
    combination of choices is a genotype, and no two combinations are the same one.
    """

    KIND: ClassVar[str]
    # What the parameters and multiply-adds of a trial are those of.
    COUNTED: ClassVar[str] = "searched part"

    @property
    @abc.abstractmethod
    def names(self) -> tuple[str, ...]:
        """Distinct names of the decisions, for example "b3_input", "b3_op"."""

    @property
    @abc.abstractmethod
    def labels(self) -> tuple[tuple[str, ...], ...]:
        """The choices of each decision as distinct readable strings."""

    @abc.abstractmethod
    def _encode(self, genotype: Any) -> list[int]:
        """The choice made in each decision; InputError says what is outside the space."""

    @abc.abstractmethod
    def _decode(self, choices: list[int]) -> Any:
        """The genotype of checked choices."""

    @property
    def num_choices(self) -> tuple[int, ...]:
        """How many choices each decision has."""
        return tuple(len(labels) for labels in self.labels)

    def size(self) -> int:
        """How many genotypes there are."""
        return math.prod(self.num_choices)

    def digest(self) -> str:
        """Twelve hexadecimal digits that name the decisions and their choices."""
        return config.digest([list(self.names), [list(labels) for labels in self.labels]])

    def encode(self, genotype: Any) -> np.ndarray:
        """The genotype as an int64 vector [n]: the number of the choice made in each decision.

        Raises:
            InputError: when the genotype is not in the space.
        """
        return np.array(self._encode(genotype), np.int64)

    def decode(self, vector: Any) -> Any:
        """The genotype of a vector [n] of integers.

        Raises:
            InputError: on another length or type, or a choice out of range.
        """
        array = np.asarray(vector)
        if array.shape != (len(self.names),) or not np.issubdtype(array.dtype, np.integer):
            raise InputError(
                f"vector: expected {len(self.names)} integers, received shape {array.shape} of {array.dtype}"
            )
        for name, choice, total in zip(self.names, array.tolist(), self.num_choices, strict=True):
            if not 0 <= choice < total:
                raise InputError(f"vector: {name}: expected 0 to {total - 1}, received {choice}")
        return self._decode(array.tolist())

    def identity(self, params: Mapping[str, str]) -> Any:
        """What the trials of one genotype share: their parameters, where a family knows no other ways to write it.

        Args:
            params: of a trial; some are missing while its decisions are being made.
        """
        return params

    def validate(self, genotype: Any) -> None:
        """Raises InputError, saying which part, unless the genotype is in the space."""
        self._encode(genotype)

    def sample(self, rng: np.random.Generator) -> Any:
        """A genotype drawn uniformly."""
        return self.decode(rng.integers(0, self.num_choices))

    def mutate(self, genotype: Any, rng: np.random.Generator) -> Any:
        """A genotype that differs in exactly one decision, drawn uniformly, as is its new choice.

        A decision with a single choice is never the one.
        """
        vector = self.encode(genotype)
        open_decisions = [i for i, total in enumerate(self.num_choices) if total > 1]
        if not open_decisions:
            raise InputError("a space with one genotype has no mutation")
        i = open_decisions[rng.integers(len(open_decisions))]
        vector[i] = (vector[i] + 1 + rng.integers(self.num_choices[i] - 1)) % self.num_choices[i]
        return self.decode(vector)

    def to_params(self, genotype: Any) -> dict[str, str]:
        """The genotype as named labels: the parameters of a study's trial."""
        choices = self.encode(genotype).tolist()
        return {n: labels[c] for n, labels, c in zip(self.names, self.labels, choices, strict=True)}

    def from_params(self, params: Mapping[str, str]) -> Any:
        """The genotype of named labels; InputError on a missing, unknown or wrong one."""
        for name in params:
            if name not in self.names:
                raise unknown("decision", name, self.names)
        choices = []
        for name, labels in zip(self.names, self.labels, strict=True):
            if name not in params:
                raise InputError(f"decision {name!r} is missing")
            if params[name] not in labels:
                raise InputError(f"{name}: {unknown('choice', params[name], labels)}")
            choices.append(labels.index(params[name]))
        return self._decode(choices)
