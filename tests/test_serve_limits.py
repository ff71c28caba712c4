"""What the server takes on: how much at a time, for how long, from whom, and who may still ask."""

from __future__ import annotations

import asyncio
import gc
import re
import socket
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from serving import PATIENCE, Served, held, in_thread, served, until

from rerank_nli import FunctionEngine
from rerank_nli.server_limits import Gate, Limits, RefusalError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rerank_nli.shared_engine import Work

ONE_BY_ONE = {"batch_tokens": 2}  # a pair of words is a batch


def ask(server: Served, *texts: str, **options: Any) -> httpx.Response:
    """A request that holds a pair for each text."""
    return server.http.post("/rerank", json={"query": "q", "texts": texts}, **options)


def test_full() -> None:
    """With the queue full a request gets 429 with Retry-After, and those inside are answered."""
    with held(limits=Limits(queue=2, threads=1)) as (engine, server):
        calls = [in_thread(lambda text=text: ask(server, text)) for text in ("a", "b")]  # type: ignore[misc]
        until(lambda: server.gate.inside == 2)
        refused = ask(server, "c")
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error_type"] == "overloaded"
        assert server.metric("requests_total", route="/rerank", status="429") == 1
        assert server.metric("requests_inside") == 2
        assert server.metric("requests_waiting") == 1
        engine.open.set()
        for thread, results in calls:
            thread.join(PATIENCE)
            assert results[0].status_code == 200
        until(lambda: server.gate.inside == 0)
        assert ask(server, "c").status_code == 200
        assert engine.seen == {"a", "b", "c"}


def test_deadline() -> None:
    """Past its deadline a request gets 504, and what is left of it is never scored, here or in the line."""
    with held(limits=Limits(deadline=0.3), **ONE_BY_ONE) as (engine, server):
        late = ask(server, "a", "b", "c")
        assert late.status_code == 504
        assert "0.3 seconds" in late.json()["message"]
        engine.open.set()
        until(lambda: server.gate.inside == 0)
        assert ask(server, "d").status_code == 200
        assert engine.begun in ([["a"], ["d"]], [["b"], ["d"]], [["c"], ["d"]])
        assert server.metric("requests_total", status="504") == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_deadline_in_the_line(threads: int) -> None:
    """A request whose turn comes after its deadline, be it for a thread or for the engine, is not scored at all."""
    with held(limits=Limits(deadline=0.3, threads=threads), **ONE_BY_ONE) as (engine, server):
        thread, results = in_thread(lambda: ask(server, "a"))
        until(lambda: engine.begun)
        assert ask(server, "b").status_code == 504
        thread.join(PATIENCE)
        engine.open.set()
        assert results[0].status_code == 504
        assert ask(server, "c").status_code == 200
        assert engine.seen == {"a", "c"}


