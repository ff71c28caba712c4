"""cover: which few passages together support most claims."""

from __future__ import annotations

import asyncio
import json
import math
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from texts import binary, stated

from rerank_nli import FunctionEngine, InputError, InputTypeError, NLIReranker, QueryTooLongError
from rerank_nli.coverage import choose

if TYPE_CHECKING:
    from collections.abc import Sequence

CLAIMS = ["Ann came.", "Bo left.", "Cy slept.", "Di sang."]
PASSAGES = ["Ann and Bo: e=0.9,c=0.05", " ", "Bo and Cy: e=0.8,c=0.1", ("c", "Cy: e=0.7,c=0.1"), "Di: e=0.4,c=0.1"]
GREEDY = 1 - 1 / math.e

# Eighths add up exactly, in any order.
matrices = st.tuples(st.integers(1, 5), st.integers(0, 6)).flatmap(
    lambda shape: st.lists(
        st.lists(st.integers(0, 8).map(lambda n: n / 8), min_size=shape[1], max_size=shape[1]),
        min_size=shape[0],
        max_size=shape[0],
    )
)
sizes, thresholds = st.integers(1, 4), st.integers(0, 8).map(lambda n: n / 8)


def covered(rows: list[list[float]], columns: Sequence[int], threshold: float) -> int:
    """How many rows have a value that passes in one of these columns."""
    return sum(any(row[i] >= threshold for i in columns) for row in rows)


def total(rows: list[list[float]], columns: Sequence[int]) -> float:
    """The sum of each row's highest value in these columns."""
    return sum(max((row[i] for i in columns), default=0.0) for row in rows)


@given(matrices, sizes, thresholds)
def test_greedy_keeps_its_promise(rows: list[list[float]], k: int, threshold: float) -> None:
    """At least 1 - 1/e of what the best of all subsets covers is covered, and of the bound, which no subset exceeds."""
    found = choose(np.array(rows), k, threshold)
    count = len(rows[0])
    best = max(covered(rows, subset, threshold) for subset in combinations(range(count), min(k, count)))
    reached = covered(rows, found.columns, threshold)
    assert len(found.columns) == len(set(found.columns)) <= k
    assert GREEDY * best <= reached <= best <= found.bound
    assert reached >= GREEDY * found.bound


@given(matrices, sizes, thresholds)
def test_each_step_is_the_documented_one(rows: list[list[float]], k: int, threshold: float) -> None:
    """Each column chosen covers most, of those lifts most, and of those comes first; where none does it stops."""
    found = choose(np.array(rows), k, threshold)

    def worth(columns: list[int]) -> tuple[int, float]:
        return covered(rows, columns, threshold), total(rows, columns)

    for step, column in enumerate(found.columns):
        before = found.columns[:step]
        worths = [worth([*before, i]) for i in range(len(rows[0]))]
        assert column == worths.index(max(worths))
        assert worths[column] > worth(before)
        assert len(found.adds[step]) == worths[column][0] - worth(before)[0]
    if len(found.columns) < k:
        assert all(worth([*found.columns, i]) == worth(found.columns) for i in range(len(rows[0])))


@pytest.mark.parametrize(
    ("rows", "columns", "adds"),
    [
        ([[0.6, 0.6, 0.6], [0.0, 0.0, 0.1]], [2], [[0]]),  # a tie of one row each: the larger sum
        ([[0.6, 0.6], [0.2, 0.2]], [0], [[0]]),  # a tie in both: the first
        ([[0.9, 0.6], [0.0, 0.6]], [1, 0], [[0, 1], []]),  # two rows before a larger sum; then what lifts
        ([[0.3, 0.4]], [1], [[]]),  # nothing passes: what lifts most
        ([[0.0, 0.0]], [], []),
    ],
)
def test_ties(rows: list[list[float]], columns: list[int], adds: list[list[int]]) -> None:
    """Of columns that cover as many rows the larger sum is taken, then the first; one that lifts nothing never is."""
    assert choose(np.array(rows), 5, 0.5)[:2] == (columns, adds)


def test_the_bound_tells_greedy_from_the_best() -> None:
    """Where greedy misses the best choice, the bound shows that there may be a better one."""
    rows = np.zeros((6, 3))
    rows[[0, 1, 2, 3], 0] = rows[[0, 1, 4], 1] = rows[[2, 3, 5], 2] = 0.9  # the last two cover all six
    assert covered(rows.tolist(), choose(rows, 2, 0.5).columns, 0.5) == 5
    assert choose(rows, 2, 0.5).bound >= 6
    assert choose(rows, 3, 0.5).bound == 6


