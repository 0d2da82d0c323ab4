import dataclasses
import json
import subprocess
import sys

import h5py
import pytest

from nas_seg.utils import runs
from nas_seg.utils.errors import InputError

SECTIONS = {"model": {"num_classes": 3, "network": {"rates": [1, 2]}}, "train": {"seed": 0}, "command": "first"}


def test_a_run_folder_starts_with_its_configuration(tmp_path):
    runs.open_run(tmp_path / "run", SECTIONS)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["format_version"] == 1
    assert runs.read_config(tmp_path / "run") == SECTIONS
    assert runs.read_section(tmp_path / "run", "train", dict[str, int]) == {"seed": 0}
    with pytest.raises(InputError, match=r"config.json: section 'data' is missing"):
        runs.read_section(tmp_path / "run", "data", dict[str, int])


def test_the_same_run_is_opened_again_and_keeps_its_first_command(tmp_path):
    runs.open_run(tmp_path, SECTIONS)
    runs.open_run(tmp_path, SECTIONS | {"command": "second"})
    assert runs.read_config(tmp_path)["command"] == "first"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": {"seed": 1}}, r"config.json: train.seed: this run has 0, received 1"),
        ({"model": {"num_classes": 3, "network": {"rates": [1, 3]}}}, r"model.network.rates: .*\[1, 2\].*\[1, 3\]"),
        ({"train": {"seed": 0, "momentum": 0.9}}, r"train.momentum: this run has None, received 0.9"),
    ],
)
def test_another_run_is_refused_by_the_field_that_differs(tmp_path, change, message):
    runs.open_run(tmp_path, SECTIONS)
    with pytest.raises(InputError, match=message):
        runs.open_run(tmp_path, SECTIONS | change)
    assert runs.read_config(tmp_path) == SECTIONS


def test_a_folder_without_configuration_is_no_run(tmp_path):
    with pytest.raises(InputError, match=r"not a run folder, expected .*config.json"):
        runs.read_config(tmp_path)


def test_another_format_version_is_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text('{"format_version": 7}')
    with pytest.raises(InputError, match=r"config.json: expected format_version 1, received 7"):
        runs.read_config(tmp_path)


def test_metrics_come_back_as_they_were_appended(tmp_path):
    assert runs.read_metrics(tmp_path) == []
    rows = [{"step": 10, "loss": 0.1 + 0.2}, {"step": 20, "val_miou": None}]
    for row in rows:
        runs.append_metrics(tmp_path, row)
    assert runs.read_metrics(tmp_path) == rows
    assert (tmp_path / "metrics.jsonl").read_text().startswith('{"format_version": 1}\n')


def test_a_line_cut_short_by_a_kill_is_left_out_wherever_it_was_cut(tmp_path):
    runs.append_metrics(tmp_path, {"step": 1})
    runs.append_metrics(tmp_path, {"step": 2})
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    last = len(b'{"step": 2}\n')
    for cut in range(1, last):
        (tmp_path / "metrics.jsonl").write_bytes(whole[:-cut])
        assert runs.read_metrics(tmp_path) == [{"step": 1}]


def test_a_broken_line_in_between_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"format_version": 1}\n{"step": \n{"step": 2}\n')
    with pytest.raises(InputError, match=r"metrics.jsonl:2: expected JSON"):
        runs.read_metrics(tmp_path)


def test_a_run_that_tells_no_data_set_has_none_and_another_type_is_refused(tmp_path):
    for name, sections in {
        "converted": {},
        "trained": {"dataset_dir": "records"},
        "spoilt": {"dataset_dir": 7},
    }.items():
        runs.open_run(tmp_path / name, {"model": {}} | sections)
    assert runs.own_dataset_dir(tmp_path / "converted") is None
    assert runs.own_dataset_dir(tmp_path / "trained") == "records"
    with pytest.raises(InputError, match="config.json: dataset_dir: expected str, received 7"):
        runs.own_dataset_dir(tmp_path / "spoilt")


def test_a_file_is_no_folder_to_lock(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(InputError, match="expected a folder to write to"), runs.lock(folder):
            pass


def test_a_second_process_is_kept_out_until_the_first_ends(tmp_path):
    code = "import sys; from nas_seg.utils import runs\nwith runs.lock(sys.argv[1]): print('in', flush=True); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "in\n"
    with (
        pytest.raises(InputError, match=f"{tmp_path}: another process is training in this folder"),
        runs.lock(tmp_path),
    ):
        pass
    other.kill()
    other.wait()
    with runs.lock(tmp_path):
        pass


class Model:
    """Saves what it was given, or fails half-way."""

    def __init__(self, content, fail=False):
        self.content, self.fail = content, fail

    def save_weights(self, path):
        with h5py.File(path, "w") as file:
            file["content"] = self.content
        if self.fail:
            raise OSError("disk full")


def content(path):
    with h5py.File(path) as file:
        return file["content"].asstr()[()]


def test_weights_are_found_best_first(tmp_path):
    with pytest.raises(InputError, match=r"no weights yet, expected .*best.weights.h5 or .*last.weights.h5"):
        runs.find_weights(tmp_path)
    runs.save_weights(Model("last"), runs.weights_path(tmp_path, "last"))
    assert content(runs.find_weights(tmp_path)) == "last"
    runs.save_weights(Model("best"), runs.weights_path(tmp_path, "best"))
    assert content(runs.find_weights(tmp_path)) == "best"
    assert content(runs.find_weights(tmp_path, "last")) == "last"
    with pytest.raises(InputError, match=r"unknown weights 'bset'.*Did you mean 'best'"):
        runs.find_weights(tmp_path, "bset")


def test_weights_that_cannot_be_written_leave_the_old_ones(tmp_path):
    path = runs.weights_path(tmp_path, "best")
    runs.save_weights(Model("old"), path)
    with pytest.raises(OSError, match="disk full"):
        runs.save_weights(Model("new", fail=True), path)
    assert content(path) == "old" and list(path.parent.iterdir()) == [path]


def test_a_run_begun_before_a_field_was_there_goes_on(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Settings:
        steps: int
        later: bool = False

    runs.open_run(tmp_path, {"settings": {"steps": 3}})
    runs.check_run(tmp_path, {"settings": runs.section(tmp_path, "settings", Settings(3))})
    for other in (Settings(4), Settings(3, later=True)):
        with pytest.raises(InputError, match="this run has"):
            runs.check_run(tmp_path, {"settings": runs.section(tmp_path, "settings", other)})


def test_the_command_that_a_run_tells_of_has_no_password(monkeypatch):
    monkeypatch.setattr(
        "sys.argv", ["tools/x.py", "--storage=postgresql+psycopg://me:secret@host/db", "--run_dir=a:b@c"]
    )
    command = runs.circumstances()["command"]
    assert "secret" not in command and "://me:***@host/db" in command and "--run_dir=a:b@c" in command