def test_client_leaves() -> None:
    """What is left of a request whose client has left is not scored."""
    with held(**ONE_BY_ONE) as (engine, server):
        body = b'{"query": "q", "texts": ["a", "b", "c", "d"]}'
        head = (
            f"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        port = httpx.URL(server.url).port
        with socket.create_connection(("127.0.0.1", port or 0)) as client:
            client.sendall(head.encode() + body)
            until(lambda: engine.begun)
        until(lambda: server.metric("requests_total", status="499") == 1)
        engine.open.set()
        until(lambda: server.gate.inside == 0)
        assert ask(server, "e").status_code == 200
        assert len(engine.begun) == 2
        assert engine.begun[-1] == ["e"]


def test_what_nobody_waits_for_is_let_go() -> None:
    """A request whose client has left holds no memory, though all threads are busy and its turn is yet to come."""

    class Asked:
        """What a request asks; its call is bound to it."""

        def __call__(self, _: Work) -> None: ...

    class Left:
        """A request whose client has left."""

        async def receive(self) -> dict[str, str]:
            return {"type": "http.disconnect"}

    async def main() -> None:
        gate, busy = Gate(Limits(threads=1)), threading.Event()
        first = asyncio.ensure_future(gate.run(Waits(), time.monotonic(), lambda _: busy.wait(PATIENCE)))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        asked = Asked()
        let_go = weakref.ref(asked)
        with pytest.raises(RefusalError, match="the client has left"):
            await gate.run(Left(), time.monotonic(), asked)  # type: ignore[arg-type]
        del asked
        gc.collect()
        assert let_go() is None
        busy.set()
        assert await first
        gate.close()

    class Waits:
        """A request whose client waits."""

        async def receive(self) -> dict[str, str]:
            await asyncio.Event().wait()
            return {}

    asyncio.run(main())


def test_client_leaves_early() -> None:
    """A client that leaves before all of its body is there has left; it does not count as one that sent no JSON."""
    engine = FunctionEngine(lambda pairs: [[1.0, 0.0, 0.0]] * len(pairs))
    with served({"one": engine}) as server:
        with socket.create_connection(("127.0.0.1", httpx.URL(server.url).port or 0)) as client:
            head = "POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
            client.sendall(head.encode() + b'{"query"')
        until(lambda: server.metric("requests_total", route="/rerank") == 1)
        assert server.metric("requests_total", status="499") == 1


def test_small_beside_large() -> None:
    """A small request that comes after a large one is answered before most of that is scored."""
    with held(**ONE_BY_ONE, wait_ms=0) as (engine, server):
        large, results = in_thread(lambda: ask(server, *(f"w{i}" for i in range(200))))
        until(lambda: engine.begun)
        small, answers = in_thread(lambda: ask(server, "small"))
        until(lambda: server.metric("calls_waiting") == 1)
        engine.open.set()
        for thread in (small, large):
            thread.join(PATIENCE)
        assert answers[0].status_code == results[0].status_code == 200
        premises = [premise for batch in engine.begun for premise in batch]
        assert premises.index("small") <= 2
        assert len(premises) == 201


@pytest.fixture(scope="module")
def small() -> Iterator[Served]:
    """A server of small requests."""
    engine = FunctionEngine(lambda pairs: [[1.0, 0.0, 0.0]] * len(pairs))
    with served(
        {"one": engine}, limits=Limits(body_bytes=1_000, bodies_bytes=1_200, passages=3, characters=300)
    ) as server:
        yield server


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/rerank", {"query": "q" * 301, "texts": ["a"]}),
        ("/rerank", {"query": "q", "texts": ["a", "b" * 301]}),
        ("/rerank", {"query": "q", "documents": [{"text": "a" * 301}]}),
        ("/rerank", {"query": "q", "documents": ["a"], "template": "{query}" + "t" * 300}),
        ("/rerank", {"query": "q" * 151, "documents": ["a"], "template": "{query}{query}"}),
        ("/rerank", {"query": "q", "documents": [{"a": "a" * 150, "b": "b" * 150}], "rank_fields": ["a", "b"]}),
        ("/v2/rerank", {"query": "q", "documents": [{"a": "a" * 150, "b": "b" * 150}], "rank_fields": ["a", "b"]}),
        ("/v2/rerank", {"query": "q", "documents": ["a" * 301]}),
        ("/predict", {"inputs": [["a" * 301, "b"]]}),
        ("/v1/verify", {"claim": "q", "passages": ["a" * 301]}),
        ("/v1/check", {"answer": "q" * 301, "passages": ["a"]}),
    ],
)
def test_too_long(small: Served, path: str, body: dict[str, Any]) -> None:
    """A text that would hold the tokenizer up is 413 with both numbers, wherever it stands."""
    response = small.http.post(path, json=body)
    assert response.status_code == 413
    assert re.search(r"a text has 30\d characters, more than the 300", response.json()["message"])


@pytest.mark.parametrize(
    ("path", "asked", "what"),
    [
        ("/rerank", "query", "documents"),
        ("/v2/rerank", "query", "documents"),
        ("/v1/verify", "claim", "passages"),
        ("/v1/check", "answer", "passages"),
    ],
)
def test_what_nobody_reads_may_be_long(small: Served, path: str, asked: str, what: str) -> None:
    """Of a document that is an object only what is read is counted."""
    for document, status in (({"text": "a", "html": "h" * 301}, 200), ({"text": "a" * 301}, 413)):
        assert small.http.post(path, json={asked: "q", what: [document]}).status_code == status


def test_a_field_counts_once(small: Served) -> None:
    """A field that is named again and again is read once."""
    body = {"query": "q", "documents": [{"a": "a" * 150}], "rank_fields": ["a"] * 100, "return_documents": True}
    response = small.http.post("/rerank", json=body)
    assert response.json()["results"][0]["document"] == {"text": "a" * 150}


def test_bodies_together(small: Served) -> None:
    """Bodies that are held at a time, whole or not, have a limit together; what has left counts no more."""
    head = "POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n"
    body = {"query": "q", "texts": ["a " * 140, "b " * 140, "c " * 140]}
    before = small.metric("requests_total", status="499")
    with socket.create_connection(("127.0.0.1", httpx.URL(small.url).port or 0)) as client:
        client.sendall(head.encode() + b" " * 900)
        until(lambda: small.gate.held == 900)
        refused = small.http.post("/rerank", json=body)
        assert refused.status_code == 429
        assert "more than the 1200 bytes" in refused.json()["message"]
        assert int(refused.headers["Retry-After"]) >= 1
    until(lambda: small.metric("requests_total", status="499") == before + 1)
    assert small.http.post("/rerank", json=body).status_code == 200
    assert small.metric("requests_total", route="/rerank", status="429") >= 1


