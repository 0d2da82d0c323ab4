"""What README.md promises: its commands exist with their flags, its Python runs, its numbers are recomputed."""

import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from case import REPOSITORY

import nas_seg
from nas_seg import presets

_README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def _commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", _README, re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.startswith("python tools/")]


@pytest.mark.parametrize("tool", sorted({command[1] for command in _commands()}))
def test_every_flag_that_readme_types_is_the_tools(tool):
    shown = subprocess.run([sys.executable, tool, "--help"], cwd=REPOSITORY, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    flags = set(re.findall(r"^  --(\w+)", shown.stdout, re.M))
    for command in (command for command in _commands() if command[1] == tool):
        typed = {argument.removeprefix("--").split("=")[0] for argument in command[2:]}
        assert typed <= flags, f"{tool}: {typed - flags}"


def test_files_and_folders_that_readme_names_exist():
    for path in re.findall(r"\]\(([\w/.]+)\)", _README) + re.findall(r"`(nas_seg/[\w/.]+|tools/\w+\.py)`", _README):
        assert (REPOSITORY / path).exists(), path


def test_readmes_first_lines_of_python_run():
    code = re.search(r"```python\n(import nas_seg.*?)```", _README, re.S).group(1)
    # No download in a test: the weights stay fresh.
    scope = {"images": np.zeros((1, 33, 49, 3), np.float32)}
    exec(code.replace(', backbone_weights="imagenet"', ""), scope)
    assert scope["logits"].shape == (1, 33, 49, 11)


def test_parameters_of_the_zoo_table_are_those_of_the_networks():
    section = _README.split("\n## The zoo\n")[1].split("\n### ")[0]
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| ([\d,]+) \|", section, re.M)
    assert {name for name, _ in rows} == set(nas_seg.list_presets())
    for name, parameters in rows:
        model = nas_seg.from_preset(name, num_classes=19)
        assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == int(parameters.replace(",", "")), name


def test_released_checkpoints_of_readme_are_all_there_with_their_networks():
    section = _README.split("### Networks of DeepLab's model zoo")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (\d+) \|", section, re.M)
    with_classes = {name: row for name, row in presets.RELEASED.items() if row.num_classes}
    assert {name: (preset, int(classes)) for name, preset, classes in rows} == {
        name: (row.preset, row.num_classes) for name, row in with_classes.items()
    }
    assert all(f"`{name}`" in section for name in presets.RELEASED)


def test_tools_make_and_documents_agree_on_the_two_commands():
    makefile = pathlib.Path(REPOSITORY, "Makefile").read_text()
    for target in ("quickstart", "test"):
        assert f"make {target}" in _README and re.search(rf"^{target}:", makefile, re.M)
