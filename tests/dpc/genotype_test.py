"""Tests cells as values: DeepLab's JSON, our file, what is refused, and the paper's parameter counts."""

import copy
import json
import pathlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_seg.dpc import CITYSCAPES_TOP1, Branch, DPCGenotype, count, published
from nas_seg.utils import config
from nas_seg.utils.errors import InputError

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
CELL_0 = GOLDEN / "dpc_cell_0.json"
TOP1 = GOLDEN / "dpc_cell_cityscapes_top1.json"

PAIRS = st.tuples(st.integers(1, 30), st.integers(1, 30))


@st.composite
def cells(draw):
    branches = []
    for i in range(draw(st.integers(1, 6))):
        source = draw(st.integers(-1, i - 1))
        kind = draw(st.sampled_from(["pointwise", "separable", "pool"]))
        if kind == "pool":
            branches.append(Branch("pyramid_pooling", source, grid_size=draw(PAIRS)))
        elif kind == "separable":
            kernel = draw(PAIRS.filter(lambda k: k != (1, 1)))
            branches.append(Branch("conv", source, kernel=kernel, rate=draw(PAIRS)))
        else:
            branches.append(Branch("conv", source, kernel=1))
    return DPCGenotype(tuple(branches))


@given(cells())
def test_every_json_form_of_a_cell_reads_back_as_the_cell(cell):
    assert DPCGenotype.from_list(json.loads(json.dumps(cell.to_list()))) == cell
    assert config.from_json(DPCGenotype, json.loads(json.dumps(config.to_json(cell)))) == cell


@pytest.mark.parametrize("bare", [False, True])
def test_saved_cells_are_loaded_in_both_formats(tmp_path, bare):
    cell = DPCGenotype.load(CELL_0)
    cell.save(tmp_path / "cell.json", bare=bare)
    assert DPCGenotype.load(tmp_path / "cell.json") == cell
    data = json.loads((tmp_path / "cell.json").read_text())
    assert isinstance(data, list) if bare else (data["format_version"], data["kind"]) == (1, "dpc")


@pytest.mark.parametrize("path", [CELL_0, TOP1])
def test_deeplab_lists_are_written_as_they_were_read(path):
    assert DPCGenotype.load(path).to_list() == json.loads(path.read_text())


def test_published_cell_is_the_recorded_one():
    assert published("cityscapes_top1") == CITYSCAPES_TOP1 == DPCGenotype.load(TOP1)
    assert CITYSCAPES_TOP1.summary() == ("F:sep3x3(1x6) 0:sep3x3(18x15) 1:sep3x3(6x3) 0:sep3x3(1x1) 0:sep3x3(6x21)")
    with pytest.raises(InputError, match="Did you mean 'cityscapes_top1'"):
        published("cityscape_top1")


def test_summary_tells_pools_and_pointwise_convolutions():
    cell = DPCGenotype((Branch("conv", -1, kernel=1), Branch("pyramid_pooling", 0, grid_size=(4, 2))))
    assert cell.summary() == "F:1x1 0:spp(4x2)"


def test_equal_cells_have_equal_digests_however_they_are_written():
    entries = json.loads(TOP1.read_text())
    entries[0] |= {"input": -7, "kernel": [3, 3]}
    other = DPCGenotype.from_list(entries)
    assert other == CITYSCAPES_TOP1 and other.digest == CITYSCAPES_TOP1.digest
    assert len(other.digest) == 12 and other.digest != DPCGenotype.load(CELL_0).digest


def test_pointwise_convolution_has_three_spellings_and_its_rate_is_ignored():
    entries = [{"op": "conv", "input": -1, "kernel": k} | r for k in (1, [1, 1]) for r in ({}, {"rate": [6, 6]})]
    cell = DPCGenotype.from_list(entries)
    assert set(cell.branches) == {Branch("conv", -1, kernel=1)}


def test_reading_changes_nothing_of_the_callers_and_accepts_what_deeplab_wrote_back():
    entries = json.loads(CELL_0.read_text())
    entries[1] |= {"target_size": [33, 65], "kernel": [9, 33]}
    before = copy.deepcopy(entries)
    cell = DPCGenotype.from_list(entries)
    assert entries == before and cell == DPCGenotype.load(CELL_0)
    cell.to_list()[0]["rate"].append(3)
    assert cell == DPCGenotype.load(CELL_0)


