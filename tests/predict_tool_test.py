"""tools/predict.py and what it draws: labels with a palette, overlays with a legend."""

import io
import re
import shutil

import numpy as np
import pytest
import training
from case import refuse, succeed
from PIL import Image

import nas_seg
from nas_seg import export_model, overlays, prediction, presets
from nas_seg import model as model_lib
from nas_seg.datasets.descriptors import KNOWN
from nas_seg.model import ModelConfig
from nas_seg.utils import colormap, config, runs
from nas_seg.utils.errors import InputError

NAMES, COLORS = ("road", "car", "tree", "sky"), ((9, 9, 9), (200, 0, 0), (0, 200, 0), (0, 0, 200))


def picture(height=21, width=230, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def pixels(file):
    return np.asarray(Image.open(file))


def write_pictures(folder, count=2):
    folder.mkdir()
    images = {f"f{i}": picture(seed=i) for i in range(count)}
    for name, image in images.items():
        Image.fromarray(image).save(folder / f"{name}.png")
    return images


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory):
    path = tmp_path_factory.mktemp("exports") / "saved"
    export_model.export_saved_model(training.tiny_model(), path)
    return path


def test_an_exported_network_labels_a_folder_and_corrupt_pictures_are_left_out(saved_model, tmp_path):
    images = write_pictures(tmp_path / "in")
    (tmp_path / "in" / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    arguments = (f"--saved_model={saved_model}", f"--input={tmp_path / 'in'}", f"--output_dir={tmp_path / 'out'}")
    output = succeed("predict", *arguments, "--skip_corrupt", "--tile_size=65", "--tile_overlap=16")
    assert f"skipped 1 of 3:\n  {tmp_path / 'in' / 'torn.jpg'}: expected a JPEG or PNG picture" in output
    assert "written: 2 pictures" in output
    files = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert files == ["labels/f0.png", "labels/f1.png", "overlays/f0.png", "overlays/f1.png"]
    for name, image in images.items():
        # The network sees one pixel beyond its own: tiles change nothing.
        np.testing.assert_array_equal(
            pixels(tmp_path / "out" / "labels" / f"{name}.png"), nas_seg.predict(training.tiny_model(), image)
        )
    message = refuse("predict", *arguments)
    assert f"{tmp_path / 'in' / 'torn.jpg'}: expected a JPEG or PNG picture" in message


def test_a_run_folders_network_labels_a_picture_in_its_classes_colours(tmp_path):
    model_config = ModelConfig(11, presets.network("mobilenet_v2_035"))
    model = model_lib.build(model_config)
    runs.open_run(tmp_path / "run", {"model": config.to_json(model_config)})
    runs.save_weights(model, runs.weights_path(tmp_path / "run", runs.LAST))
    Image.fromarray(picture()).save(tmp_path / "a.png")
    succeed(
        "predict",
        f"--run_dir={tmp_path / 'run'}",
        f"--input={tmp_path / 'a.png'}",
        f"--output_dir={tmp_path / 'out'}",
        "--classes=camvid",
        "--add_flipped_images",
    )
    found = Image.open(tmp_path / "out" / "labels" / "a.png")
    assert found.getpalette()[:33] == [channel for color in KNOWN["camvid"].colors for channel in color]
    flipped = nas_seg.inference_config.InferenceConfig(add_flipped_images=True)
    np.testing.assert_array_equal(np.asarray(found), nas_seg.predict(model, picture(), flipped))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output_dir=out"], "--input: expected pictures"),
        (["--input=x"], "--output_dir: expected a folder to write to"),
        (["--input=x", "--output_dir=out"], "--run_dir: expected a run folder, or else --checkpoint_path"),
        (["--input=README.md", "--output_dir=README.md/x", "--saved_model=@"], "README.md is a file"),
        (["--input=none/%d.png", "--output_dir=out", "--saved_model=@"], "none/%d.png: expected a picture, a folder"),
        (["--input=x", "--output_dir=out", "--saved_model=@", "--tile_size=64"], "--tile_size: .* the nearest is 65"),
        (["--input=x", "--output_dir=out", "--saved_model=@", "--output_stride=8"], "--output_stride: expected none"),
        (["--input=x", "--output_dir=out", "--saved_model=@", "--eval_scales=2"], "--eval_scales: expected none"),
        (["--input=README.md", "--output_dir=out", "--saved_model=@", "--classes=camvids"], "Did you mean 'camvid'"),
        (["--input=x", "--output_dir=out", "--opacity=2"], "--opacity"),
    ],
)
def test_flags_that_are_wrong_are_one_line(saved_model, arguments, message):
    assert re.search(message, refuse("predict", *(argument.replace("@", str(saved_model)) for argument in arguments)))


