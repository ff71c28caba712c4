"""Both postprocessors where they belong: between a retriever and a language model, which is a mock here."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.chat_engine import CondensePlusContextChatEngine, ContextChatEngine
from llama_index.core.chat_engine.types import ChatMode
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import TextNode
from llama_index.postprocessor.rerank_nli import EvidenceFilter, NLIRerank
from offline import WordEmbedding
from stated_nodes import failing

from rerank_nli import FunctionEngine, NLIReranker

CLAIM = "The Harrow Lane library is open on Sundays."
TEXTS = {
    "refuting": "The Harrow Lane library is not open on Sundays.",
    "supporting": "On Sundays the Harrow Lane library is open from ten to four.",
    "beside": "The Harrow Lane library lends skis.",
    "unrelated": "Rye bread keeps for a week.",
}


@pytest.fixture(scope="module")
def retriever() -> Any:
    """Finds all four texts, those with the most words of the query first."""
    nodes = [TextNode(text=text, id_=name) for name, text in TEXTS.items()]
    return VectorStoreIndex(nodes, embed_model=WordEmbedding()).as_retriever(similarity_top_k=4)


@pytest.fixture
def chain(bundled: NLIReranker) -> list[Any]:
    """A filter and a reranker behind it, with one model."""
    return [EvidenceFilter(threshold=0.5, reranker=bundled), NLIRerank(top_n=2, reranker=bundled)]


def test_the_retriever_alone_is_taken_in(retriever: Any) -> None:
    """Without a postprocessor the text that contradicts the claim comes first."""
    assert retriever.retrieve(CLAIM)[0].node_id == "refuting"


@pytest.mark.parametrize("how", ["plain", "async"])
def test_query_engine(how: str, retriever: Any, chain: list[Any]) -> None:
    """A query engine answers from what supports the claim, and its prompt holds nothing else."""
    engine = RetrieverQueryEngine.from_args(retriever, llm=MockLLM(), node_postprocessors=chain)
    response = engine.query(CLAIM) if how == "plain" else asyncio.run(engine.aquery(CLAIM))
    assert [node.node_id for node in response.source_nodes] == ["supporting"]
    assert TEXTS["supporting"] in str(response)
    assert not any(TEXTS[name] in str(response) for name in ("refuting", "beside", "unrelated"))


@pytest.mark.parametrize("made", [ContextChatEngine, CondensePlusContextChatEngine])
@pytest.mark.parametrize("how", ["plain", "async", "stream"])
def test_chat_engine(how: str, made: Any, retriever: Any, chain: list[Any]) -> None:
    """A chat engine answers from what supports the claim, turn after turn."""
    # A mock would condense a question and the chat so far to the prompt that asks for it.
    engine = made.from_defaults(retriever, llm=MockLLM(), node_postprocessors=chain, skip_condense=True)
    for _ in range(2):
        if how == "stream":
            response = engine.stream_chat(CLAIM)
            text = "".join(response.response_gen)
        else:
            response = engine.chat(CLAIM) if how == "plain" else asyncio.run(engine.achat(CLAIM))
            text = str(response)
        assert [node.node_id for node in response.source_nodes] == ["supporting"]
        assert TEXTS["supporting"] in text
        assert TEXTS["unrelated"] not in text


def test_from_an_index(chain: list[Any]) -> None:
    """An index takes the postprocessors when it makes its engines."""
    nodes = [TextNode(text=text, id_=name) for name, text in TEXTS.items()]
    index = VectorStoreIndex(nodes, embed_model=WordEmbedding())
    query_engine = index.as_query_engine(llm=MockLLM(), similarity_top_k=4, node_postprocessors=chain)
    chat_engine = index.as_chat_engine(ChatMode.CONTEXT, llm=MockLLM(), similarity_top_k=4, node_postprocessors=chain)
    for response in (query_engine.query(CLAIM), chat_engine.chat(CLAIM)):
        assert [node.node_id for node in response.source_nodes] == ["supporting"]


@pytest.mark.parametrize("how", ["plain", "async"])
def test_the_engines_callbacks_hear_of_it(how: str, retriever: Any, chain: list[Any]) -> None:
    """The callback manager of a query engine hears of the reranking inside its query."""
    handler = LlamaDebugHandler(print_trace_on_end=False)
    engine = RetrieverQueryEngine.from_args(
        retriever, llm=MockLLM(), node_postprocessors=chain, callback_manager=CallbackManager([handler])
    )
    if how == "plain":
        engine.query(CLAIM)
    else:
        asyncio.run(engine.aquery(CLAIM))
    ((start, end),) = handler.get_event_pairs(CBEventType.RERANKING)
    ((query, _),) = handler.get_event_pairs(CBEventType.QUERY)
    assert start.id_ == end.id_
    assert start.id_ in engine.callback_manager.trace_map[query.id_]


@pytest.mark.parametrize("how", ["plain", "async"])
def test_errors_come_out_of_the_engine(how: str, retriever: Any) -> None:
    """What the model raises comes out of the query engine."""
    broken = NLIRerank(reranker=NLIReranker(FunctionEngine(failing)))
    engine = RetrieverQueryEngine.from_args(retriever, llm=MockLLM(), node_postprocessors=[broken])
    with pytest.raises(RuntimeError, match="no power for 4 pairs"):
        _ = engine.query(CLAIM) if how == "plain" else asyncio.run(engine.aquery(CLAIM))
