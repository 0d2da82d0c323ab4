"""docs/tour.ipynb: well formed, without outputs, and its cells run from data to an exported model."""

import json
import os
import re
import subprocess
import sys
import time

import pytest
from case import REPOSITORY

_NOTEBOOK = REPOSITORY / "docs" / "tour.ipynb"
# Runs the cells one after another in one process, as a kernel does, and says so after each.
_KERNEL = """
import json, sys
scope = {"__name__": "__main__"}
cells = [c for c in json.load(open(sys.argv[1], encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
for number, cell in enumerate(cells):
    exec(compile("".join(cell["source"]), f"cell {number}", "exec"), scope)
    print(f"<cell {number} ran>", flush=True)
print("<agreement>", scope["agreement"])
"""


def _cells(kind):
    book = json.loads(_NOTEBOOK.read_text(encoding="utf-8"))
    return [cell for cell in book["cells"] if cell["cell_type"] == kind]


def test_the_notebook_has_no_outputs_and_only_plain_python():
    for cell in _cells("code"):
        assert cell["outputs"] == [] and cell["execution_count"] is None
        text = "".join(cell["source"])
        compile(text, "cell", "exec")
        assert not re.search(r"^\s*[!%]", text, re.M)


def test_tools_and_flags_that_the_notebook_names_exist():
    told = "".join("".join(cell["source"]) for cell in _cells("markdown"))
    tools = set(re.findall(r"tools/\w+\.py", told))
    assert len(tools) >= 7 and all((REPOSITORY / tool).is_file() for tool in tools)
    for path in re.findall(r"\]\(([\w./]+)\)", told):
        assert (_NOTEBOOK.parent / path).is_file(), path


@pytest.mark.slow
def test_the_notebook_runs_from_data_to_an_exported_model(tmp_path):
    environment = os.environ | {"TOUR_DIR": str(tmp_path / "tour"), "PYTHONPATH": str(REPOSITORY)}
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _KERNEL, str(_NOTEBOOK)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    print(f"{time.monotonic() - start:.0f} s")
    assert done.returncode == 0, done.stderr[-3000:]
    ran = re.findall(r"<cell (\d+) ran>", done.stdout)
    assert ran == [str(number) for number in range(len(_cells("code")))]
    assert (tmp_path / "tour" / "saved_model" / "saved_model.pb").is_file()
    for run in ("search", "found"):
        assert (tmp_path / "tour" / run / "report.html").stat().st_size > 10_000
    # The SavedModel pads and resizes in its own graph: a pixel on a border of classes may fall to the other side.
    assert float(done.stdout.split("<agreement>")[1]) > 0.999
