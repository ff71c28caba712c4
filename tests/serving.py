"""A real server on a loopback port, in a thread, and an engine that waits until a test lets it go on."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import pytest
import uvicorn
from bounds import INT8
from prometheus_client.parser import text_string_to_metric_families

from rerank_nli import FunctionEngine
from rerank_nli.server import create_app

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rerank_nli import Engine
    from rerank_nli.server_limits import Gate

PATIENCE = 30  # seconds after which what should have happened has not

CLAIM = "The kettle is red."
PASSAGES = ["The kettle is blue.", "The red kettle holds 1.7 litres.", "It rained all day."]


class Served(NamedTuple):
    """A server that answers."""

    url: str
    http: httpx.Client
    gate: Gate

    def post(self, path: str, body: Any, **options: Any) -> Any:
        """What a route answers, if it does."""
        response = self.http.post(path, json=body, **options)
        assert response.status_code == 200, response.text
        return response.json()

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        page = self.http.get("/metrics").text
        samples = (sample for family in text_string_to_metric_families(page) for sample in family.samples)
        return sum(s.value for s in samples if s.name == f"rerank_nli_{name}" and labels.items() <= s.labels.items())


@contextmanager
def served(engines: Mapping[str, Engine], headers: Mapping[str, str] | None = None, **options: Any) -> Iterator[Served]:
    """An app on a real server; `options` are those of `create_app`."""
    app = create_app(engines, **options)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, timeout=PATIENCE, headers=headers) as client:
            yield Served(url, client, app.state.gate)
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
    assert not thread.is_alive()


def until(true: Callable[[], Any]) -> None:
    """Return once something is true, and fail if that takes too long."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.005)


class Held:
    """A function for FunctionEngine that scores when it may: more words, more entailment.

    Attributes:
        open: set, it scores what comes.
        begun: premises of each batch that it was given.
    """

    def __init__(self) -> None:
        self.open = threading.Event()
        self.begun: list[list[str]] = []

    def __call__(self, pairs: list[tuple[str, str]]) -> list[list[float]]:
        """Logits, once it may."""
        self.begun.append([premise for premise, _ in pairs])
        assert self.open.wait(PATIENCE)
        return [[len(premise.split()), 1.0, 0.0] for premise, _ in pairs]

    @property
    def seen(self) -> set[str]:
        """All premises that it was given."""
        return {premise for batch in self.begun for premise in batch}


@contextmanager
def held(**options: Any) -> Iterator[tuple[Held, Served]]:
    """A server of one model, "held", that scores when the test lets it; at the end it does in any case."""
    function = Held()
    with served({"held": FunctionEngine(function)}, **options) as server:
        try:
            yield function, server
        finally:
            function.open.set()


def close_to(expected: Any) -> Any:
    """A result as JSON has it, its numbers as near as a model's are from batch to batch."""
    if isinstance(expected, dict):
        return {name: close_to(value) for name, value in expected.items()}
    if isinstance(expected, list | tuple):
        return [close_to(value) for value in expected]
    return pytest.approx(expected, abs=INT8.most) if isinstance(expected, float) else expected


def in_thread(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Begin a call, and give the list that will hold what it returns."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    return thread, results
