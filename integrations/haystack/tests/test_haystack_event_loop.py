"""The asynchronous forms of both components, and what the event loop does meanwhile."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import haystack
import pytest
from graded import CLAIM, documents, graded, logits
from haystack import Document
from haystack_integrations.components.rankers.rerank_nli import EvidenceFilter, NLIRanker

from rerank_nli import FunctionEngine, NLIReranker

if TYPE_CHECKING:
    from collections.abc import Sequence

# The pipeline that runs asynchronously is a class of its own before Haystack 3.
AsyncPipeline = getattr(haystack, "AsyncPipeline", haystack.Pipeline)


@pytest.mark.parametrize("kind", [NLIRanker, EvidenceFilter])
def test_the_loop_goes_on_while_the_model_works(kind: Any) -> None:
    """The event loop turns while the engine is at work, and run_async gives what run gives."""
    turned = threading.Event()

    def waits_for_the_loop(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        if not turned.wait(timeout=30):
            message = "the event loop stood still while the model worked"
            raise AssertionError(message)
        return logits(pairs)

    given = documents(0.2, 0.9, 0.5, 0.8, scores=[0.4, 0.3, 0.2, 0.1])
    component = kind(reranker=NLIReranker(FunctionEngine(waits_for_the_loop)))

    async def main() -> Any:
        task = asyncio.ensure_future(component.run_async(CLAIM, given, 2))
        for _ in range(10):
            await asyncio.sleep(0)
        turned.set()
        return await task

    assert asyncio.run(main()) == kind(reranker=graded()).run(CLAIM, given, 2)


async def ticks_during(awaitable: Any) -> int:
    """How often the loop comes round, a millisecond apart at least, before a coroutine is done."""
    ticks = 0
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(awaitable)

    def tick() -> None:
        nonlocal ticks
        ticks += 1
        if not task.done():
            loop.call_later(0.001, tick)

    tick()
    await task
    return ticks


@pytest.mark.integration
@pytest.mark.parametrize("kind", [NLIRanker, EvidenceFilter])
def test_the_loop_ticks_while_300_documents_are_judged(kind: Any, bundled: NLIReranker) -> None:
    """While a pipeline's bundled model judges 300 documents the event loop goes round again and again."""
    pipeline = AsyncPipeline()
    pipeline.add_component("judge", kind(reranker=NLIReranker(bundled.engine)))
    given = [Document(content=f"Boat number {i} sails at noon.") for i in range(300)]
    running = pipeline.run_async({"judge": {"query": CLAIM, "documents": given}})
    assert asyncio.run(ticks_during(running)) > 20


@pytest.mark.integration
@pytest.mark.parametrize("kind", [NLIRanker, EvidenceFilter])
def test_the_loop_ticks_while_the_model_is_loaded(kind: Any) -> None:
    """The event loop goes round while warm_up_async loads the bundled model, which is then there."""
    component = kind()
    assert asyncio.run(ticks_during(component.warm_up_async())) > 3
    assert component._made is not None


def test_many_at_once_in_one_loop() -> None:
    """Gathered calls each get their own documents."""
    ranker = NLIRanker(reranker=graded())

    async def main() -> list[dict[str, list[Document]]]:
        return await asyncio.gather(*(ranker.run_async(CLAIM, documents(0.1, 0.2 + i / 50)) for i in range(20)))

    assert [found["documents"][0].score for found in asyncio.run(main())] == pytest.approx(
        [0.2 + i / 50 for i in range(20)], abs=1e-6
    )
