"""Fit the calibration of a reranker on labelled pairs, and say what it is worth on pairs that it was not fitted on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rerank_nli.calibration import METHODS, Calibration
from rerank_nli.errors import CalibrationError, InputError, counted, one_of, require
from rerank_nli.evaluate import PLOTS, bins_of, reliability, save_figure
from rerank_nli.scorer import is_question
from rerank_nli.scores import KINDS

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rerank_nli.pairs import Pair
    from rerank_nli.reranker import NLIReranker
    from rerank_nli.scores import FloatArray

__all__ = ["CalibrationReport", "by_halves", "calibrate", "plot_calibration"]

_APART = 500  # questions, and pairs that are none, from which on each are fitted on their own
_EPSILON = 1e-7  # keeps the logarithm of a score of 0 or 1 finite


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """What a calibration is worth.

    Attributes:
        rows: pairs, and `entailed` of them are.
        method: that of the calibration.
        before: {"ece" (Guo et al. 2017, 15 bins), "brier" (mean squared error), "nll" (mean negative log-likelihood):
            value and 95 % interval by the bootstrap over queries} of the scores as they were.
        after: the same of calibrated scores, each by a fit on the other half of the queries; where `method` was "auto",
            it was chosen by these figures.
        reliability: {"before" and "after": per bin rows, mean score, share entailed}.
    """

    rows: int
    entailed: int
    method: str
    before: dict[str, list[float]]
    after: dict[str, list[float]]
    reliability: dict[str, list[dict[str, float]]]

    def to_dict(self) -> dict[str, Any]:
        """The same in JSON types."""
        return asdict(self)


def calibrate(
    reranker: NLIReranker, pairs: Sequence[Pair], method: str = "auto", resamples: int = 1000, seed: int = 0
) -> tuple[Calibration, CalibrationReport]:
    """Fit a calibration for the settings of a reranker (needs the `eval` extra).

    Args:
        reranker: one without a calibration, in the settings that the scores will be used with.
        pairs: what `read_pairs` gives; the hypothesis is the query and the premise its passage. Where at least 500 are
            questions and 500 are none, each are fitted on their own.
        method: as `Calibration.fit`, or "auto", the one with the least negative log-likelihood on the other half.
        resamples: of the bootstrap (Efron 1979); 0 leaves the intervals out.
        seed: of the resamples.

    Returns:
        The calibration, fitted on all pairs, and what it was worth by halves.

    Raises:
        InputError: a reranker that is calibrated already, an unknown method, a pair without a label, or `resamples` or
            `seed` below 0.
        CalibrationError: as `Calibration.fit`, for all pairs or for half of the queries.
    """
    one_of("calibration method", method, ("auto", *METHODS))
    counted("resamples", resamples, least=0)
    counted("seed", seed, least=0)
    if reranker.calibrated:
        message = "these scores are calibrated already: make the reranker with calibration=None"
        raise InputError(message)
    kind = reranker.calibration_key["kind"]
    if not KINDS[kind].is_probability:
        message = f"a calibration is of scores in 0..1, not of score={kind!r}: use score='entailment'"
        raise CalibrationError(message)
    query, truth = _truth(pairs)
    asked = np.array([is_question(pair.hypothesis) for pair in pairs], dtype=bool)
    questions = asked if min(asked.sum(), (~asked).sum()) >= _APART else None
    scores = _scores(reranker, pairs, query)
    best, calibrated = by_halves(scores, truth, query, method, questions)
    report = CalibrationReport(
        rows=len(pairs),
        entailed=int(truth.sum()),
        method=best,
        before=_figures(scores, truth, query, resamples, seed),
        after=_figures(calibrated, truth, query, resamples, seed),
        reliability={"before": reliability(scores, truth), "after": reliability(calibrated, truth)},
    )
    return Calibration.fit(scores, truth.astype(float), best, reranker.calibration_key, questions), report


def by_halves(
    scores: FloatArray,
    truth: NDArray[np.bool_],
    query: NDArray[np.int64],
    method: str = "auto",
    questions: NDArray[np.bool_] | None = None,
) -> tuple[str, FloatArray]:
    """Calibrate each score by a fit on the queries of the other half.

    Args:
        scores: (n,) 0..1.
        truth: (n,) whether the query is entailed.
        query: (n,) the number of each score's query.
        method: as `calibrate`.
        questions: as `Calibration.fit`.

    Returns:
        The method, and the calibrated scores (n,).

    Raises:
        CalibrationError: as `Calibration.fit`, for half of the queries, whatever the method.
    """
    halves, errors = {}, []
    for name in METHODS if method == "auto" else (method,):
        try:
            halves[name] = _fitted(scores, truth, query, name, questions)
        except CalibrationError as error:  # noqa: PERF203 - another method may do
            errors.append(error)
    if not halves:
        raise errors[0]
    best = min(halves, key=lambda name: float(_losses(halves[name], truth)["nll"].mean()))
    return best, halves[best]


def plot_calibration(report: CalibrationReport, path: str | os.PathLike[str]) -> None:
    """The reliability diagram before and after, as .svg or .png by the path's suffix (`eval` extra).

    Raises:
        InputError: another suffix.
    """
    one_of("suffix of a plot", Path(path).suffix, PLOTS)
    figure = require("matplotlib.figure", "eval").Figure(figsize=(4.5, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1)
    for (name, bins), figures, color in zip(
        report.reliability.items(), (report.before, report.after), ("#b5651d", "#2a6fbb"), strict=True
    ):
        label = f"{name}: ECE {figures['ece'][0]:.3f}"
        axes.plot([b["confidence"] for b in bins], [b["accuracy"] for b in bins], marker="o", color=color, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="score", ylabel="share entailed")
    axes.legend(frameon=False)
    save_figure(figure, path)


def _truth(pairs: Sequence[Pair]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(n,) the number of each pair's query, and whether its passage entails it."""
    for number, pair in enumerate(pairs):
        if pair.label is None:
            message = f"pair {number} has no label: a calibration needs the truth of each"
            raise InputError(message)
    numbers = {text: number for number, text in enumerate(dict.fromkeys(pair.hypothesis for pair in pairs))}
    query = np.array([numbers[pair.hypothesis] for pair in pairs], dtype=np.int64)
    return query, np.array([pair.label == "entailment" for pair in pairs], dtype=bool)


