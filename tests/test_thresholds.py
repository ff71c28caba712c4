"""Thresholds by aim: each is where a search over all of them would put it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from texts import stated, stating

from rerank_nli import CalibrationError, FunctionEngine, InputError, InputTypeError, NLIReranker
from rerank_nli.pairs import read_pairs
from rerank_nli.thresholds import best_threshold

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("sklearn")

SCORES = [0.9, 0.8, 0.6, 0.5, 0.3]
TRUTH = [True, True, False, True, False]
ROWS = [
    {"query": "The gate is shut.", "passages": ["e=0.9,c=0.0", "e=0.6,c=0.3"], "labels": [1, 0]},
    {"query": "The gate is red.", "passages": ["e=0.8,c=0.1", "e=0.5,c=0.2", "e=0.3,c=0.1"], "labels": [1, 1, 0]},
    {"query": "The gate is new.", "passages": ["e=0.1,c=0.8"], "labels": [0]},
]


@pytest.mark.parametrize(
    ("aim", "threshold"),
    [
        ("f1", (0.5 + 0.3) / 2),  # 2 · 3 / (2 · 3 + 1) = 0.857, above 2 · 2 / (2 · 2 + 1) = 0.8 between 0.8 and 0.6
        ("youden", (0.8 + 0.6) / 2),  # 2 / 3 - 0 / 2, above 3 / 3 - 1 / 2 between 0.5 and 0.3
        (("precision", 1), (0.8 + 0.6) / 2),
        (("precision", 0.75), (0.5 + 0.3) / 2),  # 3 / 4, while 2 / 3 between 0.6 and 0.5 is too low
        (("precision", 0.6), 0.3),  # 3 / 5: all pass
        (("recall", 1), (0.5 + 0.3) / 2),
        (("recall", 2 / 3), (0.8 + 0.6) / 2),
        (("recall", 0.1), (0.9 + 0.8) / 2),
    ],
)
def test_where_the_threshold_lies(aim: Any, threshold: float) -> None:
    """The threshold is the one that the aim names, midway between the scores that it parts, in any order of them."""
    assert best_threshold(SCORES, TRUTH, aim) == pytest.approx(threshold)
    assert best_threshold(SCORES[::-1], TRUTH[::-1], aim) == pytest.approx(threshold)


def _rates(scores: Any, truth: Any, threshold: float) -> tuple[float, float]:
    kept = [true for score, true in zip(scores, truth, strict=True) if score >= threshold]
    return sum(kept) / len(kept), sum(kept) / sum(truth)


@given(
    st.lists(st.tuples(st.floats(-30, 30), st.booleans()), min_size=2).filter(lambda r: len({t for _, t in r}) == 2),
    st.integers(1, 20).map(lambda n: n / 20),
)
def test_shares_are_reached_and_no_other_threshold_would_do(rows: list[tuple[float, bool]], share: float) -> None:
    """The sample has the recall, and at any score above the threshold less; or the precision, and below it less."""
    scores, truth = zip(*rows, strict=True)
    highest = best_threshold(scores, truth, ("recall", share))
    assert _rates(scores, truth, highest)[1] >= share
    assert all(_rates(scores, truth, s)[1] < share for s in scores if s > min(x for x in scores if x >= highest))
    if max(_rates(scores, truth, s)[0] for s in scores) < share:
        with pytest.raises(CalibrationError, match="no threshold gives the truth a precision of"):
            best_threshold(scores, truth, ("precision", share))
    else:
        lowest = best_threshold(scores, truth, ("precision", share))
        assert _rates(scores, truth, lowest)[0] >= share
        assert all(_rates(scores, truth, s)[0] < share for s in scores if s < lowest)


def test_neighbouring_numbers_are_parted() -> None:
    """Between two scores with no number between them the threshold is the upper one."""
    upper = np.nextafter(0.5, 1)
    assert best_threshold([upper, 0.5], [True, False], "f1") == upper


@pytest.mark.parametrize(
    ("scores", "truth", "message"),
    [
        ([0.5, 0.6], [True, True], "the truth holds for 2 of its 2 scores"),
        ([0.5, 0.6], [False, False], "the truth holds for 0 of its 2 scores"),
        ([], [], "holds for 0 of its 0 scores"),
        ([0.5], [True, False], r"got \(1,\) scores and \(2,\) of truth"),
        ([0.5, math.nan], [True, False], "needs finite scores"),
        ([[0.5, 0.6]], [[True, False]], r"got \(1, 2\)"),
    ],
)
def test_samples_without_a_threshold(scores: Any, truth: Any, message: str) -> None:
    """One class, no scores, other numbers of scores than truths and scores that are no numbers are errors."""
    with pytest.raises(CalibrationError, match=message):
        best_threshold(scores, truth, "f1")


@pytest.mark.parametrize(
    "aim", ["accuracy", "precision", ("f1", 0.9), ("recall", 0), ("recall", 1.1), ("recall", True), ("recall",), None]
)
def test_unknown_aims(aim: Any) -> None:
    """What is no aim is an error that lists those there are, before anything is scored."""
    with pytest.raises(InputError, match=r"unknown aim .*'f1', 'youden', or \('precision', 0\.9\)"):
        NLIReranker(stating()).tune_threshold([], aim)


# A reranker's threshold


@pytest.mark.parametrize("score", ["entailment", "logit"])
def test_a_reranker_tunes_on_all_passages(score: str) -> None:
    """The threshold parts the passages of all queries together, lies in the range of the kind, and filters so."""
    reranker = NLIReranker(stating(), score=score)
    threshold = reranker.tune_threshold(ROWS, ("precision", 1))
    between = [reranker.rank("x", [text])[0].score for text in ("e=0.8,c=0.1", "e=0.6,c=0.3")]
    assert threshold == pytest.approx(sum(between) / 2)
    filtered = reranker.filter("x", ["e=0.9,c=0.0", "e=0.6,c=0.3"], threshold)
    assert [p.index for p in filtered.kept] == [0]


def test_pairs_of_a_file(tmp_path: Path) -> None:
    """Pairs that `read_pairs` reads give the threshold of the rows that they stand in."""
    import json

    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    reranker = NLIReranker(stating())
    for aim in ("f1", "youden"):
        assert reranker.tune_threshold(read_pairs(path), aim) == reranker.tune_threshold(ROWS, aim)


def test_rows_are_left_alone() -> None:
    """Rows are unchanged, and an iterator of them is read once."""
    before = [{name: list(value) if name != "query" else value for name, value in row.items()} for row in ROWS]
    reranker = NLIReranker(FunctionEngine(stated))
    assert reranker.tune_threshold(iter(ROWS)) == reranker.tune_threshold(ROWS)
    assert before == ROWS


ONE = {"query": "x", "passages": ["e=0.9,c=0"], "labels": [1]}


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ([], InputError, "data holds nothing"),
        ([{"query": "x", "passages": [], "labels": []}], InputError, "no passages in them"),
        ({"query": "x"}, InputTypeError, "data must be a list"),
        ("rows.jsonl", InputTypeError, "data must be a list"),
        ([ONE, 3], InputError, 'data row 1: expected {"query", "passages", "labels"} or a Pair, got 3'),
        ([ONE, {"query": "x"}], InputError, "data row 1: passages must be a list"),
        ([{**ONE, "query": " "}], InputError, "data row 0: query is ' ': expected a text"),
        ([{**ONE, "passages": [None]}], InputError, "data row 0: passage 0 must be a text"),
        ([{**ONE, "labels": [1, 0]}], InputError, "data row 0: 1 passages, but 2 labels"),
        ([{**ONE, "labels": ["yes"]}], InputError, "data row 0: labels of passages are 1 .* or 0, got 'yes'"),
        ([ONE, {**ONE, "query": "y"}], CalibrationError, "all 2 passages of the data score 0.9: nothing parts them"),
        (
            [{**ONE, "passages": ["e=0.9,c=0", "e=0.8,c=0"], "labels": [1, 1]}],
            CalibrationError,
            "entailment holds for 2 of its 2 scores",
        ),
    ],
)
def test_data_that_gives_no_threshold(data: Any, error: type[Exception], message: str) -> None:
    """Rows of another form, blank ones, one class and scores that are all the same are each one clear error."""
    with pytest.raises(error, match=message):
        NLIReranker(stating()).tune_threshold(data)


def test_pairs_without_a_label(tmp_path: Path) -> None:
    """A pair of which a teacher's probability is known is no truth."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"premise": "e=0.5,c=0", "hypothesis": "x", "entailment": 0.7}\n', encoding="utf-8")
    with pytest.raises(InputError, match="data row 0: it has no label"):
        NLIReranker(stating()).tune_threshold(read_pairs(path))
