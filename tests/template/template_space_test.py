"""The space of template networks: its size, vectors and actions, what lies outside; channels, strides and costs."""

import dataclasses
import json
import math

import numpy as np
import pytest
from case import fixtures
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_seg.template import Layer, Template, TemplateGenotype, TemplateSpace, count, plan, published
from nas_seg.template.plan import Map, output_maps
from nas_seg.utils import config
from nas_seg.utils.errors import InputError

SPACE = TemplateSpace()
VECTORS = st.tuples(*(st.integers(0, total - 1) for total in SPACE.num_choices))


def test_size_is_that_of_the_authors_space():
    templates = (6 * 6 * 2) ** 3
    layers = math.prod((2 + i) ** 2 * 3 * 4 * (2 if i < 3 else 1) for i in range(7))
    assert SPACE.size() == 173_939_110_768_450_260_172_800 == templates * layers
    assert TemplateSpace(1, 1).size() == 72 * 4 * 4


def test_decisions_stand_in_the_order_of_the_action():
    assert len(SPACE.names) == len(set(SPACE.names)) == 44
    assert SPACE.names[:4] == ("t0_op1", "t0_op2", "t0_aggregation", "t1_op1")
    assert SPACE.names[9:15] == ("l0_input1", "l0_input2", "l0_template", "l0_repeats", "l0_stride", "l1_input1")
    strides = [total for name, total in zip(SPACE.names, SPACE.num_choices, strict=True) if name.endswith("stride")]
    assert strides == [2, 2, 2, 1, 1, 1, 1]
    # Entropy of a uniform policy, as known of the authors' space.
    assert sum(map(math.log, SPACE.num_choices)) == pytest.approx(53.51, abs=0.005)


@given(VECTORS)
@settings(deadline=None)
def test_vector_and_genotype_are_one_to_one(vector):
    genotype = SPACE.decode(vector)
    assert tuple(SPACE.encode(genotype)) == vector == tuple(genotype.to_action())
    assert SPACE.from_params(SPACE.to_params(genotype)) == genotype


@given(VECTORS, st.integers(0, 2**32))
@settings(deadline=None)
def test_mutation_stays_in_the_space_and_changes_one_decision(vector, seed):
    changed = SPACE.mutate(SPACE.decode(vector), np.random.default_rng(seed))
    assert np.sum(SPACE.encode(changed) != vector) == 1


def test_published_networks_are_in_the_space():
    params = SPACE.to_params(published("arch0"))
    assert {k: v for k, v in params.items() if k.startswith(("t1_", "l5_"))} == {
        "t1_op1": "sep_conv_5x5_dil6", "t1_op2": "sep_conv_5x5", "t1_aggregation": "cat",
        "l5_input1": "5", "l5_input2": "3", "l5_template": "2", "l5_repeats": "2", "l5_stride": "1",
    }  # fmt: skip
    SPACE.validate(published("arch1"))


def test_validate_says_what_is_outside():
    arch = published("arch0")
    layers = (*arch.layers[:6], dataclasses.replace(arch.layers[6], stride=2))
    for genotype, expected in (
        (TemplateGenotype(arch.templates, layers), r"layers\[6\]: stride: expected 1, received 2: .*before 3 alone"),
        (TemplateGenotype(arch.templates, arch.layers[:6]), "networks of 7 layers, received 6"),
        (TemplateGenotype((*arch.templates, arch.templates[0]), arch.layers), "networks of 3 templates, received 4"),
        ("arch0", "expected a genotype of kind 'template', received str"),
    ):
        with pytest.raises(InputError, match=expected):
            SPACE.validate(genotype)
    with pytest.raises(InputError, match="l3_stride: expected 0 to 0, received 1"):
        SPACE.decode([0] * 28 + [1] + [0] * 15)
    for arguments in ({"num_templates": 0}, {"num_layers": True}):
        with pytest.raises(InputError, match=f"TemplateSpace: {next(iter(arguments))}"):
            TemplateSpace(**arguments)


