"""Conflicts: which passages contradict or agree with each other, and which sentences of them do."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rerank_nli.grounding import claims_of, pinpoint
from rerank_nli.ranking import ordered
from rerank_nli.types import Conflicts, Relation, Span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rerank_nli.scorer import Scored, Scorer
    from rerank_nli.types import Ranking

__all__ = ["conflicts"]


class _Claim(NamedTuple):
    """A sentence of a passage, held against the others."""

    passage: int
    span: Span
    text: str


class _Found(NamedTuple):
    """What one other passage says of a claim: P(contradiction) or P(entailment)."""

    probability: float
    claim: _Claim
    other: int
    scored: Scored


def conflicts(scorer: Scorer, texts: Sequence[str], threshold: float) -> Conflicts:
    """Hold each sentence of each text against every other text, and keep the strongest of each two texts and kind.

    Sentences are all scored in one stream of batches, and the deciding sentences of what is kept in a second one.

    Args:
        scorer: by P(entailment), passage → claim, uncalibrated, of a model that knows contradiction.
        texts: n of them.
        threshold: 0..1, for P(contradiction) and P(entailment).
    """
    claims = [
        _Claim(index, span, text[span.start : span.end])
        for index, text in enumerate(texts)
        for span in claims_of(scorer.engine, text)
    ]
    others = [[i for i in range(len(texts)) if i != claim.passage] for claim in claims]
    scored = scorer.score([claim.text for claim in claims], [[texts[i] for i in indices] for indices in others])
    strongest: dict[tuple[int, int, str], _Found] = {}
    for claim, indices, numbers in zip(claims, others, scored, strict=True):
        for other, number in zip(indices, numbers, strict=True):
            if not number.windows:  # it is blank
                continue
            for kind, probability in (("contradict", number.refutation), ("agree", number.score)):
                key = (min(claim.passage, other), max(claim.passage, other), kind)
                if probability >= threshold and (key not in strongest or probability > strongest[key].probability):
                    strongest[key] = _Found(probability, claim, other, number)
    rankings = [
        ordered(scorer, found.claim.text, [None], [(texts[found.other], None)], [found.scored])
        for found in strongest.values()
    ]
    relations = [
        _relation(key, found, narrowed, texts)
        for (key, found), narrowed in zip(strongest.items(), pinpoint(scorer, rankings), strict=True)
    ]
    relations.sort(key=lambda r: (-r.probability, r.first, r.second, r.kind))
    return Conflicts(tuple(relations), len(texts), threshold)


def _relation(key: tuple[int, int, str], found: _Found, narrowed: Ranking, texts: Sequence[str]) -> Relation:
    first, second, kind = key
    decides = narrowed[0].refutation_span if kind == "contradict" else narrowed[0].span
    spans = {found.claim.passage: found.claim.span, found.other: decides or narrowed[0].span}
    return Relation(
        kind=kind,  # type: ignore[arg-type]
        probability=float(found.probability),
        first=first,
        second=second,
        claim=found.claim.passage,
        first_span=spans[first],
        second_span=spans[second],
        first_text=texts[first][spans[first].start : spans[first].end],
        second_text=texts[second][spans[second].start : spans[second].end],
    )
