import types

import numpy as np
import pytest
from PIL import Image
from small_data import write_cityscapes

from nas_seg import vis
from nas_seg.datasets import build_data, cityscapes, data_generator
from nas_seg.metrics import ConfusionMatrix
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


def submission(folder, data, predictions, names=None):
    ids = (7, 8, 11)
    return vis.write_label_ids(lambda images: predictions, [data], ids, names or (lambda n: f"{n[-6:]}.png"), folder)


def test_label_ids_are_written_at_the_images_own_size(tmp_path):
    predictions = np.arange(2 * 6 * 8).reshape(2, 6, 8) % 3
    paths = submission(tmp_path, batch(("first!", "second")), predictions)
    assert [path.name for path in paths] == ["first!.png", "second.png"] == sorted(p.name for p in tmp_path.iterdir())
    assert Image.open(paths[0]).mode == "L"
    np.testing.assert_array_equal(pixels(paths[1]), np.array([7, 8, 11])[predictions[1]])


def test_a_submission_refuses_two_pictures_of_one_name_and_foreign_classes(tmp_path):
    with pytest.raises(InputError, match="second.png: two pictures of the split would have this file"):
        submission(tmp_path, batch(("second", "second")), np.zeros((2, 6, 8), int))
    with pytest.raises(InputError, match="prediction: expected classes 0 to 2, received 3"):
        submission(tmp_path / "other", batch(), np.full((2, 6, 8), 3))


def test_the_cityscapes_scripts_score_a_submission_as_we_score_the_predictions(tmp_path):
    theirs = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    rng = np.random.default_rng(4)
    write_cityscapes(tmp_path / "in")
    source = cityscapes.read_source(tmp_path / "in", splits=["val_fine"])
    build_data.build(source, tmp_path / "records")
    dataset = list(data_generator.eval_dataset(tmp_path / "records", "val_fine"))
    # Right in most places, so that the classes' scores differ.
    guesses = [np.where(rng.random((1, 8, 12)) < 0.7, b["label"], rng.integers(0, 19, (1, 8, 12))) for b in dataset]
    guesses = [np.where(guess == 255, 3, guess) for guess in guesses]
    confusion, answers = ConfusionMatrix(19, 255), iter(guesses)
    for one, guess in zip(dataset, guesses, strict=True):
        confusion.update(one["label"].numpy(), guess)
    paths = vis.write_label_ids(
        lambda images: next(answers), dataset, cityscapes.LABEL_IDS, cityscapes.submission_name, tmp_path / "sent"
    )
    truths = [str(pair.label) for pair in source.splits["val_fine"]]
    args = types.SimpleNamespace(predictionPath=str(tmp_path / "sent"), predictionWalk=None)
    # Their evaluation finds the predictions by the frame in the file name.
    found = [theirs.getPrediction(args, truth) for truth in truths]
    assert found == [str(path) for path in paths]
    full, pixels_seen = np.zeros((34, 34), np.ulonglong), 0
    args = types.SimpleNamespace(evalLabels=list(range(34)), evalInstLevelScore=False, evalPixelAccuracy=False)
    for prediction, truth in zip(found, truths, strict=True):
        pixels_seen += theirs.evaluatePair(prediction, truth, full, {}, {}, args)
    assert full.sum() == pixels_seen == 2 * 8 * 12
    scores = {i: theirs.getIouScoreForLabel(i, full, args) for i in cityscapes.LABEL_IDS}
    np.testing.assert_allclose(confusion.result()["class_iou"], list(scores.values()), rtol=1e-12)
    assert confusion.result()["miou"] == pytest.approx(theirs.getScoreAverage(scores, args), rel=1e-12)
