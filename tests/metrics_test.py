import json
import pathlib
import types

import numpy as np
import pytest

from nas_seg.metrics import ConfusionMatrix
from nas_seg.utils.errors import InputError

IGNORE = 255


def scores(labels, predictions, num_classes=3, ignore_label=IGNORE):
    confusion = ConfusionMatrix(num_classes, ignore_label)
    confusion.update(np.array(labels), np.array(predictions))
    return confusion.result()


def by_hand(labels, predictions, num_classes, ignore_label):
    """The rules written out pixel by pixel and class by class."""
    pixels = [(t, p) for t, p in zip(labels.ravel(), predictions.ravel(), strict=True) if t != ignore_label]
    ious = []
    for c in range(num_classes):
        both = sum(t == c and p == c for t, p in pixels)
        either = sum((t == c) or (p == c and p != ignore_label) for t, p in pixels)
        ious.append(both / either if either else float("nan"))
    return ious, sum(t == p for t, p in pixels) / len(pixels)


def test_a_hand_worked_table():
    # Class 0: 2 hits, 1 missed, 1 false: 2/4. Class 1: 1 hit, 1 missed, 1 false: 1/3. Class 2: 1 of 1.
    result = scores([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 0, 2])
    np.testing.assert_allclose(result["class_iou"], [2 / 4, 1 / 3, 1.0])
    assert result["miou"] == pytest.approx((2 / 4 + 1 / 3 + 1) / 3)
    assert result["pixel_accuracy"] == pytest.approx(4 / 6)
    assert result["mean_accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert result["frequency_weighted_iou"] == pytest.approx((3 * 2 / 4 + 2 * 1 / 3 + 1) / 6)


def test_a_class_absent_from_truth_and_prediction_is_left_out():
    result = scores([0, 1], [0, 1])
    np.testing.assert_array_equal(result["class_iou"], [1.0, 1.0, np.nan])
    assert result["miou"] == 1.0


def test_a_class_predicted_but_never_true_counts_as_zero():
    result = scores([0, 0, 1], [0, 2, 1])
    np.testing.assert_array_equal(result["class_iou"], [0.5, 1.0, 0.0])
    assert result["miou"] == 0.5


def test_pixels_of_ignored_truth_are_dropped_whatever_is_predicted():
    result = scores([0, IGNORE, IGNORE, 1], [0, 2, 0, 1])
    np.testing.assert_array_equal(result["class_iou"], [1.0, 1.0, np.nan])
    assert result["pixel_accuracy"] == 1.0


def test_the_ignored_label_predicted_is_a_miss_and_no_false_positive():
    result = scores([0, 0, 1], [0, IGNORE, 1])
    np.testing.assert_array_equal(result["class_iou"], [0.5, 1.0, np.nan])
    assert result["pixel_accuracy"] == pytest.approx(2 / 3)


def test_an_ignore_label_among_the_classes_leaves_that_class_out():
    # As in ADE20K, where class 0 is ignored.
    result = scores([0, 1, 1, 2], [1, 1, 0, 2], ignore_label=0)
    np.testing.assert_array_equal(result["class_iou"], [np.nan, 0.5, 1.0])


def test_nothing_counted_has_no_score():
    result = ConfusionMatrix(3, IGNORE).result()
    assert all(np.isnan(np.asarray(value)).all() for value in result.values())


@pytest.mark.parametrize("ignore_label", [IGNORE, 4, 1, -1])
def test_random_maps_agree_with_a_loop_over_pixels(ignore_label):
    rng = np.random.default_rng(0)
    values = [0, 1, 2, 3, ignore_label]
    labels, predictions = rng.choice(values, (2, 3, 8, 9))
    result = scores(labels, predictions, 4, ignore_label)
    ious, accuracy = by_hand(labels, predictions, 4, ignore_label)
    np.testing.assert_allclose(result["class_iou"], ious)
    assert result["miou"] == pytest.approx(np.nanmean(ious))
    assert result["pixel_accuracy"] == pytest.approx(accuracy)


def test_scores_agree_with_the_cityscapes_scripts():
    theirs = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    # Their evaluation runs on the 34 full ids; 0 to 6 among them (and others) are ignored there, so that the
    # 19 classes and the one ignored id of training map to them one to one.
    evaluated = [label.id for label in theirs.labels if not label.ignoreInEval and label.id >= 0]
    ids = np.array([*evaluated, 0])
    rng = np.random.default_rng(1)
    labels, predictions = rng.integers(0, 20, (2, 40, 50))
    labels[labels == 7], predictions[predictions == 7] = 8, 9  # absent from both
    labels[labels == 11] = 12  # predicted, never true
    confusion = ConfusionMatrix(19, 19)
    confusion.update(labels, predictions)
    full = np.zeros((34, 34), np.ulonglong)
    np.add.at(full, (ids[labels].ravel(), ids[predictions].ravel()), 1)
    args = types.SimpleNamespace(evalLabels=list(range(34)))
    expected = {i: theirs.getIouScoreForLabel(i, full, args) for i in evaluated}
    result = confusion.result()
    np.testing.assert_allclose(result["class_iou"], list(expected.values()), rtol=1e-12)
    assert np.isnan(result["class_iou"][7]) and result["class_iou"][11] == 0
    assert result["miou"] == pytest.approx(theirs.getScoreAverage(expected, args), rel=1e-12)


def test_mean_iou_agrees_with_the_score_recorded_from_tensorflow_1():
    case = json.loads(pathlib.Path("tests/golden/deeplab_training.json").read_text())["mean_iou"]
    # Recorded in float32.
    assert scores(case["labels"], case["preds"], case["num_classes"])["miou"] == pytest.approx(case["miou"], rel=1e-6)


def test_parts_counted_apart_add_up_to_the_whole():
    rng = np.random.default_rng(2)
    labels, predictions = rng.integers(0, 3, (2, 4, 5, 6))
    whole, first, second = (ConfusionMatrix(3, IGNORE) for _ in range(3))
    whole.update(labels, predictions)
    first.update(labels[:1].astype(np.uint8), predictions[:1])
    second.update(labels[1:], predictions[1:].astype(np.uint8))
    np.testing.assert_array_equal((first + second).matrix, whole.matrix)
    assert whole.matrix.sum() == labels.size
    with pytest.raises(InputError, match="different"):
        first + ConfusionMatrix(4, IGNORE)


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        ([0, 3], [0, 1], r"labels: expected 0..2 or ignore_label 255, received 3"),
        ([0, -1], [0, 1], r"labels: .*received -1"),
        ([0, 1], [0, 254], r"predictions: .*received 254"),
        ([0, 1], [0.0, 1.0], r"predictions: expected integers, received float64"),
        ([0, 1], [[0, 1]], r"predictions: expected the labels' shape \(2,\), received \(1, 2\)"),
    ],
)
def test_wrong_input_is_named_and_not_counted(labels, predictions, message):
    confusion = ConfusionMatrix(3, IGNORE)
    with pytest.raises(InputError, match=message):
        confusion.update(np.array(labels), np.array(predictions))
    assert confusion.matrix.sum() == 0


def test_no_classes_are_refused():
    with pytest.raises(InputError, match="num_classes: expected 1 or more, received 0"):
        ConfusionMatrix(0, IGNORE)
