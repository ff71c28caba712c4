"""Both components in pipelines: run, run asynchronously, saved and loaded."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import haystack
import pytest
from graded import CLAIM, documents, graded
from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.core.errors import PipelineRuntimeError, SerializationError
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.tracing.tracer import NullSpan, Span, Tracer, disable_tracing, enable_tracing
from haystack.utils import ComponentDevice
from haystack_integrations.components.rankers.rerank_nli import EvidenceFilter, NLIRanker

from rerank_nli import FunctionEngine, NLIReranker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration

QUERY = "A cat is sleeping."
TEXTS = ["A cat sleeps on the mat.", "No cat is sleeping.", "A cat food was recalled.", "The cat is asleep in its box."]
RUN_FROM_FILE = """
import json, sys
from haystack import Document, Pipeline
with open("pipeline.yaml", encoding="utf-8") as file:
    pipeline = Pipeline.load(file)
query, documents = sys.argv[1], [Document.from_dict(row) for row in json.load(sys.stdin)]
found = pipeline.run({"ranker": {"query": query, "documents": documents}, "filter": {"query": query}})["filter"]
print(json.dumps({side: [document.to_dict() for document in found[side]] for side in found}))
"""
# The pipeline that runs asynchronously is a class of its own before Haystack 3.
AsyncPipeline = getattr(haystack, "AsyncPipeline", Pipeline)


def judging(pipeline: Pipeline, fuse: str | None = None, **settings: Any) -> Pipeline:
    """The pipeline with a ranker and a filter in it."""
    pipeline.add_component("ranker", NLIRanker(top_k=3, fuse=fuse, **settings))
    pipeline.add_component("filter", EvidenceFilter(threshold=0.4, **settings))
    pipeline.connect("ranker.documents", "filter.documents")
    return pipeline


def connected(pipeline: Pipeline, **settings: Any) -> Pipeline:
    """The pipeline with a retriever, a ranker and a filter in it."""
    judging(pipeline, **settings).add_component("retriever", InMemoryBM25Retriever(InMemoryDocumentStore()))
    pipeline.connect("retriever.documents", "ranker.documents")
    return pipeline


def filled(pipeline: Pipeline) -> Pipeline:
    """The pipeline with the texts in its store."""
    retriever: Any = pipeline.get_component("retriever")
    retriever.document_store.write_documents([Document(id=f"t{i}", content=text) for i, text in enumerate(TEXTS)])
    return pipeline


def asked(query: Any = QUERY) -> dict[str, Any]:
    """The input of such a pipeline."""
    return {name: {"query": query} for name in ("retriever", "ranker", "filter")}


def plain(pipeline: Pipeline, given: dict[str, Any]) -> dict[str, Any]:
    """A pipeline's plain run."""
    return pipeline.run(given)


def asynchronous(pipeline: Pipeline, given: dict[str, Any]) -> dict[str, Any]:
    """A pipeline's asynchronous run."""
    found: dict[str, Any] = asyncio.run(pipeline.run_async(given))
    return found


def test_a_pipeline_runs(bundled: NLIReranker) -> None:
    """Retriever, ranker and filter give what NLIReranker gives for the retriever's documents."""
    pipeline = filled(connected(Pipeline()))
    retrieved = pipeline.get_component("retriever").run(QUERY)["documents"]
    expected = bundled.rank(QUERY, [d.content for d in retrieved], 3)
    found = pipeline.run(asked())["filter"]
    kept = [(retrieved[p.index].id, p.score) for p in expected if p.score >= 0.4]
    assert 0 < len(kept) < 3
    assert [(d.id, d.score) for d in found["documents"]] == kept
    assert [d.id for d in found["dropped"]] == [retrieved[p.index].id for p in expected if p.score < 0.4]


def test_a_pipeline_fuses(bundled: NLIReranker) -> None:
    """With `fuse=` the order is NLIReranker's for the retriever's scores, which the documents bring."""
    pipeline = filled(connected(Pipeline(), fuse="rrf"))
    retrieved = pipeline.get_component("retriever").run(QUERY)["documents"]
    scores = [d.score for d in retrieved]
    expected = bundled.rank(QUERY, [d.content for d in retrieved], 3, retrieval_scores=scores, fuse="rrf")
    found = pipeline.run(asked(), include_outputs_from={"ranker"})["ranker"]["documents"]
    assert [(d.id, d.meta["nli_relative"]) for d in found] == [(retrieved[p.index].id, p.relative) for p in expected]


def test_two_retrievers_feed_one_ranker() -> None:
    """What two retrievers both bring is ranked once."""
    pipeline = filled(connected(Pipeline()))
    retriever: Any = pipeline.get_component("retriever")
    pipeline.add_component("another", InMemoryBM25Retriever(retriever.document_store, scale_score=True))
    pipeline.connect("another.documents", "ranker.documents")
    found = pipeline.run(asked() | {"another": {"query": QUERY}})["filter"]
    assert found == filled(connected(Pipeline())).run(asked())["filter"]


def test_a_pipeline_runs_asynchronously() -> None:
    """The asynchronous run of a pipeline gives what its plain run gives."""
    found = asynchronous(filled(connected(AsyncPipeline())), asked())
    assert found == filled(connected(Pipeline())).run(asked())
    assert found["filter"]["documents"]


