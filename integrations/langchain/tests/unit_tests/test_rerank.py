"""NLIRerank: the scores of NLIReranker, documents left as they are, and an event loop that goes on."""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
import os
import pickle
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.runnables import ConfigurableField, Runnable, RunnableLambda
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from langchain_rerank_nli import NLIRerank, NLIRerankRetriever
from pydantic import ValidationError
from shared_cases import CASES, Case

from rerank_nli import FunctionEngine, InputError, InputTypeError, ModelNotFoundError, NLIReranker

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CLAIM = "The ferry sails at noon."
MIXED = ["e=0.2 c=0.7", "e=0.8 c=0.1", "e=0.5 c=0.3"]
# A document of LangChain's has no retrieval score of its own, so there is nothing to fuse with.
UNFUSED = [case for case in CASES if case.fuse is None]


def documents(*texts: str) -> list[Document]:
    """One for each text, with an id and a source."""
    return [Document(text, id=f"id {i}", metadata={"source": f"file {i}"}) for i, text in enumerate(texts)]


def retrieved(case: Case) -> list[Document]:
    """The documents of a case; what a retriever scored them stands where an earlier reranker would have put it."""
    found = documents(*case.texts)
    for document, score in zip(found, case.retrieval_scores or (), strict=bool(case.retrieval_scores)):
        document.metadata["relevance_score"] = score
    return found


def compress(case: Case, found: list[Document], settings: dict[str, Any]) -> Sequence[Document]:
    return NLIRerank(top_n=case.top_n, **settings).compress_documents(found, case.query)


def acompress(case: Case, found: list[Document], settings: dict[str, Any]) -> Sequence[Document]:
    return asyncio.run(NLIRerank(top_n=case.top_n, **settings).acompress_documents(found, case.query))


def as_runnable(case: Case, found: list[Document], settings: dict[str, Any]) -> Sequence[Document]:
    step = NLIRerank(top_n=case.top_n, **settings).as_runnable()
    return step.invoke({"query": case.query, "documents": found})


def retrieve(case: Case, found: list[Document], settings: dict[str, Any]) -> Sequence[Document]:
    base: Runnable[str, list[Document]] = RunnableLambda(lambda _: found)
    return NLIRerankRetriever(base_retriever=base, k=case.top_n, **settings).invoke(case.query)


@pytest.mark.parametrize("case", UNFUSED, ids=[case.name for case in UNFUSED])
def test_what_the_reranker_gives(case: Case, bundled: NLIReranker) -> None:
    """The same documents in the same order with the same scores as NLIReranker with the same settings, every way."""
    reranker = NLIReranker(bundled.engine, **case.settings)
    expected = case.expected(reranker)
    ways = [(compress, case.settings), *((way, {"reranker": reranker}) for way in (acompress, as_runnable, retrieve))]
    for way, settings in ways:
        ranked = way(case, retrieved(case), {**settings, "threshold": case.threshold, "keep": case.keep})
        assert [d.id for d in ranked] == [f"id {i}" for i, _ in expected], way.__name__
        scores = [d.metadata["relevance_score"] for d in ranked]
        assert scores == pytest.approx([s for _, s in expected], abs=1e-5)
        assert all(type(score) is float for score in scores)
        assert [Document.model_validate_json(json.dumps(d.model_dump())) for d in ranked] == ranked


def test_a_ready_reranker_is_used(bundled: NLIReranker) -> None:
    """A reranker with settings of its own scores by those."""
    reranker = NLIReranker(bundled.engine, direction="bidirectional", combine="mean", template="Truly, {query}")
    texts = ["The ferry sails at twelve o'clock, noon.", "The ferry does not sail at noon.", "Gulls cry."]
    ranked = NLIRerank(reranker=reranker).compress_documents(documents(*texts), CLAIM)
    assert [(d.page_content, d.metadata["relevance_score"]) for d in ranked] == reranker.rank(CLAIM, texts).to_pairs()


