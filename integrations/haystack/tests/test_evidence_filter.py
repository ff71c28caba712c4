"""EvidenceFilter by itself."""

from __future__ import annotations

import asyncio
import copy
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from graded import CLAIM, documents, graded, logits, places
from haystack import Document
from haystack_integrations.components.rankers.rerank_nli import EvidenceFilter
from shared_cases import CASES, Case

from rerank_nli import FunctionEngine, InputError, InputTypeError, NLIReranker

if TYPE_CHECKING:
    from collections.abc import Sequence

FILTERED = [case for case in CASES if "normalize" not in case.settings]


@pytest.mark.integration
@pytest.mark.parametrize("case", FILTERED, ids=[case.name for case in FILTERED])
def test_divides_as_nlireranker(case: Case, bundled: NLIReranker) -> None:
    """Settings given to the component keep what NLIReranker keeps with them; retrieval scores change nothing in it."""
    made_of = case.settings or {"reranker": bundled}  # the defaults need no second model
    chosen = EvidenceFilter(**made_of, top_k=case.top_n, threshold=case.threshold, keep=case.keep)
    scores = case.retrieval_scores or [None] * len(case.texts)
    given = [
        Document(content=text, score=score, meta={"place": i})
        for i, (text, score) in enumerate(zip(case.texts, scores, strict=True))
    ]
    found = chosen.run(case.query, given)
    kept = sorted(place for place, _ in case.expected(NLIReranker(bundled.engine, **case.settings)))
    assert places(found["documents"]) == kept
    assert places(found["dropped"]) == [place for place in range(len(given)) if place not in kept]


def test_order_and_scores_stay() -> None:
    """Kept and dropped documents stay in the order they came in, with the scores they came with."""
    given = documents(0.6, 0.1, 0.9, 0.3, scores=[2.0, None, 1.0, 5.0])
    found = EvidenceFilter(reranker=graded()).run(CLAIM, given)
    assert places(found["documents"]) == [0, 2]
    assert [document.score for document in found["documents"]] == [2.0, 1.0]
    assert places(found["dropped"]) == [1, 3]
    assert [document.score for document in found["dropped"]] == [None, 5.0]


def test_meta_says_why_on_both_sides() -> None:
    """Kept and dropped documents carry their probabilities and the span that decided, and are JSON."""
    found = EvidenceFilter(reranker=graded()).run(CLAIM, documents((0.6, 0.1), (0.1, 0.7)))
    for side, expected in (("documents", [0.6, 0.3, 0.1]), ("dropped", [0.1, 0.2, 0.7])):
        row = found[side][0].to_dict()
        numbers = [row[f"nli_{name}"] for name in ("entailment", "neutral", "contradiction")]
        assert numbers == pytest.approx(expected, abs=1e-6)
        assert row["nli_span"] == [0, len(row["content"])]
        assert json.loads(json.dumps(row)) == row


def test_the_input_stays_as_it_was() -> None:
    """Documents and their meta are not changed, and ids survive."""
    given = documents(0.6, 0.1, scores=[2.0, 1.0])
    before = copy.deepcopy(given)
    found = EvidenceFilter(reranker=graded()).run(CLAIM, given)
    assert given == before
    assert [document.id for document in (*found["documents"], *found["dropped"])] == ["d0", "d1"]


@pytest.mark.parametrize(("keep", "expected"), [("entailment", [0]), ("contradiction", [1]), ("evidence", [0, 1])])
def test_keep(keep: str, expected: list[int]) -> None:
    """The threshold is held against entailment, contradiction, or the larger of the two."""
    given = documents((0.8, 0.1), (0.1, 0.8), (0.2, 0.2))
    assert places(EvidenceFilter(keep=keep, reranker=graded()).run(CLAIM, given)["documents"]) == expected


def test_no_threshold_keeps_all() -> None:
    """`threshold=None` keeps every document."""
    given = documents(0.01, 0.5, 0.9)
    assert EvidenceFilter(threshold=None, reranker=graded()).run(CLAIM, given)["dropped"] == []


@pytest.mark.parametrize(("of_init", "of_run", "kept"), [(1, None, [2]), (1, 2, [0, 2]), (None, 9, [0, 2, 3])])
def test_top_k_keeps_the_best(of_init: int | None, of_run: int | None, kept: list[int]) -> None:
    """`top_k` keeps the best of those that pass, in the order they came in, and drops the others."""
    found = EvidenceFilter(top_k=of_init, reranker=graded()).run(CLAIM, documents(0.7, 0.1, 0.9, 0.6), of_run)
    assert places(found["documents"]) == kept
    assert places(found["dropped"]) == [place for place in range(4) if place not in kept]


def test_nothing_and_nonsense() -> None:
    """No document gives two empty lists; a query of None and a top_k of 0 are errors."""
    chosen = EvidenceFilter(reranker=graded())
    assert chosen.run(CLAIM, []) == {"documents": [], "dropped": []}
    with pytest.raises(InputTypeError, match="must be a text, got None"):
        chosen.run(None, documents(0.5))
    with pytest.raises(InputError, match="top_k=0"):
        chosen.run(CLAIM, documents(0.5), 0)
    with pytest.raises(InputError, match="threshold 7"):
        EvidenceFilter(threshold=7)


def test_duplicates_and_blank_texts() -> None:
    """Equal documents stay two, and a document without text is dropped, not an error."""
    given = [Document(content="entails 0.8"), Document(content=None), Document(content="entails 0.8")]
    found = EvidenceFilter(reranker=graded()).run(CLAIM, given)
    assert [document.id for document in found["documents"]] == [given[0].id, given[2].id]
    assert [document.content for document in found["dropped"]] == [None]


def test_the_loop_goes_on_while_the_model_works() -> None:
    """The event loop turns while the engine is at work, and run_async gives what run gives."""
    turned = threading.Event()

    def waits_for_the_loop(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        if not turned.wait(timeout=30):
            message = "the event loop stood still while the model worked"
            raise AssertionError(message)
        return logits(pairs)

    given = documents(0.2, 0.9, 0.5, 0.8)
    chosen = EvidenceFilter(reranker=NLIReranker(FunctionEngine(waits_for_the_loop)))

    async def main() -> Any:
        task = asyncio.ensure_future(chosen.run_async(CLAIM, given, 2))
        for _ in range(10):
            await asyncio.sleep(0)
        turned.set()
        return await task

    assert asyncio.run(main()) == EvidenceFilter(reranker=graded()).run(CLAIM, given, 2)