def names_and_states(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
    """What the premise states, of a hypothesis whose first word it holds; else neutral."""
    return stated([(p if h.split()[0] in p else "", h) for p, h in pairs])


def test_cover_names_passages_and_claims() -> None:
    """The passages come in the order of choice with the claims they add, and each claim with the one that is best."""
    cover = NLIReranker(FunctionEngine(names_and_states)).cover(iter(CLAIMS), iter(PASSAGES), 2)
    assert [(p.index, p.adds) for p in cover] == [(0, (0, 1)), (2, (2,))]
    assert cover.best == (0, 0, 2, None)
    assert (cover.claims, cover.covered, cover.bound, cover.threshold) == (tuple(CLAIMS), 3 / 4, 3 / 4, 0.5)
    assert json.loads(json.dumps(cover.to_dict())) == cover.to_dict()


def test_cover_goes_on_while_a_claim_is_lifted() -> None:
    """What is left of k goes to passages that raise P(entailment), and a blank one is never chosen."""
    cover = NLIReranker(FunctionEngine(names_and_states)).cover(CLAIMS, [*PASSAGES, "Cy: e=0.9,c=0.05"], 9)
    assert [(p.index, p.adds) for p in cover] == [(0, (0, 1)), (5, (2,)), (4, ())]
    assert cover.best == (0, 0, 5, None)


def test_cover_keeps_the_callers_objects() -> None:
    """A chosen passage has the caller's own object, its text and its id."""
    passage = {"id": 7, "text": "Ann: e=0.9,c=0.05", "page": 3}
    chosen = NLIReranker(FunctionEngine(names_and_states)).cover(CLAIMS, ["Ann: e=0.6,c=0.1", passage], 1)[0]
    assert chosen.passage is passage
    assert (chosen.index, chosen.text, chosen.id) == (1, passage["text"], 7)


def test_the_threshold_of_a_cover() -> None:
    """A passage whose P(entailment) is the threshold supports, one below it does not."""
    reranker = NLIReranker(FunctionEngine(names_and_states))
    least = reranker.check(CLAIMS[3], PASSAGES).support[0][4]
    assert reranker.cover(CLAIMS, PASSAGES, 5, least).covered == 1.0
    assert reranker.cover(CLAIMS, PASSAGES, 5, least + 1e-9).covered == 3 / 4


def test_cover_reads_probabilities_whatever_the_settings() -> None:
    """A cover is that of P(entailment), passage → claim, under any direction and score kind."""
    engine = FunctionEngine(names_and_states)
    other = NLIReranker(engine, direction="query_entails_passage", score="margin", pool="mean")
    assert other.cover(CLAIMS, PASSAGES, 3) == NLIReranker(engine).cover(CLAIMS, PASSAGES, 3)


def test_two_labels_cover() -> None:
    """Covering needs no contradiction: a two-label checkpoint does it."""
    cover = NLIReranker(binary()).cover(["Ann came."], ["e=0.3,c=0", "e=0.8,c=0"], 1)
    assert ([p.index for p in cover], cover.covered) == ([1], 1.0)


@pytest.mark.parametrize("passages", [[], ["", " "]])
def test_nothing_covers_nothing(passages: list[str]) -> None:
    """Without a passage that says something the cover is empty, and nothing more could be covered."""
    cover = NLIReranker(FunctionEngine(names_and_states)).cover(CLAIMS, passages, 3)
    assert (len(cover), cover.covered, cover.bound, cover.best) == (0, 0.0, 0.0, (None,) * 4)


@pytest.mark.parametrize(
    ("claims", "passages", "k", "error", "message"),
    [
        ([], ["x"], 1, InputError, "no claims: there is nothing to cover"),
        (["Ann came.", " "], ["x"], 1, InputError, "claim 1 must be a text that is not blank, got ' '"),
        (["Ann came.", None], ["x"], 1, InputTypeError, "claim 1 must be a text that is not blank, got None"),
        ("Ann came.", ["x"], 1, InputTypeError, "claims must be a list of them, got 'Ann came.'"),
        (CLAIMS, "x", 1, InputTypeError, "passages must be a list of them, got 'x'"),
        (CLAIMS, ["x", None], 1, InputTypeError, "passage 1 must be a text"),
        (CLAIMS, ["x"], 0, InputError, "k=0: expected a whole number from 1"),
        (CLAIMS, ["x"], 1.5, InputError, r"k=1\.5: expected a whole number from 1"),
        (CLAIMS, ["x"], None, InputError, "k=None: expected a whole number from 1"),
        (["Ann " * 500], ["x"], 1, QueryTooLongError, "leaves"),
    ],
)
def test_bad_covers(claims: object, passages: object, k: object, error: type[Exception], message: str) -> None:
    """What cannot be covered is one error that says what was wrong and where."""
    with pytest.raises(error, match=message):
        NLIReranker(FunctionEngine(names_and_states)).cover(claims, passages, k)  # type: ignore[arg-type]


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan"), None])
def test_threshold_of_a_cover_is_a_probability(threshold: object) -> None:
    """A threshold outside 0..1 is an error."""
    with pytest.raises(InputError, match="threshold"):
        NLIReranker(FunctionEngine(names_and_states)).cover(CLAIMS, ["x"], 1, threshold)  # type: ignore[arg-type]


def test_cover_has_an_async_form() -> None:
    """Awaiting acover gives what cover gives."""
    reranker = NLIReranker(FunctionEngine(names_and_states))
    assert asyncio.run(reranker.acover(CLAIMS, PASSAGES, k=2)) == reranker.cover(CLAIMS, PASSAGES, k=2)


def test_cover_on_the_bundled_model(bundled: NLIReranker) -> None:
    """The bundled model covers two claims by the two passages that restate them."""
    passages = ["Bread rises when it is warm.", "Every day at noon the ferry sails.", "Grey stone was used for it."]
    cover = bundled.cover(["The ferry sails at noon.", "Warm bread rises."], passages, 3)
    assert (cover.best, cover.covered) == ((1, 0), 1.0)