def test_metadata(stating: NLIReranker) -> None:
    """Each copy carries score, probabilities and span, as JSON types, and the score comes last."""
    [ranked] = NLIRerank(reranker=stating).compress_documents(documents("e=0.8 c=0.05"), CLAIM)
    metadata = ranked.metadata
    assert list(metadata) == [
        "source",
        *("nli_entailment", "nli_neutral", "nli_contradiction", "nli_span", "relevance_score"),
    ]
    assert metadata["source"] == "file 0"
    assert metadata["nli_entailment"] == pytest.approx(0.8)
    assert metadata["nli_neutral"] == pytest.approx(1 - 0.8 - 0.05)
    assert metadata["nli_contradiction"] == pytest.approx(0.05)
    assert metadata["nli_span"] == [0, len("e=0.8 c=0.05")]
    assert metadata["relevance_score"] == metadata["nli_entailment"]
    assert {type(metadata[k]) for k in metadata if k not in ("source", "nli_span")} == {float}
    assert json.loads(json.dumps(metadata)) == metadata
    assert Document.model_validate_json(ranked.model_dump_json()) == ranked


def test_a_span_is_that_of_the_winning_window() -> None:
    """The span of a long document is the window that decided, not the whole."""
    text = "Gulls cry here. It states e=0.9 c=0.05 there. Nets dry here."
    reranker = NLIReranker(FunctionEngine(lambda pairs: [[float("=0.9" in p), 0.0, 0.0] for p, _ in pairs]), window=5)
    [ranked] = NLIRerank(reranker=reranker).compress_documents([Document(text)], CLAIM)
    start, end = ranked.metadata["nli_span"]
    assert text[start:end].strip() == "It states e=0.9 c=0.05 there."


def test_a_two_label_model_has_no_neutral() -> None:
    """Where a model has two labels, neutral and contradiction are None, and keeping contradictions is refused."""
    engine = FunctionEngine(lambda pairs: [[1.0, 0.0]] * len(pairs), labels=["entailment", "not_entailment"])
    reranker = NLIReranker(engine)
    [ranked] = NLIRerank(reranker=reranker).compress_documents(documents("It does."), CLAIM)
    assert (ranked.metadata["nli_neutral"], ranked.metadata["nli_contradiction"]) == (None, None)
    assert ranked.metadata["relevance_score"] == pytest.approx(0.731, abs=1e-3)  # 1 / (1 + exp(-1))
    with pytest.raises(ValidationError, match="contradiction"):
        NLIRerank(reranker=reranker, threshold=0.5, keep="contradiction")


def test_nothing_passed_in_is_changed(stating: NLIReranker) -> None:
    """Documents, their metadata and their list stay as they were, and what comes back are others."""
    given = documents(*MIXED)
    before = copy.deepcopy(given)
    ranked = NLIRerank(reranker=stating, top_n=2).compress_documents(given, CLAIM)
    assert given == before
    assert not {id(d) for d in ranked} & {id(d) for d in given}
    assert not {id(d.metadata) for d in ranked} & {id(d.metadata) for d in given}


def test_an_own_kind_of_document_stays_one(stating: NLIReranker) -> None:
    """A subclass of Document comes back as itself, judged by its page_content, with its own fields."""

    class Page(Document):
        number: int
        text: str = "e=0.1 c=0.8"

    [ranked] = NLIRerank(reranker=stating).compress_documents([Page(page_content="e=0.9 c=0.05", number=7)], CLAIM)
    assert isinstance(ranked, Page)
    assert ranked.number == 7
    assert ranked.metadata["relevance_score"] == pytest.approx(0.9)


def test_a_stale_score_never_wins(stating: NLIReranker) -> None:
    """What an earlier reranker wrote neither ranks nor stays."""
    stale = {"relevance_score": 99.0, "nli_relative": 5.0, "nli_span": "?", "page": 3}
    given = [Document("e=0.1 c=0.1", metadata=stale), Document("e=0.8 c=0.1", metadata={"relevance_score": -1.0})]
    better, worse = NLIRerank(reranker=stating).compress_documents(given, CLAIM)
    assert better.metadata["relevance_score"] == pytest.approx(0.8)
    assert worse.metadata["relevance_score"] == pytest.approx(0.1)
    assert list(worse.metadata)[-1] == "relevance_score"
    assert "nli_relative" not in worse.metadata
    assert (worse.metadata["page"], worse.metadata["nli_span"]) == (3, [0, 11])


