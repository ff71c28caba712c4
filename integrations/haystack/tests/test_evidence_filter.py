"""EvidenceFilter by itself."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from graded import CLAIM, documents, graded, places
from haystack import Document
from haystack_integrations.components.rankers.rerank_nli import EvidenceFilter
from shared_cases import CASES, Case

from rerank_nli import InputError, InputTypeError, NLIReranker


@pytest.mark.integration
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_divides_as_nlireranker(case: Case, bundled: NLIReranker) -> None:
    """Settings given to the component keep what NLIReranker keeps with them; what only orders changes nothing in it."""
    settings = {name: value for name, value in case.settings.items() if name != "normalize"}
    made_of = settings or {"reranker": bundled}  # the defaults need no second model
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


def test_no_documents() -> None:
    """No document gives two empty lists."""
    assert EvidenceFilter(reranker=graded()).run(CLAIM, []) == {"documents": [], "dropped": []}


@pytest.mark.parametrize("query", [None, 7])
def test_no_query(query: Any) -> None:
    """What is no text in place of a query is an error that says so."""
    with pytest.raises(InputTypeError, match=f"must be a text, got {query}"):
        EvidenceFilter(reranker=graded()).run(query, documents(0.5))


def test_numbers_out_of_range() -> None:
    """A top_k of 0 is refused by init and by run, a threshold over 1 by init."""
    with pytest.raises(InputError, match="top_k=0"):
        EvidenceFilter(top_k=0)
    with pytest.raises(InputError, match="top_k=0"):
        EvidenceFilter(reranker=graded()).run(CLAIM, documents(0.5), 0)
    with pytest.raises(InputError, match="threshold 7"):
        EvidenceFilter(threshold=7)


def test_duplicates_and_blank_texts() -> None:
    """The same text stays twice, the same document comes out once, and one without text is dropped, not an error."""
    contents = [("a", "entails 0.8"), ("b", None), ("c", "entails 0.8"), ("a", "entails 0.8"), ("b", None)]
    given = [Document(id=name, content=content, score=i) for i, (name, content) in enumerate(contents)]
    found = EvidenceFilter(reranker=graded()).run(CLAIM, given)
    assert [(document.id, document.score) for document in found["documents"]] == [("a", 3), ("c", 2)]
    assert [(document.id, document.score) for document in found["dropped"]] == [("b", 4)]
