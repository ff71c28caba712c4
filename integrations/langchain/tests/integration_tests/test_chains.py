"""Inside LangChain's own retrievers and pipelines, and in chains over vector stores."""

from __future__ import annotations

import asyncio
import json
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import CrossEncoderReranker, DocumentCompressorPipeline
from langchain_community.vectorstores import FAISS
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from langchain_rerank_nli import NLICrossEncoder, NLIGroundedness, NLIRerank, NLIRerankRetriever
from langchain_text_splitters import CharacterTextSplitter

from rerank_nli import NLIReranker

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

CLAIM = "The kettle is red."
TEXTS = {
    "bread": "Four slices of bread fit in.",
    "shop": "The kettle is red.",
    "gossip": "The kettle is not red at all.",
    "history": "It was made in Leeds by hand.",
}


@pytest.fixture(params=["faiss", "memory"])
def store(request: pytest.FixtureRequest, words: Embeddings) -> VectorStore:
    """The texts in a vector store, once in FAISS and once in LangChain's own."""
    kinds: dict[str, type[VectorStore]] = {"faiss": FAISS, "memory": InMemoryVectorStore}
    documents = [Document(text, id=name, metadata={"source": name}) for name, text in TEXTS.items()]
    return kinds[request.param].from_documents(documents, words)


def names(documents: Any) -> list[str | None]:
    return [document.id for document in documents]


def test_a_chain_over_a_store(store: VectorStore, bundled: NLIReranker) -> None:
    """From a claim over a vector store, reranking and a chat model to a cited answer, awaited or not."""
    retriever = store.as_retriever(search_kwargs={"k": 4})
    rerank = NLIRerank(reranker=bundled, threshold=0.5).as_runnable()
    prompt = ChatPromptTemplate.from_template("{documents}\n{query}")
    answer = prompt | FakeListChatModel(responses=[f"{CLAIM} It was made in 1987."]) | StrOutputParser()
    chain = (
        {"query": RunnablePassthrough(), "documents": retriever}
        | RunnablePassthrough.assign(documents=rerank)
        | RunnablePassthrough.assign(answer=answer)
        | RunnablePassthrough.assign(report=NLIGroundedness(reranker=bundled))
    )
    for result in (chain.invoke(CLAIM), asyncio.run(chain.ainvoke(CLAIM))):
        assert names(result["documents"]) == ["shop"]
        first, second = result["report"]["sentences"]
        assert first["supporting"]["passages"][0]["source"] == "shop"
        assert second["label"] != "supported"
        assert json.loads(json.dumps(result["report"])) == result["report"]


class UngroundedError(ValueError):
    """What a chain raises when nothing backs an answer."""


@pytest.fixture
def checked(bundled: NLIReranker) -> Runnable[str, Any]:
    """From a question to the report on a chat model's answer, of which the first says what no document says."""
    model = FakeListChatModel(responses=["The kettle is red. It was made in 1987.", "The kettle is red."])
    told = {name: text for name, text in TEXTS.items() if name != "gossip"}
    documents = [Document(text, id=name, metadata={"source": name}) for name, text in told.items()]
    found: Runnable[str, Any] = RunnableLambda(lambda question: {"question": question, "documents": documents})
    answer: Runnable[Any, str] = itemgetter("question") | model | StrOutputParser()
    return found | RunnablePassthrough.assign(answer=answer) | NLIGroundedness(reranker=bundled)


def test_a_chain_that_retries(checked: Runnable[str, Any]) -> None:
    """LangChain's own retry asks the chat model again until every sentence is supported."""

    def grounded(report: dict[str, Any]) -> str:
        if report["groundedness"] < 1:
            raise UngroundedError(report["answer"])
        return str(report["answer"])

    once = checked | grounded
    twice = once.with_retry(
        retry_if_exception_type=(UngroundedError,), wait_exponential_jitter=False, stop_after_attempt=2
    )
    assert twice.invoke("Which colour is it?") == "The kettle is red."
    with pytest.raises(UngroundedError, match="1987"):
        once.invoke("Which colour is it?")  # after its last answer the chat model begins anew


