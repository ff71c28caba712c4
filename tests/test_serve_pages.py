"""The server's pages: what it takes is described in one page that asks nobody else for anything."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
from serving import Served, served

from rerank_nli import FunctionEngine
from rerank_nli.server_pages import PLAYGROUND

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUTES = ("/v2/rerank", "/v1/rerank", "/rerank", "/infinity/rerank", "/predict", "/v1/verify", "/v1/check")


class Seen(HTMLParser):
    """Collects a page's text, and every address that it would ask."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note addresses."""
        self.asked += [value or "" for name, value in attrs if name in ("src", "href")]
        assert tag != "script"

    def handle_data(self, data: str) -> None:
        """Note text."""
        self.text += data


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    """A server of one model."""
    with served({"one": FunctionEngine(lambda pairs: [[1.0, 0.0, 0.0]] * len(pairs))}) as server:
        yield server


def test_docs(server: Served) -> None:
    """/docs shows every route with the fields that the OpenAPI page has, without a script or another's address."""
    response = server.http.get("/docs")
    assert response.headers["content-security-policy"].startswith("default-src 'none'")
    seen = Seen()
    seen.feed(response.text)
    assert seen.asked == ["openapi.json"]
    assert "@import" not in response.text
    described = server.http.get("/openapi.json").json()
    assert set(ROUTES) < set(described["paths"])
    for path, methods in described["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}" in seen.text
    fields = {name for form in described["components"]["schemas"].values() for name in form.get("properties", {})}
    for name in ("rank_fields", "direction", "raw_scores", "claim", "answer"):
        assert name in fields
        assert name in seen.text


def test_its_examples(server: Served) -> None:
    """Every example for curl on the page is answered."""
    seen = Seen()
    seen.feed(server.http.get("/docs").text)
    examples = re.findall(
        r"curl http://127\.0\.0\.1:8080(\S+) -H 'Content-Type: application/json' -d '(.+?)'", seen.text
    )
    assert {path for path, _ in examples} == set(ROUTES)
    for path, body in examples:
        response = server.http.post(path, content=body, headers={"Content-Type": "application/json"})
        assert response.status_code == 200, response.text


def test_the_root(server: Served) -> None:
    """At / there is the playground, with the files that it asks for."""
    response = server.http.get("/")
    assert response.text == (PLAYGROUND / "index.html").read_text(encoding="utf-8")
    assert response.headers["content-security-policy"].startswith("default-src 'none'")
    for file in PLAYGROUND.iterdir():
        assert server.http.get(f"/playground/{file.name}").content == file.read_bytes()
    assert server.http.get("/playground/../server.py").status_code == 404
    assert server.http.get("/playground/%2e%2e/server.py").status_code == 404
