"""Tools end with the right code and one line."""

import subprocess
import sys

import pytest

from nas_seg.utils import app
from nas_seg.utils.errors import InputError

_TOOL = '''
"""Does a thing."""
from absl import flags
from nas_seg.utils import app
from nas_seg.utils.errors import InputError, unknown
flags.DEFINE_integer("steps", 3, "How many steps.", lower_bound=1)
flags.DEFINE_float("rate", 0.5, "How fast.")
def main():
    if flags.FLAGS.steps == 7:
        raise InputError("steps: expected anything but 7,\\nreceived 7")
    if flags.FLAGS.steps == 6:
        raise unknown("rate", "fats", ["fast"])
    if flags.FLAGS.steps == 5:
        raise InputError("some/steps: expected a file")
    if flags.FLAGS.steps == 8:
        raise KeyboardInterrupt
    if flags.FLAGS.steps == 9:
        raise RuntimeError("a bug")
    print("done", flags.FLAGS.steps)
if __name__ == "__main__":
    app.run(main)
'''


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("tools") / "thing.py"
    path.write_text(_TOOL)
    return path


@pytest.fixture
def tool(path):
    return lambda *arguments: subprocess.run(
        [sys.executable, str(path), *arguments], capture_output=True, text=True, timeout=60
    )


def test_tool_that_ends_well_has_code_0(tool):
    result = tool("--steps=4")
    assert (result.returncode, result.stdout, result.stderr) == (0, "done 4\n", "")


@pytest.mark.parametrize(
    "argument, message",
    [
        ("--steps=6", "error: --rate: unknown rate 'fats': expected one of fast."),
        ("--steps=5", "error: some/steps: expected a file"),
        ("--rate=nan", "error: --rate: expected a finite number, received nan"),
        ("--rate=inf", "error: --rate: expected a finite number, received inf"),
        ("--steps=7", "error: --steps: expected anything but 7, received 7\n"),
        ("--stepps=4", "error: Unknown command line flag 'stepps'. Did you mean: steps ?\n"),
        ("--steps=0", "error: flag --steps=0:"),
        ("--steps=many", "error: flag --steps=many:"),
        ("four", "error: unexpected argument 'four'"),
    ],
)
def test_what_the_user_can_put_right_is_one_line_and_code_2(tool, argument, message):
    result = tool(argument)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith(message) and result.stderr.count("\n") == 1


def test_bug_keeps_its_traceback_and_code_1(tool):
    result = tool("--steps=9")
    assert result.returncode == 1 and "RuntimeError: a bug" in result.stderr and "Traceback" in result.stderr


def test_interrupt_has_code_130(tool):
    assert tool("--steps=8").returncode == 130


def test_help_names_every_flag_with_its_default(tool):
    result = tool("--help")
    assert result.returncode == 0
    assert "Does a thing." in result.stdout and "--steps (default: 3)" in result.stdout
    assert "How many steps." in result.stdout and "logtostderr" not in result.stdout


@pytest.mark.parametrize("words", [["0", "5"], ["5", "-1"], ["5"], ["5", "x"], []])
def test_a_size_is_two_numbers_of_1_or_more(words):
    with pytest.raises(InputError, match="--size: expected"):
        app.height_width("size", words)
    assert app.height_width("size", ["1", "5"]) == (1, 5)


@pytest.mark.parametrize("flag", ["--help", "--steps=3"])
def test_a_reader_that_has_seen_enough_is_no_error(path, flag):
    process = subprocess.Popen(
        [sys.executable, str(path), flag], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait() == 0
