"""The page of a training, from a run folder that is written in milliseconds."""

import dataclasses
import re

import numpy as np
import pytest
from drawings import find, overlapping_texts, parse, words
from searched import make_search
from trained import CLASSES, COLORS, GENOTYPE, IGNORE, answers, make_training, write_scores

from nas_seg.datasets.descriptors import DatasetDescriptor
from nas_seg.metrics import ConfusionMatrix
from nas_seg.plot import report, split_scores, training_result, training_sections
from nas_seg.plot.confusion import MOST_CLASSES, confusion_svg, largest, shares
from nas_seg.plot.curves import MOST_POINTS, line_chart, thinned
from nas_seg.plot.markup import join
from nas_seg.plot.report import write_report
from nas_seg.utils import config, runs
from nas_seg.utils.errors import InputError

HOSTILE = "<script>alert(1)</script>"


def drawing(text, label):
    (found,) = re.findall(rf'<svg [^>]*aria-label="{re.escape(label)}".*?</svg>', text, re.DOTALL)
    return parse(found)


def scores_of(keep, **changes):
    batches, predict = answers(**changes)
    confusion, worst = split_scores.collect(predict, batches, ConfusionMatrix(len(CLASSES), IGNORE), keep)
    descriptor = DatasetDescriptor("streets", len(CLASSES), CLASSES, COLORS, IGNORE, {})
    return split_scores.SplitScores("val", "/data/streets", descriptor, confusion, len(batches), tuple(worst))


def page_of(folder, scores):
    return str(join(training_sections.sections(training_result.read_training(folder), scores, "")))


def test_curves_show_every_row_and_the_best_evaluation_is_told(tmp_path):
    text = write_report(make_training(tmp_path / "run")).read_text()
    for label, points in (
        ("loss by step", 20),
        ("learning rate by step", 20),
        ("mIoU (%) by step", 2),
        ("images per second by step", 20),
    ):
        assert len(find(drawing(text, label), "circle", "point")) == points, label
    for told in (
        "Training report: run",
        "Best mIoU on val: 50.00 %",
        "at step 100.",
        "Trained to step 200 of 400, last loss 1.0000.",
        "two cores",
        "python 3.11 · keras 3.15",
        "60.0 seconds of training steps",
    ):
        assert told in text, told


