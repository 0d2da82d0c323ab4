"""Tests the report page: complete, self-contained, and safe with any name."""

import base64
import html
import html.parser
import io
import re
import shutil
import subprocess
import sys

import numpy as np
import optuna
import pytest
from PIL import Image
from searched import CLASSES, COLORS, evaluate, make_full_search, make_network_run, make_rerank, make_search

from nas_seg.datasets.descriptors import DatasetDescriptor
from nas_seg.dpc import DPCSpace, count
from nas_seg.plot.report import write_report
from nas_seg.search import samplers, study
from nas_seg.search.baselines import baselines
from nas_seg.search.records import export_study, import_study
from nas_seg.search.second_stage import describe
from nas_seg.search.table import show
from nas_seg.utils import config
from nas_seg.utils.errors import InputError
from nas_seg.utils.machine import describe_machine

HOSTILE = "<script>alert(1)</script>\"'&\x1b"


class Page(html.parser.HTMLParser):
    """What a browser finds in a page: tags, the addresses it would load, the words it shows."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.loads, self.words, self.pictures, self.captions, self._stack = [], [], [], [], [], []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self._stack.append(tag)
        self.loads += [v for k, v in attributes if k in ("src", "href", "xlink:href", "action", "data", "poster")]
        self.loads += [f"{k}={v}" for k, v in attributes if k.startswith("on")]
        if tag == "img":
            self.pictures.append(dict(attributes)["src"])

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self._stack.pop()

    def handle_endtag(self, tag):
        assert self._stack.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data):
        if self._stack and self._stack[-1] == "figcaption":
            self.captions.append(data)
        self.words.append(data)

    @property
    def shown(self):
        return "\n".join(self.words)


@pytest.fixture(name="found", scope="module")
def fixture_found(tmp_path_factory):
    """(search folder, its leaderboard, network folder, mIoU of its pictures)."""
    folder = tmp_path_factory.mktemp("runs")
    return folder / "search", make_search(folder / "search"), folder / "net", make_network_run(folder / "net")


def test_page_loads_nothing_from_elsewhere_and_runs_no_script(found, tmp_path):
    folder, _, network, _ = found
    path = write_report(folder, output=tmp_path / "r.html", network_runs=[network])
    page = Page(path)
    assert page.loads and all(address.startswith("data:image/") for address in page.loads)
    assert re.findall(r"https?://[^\"' <]*", page.text) == page.text.count("<svg") * ["http://www.w3.org/2000/svg"]
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    assert "url(" not in page.text and "@import" not in page.text
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_page_tells_what_was_searched_and_the_whole_leaderboard(found):
    folder, rows, _, _ = found
    path = write_report(folder)
    page = Page(path)
    assert path == folder / "report.html"
    for fact in ("steps 200 · batch_size 8", "418,414,128,120 architectures", "keras ", " core", "12 complete"):
        assert fact in page.shown, fact
    for row in rows:
        assert f"{row.reward:.4f}" in page.shown and row.summary in page.shown
    cost = count(rows[0].genotype, 320, 23, 31)
    assert f"{cost.madds / 1e6:.2f} M" in page.shown and f"{cost.params / 1e3:.2f} K" in page.shown
    assert "diverged: loss <nan> at step 7 of 200" in page.shown
    # The three best cells on the map of the run's task: 353x481 pixels at output stride 16.
    assert page.shown.count("concat → 1x1") == 3 and page.shown.count("Small maps: 23x31 positions") == 3


def test_classes_and_worst_pictures_first(found):
    folder, _, network, mious = found
    page = Page(write_report(folder, network_runs=[network]))
    # In chart and table under the proxy, and in chart and table of the trained network.
    assert all(page.words.count(name) == 4 for name in CLASSES) and page.words.count("absent") == 1
    order = sorted(mious.values())[:6]
    assert [float(c.split("mIoU ")[1].split()[0]) for c in page.captions] == pytest.approx(
        [100 * m for m in order], abs=0.01
    )
    # The pictures were painted 255 * mIoU in blue; JPEG keeps a flat colour to a few steps.
    pixels = [np.asarray(decode(address))[36, 40] for address in page.pictures]
    assert [p[2] for p in pixels] == pytest.approx([255 * m for m in order], abs=6)


def decode(address):
    return Image.open(io.BytesIO(base64.b64decode(address.removeprefix("data:image/jpeg;base64,"))))


def test_pictures_come_in_file_order_without_scores_and_at_most_900_pixels_wide(found, tmp_path):
    make_network_run(tmp_path / "net", num_images=3, with_images=False, size=(64, 400))
    page = Page(write_report(found[0], network_runs=[tmp_path / "net"]))
    assert page.captions == ["000000_0001TP_0000", "000001_0001TP_0001", "000002_0001TP_0002"]
    # Three panels of 400 and two gaps of 4 are 1208 x 64.
    assert {decode(address).size for address in page.pictures} == {(900, 48)}


def test_colours_of_the_classes_are_told_where_the_data_set_is_there(found, tmp_path):
    make_network_run(tmp_path / "net", num_images=1)
    scores = config.read_json(tmp_path / "net" / "eval_test.json") | {"dataset_dir": str(tmp_path)}
    config.write_json(tmp_path / "net" / "eval_test.json", scores)
    config.save(tmp_path / "dataset.json", DatasetDescriptor("made up", 11, CLASSES, COLORS, 255, {}))
    text = write_report(found[0], network_runs=[tmp_path / "net"]).read_text()
    assert "rgb({},{},{})".format(*COLORS[3]) in text
    assert "rgb(" not in write_report(found[0], network_runs=[found[2]]).read_text()


def test_two_searches_share_the_charts_and_other_conditions_are_told(found, tmp_path):
    make_search(tmp_path / "near_best", 5, "near_best", seed=1)
    page = Page(write_report(found[0], compare=[tmp_path / "near_best"]))
    assert page.shown.count("near_best") >= 3 and "scored under other conditions than search: seed." in page.shown


def test_hostile_names_stay_words(found, tmp_path):
    classes = (HOSTILE, '"><img src=x onerror=alert(1)>', "]]><svg onload=alert(1)>")
    folder = tmp_path / "a<b>&'run"
    make_search(folder, 3, study_name=HOSTILE, classes=classes)
    make_network_run(tmp_path / HOSTILE.replace("/", ""), num_images=2, classes=classes)
    page = Page(write_report(folder, study_name=HOSTILE, network_runs=[tmp_path / HOSTILE.replace("/", "")]))
    assert "script" not in page.tags and "onload=alert(1)" not in page.loads
    assert all(address.startswith("data:image/") for address in page.loads) and len(page.loads) == 2
    assert "a<b>&'run" in page.shown and '"><img src=x' in page.shown and "\x1b" not in page.text


def test_a_search_without_scored_trials_and_an_imported_one_have_pages_too(found, tmp_path):
    space, empty = DPCSpace(), tmp_path / "empty"
    empty.mkdir()
    study.open_study(f"sqlite:///{empty}/study.db", "search", space, samplers.make_sampler("random", space, 0))
    page = Page(write_report(empty))
    assert page.shown.count("No trial is scored yet.") == 2 and "nothing to show yet" in page.shown
    assert "Pareto" not in page.shown
    export_study(study.read_study(f"sqlite:///{found[0]}/study.db", "search"), tmp_path / "study.json")
    (tmp_path / "copy").mkdir()
    url = f"sqlite:///{tmp_path}/copy/study.db"
    import_study(tmp_path / "study.json", url, "search", space, samplers.make_sampler("random", space, 0))
    assert found[1][0].summary in Page(write_report(tmp_path / "copy")).shown


@pytest.fixture(name="full", scope="module")
def fixture_full(tmp_path_factory):
    """(search folder with all that a search can have, its study)."""
    folder = tmp_path_factory.mktemp("runs") / "full"
    return folder, make_full_search(folder)


def rows_of(page):
    """The words of each row of the page's tables, cell by cell."""
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", page.text)
    cells = [re.findall(r"<t[dh][^>]*?(?:/>|>(.*?)</t[dh]>)", row) for row in rows]
    return [[html.unescape(re.sub("<[^>]*>", "", cell)) for cell in row] for row in cells]