def test_normalized_scores_stand_beside_the_absolute() -> None:
    """`normalize` writes a second number and leaves score and threshold alone."""
    engine = FunctionEngine(lambda pairs: [[float(len(p)), 0.0, 0.0] for p, _ in pairs])
    reranker = NLIReranker(engine, normalize="sum")
    ranked = NLIRerank(reranker=reranker).compress_documents(documents("a", "abc", "ab"), CLAIM)
    assert sum(d.metadata["nli_relative"] for d in ranked) == pytest.approx(1.0)
    assert ranked[0].metadata["relevance_score"] == pytest.approx(0.909, abs=1e-3)  # e³ / (e³ + 2)


@pytest.mark.parametrize(
    ("top_n", "expected"), [(None, [1, 2, 0]), (1, [1]), (2, [1, 2]), (3, [1, 2, 0]), (9, [1, 2, 0])]
)
def test_top_n(top_n: int | None, expected: list[int], stating: NLIReranker) -> None:
    """At most top_n come back, best first; None and more than there are is all."""
    ranked = NLIRerank(reranker=stating, top_n=top_n).compress_documents(documents(*MIXED), CLAIM)
    assert [d.id for d in ranked] == [f"id {i}" for i in expected]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_n": 0}, r"top_n\s.*greater than or equal to 1"),
        ({"top_n": -1}, r"top_n\s.*greater than or equal to 1"),
        ({"threshold": 1.5}, "threshold 1.5"),
        ({"score": "margin", "threshold": -1.5}, "threshold -1.5"),
        ({"keep": "neutral"}, "'evidence'"),
        ({"keep": "evidence", "score": "logit"}, "evidence"),
        ({"direction": "sideways"}, "'bidirectional'"),
        ({"score": "cosine"}, "'margin'"),
        ({"normalize": "l2"}, "'minmax'"),
        ({"topn": 3}, "topn"),
        ({"model": 7}, "model"),
    ],
)
def test_settings_are_checked_when_given(settings: dict[str, Any], message: str) -> None:
    """A setting that no call could use is refused when it is given, with what would do."""
    with pytest.raises(ValidationError, match=message):
        NLIRerank(**settings)


@pytest.mark.parametrize("settings", [{"model": "mini"}, {"direction": "bidirectional"}, {"score": "entailment"}])
def test_a_reranker_and_model_settings_are_one_too_many(settings: dict[str, Any], stating: NLIReranker) -> None:
    """A ready reranker beside a model setting is an error that names the setting, even if it is the default."""
    with pytest.raises(ValidationError, match=f"leave out {next(iter(settings))}"):
        NLIRerank(reranker=stating, **settings)


def test_a_setting_changed_later_counts(stating: NLIReranker) -> None:
    """Settings changed on a component or a copy of it hold from the next call on, and bad ones are refused there."""
    compressor = NLIRerank(reranker=stating)
    compressor.top_n = 1
    assert len(compressor.compress_documents(documents(*MIXED), CLAIM)) == 1
    compressor.top_n = 0
    with pytest.raises(InputError, match="top_k=0"):
        compressor.compress_documents(documents(*MIXED), CLAIM)


def test_a_changed_model_setting_reaches_the_model() -> None:
    """After a change of the score kind, on the component or on a copy, scores are of that kind."""
    compressor = NLIRerank(score="entailment")
    [first] = compressor.compress_documents(documents("The ferry never sails."), CLAIM)
    copied = compressor.model_copy(update={"score": "margin"})
    compressor.score = "margin"
    for changed in (compressor, copied):
        [second] = changed.compress_documents(documents("The ferry never sails."), CLAIM)
        expected = first.metadata["nli_entailment"] - first.metadata["nli_contradiction"]
        assert second.metadata["relevance_score"] == pytest.approx(expected, abs=1e-6)


def test_nothing_is_loaded_before_it_is_needed() -> None:
    """A model that is not there is missed at the first call, not before."""
    compressor = NLIRerank(model="no-such-folder/no-such-model")
    with pytest.raises(ModelNotFoundError):
        compressor.compress_documents(documents("It sails."), CLAIM)


