"""Clients of Jina and of Text Embeddings Inference, in LlamaIndex and Haystack, ask the server unchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from serving import CLAIM, PASSAGES, Served, close_to, served

from rerank_nli import NLIReranker, load
from rerank_nli.server_limits import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.usefixtures("untidy_clients"), pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")]
pytest.importorskip("llama_index.core")


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    """The bundled model behind a token."""
    with served({"mini": load()}, limits=Limits(keys=("key",))) as server:
        yield server


@pytest.fixture
def expected(bundled: NLIReranker) -> Any:
    """Texts and scores of the best two."""
    return close_to(bundled.rank(CLAIM, PASSAGES, 2).to_pairs())


def reranked(postprocessor: Any) -> list[list[Any]]:
    """What a LlamaIndex postprocessor makes of the passages."""
    from llama_index.core.schema import NodeWithScore, TextNode

    nodes = [NodeWithScore(node=TextNode(text=text), score=0.5) for text in PASSAGES]
    return [[n.node.get_content(), n.score] for n in postprocessor.postprocess_nodes(nodes, query_str=CLAIM)]


def test_llama_index_jina(server: Served, expected: Any) -> None:
    """LlamaIndex's JinaRerank gives the library's scores."""
    module = pytest.importorskip("llama_index.postprocessor.jinaai_rerank")
    rerank = module.JinaRerank(base_url=f"{server.url}/v1", api_key="key", model="mini", top_n=2)
    assert reranked(rerank) == expected


def test_llama_index_cohere(server: Served, expected: Any) -> None:
    """LlamaIndex's CohereRerank gives the library's scores."""
    module = pytest.importorskip("llama_index.postprocessor.cohere_rerank")
    assert reranked(module.CohereRerank(base_url=server.url, api_key="key", model="mini", top_n=2)) == expected


def test_llama_index_tei(server: Served, expected: Any) -> None:
    """LlamaIndex's TextEmbeddingInference gives the library's scores."""
    module = pytest.importorskip("llama_index.postprocessor.tei_rerank")
    rerank = module.TextEmbeddingInference(base_url=server.url, top_n=2, auth_token="Bearer key")  # noqa: S106
    assert reranked(rerank) == expected


def test_haystack_jina(server: Served, expected: Any) -> None:
    """Haystack's JinaRanker gives the library's scores, and names model and usage."""
    module = pytest.importorskip("haystack_integrations.components.rankers.jina")
    from haystack import Document
    from haystack.utils import Secret

    ranker = module.JinaRanker("mini", Secret.from_token("key"), top_k=2, base_url=f"{server.url}/v1/rerank")
    answer = ranker.run(query=CLAIM, documents=[Document(content=text) for text in PASSAGES])
    assert [[document.content, document.score] for document in answer["documents"]] == expected
    assert answer["meta"]["model"] == "mini"
    assert set(answer["meta"]["usage"]) == {"prompt_tokens", "total_tokens"}


def test_what_they_show_of_an_error(server: Served) -> None:
    """What the server refuses, Jina's clients show with the server's message."""
    module = pytest.importorskip("llama_index.postprocessor.jinaai_rerank")
    rerank = module.JinaRerank(base_url=f"{server.url}/v1", api_key="key", model="other", top_n=2)
    with pytest.raises(RuntimeError, match="there is 'mini'"):
        reranked(rerank)
