"""Where progress is shown and where it is not."""

import os
import pty
import subprocess
import sys

import pytest
from case import REPOSITORY

from nas_seg.utils import progress
from nas_seg.utils.errors import InputError

_CODE = """
from nas_seg.utils.progress import progress
with progress("train", 4, 1) as bar:
    bar.advance(3, loss=0.5)
print("end")
"""


def run(stdout, **variables):
    environment = {k: v for k, v in os.environ.items() if k != progress.VARIABLE} | variables
    return subprocess.run([sys.executable, "-c", _CODE], cwd=REPOSITORY, env=environment, stdout=stdout, text=True)


def test_a_pipe_gets_the_results_alone_unless_lines_are_asked_for():
    assert run(subprocess.PIPE).stdout == "end\n"
    assert run(subprocess.PIPE, NAS_SEG_PROGRESS="lines").stdout == "train 4/4 · loss 0.5 · 0 s, 0 s left\nend\n"


def test_a_log_file_gets_lines_unless_quiet_is_asked_for(tmp_path):
    for variables, lines in (({}, 2), ({"NAS_SEG_PROGRESS": "quiet"}, 1)):
        with (tmp_path / "log").open("w") as log:
            run(log, **variables)
        assert len((tmp_path / "log").read_text().splitlines()) == lines


@pytest.mark.parametrize(("asked", "shown"), [(None, True), ("quiet", False)])
def test_a_terminal_gets_a_bar_with_time_left_unless_quiet_is_asked_for(asked, shown):
    mine, its = pty.openpty()
    run(its, **({"NAS_SEG_PROGRESS": asked} if asked else {}), TERM="xterm", COLUMNS="100")
    os.close(its)
    told = b""
    try:
        while data := os.read(mine, 1 << 16):
            told += data
    except OSError:
        pass  # the end of a terminal that nobody writes to any more
    os.close(mine)
    assert (b"4/4" in told) == shown and b"end" in told


def test_an_unknown_style_is_named(monkeypatch):
    monkeypatch.setenv(progress.VARIABLE, "quite")
    with pytest.raises(InputError, match="NAS_SEG_PROGRESS: unknown style 'quite'.*quiet"):
        progress.style()
