"""Verdicts: what ranked passages say about a claim, and about each sentence of an answer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rerank_nli.types import Ranking

from rerank_nli.types import Verdict

__all__ = ["statement", "verdict"]


def verdict(claim: str, ranking: Ranking, threshold: float) -> Verdict:
    """Supported or refuted by the passages past the threshold, whichever is the stronger; else insufficient.

    Args:
        claim: the claim.
        ranking: passages scored by P(entailment), by a model that knows contradiction.
        threshold: 0..1, for P(entailment) and for P(contradiction).
    """
    refutations = {p.index: p.refutation or 0.0 for p in ranking}
    supporting = tuple(p for p in ranking if p.score >= threshold)
    refuting = tuple(
        sorted((p for p in ranking if refutations[p.index] >= threshold), key=lambda p: -refutations[p.index])
    )
    support = max((p.score for p in ranking), default=0.0)
    refutation = max(refutations.values(), default=0.0)
    if supporting and support >= refutation:
        label, confidence = "supported", support
    elif refuting:
        label, confidence = "refuted", refutation
    else:
        label, confidence = "insufficient", 1.0 - max(support, refutation)
    return Verdict(
        label=label,  # type: ignore[arg-type]
        confidence=confidence,
        supporting=replace(ranking, passages=supporting),
        refuting=replace(ranking, passages=refuting),
        claim=claim,
    )


def statement(question: str, answer: str) -> str:
    """The hypothesis that an answer makes of a question.

    A model trained on question and sentence pairs reads "question answer" as it is; benchmarks/templates.py compares
    other forms. An answer that is a sentence already stands alone.

    >>> statement("Who wrote Hamlet?", "William Shakespeare")
    'Who wrote Hamlet? William Shakespeare'
    """
    return f"{question.strip()} {answer.strip()}"