def test_top_k_comes_in_by_the_pipeline() -> None:
    """`top_k` in a pipeline's input goes before the component's own."""
    pipeline = filled(connected(Pipeline()))
    given = {**asked(), "ranker": {"query": QUERY, "top_k": 1}}
    found = pipeline.run(given)["filter"]
    assert len([*found["documents"], *found["dropped"]]) == 1


def test_a_saved_pipeline_loads() -> None:
    """A pipeline comes out of dumps and loads with its settings, under the default allowlist, and ranks alike."""
    pipeline = filled(connected(Pipeline(), device=ComponentDevice.from_str("cpu"), score="margin"))
    again = Pipeline.loads(pipeline.dumps())
    assert again.to_dict()["components"] == pipeline.to_dict()["components"]
    assert again.run(asked()) == pipeline.run(asked())


def test_another_process_loads_a_saved_pipeline(tmp_path: Path) -> None:
    """A process that has imported neither component loads a pipeline from its file, and finds the same as this one."""
    pipeline = judging(Pipeline(), device=ComponentDevice.from_str("cpu"), keep="evidence")
    with (tmp_path / "pipeline.yaml").open("w", encoding="utf-8") as file:
        pipeline.dump(file)
    rows = [Document(id=f"t{i}", content=text).to_dict() for i, text in enumerate(TEXTS)]
    ran = subprocess.run(
        [sys.executable, "-c", RUN_FROM_FILE, QUERY],
        input=json.dumps(rows),
        capture_output=True,
        check=False,
        cwd=tmp_path,
        encoding="utf-8",
    )
    assert ran.returncode == 0, ran.stderr
    given = {"ranker": {"query": QUERY, "documents": list(map(Document.from_dict, rows))}, "filter": {"query": QUERY}}
    found = pipeline.run(given)["filter"]
    assert json.loads(ran.stdout) == {side: [d.to_dict() for d in found[side]] for side in ("documents", "dropped")}
    assert found["documents"]


@pytest.mark.parametrize("kind", [NLIRanker, EvidenceFilter])
def test_settings_survive(kind: Any) -> None:
    """Every setting, a device too, comes out of to_dict and from_dict as it was."""
    settings = {
        "model": "org/model",
        "device": ComponentDevice.from_str("cuda:1"),
        "engine": "torch",
        "labels": ["contradiction", "entailment", "neutral"],
        "top_k": 7,
        "threshold": 0.25,
        "keep": "evidence",
        "direction": "bidirectional",
        "score": "entailment_vs_contradiction",
    }
    if kind is NLIRanker:
        settings |= {"normalize": "softmax", "fuse": "rrf", "alpha": 0.25}
    saved = kind(**settings).to_dict()
    assert saved["init_parameters"] == {**settings, "device": {"type": "single", "device": "cuda:1"}}
    assert saved["type"].startswith("haystack_integrations.components.rankers.rerank_nli.")
    again = kind.from_dict(copy.deepcopy(saved))  # Haystack before 3 replaces the device in what it is given
    assert again.to_dict() == saved
    assert {name: getattr(again, name) for name in settings} == settings


@pytest.mark.parametrize("kind", [NLIRanker, EvidenceFilter])
def test_a_path_is_saved(kind: Any, tmp_path: Path) -> None:
    """A model that is given as a Path is saved as text."""
    pipeline = Pipeline()
    pipeline.add_component("judge", kind(tmp_path / "model"))
    again: Any = Pipeline.loads(pipeline.dumps()).get_component("judge")
    assert again.model == str(tmp_path / "model")


@pytest.mark.parametrize("kind", [NLIRanker, EvidenceFilter])
def test_a_given_reranker_is_not_saved(kind: Any) -> None:
    """A component made with reranker= says that it cannot be serialized, instead of losing its model."""
    with pytest.raises(SerializationError, match="reranker="):
        kind(reranker=graded()).to_dict()


class Recorder(Tracer):
    """A tracer that knows which spans are open."""

    def __init__(self) -> None:
        self.open: list[str] = []
        self.closed: list[str] = []

    @contextlib.contextmanager
    def trace(
        self,
        operation_name: str,
        tags: dict[str, Any] | None = None,
        parent_span: Span | None = None,  # noqa: ARG002
    ) -> Iterator[Span]:
        """Note when a span opens and closes."""
        name = (tags or {}).get("haystack.component.name", operation_name)
        self.open.append(name)
        try:
            yield NullSpan()
        finally:
            self.open.remove(name)
            self.closed.append(name)

    def current_span(self) -> Span | None:
        """None is ever asked for."""
        return None


@pytest.mark.parametrize(("run", "made"), [(plain, Pipeline), (asynchronous, AsyncPipeline)])
@pytest.mark.parametrize("kind", [NLIRanker, EvidenceFilter])
def test_errors_come_out_of_a_pipeline(kind: Any, run: Any, made: Any) -> None:
    """What an engine raises is the cause of the pipeline's error, and every span that was opened is closed."""

    def out_of_order(_: Any) -> Any:
        message = "the model is out of order"
        raise RuntimeError(message)

    pipeline = made()
    pipeline.add_component("judge", kind(reranker=NLIReranker(FunctionEngine(out_of_order))))
    recorder = Recorder()
    enable_tracing(recorder)
    try:
        with pytest.raises(PipelineRuntimeError, match="out of order") as caught:
            run(pipeline, {"judge": {"query": CLAIM, "documents": documents(0.5)}})
    finally:
        disable_tracing()
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert recorder.open == []
    assert "judge" in recorder.closed
