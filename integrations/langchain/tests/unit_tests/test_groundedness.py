"""NLIGroundedness: the report of NLIReranker.check, with ids and sources, as a step of a chain."""

from __future__ import annotations

import asyncio
import json
from pathlib import PurePosixPath
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_rerank_nli import NLIGroundedness
from pydantic import ValidationError

from rerank_nli import FunctionEngine, InputTypeError, NLIReranker

ANSWER = "The ferry sails at noon. It is red. Nobody knows its age."
DOCUMENTS = [
    Document("The ferry never sails at noon.", id="a"),
    Document("At noon the ferry sails.", id="b", metadata={"source": "timetable"}),
    Document("The ferry is a red boat.", metadata={"source": PurePosixPath("fleet/3")}),
]


def test_the_report_is_that_of_the_reranker(bundled: NLIReranker) -> None:
    """The report is NLIReranker's own, with a source for each passage."""
    report = NLIGroundedness(reranker=bundled).invoke({"answer": ANSWER, "documents": DOCUMENTS})
    expected = bundled.check(ANSWER, [(d.id, d.page_content) for d in DOCUMENTS]).to_dict()
    for sentence in report["sentences"]:
        for passage in [*sentence["supporting"]["passages"], *sentence["refuting"]["passages"]]:
            assert passage.pop("source") == [None, "timetable", "fleet/3"][passage["index"]]
    assert report == expected


def test_a_sentence_can_be_cited(bundled: NLIReranker) -> None:
    """The first sentence is backed by the timetable, by id, source and text, and contradicted by the other document."""
    report = NLIGroundedness(reranker=bundled).invoke({"answer": ANSWER, "documents": DOCUMENTS})
    sentence = report["sentences"][0]
    assert ANSWER[slice(*sentence["span"])] == sentence["claim"] == "The ferry sails at noon."
    best = sentence["supporting"]["passages"][0]
    assert (best["id"], best["source"], best["index"]) == ("b", "timetable", 1)
    assert best["text"][slice(*best["span"])] == "At noon the ferry sails."
    assert "a" in [passage["id"] for passage in sentence["refuting"]["passages"]]


def test_the_report_is_json(stating: NLIReranker) -> None:
    """The report goes through JSON and comes back as it was, whatever a source is."""
    documents = [Document("e=0.9 c=0.05", metadata={"source": source}) for source in (PurePosixPath("a"), 7, None, "b")]
    report = NLIGroundedness(reranker=stating).invoke({"answer": "It does.", "documents": documents})
    assert json.loads(json.dumps(report)) == report
    [sentence] = report["sentences"]
    assert [passage["source"] for passage in sentence["supporting"]["passages"]] == ["a", 7, None, "b"]


@pytest.mark.parametrize(("threshold", "expected"), [(0.5, 1.0), (0.75, 0.0)])
def test_threshold(threshold: float, expected: float, stating: NLIReranker) -> None:
    """A sentence is supported from the threshold on."""
    check = NLIGroundedness(reranker=stating, threshold=threshold)
    report = check.invoke({"answer": "It does.", "documents": [Document("e=0.7 c=0.1")]})
    assert report["groundedness"] == expected


def test_nothing_to_check(stating: NLIReranker) -> None:
    """An answer of nothing claims nothing; without documents nothing is backed."""
    check = NLIGroundedness(reranker=stating)
    assert check.invoke({"answer": " ", "documents": DOCUMENTS})["groundedness"] == 1.0
    report = check.invoke({"answer": ANSWER, "documents": []})
    assert [sentence["label"] for sentence in report["sentences"]] == ["insufficient"] * 3


def test_nothing_passed_in_is_changed(stating: NLIReranker) -> None:
    """Documents come out of a check as they went in."""
    document = Document("e=0.9 c=0.05", id="a", metadata={"source": {"page": 3}})
    NLIGroundedness(reranker=stating).invoke({"answer": "It does.", "documents": [document]})
    assert document == Document("e=0.9 c=0.05", id="a", metadata={"source": {"page": 3}})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"answer": "It does."}, r"'answer' and 'documents', got the keys \['answer'\]"),
        ("It does.", "got 'It does.'"),
        ({"answer": None, "documents": DOCUMENTS}, "the answer must be a text, got None"),
        ({"answer": "It does.", "documents": ["It does."]}, "document 0 must be a Document, got 'It does.'"),
    ],
)
def test_what_is_no_answer_with_documents(given: Any, message: str, stating: NLIReranker) -> None:
    """What is handed over in another form is refused with what it was."""
    with pytest.raises(InputTypeError, match=message):
        NLIGroundedness(reranker=stating).invoke(given)


def test_settings_are_checked_when_given() -> None:
    """A threshold out of range, a model without contradictions and a setting there is none of are refused at once."""
    engine = FunctionEngine(lambda pairs: [[1.0, 0.0]] * len(pairs), labels=["entailment", "not_entailment"])
    with pytest.raises(ValidationError, match=r"threshold 2\.0"):
        NLIGroundedness(threshold=2)
    with pytest.raises(ValidationError, match="contradiction"):
        NLIGroundedness(reranker=NLIReranker(engine))
    with pytest.raises(ValidationError, match="direction"):
        NLIGroundedness(direction="bidirectional")  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="leave out model"):
        NLIGroundedness(model="mini", reranker=NLIReranker(FunctionEngine(list)))


def test_a_call_knows_no_further_arguments(stating: NLIReranker) -> None:
    """A setting handed to `invoke` is an error, not overlooked."""
    with pytest.raises(TypeError, match="threshold"):
        NLIGroundedness(reranker=stating).invoke({"answer": "It does.", "documents": DOCUMENTS}, threshold=0.9)


@pytest.mark.parametrize("awaited", [False, True])
def test_callbacks(awaited: bool, stating: NLIReranker, failing: NLIReranker, events: Any) -> None:  # noqa: FBT001
    """A check is a run of its own that ends, or is closed as failed when the engine raises."""
    given, config = {"answer": "It does.", "documents": DOCUMENTS}, {"callbacks": [events]}

    def run(check: NLIGroundedness) -> dict[str, Any]:
        return asyncio.run(check.ainvoke(given, config)) if awaited else check.invoke(given, config)  # type: ignore[arg-type]

    run(NLIGroundedness(reranker=stating))
    with pytest.raises(OSError, match="no power"):
        run(NLIGroundedness(reranker=failing))
    start = "chain NLIGroundedness start"
    assert events.seen == [start, "chain end", start, "chain error: no power for 3 pairs"]


def test_batches(stating: NLIReranker) -> None:
    """Several answers at once, awaited or not, get the reports that each gets alone."""
    check = NLIGroundedness(reranker=stating)
    given: list[Any] = [{"answer": "It does.", "documents": [Document(f"e=0.{i} c=0.05")]} for i in (3, 4, 6, 7)]
    alone = [check.invoke(one) for one in given]
    assert [report["groundedness"] for report in alone] == [0, 0, 1, 1]
    assert check.batch(given) == alone
    assert asyncio.run(check.abatch(given)) == alone


def test_the_loop_goes_on_while_the_engine_works(patient: Any, stating: NLIReranker) -> None:
    """The event loop runs other things while an answer is checked, and the report is that of the plain call."""
    given = {"answer": "It does.", "documents": [Document("e=0.7 c=0.1")]}
    report = patient.run(NLIGroundedness(reranker=patient.reranker).ainvoke(given))
    assert report == NLIGroundedness(reranker=stating).invoke(given)
