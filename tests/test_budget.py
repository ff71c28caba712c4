"""Which passages are scored within a depth or a time, and that the others are named and given nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from texts import stated

from rerank_nli import FunctionEngine, InputError, NLIReranker

if TYPE_CHECKING:
    from collections.abc import Sequence

CLAIM = "The ferry sails at noon."
PASSAGES = [
    f"e={chance:.2f},c=0.0 is what passage {i} says." for i, chance in enumerate([0.2, 0.9, 0.4, 0.8, 0.6, 0.1])
]
SCORES = [0.3, 0.1, 0.8, 0.5, 0.8, 0.2]
TURNS = [2, 4, 3, 0, 5, 1]  # by retrieval score, ties as they came in


def laborious(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
    """What the passages state, after work that a clock can see."""
    for _ in pairs:
        np.linalg.inv(np.eye(600))
    return stated(pairs)


@pytest.fixture(scope="module")
def reranker() -> NLIReranker:
    """One whose scores are stated in the passages."""
    return NLIReranker(FunctionEngine(stated))


@pytest.mark.parametrize("depth", range(1, 8))
@pytest.mark.parametrize("scores", [None, SCORES])
def test_depth(reranker: NLIReranker, depth: int, scores: list[float] | None) -> None:
    """As many as `depth` are scored, the first of the retriever's order; the rest are named, in the list's order."""
    turns = list(range(6)) if scores is None else TURNS
    ranking = reranker.rank(CLAIM, PASSAGES, retrieval_scores=scores, depth=depth)
    assert {p.index for p in ranking} == set(turns[:depth])
    assert list(ranking.unscored) == sorted(turns[depth:])
    whole = {p.index: p for p in reranker.rank(CLAIM, PASSAGES, retrieval_scores=scores)}
    assert list(ranking) == [whole[p.index] for p in ranking]
    assert [p.score for p in ranking] == sorted((p.score for p in ranking), reverse=True)
    assert ranking.to_dict()["unscored"] == sorted(turns[depth:])


def test_fusion_is_among_the_scored(reranker: NLIReranker) -> None:
    """With a depth, fusion and normalization see the passages that are scored, and no others."""
    chosen = TURNS[:3]
    ranking = reranker.rank(CLAIM, PASSAGES, retrieval_scores=SCORES, fuse="linear", depth=3)
    alone = reranker.rank(
        CLAIM, [PASSAGES[i] for i in chosen], retrieval_scores=[SCORES[i] for i in chosen], fuse="linear"
    )
    assert [(p.index, p.relative) for p in ranking] == [(chosen[p.index], p.relative) for p in alone]


def test_a_short_time_scores_one(reranker: NLIReranker) -> None:
    """In a time too short for anything the first passage is scored, and only that."""
    ranking = reranker.rank(CLAIM, PASSAGES, retrieval_scores=SCORES, budget_ms=1e-6)
    assert [p.index for p in ranking] == [2]
    assert ranking.unscored == (0, 1, 3, 4, 5)


def test_a_long_time_scores_all(reranker: NLIReranker) -> None:
    """In a time that is long enough all are scored, as without one, however much longer one is than the one before."""
    passages = [*PASSAGES, PASSAGES[0] + " It says no more than that." * 200]
    ranking = reranker.rank(CLAIM, passages, budget_ms=1e6)
    assert ranking == reranker.rank(CLAIM, passages)
    assert ranking.unscored == ()


def test_time_in_between() -> None:
    """What is scored within a time is the first of the retriever's order, and scores as it does without one."""
    passages = [f"e={i / 1000:.3f},c=0.0 is what passage {i} says." for i in range(999)]
    reranker = NLIReranker(FunctionEngine(laborious), cache_size=0)
    ranking = reranker.rank(CLAIM, passages, budget_ms=500)
    count = len(ranking)
    assert 1 < count < 999
    assert list(ranking.unscored) == list(range(count, 999))
    assert {p.index: p.score for p in ranking} == {i: pytest.approx(i / 1000, abs=1e-6) for i in range(count)}


def test_depth_and_time_together(reranker: NLIReranker) -> None:
    """Of depth and time, the narrower holds."""
    assert len(reranker.rank(CLAIM, PASSAGES, depth=2, budget_ms=1e6)) == 2
    assert len(reranker.rank(CLAIM, PASSAGES, depth=4, budget_ms=1e-6)) == 1


@pytest.mark.parametrize("limits", [{"depth": 3}, {"budget_ms": 5}])
def test_nothing_to_score(reranker: NLIReranker, limits: dict[str, Any]) -> None:
    """No passages make an empty ranking, and a blank query is refused, with limits as without."""
    assert len(reranker.rank(CLAIM, [], **limits)) == 0
    with pytest.raises(InputError, match="query 0 is blank"):
        reranker.rank(" ", [], **limits)


@pytest.mark.parametrize("budget", [0, -1, float("nan"), float("inf"), True, "10"])
def test_a_budget_is_a_time(reranker: NLIReranker, budget: Any) -> None:
    """A budget that is no number of milliseconds above 0 is an error that shows it."""
    with pytest.raises(InputError, match=r"budget_ms=.*: expected milliseconds, a number above 0"):
        reranker.rank(CLAIM, PASSAGES, budget_ms=budget)


@pytest.mark.parametrize("depth", [0, -1, 1.5, True, "3"])
def test_a_depth_is_a_count(reranker: NLIReranker, depth: Any) -> None:
    """A depth that is no count is an error that shows it."""
    with pytest.raises(InputError, match=f"depth={depth!r}: expected a whole number from 1"):
        reranker.rank(CLAIM, PASSAGES, depth=depth)
