"""The documents on data: their commands exist with their flags, their tables name what there is."""

import re
import shlex

import pytest
from case import REPOSITORY

from nas_seg.datasets import catalog

_DOCUMENTS = ("docs/your_own_data.md", "nas_seg/datasets/README.md")
_TOOLS = ("build_data", "inspect_data")


def _text(document: str) -> str:
    return (REPOSITORY / document).read_text(encoding="utf-8")


@pytest.mark.parametrize("document", _DOCUMENTS)
def test_every_flag_that_is_typed_is_the_tools(document):
    commands = [shlex.split(line) for line in _text(document).replace("\\\n", " ").splitlines() if "tools/" in line]
    checked = 0
    for command in (command for command in commands if command[:1] == ["python"]):
        tool = command[1].removeprefix("tools/").removesuffix(".py")
        if tool not in _TOOLS:
            continue
        defined = set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', (REPOSITORY / command[1]).read_text()))
        typed = {argument.removeprefix("--").split("=")[0] for argument in command[2:]}
        assert typed <= defined | set(catalog.ARGUMENTS), f"{command}: {typed}"
        checked += 1
    assert checked >= 2


def test_the_table_of_data_sets_is_the_catalog():
    table = _text("nas_seg/datasets/README.md").split("## What happens")[0]
    rows = {row.removesuffix("NAME") for row in re.findall(r"^\| `([\w:]+)`", table, re.M)}
    assert rows == {*catalog.READERS, catalog.TFDS, catalog.RECORDS}
    typed = {name for document in _DOCUMENTS for name in re.findall(r"--(\w+)", _text(document))}
    assert set(catalog.ARGUMENTS) - typed <= _IN_HELP_ONLY


# Rarely needed, told by --help and by the errors that ask for them.
_IN_HELP_ONLY = {"num_images", "image_size", "image_feature", "label_feature"}


@pytest.mark.parametrize("document", _DOCUMENTS)
def test_files_that_are_linked_or_named_exist(document):
    folder = (REPOSITORY / document).parent
    for path in re.findall(r"\]\(([\w/.]+)\)", _text(document)):
        assert (folder / path).exists(), path
    if document.startswith("nas_seg"):
        for name in re.findall(r"`(\w+\.py)`", _text(document)):
            assert (folder / name).exists(), name
