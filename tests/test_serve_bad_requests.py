"""Whatever the server is sent, it answers with what is wrong, in one form, and never with an error of its own."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import httpx
import hypothesis
import pytest
from serving import PATIENCE, Served, served

from rerank_nli import FunctionEngine
from rerank_nli.server import create_app
from rerank_nli.server_limits import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

schemathesis = pytest.importorskip("schemathesis")


ENGINE = FunctionEngine(lambda pairs: [[len(premise) / 10, 1.0, 0.5] for premise, _ in pairs])
EXAMPLES = 20  # of each route, of bodies that fit the schema and of bodies that do not


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    """A server that counts characters."""
    with served({"one": ENGINE}, limits=Limits(body_bytes=2**20)) as server:
        yield server


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 422, "the body: Field required"),
        (b"{", 400, "the body is no JSON: Expecting property name"),
        (b'{"query": "q", "texts": ["a"]} {}', 400, "Extra data"),
        (b'{"query": "\xff", "texts": ["a"]}', 400, "in UTF-8: 'utf-8' codec can't decode byte 0xff"),
        (b"[" * 100_000, 400, "nested too deeply"),
        (b'{"a":' * 100_000, 400, "nested too deeply"),
        (b'{"query": "q", "documents": ["a"], "top_n": ' + b"9" * 5_000 + b"}", 400, "Exceeds the limit"),
        (b'{"query": "q", "documents": ["a"], "top_n": 1e400}', 422, "top_n: Input should be a valid integer"),
        (b'{"query": "q", "documents": ["a"], "threshold": NaN}', 422, "threshold: Input should be a finite number"),
        (b'{"query": "q", "documents": ["a"], "threshold": 1e400}', 422, "threshold: Input should be a finite number"),
        (b'{"query": "q", "documents": ["a"], "threshold": 7}', 422, "threshold 7.0"),
        (b'{"query": "q", "documents": ["a"], "top_n": -1}', 422, "top_n: Input should be greater than or equal to 0"),
        (b'{"query": "q", "documents": ["a"], "top_n": "1"}', 422, "top_n: Input should be a valid integer"),
        (b'{"query": "q", "documents": ["a"], "top_n": true}', 422, "top_n: Input should be a valid integer"),
        (b'{"query": "q", "documents": "a"}', 422, "documents: Input should be a valid list"),
        (b'{"query": "q", "documents": ["a", 1]}', 422, "documents.1: Input should be a valid string"),
        (b'{"query": "q", "documents": ["a", null]}', 422, "documents.1: Input should be a valid string"),
        (b'{"query": "q", "documents": ["a", {"body": "b"}]}', 422, "document 1 is an object without a text in 'text'"),
        (b'{"query": "q", "documents": [{"text": 1}]}', 422, "document 0 is an object without a text in 'text'"),
        (b'{"query": "q", "texts": [{"text": "a"}]}', 422, "texts.0: Input should be a valid string"),
        (b'{"query": "q"}', 422, "documents: Field required"),
        (b'{"query": 1, "texts": []}', 422, "query: Input should be a valid string"),
        (b'{"query": " ", "texts": ["a"]}', 422, "blank"),
        (b'{"query": "q", "documents": ["a"], "direction": "up"}', 422, "direction: Input should be 'passage_entails"),
        (b'{"query": "q", "documents": ["a"], "template": "x"}', 422, "template 'x' has no {query}"),
        (b'{"query": "q", "documents": ["a"], "keep": "evidence", "score": "margin"}', 422, "keep='evidence'"),
        (b"[1]", 422, "the body: Input should be a valid dictionary"),
        (b"null", 422, "the body: "),
    ],
)
def test_bad_bodies(server: Served, body: bytes, status: int, message: str) -> None:
    """A body that cannot be used is refused with what is wrong and where, under each name that clients look for."""
    response = server.http.post("/rerank", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == status
    problem = response.json()
    assert message in problem["message"]
    assert problem["message"] == problem["detail"] == problem["error"]
    assert problem["error_type"] == "invalid"
    assert problem["id"] == response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/predict", {"inputs": "a"}, '"inputs" must be a pair'),
        ("/predict", {"inputs": ["a"]}, '"inputs" must be a pair'),
        ("/predict", {"inputs": [["a", "b"], ["c"]]}, '"inputs" must be a pair'),
        ("/predict", {"inputs": [["a", 1]]}, '"inputs" must be a pair'),
        ("/predict", {"inputs": {"a": "b"}}, '"inputs" must be a pair'),
        ("/predict", {}, '"inputs" must be a pair'),
        ("/v1/verify", {"claim": "a", "passages": ["b"], "threshold": 2}, "threshold: Input should be less than or"),
        ("/v1/verify", {"claim": "", "passages": ["b"]}, "blank"),
        ("/v1/check", {"answer": "a", "passages": "b"}, "passages: Input should be a valid list"),
        ("/v2/rerank", {"query": "a", "documents": [1]}, "documents.0: Input should be a valid string"),
    ],
)
def test_bad_values(server: Served, path: str, body: Any, message: str) -> None:
    """So are bodies of the other routes."""
    response = server.http.post(path, json=body)
    assert response.status_code == 422
    assert message in response.json()["message"]


def test_surrogates(server: Served) -> None:
    """Half a character, which no UTF-8 holds, comes back as it was escaped."""
    body = b'{"query": "q", "documents": ["\\ud800 a"], "return_documents": true}'
    response = server.http.post("/rerank", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 200
    assert response.json()["results"][0]["document"]["text"] == "\ud800 a"


def test_no_such_route(server: Served) -> None:
    """Another path or method is 404 or 405 in the same form."""
    for method, path, status in (("GET", "/v3/rerank", 404), ("GET", "/rerank", 405), ("PUT", "/rerank", 405)):
        response = server.http.request(method, path)
        assert response.status_code == status
        assert response.json()["message"].endswith("/docs lists what there is")


def test_no_http(server: Served) -> None:
    """What is not HTTP is answered with 400, and the server goes on."""
    with socket.create_connection(("127.0.0.1", httpx.URL(server.url).port or 0), PATIENCE) as client:
        client.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 400 ")
    assert server.http.get("/health").status_code == 200


# A server of its own: schemathesis gives it, one after another, what its OpenAPI page allows and what it does not.
SCHEMA = schemathesis.openapi.from_dict(create_app({"one": ENGINE}).openapi())


@SCHEMA.parametrize()  # type: ignore[untyped-decorator]
@hypothesis.settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
def test_the_openapi_page(case: Any, server: Served) -> None:
    """Every answer is one that the OpenAPI page describes, and none is an error of the server's own."""
    beyond_a_schema = [schemathesis.checks.positive_data_acceptance]  # a blank query fits the schema, and is refused
    case.call_and_validate(base_url=server.url, excluded_checks=beyond_a_schema)
