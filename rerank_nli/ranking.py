"""From numbers to results: passages in order, with what was asked of them, and the two sides of a filter."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rerank_nli import inputs
from rerank_nli.budget import score_first
from rerank_nli.errors import InputTypeError
from rerank_nli.fusion import Fusion
from rerank_nli.scores import ALPHA, FUSIONS, NORMALIZATIONS
from rerank_nli.types import Filtered, Probabilities, RankedPassage, Ranking

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    from rerank_nli.scorer import Scored, Scorer
    from rerank_nli.scores import FloatArray

__all__ = ["KEEPS", "compared_by", "divide", "named", "ordered", "rankings"]

KEEPS = ("entailment", "contradiction", "evidence")


def rankings(
    scorer: Scorer,
    queries: Sequence[Any],
    passage_lists: Sequence[Any],
    *,
    normalize: str | None = None,
    retrieval_scores: Iterable[float] | None = None,
    fuse: str | os.PathLike[str] | Fusion | None = None,
    alpha: float = ALPHA,
    limits: tuple[int | None, float | None] = (None, None),
    many: bool = False,
    what: str = "query",
) -> list[Ranking]:
    """Read, score and order each query's passages, all in one stream of batches.

    Args:
        scorer: what scores.
        queries: q of them; one, where there are retrieval scores or limits.
        passage_lists: q lists of the caller's passages.
        normalize: a normalization, for `relative`.
        retrieval_scores: one for each passage.
        fuse: a fusion of score and retrieval score, or its file, for the order and `relative`.
        alpha: weight of the score in it, 0..1.
        limits: most passages to score, and most seconds for it.
        many: whether errors name the list.
        what: what errors call a query.

    Raises:
        InputError, InputTypeError, QueryTooLongError, CalibrationError: as `NLIReranker.rank`.
    """
    fuse = inputs.fusion(fuse)
    for index, query in enumerate(queries):
        if not isinstance(query, str):
            message = f"{what} {index} must be a text, got {query!r}"
            raise InputTypeError(message)
    of_list = [f" of list {k}" if many else "" for k in range(len(queries))]
    lists = [inputs.listed(f"passages{of}", passages) for of, passages in zip(of_list, passage_lists, strict=True)]
    read = [
        [inputs.text_and_id(f"passage {i}{of}", passage) for i, passage in enumerate(passages)]
        for of, passages in zip(of_list, lists, strict=True)
    ]
    if isinstance(fuse, Fusion) and any(lists):  # adapters try their settings with nothing to fuse
        fuse.require_key(scorer.key)
    retrieval = inputs.retrieval(retrieval_scores, len(lists[0]) if lists else 0, fuse, alpha)
    bodies = [[text for text, _ in texts] for texts in read]
    scored: Sequence[Sequence[Scored | None]]
    if limits == (None, None):
        scored = scorer.score(queries, bodies, what)
    else:
        depth, seconds = limits
        turns = range(len(bodies[0])) if retrieval is None else np.argsort(-retrieval, kind="stable").tolist()
        scored = [score_first(scorer, queries[0], bodies[0], turns[:depth], seconds)]
    return [
        ordered(scorer, *one, normalize=normalize, retrieval=retrieval, fuse=fuse, alpha=alpha)
        for one in zip(queries, lists, read, scored, strict=True)
    ]


def ordered(
    scorer: Scorer,
    query: str,
    passages: Sequence[Any],
    texts: Sequence[tuple[str, Any]],
    scored: Sequence[Scored | None],
    *,
    normalize: str | None = None,
    retrieval: FloatArray | None = None,
    fuse: str | Fusion | None = None,
    alpha: float = ALPHA,
) -> Ranking:
    """The scored passages, best first, by score or by its fusion with the retrieval score; ties keep their order.

    Args:
        scorer: for the settings that the ranking names.
        query: the query.
        passages: n objects of the caller's.
        texts: n texts and ids, read from them.
        scored: n results of the scorer; None leaves a passage out.
        normalize: as `rankings`.
        retrieval: (n,) retrieval scores.
        fuse: as `rankings`.
        alpha: as `rankings`.
    """
    places = [place for place, result in enumerate(scored) if result is not None]
    results = [result for result in scored if result is not None]
    scores = np.array([result.score for result in results])  # (k,)
    first_stage = None if retrieval is None else retrieval[places]
    if fuse is None or first_stage is None:
        fused = scores
    elif isinstance(fuse, Fusion):
        fused = fuse.apply(np.array([result.probabilities for result in results]).reshape(-1, 3), first_stage)
    else:
        fused = FUSIONS[fuse](scores, first_stage, alpha)
    relative = fused if normalize is None else NORMALIZATIONS[normalize](fused)
    has_relative = fuse is not None or normalize is not None
    ranked = tuple(
        RankedPassage(
            index=place,
            passage=passages[place],
            text=texts[place][0],
            id=texts[place][1],
            score=result.score,
            relative=float(relative[i]) if has_relative else None,
            retrieval_score=None if first_stage is None else float(first_stage[i]),
            **named(result.probabilities)._asdict(),
            span=result.span,
            refutation=None if np.isnan(result.refutation) else result.refutation,
            refutation_span=None if np.isnan(result.refutation) else result.refutation_span,
            windows=result.windows,
            reverse=None if result.reverse is None else named(result.reverse),
        )
        for i, place, result in ((int(i), places[i], results[i]) for i in np.argsort(-fused, kind="stable"))
    )
    unscored = tuple(place for place, result in enumerate(scored) if result is None)
    return Ranking(query, ranked, scorer.direction, scorer.kind, scorer.calibration is not None, unscored)


def divide(ranking: Ranking, threshold: float | None, keep: str, top_k: int | None) -> Filtered:
    """Kept and dropped; what is not kept for its entailment is ordered by what was compared."""
    compared = {p.index: compared_by(p, keep) for p in ranking}
    ordered = list(ranking) if keep == "entailment" else sorted(ranking, key=lambda p: -compared[p.index])
    kept = [p for p in ordered if threshold is None or compared[p.index] >= threshold][:top_k]
    inside = {p.index for p in kept}
    dropped = tuple(p for p in ordered if p.index not in inside)
    return Filtered(replace(ranking, passages=tuple(kept)), replace(ranking, passages=dropped), threshold, keep)


def compared_by(passage: RankedPassage, keep: str) -> float:
    """What a threshold is held against."""
    refutation = passage.refutation or 0.0
    return {"entailment": passage.score, "contradiction": refutation, "evidence": max(passage.score, refutation)}[keep]


def named(row: FloatArray) -> Probabilities:
    """Three numbers as probabilities, None for NaN."""
    entailment, *others = row.tolist()
    neutral, contradiction = (None if np.isnan(p) else p for p in others)
    return Probabilities(entailment, neutral, contradiction)
