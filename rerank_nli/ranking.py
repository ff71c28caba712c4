"""From numbers to results: passages in order, with what was asked of them, and the two sides of a filter."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rerank_nli.scores import FUSIONS, NORMALIZATIONS
from rerank_nli.types import Filtered, Probabilities, RankedPassage, Ranking

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rerank_nli.scorer import Scored, Scorer
    from rerank_nli.scores import FloatArray

__all__ = ["KEEPS", "divide", "named", "order"]

KEEPS = ("entailment", "contradiction", "evidence")


def order(
    query: str,
    passages: Sequence[Any],
    texts: Sequence[tuple[str, Any]],
    scored: Sequence[Scored],
    scorer: Scorer,
    *,
    normalize: str | None,
    retrieval: FloatArray | None,
    fuse: str | None,
    alpha: float,
) -> Ranking:
    """A ranking, best first: by score, or by the fusion of score and retrieval score; ties keep their order.

    Args:
        query: the query.
        passages: n objects of the caller's.
        texts: n texts and ids, read from them.
        scored: n results of the scorer.
        scorer: it, for the settings that the ranking names.
        normalize: a normalization, for `relative`.
        retrieval: (n,) retrieval scores.
        fuse: a fusion, for the order and `relative`.
        alpha: weight of the score in it, 0..1.
    """
    scores = np.array([s.score for s in scored])  # (n,)
    fused = scores if fuse is None or retrieval is None else FUSIONS[fuse](scores, retrieval, alpha)
    relative = fused if normalize is None else NORMALIZATIONS[normalize](fused)
    has_relative = fuse is not None or normalize is not None
    ranked = tuple(
        RankedPassage(
            index=int(i),
            passage=passages[i],
            text=texts[i][0],
            id=texts[i][1],
            score=scored[i].score,
            relative=float(relative[i]) if has_relative else None,
            retrieval_score=None if retrieval is None else float(retrieval[i]),
            **named(scored[i].probabilities)._asdict(),
            span=scored[i].span,
            refutation=None if np.isnan(scored[i].refutation) else scored[i].refutation,
            refutation_span=None if np.isnan(scored[i].refutation) else scored[i].refutation_span,
            windows=scored[i].windows,
            reverse=None if (reverse := scored[i].reverse) is None else named(reverse),
        )
        for i in np.argsort(-fused, kind="stable")
    )
    return Ranking(query, ranked, scorer.direction, scorer.kind, scorer.calibration is not None)


def divide(ranking: Ranking, threshold: float | None, keep: str, top_k: int | None) -> Filtered:
    """Kept and dropped; what is not kept for its entailment is ordered by what was compared."""
    compared = {p.index: _compared(p, keep) for p in ranking}
    ordered = list(ranking) if keep == "entailment" else sorted(ranking, key=lambda p: -compared[p.index])
    kept = [p for p in ordered if threshold is None or compared[p.index] >= threshold][:top_k]
    inside = {p.index for p in kept}
    dropped = tuple(p for p in ordered if p.index not in inside)
    return Filtered(replace(ranking, passages=tuple(kept)), replace(ranking, passages=dropped), threshold, keep)


def named(row: FloatArray) -> Probabilities:
    """Three numbers as probabilities, None for NaN."""
    entailment, *others = row.tolist()
    neutral, contradiction = (None if np.isnan(p) else p for p in others)
    return Probabilities(entailment, neutral, contradiction)


def _compared(passage: RankedPassage, keep: str) -> float:
    refutation = passage.refutation or 0.0
    return {"entailment": passage.score, "contradiction": refutation, "evidence": max(passage.score, refutation)}[keep]
