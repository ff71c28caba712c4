"""How far the score of one passage may lie from itself when it is scored again, in differences of probability."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rerank_nli import RankedPassage


class Bound(NamedTuple):
    """The most that a difference may be, and the most that 99.9 % of them may be."""

    most: float
    usual: float

    def holds(self, differences: Sequence[float]) -> bool:
        """Whether all differences of a test are within it; none at all say nothing."""
        return max(differences) <= self.most and float(np.quantile(differences, 0.999)) <= self.usual


EXACT = Bound(1e-12, 1e-12)
FP32 = Bound(1e-5, 1e-5)
INT8 = Bound(1e-2, 1e-3)


def as_probability(score: float, kind: str) -> float:
    """A score of any kind in 0..1, so that differences of all kinds compare."""
    return {"margin": (1 + score) / 2, "logit": float(1 / (1 + np.exp(-score)))}.get(kind, score)


def difference(one: RankedPassage, other: RankedPassage, kind: str) -> float:
    """Of score or refutation, the larger; the number of windows counts too, so that other windows are never within."""
    scores = as_probability(one.score, kind), as_probability(other.score, kind)
    refutations = one.refutation or 0.0, other.refutation or 0.0
    windows = one.windows, other.windows
    return max(abs(a - b) for a, b in (scores, refutations, windows))
