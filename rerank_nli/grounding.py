"""Verdicts: what ranked passages say about a claim, and which sentence says it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rerank_nli.types import Span, Verdict
from rerank_nli.windows import sentences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rerank_nli.scorer import Scored, Scorer
    from rerank_nli.types import RankedPassage, Ranking

__all__ = ["pinpoint", "statement", "verdict"]


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


def pinpoint(scorer: Scorer, rankings: Sequence[Ranking]) -> list[Ranking]:
    """Narrow each span from the window that won to the sentence in it that alone scores highest.

    The refutation span likewise becomes the sentence with the highest P(contradiction). Scores and probabilities stay
    those of the window. The sentences of all rankings are scored in one stream of batches.

    Args:
        scorer: the one that made the rankings.
        rankings: what to narrow.
    """
    texts = [[p.text[a:b] for p in ranking for w in _windows(p) for a, b in _inside(p, w)] for ranking in rankings]
    scored = scorer.score([ranking.query for ranking in rankings], texts)
    by_text = [dict(zip(t, s, strict=True)) for t, s in zip(texts, scored, strict=True)]
    return [
        replace(ranking, passages=tuple(_narrowed(p, known) for p in ranking))
        for ranking, known in zip(rankings, by_text, strict=True)
    ]


def _windows(passage: RankedPassage) -> list[Span]:
    return [passage.span] if passage.refutation_span is None else [passage.span, passage.refutation_span]


def _inside(passage: RankedPassage, window: Span) -> list[Span]:
    return [Span(window.start + a, window.start + b) for a, b in sentences(passage.text[window.start : window.end])]


def _narrowed(passage: RankedPassage, known: dict[str, Scored]) -> RankedPassage:
    def best(window: Span, refutes: bool) -> Span:  # noqa: FBT001 - both call sites are below
        def height(span: Span) -> float:
            scored = known[passage.text[span.start : span.end]]
            return scored.refutation if refutes else scored.score

        return max(_inside(passage, window), key=height, default=window)

    refutation = None if passage.refutation_span is None else best(passage.refutation_span, refutes=True)
    return replace(passage, span=best(passage.span, refutes=False), refutation_span=refutation)


def statement(question: str, answer: str) -> str:
    """The hypothesis that an answer makes of a question.

    A model trained on question and sentence pairs reads "question answer" as it is; benchmarks/templates.py compares
    other forms. An answer that is a sentence already stands alone.

    >>> statement("Who wrote Hamlet?", "William Shakespeare")
    'Who wrote Hamlet? William Shakespeare'
    """
    return f"{question.strip()} {answer.strip()}"
