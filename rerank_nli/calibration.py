"""Make a pooled score mean what it says: fit, apply, save and load a calibration that is bound to its settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from rerank_nli.errors import CalibrationError, one_of, require
from rerank_nli.fitted import Fitted
from rerank_nli.scores import sigmoid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from rerank_nli.scores import FloatArray

__all__ = ["METHODS", "Calibration"]

METHODS = ("platt", "beta", "isotonic")

_EPSILON = 1e-7  # keeps the logarithms finite for a float32 score of 0 or 1
_TILT = 0.01  # share of the score itself in an isotonic map
_FEWEST = 20  # below this a fit says more about the sample than about the model


def _features(scores: FloatArray, method: str) -> FloatArray:
    s = np.clip(scores, _EPSILON, 1 - _EPSILON)
    if method == "platt":
        return np.log(s / (1 - s))[:, None]  # (n, 1)
    return np.stack([np.log(s), -np.log1p(-s)], axis=1)  # (n, 2)


@dataclass(frozen=True, slots=True)
class Calibration(Fitted):
    """A map from pooled score to probability, with the settings that it is true for.

    Attributes:
        method: "platt" σ(a·logit(s) + b) (Platt 1999, on log-odds); "beta" σ(a·ln s - b·ln(1 - s) + c) (Kull et al.
            2017); "isotonic", straight lines between the knots of a monotone fit (Zadrozny and Elkan 2002), which
            is level in places: a hundredth of the score itself keeps passages there in their order.
        parameters: coefficients and intercept, or for isotonic the knots' scores and then their probabilities.
        key: weights, precision, temperature, direction, kind, template, window and pool of the scores it was fitted on.
        questions: the parameters for queries that are questions, where those were fitted on their own.
    """

    _name: ClassVar[str] = "calibration"

    method: str
    parameters: list[list[float]]
    key: dict[str, Any] = field(repr=False)
    questions: list[list[float]] | None = None

    @classmethod
    def fit(
        cls,
        scores: FloatArray,
        labels: FloatArray,
        method: str,
        key: Mapping[str, Any],
        questions: NDArray[np.bool_] | None = None,
    ) -> Calibration:
        """Fit on scores whose truth is known (needs the `eval` extra).

        Args:
            scores: (n,) pooled scores in 0..1.
            labels: (n,) whether the passage entails the query.
            method: "platt", "beta" or "isotonic".
            key: `NLIReranker.calibration_key` of the reranker that made the scores.
            questions: (n,) whether the query is a question, to fit those on their own.

        Raises:
            CalibrationError: fewer than 20 rows, labels that are not 0 or 1 or of one class only, scores outside 0..1
                or all the same, or scores that fall as the truth rises; of questions, and of what are none, on their
                own where they are told apart.
        """
        one_of("calibration method", method, METHODS)
        given = np.asarray(labels)
        if not np.isin(given, (0, 1)).all():
            message = "labels of a calibration are 1 (the passage entails the query) or 0"
            raise CalibrationError(message)
        s, y = np.asarray(scores, dtype=np.float64), given.astype(bool)
        if s.shape != y.shape or s.ndim != 1:
            message = f"a calibration needs scores with a label each, got {s.shape} and {y.shape}"
            raise CalibrationError(message)
        if questions is None:
            return cls(method, _fitted(s, y, method), dict(key))
        asked = np.asarray(questions, dtype=bool)
        if asked.shape != s.shape:
            message = f"questions says of each of {len(s)} scores whether its query is one, got {asked.shape}"
            raise CalibrationError(message)
        return cls(method, _fitted(s[~asked], y[~asked], method), dict(key), _fitted(s[asked], y[asked], method))

    def apply(self, scores: FloatArray, *, question: bool | NDArray[np.bool_] = False) -> FloatArray:
        """Calibrated probabilities of pooled scores, shape kept; `question` says which queries are one."""
        given = np.asarray(scores, dtype=np.float64)
        plain, asked = self.parameters, self.questions or self.parameters
        if isinstance(question, bool):  # as scoring has it, passage by passage: one map is enough
            return _applied(given, self.method, asked if question else plain)
        chosen = np.broadcast_to(question, given.shape)
        return np.where(chosen, _applied(given, self.method, asked), _applied(given, self.method, plain))

    def _try(self) -> None:
        one_of("calibration method", self.method, METHODS)
        for parameters in (self.parameters, self.questions or self.parameters):
            finite = all(np.isfinite(values).all() for values in parameters)
            grid = np.linspace(0, 1, 101)
            p = _applied(grid, self.method, parameters) if finite else np.full(1, np.nan)
            if not ((np.diff(p) >= 0).all() and p[0] >= 0 and p[-1] <= 1):
                message = f"{self.method} with {parameters} does not rise within 0..1"
                raise ValueError(message)


def _fitted(s: FloatArray, y: NDArray[np.bool_], method: str) -> list[list[float]]:
    """The parameters."""
    if len(s) < _FEWEST:
        message = f"a calibration needs at least {_FEWEST} scores with a label each, got {len(s)}"
        raise CalibrationError(message)
    if not np.all((s >= 0) & (s <= 1)):
        message = "calibration needs scores in 0..1: use score='entailment' or 'entailment_vs_contradiction'"
        raise CalibrationError(message)
    if np.ptp(s) == 0:
        message = f"all {len(s)} scores are {s[0]:.4g}: there is nothing to calibrate"
        raise CalibrationError(message)
    if y.all() or not y.any():
        message = f"calibration needs labels of both classes, got {int(y.sum())} true of {len(y)}"
        raise CalibrationError(message)
    if method == "isotonic":
        model = require("sklearn.isotonic", "eval").IsotonicRegression(y_min=0, y_max=1).fit(s, y)
        knots, values = model.X_thresholds_, model.y_thresholds_
        if values[0] == values[-1]:
            message = "the scores do not rise with the labels (the isotonic fit is flat): look at the labels"
            raise CalibrationError(message)
        return [knots.tolist(), (values + _TILT * (knots - values)).tolist()]
    x = _features(s, method)
    model = require("sklearn.linear_model", "eval").LogisticRegression(C=np.inf, max_iter=1000).fit(x, y)
    weights = model.coef_[0]
    if method == "beta" and weights.min() < 0 < weights.max():  # a falling term is left out, as its authors do
        rising = weights > 0
        model.fit(x[:, rising], y)
        weights = np.zeros(2)
        weights[rising] = model.coef_[0]
    if weights.max() <= 0 or weights.min() < 0:
        message = f"the scores do not rise with the labels ({method} weights {weights.tolist()}): look at the labels"
        raise CalibrationError(message)
    return [weights.tolist(), model.intercept_.tolist()]


def _applied(scores: FloatArray, method: str, parameters: list[list[float]]) -> FloatArray:
    if method == "isotonic":
        knots, values = parameters
        beyond = scores - np.clip(scores, knots[0], knots[-1])  # the first knot and the last
        tilted = np.interp(scores, knots, values) + _TILT * beyond
        return np.clip(tilted, min(values[0], 0), max(values[-1], 1))  # rounding goes a little below 0, or above 1
    weights, intercept = parameters
    z = _features(scores.ravel(), method) @ np.array(weights) + intercept[0]
    return sigmoid(z).reshape(scores.shape)
