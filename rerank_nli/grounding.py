"""Verdicts: what ranked passages say about a claim, and which sentence says it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rerank_nli import inputs
from rerank_nli.ranking import rankings
from rerank_nli.scores import check_threshold
from rerank_nli.types import Span, Verdict
from rerank_nli.windows import sentences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rerank_nli.scorer import Scored, Scorer
    from rerank_nli.types import RankedPassage, Ranking

__all__ = ["pinpoint", "statement", "verdict", "verdicts"]


def verdicts(judge: Scorer, claims: Sequence[str], passages: Any, threshold: float) -> list[Verdict]:  # noqa: ANN401
    """A verdict on each claim, the spans of its passages narrowed to the deciding sentence.

    Args:
        judge: from `Scorer.for_verdicts`.
        claims: the claims.
        passages: the caller's, for all of them.
        threshold: 0..1.

    Raises:
        LabelError: the model has two labels.
        InputError, InputTypeError, QueryTooLongError: as `rankings`, or a threshold out of range.
    """
    judge.engine.labels.require_contradiction("a verdict")
    threshold = check_threshold(threshold, "entailment")
    passages = inputs.listed("passages", passages)
    ranked = rankings(judge, claims, [passages] * len(claims))
    found = [verdict(claim, ranking, threshold) for claim, ranking in zip(claims, ranked, strict=True)]
    narrowed = iter(pinpoint(judge, [side for one in found for side in (one.supporting, one.refuting)]))
    return [replace(one, supporting=next(narrowed), refuting=next(narrowed)) for one in found]


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


_BE = r"is|are|was|were"
_AUXILIARY = rf"do|does|did|can|could|should|will|would|may|must|has|have|had|{_BE}"
_COPULA = rf"(?i)(?:who|what)\s+({_BE})\s+(.+)"
_SUBJECT = rf"(?i)(?:(?:who|what)\s+(?!(?:{_AUXILIARY})\b)|which\s+\w+\s+(?!(?!{_BE})(?:{_AUXILIARY})\b))(.+)"
_COUNT = rf"(?i)how\s+(?:many|much)\s+(.+?)\s+(?:{_AUXILIARY})\s+(.+)"
_OTHER = rf"(?i)(when|where|why|how\s+\w+|how|who|whom|what|which\s+\w+)\s+(?:{_AUXILIARY})\s+(.+)"


def statement(question: str, answer: str) -> str:
    """The hypothesis that an answer makes of a question: an English question becomes a statement, if a rough one.

    A question that no rule fits comes after its answer. benchmarks/templates.py compares this with simpler forms.

    >>> statement("Who wrote Hamlet?", "Shakespeare")
    'Shakespeare wrote Hamlet.'
    >>> statement("What is the largest ocean?", "the Pacific")
    'The largest ocean is the Pacific.'
    >>> statement("How many moons does Mars have?", "two")
    'Mars have two moons.'
    >>> statement("Wer schrieb Hamlet?", "Shakespeare")
    'Shakespeare: Wer schrieb Hamlet.'
    """
    asked, answer = question.strip().rstrip("?").rstrip(), answer.strip().rstrip(".")
    if match := re.fullmatch(_COPULA, asked):
        text = f"{match[2]} {match[1]} {answer}"
    elif match := re.fullmatch(_SUBJECT, asked):
        text = f"{answer} {match[1]}"
    elif match := re.fullmatch(_COUNT, asked):
        text = f"{match[2]} {answer} {match[1]}"
    elif match := re.fullmatch(_OTHER, asked):
        text = f"{match[2]} {'because ' if match[1].lower() == 'why' else ''}{answer}"
    else:
        text = f"{answer}: {asked}"
    return f"{text[:1].upper()}{text[1:]}."
