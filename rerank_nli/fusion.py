"""Fusion with learned weights: how likely a passage supports, by its retrieval score and what the model says of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from rerank_nli.errors import CalibrationError, counted, require
from rerank_nli.fitted import Fitted
from rerank_nli.scores import minmax, sigmoid

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
_PENALTIES = (0.1, 1.0, 10.0, 100.0)  # a high one holds the weights near 0
_WIDTHS = (2, 4)  # features of a model with two labels, and with three
_EPSILON = 1e-4  # of a probability: beyond it log-odds would stretch what all passages have in common to nothing
_BOUND = 1e3  # of the intercept


@dataclass(frozen=True, slots=True)
class Fusion(Fitted):
    """σ(w · features + b) of a passage, with the settings that it is true for.

    The features are the retrieval score and the log-odds of P(entailment), P(neutral) and P(contradiction) of the
    window that won the score, each min-max within the query; of a model with two labels P(entailment) alone.

    Attributes:
        weights: (4,) in that order, or (2,).
        intercept: b.
        key: weights, precision, temperature, direction, kind, template, window and pool of the scores it was fitted on.
    """

    _name: ClassVar[str] = "fusion"

    weights: list[float]
    intercept: float
    key: dict[str, Any] = field(repr=False)

    @classmethod
    def fit(cls, rows: Sequence[Row], key: Mapping[str, Any], seed: int = 0) -> Fusion:
        """Fit on queries whose supporting passages are known (needs the `eval` extra).

        The weights are those of a conditional logit within each query (McFadden 1974), each supporting passage as the
        one chosen among those that do not support: they order a query's passages, and do not learn which queries have
        more support than others. Every query counts the same. Their L2 penalty is the one with the least loss on
        held-out queries, in five folds: a retriever or a probability that tells nothing gets a weight near 0. With the
        intercept, the mean over all passages is the share that supports.

        Args:
            rows: for each query its passages' probabilities (n, 3), as a ranking has them, with None or NaN for those
                that a two-label model has not; their retrieval scores (n,); and labels (n,), 1 for what supports.
            key: `NLIReranker.calibration_key` of the reranker that made the probabilities.
            seed: of the folds.

        Raises:
            CalibrationError: labels of one class, fewer than 20 queries that have passages of both, labels that are
                not 0 or 1, lengths that differ, numbers that are not finite.
            InputError: a seed below 0.
            MissingExtraError: scipy is not installed.
        """
        counted("seed", seed, least=0)
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
        sizes = [len(y) for _, y in read]
        told = np.repeat(mixed, sizes)  # (m,) of a query that says something of order
        query = np.repeat(np.arange(len(read)), sizes)[told]
        weights = _chosen(x[told], y[told], query, fold_of(mixed, seed)[query])
        odds = x @ weights  # (m,)

        def surplus(intercept: float) -> float:
            return float(sigmoid(odds + intercept).mean() - y.mean())

        intercept = require("scipy.optimize", "eval").brentq(surplus, -_BOUND, _BOUND)
        return cls(weights.tolist(), float(intercept), dict(key))

    def apply(self, probabilities: FloatArray, retrieval: FloatArray) -> FloatArray:
        """How likely each passage of one query supports it, beside the others, (n,) in 0..1.

        Args:
            probabilities: (n, 3).
            retrieval: (n,) retrieval scores.
        """
        p, r = (np.asarray(values, dtype=np.float64) for values in (probabilities, retrieval))
        x = _features(p, r)[:, : len(self.weights)]
        return sigmoid(x @ np.array(self.weights) + self.intercept)

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
    """(n, 4); what is the same for all passages counts as it is, within 0..1 as all else."""
    p = np.clip(probabilities, _EPSILON, 1 - _EPSILON)
    columns = [(np.clip(retrieval, 0, 1), retrieval), *zip(p.T, np.log(p / (1 - p)).T, strict=True)]
    return np.column_stack([minmax(far) if len(far) and np.ptp(far) > 0 else near for near, far in columns])


def _chosen(x: FloatArray, y: BoolArray, query: IntArray, fold: IntArray) -> FloatArray:
    """(d,) weights under the penalty with the least loss on held-out queries, for `_loss` with the fold of each row."""
    parts = [(fold != k, fold == k) for k in range(FOLDS)]

    def held_out(penalty: float) -> float:
        return sum(
            _loss(_conditional(x[fit], y[fit], query[fit], penalty), x[held], y[held], query[held])[0]
            for fit, held in parts
        )

    return _conditional(x, y, query, min(_PENALTIES, key=held_out))


def _conditional(x: FloatArray, y: BoolArray, query: IntArray, penalty: float) -> FloatArray:
    """(d,) weights with the least loss and L2 penalty."""

    def objective(weights: FloatArray) -> tuple[float, FloatArray]:
        loss, gradient = _loss(weights, x, y, query)
        return loss + penalty / 2 * float(weights @ weights), gradient + penalty * weights

    return require("scipy.optimize", "eval").minimize(objective, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B").x


def _loss(weights: FloatArray, x: FloatArray, y: BoolArray, query: IntArray) -> tuple[float, FloatArray]:
    """-log of a supporting passage's share in exp(w · x) over itself and those of its query that do not support.

    Args:
        weights: (d,).
        x: (m, d) features.
        y: (m,) which rows support.
        query: (m,) numbers of their queries, in order; each has rows of both kinds.

    Returns:
        The loss, mean over a query's supporting passages and summed over queries, and its gradient (d,).
    """
    first = np.diff(query, prepend=-1) != 0
    starts, place = np.flatnonzero(first), np.cumsum(first) - 1  # (q,), (m,)
    odds = x @ weights
    against = np.where(y, -np.inf, odds)
    highest = np.maximum.reduceat(against, starts)[place]  # so that a query's total is 1 or more
    others = np.exp(against - highest)
    total = np.add.reduceat(others, starts)[place]
    behind = np.log(total) + highest - odds  # (m,)
    each = y / np.add.reduceat(y.astype(float), starts)[place]
    pull = each * sigmoid(behind)
    push = np.add.reduceat(pull, starts)[place] * others / total
    return float(each @ np.logaddexp(0, behind)), (push - pull) @ x


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
