"""Configurations survive JSON; everything else is refused by field."""

import dataclasses
import json
import os
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_seg.utils import config
from nas_seg.utils.errors import InputError


@dataclasses.dataclass(frozen=True)
class Leaf:
    KIND: ClassVar[str] = "leaf"
    size: int
    color: str | None = None


@dataclasses.dataclass(frozen=True)
class Branch:
    KIND: ClassVar[str] = "branch"
    rates: tuple[int, ...] = ()
    pair: tuple[int, float] = (1, 0.5)

    def __post_init__(self):
        if any(rate < 1 for rate in self.rates):
            raise InputError(f"rates: expected at least 1, received {list(self.rates)}")


@dataclasses.dataclass(frozen=True)
class Tree:
    name: str
    part: Leaf | Branch
    scale: float = 1.0
    flags: dict[str, bool] = dataclasses.field(default_factory=dict)


_LEAVES = st.builds(Leaf, size=st.integers(), color=st.none() | st.text())
_BRANCHES = st.builds(
    Branch,
    rates=st.lists(st.integers(1, 99)).map(tuple),
    pair=st.tuples(st.integers(), st.floats(allow_nan=False, allow_infinity=False)),
)
_TREES = st.builds(
    Tree,
    name=st.text(),
    part=_LEAVES | _BRANCHES,
    scale=st.floats(allow_nan=False, allow_infinity=False),
    flags=st.dictionaries(st.text(), st.booleans()),
)


@given(_TREES)
def test_configuration_survives_json(tree):
    again = config.from_json(Tree, json.loads(json.dumps(config.to_json(tree))))
    assert again == tree and config.digest(again) == config.digest(tree)


@given(_TREES, _TREES)
def test_digests_are_equal_where_the_content_is(one, other):
    assert (config.digest(one) == config.digest(other)) == (config.to_json(one) == config.to_json(other))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"nam": "x"}, "unknown field 'nam'.*Did you mean 'name'"),
        ({"scale": "big"}, "config.scale: expected float, received 'big'"),
        ({"scale": True}, "config.scale: expected float"),
        ({"part": {"kind": "laef", "size": 1}}, "config.part.kind: unknown kind 'laef'.*Did you mean 'leaf'"),
        ({"part": {"kind": "leaf"}}, "config.part: field 'size' is missing"),
        ({"part": {"kind": "leaf", "size": 1.5}}, "config.part.size: expected int, received 1.5"),
        ({"part": {"kind": "leaf", "size": True}}, "config.part.size: expected int"),
        ({"part": {"kind": "branch", "rates": [0]}}, "config.part: rates: expected at least 1"),
        ({"part": {"kind": "branch", "pair": [1]}}, "config.part.pair: expected 2 items, received 1"),
        ({"part": {"kind": "branch", "rates": 3}}, "config.part.rates: expected a list"),
        ({"part": None}, "config.part"),
        ({"flags": []}, "config.flags: expected an object"),
    ],
)
def test_wrong_field_is_refused_by_name(change, message):
    good = {"name": "t", "part": {"kind": "leaf", "size": 1}}
    config.from_json(Tree, good)
    with pytest.raises(InputError, match=message):
        config.from_json(Tree, good | change)


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "tree.json: expected JSON"),
        ("[" * 100_000, "tree.json: expected JSON"),
        ("[]", "tree.json: expected a JSON object, received list"),
        ("{}", "tree.json: expected format_version 1, received None"),
        ('{"format_version": 0, "name": "t"}', "expected format_version 1, received 0"),
    ],
)
def test_broken_file_is_refused_by_name(tmp_path, text, message):
    (tmp_path / "tree.json").write_text(text)
    with pytest.raises(InputError, match=message):
        config.load(tmp_path / "tree.json", Tree)


def test_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match="none.json: cannot be read"):
        config.load(tmp_path / "none.json", Tree)


def test_saved_file_has_its_version_and_is_read_again(tmp_path):
    tree = Tree("t", Branch((1, 2)))
    config.save(tmp_path / "tree.json", tree)
    assert json.loads((tmp_path / "tree.json").read_text())["format_version"] == 1
    assert config.load(tmp_path / "tree.json", Tree) == tree


def test_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "tree.json"
    config.write_json(path, {"old": 1})

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        config.write_json(path, {"new": 2})
    assert json.loads(path.read_text()) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["tree.json"]


def test_writing_onto_a_folder_is_refused_by_name(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="folder: cannot be written"):
        config.write_json(tmp_path / "folder", {})