def test_baselines_stand_among_the_trials_by_reward_without_a_rank(full):
    folder, opened = full
    page = Page(write_report(folder))
    board = rows_of(page)
    start = next(i for i, row in enumerate(board) if row[:3] == ["rank", "trial", "reward"])
    board = board[start + 1 : start + 1 + 9]
    rewards = [float(row[2]) for row in board]
    assert rewards == sorted(rewards, reverse=True)
    named = {row[1]: row for row in board if row[0] == ""}
    scored = {one.name: one for one in baselines(opened)}
    assert named.keys() == scored.keys() == {"aspp", "top1"}
    for name, row in named.items():
        assert row[2] == f"{scored[name].reward:.4f}" and row[-1] == scored[name].summary
    assert page.text.count('<tr class="baseline">') == 2
    # In the head, in the table, beside the curve and in the three plots of costs.
    assert page.shown.count("aspp 0.") == 1 and page.words.count("aspp") >= 4


def test_the_pareto_set_is_marked_and_listed_and_every_cost_has_a_plot(full):
    folder, opened = full
    page, front = Page(write_report(folder)), study.pareto_front(opened)
    marked = [int(row[1]) for row in rows_of(page) if row and row[0].startswith("◆")]
    assert len(front) > 1 and sorted(marked) == sorted([*front, *front])
    assert f"Pareto set of reward, latency: {len(front)} of 7 trials" in page.words
    labels = ("latency (s)", "multiply-adds of the searched part (M)", "parameters of the searched part (K)")
    assert all(label in page.words for label in labels)
    assert page.text.count('class="front"') == 3 * len(front)
    first = next(trial for trial in opened.trials if trial.number in front)
    assert any(f"{first.values[1]:#.4g}" in row for row in rows_of(page))