def test_a_model_is_loaded_once() -> None:
    """16 threads that ask at once get one and the same reranker."""
    compressor, barrier = NLIRerank(), threading.Barrier(16)

    def ask(_: int) -> int:
        barrier.wait(timeout=30)
        return id(compressor._ready())

    with ThreadPoolExecutor(16) as threads:
        assert len(set(threads.map(ask, range(16)))) == 1


def test_settings_of_a_call_load_no_model_anew(tmp_path: Path) -> None:
    """A retriever whose `k` comes with each call, so that LangChain makes it anew, reads its model's folder once."""
    shutil.copytree(str(files("rerank_nli") / "mini/nli"), tmp_path / "model")
    base = RunnableLambda[str, list[Document]](lambda _: documents("The ferry sails at noon.", "It is late."))
    made = NLIRerankRetriever(base_retriever=base, model=tmp_path / "model")
    retriever = made.configurable_fields(k=ConfigurableField("k"))
    assert len(retriever.invoke(CLAIM, {"configurable": {"k": 1}})) == 1
    for file in (tmp_path / "model").glob("*.json"):  # spoilt, but by size and time the same; weights are still read
        found = file.stat()
        file.write_bytes(b"x" * found.st_size)
        os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert len(retriever.invoke(CLAIM, {"configurable": {"k": 2}})) == 2


def test_a_new_component_reads_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a folder that holds another model now, or a relative name elsewhere, a new component has the new scores."""
    bundle = str(files("rerank_nli") / "mini/nli")
    for place, temperature in (("a", 1.0), ("b", 3.0)):
        shutil.copytree(bundle, tmp_path / place / "model")
        manifest = tmp_path / place / "model" / "manifest.json"
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "temperature": temperature}))

    def score(model: str | Path) -> float:
        [found] = NLIRerank(model=model).compress_documents(documents("The ferry sails at noon."), CLAIM)
        return float(found.metadata["nli_entailment"])

    seen = []
    for place in ("a", "b"):
        monkeypatch.chdir(tmp_path / place)
        seen.append(score("model"))
    assert seen[0] != pytest.approx(seen[1], abs=1e-3)
    assert score(tmp_path / "a" / "model") == pytest.approx(seen[0])
    shutil.copy(tmp_path / "b" / "model" / "manifest.json", tmp_path / "a" / "model")
    assert score(tmp_path / "a" / "model") == pytest.approx(seen[1])


def test_two_threads_at_once() -> None:
    """Two threads that share a compressor, its model not yet loaded, get what one gets alone."""
    shared, barrier = NLIRerank(), threading.Barrier(2)
    given = {CLAIM: documents("At noon the ferry sails."), "Gulls cry.": documents("No gull cries.", "Gulls do cry.")}
    alone = [NLIRerank().compress_documents(found, query) for query, found in given.items()]

    def ask(query: str) -> list[Document]:
        barrier.wait(timeout=30)
        return shared.compress_documents(given[query], query)

    with ThreadPoolExecutor(2) as threads:
        for found, expected in zip(threads.map(ask, given), alone, strict=True):
            assert [d.id for d in found] == [d.id for d in expected]
            scores = [d.metadata["relevance_score"] for d in expected]
            assert [d.metadata["relevance_score"] for d in found] == pytest.approx(scores, abs=1e-5)


@pytest.mark.parametrize("given", [documents(), documents("e=0.8")])
def test_no_query(given: list[Document], stating: NLIReranker) -> None:
    """None in place of a query is an error that says so, with documents and without."""
    with pytest.raises(InputTypeError, match="must be a text, got None"):
        NLIRerank(reranker=stating).compress_documents(given, None)  # type: ignore[arg-type]


def test_no_documents(failing: NLIReranker) -> None:
    """No documents in, none out, and the model is not asked."""
    assert NLIRerank(reranker=failing).compress_documents([], CLAIM) == []


def test_duplicates_and_blanks_keep_their_place(stating: NLIReranker) -> None:
    """Equal documents all come back, in the order they came in; blank ones get the floor and stay."""
    given = [Document("e=0.5 c=0.1", id="a"), Document("  ", id="b"), Document("e=0.5 c=0.1", id="a"), Document("")]
    ranked = NLIRerank(reranker=stating).compress_documents(given, CLAIM)
    assert [d.id for d in ranked] == ["a", "a", "b", None]
    assert [d.metadata["relevance_score"] for d in ranked] == pytest.approx([0.5, 0.5, 0.0, 0.0])
    assert json.loads(json.dumps(ranked[-1].metadata))["nli_span"] == [0, 0]


def test_a_thousand_documents(stating: NLIReranker) -> None:
    """1,000 documents are ranked in one call, none lost."""
    given = documents(*(f"Number {i} is e=0.{100 + i % 700} c=0.1" for i in range(1000)))
    ranked = NLIRerank(reranker=stating).compress_documents(given, CLAIM)
    scores = [d.metadata["relevance_score"] for d in ranked]
    assert {d.id for d in ranked} == {d.id for d in given}
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == pytest.approx(0.799)


def test_an_engine_error_reaches_the_caller(failing: NLIReranker) -> None:
    """What the engine raises comes out, of the plain call, the awaited one and the chain."""
    compressor, given = NLIRerank(reranker=failing), documents("It sails.")
    with pytest.raises(OSError, match="no power for 1 pairs"):
        compressor.compress_documents(given, CLAIM)
    with pytest.raises(OSError, match="no power for 1 pairs"):
        asyncio.run(compressor.acompress_documents(given, CLAIM))
    with pytest.raises(OSError, match="no power for 1 pairs"):
        compressor.as_runnable().invoke({"query": CLAIM, "documents": given})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "documents must be a list of Documents, got None"),
        (Document("It sails."), r"documents must be a list of Documents, got Document\("),
        (iter(documents("It sails.")), "documents must be a list of Documents, got <list_iterator"),
        ([Document("It sails."), "It sails."], "document 1 must be a Document, got 'It sails.'"),
    ],
)
def test_what_is_no_list_of_documents(given: Any, message: str, stating: NLIReranker) -> None:
    """What holds no documents is refused with what it was and where."""
    with pytest.raises(InputTypeError, match=message):
        NLIRerank(reranker=stating).compress_documents(given, CLAIM)


@pytest.mark.parametrize("given", [{"query": CLAIM}, {"documents": []}, [CLAIM]])
def test_a_chain_that_hands_over_something_else(given: Any, stating: NLIReranker) -> None:
    """A step that gets no {"query", "documents"} says what it got."""
    with pytest.raises(InputTypeError, match="'query' and 'documents', got"):
        NLIRerank(reranker=stating).as_runnable().invoke(given)


def test_the_step_has_a_name(events: Any, stating: NLIReranker) -> None:
    """A trace of a chain shows the step under the component's name, and its end."""
    step = NLIRerank(reranker=stating).as_runnable()
    step.invoke({"query": CLAIM, "documents": documents(*MIXED)}, {"callbacks": [events]})
    assert events.seen == ["chain NLIRerank start", "chain end"]