def test_without_its_data_set_a_page_says_what_is_left_out_and_how_to_have_it(tmp_path):
    run_dir = make_training(tmp_path / "run")
    text = write_report(run_dir).read_text()
    assert f"{run_dir}/gone is not there: python tools/report.py --run_dir={run_dir} --dataset_dir=RECORDS" in text
    assert "<img" not in text and "What is taken for what" not in text
    with pytest.raises(InputError, match="none: expected a folder of records"):
        write_report(run_dir, dataset_dir=tmp_path / "none", output=tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()
    assert "The network was not run for this page" in write_report(run_dir, num_images=0).read_text()


def test_classes_are_those_of_the_best_evaluation_and_of_evaluated_splits(tmp_path):
    run_dir = make_training(tmp_path / "run")
    text = write_report(run_dir).read_text()
    assert "class 3" in text and "<td>val</td>" in text
    write_scores(run_dir)
    text = write_report(run_dir).read_text()
    # Now the classes have names, and both splits stand side by side.
    assert "class 3" not in text and "43.21" in text and f"{run_dir}, test" in text and f"{run_dir}, val" in text
    assert len(find(drawing(text, "IoU of each class (%)"), "circle", "score")) == 3


def test_the_found_network_is_drawn_on_the_map_of_its_crop_and_a_hand_made_one_is_not(tmp_path):
    text = write_report(make_training(tmp_path / "found")).read_text()
    assert "Small maps: 10x13 positions" in text and "F:sep3x3(6x3)" in text
    text = write_report(make_training(tmp_path / "by_hand", genotype=None)).read_text()
    assert "The network</h2>" not in text and "Small maps" not in text


def test_pictures_come_worst_first_and_those_without_labels_last():
    worst = scores_of(keep=5).worst
    assert [picture.name for picture in worst] == [f"street/{number}.png" for number in (3, 2, 1, 0, 4)]
    # Of picture 3 five eighths are taken for class 0: all of class 1 is lost, and one half of class 2.
    assert worst[0].miou == pytest.approx(np.mean([2 / 5, 0, 1 / 2, 1])) and np.isnan(worst[-1].miou)
    assert [picture.name for picture in scores_of(keep=2).worst] == ["street/3.png", "street/2.png"]


def test_the_page_shows_confusions_and_four_views_of_each_picture(tmp_path):
    text = page_of(make_training(tmp_path / "run"), scores_of(keep=3))
    assert text.count("<img ") == 12 and "The 3 with the lowest mIoU of the 5 pictures of val" in text
    assert "street/3.png · mIoU 47.50 % · most of all Road taken for Sky (25.0 % of the labelled pixels)" in text
    root = drawing(text, "confusion matrix, percent of each true class")
    # Of four pictures' eight eighths of class 1 five are wrong, of those of class 2 one.
    numbers = [t.text for t in find(root, "text") if t.get("text-anchor") == "middle"]
    assert numbers == ["100", "62", "38", "12", "88", "100"]
    assert "<td>Road</td><td>Sky</td>" in text


def test_counts_of_all_pictures_are_those_of_one_confusion_matrix():
    batches, predict = answers()
    whole = ConfusionMatrix(len(CLASSES), IGNORE)
    for batch in batches:
        whole.update(batch["label"], predict(batch["image"]))
    np.testing.assert_array_equal(scores_of(keep=1).confusion.matrix, whole.matrix)


def test_rows_of_a_confusion_matrix_add_up_and_absent_classes_have_none():
    matrix = np.array([[6, 2, 0], [0, 0, 0], [1, 0, 3]])
    rates = shares(matrix)
    np.testing.assert_allclose(rates[[0, 2]].sum(axis=1), 1.0)
    assert np.isnan(rates[1]).all()
    root = parse(confusion_svg(matrix, ["a", "b", "c"]))
    assert len(find(root, "rect", "share")) == 6 and overlapping_texts(root) == []
    assert [tuple(one[:3]) for one in largest(matrix, ["a", "b", "c"], 9)] == [("a", "b", 2), ("c", "a", 1)]
    assert largest(matrix, ["a", "b", "c"], 1)[0].of_truth == 0.25


def test_of_many_classes_those_with_the_most_mistakes_are_drawn():
    matrix = np.diag(np.full(50, 100))
    matrix[np.arange(20, 50), 20] += np.arange(1, 31)
    told = words(parse(confusion_svg(matrix, [f"c{i}" for i in range(50)])))
    assert "c49" in told and "c20" in told and "c0" not in told
    assert sum(name.startswith("c") and name[1:].isdigit() for name in told) == 2 * MOST_CLASSES


def test_long_curves_are_drawn_through_means_of_neighbours():
    points = [(step, float(step % 2)) for step in range(1, 8001)]
    drawn = thinned(points)
    assert len(drawn) == MOST_POINTS and {y for _, y in drawn} == {0.5} and drawn[-1][0] == 8000
    root = parse(line_chart({"loss": points}, "step", "loss"))
    assert len(find(root, "polyline")) == 1 and not find(root, "circle", "point")
    assert thinned(points[:400]) == points[:400]


def test_hostile_names_stay_words_and_nothing_is_loaded(tmp_path):
    run_dir = make_training(tmp_path / "run", command=f"python x {HOSTILE}")
    scores = scores_of(keep=2)
    names = (HOSTILE, '"><img src=x onerror=alert(1)>', "]]>", "d")
    scores = dataclasses.replace(scores, descriptor=dataclasses.replace(scores.descriptor, class_names=names))
    text = page_of(run_dir, scores)
    assert "<script" not in text and "<img src=x" not in text and "&lt;script&gt;" in text
    assert all(address.startswith("data:image/jpeg") for address in re.findall(r'(?:src|href)="([^"]*)"', text))


def test_a_training_that_has_just_begun_and_converted_weights_have_pages(tmp_path):
    text = write_report(make_training(tmp_path / "young", steps=0, evaluations=())).read_text()
    assert "No step is recorded in this folder." in text and "Training by step" not in text
    runs.open_run(tmp_path / "converted", {"model": {"num_classes": 4, "network": {"kind": "deeplab"}}})
    assert "the run does not tell its data set" in write_report(tmp_path / "converted").read_text()


def test_a_broken_row_is_named(tmp_path):
    run_dir = make_training(tmp_path / "run")
    runs.append_metrics(run_dir, {"step": 300, "loss": "low"})
    with pytest.raises(InputError, match=r"metrics.jsonl: loss: expected float, received 'low'"):
        write_report(run_dir)
    runs.write_metrics(run_dir, [{"loss": 1.0}])
    with pytest.raises(InputError, match=r"metrics.jsonl: expected rows with a step"):
        write_report(run_dir)
    make_training(tmp_path / "other", genotype=GENOTYPE | {"kind": "dcp"})
    with pytest.raises(InputError, match="unknown kind of architecture 'dcp'"):
        write_report(tmp_path / "other")


def test_options_that_mean_nothing_for_a_folder_are_refused(tmp_path):
    run_dir = make_training(tmp_path / "run")
    with pytest.raises(InputError, match="compare: means nothing for a training"):
        write_report(run_dir, compare=["runs/search"])
    make_search(tmp_path / "search", 2)
    with pytest.raises(InputError, match="dataset_dir: means nothing for a search by trials"):
        write_report(tmp_path / "search", dataset_dir="records")


def test_every_option_belongs_to_some_kind_of_folder():
    known = {field.name for field in dataclasses.fields(report.Options)}
    assert {name for kind in report.KINDS for name in kind.options} == known


def test_a_split_without_labels_or_with_other_classes_is_refused(tmp_path):
    run_dir = make_training(tmp_path / "run")
    (run_dir / "ckpt").mkdir()
    (run_dir / "ckpt" / "last.weights.h5").write_bytes(b"")
    from nas_seg.datasets.descriptors import SplitInfo

    split = SplitInfo(2, 1, False, "0" * 12, (8, 8), (8, 8))
    config.save(tmp_path / "dataset.json", DatasetDescriptor("s", 4, CLASSES, COLORS, 255, {"val": split}))
    with pytest.raises(InputError, match="split 'val' of .*: expected labels to compare with"):
        write_report(run_dir, dataset_dir=tmp_path)
    with pytest.raises(InputError, match="tset"):
        write_report(run_dir, dataset_dir=tmp_path, split="tset")
