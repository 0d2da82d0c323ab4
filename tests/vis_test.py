import numpy as np
import pytest
from PIL import Image

from nas_seg import vis
from nas_seg.utils import colormap
from nas_seg.utils.errors import InputError

COLORS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


def batch(names=("a/first.png", "second"), label=True):
    rng = np.random.default_rng(0)
    count = len(names)
    result = {
        "image": rng.uniform(0, 255, (count, 6, 8, 3)).astype(np.float32),
        "image_name": np.array([name.encode() for name in names]),
    }
    return result | ({"label": rng.integers(0, 3, (count, 6, 8)).astype(np.int32)} if label else {})


def predict(images):
    return (np.asarray(images)[..., 0] // 100).astype(np.int32)


def pixels(path):
    return np.asarray(Image.open(path))


def test_a_panel_shows_image_truth_and_prediction(tmp_path):
    data = batch()
    paths = vis.visualize(predict, [data], COLORS, tmp_path)
    assert [path.name for path in paths] == ["000000_first.png", "000001_second.png"]
    image = np.rint(data["image"][0]).astype(np.uint8)
    panel = pixels(paths[0])
    assert panel.shape == (6, 3 * 8 + 2 * 4, 3)
    np.testing.assert_array_equal(panel[:, :8], image)
    np.testing.assert_array_equal(panel[:, 12:20], colormap.overlay(image, data["label"][0], COLORS, 0.6))
    np.testing.assert_array_equal(panel[:, 24:], colormap.overlay(image, predict(data["image"])[0], COLORS, 0.6))


def test_without_labels_the_truth_is_left_out(tmp_path):
    (path,) = vis.visualize(predict, [batch(["x"], label=False)], COLORS, tmp_path)
    assert pixels(path).shape == (6, 2 * 8 + 4, 3)


def test_raw_predictions_are_grey_pngs_of_class_indices(tmp_path):
    data = batch()
    paths = vis.visualize(predict, [data], COLORS, tmp_path, also_save_raw_predictions=True)
    raw = Image.open(tmp_path / "raw" / paths[1].name)
    assert raw.mode == "L"
    np.testing.assert_array_equal(np.asarray(raw), predict(data["image"])[1])


def test_no_more_pictures_than_asked_for(tmp_path):
    told = []
    paths = vis.visualize(predict, [batch(), batch()], COLORS, tmp_path, num_images=3, advance=told.append)
    assert len(paths) == len(list(tmp_path.iterdir())) == sum(told) == 3


def test_names_cannot_leave_the_folder(tmp_path):
    (path,) = vis.visualize(predict, [batch(["../../etc/pass wd\x00.png"])], COLORS, tmp_path / "out")
    assert path == tmp_path / "out" / "000000_pass_wd_.png" and path.is_file()


def test_more_classes_than_a_grey_png_holds_are_refused(tmp_path):
    with pytest.raises(InputError, match="at most 256 classes"):
        vis.visualize(predict, [batch()], COLORS * 100, tmp_path, also_save_raw_predictions=True)