def test_classes_that_an_export_tells_are_checked(saved_model, tmp_path):
    shutil.copytree(saved_model, tmp_path / "saved")
    report = {"format_version": 1, "class_names": ["road", "car"], "colors": [[0, 0, 300], [1, 1, 1]]}
    config.write_json(tmp_path / "saved" / "export.json", report)
    Image.fromarray(picture()).save(tmp_path / "a.png")
    arguments = (f"--saved_model={tmp_path / 'saved'}", f"--input={tmp_path / 'a.png'}", f"--output_dir={tmp_path}/out")
    assert "export.json: colors: expected channels of 0 to 255" in refuse("predict", *arguments)
    assert not (tmp_path / "out").exists()


def opened(data):
    return Image.open(io.BytesIO(data))


def test_a_label_png_holds_indices_and_shows_colours():
    labels = np.arange(12, dtype=np.int32).reshape(3, 4) % 4
    image = opened(overlays.label_png(labels, COLORS))
    assert image.mode == "P"
    np.testing.assert_array_equal(np.asarray(image), labels)
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), colormap.colorize(labels, COLORS))
    with pytest.raises(InputError, match="expected classes 0 to 255, received 0 to 256"):
        overlays.label_png(np.array([[0, 256]]), COLORS)


def test_an_overlay_is_the_blended_picture_above_a_legend_of_the_classes_colours():
    image, labels = picture(), np.zeros((21, 230), np.int32)
    labels[:, :60], labels[:, 60:70] = 3, 1
    drawn = {
        legend: np.asarray(opened(overlays.overlay_png(image, labels, COLORS, NAMES, opacity=0.25, legend=legend)))
        for legend in overlays.LEGENDS
    }
    for array in drawn.values():
        np.testing.assert_array_equal(array[:21], colormap.overlay(image, labels, COLORS, 0.25))
    strips = {legend: {tuple(pixel) for pixel in array[21:].reshape(-1, 3)} for legend, array in drawn.items()}
    assert set(COLORS) <= strips["all"]
    assert set(COLORS) - strips["present"] == {COLORS[2]}
    assert drawn["none"].shape == image.shape
    # Frames of a video have one size, whatever is in them.
    other = opened(overlays.overlay_png(image, labels * 0, COLORS, NAMES))
    assert other.size == opened(overlays.overlay_png(image, labels, COLORS, NAMES)).size


def test_a_legend_fits_into_a_narrow_picture_and_a_class_without_colour_shows_the_picture():
    image, labels = picture(8, 30), np.full((8, 30), 7)
    drawn = np.asarray(opened(overlays.overlay_png(image, labels, COLORS, NAMES, legend="all")))
    assert drawn.shape[1] == 30 and len(drawn) > 8 + 4 * 13
    np.testing.assert_array_equal(drawn[:8], image)


def test_a_folder_that_cannot_be_written_to_is_named_and_gets_nothing(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "a.png")
    (tmp_path / "out").write_text("a file")
    look = prediction.looker(training.tiny_model())
    with pytest.raises(InputError, match="out/labels/a.png: cannot be written"):
        prediction.write_predictions(look, {"a": tmp_path / "a.png"}, tmp_path / "out", NAMES, COLORS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "out"]
