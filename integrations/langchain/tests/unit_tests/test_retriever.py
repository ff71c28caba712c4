"""NLIRerankRetriever: what another retriever found, in order of entailment, with its callbacks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_rerank_nli import NLIRerankRetriever
from pydantic import ValidationError

from rerank_nli import InputError, InputTypeError, NLIReranker

if TYPE_CHECKING:
    from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun


class Shelf(BaseRetriever):
    """Finds everything that it holds, or only what is of one kind."""

    texts: tuple[str, ...] = ("e=0.2 c=0.7", "e=0.8 c=0.1", "e=0.5 c=0.3")

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, kind: str = ""
    ) -> list[Document]:
        assert run_manager is not None
        return [Document(text, metadata={"asked": query}) for text in self.texts if kind in text]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, kind: str = ""
    ) -> list[Document]:
        return self._get_relevant_documents(query, run_manager=run_manager.get_sync(), kind=kind)


def scores(documents: list[Document]) -> list[float]:
    return [round(d.metadata["relevance_score"], 6) for d in documents]


def test_order_and_threshold(stating: NLIReranker) -> None:
    """Everything that was found comes back in order, or what passes the threshold."""
    assert scores(NLIRerankRetriever(base_retriever=Shelf(), reranker=stating).invoke("q")) == [0.8, 0.5, 0.2]
    some = NLIRerankRetriever(base_retriever=Shelf(), reranker=stating, threshold=0.5 - 1e-6)
    assert scores(some.invoke("q")) == [0.8, 0.5]
    against = NLIRerankRetriever(base_retriever=Shelf(), reranker=stating, threshold=0.25, keep="contradiction")
    assert scores(against.invoke("q")) == [0.2, 0.5]


def test_k(stating: NLIReranker) -> None:
    """At most k come back; a k of the call goes before the constructor's, and 0 is refused in both places."""
    retriever = NLIRerankRetriever(base_retriever=Shelf(), reranker=stating, k=2)
    assert scores(retriever.invoke("q")) == [0.8, 0.5]
    assert scores(retriever.invoke("q", k=1)) == [0.8]
    assert scores(retriever.invoke("q", k=9)) == [0.8, 0.5, 0.2]
    assert scores(asyncio.run(retriever.ainvoke("q", k=1))) == [0.8]
    with pytest.raises(InputError, match="top_k=0"):
        retriever.invoke("q", k=0)
    with pytest.raises(ValidationError, match=r"k\s.*greater than or equal to 1"):
        NLIRerankRetriever(base_retriever=Shelf(), reranker=stating, k=0)


def test_other_arguments_reach_the_base(stating: NLIReranker) -> None:
    """What `invoke` is given besides k goes to the base retriever."""
    retriever = NLIRerankRetriever(base_retriever=Shelf(), reranker=stating)
    assert scores(retriever.invoke("q", kind="c=0.7")) == [0.2]
    assert scores(asyncio.run(retriever.ainvoke("q", kind="c=0.7"))) == [0.2]


def test_any_runnable_is_a_base(stating: NLIReranker) -> None:
    """The base may be any runnable from a query to documents, also one that finds nothing; None is refused."""
    found: dict[str, Any] = {"this": [Document("e=0.5")], "nothing": [], "none": None}
    retriever = NLIRerankRetriever(base_retriever=RunnableLambda(found.__getitem__), reranker=stating)
    assert scores(retriever.invoke("this")) == [0.5]
    assert retriever.invoke("nothing") == []
    with pytest.raises(InputTypeError, match="documents must be a list of Documents, got None"):
        retriever.invoke("none")


def test_batches(stating: NLIReranker) -> None:
    """Several queries at once, awaited or not, get what each gets alone."""
    retriever = NLIRerankRetriever(base_retriever=Shelf(), reranker=stating, k=2)
    queries = [f"query {i}" for i in range(8)]
    alone = [retriever.invoke(query) for query in queries]
    assert [d.metadata["asked"] for [d, _] in alone] == queries
    assert retriever.batch(queries) == alone
    assert asyncio.run(retriever.abatch(queries)) == alone


def test_a_batch_may_hold_an_error(stating: NLIReranker) -> None:
    """A query that is none fails alone if the caller wants it so."""
    retriever = NLIRerankRetriever(base_retriever=Shelf(), reranker=stating)
    good, bad = retriever.batch(["q", " "], return_exceptions=True)
    assert scores(good) == [0.8, 0.5, 0.2]
    assert isinstance(bad, InputError)


def test_none_is_no_query(stating: NLIReranker) -> None:
    """None in place of a query is an error that says so."""
    retriever = NLIRerankRetriever(base_retriever=Shelf(), reranker=stating)
    with pytest.raises(InputTypeError, match="must be a text, got None"):
        retriever.invoke(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("awaited", [False, True])
def test_callbacks(awaited: bool, stating: NLIReranker, events: Any) -> None:  # noqa: FBT001
    """Both retrievers begin and end, the base one as the child of the other."""
    retriever = NLIRerankRetriever(base_retriever=Shelf(), reranker=stating)
    config: Any = {"callbacks": [events]}
    asyncio.run(retriever.ainvoke("q", config)) if awaited else retriever.invoke("q", config)
    starts = ["retriever NLIRerankRetriever start", "retriever Shelf start"]
    assert events.seen == [*starts, "retriever end", "retriever end"]
    assert events.parents == {"NLIRerankRetriever": None, "Shelf": events.runs[0]}


@pytest.mark.parametrize("awaited", [False, True])
def test_an_engine_error_closes_the_events(awaited: bool, failing: NLIReranker, events: Any) -> None:  # noqa: FBT001
    """An engine's error reaches the caller, and the run that began is closed as failed."""
    retriever = NLIRerankRetriever(base_retriever=Shelf(), reranker=failing)
    config: Any = {"callbacks": [events]}
    with pytest.raises(OSError, match="no power for 3 pairs"):
        asyncio.run(retriever.ainvoke("q", config)) if awaited else retriever.invoke("q", config)
    assert events.seen[2:] == ["retriever end", "retriever error: no power for 3 pairs"]


def test_a_field_can_be_set_at_run_time(stating: NLIReranker) -> None:
    """How many come back can be left to the configuration of a call, beside a ready reranker."""
    retriever = NLIRerankRetriever(base_retriever=Shelf(), reranker=stating, k=3)
    configured = retriever.configurable_fields(k=ConfigurableField("how_many"))
    assert scores(configured.invoke("q", {"configurable": {"how_many": 1}})) == [0.8]
    assert scores(configured.invoke("q")) == [0.8, 0.5, 0.2]


def test_the_loop_goes_on_while_the_engine_works(patient: Any, stating: NLIReranker) -> None:
    """The event loop runs other things while what was found is scored."""
    found = patient.run(NLIRerankRetriever(base_retriever=Shelf(), reranker=patient.reranker).ainvoke("q"))
    assert found == NLIRerankRetriever(base_retriever=Shelf(), reranker=stating).invoke("q")


def test_unknown_settings_are_refused(stating: NLIReranker) -> None:
    """A setting that there is none of is refused, where LangChain's own retrievers let it pass."""
    with pytest.raises(ValidationError, match="top_n"):
        NLIRerankRetriever(base_retriever=Shelf(), reranker=stating, top_n=3)  # type: ignore[call-arg]
