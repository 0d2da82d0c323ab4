"""Tests decoding: Viterbi is brute force, ties included; the cell never takes the zero op; what is refused."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from case import fixtures
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from trellis import all_paths, log_probabilities

from nas_seg.auto_deeplab import OPS
from nas_seg.auto_deeplab.decode import best_path, decode, decode_cell, entropies, read_logits
from nas_seg.utils.errors import InputError

CASES = ("init_1e-3", "sigma_1")
# Sums of twelve logarithms in another order differ by some 1e-15; recorded numbers have all digits of float64.
CLOSE = {"rtol": 0, "atol": 1e-12}
TIE = 1e-12


def recorded(name):
    return np.load(fixtures("auto_deeplab", f"decode_{name}.npz"), allow_pickle=False)


def check_against_brute_force(beta, border=1.0):
    """The path is the first in lexicographic order of those that tie for the best; probability and margin agree."""
    scores = log_probabilities(beta, border)
    found = best_path(beta, border_correction=border != 1.0)
    first = int(np.argmax(scores >= scores.max() - TIE))
    assert found.levels == tuple(all_paths(len(beta))[first])
    np.testing.assert_allclose(found.log_probability, scores[first], **CLOSE)
    np.testing.assert_allclose(found.margin, max(scores[first] - np.delete(scores, first).max(), 0.0), **CLOSE)


def literal_cell(alpha):
    """Block by block and edge by edge, without NumPy."""
    rows, blocks, start = [[math.exp(v) for v in row] for row in alpha.tolist()], [], 0
    while start < len(rows):
        edges = []
        for source in range(2 + len(blocks)):
            row = rows[start + source]
            strength, op = max((row[k] / sum(row), -k) for k in range(1, 8))
            edges.append((-strength, source, OPS[-op]))
        blocks.append(tuple(sorted((source, op) for _, source, op in sorted(edges)[:2])))
        start += len(edges)
    return tuple(blocks)


@pytest.mark.parametrize("name", CASES)
def test_path_probability_and_margin_are_the_recorded_ones(name):
    case = recorded(name)
    beta = case["betas_logits"]
    found = best_path(beta)
    assert found.levels == tuple(case["brute_path_paper"]) == tuple(case["own_viterbi_path_paper"])
    np.testing.assert_allclose(found.log_probability, case["brute_logp_paper"], **CLOSE)
    np.testing.assert_allclose(found.margin, case["brute_margin_paper"], **CLOSE)
    corrected = best_path(beta, border_correction=True)
    assert corrected.levels == tuple(case["brute_path_with_2_3"]) == tuple(case["noam_viterbi_path"])
    np.testing.assert_allclose(corrected.log_probability, case["brute_logp_with_2_3"], **CLOSE)


@pytest.mark.parametrize("name", CASES)
def test_path_that_has_to_start_at_stride_4_is_the_recorded_one(name):
    case = recorded(name)
    beta = case["betas_logits"].astype(np.float64)
    beta[0, 0, 2] = -1e9  # the way from the stem to stride 8
    found = best_path(beta)
    assert found.levels == tuple(case["brute_path_first_fixed_4"])
    np.testing.assert_allclose(found.log_probability, case["brute_logp_first_fixed_4"], **CLOSE)


@pytest.mark.parametrize("name", CASES)
def test_cell_is_the_recorded_one(name):
    case = recorded(name)
    starts = np.cumsum([0, 2, 3, 4, 5])
    expected = [(int(row - starts[starts <= row].max()), OPS[op]) for row, op in case["cell_paper_exclude_zero"]]
    genotype = decode(case["alphas_logits"], case["betas_logits"])
    assert list(itertools.chain.from_iterable(genotype.cell)) == expected
    assert genotype.path == tuple(case["brute_path_paper"])


@pytest.mark.parametrize("border", [1.0, 2 / 3])
@pytest.mark.parametrize("sigma", [1e-3, 0.1, 1.0, 3.0, 30.0])
def test_viterbi_is_brute_force_over_all_75025_paths(sigma, border):
    random = np.random.default_rng([int(1000 * sigma), 7])
    for _ in range(3):
        check_against_brute_force(sigma * random.standard_normal((12, 4, 3)), border)


@given(
    st.integers(1, 7).flatmap(lambda n: hnp.arrays(np.float64, (n, 4, 3), elements=st.floats(-30, 30))),
    st.sampled_from([1.0, 2 / 3]),
)
@settings(max_examples=150, deadline=None)
def test_viterbi_is_brute_force_for_any_beta(beta, border):
    check_against_brute_force(beta, border)


@given(
    st.integers(1, 7).flatmap(lambda n: hnp.arrays(np.int8, (n, 4, 3), elements=st.integers(0, 1))),
    st.sampled_from([1.0, 2 / 3]),
)
@settings(max_examples=150, deadline=None)
def test_of_tied_paths_the_first_in_lexicographic_order_wins(beta, border):
    # Logits of two values only: most draws have many paths of equal probability.
    check_against_brute_force(beta, border)


def test_equal_logits_give_stride_4_throughout_in_a_tie():
    # 1/2 a step along the border; to leave it in the last step costs no more.
    found = best_path(np.zeros((12, 4, 3)))
    assert found.levels == (0,) * 12 and found.margin == 0
    assert found.log_probability == pytest.approx(-12 * math.log(2), abs=1e-12)
    scores = log_probabilities(np.zeros((12, 4, 3)))
    assert [tuple(p) for p in all_paths(12)[scores > scores.max() - TIE]] == [(0,) * 12, (0,) * 11 + (1,)]
    # With the correction every step is 1/3 and every path ties.
    corrected = best_path(np.zeros((12, 4, 3)), border_correction=True)
    assert corrected.levels == (0,) * 12 and corrected.margin == 0
    assert corrected.log_probability == pytest.approx(-12 * math.log(3), abs=1e-12)


def test_a_certain_path_is_found_and_its_margin_is_infinite():
    path, beta = (1, 2, 3, 3, 2, 1, 0, 0), np.zeros((8, 4, 3))
    for layer, (a, b) in enumerate(itertools.pairwise((0, *path))):
        beta[layer, a, b - a + 1] = 1e308
    assert best_path(beta) == (path, 0.0, np.inf)


@pytest.mark.parametrize("sigma", [1e-3, 1.0, 5.0])
@pytest.mark.parametrize("num_blocks", [1, 2, 5, 7])
def test_cell_is_that_of_a_literal_reading(num_blocks, sigma):
    random = np.random.default_rng([num_blocks, int(1000 * sigma)])
    for _ in range(50):
        alpha = sigma * random.standard_normal((sum(2 + b for b in range(num_blocks)), 8))
        assert decode_cell(alpha) == literal_cell(alpha)


@given(
    st.sampled_from([2, 5, 9, 14, 20]).flatmap(
        lambda rows: hnp.arrays(np.float64, (rows, 8), elements=st.floats(-600, 600))
    )
)
@settings(max_examples=100, deadline=None)
def test_cell_reads_two_inputs_a_block_and_never_takes_the_zero_op(alpha):
    for block in decode_cell(alpha):
        assert block[0][0] < block[1][0] and "none" not in (block[0][1], block[1][1])


def test_strengths_are_probabilities_and_not_logits():
    # Input 0 has the largest logit of all, but its zero op outweighs it; two others are preferred.
    alpha = np.zeros((5, 8))
    alpha[2] = [9, 0, 0, 0, 5, 0, 0, 0]
    alpha[3] = [-5, 0, 0, 0, 0, 3, 0, 0]
    alpha[4] = [-5, 0, 0, 0, 0, 0, 4, 0]
    assert decode_cell(alpha)[1] == ((1, "sep_conv_5x5"), (2, "dil_conv_3x3"))


def test_ties_in_the_cell_keep_the_smaller_inputs_and_the_first_op():
    assert decode_cell(np.zeros((9, 8))) == (((0, OPS[1]), (1, OPS[1])),) * 3


def test_inputs_tie_whose_logits_are_the_same_in_another_order():
    # Their softmax adds up the same numbers in another order, which rounds differently.
    random = np.random.default_rng(11)
    for _ in range(200):
        row = random.standard_normal(8)
        alpha = np.stack([row[0:1].tolist() + random.permutation(row[1:]).tolist() for _ in range(20)])
        assert [[source for source, _ in block] for block in decode_cell(alpha)] == [[0, 1]] * 5


def test_zero_op_is_not_taken_where_it_is_all_but_certain():
    alpha = np.zeros((5, 8))
    # e^-2000 is no number of float64; input 0 of the second block is the weakest all the same.
    alpha[:, 0], alpha[:, 5], alpha[2, 0] = 2000.0, 1e-3, 2000.5
    assert decode_cell(alpha) == (((0, OPS[5]), (1, OPS[5])), ((1, OPS[5]), (2, OPS[5])))


def test_entropies_of_equal_logits_and_of_decided_ones():
    equal = entropies(np.zeros((20, 8)), np.zeros((3, 4, 3)))
    # Nodes that paths reach: level 0 in layer 0; 0, 1 in layer 1; 0, 1, 2 in layer 2.
    assert equal.alpha == pytest.approx(math.log(8)) and equal.beta == pytest.approx(
        (3 * math.log(2) + 3 * math.log(3)) / 6
    )
    alpha, beta = np.zeros((20, 8)), np.zeros((3, 4, 3))
    alpha[:, 3], beta[:, :, 1] = 500, 500
    assert entropies(alpha, beta) == pytest.approx((0, 0, 0), abs=1e-12)


def test_entropy_of_paths_is_that_of_their_distribution():
    beta = np.random.default_rng(3).standard_normal((6, 4, 3))
    scores = log_probabilities(beta)
    expected = -float(np.sum(np.exp(scores) * scores))
    assert entropies(np.zeros((2, 8)), beta).path == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_recorded_files_are_read_as_they_stand(name):
    path = fixtures("auto_deeplab", f"decode_{name}.npz")
    alpha, beta = read_logits(path)
    np.testing.assert_array_equal(alpha, recorded(name)["alphas_logits"])
    np.testing.assert_array_equal(beta, recorded(name)["betas_logits"])


def test_logits_are_read_from_a_file_or_from_the_folder_that_holds_it(tmp_path):
    alpha, beta = np.arange(16.0).reshape(2, 8), np.arange(12.0).reshape(1, 4, 3)
    np.savez(tmp_path / "alpha_beta.npz", alpha=alpha, beta=beta, primitives=OPS, format_version=1, step=3)
    for path in (tmp_path, str(tmp_path / "alpha_beta.npz")):
        found = read_logits(path)
        np.testing.assert_array_equal(found[0], alpha)
        np.testing.assert_array_equal(found[1], beta)


def bad_value(shape, where, value):
    array = np.zeros(shape)
    array[where] = value
    return array


ALPHA, BETA = np.zeros((20, 8)), np.zeros((12, 4, 3))


@pytest.mark.parametrize(
    ("alpha", "beta", "expected"),
    [
        (np.zeros((20, 7)), BETA, "alpha: expected [edges, 8] with 2 + 3 + ... edges, one term a block"),
        (np.zeros((19, 8)), BETA, "([20, 8] for five), received [19, 8]"),
        (np.zeros((0, 8)), BETA, "received [0, 8]"),
        (np.zeros(160), BETA, "received [160]"),
        (np.float64(3), BETA, "received []"),
        (bad_value((20, 8), (3, 4), np.nan), BETA, "alpha: expected finite logits, received nan at [3, 4]"),
        (
            ALPHA,
            bad_value((12, 4, 3), (11, 0, 0), -np.inf),
            "beta: expected finite logits, received -inf at [11",
        ),
        (ALPHA, np.zeros((12, 3, 4)), "beta: expected [layers, 4, 3] with at least one layer, received [12, 3, 4]"),
        (ALPHA, np.zeros((0, 4, 3)), "received [0, 4, 3]"),
        (ALPHA, np.zeros((4, 3)), "received [4, 3]"),
        (ALPHA, BETA.astype(complex), "beta: expected real numbers, received values of type complex128"),
        (ALPHA.astype(bool), BETA, "alpha: expected real numbers, received values of type bool"),
        (ALPHA.astype(str), BETA, "alpha: expected real numbers, received values of type <U32"),
        (ALPHA, [[0.0], [0.0, 1.0]], "beta: expected an array of logits, received lists of unequal lengths"),
    ],
)
def test_what_are_no_logits_is_refused_in_one_line(tmp_path, alpha, beta, expected):
    with pytest.raises(InputError) as caught:
        decode(alpha, beta)
    assert expected in str(caught.value) and "\n" not in str(caught.value)
    if isinstance(beta, list):
        return
    np.savez(tmp_path / "alpha_beta.npz", alpha=alpha, beta=beta)
    with pytest.raises(InputError) as caught:
        read_logits(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/alpha_beta.npz: ") and expected in str(caught.value)


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"alpha": ALPHA}, "expected arrays alpha and beta, found no beta"),
        ({"betas_logits": BETA}, "expected arrays alpha and beta, found no alpha"),
        ({"alpha": ALPHA, "beta": BETA, "primitives": OPS[::-1]}, "ops of another list: expected primitives none, max"),
        ({"alpha": ALPHA, "beta": BETA, "primitives": OPS[:7]}, "ops of another list"),
        ({"alpha": ALPHA, "beta": BETA, "format_version": 2}, "expected format_version 1, received 2"),
        ({"alpha": np.array([{}], object), "beta": BETA}, "expected an .npz file with arrays alpha and beta (Object"),
    ],
)
def test_files_with_other_arrays_are_refused(tmp_path, arrays, expected):
    np.savez(tmp_path / "logits.npz", **arrays)
    with pytest.raises(InputError) as caught:
        read_logits(tmp_path / "logits.npz")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/logits.npz: ") and expected in message and "\n" not in message


def test_files_of_another_format_are_refused(tmp_path):
    np.save(tmp_path / "single.npy", ALPHA)
    (tmp_path / "text.npz").write_text("alpha")
    np.savez(tmp_path / "whole.npz", alpha=ALPHA, beta=BETA)
    whole = bytearray((tmp_path / "whole.npz").read_bytes())
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    whole[200:260] = bytes(60)
    whole[160:170] = b"\xff" * 10
    (tmp_path / "damaged.npz").write_bytes(whole)
    for name in ("single.npy", "text.npz", "cut.npz", "damaged.npz"):
        with pytest.raises(InputError, match=f"{name}: expected an .npz file with arrays alpha and beta"):
            read_logits(tmp_path / name)
    with pytest.raises(InputError, match="missing.npz: cannot be read"):
        read_logits(tmp_path / "missing.npz")
    with pytest.raises(InputError, match="alpha_beta.npz: cannot be read"):
        read_logits(tmp_path)


def test_a_small_file_that_would_fill_the_memory_is_refused_before_it_is_unpacked(tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", alpha=np.zeros((4_000_000, 8)), beta=BETA)
    assert (tmp_path / "bomb.npz").stat().st_size < 1 << 20
    with pytest.raises(InputError, match=r"bomb\.npz: expected an .npz file .*, received one of 244 MiB when unpacked"):
        read_logits(tmp_path / "bomb.npz")


def test_decoding_imports_neither_tensorflow_nor_keras():
    code = (
        "import sys; import numpy as np; from nas_seg.auto_deeplab.decode import decode; "
        "decode(np.zeros((20, 8)), np.zeros((12, 4, 3))); "
        "heavy = {'keras', 'tensorflow', 'jax', 'torch', 'optuna'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