CONV = {"op": "conv", "input": -1, "kernel": 3, "rate": [1, 1]}
POOL = {"op": "pyramid_pooling", "input": -1, "grid_size": [1, 1]}


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([], "at least one branch"),
        ({}, "expected a list of branches"),
        ([3], "branch 0: expected an object, received 3"),
        ([CONV, {**CONV, "op": "cnv"}], "branch 1: unknown op 'cnv'.*Did you mean 'conv'"),
        ([{**CONV, "op": ["conv"]}], "branch 0: unknown op"),
        ([{**CONV, "input": 0}], "branch 0 reads branch 0"),
        ([CONV, {**CONV, "input": 2}, CONV], "branch 1 reads branch 2, which is not an earlier one"),
        ([{**CONV, "input": True}], "input: expected an integer"),
        ([{**CONV, "input": "F"}], "input: expected an integer"),
        ([{**CONV, "rate": [0, 1]}], "rate: expected two integers >= 1"),
        ([{**CONV, "rate": 6}], "rate: expected two integers >= 1"),
        ([{**CONV, "rate": [6, 6, 6]}], "rate: expected two integers >= 1"),
        ([{**CONV, "rate": [True, 6]}], "rate: expected two integers >= 1"),
        ([{**CONV, "rate": [6.0, 6]}], "rate: expected two integers >= 1"),
        ([{**CONV, "kernel": 0}], "kernel: expected two integers >= 1"),
        ([{**CONV, "kernel": True}], "kernel: expected two integers >= 1"),
        ([{k: v for k, v in CONV.items() if k != "rate"}], "rate is missing: conv needs it"),
        ([{k: v for k, v in CONV.items() if k != "kernel"}], "kernel is missing: conv needs it"),
        ([{k: v for k, v in POOL.items() if k != "grid_size"}], "grid_size is missing: pyramid_pooling needs it"),
        ([{k: v for k, v in POOL.items() if k != "input"}], "field 'input' is missing"),
        ([{**POOL, "rate": [1, 1]}], "unknown field of pyramid_pooling 'rate'"),
        ([{**CONV, "rates": [1, 1]}], "unknown field of conv 'rates'.*Did you mean 'rate'"),
        ([{**CONV, "grid_size": [1, 1]}], "unknown field of conv 'grid_size'"),
    ],
)
def test_what_is_no_cell_is_refused_by_name(tmp_path, entries, expected):
    (tmp_path / "cell.json").write_text(json.dumps(entries))
    if isinstance(entries, dict):
        with pytest.raises(InputError, match=expected):
            DPCGenotype.from_list(entries)
        return
    with pytest.raises(InputError, match=expected) as caught:
        DPCGenotype.load(tmp_path / "cell.json")
    assert str(caught.value).startswith(str(tmp_path / "cell.json"))


def test_fields_of_another_op_are_refused():
    with pytest.raises(InputError, match="grid_size: conv has none"):
        Branch("conv", -1, kernel=3, rate=(1, 1), grid_size=(1, 1))
    with pytest.raises(InputError, match="rate: a 1x1 conv has none"):
        Branch("conv", -1, kernel=1, rate=(6, 6))
    with pytest.raises(InputError, match="expected a tuple of Branch"):
        DPCGenotype((CONV,))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            {"format_version": 1, "kind": "auto_deeplab", "cell": []},
            "expected a genotype of kind 'dpc'.*'auto_deeplab'",
        ),
        ({"branches": [CONV]}, "expected a genotype of kind 'dpc'"),
        ({"format_version": 2, "kind": "dpc", "branches": [CONV]}, "expected format_version 1, received 2"),
        ({"format_version": 1, "kind": "dpc", "branches": [CONV], "x": 1}, "unknown field 'x'"),
        ({"format_version": 1, "kind": "dpc", "branches": [CONV | {"op": "con"}]}, r"branches\[0\]: unknown op 'con'"),
        (3, "expected a JSON object"),
    ],
)
def test_file_of_another_kind_version_or_content_is_refused(tmp_path, content, expected):
    (tmp_path / "cell.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=expected):
        DPCGenotype.load(tmp_path / "cell.json")


@pytest.mark.parametrize(
    ("channels", "params", "madds", "paper_params", "paper_madds"),
    [(320, 356_160, 2_986_401_600, 0.36e6, 3.00e9), (2048, 814_080, 6_826_060_800, 0.81e6, 6.84e9)],
)
def test_context_module_of_the_published_cell_costs_what_the_paper_says(
    channels, params, madds, paper_params, paper_madds
):
    cost = count(CITYSCAPES_TOP1, channels, 65, 129)
    assert cost == (params, madds)
    # The paper prints two decimals of millions (0.36 stands for 0.355 to 0.365), and multiply-adds within 0.5%.
    assert abs(params - paper_params) <= 0.005e6 and abs(madds - paper_madds) / paper_madds < 0.005


# Trainable parameters that the original code reported, on 32 channels.
@pytest.mark.parametrize(
    ("path", "channels", "filters", "concat_filters", "trainable"),
    [
        (TOP1, 2048, 256, 256, 1_150_976),
        (TOP1, 320, 256, 256, 689_600),
        (TOP1, 32, 256, 256, 612_704),
        (TOP1, 32, 16, 24, 4_720),
        (CELL_0, 32, 256, 256, 489_920),
        (CELL_0, 32, 16, 24, 5_056),
    ],
)
def test_all_trainable_parameters_are_those_of_the_original(path, channels, filters, concat_filters, trainable):
    cost = count(DPCGenotype.load(path), channels, 33, 65, filters, True, concat_filters)
    assert cost.params == trainable


def test_pooling_is_counted_on_the_map_that_the_average_leaves():
    cell = DPCGenotype((Branch("pyramid_pooling", -1, grid_size=(4, 2)),))
    # 33 x 65: windows 9 and 33 leave 25 x 33 positions.
    assert count(cell, 32, 33, 65, filters=16) == (512, 512 * 25 * 33)


def test_projection_adds_its_convolution_at_every_position():
    cell = DPCGenotype((Branch("conv", -1, kernel=1),) * 2)
    cost = count(cell, 8, 10, 10, filters=4, with_projection=True, concat_filters=6)
    assert cost == (2 * (32 + 8) + 48 + 12, (64 + 48) * 100)


def test_importing_the_package_imports_neither_keras_nor_optuna():
    code = (
        "import sys, nas_seg.dpc as dpc; heavy = {'keras', 'tensorflow', 'optuna'} & set(sys.modules); "
        "assert not heavy, heavy; assert 'DensePredictionCell' in dpc.__all__; dpc.DPCSpace().size()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