def test_trials_without_a_score_are_counted_drawn_and_listed_with_reasons(full):
    folder, opened = full
    page = Page(write_report(folder))
    trials = opened.get_trials()
    failed = [t for t in trials if t.state.name == "FAIL"]
    stopped = [t for t in trials if t.state.name == "PRUNED"]
    assert failed and stopped
    assert f"Study 'search': 7 complete, {len(stopped)} stopped early, {len(failed)} failed." in page.words
    assert page.text.count('class="unscored"') == len(failed) + len(stopped)
    assert "details" in page.tags
    assert f"Trials without a score: {len(stopped)} stopped early, {len(failed)} failed" in page.words
    listed = {row[0]: row for row in rows_of(page) if len(row) == 5 and row[1] in ("failed", "stopped early")}
    assert listed.keys() == {str(t.number) for t in failed + stopped}
    for trial in stopped:
        assert listed[str(trial.number)][2:4] == ["200", trial.user_attrs["reason"]]
    assert listed[str(failed[0].number)][2:4] == ["-", "diverged: loss <nan> at step 7 of 200"]


def test_classes_of_the_best_cells_stand_beside_those_of_the_baselines(full):
    folder, opened = full
    rows = rows_of(Page(write_report(folder)))
    best = study.leaderboard(opened, DPCSpace())[0]
    assert ["class", "rank 1", "rank 2", "rank 3", "aspp", "top1"] in rows
    sky = next(row for row in rows if row[0] == "Sky")
    assert sky[1] == f"{100 * best.metrics['iou/Sky']:.2f}"
    assert sky[4] == f"{100 * next(b for b in baselines(opened) if b.name == 'aspp').metrics['iou/Sky']:.2f}"


