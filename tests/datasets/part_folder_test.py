"""Building that is killed, and goes on; nothing half-written is ever found in the output folder."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from case import REPOSITORY
from small_data import CLASSES, pairs

from nas_seg.datasets import build_data, part_folder, records
from nas_seg.datasets.descriptors import read_descriptor
from nas_seg.datasets.source import Source
from nas_seg.utils.errors import InputError


def files(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


class Killed(BaseException):
    """Stands for a signal: nothing in the library catches it."""


class Stopping(list):
    """Pairs of which one cannot be reached, as if the process were killed there."""

    def __init__(self, given, place):
        super().__init__(given)
        self.place = place
        self.asked = []
        self.identity = "the same pictures"

    def __getitem__(self, index):
        self.asked.append(index)
        if index == self.place:
            raise Killed
        return super().__getitem__(index)


def interrupted(tmp_path, given, place=7, **arguments):
    source = Source(CLASSES, {"train": Stopping(given, place)})
    with pytest.raises(Killed):
        build_data.build(source, tmp_path / "out", num_shards=4, **arguments)


def test_a_killed_build_goes_on_behind_its_whole_shards_and_gives_the_same_files(tmp_path):
    given = pairs([(6 + i, 8) for i in range(10)])
    build_data.build(Source(CLASSES, {"train": given}), tmp_path / "whole", num_shards=4)
    interrupted(tmp_path, given)
    assert not (tmp_path / "out").exists()
    rest = Stopping(given, None)
    build_data.build(Source(CLASSES, {"train": rest}), tmp_path / "out", num_shards=4)
    # Shards of 3, 3, 2, 2: the first two were whole, the third is written anew.
    assert [index for index in rest.asked if index] == [6, 7, 8, 9]
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


@pytest.mark.parametrize("change", ["pictures", "shards"])
def test_a_build_of_something_else_begins_anew(tmp_path, change):
    given, other = pairs([(6, 8)] * 10), pairs([(6, 8)] * 10, seed=1)
    interrupted(tmp_path, given)
    source = Source(CLASSES, {"train": other if change == "pictures" else given})
    shards = 5 if change == "shards" else 4
    build_data.build(source, tmp_path / "out", num_shards=shards)
    build_data.build(source, tmp_path / "whole", num_shards=shards)
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_a_killed_overwrite_keeps_the_old_records(tmp_path):
    build_data.build(Source(CLASSES, {"train": pairs([(6, 8)] * 2)}), tmp_path / "out")
    interrupted(tmp_path, pairs([(6, 8)] * 10), overwrite=True)
    assert read_descriptor(tmp_path / "out").split("train").num_images == 2
    assert records.open_split(tmp_path / "out", "train").info.num_images == 2


def test_old_records_come_back_after_a_kill_between_the_two_renames(tmp_path):
    build_data.build(Source(CLASSES, {"train": pairs([(6, 8)] * 2)}), tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / ".out.old")
    with pytest.raises(InputError, match="out: holds records already"):
        build_data.build(Source(CLASSES, {"train": pairs([(6, 8)] * 3)}), tmp_path / "out")
    assert read_descriptor(tmp_path / "out").split("train").num_images == 2


def test_two_processes_do_not_write_one_folder(tmp_path):
    source = Source(CLASSES, {"train": pairs([(6, 8)])})
    elsewhere = part_folder.writing(tmp_path / "out", {}, lambda folder: None)
    with elsewhere, pytest.raises(InputError, match="out: another process is writing it"):
        build_data.build(source, tmp_path / "out")


@pytest.mark.parametrize("parent", ["file", "file/below"])
def test_an_output_that_cannot_be_written_is_one_line(tmp_path, parent):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"out: cannot be written \(Not a directory\)"):
        build_data.build(Source(CLASSES, {"train": pairs([(6, 8)])}), tmp_path / parent / "out")


def test_the_tool_killed_for_real_goes_on_to_the_same_records(tmp_path):
    command = [
        sys.executable,
        "tools/build_data.py",
        "--dataset=synthetic",
        "--num_images=60,4",
        "--image_size=96,128",
        "--num_shards=12",
    ]
    part = tmp_path / ".out.part"
    killed = subprocess.Popen([*command, f"--output_dir={tmp_path / 'out'}"], cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(part.glob("*.tfrecord"))) < 2 and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "out").exists(), "it was done before it could be killed"
    left = {path.name: path.stat().st_mtime_ns for path in part.glob("*.tfrecord")}
    assert left
    for name in ("out", "whole"):
        subprocess.run([*command, f"--output_dir={tmp_path / name}"], cwd=REPOSITORY, check=True, capture_output=True)
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in left} == left
