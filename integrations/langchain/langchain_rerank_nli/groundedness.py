"""An answer held against its documents, sentence by sentence."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.runnables import RunnableConfig, RunnableSerializable

from langchain_rerank_nli.settings import Model, passages, read

if TYPE_CHECKING:
    from rerank_nli import NLIReranker

__all__ = ["NLIGroundedness"]


class NLIGroundedness(RunnableSerializable[Mapping[str, Any], dict[str, Any]], Model):
    """Checks each sentence of an answer against documents: from {"answer", "documents"} to a report in JSON types.

    The report is that of NLIReranker.check: `groundedness`, the share of statements that are supported, and
    `sentences`, each with its `span` in the answer, `label`, `confidence`, and the passages `supporting` and `refuting`
    it. Each passage has its document's `index`, `id` and `source` (from its metadata, or None), and the `span` that
    decided.

    Args:
        threshold: 0..1, for P(entailment) and P(contradiction); "auto" is that of the reranker's guarantee, or 0.5.
        model: "mini", a folder or a Hub id; None is the bundled model.
        reranker: a ready NLIReranker, in place of `model`.

    Raises:
        ValidationError: a threshold out of range, or a reranker that knows no contradiction.
    """

    threshold: float | Literal["auto"] = "auto"

    def _check_with(self, reranker: NLIReranker) -> None:
        reranker.check("", [], self.threshold)

    def invoke(
        self,
        input: Mapping[str, Any],  # noqa: A002 - a Runnable's own name for it
        config: RunnableConfig | None = None,
        **kwargs: Any,  # noqa: ANN401 - as in Runnable
    ) -> dict[str, Any]:
        """Check an answer.

        Args:
            input: the "answer", a text, and the "documents" that it should rest on.
            config: as of any Runnable.
            kwargs: none: a Runnable may be given some, and here they are an error.

        Returns:
            The report.

        Raises:
            LabelError, InputError, InputTypeError, QueryTooLongError: as NLIReranker.check.
        """
        return self._call_with_config(self._report, input, config, **kwargs)

    async def ainvoke(
        self,
        input: Mapping[str, Any],  # noqa: A002 - a Runnable's own name for it
        config: RunnableConfig | None = None,
        **kwargs: Any,  # noqa: ANN401 - as in Runnable
    ) -> dict[str, Any]:
        """`invoke` in a thread, loading too: the event loop goes on."""

        async def report(given: Mapping[str, Any]) -> dict[str, Any]:
            return await asyncio.to_thread(self._report, given)

        return await self._acall_with_config(report, input, config, **kwargs)

    def _report(self, given: Mapping[str, Any]) -> dict[str, Any]:
        answer, documents = read(given, "answer", "documents")
        report = self._ready().check(answer, passages(documents), self.threshold).to_dict()
        for sentence in report["sentences"]:
            for passage in (*sentence["supporting"]["passages"], *sentence["refuting"]["passages"]):
                source = documents[passage["index"]].metadata.get("source")
                passage["source"] = source if isinstance(source, str | int | None) else str(source)
        return report
