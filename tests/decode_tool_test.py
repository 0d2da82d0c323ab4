"""Tests tools/decode_auto_deeplab.py as a command: what it prints and writes, and that bad input leaves nothing."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from case import run_tool

from nas_seg.auto_deeplab import OPS, AutoDeepLabGenotype
from nas_seg.auto_deeplab.decode import best_path, decode


@pytest.fixture
def logits():
    random = np.random.default_rng(5)
    return {"alpha": random.standard_normal((20, 8)), "beta": random.standard_normal((12, 4, 3))}


def test_run_folder_gives_genotype_drawings_and_numbers(tmp_path, logits):
    np.savez(tmp_path / "alpha_beta.npz", **logits)
    out = tmp_path / "out"
    done = run_tool(
        "decode_auto_deeplab", f"--run_dir={tmp_path}", f"--output={out}/genotype.json", f"--plot_dir={out}/drawings"
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    genotype = AutoDeepLabGenotype.load(out / "genotype.json")
    assert genotype == decode(**logits)
    path = best_path(logits["beta"])
    lines = done.stdout.splitlines()
    assert lines[0] == genotype.summary() and lines[1] == f"digest: {genotype.digest}"
    assert f"log-probability {path.log_probability:.6f}, margin to the second-best {path.margin:.6f}" in lines[2]
    assert lines[3].startswith("entropy (nats): alpha ")
    for name in ("path.svg", "cell.svg"):
        ET.parse(out / "drawings" / name)
    # Edges are shaded: beta was given to the drawing.
    assert (out / "drawings" / "path.svg").read_text().count("<title>") == 105


def test_border_correction_is_passed_on_and_nothing_is_written_unasked(tmp_path):
    # One logit that draws the path to stride 8 and beyond only when border steps lose their advantage.
    beta = np.zeros((12, 4, 3))
    beta[0, 0, 2] = 0.1
    np.savez(tmp_path / "logits.npz", alphas_logits=np.zeros((20, 8)), betas_logits=beta, primitives=OPS)
    plain, corrected = (
        run_tool("decode_auto_deeplab", f"--logits={tmp_path}/logits.npz", *more)
        for more in ((), ("--border_correction",))
    )
    assert plain.returncode == corrected.returncode == 0
    assert plain.stdout.splitlines()[0].endswith("@ 4 4 4 4 4 4 4 4 4 4 4 4")
    assert corrected.stdout.splitlines()[0].endswith("@ 8 4 4 4 4 4 4 4 4 4 4 4")
    assert [path.name for path in tmp_path.iterdir()] == ["logits.npz"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"alpha": np.zeros((20, 7))}, "alpha: expected [edges, 8]"),
        ({"beta": np.full((12, 4, 3), np.nan)}, "beta: expected finite logits, received nan at [0, 0, 0]"),
        ({"primitives": OPS[::-1]}, "ops of another list"),
        ({"alpha": None}, "cannot be read"),
    ],
)
def test_bad_logits_are_one_line_and_exit_code_two_and_leave_nothing(tmp_path, logits, changes, expected):
    if changes.get("alpha", True) is not None:
        np.savez(tmp_path / "alpha_beta.npz", **(logits | changes))
    before = sorted(tmp_path.iterdir())
    done = run_tool(
        "decode_auto_deeplab",
        f"--run_dir={tmp_path}",
        f"--output={tmp_path}/out.json",
        f"--plot_dir={tmp_path}/drawings",
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and expected in done.stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), "--logits, --run_dir: expected one of the two"),
        (("--logits=a.npz", "--run_dir=b"), "--logits, --run_dir: expected one of the two"),
        (("--logits=tests",), "--logits: expected an .npz file, received the folder tests"),
        (("--run_dir=nowhere",), "--run_dir: expected the run folder of a search, received nowhere"),
    ],
)
def test_bad_flags_are_one_line_and_exit_code_two(flags, expected):
    done = run_tool("decode_auto_deeplab", *flags)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and expected in done.stderr