@pytest.mark.parametrize("awaited", [False, True])
def test_a_trace_shows_an_engine_error(awaited: bool, failing: NLIReranker) -> None:  # noqa: FBT001
    """In the trace of a chain the step and the chain are closed, both with the engine's error."""
    found: Runnable[str, Any] = RunnableLambda(lambda query: {"query": query, "documents": documents(*MIXED)})
    chain, trace = found | NLIRerank(reranker=failing).as_runnable(), RunCollectorCallbackHandler()

    def run() -> None:
        config: Any = {"callbacks": [trace]}
        asyncio.run(chain.ainvoke(CLAIM, config)) if awaited else chain.invoke(CLAIM, config)

    with pytest.raises(OSError, match="no power for 3 pairs"):
        run()
    [whole] = trace.traced_runs
    assert whole.child_runs[-1].name == "NLIRerank"
    for closed in (whole, whole.child_runs[-1]):
        assert closed.end_time is not None
        assert "no power for 3 pairs" in (closed.error or "")


def test_batches_of_a_step(stating: NLIReranker) -> None:
    """Several lists at once, awaited or not, come back as each does alone, and an error fails its own only."""
    step = NLIRerank(reranker=stating, top_n=1).as_runnable()
    given: list[Any] = [{"query": f"claim {i}", "documents": documents(f"e=0.{i}", "e=0.2")} for i in range(1, 9)]
    alone = [step.invoke(one) for one in given]
    assert [found[0].metadata["relevance_score"] for found in alone] == pytest.approx(
        [0.2, 0.2, *(i / 10 for i in range(3, 9))]
    )
    assert step.batch(given) == alone
    assert asyncio.run(step.abatch(given)) == alone
    *good, bad = step.batch([*given, {"query": None, "documents": []}], return_exceptions=True)
    assert good == alone
    assert isinstance(bad, InputTypeError)


