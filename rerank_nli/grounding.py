"""Verdicts: what ranked passages say about a claim, and which sentence says it."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import permutations
from typing import TYPE_CHECKING, Any

from rerank_nli import inputs
from rerank_nli.errors import one_of
from rerank_nli.ranking import divide, rankings
from rerank_nli.scorer import FEWEST_TOKENS
from rerank_nli.scores import check_threshold
from rerank_nli.types import Span, Verdict
from rerank_nli.windows import QUESTION_MARKS, sentences, statements, windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rerank_nli.engines import Engine
    from rerank_nli.scorer import Scored, Scorer
    from rerank_nli.types import RankedPassage, Ranking

__all__ = ["JOINED", "claims_of", "pinpoint", "statement", "verdict", "verdicts"]

JOINED = 4  # passages that are joined two by two: trying their 12 pairs costs about what a retriever's ten passages did


def claims_of(engine: Engine, text: str) -> list[Span]:
    """Where each statement of a text stands; one that would leave a passage little room comes in pieces."""
    room = engine.max_length - engine.special
    budget = max(1, min(room // 2, room - FEWEST_TOKENS))
    found = statements(text)
    tokenized = engine.tokenize([text[a:b] for a, b in found])
    pieces = [
        Span(span.start + w.span.start, span.start + w.span.end)
        for span, tokens in zip(found, tokenized, strict=True)
        for w in windows(tokens, budget)
    ]
    return [piece for piece in pieces if piece.end > piece.start]


def verdicts(
    judge: Scorer,
    claims: Sequence[str],
    passages: Any,  # noqa: ANN401
    threshold: float,
    join: int | None = None,
) -> tuple[list[Verdict], list[Ranking]]:
    """A verdict on each claim, the spans of its passages narrowed to the deciding sentence.

    Args:
        judge: from `Scorer.for_verdicts`.
        claims: the claims.
        passages: the caller's, for all of them.
        threshold: 0..1.
        join: 2 joins passages two by two where none alone settles a claim.

    Returns:
        The verdicts, and all passages ranked for each claim.

    Raises:
        LabelError: the model has two labels.
        InputError, InputTypeError, QueryTooLongError: as `rankings`, a threshold out of range, or another `join`.
    """
    judge.engine.labels.require_contradiction("a verdict")
    threshold = check_threshold(threshold, "entailment")
    one_of("join", join, (None, 2))
    passages = inputs.listed("passages", passages)
    ranked = rankings(judge, claims, [passages] * len(claims), what="claim")
    found = [verdict(claim, ranking, threshold) for claim, ranking in zip(claims, ranked, strict=True)]
    narrowed = iter(pinpoint(judge, [side for one in found for side in (one.supporting, one.refuting)]))
    found = [replace(one, supporting=next(narrowed), refuting=next(narrowed)) for one in found]
    return found if join is None else _joined(judge, found, ranked, threshold), ranked


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


def _joined(judge: Scorer, found: Sequence[Verdict], ranked: Sequence[Ranking], threshold: float) -> list[Verdict]:
    """The verdicts, where they were insufficient with the strongest passages joined two by two, in both orders.

    All that is joined is scored in one stream of batches.
    """
    pairs = [
        list(permutations(_strongest(ranking), 2)) if one.label == "insufficient" else []
        for one, ranking in zip(found, ranked, strict=True)
    ]
    texts = [[f"{a.evidence} {b.evidence}" for a, b in some] for some in pairs]
    scored = judge.unwindowed().score([one.claim for one in found], texts)
    return [_by_two(*each, threshold) for each in zip(found, pairs, scored, strict=True)]


def _strongest(ranking: Ranking) -> list[RankedPassage]:
    """The passages that say most of the claim, either way, no two the same; their spans are of the window that does."""
    by_text: dict[str, RankedPassage] = {}
    for p in divide(ranking, None, "evidence", None).kept:
        window = p.span if p.refutation_span is None or p.score >= (p.refutation or 0.0) else p.refutation_span
        by_text.setdefault(p.text[window.start : window.end], replace(p, span=window))
    return list(by_text.values())[:JOINED]


def _by_two(
    one: Verdict, pairs: Sequence[tuple[RankedPassage, RankedPassage]], scored: Sequence[Scored], threshold: float
) -> Verdict:
    """The verdict of the two passages that say most as one premise, if that passes the threshold."""
    tried = [
        (probability, supports, pair, spans)
        for pair, s in zip(pairs, scored, strict=True)
        for probability, supports, window in ((s.score, True, s.span), (s.refutation, False, s.refutation_span))
        if (spans := _parts(pair, window)) is not None
    ]
    if not tried:
        return one
    probability, supports, pair, spans = max(tried, key=lambda t: t[:2])
    if probability < threshold:
        return replace(one, confidence=min(one.confidence, 1.0 - probability))
    both = tuple(replace(p, span=s, refutation_span=s) for p, s in zip(pair, spans, strict=True))
    joint, none = replace(one.supporting, passages=both), one.refuting
    label, sides = ("supported", (joint, none)) if supports else ("refuted", (none, joint))
    return Verdict(label, probability, *sides, one.claim, joined=(pair[0].index, pair[1].index))  # type: ignore[arg-type]


def _parts(pair: tuple[RankedPassage, RankedPassage], window: Span) -> tuple[Span, Span] | None:
    """What a window of the joined text holds of each passage, as characters of it; None if it is not of both."""
    first, second = (p.span for p in pair)
    middle = first.end - first.start
    if not window.start < middle < window.end - 1:
        return None
    return Span(first.start + window.start, first.end), Span(second.start, second.start + window.end - middle - 1)


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
_MODAL = r"has|have|had|can|could|should|will|would|may|must"
_AUXILIARY = rf"do|does|did|{_MODAL}|{_BE}"
_COPULA = rf"(?i)(?:who|what)\s+({_BE})\s+(.+)"
_OTHER_DOER = r"(?:the|an?|this|that|these|those|my|your|his|her|its|our|their|i|you|he|she|it|we|they)\b"
_DOER = rf"(?i)who\s+((?:{_MODAL})\s+(?!{_OTHER_DOER})(?-i:[a-z]).*)"
_SUBJECT = (
    rf"(?i)(?:(?:who|what)\s+(?!(?:\w+\s+)?(?:do|does|did)\b)(?!(?:{_AUXILIARY})\b)"
    rf"|which\s+\w+\s+(?!(?!{_BE})(?:{_AUXILIARY})\b))(.+)"
)
_COUNT = rf"(?i)how\s+(?:many|much)\s+(.+?)\s+(?:{_AUXILIARY})\s+(.+)"
_PLACE = rf"(?i)(in|on|at|to|from|for|by|with|of)\s+(?:which|what)\s+\w+\s+(?:{_AUXILIARY})\s+(.+)"
_OTHER = rf"(?i)(when|where|why|how\s+\w+|how|who|whom|(?:what|which)\s+\w+|what)\s+(?:{_AUXILIARY})\s+(.+)"
_ENDS = f"{QUESTION_MARKS}!. "


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
    asked, answer = question.strip().rstrip(_ENDS), answer.strip().rstrip(".。")
    if match := re.fullmatch(_COPULA, asked):
        text = f"{match[2]} {match[1]} {answer}"
    elif match := re.fullmatch(_DOER, asked) or re.fullmatch(_SUBJECT, asked):
        text = f"{answer} {match[1]}"
    elif match := re.fullmatch(_COUNT, asked):
        text = f"{match[2]} {answer} {match[1]}"
    elif match := re.fullmatch(_PLACE, asked):
        text = f"{match[2]} {match[1].lower()} {answer}"
    elif match := re.fullmatch(_OTHER, asked):
        because = match[1].lower() == "why" and not answer.lower().startswith("because")
        text = f"{match[2]} {'because ' if because else ''}{answer}"
    else:
        text = f"{answer}: {asked}"
    return f"{text[:1].upper()}{text[1:]}."
