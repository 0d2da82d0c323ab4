"""What docs/migration.md promises: its tables are the code's, its commands have flags that exist."""

import re
import shlex

import pytest
from case import REPOSITORY

from nas_seg import network_flags, old_flags
from nas_seg.train_config import TrainConfig

_TEXT = (REPOSITORY / "docs" / "migration.md").read_text(encoding="utf-8")
_BLOCKS = re.findall(r"```sh\n(.*?)```", _TEXT, re.S)


def _defined(tool):
    """Flags that a tool's file names, and those of the modules whose flags it takes."""
    text = (REPOSITORY / "tools" / f"{tool}.py").read_text()
    names = set(re.findall(r'"(\w+)"', text)) | {row.split("`")[1].removeprefix("--") for row in old_flags.table()}
    if "network_flags" in text or "inference_flags" in text:
        shared = (REPOSITORY / "nas_seg" / "inference_flags.py").read_text()
        names |= {name for name, _, _ in network_flags._FLAGS} | set(re.findall(r'"(\w+)"', shared))
    if tool == "build_data":
        names |= set(re.findall(r'"(\w+)"', (REPOSITORY / "nas_seg/datasets/catalog.py").read_text()))
    return names | set(TrainConfig.__dataclass_fields__) | {"logtostderr"}


def test_the_table_of_flags_without_meaning_is_the_codes():
    section = _TEXT.split("### Without meaning\n")[1].split("\n## ")[0]
    assert [line for line in section.splitlines() if line.startswith("| `--")] == old_flags.table()


@pytest.mark.parametrize("block", range(len(_BLOCKS)))
def test_every_flag_of_its_commands_is_the_tools(block):
    lines = _BLOCKS[block].replace("\\\n", " ").splitlines()
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("python tools/")]
    assert commands
    for _, tool, *arguments in commands:
        known = _defined(tool.removeprefix("tools/").removesuffix(".py"))
        typed = {argument.removeprefix("--").split("=")[0] for argument in arguments}
        assert typed <= known, (tool, typed - known)
