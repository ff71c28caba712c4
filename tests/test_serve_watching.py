"""What can be seen of a server: its metrics, its log without texts, the ids of requests."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from serving import PATIENCE, Served, held, in_thread, served, until

from rerank_nli import FunctionEngine, NLIReranker

if TYPE_CHECKING:
    from collections.abc import Iterator


def _failing(pairs: list[tuple[str, str]]) -> list[list[float]]:
    if any("fail" in premise for premise, _ in pairs):
        message = f"cannot read {pairs[0][0]}"
        raise RuntimeError(message)
    return [[1.0, 0.0, 0.0]] * len(pairs)


@pytest.fixture
def server() -> Iterator[Served]:
    """A server whose engine fails when it is asked to."""
    with served({"one": FunctionEngine(_failing, max_length=40)}) as server:
        yield server


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The fields of each line of the log."""
    return [record.fields for record in caplog.records if record.name == "rerank_nli.server"]  # type: ignore[attr-defined]


def test_merging_is_seen() -> None:
    """Requests that wait while another is scored are scored in one batch, and the metrics say so."""
    with held() as (engine, server):
        calls = [in_thread(lambda: server.post("/rerank", {"query": "q", "texts": ["first"]}))]
        until(lambda: engine.begun)
        calls += [
            in_thread(lambda i=i: server.post("/rerank", {"query": "q", "texts": [f"text {i}"]}))  # type: ignore[misc]
            for i in range(10)
        ]
        until(lambda: server.metric("calls_waiting") == 10)
        engine.open.set()
        for thread, results in calls:
            thread.join(PATIENCE)
            assert results
        assert [len(batch) for batch in engine.begun] == [1, 10]
        assert server.metric("merged_calls_count", model="held") == 2
        assert server.metric("merged_calls_sum", model="held") == 11
        assert server.metric("batch_pairs_sum", model="held") == 11
        assert server.metric("batch_tokens_sum", model="held") == 2 + 10 * 3
        assert server.metric("batch_pairs_bucket", model="held", le="1.0") == 1


def test_counts(server: Served) -> None:
    """Requests, passages, windows, latency and what the cache knew are counted."""
    long = " ".join(f"word{i}" for i in range(60))
    windows = sum(p.windows for p in NLIReranker(FunctionEngine(_failing, max_length=40)).rank("q", ["a", long]))
    server.post("/rerank", {"query": "q", "texts": ["a", long]})
    server.post("/rerank", {"query": "q", "texts": ["a"]})
    server.http.post("/v1/rerank", json={})
    server.http.get("/nowhere")
    until(lambda: server.metric("requests_total", route="other", status="404") == 1)
    assert server.metric("requests_total", route="/rerank", status="200") == 2
    assert server.metric("requests_total", route="/v1/rerank", status="422") == 1
    assert server.metric("request_seconds_count", route="/rerank") == 2
    assert server.metric("passages_sum", model="one") == 3
    assert server.metric("windows_sum", model="one") == windows + 1
    assert server.metric("pairs_total", model="one") == windows + 1
    assert server.metric("cache_hits_total", model="one") == 1
    assert server.metric("batch_pairs_sum", model="one") == windows > 2


def test_memory_is_shared(server: Served) -> None:
    """What was scored is remembered under other settings too, and usage counts only what the model read."""
    asked = {"query": "q", "documents": ["a b"]}
    assert server.post("/rerank", asked)["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    for settings in ({"score": "margin"}, {"threshold": 0.9}, {"template": "{query}"}):
        assert server.post("/rerank", asked | settings)["usage"]["total_tokens"] == 0
    assert server.post("/rerank", asked | {"direction": "query_entails_passage"})["usage"]["total_tokens"] == 3


def test_ids(server: Served) -> None:
    """A request keeps the id it comes with, and gets one where it has none or one that no log should hold."""
    assert server.http.get("/health", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    refused = server.http.post("/rerank", json={}, headers={"X-Request-ID": "abc-2"})
    assert (refused.headers["x-request-id"], refused.json()["id"]) == ("abc-2", "abc-2")
    for bad in ('"}', "x" * 200):
        made = server.http.get("/health", headers={"X-Request-ID": bad}).headers["x-request-id"]
        assert len(made) == 32
    assert server.post("/rerank", {"query": "q", "documents": ["a"]}, headers={"X-Request-ID": "i"})["id"] == "i"


def test_log(server: Served, caplog: pytest.LogCaptureFixture) -> None:
    """Each request is one line with its id, route, status and time, and without a word of what was asked."""
    caplog.set_level(logging.INFO, "rerank_nli.server")
    with caplog.at_level(logging.INFO, "rerank_nli.server"):
        server.post("/rerank", {"query": "SECRET", "texts": ["SECRET"]}, headers={"X-Request-ID": "one"})
        server.http.post("/rerank?SECRET", json={"query": "SECRET", "documents": [{"SECRET": 1}]})
        server.http.get("/SECRET")
    until(lambda: len(lines(caplog)) == 3)
    assert [(line["route"], line["status"]) for line in lines(caplog)] == [
        ("/rerank", 200),
        ("/rerank", 422),
        ("other", 404),
    ]
    assert lines(caplog)[0]["id"] == "one"
    assert 0 <= lines(caplog)[0]["seconds"] < PATIENCE
    assert "SECRET" not in json.dumps(lines(caplog))


def test_failure(server: Served, caplog: pytest.LogCaptureFixture) -> None:
    """An engine that fails gives 500 without a word of why; the log has the places, without the text."""
    caplog.set_level(logging.INFO, "rerank_nli.server")
    response = server.http.post("/rerank", json={"query": "q", "texts": ["fail SECRET"]})
    assert response.status_code == 500
    until(lambda: lines(caplog))
    line = lines(caplog)[0]
    assert response.json()["message"].endswith(line["id"])
    assert line["failure"]["type"] == "RuntimeError"
    assert any("_failing" in frame for frame in line["failure"]["frames"])
    for held_back in ("SECRET", "Traceback", "RuntimeError"):
        assert held_back not in response.text
    assert "SECRET" not in json.dumps(line)
    assert server.http.post("/rerank", json={"query": "q", "texts": ["a"]}).status_code == 200


def test_log_with_texts(caplog: pytest.LogCaptureFixture) -> None:
    """Asked to, the log has what was asked, and what an error said."""
    caplog.set_level(logging.INFO, "rerank_nli.server")
    with served({"one": FunctionEngine(_failing)}, log_texts=True) as server:
        server.post("/rerank", {"query": "q", "texts": ["a"]})
        server.http.post("/rerank", json={"query": "q", "texts": ["fail"]})
    assert lines(caplog)[0]["texts"] == {"query": "q", "texts": ["a"]}
    assert lines(caplog)[1]["failure"]["message"] == "cannot read fail"