@pytest.mark.parametrize("through_a_chain", [False, True])
def test_the_loop_goes_on_while_the_engine_works(through_a_chain: bool, patient: Any, stating: NLIReranker) -> None:  # noqa: FBT001
    """The event loop runs other things while documents are scored, and the result is that of the plain call."""
    compressor, given = NLIRerank(reranker=patient.reranker), documents(*MIXED)
    if through_a_chain:
        found = patient.run(compressor.as_runnable().ainvoke({"query": CLAIM, "documents": given}))
    else:
        found = patient.run(compressor.acompress_documents(given, CLAIM))
    assert found == NLIRerank(reranker=stating).compress_documents(given, CLAIM)


def test_the_loop_ticks_while_500_are_scored() -> None:
    """While the bundled model is loaded and scores 500 documents, the loop goes round and never stands for long."""
    given = documents(*(f"Ferry number {i} sails at {i % 12} o'clock." for i in range(500)))
    compressor = NLIRerank(top_n=3)

    async def main() -> tuple[int, float, float]:
        loop = asyncio.get_running_loop()
        began = last = loop.time()
        ticks, longest = 0, 0.0
        task = asyncio.ensure_future(compressor.acompress_documents(given, CLAIM))

        def tick() -> None:
            nonlocal ticks, longest, last
            now = loop.time()
            ticks, longest, last = ticks + 1, max(longest, now - last), now
            if not task.done():
                loop.call_later(0.001, tick)

        tick()
        assert len(await task) == 3
        return ticks, longest, loop.time() - began

    ticks, longest, whole = asyncio.run(main())
    assert ticks > 100
    assert longest < whole / 4


def test_many_at_once_in_one_loop(stating: NLIReranker) -> None:
    """Gathered calls each get their own result."""
    compressor = NLIRerank(reranker=stating)

    async def main() -> list[Sequence[Document]]:
        calls = (compressor.acompress_documents(documents(f"e=0.{10 + i} c=0.1"), f"claim {i}") for i in range(20))
        return await asyncio.gather(*calls)

    found = [ranked[0].metadata["relevance_score"] for ranked in asyncio.run(main())]
    assert found == pytest.approx([0.1 + i / 100 for i in range(20)])


def test_a_compressor_pickles_without_the_weights() -> None:
    """Out of pickle comes a compressor with its settings that scores alike; the model stays out."""
    compressor = NLIRerank(direction="bidirectional", top_n=2)
    expected = compressor.compress_documents(documents("At noon the ferry sails."), CLAIM)
    pickled = pickle.dumps(compressor)
    assert len(pickled) < 100_000
    again = pickle.loads(pickled)  # noqa: S301 - written above
    found = again.compress_documents(documents("At noon the ferry sails."), CLAIM)
    assert found[0].metadata["relevance_score"] == pytest.approx(expected[0].metadata["relevance_score"], abs=1e-5)


def test_fields_alone_rebuild_it(stating: NLIReranker) -> None:
    """A dump of the fields makes the same component again, of settings through JSON too."""
    compressor = NLIRerank(model="mini", direction="bidirectional", top_n=2, threshold=0.0)
    assert NLIRerank.model_validate_json(compressor.model_dump_json()) == compressor
    ready = NLIRerank(reranker=stating, top_n=2)
    assert NLIRerank(**ready.model_dump()).reranker is stating


@pytest.mark.parametrize("name", ["compress_documents", "acompress_documents"])
def test_the_signature_is_the_framework_s(name: str) -> None:
    """Both methods take what LangChain's own base class says, `callbacks` among it."""
    ours, theirs = (inspect.signature(getattr(c, name)).parameters for c in (NLIRerank, BaseDocumentCompressor))
    assert list(ours) == list(theirs)
    assert {k: p.default for k, p in ours.items()} == {k: p.default for k, p in theirs.items()}