def test_second_stage_is_shown_where_there_is_one(full, tmp_path):
    folder, opened = full
    assert "Second stage" not in Page(write_report(folder, output=tmp_path / "r.html")).shown
    found = make_rerank(tmp_path / "rerank", opened)
    page = Page(write_report(folder, output=tmp_path / "r.html", rerank_dir=tmp_path / "rerank"))
    assert "Second stage: trained end to end" in page.words and "mIoU on val after 3000 steps" in page.words
    assert f"{describe(found.correlation)}. Baselines are not counted. 2 more are still to be trained." in page.words
    best = found.candidates[0]
    name = best.name if best.rank is None else f"rank {best.rank}"
    row = next(row for row in rows_of(page) if row[:2] == ["1", f"{best.val_miou:.4f}"])
    assert row[2:5] == [f"{best.test_miou:.4f}", name, f"{best.reward:.4f}"] and name in page.words
    assert "top1 failed: seed 0: the loss diverged at step 7" in page.words
    # In the folder of the search it is found without being named.
    (tmp_path / "study").mkdir()
    export_study(opened, tmp_path / "study.json")
    url = f"sqlite:///{tmp_path}/study/study.db"
    space = DPCSpace()
    import_study(tmp_path / "study.json", url, "search", space, samplers.make_sampler("random", space, 0))
    shutil.copytree(tmp_path / "rerank", tmp_path / "study" / "rerank")
    assert "Second stage: trained end to end" in Page(write_report(tmp_path / "study")).words


def test_a_broken_second_stage_is_named(full, tmp_path):
    make_rerank(tmp_path, full[1])
    data = config.read_json(tmp_path / "rerank.json")
    for changes, expected in (
        ({"candidates": 3}, "rerank.json.candidates: expected a list"),
        ({"correlation": data["correlation"] | {"rho": "high"}}, "rerank.json.correlation.rho: expected float"),
        ({"steps": None}, "rerank.json.steps: expected int"),
        ({"format_version": 9}, "rerank.json: expected format_version 1, received 9"),
    ):
        config.write_json(tmp_path / "rerank.json", data | changes)
        with pytest.raises(InputError, match=re.escape(expected)):
            write_report(full[0], rerank_dir=tmp_path, output=tmp_path / "r.html")
    with pytest.raises(InputError, match=r"none/rerank.json: not found; it is written by tools/rerank.py"):
        write_report(full[0], rerank_dir=tmp_path / "none", output=tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_an_imported_study_is_drawn_on_the_map_of_its_conditions(tmp_path):
    space = DPCSpace(num_branches=2)
    conditions = {"size": "[353, 481]", "backbone": '{"output_stride": 16}', "seed": "0"}
    proposer = samplers.make_sampler("random", space, 0)
    url = f"sqlite:///{tmp_path}/study.db"
    opened = study.open_study(url, "search", space, proposer, ["reward", "latency_ms"], conditions)
    trial, genotype = study.ask(opened, space)
    metrics = {"reward": 0.4, "latency_ms": 12.5, "params": count(genotype, 320, 9, 9).params}
    study.tell(opened, trial, metrics, 1.0)
    page = Page(write_report(tmp_path))
    assert "Small maps: 23x31 positions" in page.shown and "output_stride 16" in page.words
    # An objective that nobody foresaw has its column (twice: the Pareto set too) and its axis.
    assert page.words.count("latency_ms") == 3 and page.words.count("12.50") == 2


def break_scores(network, **changes):
    scores = config.read_json(network / "eval_test.json")
    config.write_json(network / "eval_test.json", {k: v for k, v in (scores | changes).items() if v != "gone"})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"class_iou": [0.5]}, "eval_test.json: class_iou: expected an object"),
        ({"class_iou": {"Sky": "high"}}, "eval_test.json: class_iou.Sky: expected float, received 'high'"),
        ({"miou": "gone"}, "eval_test.json: field 'miou' is missing"),
        ({"format_version": 9}, "eval_test.json: expected format_version 1, received 9"),
        ({"images": [{"name": "a"}]}, "eval_test.json: images[0]: expected an object with name and miou"),
        ({"images": {}}, "eval_test.json: images: expected a list"),
    ],
)
def test_broken_scores_of_a_network_are_named(found, tmp_path, changes, expected):
    make_network_run(tmp_path / "net", num_images=1)
    break_scores(tmp_path / "net", **changes)
    with pytest.raises(InputError, match=re.escape(expected)):
        write_report(found[0], network_runs=[tmp_path / "net"])


