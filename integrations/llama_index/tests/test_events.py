"""What listens to LlamaIndex hears of a reranking: its beginning, its end, and that it failed."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from llama_index.core.bridge.pydantic import Field
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]  # it is re-exported
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.schema import QueryBundle
from llama_index.postprocessor.rerank_nli import EvidenceFilter, NLIRerank
from stated_nodes import CLAIM, failing, ids, nodes_of, stated, stating

from rerank_nli import FunctionEngine, NLIReranker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llama_index.core.instrumentation.events import BaseEvent

THREE = ("e=0.2,c=0.1", "e=0.9,c=0.05", "e=0.5,c=0.4")


class Heard(BaseEventHandler):
    """Keeps the events of rerankings."""

    events: list[Any] = Field(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        """The name of this handler."""
        return "Heard"

    def handle(self, event: BaseEvent, **_: Any) -> None:
        """Keep it."""
        if isinstance(event, ReRankStartEvent | ReRankEndEvent):
            self.events.append(event)


@pytest.fixture
def heard() -> Iterator[list[Any]]:
    """The events that reach LlamaIndex's root dispatcher."""
    root, handler = get_dispatcher(), Heard()
    root.add_event_handler(handler)
    yield handler.events
    root.event_handlers.remove(handler)


@pytest.fixture
def spans() -> Iterator[SimpleSpanHandler]:
    """The spans that reach LlamaIndex's root dispatcher."""
    root, handler = get_dispatcher(), SimpleSpanHandler()
    root.add_span_handler(handler)
    yield handler
    root.span_handlers.remove(handler)


def called(postprocessor: NLIRerank | EvidenceFilter, how: str) -> list[str]:
    """The ids that come of three nodes, plain or async."""
    nodes = nodes_of(*THREE)
    if how == "plain":
        return ids(postprocessor.postprocess_nodes(nodes, query_str=CLAIM))
    return ids(asyncio.run(postprocessor.apostprocess_nodes(nodes, query_str=CLAIM)))


def listening() -> tuple[LlamaDebugHandler, CallbackManager]:
    """A handler for the older callbacks, and its manager."""
    handler = LlamaDebugHandler(print_trace_on_end=False)
    return handler, CallbackManager([handler])


@pytest.mark.parametrize("how", ["plain", "async"])
@pytest.mark.parametrize(("top_n", "reported"), [(None, 3), (2, 2), (50, 50)])
def test_start_and_end(how: str, top_n: int | None, reported: int, heard: list[Any]) -> None:
    """A reranking has one start with what came in and one end with what came out; top_n is a number even for all."""
    assert called(NLIRerank(top_n=top_n, reranker=stating()), how) == ["n1", "n2", "n0"][:top_n]
    start, end = heard
    assert isinstance(start, ReRankStartEvent)
    assert isinstance(end, ReRankEndEvent)
    assert isinstance(start.query, QueryBundle)
    assert (start.query.query_str, ids(start.nodes), start.top_n) == (CLAIM, ["n0", "n1", "n2"], reported)
    assert (start.model_name, ids(end.nodes)) == ("function", ["n1", "n2", "n0"][:top_n])
    assert start.span_id == end.span_id is not None


def test_events_of_calls_at_once_match(heard: list[Any]) -> None:
    """Of calls that run at once, each has its own start and end, which name the same span."""
    rerank = NLIRerank(reranker=stating())

    async def main() -> None:
        lists = [nodes_of(*THREE[: 1 + i % 3]) for i in range(6)]
        await asyncio.gather(*(rerank.apostprocess_nodes(nodes, query_str=CLAIM) for nodes in lists))

    asyncio.run(main())
    starts = {event.span_id: event for event in heard if isinstance(event, ReRankStartEvent)}
    ends = {event.span_id: event for event in heard if isinstance(event, ReRankEndEvent)}
    assert (len(heard), len(starts)) == (12, 6)
    assert {span: sorted(ids(event.nodes)) for span, event in ends.items()} == {
        span: ids(event.nodes) for span, event in starts.items()
    }


