import pathlib

import numpy as np
import pytest
from case import run_tool
from small_data import build, pairs, save, write_camvid, write_cityscapes

from nas_seg.datasets.descriptors import read_descriptor

REPOSITORY = pathlib.Path(__file__).parents[2]


def test_synthetic_records_are_built_and_inspected(tmp_path):
    out, sheet = tmp_path / "out", tmp_path / "sheet.png"
    done = run_tool(
        "build_data", "--dataset=synthetic", f"--output_dir={out}", "--num_images=5,2", "--image_size=48,64"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == [
        f"written: {out}",
        f"next: python tools/inspect_data.py --dataset_dir={out}",
    ]
    descriptor = read_descriptor(out)
    assert {name: info.num_images for name, info in descriptor.splits.items()} == {"train": 5, "val": 2}
    assert descriptor.split("train").max_size == (48, 64)

    done = run_tool("inspect_data", f"--dataset_dir={out}", "--split=val", f"--contact_sheet={sheet}", columns=100)
    assert done.returncode == 0, done.stderr
    assert "synthetic, val" in done.stdout
    assert "2 images, 2 labels" in done.stdout
    assert "Pavement" in done.stdout
    assert "train" not in done.stdout
    assert sheet.read_bytes().startswith(b"\x89PNG")


def test_pictures_are_inspected_before_their_classes_are_known(tmp_path):
    save(tmp_path / "images" / "a.png", np.zeros((4, 6, 3), np.uint8))
    save(tmp_path / "images" / "b.png", np.zeros((4, 6, 3), np.uint8))
    save(tmp_path / "labels" / "a.png", np.full((4, 6), 17, np.uint8), palette=True)
    save(tmp_path / "labels" / "b.png", np.full((4, 6), 3, np.uint8))
    done = run_tool("inspect_data", "--dataset=folder", f"--source_dir={tmp_path}", columns=100)
    assert done.returncode == 0, done.stderr
    assert "17" in done.stdout
    assert "warning: palette label, its indices are read: 1" in done.stdout


def test_a_bad_picture_is_one_line_and_code_2_and_leaves_nothing(tmp_path):
    source = write_camvid(tmp_path / "in")
    save(source / "val" / "labels" / "val0.png", np.zeros((5, 16), np.uint8))
    done = run_tool("build_data", "--dataset=camvid", f"--source_dir={source}", f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: {source}/val/labels/val0.png: expected 12x16 as")
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset=camvit", "--output_dir=x"], "unknown dataset 'camvit'"),
        (
            ["--dataset=camvid", "--output_dir=x"],
            "--source_dir: expected the folder of the pictures of --dataset=camvid",
        ),
        (["--dataset=synthetic"], "--output_dir: expected a folder to write"),
        (
            ["--dataset=synthetic", "--output_dir=x", "--num_images=3"],
            "--num_images: expected 2 or 3 positive integers",
        ),
        (
            ["--dataset=synthetic", "--output_dir=x", "--num_classes=3"],
            "--num_classes: means nothing to --dataset=synthetic",
        ),
    ],
)
def test_bad_flags_of_the_builder_are_named_before_tensorflow_is_imported(flags, message):
    done = run_tool("build_data", *flags)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr


def test_the_inspector_wants_records_or_pictures(tmp_path):
    done = run_tool("inspect_data")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "--dataset_dir: expected it or --dataset with --source_dir, and not both" in done.stderr


def test_an_incomplete_archive_and_an_output_that_cannot_be_written_are_one_line_and_code_2(tmp_path):
    write_cityscapes(tmp_path / "in", zipped=True)
    archive = tmp_path / "in" / "gtFine_trainvaltest.zip"
    whole = archive.read_bytes()
    (tmp_path / "file").write_text("")
    for content, out, message in (
        (
            whole[:-300],
            tmp_path / "out",
            f"error: {archive}: expected a whole zip archive, it is incomplete or damaged",
        ),
        (whole, tmp_path / "file" / "out", f"error: {tmp_path}/file/out: cannot be written (Not a directory)"),
    ):
        archive.write_bytes(content)
        done = run_tool("build_data", "--dataset=cityscapes", f"--source_dir={tmp_path / 'in'}", f"--output_dir={out}")
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert done.stderr.startswith(message)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "in"]


def test_shards_without_a_descriptor_are_described_and_then_inspected(tmp_path):
    folder = build(tmp_path / "shards", num_shards=2, train=pairs([(6, 8)] * 3))
    (folder / "dataset.json").unlink()
    done = run_tool("inspect_data", f"--dataset_dir={folder}", columns=100)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "--dataset=records" in done.stderr
    flags = ("--dataset=records", f"--source_dir={folder}", "--class_names=a,b,c,d")
    done = run_tool("build_data", *flags)
    assert done.returncode == 0, done.stderr
    assert read_descriptor(folder).split("train").num_images == 3
    done = run_tool("inspect_data", f"--dataset_dir={folder}", "--skip_corrupt", columns=100)
    assert done.returncode == 0, done.stderr
    assert "skipped: 0 of 3 pictures" in done.stdout
    assert "suggested: --train_crop_size=17,17 " in done.stdout
    done = run_tool("build_data", *flags, "--output_dir=x")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "--output_dir: means nothing to --dataset=records" in done.stderr