def test_health_without_a_body(small: Served) -> None:
    """Who balances loads may ask for the head of /health alone."""
    assert small.http.head("/health").status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/rerank", {"query": "q", "texts": ["a"] * 4}),
        ("/rerank", {"query": "q", "documents": ["a"] * 4}),
        ("/v2/rerank", {"query": "q", "documents": ["a"] * 4}),
        ("/predict", {"inputs": [["a", "b"]] * 4}),
        ("/v1/verify", {"claim": "q", "passages": ["a"] * 4}),
        ("/v1/check", {"answer": "One. Two.", "passages": ["a"] * 2}),
    ],
)
def test_too_many(small: Served, path: str, body: dict[str, Any]) -> None:
    """More passages than allowed, or for a check more pairs, are 413 with both numbers."""
    response = small.http.post(path, json=body)
    assert response.status_code == 413
    assert response.json()["message"].startswith("4 ")
    assert "more than the 3 of a request" in response.json()["message"]


def test_too_large(small: Served) -> None:
    """A body over the limit is 413, whether its length is said before it or not."""
    body = b'{"query": "q", "texts": ["' + b"a" * 1_000 + b'"]}'
    assert small.http.post("/rerank", content=body).status_code == 413
    unsaid = small.http.post("/rerank", content=iter([body[:600], body[600:]]))
    assert unsaid.status_code == 413
    assert "1000 bytes" in unsaid.json()["message"]
    assert ask(small, "a").status_code == 200


def test_refused_unread() -> None:
    """A request that is refused for other reasons than its size gets its answer before its body is read."""
    with held(limits=Limits(queue=1)) as (engine, server):
        thread, _ = in_thread(lambda: ask(server, "a"))
        until(lambda: engine.begun)
        assert ask(server, "word " * 2**20).status_code == 429
        engine.open.set()
        thread.join(PATIENCE)


def test_slow_body() -> None:
    """A body that does not arrive before the deadline is 408."""
    engine = FunctionEngine(lambda pairs: [[1.0, 0.0, 0.0]] * len(pairs))
    with served({"one": engine}, limits=Limits(deadline=0.2)) as server:
        port = httpx.URL(server.url).port
        with socket.create_connection(("127.0.0.1", port or 0), PATIENCE) as client:
            head = "POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
            client.sendall(head.encode() + b'{"query"')
            assert client.recv(100).startswith(b"HTTP/1.1 408 ")


@pytest.fixture(scope="module")
def locked() -> Iterator[Served]:
    """A server with two tokens."""
    engine = FunctionEngine(lambda pairs: [[1.0, 0.0, 0.0]] * len(pairs))
    with served({"one": engine}, limits=Limits(keys=("open", "sesame"))) as server:
        yield server


POSTS = ("/rerank", "/v1/rerank", "/v2/rerank", "/infinity/rerank", "/predict", "/v1/verify", "/v1/check")
GETS = ("/", "/docs", "/openapi.json", "/metrics", "/info", "/v1/models", "/nowhere")


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer opens", "Bearer Open", "open", "Basic b3Blbg==", "Basic \xff"]
)
def test_without_the_token(locked: Served, header: str) -> None:
    """Without a token, or with another, nothing but /health answers."""
    headers = [(b"authorization", header.encode("latin-1"))]
    for method, paths in (("POST", POSTS), ("GET", GETS)):
        for path in paths:
            response = locked.http.request(method, path, headers=headers, json={})
            assert (path, response.status_code) == (path, 401)
            assert response.headers["www-authenticate"].startswith("Basic ")
    assert locked.http.get("/health", headers=headers).status_code == 200


@pytest.mark.parametrize("header", ["Bearer open", "bearer sesame", "Basic OnNlc2FtZQ=="])
def test_with_the_token(locked: Served, header: str) -> None:
    """Each token opens, as a bearer token and as the password that a browser asks for."""
    assert ask(locked, "a", headers={"Authorization": header}).status_code == 200


def test_stopping() -> None:
    """Once it stops, a server finishes what it has begun, and what is new gets 503, /health too."""
    with held() as (engine, server):
        thread, results = in_thread(lambda: ask(server, "a"))
        until(lambda: engine.begun)
        server.gate.stop()
        refused = ask(server, "b")
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert server.http.get("/health").status_code == 503
        engine.open.set()
        thread.join(PATIENCE)
        assert results[0].status_code == 200
        assert engine.seen == {"a"}


def test_no_other_site_may_ask(small: Served) -> None:
    """A page of another site is given no leave to ask, and what it can send without leave is refused."""
    origin = {"Origin": "https://example.com"}
    asked = small.http.options("/rerank", headers={**origin, "Access-Control-Request-Method": "POST"})
    assert "access-control-allow-origin" not in asked.headers
    simple = small.http.post("/rerank", content=b"{}", headers={**origin, "Content-Type": "text/plain"})
    assert simple.status_code == 415


def test_threads_end() -> None:
    """Nothing of a server is left running after it has stopped."""
    before = set(threading.enumerate())
    engine = FunctionEngine(lambda pairs: [[1.0, 0.0, 0.0]] * len(pairs))
    with served({"one": engine}) as server:
        assert ask(server, "a").status_code == 200
    assert set(threading.enumerate()) <= before
