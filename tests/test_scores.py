"""Formulas with numbers worked by hand, and the laws of normalization and fusion."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_nli.errors import InputError
from rerank_nli.labels import Labels
from rerank_nli.scores import COMBINES, FUSIONS, KINDS, NORMALIZATIONS, check_threshold, probabilities

if TYPE_CHECKING:
    from rerank_nli.scores import FloatArray

THREE = Labels.of(["contradiction", "entailment", "neutral"])
TWO = Labels.of(["not_entailment", "entailment"])
SCORES = st.lists(st.integers(-1000, 1000).map(lambda i: i / 1000), min_size=1, max_size=30)


def _array(*values: float) -> FloatArray:
    return np.array(values, dtype=np.float64)


def test_probabilities_are_softmax_in_the_public_order() -> None:
    """Logits ln 1, ln 5, ln 2 in the checkpoint's order are 5/8, 2/8, 1/8 in the public one."""
    p = probabilities(np.log([[1.0, 5.0, 2.0]]), THREE)
    assert p == pytest.approx(_array(5 / 8, 2 / 8, 1 / 8)[None])
    assert p.dtype == np.float64


def test_temperature_divides_logits() -> None:
    """At temperature 2 the odds 1 : 9 : 4 become their roots, 1 : 3 : 2."""
    assert probabilities(np.log([[1.0, 9.0, 4.0]]), THREE, 2.0) == pytest.approx(_array(3 / 6, 2 / 6, 1 / 6)[None])


def test_two_labels_leave_columns_empty() -> None:
    """A two-label head has NaN for neutral and contradiction, and they stay out of the sum."""
    p = probabilities(np.log([[1.0, 3.0]]), TWO)
    assert p[0, 0] == pytest.approx(3 / 4)
    assert np.isnan(p[0, 1:]).all()


def test_large_logits_do_not_overflow() -> None:
    """Logits of ±10,000 give certainty, not NaN."""
    assert probabilities(np.array([[-1e4, 1e4, 0.0]], dtype=np.float32), THREE).tolist() == [[1.0, 0.0, 0.0]]


def test_no_rows() -> None:
    """No logits are no probabilities, with the three columns."""
    assert probabilities(np.empty((0, 3)), THREE).shape == (0, 3)


def test_probabilities_leave_their_input_alone() -> None:
    """The logits that were passed in are unchanged."""
    logits = _array(1, 2, 3)[None]
    probabilities(logits, THREE, 0.5)
    assert logits.tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("entailment", 0.6),
        ("entailment_vs_contradiction", 0.6 / (0.6 + 0.1)),
        ("margin", 0.6 - 0.1),
        ("logit", math.log(0.6 / 0.4)),
    ],
)
def test_formulas(kind: str, expected: float) -> None:
    """Each score kind is its formula over the last axis, for one row and for many."""
    p = _array(0.6, 0.3, 0.1)
    assert KINDS[kind].formula(p) == pytest.approx(expected)
    assert KINDS[kind].formula(np.stack([p, p])) == pytest.approx([expected, expected])


@pytest.mark.parametrize(
    ("kind", "floor"),
    [
        ("entailment", 0.0),
        ("entailment_vs_contradiction", 0.0),
        ("margin", -1.0),
        ("logit", math.log(1e-12 / (1 - 1e-12))),
    ],
)
def test_floors(kind: str, floor: float) -> None:
    """The floor is the least score that any passage can get, and finite."""
    assert KINDS[kind].floor == pytest.approx(floor)
    grid = [(a, b, 10 - a - b) for a in range(11) for b in range(11 - a)]
    scores = KINDS[kind].formula(np.array(grid) / 10)
    assert np.isfinite(scores).all()
    assert scores.min() == pytest.approx(floor)


def test_undecided_passages_score_zero_against_contradiction() -> None:
    """P(e) / (P(e) + P(c)) is 0, not NaN, where both are 0."""
    assert KINDS["entailment_vs_contradiction"].formula(_array(0, 1, 0)) == 0.0


