"""What all tests share: no network, the bundled model, and an engine that reads its probabilities from the text."""

from __future__ import annotations

import asyncio
import math
import os
import re
import threading
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.embeddings import Embeddings

from rerank_nli import FunctionEngine, NLIReranker

if TYPE_CHECKING:
    from collections.abc import Coroutine

Pairs = list[tuple[str, str]]


def pytest_configure() -> None:
    """No download, before huggingface_hub reads its settings."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE"  # "auto" means the same on every machine


def stated(pairs: Pairs) -> list[list[float]]:
    """Logits of the probabilities that a premise states, as in "e=0.8 c=0.1"; 0.1 is what it does not state."""
    rows = []
    for premise, _ in pairs:
        found = dict(re.findall(r"\b([ec])=(0?\.\d+)", premise))
        e, c = (float(found.get(name, 0.1)) for name in "ec")
        rows.append([math.log(e), math.log(1 - e - c), math.log(c)])
    return rows


def broken(pairs: Pairs) -> list[list[float]]:
    """What an engine does that fails."""
    message = f"no power for {len(pairs)} pairs"
    raise OSError(message)


class Words(Embeddings):
    """A text as the counts of its words, in 64 places."""

    def embed_query(self, text: str) -> list[float]:
        """64 counts; a word's place is the sum of its letters."""
        counts = [0.0] * 64
        for word in re.findall(r"\w+", text.lower()):
            counts[sum(map(ord, word)) % 64] += 1.0
        return counts

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """64 counts for each text."""
        return [self.embed_query(text) for text in texts]


class Patient:
    """Scores as `stated`, but not before the event loop has turned once more since the engine was called."""

    def __init__(self) -> None:
        self._called, self._turned = threading.Event(), threading.Event()
        self.reranker = NLIReranker(FunctionEngine(self._scores))

    def _scores(self, pairs: Pairs) -> list[list[float]]:
        self._called.set()
        if not self._turned.wait(timeout=10):
            message = "the event loop stood still while the engine worked"
            raise AssertionError(message)
        return stated(pairs)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """What the work comes to in an event loop of its own."""

        async def turning() -> Any:
            task = asyncio.ensure_future(work)
            await asyncio.to_thread(self._called.wait, timeout=10)
            self._turned.set()
            return await task

        return asyncio.run(turning())


class Events(BaseCallbackHandler):
    """Writes down which runs began and ended, and under which parent."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.parents: dict[str, Any] = {}
        self.runs: list[Any] = []

    def _start(self, kind: str, kwargs: dict[str, Any]) -> None:
        self.seen.append(f"{kind} {kwargs['name']} start")
        self.parents[kwargs["name"]] = kwargs["parent_run_id"]
        self.runs.append(kwargs["run_id"])

    def on_retriever_start(self, *_args: Any, **kwargs: Any) -> None:
        """A retriever begins."""
        self._start("retriever", kwargs)

    def on_retriever_end(self, *_args: Any, **_kwargs: Any) -> None:
        """A retriever ends."""
        self.seen.append("retriever end")

    def on_retriever_error(self, error: BaseException, **_kwargs: Any) -> None:
        """A retriever fails."""
        self.seen.append(f"retriever error: {error}")

    def on_chain_start(self, *_args: Any, **kwargs: Any) -> None:
        """A step begins."""
        self._start("chain", kwargs)

    def on_chain_end(self, *_args: Any, **_kwargs: Any) -> None:
        """A step ends."""
        self.seen.append("chain end")

    def on_chain_error(self, error: BaseException, **_kwargs: Any) -> None:
        """A step fails."""
        self.seen.append(f"chain error: {error}")


@pytest.fixture(scope="session")
def bundled() -> NLIReranker:
    """The bundled model with the default settings."""
    return NLIReranker()


@pytest.fixture
def stating() -> NLIReranker:
    """A reranker whose passages state their probabilities."""
    return NLIReranker(FunctionEngine(stated))


@pytest.fixture
def failing() -> NLIReranker:
    """A reranker whose engine raises an OSError."""
    return NLIReranker(FunctionEngine(broken))


@pytest.fixture
def patient() -> Patient:
    """A reranker that goes on only if the event loop does, and a way to await what it is used for."""
    return Patient()


@pytest.fixture
def words() -> Embeddings:
    """A deterministic embedding."""
    return Words()


@pytest.fixture
def events() -> Events:
    """A callback handler that writes down what it sees."""
    return Events()
