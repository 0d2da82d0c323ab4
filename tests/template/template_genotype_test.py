"""Template networks as values: the published lists, the flat action, our file, the digest, what is refused."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from case import fixtures
from hypothesis import given
from hypothesis import strategies as st

from nas_seg.template import AGGREGATIONS, OPS, Layer, Template, TemplateGenotype, published
from nas_seg.utils import config
from nas_seg.utils.errors import InputError

ARCH0 = [
    [[3, 0, 1], [4, 1, 1], [3, 1, 1]],
    [
        [0, 1, 0, 0, 1], [2, 1, 2, 1, 0], [3, 1, 1, 1, 0], [1, 1, 2, 0, 0], [3, 0, 2, 0, 0], [5, 3, 2, 1, 0],
        [0, 5, 0, 1, 0],
    ],
]  # fmt: skip


@st.composite
def genotypes(draw, num_templates=None, num_layers=None):
    number = num_templates or draw(st.integers(1, 4))
    templates = [
        Template(draw(st.sampled_from(OPS)), draw(st.sampled_from(OPS)), draw(st.sampled_from(AGGREGATIONS)))
        for _ in range(number)
    ]
    layers = [
        Layer(
            draw(st.integers(0, 1 + i)),
            draw(st.integers(0, 1 + i)),
            draw(st.integers(0, number - 1)),
            draw(st.integers(1, 4)),
            draw(st.sampled_from((1, 2))),
        )
        for i in range(num_layers or draw(st.integers(1, 8)))
    ]
    return TemplateGenotype(tuple(templates), tuple(layers))


@given(genotypes())
def test_every_form_of_a_genotype_reads_back_as_the_genotype(genotype):
    assert TemplateGenotype.from_lists(json.loads(json.dumps(genotype.to_lists()))) == genotype
    sizes = len(genotype.templates), len(genotype.layers)
    assert TemplateGenotype.from_action(genotype.to_action(), *sizes) == genotype
    assert TemplateGenotype.from_action(np.array(genotype.to_action()), *sizes) == genotype
    assert config.from_json(TemplateGenotype, json.loads(json.dumps(config.to_json(genotype)))) == genotype


def test_published_lists_are_read_and_written():
    genotype = TemplateGenotype.from_lists(ARCH0)
    assert genotype == published("arch0") and genotype.to_lists() == ARCH0
    assert genotype.templates[0] == Template("max_pool_3x3", "sep_conv_3x3", "cat")
    assert genotype.layers[0] == Layer(0, 1, 0, repeats=1, stride=2)
    assert genotype.layers[5] == Layer(5, 3, 2, repeats=2, stride=1)
    assert genotype.outputs == (4, 6, 7, 8) and published("arch1").outputs == (5, 6, 7, 8)
    with pytest.raises(InputError, match="unknown published network 'arch2'"):
        published("arch2")


def test_recorded_actions_are_those_of_the_recorded_lists():
    manifest = json.loads((fixtures("template") / "manifest.json").read_text())["template_controller"]
    for case in manifest["samples"] + manifest["published"]:
        genotype = TemplateGenotype.from_action(case["action"])
        assert genotype.to_lists() == case["config"] and genotype.to_action() == case["action"]
        assert len(case["action"]) == 44


@pytest.mark.parametrize("bare", [False, True])
def test_saved_genotypes_are_loaded_in_both_forms(tmp_path, bare):
    published("arch1").save(tmp_path / "arch.json", bare=bare)
    assert TemplateGenotype.load(tmp_path / "arch.json") == published("arch1")
    data = json.loads((tmp_path / "arch.json").read_text())
    assert isinstance(data, list) if bare else (data["format_version"], data["kind"]) == (1, "template")


def test_summary_names_templates_and_layers():
    assert published("arch0").summary() == (
        "T0=cat(max3x3,sep3x3) T1=cat(sep5x5(6),sep5x5) T2=cat(max3x3,sep5x5) | "
        "0,1:T0/2 2,1:T2x2 3,1:T1x2 1,1:T2 3,0:T2 5,3:T2x2 0,5:T0x2"
    )


@given(genotypes(), st.randoms())
def test_digest_heeds_neither_the_order_of_templates_nor_those_unused(genotype, random):
    spare = Template("skip_connect", "global_average_pool", "psum")
    templates = [*genotype.templates, spare]
    order = list(range(len(templates)))
    random.shuffle(order)
    layers = [dataclasses.replace(layer, template=order.index(layer.template)) for layer in genotype.layers]
    other = TemplateGenotype(tuple(templates[i] for i in order), tuple(layers))
    assert other != genotype and other.digest == genotype.digest
    assert len(genotype.digest) == 12


def test_digest_tells_networks_apart():
    arch = published("arch0")
    digests = {arch.digest, published("arch1").digest}
    for field, value in (("input1", 1), ("input2", 0), ("template", 1), ("repeats", 2), ("stride", 1)):
        layers = (dataclasses.replace(arch.layers[0], **{field: value}), *arch.layers[1:])
        digests.add(TemplateGenotype(arch.templates, layers).digest)
    for field, value in (("op1", "skip_connect"), ("op2", "skip_connect"), ("aggregation", "psum")):
        templates = (dataclasses.replace(arch.templates[0], **{field: value}), *arch.templates[1:])
        digests.add(TemplateGenotype(templates, arch.layers).digest)
    assert len(digests) == 10


def changed(part, row, column, value):
    lists = json.loads(json.dumps(ARCH0))
    lists[part][row][column] = value
    return lists


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        (changed(1, 2, 0, 4), r"genotype: layers\[2\]: input1: expected 0 to 3 .*layer k, of which 2 come.*received 4"),
        (changed(1, 0, 1, 2), r"genotype: layers\[0\]: input2: expected 0 to 1 .*received 2"),
        (changed(1, 6, 1, -1), r"genotype: layers\[6\]: input2: expected an integer of at least 0, received -1"),
        (changed(1, 3, 2, 3), r"genotype: layers\[3\]: template: expected 0 to 2, received 3"),
        (changed(1, 3, 3, 4), r"genotype: layers\[3\]: repeats: expected 0 to 3 \(1, 2, 3, 4\), received 4"),
        (changed(1, 3, 4, 2), r"genotype: layers\[3\]: stride: expected 0 to 1 \(1, 2\), received 2"),
        (changed(0, 1, 0, 6), r"genotype: templates\[1\]: op1: expected 0 to 5 \(sep_conv_3x3, .*received 6"),
        (changed(0, 1, 2, 2), r"genotype: templates\[1\]: aggregation: expected 0 to 1 \(psum, cat\), received 2"),
        (changed(0, 1, 2, True), r"templates\[1\]: aggregation: .*received True"),
        (changed(1, 3, 4, 0.0), r"layers\[3\]: stride: .*received 0.0"),
        ([ARCH0[0], [[0, 1, 0, 0]]], r"layers\[0\]: expected 5 integers \(input1, input2, template, repeats, stride\)"),
        ([ARCH0[0], []], "layers: expected at least one, received none"),
        ([ARCH0[0]], "genotype: expected two lists, of templates and of layers, received"),
        ({"a": 1}, "genotype: expected two lists"),
    ],
)
def test_lists_that_are_no_network_are_refused_in_one_line(lists, expected):
    with pytest.raises(InputError, match=expected) as error:
        TemplateGenotype.from_lists(lists)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("action", [[0] * 43, [0] * 45, [], 44, "0" * 44])
def test_an_action_of_another_length_is_refused(action):
    with pytest.raises(InputError, match="action: expected 44 integers .*, received") as error:
        TemplateGenotype.from_action(action)
    assert "\n" not in str(error.value)


def test_an_action_that_is_no_network_is_refused():
    action = published("arch0").to_action()
    action[9] = 2
    with pytest.raises(InputError, match=r"action: layers\[0\]: input1: expected 0 to 1"):
        TemplateGenotype.from_action(action)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"kind": "dpc"}, "expected a genotype of kind 'template' or the lists .*, received kind 'dpc'"),
        ({"format_version": 1, "kind": "template", "templates": []}, "field 'layers' is missing"),
        (
            {"op1": "sep_conv_3x4", "op2": "skip_connect", "aggregation": "cat"},
            r"arch.json.templates\[0\]: op1: unknown op 'sep_conv_3x4'.*Did you mean 'sep_conv_3x3'",
        ),
        (
            {"op1": "skip_connect", "op2": "skip_connect", "aggregation": "sum"},
            r"arch.json.templates\[0\]: aggregation: unknown aggregation 'sum'.*Did you mean 'psum'",
        ),
        ([[[0, 0, 0]], [[0, 0, 1, 0, 0]]], r"arch.json: layers\[0\]: template: expected 0 to 0, received 1"),
    ],
)
def test_file_of_another_kind_or_content_is_refused(tmp_path, content, expected):
    if isinstance(content, dict) and "op1" in content:
        layer = {"input1": 0, "input2": 1, "template": 0}
        content = {"format_version": 1, "kind": "template", "templates": [content], "layers": [layer]}
    (tmp_path / "arch.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=expected):
        TemplateGenotype.load(tmp_path / "arch.json")


def test_wrong_fields_are_named():
    with pytest.raises(InputError, match="repeats: expected one of 1, 2, 3, 4, received 5"):
        Layer(0, 1, 0, repeats=5)
    with pytest.raises(InputError, match="stride: expected one of 1, 2, received 3"):
        Layer(0, 1, 0, stride=3)
    with pytest.raises(InputError, match="templates: expected a tuple of Template, received"):
        TemplateGenotype(("cat",), (Layer(0, 1, 0),))


def test_importing_the_package_imports_neither_keras_nor_optuna():
    code = (
        "import sys, nas_seg.template as t; heavy = {'keras', 'tensorflow', 'optuna'} & set(sys.modules); "
        "assert not heavy, heavy; t.TemplateSpace().size(); t.count(t.published('arch0'), 19)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