def test_certainty_has_a_finite_logit() -> None:
    """P(e) = 1 and P(e) = 0 have logits of the same finite size."""
    high, low = KINDS["logit"].formula(np.array([[1.0, 0, 0], [0.0, 1, 0]]))
    assert high == pytest.approx(-low, abs=1e-3)
    assert math.isfinite(high)


def test_kinds_know_their_range() -> None:
    """Two kinds are probabilities, two need contradiction."""
    assert [k for k, kind in KINDS.items() if kind.is_probability] == ["entailment", "entailment_vs_contradiction"]
    assert [k for k, kind in KINDS.items() if kind.ternary] == ["entailment_vs_contradiction", "margin"]


@pytest.mark.parametrize(
    ("threshold", "kind"),
    [(0, "entailment"), (1, "entailment"), (0.0, "margin"), (-1, "margin"), (-30.5, "logit"), (1e6, "logit"),
     (np.float32(0.5), "entailment"), (np.int64(1), "entailment_vs_contradiction")],
)  # fmt: skip
def test_thresholds_in_range(threshold: Any, kind: str) -> None:
    """Any number in the kind's range, ends included, is a threshold, and comes back as a float."""
    checked = check_threshold(threshold, kind)
    assert checked == threshold
    assert type(checked) is float


@pytest.mark.parametrize(
    ("threshold", "kind", "allowed"),
    [
        (1.01, "entailment", "a number in 0..1"),
        (-0.01, "entailment", "a number in 0..1"),
        (-0.5, "entailment_vs_contradiction", "a number in 0..1"),
        (50, "entailment", "a number in 0..1"),
        (-1.5, "margin", "a number in -1..1"),
        (math.inf, "logit", "any finite number"),
        (-math.inf, "logit", "any finite number"),
        (math.nan, "logit", "any finite number"),
        (math.nan, "entailment", "a number in 0..1"),
        (True, "entailment", "a number in 0..1"),
        (np.True_, "entailment", "a number in 0..1"),
        ("0.5", "entailment", "a number in 0..1"),
        (None, "entailment", "a number in 0..1"),
        ([0.5], "margin", "a number in -1..1"),
    ],
)
def test_thresholds_out_of_range(threshold: Any, kind: str, allowed: str) -> None:
    """What cannot be compared with the score is an error that shows it, the kind and what is allowed."""
    with pytest.raises(InputError) as caught:
        check_threshold(threshold, kind)
    assert str(caught.value) == f"threshold {threshold!r} cannot be compared with score={kind!r}: expected {allowed}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("min", 0.2), ("mean", (0.2 + 0.6) / 2), ("harmonic", 2 * 0.2 * 0.6 / (0.2 + 0.6)), ("max", 0.6)],
)
def test_combines(name: str, expected: float) -> None:
    """Two directions make one score by the named formula, in either order."""
    assert COMBINES[name](_array(0.2), _array(0.6)) == pytest.approx(expected)
    assert COMBINES[name](_array(0.6), _array(0.2)) == pytest.approx(expected)


def test_harmonic_of_zeros() -> None:
    """The harmonic mean of two zeros is 0, not NaN."""
    assert COMBINES["harmonic"](_array(0), _array(0)).tolist() == [0.0]


