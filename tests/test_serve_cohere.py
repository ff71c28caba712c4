"""Cohere's SDK, and what LangChain and Haystack build on it, ask the server as they ask Cohere."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from serving import CLAIM, PASSAGES, PATIENCE, Served, close_to, held, in_thread, served, until

from rerank_nli import NLIReranker, load
from rerank_nli.server_limits import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

cohere = pytest.importorskip("cohere")
pytestmark = [pytest.mark.usefixtures("untidy_clients"), pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")]


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    """The bundled model behind a token."""
    with served({"mini": load()}, limits=Limits(keys=("key",)), headers={"Authorization": "Bearer key"}) as server:
        yield server


@pytest.fixture
def expected(bundled: NLIReranker) -> Any:
    """Places and scores of the best two."""
    return [close_to((p.index, p.score)) for p in bundled.rank(CLAIM, PASSAGES, 2)]


def test_second_version(server: Served, expected: Any) -> None:
    """The SDK's second client reads the library's order and scores."""
    answer = cohere.ClientV2("key", base_url=server.url).rerank(
        model="mini", query=CLAIM, documents=PASSAGES, top_n=2, max_tokens_per_doc=4096
    )
    assert [[r.index, r.relevance_score] for r in answer.results] == expected
    assert answer.meta.billed_units.search_units == 1


def test_first_version(server: Served, expected: Any) -> None:
    """The SDK's first client reads them too, with the documents that it asks for, texts and objects alike."""
    documents = [PASSAGES[0], {"text": PASSAGES[1], "year": "1987"}, PASSAGES[2]]
    answer = cohere.Client("key", base_url=server.url).rerank(
        query=CLAIM, documents=documents, top_n=2, return_documents=True
    )
    assert [[r.index, r.relevance_score] for r in answer.results] == expected
    assert [r.document.text for r in answer.results] == [PASSAGES[r.index] for r in answer.results]


def test_in_the_event_loop(server: Served, expected: Any) -> None:
    """So does the asynchronous client, of several requests at once."""

    async def ask() -> list[Any]:
        client = cohere.AsyncClientV2("key", base_url=server.url)
        calls = [client.rerank(model="mini", query=CLAIM, documents=PASSAGES, top_n=2) for _ in range(4)]
        return [[[r.index, r.relevance_score] for r in answer.results] for answer in await asyncio.gather(*calls)]

    assert asyncio.run(ask()) == [expected] * 4


def test_its_errors(server: Served) -> None:
    """What the server refuses comes as the SDK's own errors, with the server's message."""
    with pytest.raises(cohere.NotFoundError, match="there is 'mini'"):
        cohere.ClientV2("key", base_url=server.url).rerank(model="other", query=CLAIM, documents=PASSAGES)
    with pytest.raises(cohere.UnauthorizedError, match="Bearer TOKEN"):
        cohere.ClientV2("keys", base_url=server.url).rerank(model="mini", query=CLAIM, documents=PASSAGES)
    with pytest.raises(cohere.UnprocessableEntityError, match="blank"):
        cohere.ClientV2("key", base_url=server.url).rerank(model="mini", query=" ", documents=PASSAGES)


def test_it_asks_again() -> None:
    """Told by a full server when to ask again, the SDK does, and is answered."""
    with held(limits=Limits(queue=1)) as (engine, server):
        inside, _ = in_thread(lambda: server.post("/rerank", {"query": "q", "texts": ["a"]}))
        until(lambda: engine.begun)
        client = cohere.ClientV2("key", base_url=server.url)
        asking, answers = in_thread(lambda: client.rerank(model="held", query="q", documents=["b"]))
        until(lambda: server.metric("requests_total", status="429") == 1)
        engine.open.set()
        for thread in (inside, asking):
            thread.join(PATIENCE)
        assert [r.index for r in answers[0].results] == [0]


def test_langchain(server: Served, expected: Any) -> None:
    """LangChain's CohereRerank compresses with the library's scores."""
    langchain_cohere = pytest.importorskip("langchain_cohere")
    from langchain_core.documents import Document

    rerank = langchain_cohere.CohereRerank(model="mini", base_url=server.url, cohere_api_key="key", top_n=2)
    kept = rerank.compress_documents([Document(text) for text in PASSAGES], CLAIM)
    assert [[PASSAGES.index(d.page_content), d.metadata["relevance_score"]] for d in kept] == expected


def test_haystack(server: Served, expected: Any) -> None:
    """Haystack's CohereRanker ranks with the library's scores."""
    rankers = pytest.importorskip("haystack_integrations.components.rankers.cohere")
    from haystack import Document
    from haystack.utils import Secret

    ranker = rankers.CohereRanker(model="mini", api_base_url=server.url, api_key=Secret.from_token("key"), top_k=2)
    found = ranker.run(query=CLAIM, documents=[Document(content=text) for text in PASSAGES])["documents"]
    assert [[PASSAGES.index(d.content), d.score] for d in found] == expected
