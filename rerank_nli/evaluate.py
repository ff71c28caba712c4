"""How good a model is on labelled pairs: accuracy, macro-F1, AUROC, calibration error, each with its interval."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rerank_nli.errors import InputError, counted, one_of, require
from rerank_nli.labels import COLUMNS, NOT_ENTAILMENT
from rerank_nli.scores import probabilities

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from rerank_nli.labels import Labels
    from rerank_nli.pairs import Pair
    from rerank_nli.reranker import NLIReranker
    from rerank_nli.scores import FloatArray

    IntArray = NDArray[np.int64]

__all__ = [
    "PLOTS",
    "Evaluation",
    "bins_of",
    "ece",
    "evaluate",
    "fit_on_even_rows",
    "fit_temperature",
    "measure",
    "plot",
    "reliability",
    "truths",
]

PLOTS = (".svg", ".png")
_NAMES = (*COLUMNS, NOT_ENTAILMENT)
_NOT_ENTAILMENT = len(COLUMNS)
_BINS = 15
_HALF = 0.5


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured on one set.

    Attributes:
        rows: pairs in the set.
        two_labels: whether the decision is P(entailment) > ½, because the set or the model knows no contradiction;
            otherwise it is the likeliest of three.
        accuracy, macro_f1: of the decision; the mean of F1 is over the labels that the set has.
        auroc: of P(entailment), entailment against the rest; None where only one of the two occurs.
        ece: expected calibration error of the decision's probability.
        intervals: of each figure, [low, high], 95 %, by the percentile bootstrap over rows.
        confusion: {true label: {decided label: count}}.
        reliability: per bin of the decision's probability: rows, mean probability, share right.
    """

    rows: int
    two_labels: bool
    accuracy: float
    macro_f1: float
    auroc: float | None
    ece: float
    intervals: dict[str, list[float]]
    confusion: dict[str, dict[str, int]]
    reliability: list[dict[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """The same in JSON types."""
        return asdict(self)


def truths(pairs: Sequence[Pair]) -> IntArray:
    """(n,) the column of each pair's label: entailment, neutral, contradiction, or 3 for not_entailment.

    Raises:
        InputError: no pairs, or one that has a teacher's probability in the place of a label.
    """
    if not pairs:
        message = "no pairs to evaluate on"
        raise InputError(message)
    for number, pair in enumerate(pairs):
        if pair.label is None:
            message = f"pair {number} has no label, only a probability: evaluation needs labels"
            raise InputError(message)
    return np.array([_NAMES.index(str(pair.label)) for pair in pairs])


def evaluate(reranker: NLIReranker, pairs: Sequence[Pair], resamples: int = 1000, seed: int = 0) -> Evaluation:
    """Measure a model as it is, temperature included, on labelled pairs (needs the `eval` extra).

    Args:
        reranker: its model and temperature are measured; direction, template and pool take no part.
        pairs: what `read_pairs` gives.
        resamples: of the bootstrap (Efron 1979); 0 leaves the intervals out.
        seed: of the resamples.

    Raises:
        InputError: no pairs, pairs without labels, `resamples` or `seed` below 0.
    """
    counted("resamples", resamples, least=0)
    counted("seed", seed, least=0)
    truth = truths(pairs)
    p = reranker.predict([(pair.premise, pair.hypothesis) for pair in pairs])  # (n, 3)
    return measure(p, truth, resamples, seed)


def measure(p: FloatArray, truth: IntArray, resamples: int = 1000, seed: int = 0) -> Evaluation:
    """`evaluate` for probabilities that are there already.

    Args:
        p: (n, 3) P(entailment), P(neutral), P(contradiction); the last two NaN for a two-label model.
        truth: (n,) as `truths` gives it.
        resamples: as `evaluate`.
        seed: as `evaluate`.
    """
    two_labels = bool((truth == _NOT_ENTAILMENT).any() or np.isnan(p[:, 1]).any())
    if two_labels:
        truth = np.where(truth == 0, 0, _NOT_ENTAILMENT)
        decided = np.where(p[:, 0] > _HALF, 0, _NOT_ENTAILMENT)
        confidence = np.maximum(p[:, 0], 1 - p[:, 0])
    else:
        decided, confidence = p.argmax(axis=1), p.max(axis=1)
    figures = _figures(p[:, 0], truth, decided, confidence)
    rng = np.random.default_rng(seed)
    samples = (rng.integers(len(p), size=len(p)) for _ in range(resamples))
    drawn = [_figures(p[rows, 0], truth[rows], decided[rows], confidence[rows]) for rows in samples]
    names = [_NAMES[k] for k in ((0, _NOT_ENTAILMENT) if two_labels else range(len(COLUMNS)))]
    return Evaluation(
        rows=len(p),
        two_labels=two_labels,
        **figures,
        intervals={
            name: [round(float(q), 4) for q in np.percentile(values, (2.5, 97.5))]
            for name, figure in figures.items()
            if figure is not None and (values := [d[name] for d in drawn if d[name] is not None])
        },
        confusion={
            a: {b: int(((truth == _NAMES.index(a)) & (decided == _NAMES.index(b))).sum()) for b in names} for a in names
        },
        reliability=reliability(confidence, decided == truth),
    )


def ece(confidence: FloatArray, right: NDArray[np.bool_]) -> float:
    """Expected calibration error over 15 bins of equal width (Guo et al. 2017).

    >>> ece(np.array([0.9, 0.9, 0.6, 0.6]), np.array([True, True, True, False]))  # 2/4 · .1 + 2/4 · .1
    0.1
    """
    gaps = np.bincount(bins_of(confidence), weights=right - confidence)
    return round(float(np.abs(gaps).sum() / len(confidence)), 4)


def bins_of(confidence: FloatArray) -> IntArray:
    """(n,) the bin of equal width that each probability is in."""
    return np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)


def reliability(confidence: FloatArray, right: NDArray[np.bool_]) -> list[dict[str, float]]:
    """Per bin that has rows: how many, their mean probability, and the share that is right."""
    places = bins_of(confidence)
    return [
        {
            "rows": int((places == b).sum()),
            "confidence": round(float(confidence[places == b].mean()), 4),
            "accuracy": round(float(right[places == b].mean()), 4),
        }
        for b in np.unique(places)
    ]


def fit_temperature(logits: FloatArray, truth: IntArray, labels: Labels) -> float:
    """The temperature with the least negative log-likelihood (Guo et al. 2017; needs the `eval` extra).

    Args:
        logits: (n, C) in the model's order.
        truth: (n,) as `truths` gives it.
        labels: of the model's outputs.
    """
    scipy = require("scipy.optimize", "eval")

    def loss(temperature: float) -> float:
        p = probabilities(logits, labels, temperature)
        unknown = (truth == _NOT_ENTAILMENT) | ((truth > 0) & labels.binary)
        likelihood = np.where(unknown, 1 - p[:, 0], p[np.arange(len(p)), np.minimum(truth, len(COLUMNS) - 1)])
        return float(-np.log(np.maximum(likelihood, 1e-12)).mean())

    return round(float(scipy.minimize_scalar(loss, bounds=(0.2, 5), method="bounded").x), 3)


def fit_on_even_rows(logits: Mapping[str, FloatArray], truth: Mapping[str, IntArray], labels: Labels) -> float:
    """One temperature for several sets; their odd rows stay for measuring it.

    Args:
        logits: of each set, as `fit_temperature` takes them.
        truth: of the same sets.
        labels: of the model's outputs.
    """
    even = [np.concatenate([values[name][::2] for name in logits]) for values in (logits, truth)]
    return fit_temperature(even[0], even[1], labels)


def plot(evaluations: Mapping[str, Evaluation], path: str | os.PathLike[str]) -> None:
    """Reliability diagram and confusion matrix of each set (`eval` extra).

    Args:
        evaluations: {name of the set: what was measured}.
        path: a file whose suffix is one of PLOTS.

    Raises:
        InputError: another suffix.
    """
    one_of("suffix of a plot", Path(path).suffix, PLOTS)
    figure = require("matplotlib.figure", "eval").Figure(figsize=(7, 3.2 * len(evaluations)), layout="constrained")
    rows = figure.subplots(len(evaluations), 2, squeeze=False)
    for (name, evaluation), (left, right) in zip(evaluations.items(), rows, strict=True):
        bins = evaluation.reliability
        left.plot([0, 1], [0, 1], color="#999999", linewidth=1)
        left.plot([b["confidence"] for b in bins], [b["accuracy"] for b in bins], marker="o", color="#2a6fbb")
        left.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability of the decision", ylabel="share right")
        left.set_title(f"{name}: ECE {evaluation.ece:.3f}", fontsize=10)
        names = list(evaluation.confusion)
        counts = np.array([[evaluation.confusion[a][b] for b in names] for a in names])
        right.imshow(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
        for (a, b), count in np.ndenumerate(counts):
            dark = count > _HALF * counts[a].sum()
            right.text(b, a, str(count), ha="center", va="center", color="white" if dark else "black", fontsize=9)
        right.set_xticks(range(len(names)), names, fontsize=8)
        right.set_yticks(range(len(names)), names, fontsize=8)
        right.set(xlabel="decided", ylabel="true")
        right.set_title(f"accuracy {evaluation.accuracy:.3f}", fontsize=10)
    save_figure(figure, path)


def save_figure(figure: Any, path: str | os.PathLike[str]) -> None:  # noqa: ANN401 - matplotlib is optional
    """The same figure is the same file: without the date, and with names in an SVG that do not change."""
    with require("matplotlib", "eval").rc_context({"svg.hashsalt": "rerank-nli"}):
        figure.savefig(path, metadata={"Date": None} if str(path).endswith(".svg") else None)


def _figures(entailment: FloatArray, truth: IntArray, decided: IntArray, confidence: FloatArray) -> dict[str, Any]:
    metrics = require("sklearn.metrics", "eval")
    right, positive, known = decided == truth, truth == 0, np.unique(truth)
    one_class = positive.all() or not positive.any()
    return {
        "accuracy": round(float(right.mean()), 4),
        "macro_f1": round(float(metrics.f1_score(truth, decided, labels=known, average="macro", zero_division=0)), 4),
        "auroc": None if one_class else round(float(metrics.roc_auc_score(positive, entailment)), 4),
        "ece": ece(confidence, right),
    }