def test_a_chain_that_cites(checked: Runnable[str, Any]) -> None:
    """A chain puts the sources of the documents that back a sentence after it, awaited or not."""

    def cited(report: dict[str, Any]) -> list[tuple[str, list[str]]]:
        return [(s["claim"], [p["source"] for p in s["supporting"]["passages"]]) for s in report["sentences"]]

    chain = checked | cited
    assert chain.invoke("How old is it?") == [("The kettle is red.", ["shop"]), ("It was made in 1987.", [])]
    assert asyncio.run(chain.ainvoke("Which colour is it?")) == [("The kettle is red.", ["shop"])]


def test_the_store_keeps_its_documents(store: VectorStore, bundled: NLIReranker) -> None:
    """What is retrieved after a reranking is what was retrieved before it."""
    retriever = store.as_retriever(search_kwargs={"k": 4})
    before = [(d.id, dict(d.metadata)) for d in retriever.invoke(CLAIM)]
    ranked = NLIRerankRetriever(base_retriever=retriever, reranker=bundled).invoke(CLAIM)
    assert names(ranked)[0] == "shop"
    assert [(d.id, d.metadata) for d in retriever.invoke(CLAIM)] == before


@pytest.mark.parametrize("awaited", [False, True])
def test_contextual_compression(awaited: bool, store: VectorStore, bundled: NLIReranker, events: Any) -> None:  # noqa: FBT001
    """LangChain's compression retriever returns what the compressor keeps, and every run in it ends."""
    retriever = ContextualCompressionRetriever(
        base_compressor=NLIRerank(reranker=bundled, threshold=0.5, keep="evidence"),
        base_retriever=store.as_retriever(search_kwargs={"k": 4}),
    )
    config: Any = {"callbacks": [events]}
    found = asyncio.run(retriever.ainvoke(CLAIM, config)) if awaited else retriever.invoke(CLAIM, config)
    assert set(names(found)) == {"shop", "gossip"}
    assert [event.split()[-1] for event in events.seen] == ["start", "start", "end", "end"]


@pytest.mark.parametrize("awaited", [False, True])
def test_a_pipeline_of_compressors(awaited: bool, bundled: NLIReranker) -> None:  # noqa: FBT001
    """After a splitter in LangChain's pipeline the pieces are ranked, and a second reranker's score is what stays."""
    pipeline = DocumentCompressorPipeline(
        transformers=[
            CharacterTextSplitter(separator="\n", chunk_size=40, chunk_overlap=0),
            NLIRerank(reranker=bundled, top_n=2),
            NLIRerank(reranker=NLIReranker(bundled.engine, score="margin"), top_n=1),
        ]
    )
    long = Document("\n".join(TEXTS.values()), metadata={"source": "kitchen"})
    call = asyncio.run(pipeline.acompress_documents([long], CLAIM)) if awaited else None
    [best] = call or pipeline.compress_documents([long], CLAIM)
    assert best.page_content == TEXTS["shop"]
    assert best.metadata["source"] == "kitchen"
    margin = best.metadata["nli_entailment"] - best.metadata["nli_contradiction"]
    assert best.metadata["relevance_score"] == pytest.approx(margin)


def test_an_engine_error_inside_a_pipeline(failing: NLIReranker, events: Any) -> None:
    """An engine's error comes out of LangChain's retriever, whose run is closed as failed."""
    retriever = ContextualCompressionRetriever(
        base_compressor=DocumentCompressorPipeline(transformers=[NLIRerank(reranker=failing)]),
        base_retriever=RunnableLambda(lambda _: [Document("It sails.")]),
    )
    with pytest.raises(OSError, match="no power"):
        retriever.invoke(CLAIM, {"callbacks": [events]})
    assert events.seen[-1] == "retriever error: no power for 1 pairs"


def test_the_stock_cross_encoder_reranker(store: VectorStore, bundled: NLIReranker) -> None:
    """LangChain's CrossEncoderReranker with our cross-encoder ranks as NLIRerank does."""
    stock = CrossEncoderReranker(model=NLICrossEncoder(reranker=bundled), top_n=3)
    found = store.as_retriever(search_kwargs={"k": 4}).invoke(CLAIM)
    own = NLIRerank(reranker=bundled, top_n=3).compress_documents(found, CLAIM)
    assert names(stock.compress_documents(found, CLAIM)) == names(own)
    assert names(own)[0] == "shop"