def test_what_is_missing_is_one_line_and_nothing_is_written(found, tmp_path):
    (tmp_path / "bare").mkdir()
    make_network_run(tmp_path / "net", num_images=1)
    output = tmp_path / "r.html"
    for arguments, expected in (
        ({"run_dir": tmp_path / "none"}, "none: expected the run folder of a search, found none"),
        ({"run_dir": tmp_path / "bare"}, "study.db does not exist"),
        ({"run_dir": found[0], "study_name": "serch"}, "Did you mean 'search'?"),
        ({"run_dir": found[0], "compare": [tmp_path / "bare"]}, "study.db does not exist"),
        ({"run_dir": found[0], "network_runs": [tmp_path / "none"]}, "expected the run folder of a trained network"),
        ({"run_dir": found[0], "network_runs": [tmp_path / "bare"]}, "tools/eval.py --run_dir="),
        ({"run_dir": found[0], "network_runs": [tmp_path / "net"], "split": "val"}, "eval_val.json: not found"),
    ):
        with pytest.raises(InputError, match=re.escape(expected)) as caught:
            write_report(**arguments, output=output)
        assert "\n" not in str(caught.value) and not output.exists()


def test_a_picture_that_is_none_is_named(found, tmp_path):
    make_network_run(tmp_path / "net", num_images=1)
    next((tmp_path / "net" / "vis_test").glob("*.png")).write_bytes(b"not a picture")
    with pytest.raises(InputError, match="000000_0001TP_0000.png: expected a picture"):
        write_report(found[0], network_runs=[tmp_path / "net"])


def test_a_network_without_pictures_says_how_to_draw_them(found, tmp_path):
    make_network_run(tmp_path / "net", num_images=1)
    for path in (tmp_path / "net" / "vis_test").iterdir():
        path.unlink()
    assert "tools/vis.py --run_dir=" in Page(write_report(found[0], network_runs=[tmp_path / "net"])).shown


def test_the_report_needs_no_tensorflow(found, tmp_path):
    code = (
        "import sys; from nas_seg.plot.report import write_report\n"
        f"write_report({str(found[0])!r}, output={str(tmp_path / 'r.html')!r}, network_runs=[{str(found[2])!r}])\n"
        "print(sorted({'tensorflow', 'keras', 'matplotlib'} & {name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_the_report_leaves_the_study_as_it_was(found):
    url = f"sqlite:///{found[0]}/study.db"
    before = optuna.load_study(study_name="search", storage=url).get_trials()
    write_report(found[0])
    assert optuna.load_study(study_name="search", storage=url).get_trials() == before


def test_machine_is_read_from_proc(tmp_path):
    (tmp_path / "cpuinfo").write_text(
        "processor\t: 0\nmodel name\t: A  Fast\tCPU @ 3 GHz\nprocessor\t: 1\nmodel name\t: B\n"
    )
    (tmp_path / "meminfo").write_text("MemTotal:       16777216 kB\nMemFree: 1 kB\n")
    assert re.match(r"A Fast CPU @ 3 GHz, \d+ cores?, 16\.0 GiB, ", describe_machine(tmp_path))
    assert "GiB" not in describe_machine(tmp_path / "nothing")


def test_made_up_scores_name_every_class():
    genotype = DPCSpace().decode([0] * 10)
    assert {f"iou/{name}" for name in CLASSES} < set(evaluate(genotype, seed=0))


def test_estimated_rewards_are_marked_in_the_page_and_the_table(tmp_path, capsys):
    plain = make_search(tmp_path / "plain")
    border = plain[3].reward
    rows = make_search(tmp_path / "search", rejected_below=border)
    marked = [f"~{row.reward:.4f}" for row in rows if row.reward < border]
    whole = [f"{row.reward:.4f}" for row in rows if row.reward >= border]
    assert len(whole) == 4 and len(marked) == len(rows) - 4
    note = "the trial was rejected after the first stage"
    words = Page(write_report(tmp_path / "search")).words
    assert set(marked) | set(whole) <= set(words) and note in "".join(words)
    assert note not in Page(write_report(tmp_path / "plain")).shown
    show(rows, "trials", top_k=len(rows))
    printed = capsys.readouterr().out
    assert all(mark in printed for mark in marked) and printed.count("~") == len(marked) + 1
    show(rows, "trials", top_k=4)
    assert "~" not in capsys.readouterr().out
