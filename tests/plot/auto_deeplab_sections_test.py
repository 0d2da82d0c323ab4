"""The page of a gradient search, made from a run folder that is written in milliseconds."""

import re

import numpy as np
import pytest
from drawings import find, parse
from gradient_search import EPOCHS, FROZEN, LAYERS, make_gradient_search, make_retraining

from nas_seg.auto_deeplab import retraining, search_run
from nas_seg.auto_deeplab.genotype import AutoDeepLabGenotype
from nas_seg.auto_deeplab.relaxation import num_edges
from nas_seg.plot.heat_map import HeatMap, heat_maps
from nas_seg.plot.report import write_report
from nas_seg.utils.errors import InputError


@pytest.fixture(scope="module", name="run_dir")
def fixture_run_dir(tmp_path_factory):
    run_dir = make_gradient_search(
        tmp_path_factory.mktemp("runs") / "gradient", collapse="the path never leaves stride 4"
    )
    make_retraining(run_dir)
    return run_dir


@pytest.fixture(scope="module", name="text")
def fixture_text(run_dir):
    return write_report(run_dir).read_text()


def drawing(text, label):
    (found,) = re.findall(rf'<svg [^>]*aria-label="{label}".*?</svg>', text, re.DOTALL)
    return parse(found)


def test_the_page_tells_what_was_found_and_how(text):
    for words in (
        "Epoch 8 of 8: 80 weight steps, 40 steps of alpha and beta.",
        "Collapse: the path never leaves stride 4.",
        "Val mIoU of the supernet: 0.1800.",
        "The network after epoch 8",
        "num_layers 6",
        "4.0 minutes",
        "at most 2.58 GiB",
    ):
        assert words in text, words


def test_names_cannot_become_markup_and_nothing_is_loaded(text):
    assert "<script" not in text and "&lt;script&gt;" in text
    assert "url(" not in text and "src=" not in text and "href=" not in text
    addresses = re.findall(r"https?://[^\"' <]*", text)
    assert addresses == text.count("<svg") * ["http://www.w3.org/2000/svg"]


def test_curves_have_a_mark_for_each_epoch_that_has_the_number(text):
    assert len(find(drawing(text, "val mIoU of the supernet by epoch"), "circle", "point")) == EPOCHS - 1
    losses = drawing(text, "loss by epoch")
    assert len(find(losses, "circle", "point")) == EPOCHS
    # alpha and beta have a loss only once they move.
    assert sum(e.get("class") == "point" for e in losses.iter()) == EPOCHS + EPOCHS - FROZEN
    assert len(find(losses, "line", "frozen")) == 1


def test_the_strip_shows_the_path_of_every_epoch(text, run_dir):
    root = drawing(text, "path by epoch")
    assert len(find(root, "rect", "node")) == EPOCHS * LAYERS
    shown = [e.text for e in find(root, "text")][-EPOCHS * LAYERS - EPOCHS :]
    expected = []
    for epoch in range(1, EPOCHS + 1):
        genotype = AutoDeepLabGenotype.load(search_run.genotype_path(run_dir, epoch))
        expected += [str(epoch), *map(str, genotype.strides)]
    assert shown == expected


def test_heat_maps_show_the_start_the_middle_and_the_end(text):
    root = drawing(text, "softmax of alpha over the ops of an edge")
    assert [e.text for e in find(root, "text") if e.get("font-weight") == "bold"] == ["epoch 4", "epoch 6", "epoch 8"]
    assert len(find(root, "rect", "heat")) == 3 * num_edges(3) * 8
    steps = drawing(text, "softmax of beta over the steps that leave a node")
    # Edges of layers 1 to 6: 2, 5, 8, 10, 10, 10.
    assert len(find(steps, "rect", "heat")) == 3 * 45


def test_a_heat_map_is_the_darker_the_larger_the_number():
    values = np.array([[0.0, 0.2], [np.nan, 0.4]])
    root = parse(heat_maps([HeatMap("m", values)], ["a", "b"], ["x", "y"], "share"))
    assert [float(e.get("fill-opacity")) for e in find(root, "rect", "heat")] == [0.0, 0.5, 1.0]
    assert [e[0].text for e in find(root, "rect", "heat")][-1] == "m: b, y: 0.4000"


def test_retrained_networks_stand_beside_random_ones(text):
    assert "val: searched 50.00, mean of 2 random 47.00, difference +3.00 points or +2.1 sd of the random ones" in text
    assert "test: searched 40.00, mean of 2 random 38.50" in text
    assert "random_2 failed: seed 0: out of memory" in text and "1 more are still to be trained" in text
    assert text.index("<td>searched</td>") < text.index("<td>random_0</td>") < text.index("<td>random_2</td>")


def test_a_search_without_a_finished_epoch_has_a_page(tmp_path):
    text = write_report(make_gradient_search(tmp_path / "young", epochs=0)).read_text()
    assert "No epoch is finished yet." in text and "two cores" in text


def test_a_damaged_epoch_is_named(tmp_path):
    run_dir = make_gradient_search(tmp_path / "run")
    search_run.logits_path(run_dir, 3).write_bytes(b"no zip")
    with pytest.raises(InputError, match="epoch_003.npz: expected an .npz file"):
        write_report(run_dir)


def test_the_network_of_an_unfinished_search_is_refused_unless_allowed(tmp_path):
    run_dir = make_gradient_search(tmp_path / "run", epochs=3)
    with pytest.raises(InputError, match="at epoch 3 of 8; --allow_unfinished takes its latest network"):
        search_run.finished_genotype(run_dir)
    path = search_run.finished_genotype(run_dir, allow_unfinished=True)
    latest = AutoDeepLabGenotype.load(search_run.genotype_path(run_dir, 3))
    assert AutoDeepLabGenotype.load(path) == latest
    done = make_gradient_search(tmp_path / "done")
    assert AutoDeepLabGenotype.load(search_run.finished_genotype(done)).num_layers == LAYERS
    with pytest.raises(InputError, match="has not finished an epoch yet"):
        search_run.finished_genotype(make_gradient_search(tmp_path / "young", epochs=0), allow_unfinished=True)
    with pytest.raises(InputError, match="expected the run folder of tools/search_auto_deeplab.py"):
        search_run.finished_genotype(tmp_path)


def test_the_difference_to_random_needs_both(run_dir):
    found = make_retraining(run_dir)
    alone = retraining.Retraining(**vars(found) | {"outcomes": found.outcomes[:1]})
    assert "No comparison yet" in retraining.describe(alone)
    pair = retraining.Retraining(**vars(found) | {"outcomes": found.outcomes[:2]})
    assert "val: searched 50.00, mean of 1 random 48.00, difference +2.00 points; test" in retraining.describe(pair)
    assert "sd" not in retraining.describe(pair)
