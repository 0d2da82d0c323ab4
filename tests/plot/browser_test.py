"""Reports and drawings as headless Chromium shows them; skipped where there is no such browser."""

import pytest
from browser import browser, find_chromium
from gradient_search import make_gradient_search, make_retraining
from searched import make_full_search
from trained import make_training
from training_report_test import scores_of

from nas_seg.plot import architecture, training_result, training_sections
from nas_seg.plot.markup import adaptive, element
from nas_seg.plot.page import page
from nas_seg.plot.report import write_report

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no chromium: apt-get install chromium")
_LIGHT, _DARK = "rgb(255, 255, 255)", "rgb(21, 25, 30)"
_ABOUT = "Command, machine and settings"
# What each page must show: its main headings.
_HEADINGS = {
    "search": ["Search report: search", "Search", "Leaderboard", "The best architectures", _ABOUT],
    "training": [
        "Training report",
        "Training by step",
        "IoU of each class",
        "What is taken for what",
        "The worst pictures of val",
        "The network",
        _ABOUT,
    ],
    "gradient": ["Search report: gradient", "Search by epoch", "alpha and beta", "Path by epoch", _ABOUT],
}


@pytest.fixture(name="pages", scope="module")
def fixture_pages(tmp_path_factory):
    """The three reports by name."""
    folder = tmp_path_factory.mktemp("pages")
    make_full_search(folder / "search")
    make_retraining(make_gradient_search(folder / "gradient"))
    training = training_result.read_training(make_training(folder / "training"))
    title = "Training report"
    body = training_sections.sections(training, scores_of(keep=2), "")
    path = folder / "training" / "report.html"
    path.write_text(page(title, element("h1", title), *body))
    return {"search": write_report(folder / "search"), "gradient": write_report(folder / "gradient"), "training": path}


@pytest.fixture(name="chromium", scope="module")
def fixture_chromium():
    with browser(find_chromium()) as opened:
        yield opened


@pytest.mark.parametrize("name", _HEADINGS)
def test_a_page_shows_its_headings_at_800_pixels_and_logs_no_error(chromium, pages, name):
    for dark, background in ((False, _LIGHT), (True, _DARK)):
        chromium.open(pages[name], width=800, dark=dark)
        shown = chromium.headings()
        assert [heading for heading in _HEADINGS[name] if heading not in shown] == []
        assert chromium.logged == [] and chromium.too_wide() == 0
        assert chromium.background() == background and all(chromium.picture_widths())
    assert len(chromium.picture_widths()) == (8 if name == "training" else 0)


def test_the_browser_tells_of_what_a_page_must_not_do(chromium, tmp_path):
    path = tmp_path / "bad.html"
    path.write_text(page("x", element("img", src="https://example.invalid/x.png", alt="")))
    chromium.open(path)
    assert any("Content Security Policy" in line for line in chromium.logged)
    path.write_text("<script>console.error('so')</script><div style='width: 900px'>x</div>")
    chromium.open(path)
    assert len(chromium.logged) == 1 and chromium.too_wide() > 0


@pytest.mark.parametrize("name", ["dpc", "auto_deeplab", "template"])
def test_letters_of_a_drawing_can_be_read_at_800_pixels_and_it_follows_the_readers_colours(chromium, tmp_path, name):
    path = tmp_path / "drawing.svg"
    genotypes = {
        "dpc": "dpc/published/cityscapes_top1.json",
        "auto_deeplab": "auto_deeplab/published/auto_deeplab.json",
        "template": "template/published/arch0.json",
    }
    path.write_text(adaptive(architecture.draw(architecture.load_genotype(f"nas_seg/{genotypes[name]}"))))
    for dark, background in ((False, _LIGHT), (True, _DARK)):
        chromium.open(path, width=800, dark=dark)
        assert chromium.evaluate("getComputedStyle(document.querySelector('svg > rect')).fill") == background
    # As a page shows it: 800 pixels less the margins.
    smallest = "Math.min(...[...document.querySelectorAll('text')].map(e => parseFloat(e.getAttribute('font-size'))))"
    scale = chromium.evaluate("768 / document.documentElement.getAttribute('width')")
    assert chromium.evaluate(smallest) * min(scale, 1.0) >= 8.5
    assert chromium.logged == []
