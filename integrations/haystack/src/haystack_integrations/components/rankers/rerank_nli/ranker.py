"""NLIRanker: documents in the order of how far they entail the query."""

import asyncio
from dataclasses import dataclass, replace
from typing import Any

from haystack import Document, component
from haystack_integrations.components.rankers.rerank_nli.judging import Judging, judged_meta, unique

from rerank_nli import RankedPassage

__all__ = ["NLIRanker"]


@component
@dataclass(kw_only=True, eq=False, repr=False)
class NLIRanker(Judging):
    """Ranks documents by whether they entail the query, and drops those under a threshold.

    Documents go out as copies, one for each id: `score` is the entailment score, `meta` holds `nli_entailment`,
    `nli_neutral`, `nli_contradiction` and `nli_span` (the characters that decided), `nli_relative` (what fusion or
    `normalize` made of the score, else None), and `retrieval_score` (what the document came with, or None).

    Args:
        model: "mini" (the bundled one), a folder or a Hub id.
        device: where to compute; None chooses.
        engine: "auto", "onnx", "openvino" or "torch".
        labels: names of the model's outputs in order, where the checkpoint does not say.
        top_k: most documents to return; None is all. That of `run` goes before it.
        threshold: in the range of the score kind; None keeps all.
        keep: what the threshold is held against: "entailment", "contradiction" or "evidence", the larger of the two.
        direction: "passage_entails_query", "query_entails_passage" or "bidirectional".
        score: "entailment", "entailment_vs_contradiction", "margin" or "logit".
        normalize: what `nli_relative` holds: "softmax", "minmax", "zscore", "rank" or "sum".
        fuse: None orders by the entailment score, whatever scores the documents came with; "linear", "rrf" or the file
            of a Fusion by both together. The threshold reads the entailment score alone.
        alpha: weight of the entailment score in the fusion, 0..1; None is NLIReranker's own.
        reranker: a ready NLIReranker in place of the model's settings; such a component cannot be serialized.

    Raises:
        InputError: an unknown name, a number out of range, or `reranker` beside the model's settings.
        InputTypeError: `reranker` is no NLIReranker.
        LabelError: `keep` needs contradiction and the model of `reranker` has two labels.
        ValueError: `device` is no single ComponentDevice.
    """

    normalize: str | None = None
    fuse: str | None = None
    alpha: float | None = None

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, list[Document]]:
        """Rank the documents.

        Args:
            query: a claim or a question.
            documents: in any order; of those with the same id the one with the highest score is taken.
            top_k: most documents to return; None is the component's own.

        Returns:
            {"documents": copies, best first}.

        Raises:
            InputTypeError: a query that is no text, or a document that is no Document; the message names its index.
            InputError: a blank query, top_k below 1; with `fuse`, a document without a score, or one not finite.
            QueryTooLongError: the query leaves too few tokens for a document.
        """
        documents = unique(documents)
        ranking = self._judge(self._loaded(), query, documents, top_k).kept
        return {"documents": [_ranked(documents[passage.index], passage) for passage in ranking]}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, documents: list[Document], top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """`run` in a thread: the event loop goes on. Arguments, results and errors are the same."""
        return await asyncio.to_thread(self.run, query, documents, top_k)

    def _fusion(self, documents: list[Document]) -> dict[str, Any]:
        if self.fuse is None:
            return {}
        alpha = {} if self.alpha is None else {"alpha": self.alpha}
        return {"fuse": self.fuse, "retrieval_scores": [document.score for document in documents], **alpha}


def _ranked(document: Document, passage: RankedPassage) -> Document:
    came_with = None if document.score is None else float(document.score)
    meta = {"nli_relative": passage.relative, "retrieval_score": came_with}
    return replace(document, score=passage.score, meta=judged_meta(document, passage) | meta)
