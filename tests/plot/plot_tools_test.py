"""Tests tools/report.py and tools/plot_architecture.py as commands, and reading architectures by their kind."""

import json

import pytest
from case import run_tool
from drawings import find, parse, words
from searched import make_network_run, make_search

from nas_seg.dpc import CITYSCAPES_TOP1
from nas_seg.plot import architecture
from nas_seg.utils.errors import InputError


def test_both_tools_write_what_they_say(tmp_path):
    rows = make_search(tmp_path / "search", 3)
    make_network_run(tmp_path / "net", num_images=2)
    done = run_tool("report", f"--run_dir={tmp_path}/search", f"--network_run={tmp_path}/net", "--top_k=2")
    assert done.returncode == 0 and done.stdout.startswith(f"report: {tmp_path}/search/report.html ("), done.stderr
    page = (tmp_path / "search" / "report.html").read_text()
    assert rows[1].summary in page and "1 more scored trials are not shown" in page
    done = run_tool("plot_architecture", f"--run_dir={tmp_path}/search", f"--output={tmp_path}/cell.svg")
    assert done.returncode == 0 and f"drawing: {tmp_path}/cell.svg" in done.stdout, done.stderr
    drawing = (tmp_path / "cell.svg").read_text()
    names = [f"branch {number}" for number in range(5)]
    assert [text for text in words(parse(drawing)) if text in names] == names and "23x31 positions" in drawing


def test_a_bare_list_is_drawn_on_the_map_asked_for(tmp_path):
    CITYSCAPES_TOP1.save(tmp_path / "top1.json", bare=True)
    done = run_tool("plot_architecture", f"--genotype={tmp_path}/top1.json", "--map_size=65,129", "--title=Top 1")
    assert done.returncode == 0 and "F:sep3x3(1x6)" in done.stdout, done.stderr
    drawing = (tmp_path / "top1.svg").read_text()
    assert "65x129 positions" in drawing and find(parse(drawing), "text")[0].text == "Top 1"


def test_bad_flags_and_missing_files_are_one_line_and_exit_code_two(tmp_path):
    CITYSCAPES_TOP1.save(tmp_path / "top1.json")
    for tool, arguments, expected in (
        ("report", [], "--run_dir: expected the run folder of a search"),
        ("report", [f"--run_dir={tmp_path}"], "study.db does not exist"),
        ("plot_architecture", [], "--genotype, --run_dir: expected one of the two"),
        (
            "plot_architecture",
            [f"--genotype={tmp_path}/top1.json", "--map_size=65"],
            "--map_size: expected height,width",
        ),
    ):
        done = run_tool(tool, *arguments)
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and expected in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["top1.json"]


def test_architectures_are_known_by_their_kind(tmp_path):
    CITYSCAPES_TOP1.save(tmp_path / "cell.json")
    assert architecture.load_genotype(tmp_path / "cell.json") == CITYSCAPES_TOP1
    (tmp_path / "other.json").write_text(json.dumps({"format_version": 1, "kind": "dpcc"}))
    with pytest.raises(InputError, match=r"other.json: unknown kind of architecture 'dpcc': .* Did you mean 'dpc'\?"):
        architecture.load_genotype(tmp_path / "other.json")
    (tmp_path / "list.json").write_text(json.dumps({"format_version": 1, "kind": ["dpc"]}))
    with pytest.raises(InputError, match="unknown kind of architecture \\['dpc'\\]"):
        architecture.load_genotype(tmp_path / "list.json")
    (tmp_path / "number.json").write_text("3")
    with pytest.raises(InputError, match="number.json: expected"):
        architecture.load_genotype(tmp_path / "number.json")


def test_feature_map_is_the_tasks_share_of_the_output_stride():
    def task(size, stride):
        return {"task": {"size": size, "backbone": {"output_stride": stride}}}

    assert architecture.feature_map(task([360, 480], 8)) == ((45, 60), 8)
    assert architecture.feature_map(task([513, 1025], 16)) == ((33, 65), 16)
    assert architecture.feature_map({}) == ((33, 33), 16)
    for sections in (task("big", 8), task([0, 8], 8), {"task": {"size": [8, 8]}}, {"task": 3}):
        with pytest.raises(InputError, match=r"task\.size|expected sizes above 0"):
            architecture.feature_map(sections)
