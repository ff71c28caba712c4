"""Documents in the order of their entailment: a compressor, a retriever, and a cross-encoder for LangChain's own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.retrievers import BaseRetriever, RetrieverLike
from langchain_core.runnables import Runnable, RunnableLambda
from pydantic import ConfigDict, Field

from langchain_rerank_nli.settings import Model, passages, read

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from langchain_core.callbacks import (
        AsyncCallbackManagerForRetrieverRun,
        CallbackManagerForRetrieverRun,
        Callbacks,
    )

    from rerank_nli import NLIReranker, RankedPassage

__all__ = ["NLICrossEncoder", "NLIRerank", "NLIRerankRetriever"]

_WRITTEN = {"nli_entailment", "nli_neutral", "nli_contradiction", "nli_span", "nli_relative", "relevance_score"}


class _Filter(Model):
    """What the compressor and the retriever share."""

    direction: str | None = None
    score: str | None = None
    normalize: str | None = None
    threshold: float | None = None
    keep: str = "entailment"

    def _check_with(self, reranker: NLIReranker) -> None:
        reranker.filter("claim", [], self.threshold, self.keep)

    def _kept(self, query: str, documents: Sequence[Document], top_n: int | None) -> list[Document]:
        kept = self._ready().filter(query, passages(documents), self.threshold, self.keep, top_n).kept
        return [_scored(documents[passage.index], passage) for passage in kept]


class NLIRerank(BaseDocumentCompressor, _Filter):
    """Orders documents by whether they entail the query, and drops those below a threshold.

    What comes back are copies. Their metadata holds `relevance_score` (the absolute score), `nli_entailment`,
    `nli_neutral`, `nli_contradiction` (the last two None for a two-label model) and `nli_span`, the [start, end] of the
    window that decided.

    Args:
        top_n: most documents to return; None is all.
        threshold: in the range of the score kind; None keeps all.
        keep: what the threshold is compared with: "entailment", "contradiction" or "evidence".
        model: "mini", a folder or a Hub id; None is the bundled model.
        direction: as NLIReranker.
        score: as NLIReranker.
        normalize: as NLIReranker; the normalized score is written to `metadata["nli_relative"]`.
        reranker: a ready NLIReranker, in place of `model`, `direction`, `score` and `normalize`.

    Raises:
        ValidationError: a setting that NLIReranker refuses, or a reranker beside model settings.
    """

    top_n: int | None = Field(default=None, ge=1)

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,  # noqa: ARG002 - pipelines look for it
    ) -> list[Document]:
        """Order and filter documents.

        Args:
            documents: any number of them.
            query: a claim, a question or keywords.
            callbacks: not used: there is nothing below to hand them to.

        Returns:
            Copies of what is kept, best first, at most `top_n`.

        Raises:
            InputTypeError, InputError, QueryTooLongError: as NLIReranker.filter.
        """
        return self._kept(query, documents, self.top_n)

    async def acompress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,  # noqa: ARG002 - pipelines look for it
    ) -> list[Document]:
        """`compress_documents` in a thread, loading too: the event loop goes on."""
        return await asyncio.to_thread(self._kept, query, documents, self.top_n)

    def as_runnable(self) -> Runnable[Mapping[str, Any], list[Document]]:
        """A step of an LCEL chain, from {"query", "documents"} to the documents that are kept."""

        def rerank(given: Mapping[str, Any]) -> list[Document]:
            query, documents = read(given, "query", "documents")
            return self.compress_documents(documents, query)

        async def arerank(given: Mapping[str, Any]) -> list[Document]:
            query, documents = read(given, "query", "documents")
            return await self.acompress_documents(documents, query)

        return RunnableLambda(rerank, arerank, name=type(self).__name__)


class NLIRerankRetriever(BaseRetriever, _Filter):
    """Retrieves with another retriever, then orders and filters what it found by entailment.

    Keyword arguments of `invoke` but `k` go on to the base retriever, which sees the callbacks as its parent's child.

    Args:
        base_retriever: a retriever, or any runnable from a query to documents.
        k: most documents to return, which `invoke(query, k=…)` overrides; None is all that the base retriever found.
        threshold, keep, model, direction, score, normalize, reranker: as NLIRerank.

    Raises:
        ValidationError: as NLIRerank.
    """

    base_retriever: RetrieverLike
    k: int | None = Field(default=None, ge=1)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None, **kwargs: object
    ) -> list[Document]:
        found = self.base_retriever.invoke(query, {"callbacks": run_manager.get_child()}, **kwargs)
        return self._kept(query, found, self.k if k is None else k)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None, **kwargs: object
    ) -> list[Document]:
        found = await self.base_retriever.ainvoke(query, {"callbacks": run_manager.get_child()}, **kwargs)
        return await asyncio.to_thread(self._kept, query, found, self.k if k is None else k)


class NLICrossEncoder(Model, BaseCrossEncoder):
    """Scores (query, text) pairs, for LangChain's CrossEncoderReranker and whatever else takes a cross-encoder.

    Args:
        model: "mini", a folder or a Hub id; None is the bundled model.
        direction: as NLIReranker.
        score: as NLIReranker.
        reranker: a ready NLIReranker, in place of the others.

    Raises:
        ValidationError: as NLIRerank.
    """

    model_config = ConfigDict(populate_by_name=True)  # so that a dump of the fields makes the same one again

    direction: str | None = None
    score_kind: str | None = Field(default=None, alias="score")  # `score` itself is the method below

    def score(self, text_pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Absolute scores of (query, text) pairs, in their order.

        Raises:
            InputTypeError, InputError, QueryTooLongError: as NLIReranker.rank_many.
        """
        rankings = self._ready().rank_many([query for query, _ in text_pairs], [[text] for _, text in text_pairs])
        return [ranking[0].score for ranking in rankings]


def _scored(document: Document, passage: RankedPassage) -> Document:
    """A copy with the passage's numbers, in place of those that an earlier reranker may have left."""
    metadata = {key: value for key, value in document.metadata.items() if key not in _WRITTEN}
    metadata |= {
        "nli_entailment": passage.entailment,
        "nli_neutral": passage.neutral,
        "nli_contradiction": passage.contradiction,
        "nli_span": list(passage.span),
    }
    if passage.relative is not None:
        metadata["nli_relative"] = passage.relative
    metadata["relevance_score"] = passage.score
    return document.model_copy(update={"metadata": metadata})
