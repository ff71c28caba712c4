"""litellm asks the server as five others: Cohere, Jina, vLLM, Text Embeddings Inference and Infinity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from serving import CLAIM, PASSAGES, Served, close_to, served

from rerank_nli import NLIReranker, load
from rerank_nli.server_limits import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.usefixtures("untidy_clients"), pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")]


@pytest.fixture(scope="module")
def litellm() -> Any:
    """The library, which asks nobody else for prices or for news."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        module = pytest.importorskip("litellm")
    module.telemetry = False
    return module


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    """The bundled model behind a token."""
    with served({"mini": load()}, limits=Limits(keys=("key",))) as server:
        yield server


@pytest.mark.parametrize(
    ("provider", "base"),
    [("cohere", ""), ("jina_ai", ""), ("hosted_vllm", ""), ("huggingface", ""), ("infinity", "/infinity")],
)
@pytest.mark.parametrize("returned", [{"return_documents": True}, {"return_documents": False}])
def test_providers(
    litellm: Any, server: Served, bundled: NLIReranker, provider: str, base: str, returned: dict[str, bool]
) -> None:
    """Each of litellm's forms gives the library's order, scores and documents."""
    answer = litellm.rerank(
        model=f"{provider}/mini",
        query=CLAIM,
        documents=PASSAGES,
        top_n=3,
        api_base=server.url + base,
        api_key="key",
        **returned,
    )
    expected = [
        {
            "index": p.index,
            "relevance_score": p.score,
            **({"document": {"text": p.text}} if returned["return_documents"] else {}),
        }
        for p in bundled.rank(CLAIM, PASSAGES)
    ]
    assert [dict(result) for result in answer.results] == close_to(expected)


def test_infinity_without_documents(litellm: Any, server: Served, bundled: NLIReranker) -> None:
    """As Infinity it may ask at the server's root too, as long as it wants no documents back."""
    answer = litellm.rerank(
        model="infinity/mini",
        query=CLAIM,
        documents=PASSAGES,
        api_base=server.url,
        api_key="key",
        return_documents=False,
    )
    assert [result["index"] for result in answer.results] == [p.index for p in bundled.rank(CLAIM, PASSAGES)]