@pytest.mark.parametrize(
    ("name", "scores", "expected"),
    [
        ("softmax", np.log([1.0, 2.0, 5.0]), [1 / 8, 2 / 8, 5 / 8]),
        ("minmax", [-1.0, 0.0, 3.0], [0 / 4, 1 / 4, 4 / 4]),
        ("zscore", [1.0, 3.0, 5.0], [-2 / math.sqrt(8 / 3), 0, 2 / math.sqrt(8 / 3)]),
        ("rank", [0.5, 0.9, 0.1], [2 / 3, 3 / 3, 1 / 3]),
        ("rank", [0.5, 0.9, 0.5, 0.1], [(2 + 3) / 2 / 4, 4 / 4, (2 + 3) / 2 / 4, 1 / 4]),
        ("sum", [0.1, 0.3], [0.1 / 0.4, 0.3 / 0.4]),
        ("sum", [-2.0, 0.0, 4.0], [0 / 8, 2 / 8, 6 / 8]),
    ],
)
def test_normalizations(name: str, scores: list[float], expected: list[float]) -> None:
    """Each normalization is its formula."""
    assert NORMALIZATIONS[name](np.array(scores)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "lone", "tied"),
    [
        ("softmax", [1.0], [0.5, 0.5]),
        ("minmax", [0.8], [0.8, 0.8]),
        ("zscore", [0.0], [0.0, 0.0]),
        ("rank", [1.0], [0.75, 0.75]),
        ("sum", [1.0], [0.5, 0.5]),
    ],
)
def test_lone_and_tied_scores(name: str, lone: list[float], tied: list[float]) -> None:
    """A lone score and tied ones get equal and finite values, under min-max the scores themselves."""
    assert NORMALIZATIONS[name](_array(0.8)) == pytest.approx(lone)
    assert NORMALIZATIONS[name](_array(0.8, 0.8)) == pytest.approx(tied)


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_no_scores(name: str) -> None:
    """No scores are no values."""
    assert NORMALIZATIONS[name](_array()).tolist() == []


def test_shares_of_zeros() -> None:
    """Where all scores are 0 each gets an equal share."""
    assert NORMALIZATIONS["sum"](_array(0, 0, 0, 0)).tolist() == [1 / 4] * 4


@given(values=SCORES)
def test_ranges(values: list[float]) -> None:
    """Shares sum to 1, min-max and rank lie in 0..1 where scores differ, z-scores have mean 0."""
    scores = _array(*values)
    assert NORMALIZATIONS["softmax"](scores).sum() == pytest.approx(1)
    assert NORMALIZATIONS["sum"](scores).sum() == pytest.approx(1)
    assert NORMALIZATIONS["zscore"](scores).mean() == pytest.approx(0, abs=1e-9)
    assert NORMALIZATIONS["rank"](scores).max() <= 1
    assert NORMALIZATIONS["rank"](scores).mean() == pytest.approx((len(values) + 1) / 2 / len(values))
    if len(set(values)) > 1:
        stretched = NORMALIZATIONS["minmax"](scores)
        assert (stretched.min(), stretched.max()) == (0, 1)


def test_linear_fusion() -> None:
    """Linear fusion is alpha times stretched scores plus the rest times stretched retrieval scores."""
    fused = FUSIONS["linear"](_array(0.2, 0.4, 1.0), _array(30, 10, 20), 0.75)
    assert fused == pytest.approx([0.75 * 0 + 0.25 * 1, 0.75 * 0.25 + 0.25 * 0, 0.75 * 1 + 0.25 * 0.5])


def test_reciprocal_rank_fusion() -> None:
    """Reciprocal rank fusion adds 1 / (60 + rank), weighted, and ties share the better rank."""
    fused = FUSIONS["rrf"](_array(0.9, 0.5, 0.5, 0.1), _array(1, 4, 2, 3), 0.75)
    expected = [0.75 / 61 + 0.25 / 64, 0.75 / 62 + 0.25 / 61, 0.75 / 62 + 0.25 / 63, 0.75 / 64 + 0.25 / 62]
    assert fused == pytest.approx(expected)


@pytest.mark.parametrize("name", FUSIONS)
@given(values=SCORES)
def test_alpha_one_ignores_retrieval(name: str, values: list[float]) -> None:
    """With alpha 1 the fused order is that of the scores, with alpha 0 that of retrieval."""
    scores = _array(*values)
    retrieval = np.arange(len(values), dtype=np.float64)
    by_score = FUSIONS[name](scores, retrieval, 1.0)
    assert (np.diff(by_score[np.argsort(scores, kind="stable")]) >= 0).all()
    by_retrieval = FUSIONS[name](scores, retrieval, 0.0)
    assert (np.diff(by_retrieval) > 0).all()