def _scores(reranker: NLIReranker, pairs: Sequence[Pair], query: NDArray[np.int64]) -> FloatArray:
    """(n,) of each pair."""
    rows: list[list[int]] = [[] for _ in range(int(query.max(initial=-1)) + 1)]
    for row, number in enumerate(query):
        rows[number].append(row)
    queries = [pairs[of[0]].hypothesis for of in rows]
    scores = np.empty(len(pairs))
    for of, ranking in zip(
        rows, reranker.rank_many(queries, [[pairs[i].premise for i in of] for of in rows]), strict=True
    ):
        for passage in ranking:
            scores[of[passage.index]] = passage.score
    return scores


def _fitted(
    scores: FloatArray,
    truth: NDArray[np.bool_],
    query: NDArray[np.int64],
    method: str,
    questions: NDArray[np.bool_] | None,
) -> FloatArray:
    asked = np.zeros(len(scores), dtype=bool) if questions is None else questions
    calibrated = np.empty_like(scores)
    for half in (0, 1):
        fit = query % 2 != half
        try:
            found = Calibration.fit(scores[fit], truth[fit], method, {}, None if questions is None else asked[fit])
        except CalibrationError as error:
            message = f"half of the queries, which the fit is judged without: {error}"
            raise CalibrationError(message) from error
        calibrated[~fit] = found.apply(scores[~fit], question=asked[~fit])
    return calibrated


def _losses(scores: FloatArray, truth: NDArray[np.bool_]) -> dict[str, FloatArray]:
    """(n,) what each row adds to Brier score and negative log-likelihood."""
    s = np.clip(scores, _EPSILON, 1 - _EPSILON)
    return {"brier": (scores - truth) ** 2, "nll": -np.log(np.where(truth, s, 1 - s))}


def _figures(
    scores: FloatArray, truth: NDArray[np.bool_], query: NDArray[np.int64], resamples: int, seed: int
) -> dict[str, list[float]]:
    """{figure: value, low, high}; the resamples are of queries, as weights of their rows."""
    rng = np.random.default_rng(seed)
    count = int(query.max()) + 1
    places, losses = bins_of(scores), _losses(scores, truth)

    def figures(weights: FloatArray) -> list[float]:
        gaps = np.bincount(places, weights=weights * (truth - scores))
        return [float(np.abs(gaps).sum()), *(float(loss @ weights) for loss in losses.values())]

    drawn = []
    for _ in range(resamples):
        weights = np.bincount(rng.integers(count, size=count), minlength=count)[query].astype(float)
        drawn.append(figures(weights / weights.sum()))
    values = figures(np.full(len(scores), 1 / len(scores)))
    spread = np.percentile(drawn, (2.5, 97.5), axis=0).T.tolist() if drawn else [[]] * len(values)
    names = ("ece", *losses)
    return {n: [round(v, 4) for v in (value, *ends)] for n, value, ends in zip(names, values, spread, strict=True)}
