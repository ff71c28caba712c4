"""EvidenceFilter: documents that back the query, or speak against it, and beside them the others."""

import asyncio
from dataclasses import dataclass, replace
from operator import attrgetter

from haystack import Document, component
from haystack_integrations.components.rankers.rerank_nli.judging import Judging, judged_meta, unique

from rerank_nli import Ranking

__all__ = ["EvidenceFilter"]


@component
@dataclass(kw_only=True, eq=False, repr=False)
class EvidenceFilter(Judging):
    """Divides documents into those that pass a threshold and those that do not; order and scores stay as they came.

    Documents go out as copies, one for each id, whose `meta` holds `nli_entailment`, `nli_neutral`, `nli_contradiction`
    and `nli_span` (the characters that decided) on both sides.

    Args:
        model: "mini" (the bundled one), a folder or a Hub id.
        device: where to compute; None chooses.
        engine: "auto", "onnx", "openvino" or "torch".
        labels: names of the model's outputs in order, where the checkpoint does not say.
        top_k: most documents to keep, the best of those that pass; None is all. That of `run` goes before it.
        threshold: in the range of the score kind; "auto" is that of the reranker's guarantee, or 0.5; None keeps all.
        keep: what the threshold is held against: "entailment", "contradiction" or "evidence", the larger of the two.
        direction: "passage_entails_query", "query_entails_passage" or "bidirectional".
        score: "entailment", "entailment_vs_contradiction", "margin" or "logit".
        reranker: a ready NLIReranker in place of the model's settings; such a component cannot be serialized.

    Raises:
        InputError: an unknown name, a number out of range, or `reranker` beside the model's settings.
        InputTypeError: `reranker` is no NLIReranker.
        LabelError: `keep` needs contradiction and the model of `reranker` has two labels.
        ValueError: `device` is no single ComponentDevice.
    """

    threshold: float | str | None = "auto"

    @component.output_types(documents=list[Document], dropped=list[Document])
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, list[Document]]:
        """Divide the documents.

        Args:
            query: a claim or a question.
            documents: in any order; of those with the same id the one with the highest score is taken.
            top_k: most documents to keep; None is the component's own.

        Returns:
            {"documents": copies of those kept, "dropped": copies of the others}, each in the order they came in.

        Raises:
            InputTypeError: a query that is no text, or a document that is no Document; the message names its index.
            InputError: a blank query, top_k below 1.
            QueryTooLongError: the query leaves too few tokens for a document.
        """
        documents = unique(documents)
        divided = self._judge(self._loaded(), query, documents, top_k)
        return {
            "documents": _as_they_came(documents, divided.kept),
            "dropped": _as_they_came(documents, divided.dropped),
        }

    @component.output_types(documents=list[Document], dropped=list[Document])
    async def run_async(
        self, query: str, documents: list[Document], top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """`run` in a thread: the event loop goes on. Arguments, results and errors are the same."""
        return await asyncio.to_thread(self.run, query, documents, top_k)


def _as_they_came(documents: list[Document], side: Ranking) -> list[Document]:
    ordered = [(documents[passage.index], passage) for passage in sorted(side, key=attrgetter("index"))]
    return [replace(document, meta=judged_meta(document, passage)) for document, passage in ordered]
