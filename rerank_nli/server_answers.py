"""From a request's form to its answer: what is asked of a reranker, and what it says in the form of each route."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rerank_nli.grounding import claims_of
from rerank_nli.scores import softmax
from rerank_nli.server_forms import read_texts
from rerank_nli.server_limits import RefusalError

if TYPE_CHECKING:
    from rerank_nli.server_forms import (
        CheckForm,
        CohereForm,
        Document,
        PredictForm,
        RerankForm,
        TextsForm,
        VerifyForm,
    )
    from rerank_nli.server_limits import Limits
    from rerank_nli.server_metrics import Metrics
    from rerank_nli.server_models import Models
    from rerank_nli.shared_engine import Work
    from rerank_nli.types import RankedPassage

__all__ = ["Answers"]


class Answers:
    """What the models answer, as JSON types.

    Args:
        models: by name.
        metrics: where passages and windows are counted.
        limits: what one request may ask.
    """

    def __init__(self, models: Models, metrics: Metrics, limits: Limits) -> None:
        self._models, self._metrics, self._limits = models, metrics, limits

    def cohere(self, form: CohereForm, _: Work, own: str) -> dict[str, Any]:
        """Places and scores, best first, as Cohere's second version has them."""
        name = self._asked(form.model, len(form.documents), "documents")
        texts = self._texts("document", form.documents, form.rank_fields)
        ranking = self._models.reranker(name).rank(form.query, texts, form.top_n or None)
        self._metrics.ranked(name, ranking)
        return {"id": own, "results": [_result(p, form) for p in ranking], "meta": _meta("2")}

    def rerank(self, form: RerankForm, work: Work, own: str) -> dict[str, Any]:
        """What Cohere's first version, Jina and vLLM have in one, and what the model says beside it."""
        name = self._asked(form.model, len(form.documents), "documents")
        texts = self._texts("document", form.documents, form.rank_fields)
        if form.template is not None:  # it may hold the query many times
            more = form.template.count("{query}") * (len(form.query) - len("{query}"))
            self._limits.require_length(len(form.template) + more, form.template)
        score = form.score or ("logit" if form.raw_scores else None)
        reranker = self._models.reranker(name, direction=form.direction, score=score, template=form.template)
        if form.return_documents is None:  # Jina's clients and vLLM's read the documents unasked
            form = form.model_copy(update={"return_documents": True})
        filtered = reranker.filter(form.query, texts, form.threshold, form.keep or "entailment", form.top_n or None)
        self._metrics.ranked(name, (*filtered.kept, *filtered.dropped))
        answer = {
            "id": own,
            "object": "list",
            "model": name,
            "results": [_result(p, form) | {"nli": _nli(p)} for p in filtered.kept],
            "usage": {"prompt_tokens": work.tokens, "total_tokens": work.tokens},
            "meta": _meta("1"),
        }
        if form.threshold is not None:
            answer["dropped"] = [_result(p, form) | {"nli": _nli(p)} for p in filtered.dropped]
        return answer

    def infinity(self, form: RerankForm, work: Work, own: str) -> dict[str, Any]:
        """`rerank`, with a returned document as its text alone, as Infinity has it."""
        form = form.model_copy(update={"return_documents": bool(form.return_documents)})
        answer = self.rerank(form, work, own) | {"object": "rerank"}
        for result in (*answer["results"], *answer.get("dropped", ())):
            if "document" in result:
                result["document"] = result["document"]["text"]
        return answer

    def texts(self, form: TextsForm, _: Work, __: str) -> list[dict[str, Any]]:
        """All texts, best first, as Text Embeddings Inference has it."""
        name = self._asked(form.model, len(form.texts), "texts")
        reranker = self._models.reranker(name, score="logit" if form.raw_scores else None)
        ranking = reranker.rank(form.query, form.texts)
        self._metrics.ranked(name, ranking)
        returned = bool(form.return_text)
        return [{"index": p.index, "score": p.score, **({"text": p.text} if returned else {})} for p in ranking]

    def predict(self, form: PredictForm, _: Work, __: str) -> list[Any]:
        """The labels of one pair, or of each of several, likeliest first."""
        one = isinstance(form.inputs[0], str) if form.inputs else False
        pairs: Any = [form.inputs] if one else form.inputs
        reranker = self._models.reranker(self._asked(form.model, len(pairs), "pairs"))
        rows = reranker.predict([(premise, hypothesis) for premise, hypothesis in pairs], output="logits")  # (n, C)
        if not form.raw_scores:
            rows = np.array([softmax(row) for row in rows.astype(np.float64) / reranker.engine.temperature])
        names = reranker.engine.labels.names
        labelled = [
            [{"label": names[i], "score": float(row[i])} for i in np.argsort(-row, kind="stable")] for row in rows
        ]
        return labelled[0] if one else labelled

    def verify(self, form: VerifyForm, _: Work, __: str) -> dict[str, Any]:
        """The library's verdict."""
        name = self._asked(form.model, len(form.passages), "passages")
        passages = self._texts("passage", form.passages)
        return self._models.reranker(name).verify(form.claim, passages, form.threshold).to_dict()

    def check(self, form: CheckForm, _: Work, __: str) -> dict[str, Any]:
        """The library's report."""
        reranker = self._models.reranker(self._models.name(form.model))
        pairs = len(claims_of(reranker.engine, form.answer)) * len(form.passages)
        self._asked(form.model, pairs, "pairs of statement and passage")
        return reranker.check(form.answer, self._texts("passage", form.passages), form.threshold).to_dict()

    def _texts(self, what: str, documents: list[Document], fields: list[str] | None = None) -> list[str]:
        """What is read of documents; fields were short, and what they are joined to may not be."""
        texts = read_texts(what, documents, fields)
        self._limits.require_short(texts)
        return texts

    def _asked(self, model: str | None, count: int, what: str) -> str:
        """The model's name, once the request is known to be no larger than allowed."""
        if count > self._limits.passages:
            message = f"{count} {what} are more than the {self._limits.passages} of a request: send them in several"
            raise RefusalError(413, message)
        name = self._models.name(model)
        self._metrics.asked(name, count)
        return name


def _result(passage: RankedPassage, form: CohereForm) -> dict[str, Any]:
    row: dict[str, Any] = {"index": passage.index, "relevance_score": passage.score}
    return {**row, "document": {"text": passage.text}} if form.return_documents else row


def _nli(passage: RankedPassage) -> dict[str, Any]:
    names = ("entailment", "neutral", "contradiction", "span", "refutation", "refutation_span", "windows")
    return {name: getattr(passage, name) for name in names}


def _meta(version: str) -> dict[str, Any]:
    return {"api_version": {"version": version}, "billed_units": {"search_units": 1}}
