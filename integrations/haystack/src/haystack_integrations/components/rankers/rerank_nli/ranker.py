"""NLIRanker: documents in the order of how far they entail the query."""

import asyncio
from dataclasses import replace

from haystack import Document, component
from haystack.utils import ComponentDevice
from haystack_integrations.components.rankers.rerank_nli.judging import Judging, judged_meta

from rerank_nli import NLIReranker, RankedPassage

__all__ = ["NLIRanker"]


@component
class NLIRanker(Judging):
    """Ranks documents by whether they entail the query, and drops those under a threshold.

    Documents go out as copies: `score` is the entailment score, `meta` holds `nli_entailment`, `nli_neutral`,
    `nli_contradiction` and `nli_span` (the characters that decided), `nli_relative` (what fusion or `normalize` made
    of the score, else None), and `retrieval_score` if the document came with a score.

    Args:
        model: "mini" (the bundled one), a folder or a Hub id.
        device: where to compute; None chooses.
        engine: "auto", "onnx" or "torch".
        labels: names of the model's outputs in order, where the checkpoint does not say.
        top_k: most documents to return; None is all. That of `run` goes before it.
        threshold: in the range of the score kind; None keeps all.
        keep: what the threshold is held against: "entailment", "contradiction" or "evidence", the larger of the two.
        direction: "passage_entails_query", "query_entails_passage" or "bidirectional".
        score: "entailment", "entailment_vs_contradiction", "margin" or "logit".
        normalize: what `nli_relative` holds: "softmax", "minmax", "zscore", "rank" or "sum".
        fuse: "linear" or "rrf" orders by the entailment score and the score that the documents came with, if all of
            them have one; None by entailment alone. The threshold reads only the entailment score.
        alpha: weight of the entailment score in the fusion, 0..1; None is NLIReranker's own.
        reranker: a ready NLIReranker in place of the model's settings; such a component cannot be serialized.

    Raises:
        InputError: an unknown name, a number out of range, or `reranker` beside the model's settings.
        LabelError: `keep` needs contradiction and the model of `reranker` has two labels.
        ValueError: `device` is no single ComponentDevice.
    """

    def __init__(
        self,
        model: str = "mini",
        *,
        device: ComponentDevice | None = None,
        engine: str = "auto",
        labels: list[str] | None = None,
        top_k: int | None = None,
        threshold: float | None = None,
        keep: str = "entailment",
        direction: str = "passage_entails_query",
        score: str = "entailment",
        normalize: str | None = None,
        fuse: str | None = "linear",
        alpha: float | None = None,
        reranker: NLIReranker | None = None,
    ) -> None:
        self._configure(
            reranker,
            model=model,
            device=device,
            engine=engine,
            labels=labels,
            top_k=top_k,
            threshold=threshold,
            keep=keep,
            direction=direction,
            score=score,
            normalize=normalize,
            fuse=fuse,
            alpha=alpha,
        )

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, list[Document]]:
        """Rank the documents.

        Args:
            query: a claim or a question.
            documents: in any order, with or without scores.
            top_k: most documents to return; None is the component's own.

        Returns:
            {"documents": copies, best first}.

        Raises:
            InputTypeError: a query that is no text.
            InputError: a blank query, top_k below 1, a retrieval score that is not finite.
            QueryTooLongError: the query leaves too few tokens for a document.
        """
        ranking = self._judge(self._loaded(), query, documents, top_k).kept
        return {"documents": [_ranked(documents[p.index], p) for p in ranking]}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, documents: list[Document], top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """`run` in a thread: the event loop goes on. Arguments, results and errors are the same."""
        return await asyncio.to_thread(self.run, query, documents, top_k)


def _ranked(document: Document, passage: RankedPassage) -> Document:
    meta = judged_meta(document, passage) | {"nli_relative": passage.relative}
    if document.score is not None:
        meta["retrieval_score"] = float(document.score)
    return replace(document, score=passage.score, meta=meta)