@pytest.mark.parametrize("how", ["plain", "async"])
def test_callbacks(how: str) -> None:
    """The older callback has a start and an end too, with model, query, count and nodes."""
    handler, manager = listening()
    called(NLIRerank(top_n=2, reranker=stating(), callback_manager=manager), how)
    ((start, end),) = handler.get_event_pairs(CBEventType.RERANKING)
    payload: Any = start.payload
    assert (payload[EventPayload.QUERY_STR], payload[EventPayload.TOP_K]) == (CLAIM, 2)
    assert payload[EventPayload.MODEL_NAME] == "function"
    assert ids(payload[EventPayload.NODES]) == ["n0", "n1", "n2"]
    payload = end.payload
    assert ids(payload[EventPayload.NODES]) == ["n1", "n2"]


@pytest.mark.parametrize("how", ["plain", "async"])
def test_a_failure_is_closed(how: str, heard: list[Any]) -> None:
    """When the engine raises, the events are closed, empty, and the callback ends with the exception."""
    handler, manager = listening()
    rerank = NLIRerank(reranker=NLIReranker(FunctionEngine(failing)), callback_manager=manager)
    with pytest.raises(RuntimeError, match="no power") as raised:
        called(rerank, how)
    assert [type(event) for event in heard] == [ReRankStartEvent, ReRankEndEvent]
    assert heard[1].nodes == []
    ((_, end),) = handler.get_event_pairs(CBEventType.RERANKING)
    payload: Any = end.payload
    assert payload[EventPayload.EXCEPTION] is raised.value


def test_a_model_that_is_not_there_is_closed(heard: list[Any], tmp_path: Any) -> None:
    """When the model cannot be opened, the events are closed as well."""
    with pytest.raises(FileNotFoundError):
        called(NLIRerank(model=str(tmp_path / "nowhere")), "plain")
    assert [type(event) for event in heard] == [ReRankStartEvent, ReRankEndEvent]
    assert heard[0].model_name == str(tmp_path / "nowhere")


def test_a_cancelled_call_is_closed(heard: list[Any]) -> None:
    """A cancelled call closes its events and its callback at once, while the engine is still at work."""
    handler, manager = listening()
    started, release = threading.Event(), threading.Event()

    def held(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        started.set()
        release.wait(timeout=30)
        return stated(pairs)

    async def main() -> tuple[list[type], int]:
        rerank = NLIRerank(reranker=NLIReranker(FunctionEngine(held)), callback_manager=manager)
        task = asyncio.ensure_future(rerank.apostprocess_nodes(nodes_of(*THREE), query_str=CLAIM))
        await asyncio.to_thread(started.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        closed = [type(event) for event in heard], len(handler.get_event_pairs(CBEventType.RERANKING)[0])
        release.set()
        return closed

    assert asyncio.run(main()) == ([ReRankStartEvent, ReRankEndEvent], 2)


@pytest.mark.parametrize("how", ["plain", "async"])
def test_one_after_the_other(how: str, heard: list[Any]) -> None:
    """Two rerankings have two starts and two ends, in turn."""
    rerank = NLIRerank(reranker=stating())
    called(rerank, how)
    called(rerank, how)
    assert [type(event) for event in heard] == [ReRankStartEvent, ReRankEndEvent] * 2


def test_no_events_where_nothing_is_reranked(heard: list[Any]) -> None:
    """Neither an empty list nor a filter is a reranking."""
    NLIRerank(reranker=stating()).postprocess_nodes([], query_str=CLAIM)
    assert called(EvidenceFilter(reranker=stating()), "plain") == ["n1", "n2"]
    assert called(EvidenceFilter(reranker=stating()), "async") == ["n1", "n2"]
    assert heard == []


@pytest.mark.parametrize(("how", "method"), [("plain", "_postprocess_nodes"), ("async", "_apostprocess_nodes")])
@pytest.mark.parametrize("made", [NLIRerank, EvidenceFilter])
def test_spans(made: type[NLIRerank | EvidenceFilter], how: str, method: str, spans: SimpleSpanHandler) -> None:
    """A call is one span, closed when it is done and dropped when it fails, plain and async."""
    called(made(reranker=stating()), how)
    with pytest.raises(RuntimeError, match="no power"):
        called(made(reranker=NLIReranker(FunctionEngine(failing))), how)
    assert spans.open_spans == {}
    for ended in (spans.completed_spans, spans.dropped_spans):
        assert [span.id_.split("-")[0] for span in ended] == [f"{made.__name__}.{method}"]
