"""Both components in pipelines: run, run asynchronously, saved and loaded."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import importlib
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import haystack
import pytest
from graded import CLAIM, documents, graded
from haystack import Document, Pipeline, tracing
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.core.errors import PipelineRuntimeError, SerializationError
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.tracing.tracer import NullSpan
from haystack.utils import ComponentDevice
from haystack_integrations.components.rankers.rerank_nli import EvidenceFilter, NLIRanker

from rerank_nli import FunctionEngine, NLIReranker

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

QUERY = "A cat is sleeping."
TEXTS = ["A cat sleeps on the mat.", "No cat is sleeping.", "A cat food was recalled.", "The cat is asleep in its box."]
# The pipeline that runs asynchronously is a class of its own before Haystack 3.
AsyncPipeline = getattr(haystack, "AsyncPipeline", Pipeline)


def connected(pipeline: Pipeline, **settings: Any) -> Pipeline:
    """The pipeline with a retriever, a ranker and a filter in it."""
    pipeline.add_component("retriever", InMemoryBM25Retriever(InMemoryDocumentStore()))
    pipeline.add_component("ranker", NLIRanker(top_k=3, **settings))
    pipeline.add_component("filter", EvidenceFilter(threshold=0.4, **settings))
    pipeline.connect("retriever.documents", "ranker.documents")
    pipeline.connect("ranker.documents", "filter.documents")
    return pipeline


def filled(pipeline: Pipeline) -> Pipeline:
    """The pipeline with the texts in its store."""
    store = pipeline.get_component("retriever").document_store
    store.write_documents([Document(id=f"t{i}", content=text) for i, text in enumerate(TEXTS)])
    return pipeline


def asked(query: Any = QUERY) -> dict[str, Any]:
    """The input of such a pipeline."""
    return {name: {"query": query} for name in ("retriever", "ranker", "filter")}


def test_a_pipeline_runs(bundled: NLIReranker) -> None:
    """Retriever, ranker and filter give what NLIReranker gives for the retriever's documents and scores."""
    pipeline = filled(connected(Pipeline()))
    retrieved = pipeline.get_component("retriever").run(QUERY)["documents"]
    expected = bundled.rank(
        QUERY, [d.content for d in retrieved], 3, retrieval_scores=[d.score for d in retrieved], fuse="linear"
    )
    found = pipeline.run(asked())["filter"]
    kept = [(retrieved[p.index].id, p.score) for p in expected if p.score >= 0.4]
    assert 0 < len(kept) < 3
    assert [(d.id, d.score) for d in found["documents"]] == kept
    assert [d.id for d in found["dropped"]] == [retrieved[p.index].id for p in expected if p.score < 0.4]


def test_a_pipeline_runs_asynchronously() -> None:
    """The asynchronous run of a pipeline gives what its plain run gives."""
    pipeline = filled(connected(AsyncPipeline()))
    found = asyncio.run(pipeline.run_async(asked()))
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


def test_another_process_loads_a_saved_pipeline() -> None:
    """A process that has not imported the components loads a saved pipeline with them, from its text alone."""
    script = (
        "import sys; from haystack import Pipeline; print(Pipeline.loads(sys.stdin.read()).get_component('ranker'))"
    )
    saved = connected(Pipeline()).dumps()
    result = subprocess.run([sys.executable, "-c", script], input=saved, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "NLIRanker" in result.stdout


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
    assert again._settings == settings


@pytest.mark.parametrize("kind", [NLIRanker, EvidenceFilter])
def test_a_given_reranker_is_not_saved(kind: Any) -> None:
    """A component made with reranker= says that it cannot be serialized, instead of losing its model."""
    with pytest.raises(SerializationError, match="reranker="):
        kind(reranker=graded()).to_dict()


class Recorder(tracing.Tracer):
    """A tracer that knows which spans are open."""

    def __init__(self) -> None:
        self.open: list[str] = []
        self.closed: list[str] = []

    @contextlib.contextmanager
    def trace(
        self,
        operation_name: str,
        tags: dict[str, Any] | None = None,
        parent_span: tracing.Span | None = None,  # noqa: ARG002
    ) -> Iterator[tracing.Span]:
        """Note when a span opens and closes."""
        name = (tags or {}).get("haystack.component.name", operation_name)
        self.open.append(name)
        try:
            yield NullSpan()
        finally:
            self.open.remove(name)
            self.closed.append(name)

    def current_span(self) -> tracing.Span | None:
        """None is ever asked for."""
        return None


def test_errors_come_out_of_a_pipeline() -> None:
    """What an engine raises is the cause of the pipeline's error, and every span that was opened is closed."""

    def out_of_order(_: Any) -> Any:
        message = "the model is out of order"
        raise RuntimeError(message)

    pipeline = Pipeline()
    pipeline.add_component("ranker", NLIRanker(reranker=NLIReranker(FunctionEngine(out_of_order))))
    recorder = Recorder()
    tracing.enable_tracing(recorder)
    try:
        with pytest.raises(PipelineRuntimeError, match="out of order") as caught:
            pipeline.run({"ranker": {"query": CLAIM, "documents": documents(0.5)}})
    finally:
        tracing.disable_tracing()
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert recorder.open == []
    assert "ranker" in recorder.closed


def test_the_namespaces_are_shared() -> None:
    """The packages above the module belong to no distribution, so that other integrations fit beside it."""
    for name in (
        "haystack_integrations",
        "haystack_integrations.components",
        "haystack_integrations.components.rankers",
    ):
        assert importlib.import_module(name).__file__ is None, name