def test_a_space_has_a_json_form_and_its_digest_tells_it_from_others():
    other = TemplateSpace(2, 4)
    assert config.from_json(TemplateSpace, config.to_json(other)) == other and other.digest() != SPACE.digest()
    assert len(other.sample(np.random.default_rng(0)).layers) == 4


def test_published_networks_cost_what_their_authors_code_does():
    recorded = json.loads((fixtures("template") / "genotypes.json").read_text())["wacv"]
    for name in ("arch0", "arch1"):
        genotype = TemplateGenotype.from_lists(recorded["archs"][name])
        assert genotype == published(name)
        for classes, params in recorded["params"][name].items():
            assert count(genotype, int(classes)).params == params
        for case, madds in recorded["macs"][name].items():
            height, width, classes = map(int, case.split("x"))
            assert count(genotype, classes, height=height, width=width).madds == madds


@pytest.mark.parametrize(("name", "params"), [("arch0", (280_147, 275_531)), ("arch1", (268_235, 263_619))])
def test_published_networks_have_the_published_parameters(name, params):
    assert (count(published(name), 19).params, count(published(name), 11).params) == params


def test_maps_of_arch0_are_those_of_the_worked_example():
    # (channels, stride) of op 1, op 2 and the aggregation at the last application of each layer.
    expected = [
        ((48, 8), (64, 32), (64, 32)),
        ((32, 8), (64, 32), (64, 32)),
        ((32, 8), (64, 32), (64, 32)),
        ((32, 8), (32, 8), (32, 8)),
        ((64, 32), (24, 4), (64, 4)),
        ((64, 32), (64, 8), (64, 8)),
        ((32, 8), (32, 4), (32, 4)),
    ]
    layers = plan(published("arch0"))
    found = [(*(op.output for op in layer[-1].ops), layer[-1].output) for layer in layers]
    assert found == expected
    assert sum(m.channels for m in output_maps(published("arch0"), layers)) == 224
    assert Map(64, 32).size(97, 129) == (4, 5) and Map(24, 4).size(1, 3) == (1, 1)


def test_every_application_strides_by_the_authors_rule_and_the_first_alone_by_the_other():
    genotype = TemplateGenotype(
        (Template("sep_conv_5x5", "max_pool_3x3", "psum"), Template("skip_connect", "global_average_pool", "cat")),
        (Layer(0, 1, 0, repeats=3, stride=2), Layer(0, 0, 1, repeats=2, stride=2), Layer(0, 1, 0), Layer(0, 1, 0)),
    )
    peer, once = (plan(genotype, 2, rule) for rule in ("peer", "once"))
    # e0: 24 channels at 4, e1: 32 at 8. Application 0: 4 -> 16 and 8 -> 16; 1: e1 8 -> 32 and 16 -> 32; 2: y0 16 -> 64.
    assert [a.ops[0].output for a in peer[0]] == [(48, 16), (32, 32), (64, 64)]
    assert [a.ops[1].output for a in peer[0]] == [(64, 16), (64, 32), (64, 64)]
    assert [a.output for a in peer[0]] == [(64, 16), (64, 32), (64, 64)]
    assert [a.ops[0].output for a in once[0]] == [(48, 8), (32, 8), (64, 16)]
    assert [a.ops[1].output for a in once[0]] == [(64, 16), (64, 16), (64, 16)]
    # Skips and global averages keep the size and multiply the channels once.
    assert [a.output for a in peer[1]] == [a.output for a in once[1]] == [(48, 4), (48, 4)]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"height": 0}, "image: expected a height and a width of at least 1, received 0x480"),
        ({"sep_repeats": 0}, "sep_repeats: expected at least 1, received 0"),
        ({"agg_size": 0}, "agg_size: expected at least 1, received 0"),
        ({"stride_rule": "twice"}, "stride_rule: unknown rule 'twice'"),
        ({"num_classes": 0}, "num_classes: expected at least 1, received 0"),
    ],
)
def test_what_cannot_be_counted_is_refused(arguments, expected):
    with pytest.raises(InputError, match=expected):
        count(published("arch0"), **({"num_classes": 19} | arguments))
