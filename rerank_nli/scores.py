"""Probabilities, score kinds, normalization and fusion: small pure functions on numpy arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rerank_nli.errors import InputError, is_number

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from rerank_nli.labels import Labels

    FloatArray = NDArray[np.floating[Any]]

__all__ = ["ALPHA", "COMBINES", "FUSIONS", "KINDS", "NORMALIZATIONS", "check_threshold", "probabilities"]

_EPSILON = 1e-12  # keeps a logit finite where a probability has rounded to 0 or 1


def probabilities(logits: FloatArray, labels: Labels, temperature: float = 1.0) -> FloatArray:
    """Softmax of logits / temperature, in the order entailment, neutral, contradiction.

    >>> from rerank_nli.labels import Labels
    >>> probabilities(np.log([[0.7, 0.1, 0.2]]), Labels.of(["contradiction", "neutral", "entailment"])).round(6)
    array([[0.2, 0.1, 0.7]])

    Args:
        logits: (m, C) in the checkpoint's own order.
        labels: which output is which.
        temperature: above 1 makes probabilities less extreme (Guo et al. 2017).

    Returns:
        float64 (m, 3); NaN in the columns that a two-label head does not have.
    """
    z = np.asarray(logits, dtype=np.float64) / temperature  # (m, C)
    e = np.exp(z - z.max(axis=1, keepdims=True, initial=-np.inf))
    p = e / e.sum(axis=1, keepdims=True)
    out = np.full((len(p), 3), np.nan)  # (m, 3)
    for column, source in enumerate(labels.columns):
        if source is not None:
            out[:, column] = p[:, source]
    return out


def entailment(p: FloatArray) -> FloatArray:
    """P(e), in 0..1.

    >>> entailment(np.array([[0.6, 0.3, 0.1]]))
    array([0.6])
    """
    return p[..., 0]


def entailment_vs_contradiction(p: FloatArray) -> FloatArray:
    """P(e) / (P(e) + P(c)), in 0..1: how the two decided outcomes compare, whatever is left to neutral.

    >>> entailment_vs_contradiction(np.array([[0.6, 0.2, 0.2]])).round(6)
    array([0.75])
    """
    return p[..., 0] / np.maximum(p[..., 0] + p[..., 2], _EPSILON)


def margin(p: FloatArray) -> FloatArray:
    """P(e) - P(c), in -1..1.

    >>> margin(np.array([[0.5, 0.25, 0.25]]))
    array([0.25])
    """
    return p[..., 0] - p[..., 2]


def logit(p: FloatArray) -> FloatArray:
    """ln(P(e) / (1 - P(e))), any finite number.

    >>> logit(np.array([[0.5, 0.3, 0.2], [0.9, 0.1, 0.0]])).round(4)
    array([0.    , 2.1972])
    """
    q = np.clip(p[..., 0], _EPSILON, 1 - _EPSILON)
    return np.log(q / (1 - q))


@dataclass(frozen=True, slots=True)
class Kind:
    """A score kind: its formula over probabilities (…, 3), and the range that its values and thresholds lie in."""

    formula: Callable[[FloatArray], FloatArray]
    low: float
    high: float
    ternary: bool

    @property
    def floor(self) -> float:
        """What a passage that says nothing scores: P(entailment) = 0, and for the margin P(contradiction) = 1."""
        return float(self.formula(np.array([0.0, 0.0, 1.0])))

    @property
    def is_probability(self) -> bool:
        """Whether the range is 0..1."""
        return (self.low, self.high) == (0.0, 1.0)


KINDS = {
    "entailment": Kind(entailment, 0.0, 1.0, ternary=False),
    "entailment_vs_contradiction": Kind(entailment_vs_contradiction, 0.0, 1.0, ternary=True),
    "margin": Kind(margin, -1.0, 1.0, ternary=True),
    "logit": Kind(logit, -np.inf, np.inf, ternary=False),
}


def check_threshold(threshold: float, kind: str) -> float:
    """The threshold as a float, if it is one and lies in the range of the score kind.

    Raises:
        InputError: not a finite number, or out of range.
    """
    low, high = KINDS[kind].low, KINDS[kind].high
    if not is_number(threshold) or not low <= threshold <= high:
        allowed = "any finite number" if np.isinf(high) else f"a number in {low:g}..{high:g}"
        message = f"threshold {threshold!r} cannot be compared with score={kind!r}: expected {allowed}"
        raise InputError(message)
    return float(threshold)


COMBINES: dict[str, Callable[[FloatArray, FloatArray], FloatArray]] = {
    "min": np.minimum,
    "mean": lambda a, b: (a + b) / 2,
    "harmonic": lambda a, b: 2 * a * b / np.maximum(a + b, _EPSILON),
    "max": np.maximum,
}


def softmax(s: FloatArray) -> FloatArray:
    """exp(s) / Σ exp(s).

    >>> softmax(np.log([1.0, 3.0])).round(6)
    array([0.25, 0.75])
    """
    e = np.exp(s - s.max(initial=-np.inf))
    return e / e.sum()


def sigmoid(z: FloatArray) -> FloatArray:
    """1 / (1 + exp(-z)), of any finite number without overflow.

    >>> sigmoid(np.array([0.0, np.log(3.0), -1e4])).round(6)
    array([0.5 , 0.75, 0.  ])
    """
    return np.exp(-np.logaddexp(0, -z))


def minmax(s: FloatArray) -> FloatArray:
    """(s - min) / (max - min); a lone passage and tied ones keep their scores, since there is nothing to stretch.

    >>> minmax(np.array([0.2, 0.4, 0.6])).round(6)
    array([0. , 0.5, 1. ])
    >>> minmax(np.array([0.8]))
    array([0.8])
    """
    spread = np.ptp(s) if len(s) else 0.0
    return (s - s.min()) / spread if spread > 0 else s.copy()


def zscore(s: FloatArray) -> FloatArray:
    """(s - mean) / standard deviation; 0 for tied scores.

    >>> zscore(np.array([1.0, 3.0]))
    array([-1.,  1.])
    """
    spread = s.std() if len(s) and np.ptp(s) > 0 else 1.0
    return (s - s.mean()) / spread if len(s) else s.copy()


def rank(s: FloatArray) -> FloatArray:
    """1 for the best and 1/n for the last, in equal steps; ties share the mean of their steps.

    >>> rank(np.array([0.9, 0.1, 0.5, 0.5]))
    array([1.   , 0.25 , 0.625, 0.625])
    """
    ordered = np.sort(s)
    below = np.searchsorted(ordered, s, side="left")
    equal = np.searchsorted(ordered, s, side="right") - below
    return (below + (equal + 1) / 2) / max(len(s), 1)


def total(s: FloatArray) -> FloatArray:
    """S / Σ s; scores below 0 are first lifted so that the least is 0, and equal shares are given where all are 0.

    >>> total(np.array([1.0, 3.0]))
    array([0.25, 0.75])
    >>> total(np.array([-1.0, 0.0, 1.0])).round(6)
    array([0.      , 0.333333, 0.666667])
    """
    lifted = s - min(0.0, s.min(initial=0.0))
    return lifted / lifted.sum() if lifted.sum() > 0 else np.full(len(s), 1 / max(len(s), 1))


NORMALIZATIONS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "softmax": softmax,
    "minmax": minmax,
    "zscore": zscore,
    "rank": rank,
    "sum": total,
}


def linear(s: FloatArray, r: FloatArray, alpha: float) -> FloatArray:
    """Alpha · minmax(scores) + (1 - alpha) · minmax(retrieval scores).

    >>> linear(np.array([0.0, 1.0]), np.array([5.0, 3.0]), 0.75)
    array([0.25, 0.75])
    """
    return alpha * minmax(s) + (1 - alpha) * minmax(r)


def reciprocal_rank(s: FloatArray, r: FloatArray, alpha: float) -> FloatArray:
    """Alpha / (60 + rank by score) + (1 - alpha) / (60 + rank by retrieval), ranks from 1, the best of tied ones.

    The constant is that of Cormack et al. 2009, Reciprocal Rank Fusion outperforms Condorcet.

    >>> (1 / reciprocal_rank(np.array([0.2, 0.9]), np.array([0.3, 0.9]), 0.5)).round(6)
    array([62., 61.])
    """

    def place(values: FloatArray) -> NDArray[np.intp]:
        return 1 + len(values) - np.searchsorted(np.sort(values), values, side="right")

    return alpha / (60 + place(s)) + (1 - alpha) / (60 + place(r))


# The weight of the score in a fusion: the least within 0.005 of the best mean nDCG@10 of the linear one over SciFact,
# WikiQA and FM2, each behind three retrievers, on every other query (benchmarks/evidence.py, "weight of NLI"). Lower
# leans on the retriever, which knows the matter; the best for SciFact alone is 0.3, for WikiQA 0.9, for FM2 1.
ALPHA = 0.4

FUSIONS: dict[str, Callable[[FloatArray, FloatArray, float], FloatArray]] = {
    "linear": linear,
    "rrf": reciprocal_rank,
}
