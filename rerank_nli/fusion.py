"""Fusion with learned weights: how likely a passage supports, by its retrieval score and what the model says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from rerank_nli.errors import CalibrationError, require
from rerank_nli.fitted import Fitted
from rerank_nli.scores import minmax

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from rerank_nli.scores import FloatArray

    Row = tuple[Any, Any, Any]
    BoolArray = NDArray[np.bool_]
    IntArray = NDArray[np.int64]

__all__ = ["FEWEST", "FOLDS", "Fusion", "fold_of"]

FEWEST = 20  # queries; below this a fit says more about the sample than about the model
FOLDS = 5
_STRENGTHS = (0.01, 0.1, 1.0, 10.0)  # C of the logistic regression: a low one holds the weights near 0
_WIDTHS = (2, 4)  # features of a model with two labels, and with three


@dataclass(frozen=True, slots=True)
class Fusion(Fitted):
    """σ(w · features + b) of a passage, with the settings that it is true for.

    The features are the retrieval score, min-max within the query, and P(entailment), P(neutral), P(contradiction) of
    the window that won the score; of a model with two labels P(entailment) alone.

    Attributes:
        weights: (4,) in that order, or (2,).
        intercept: b.
        key: weights, precision, temperature, direction, kind, template, window and pool of the scores it was fitted on.
    """

    _name: ClassVar[str] = "fusion"

    weights: list[float]
    intercept: float
    key: dict[str, Any]

    @classmethod
    def fit(cls, rows: Sequence[Row], key: Mapping[str, Any], seed: int = 0) -> Fusion:
        """Fit on queries whose supporting passages are known (needs the `eval` extra).

        It is a logistic regression whose L2 penalty is the one with the least log-loss on held-out queries, in five
        folds. A retriever or a probability that tells nothing gets a weight near 0.

        Args:
            rows: for each query its passages' probabilities (n, 3), as a ranking has them, with None or NaN for those
                that a two-label model has not; their retrieval scores (n,); and labels (n,), 1 for what supports.
            key: `NLIReranker.calibration_key` of the reranker that made the probabilities.
            seed: of the folds.

        Raises:
            CalibrationError: labels of one class, fewer than 20 queries that have passages of both, labels that are
                not 0 or 1, lengths that differ, numbers that are not finite.
        """
        read = [_checked(index, row) for index, row in enumerate(rows)]
        mixed = np.array([0 < y.sum() < len(y) for _, y in read])
        y = np.concatenate([y for _, y in read]) if read else np.empty(0, dtype=bool)
        if not y.any() or y.all():
            message = f"a fusion needs labels of both classes, got {int(y.sum())} of 1 among {len(y)}"
            raise CalibrationError(message)
        if mixed.sum() < FEWEST:
            message = (
                f"a fusion needs at least {FEWEST} queries with passages of both labels, "
                f"got {int(mixed.sum())} of {len(read)}"
            )
            raise CalibrationError(message)
        x = np.concatenate([x for x, _ in read])  # (m, 4)
        known = ~np.isnan(x)
        columns = known.all(axis=0)
        if columns.sum() not in _WIDTHS or (known.any(axis=0) != columns).any():
            message = "some passages have P(neutral) and P(contradiction) and others not: fit on one model's rows"
            raise CalibrationError(message)
        x = x[:, columns]
        fold = np.repeat(fold_of(mixed, seed), [len(y) for _, y in read])  # (m,)
        regression = require("sklearn.linear_model", "eval").LogisticRegression

        def fitted(strength: float, part: BoolArray) -> Any:  # noqa: ANN401 - scikit-learn states no types
            return regression(C=strength, solver="newton-cholesky", max_iter=1000).fit(x[part], y[part])

        def loss(strength: float) -> float:
            held = [(fold == k, fitted(strength, fold != k)) for k in range(FOLDS)]
            return sum(np.logaddexp(0, np.where(y[k], -1, 1) * m.decision_function(x[k])).sum() for k, m in held)

        model = fitted(min(_STRENGTHS, key=loss), np.full(len(y), fill_value=True))
        return cls(model.coef_[0].tolist(), float(model.intercept_[0]), dict(key))

    def apply(self, probabilities: FloatArray, retrieval: FloatArray) -> FloatArray:
        """How likely each passage of one query supports it, (n,) in 0..1.

        Args:
            probabilities: (n, 3).
            retrieval: (n,) retrieval scores.
        """
        x = _features(probabilities, retrieval)[:, : len(self.weights)]
        return np.exp(-np.logaddexp(0, -(x @ np.array(self.weights) + self.intercept)))

    def _try(self) -> None:
        if len(self.weights) not in _WIDTHS or not np.isfinite([*self.weights, self.intercept]).all():
            message = f"weights {self.weights}, intercept {self.intercept}"
            raise ValueError(message)


def fold_of(mixed: BoolArray, seed: int) -> IntArray:
    """Deal queries into five folds, those that have passages of both labels evenly among them.

    Args:
        mixed: (q,) whether a query has.
        seed: of the order in which they are dealt.
    """
    order = np.random.default_rng(seed).permutation(len(mixed))
    order = order[np.argsort(~mixed[order], kind="stable")]
    fold = np.empty(len(mixed), dtype=np.int64)
    fold[order] = np.arange(len(mixed)) % FOLDS
    return fold


def _features(probabilities: FloatArray, retrieval: FloatArray) -> FloatArray:
    """(n, 4); a lone or tied retrieval score, which min-max leaves as it is, is kept within 0..1 as all others are."""
    return np.column_stack([np.clip(minmax(retrieval), 0, 1), probabilities])


def _checked(index: int, row: Row) -> tuple[FloatArray, BoolArray]:
    """Features and labels of one query."""
    try:
        p, retrieval, labels = (np.asarray(values, dtype=np.float64) for values in row)
    except (TypeError, ValueError) as error:
        message = f"query {index} is not probabilities, retrieval scores and labels: {error}"
        raise CalibrationError(message) from error
    p = p.reshape(-1, 3) if p.size == 0 else p
    if labels.ndim != 1 or retrieval.shape != labels.shape or p.shape != (len(labels), 3):
        message = (
            f"query {index} has probabilities {p.shape}, retrieval scores {retrieval.shape} and labels {labels.shape}: "
            "expected (n, 3), (n,) and (n,)"
        )
        raise CalibrationError(message)
    if not np.isin(labels, (0, 1)).all():
        message = f"query {index}: labels must be 0 or 1, got {labels[~np.isin(labels, (0, 1))][0]:g}"
        raise CalibrationError(message)
    if not np.isfinite([*retrieval, *p[:, 0]]).all() or np.isinf(p).any():
        message = f"query {index}: a retrieval score or a probability is not a finite number"
        raise CalibrationError(message)
    return _features(p, retrieval), labels.astype(bool)
