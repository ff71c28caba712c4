"""Promises: a threshold with at least so much recall or precision, at a confidence, on data like the sample.

Learn then Test (Angelopoulos, Bates, Candès, Jordan and Lei 2021): "the promise is broken at this threshold" is a
hypothesis, and a threshold is used only where a test with an exact binomial p-value has rejected it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from rerank_nli.errors import CalibrationError, InputError, counted, one_of, require
from rerank_nli.fitted import Fitted
from rerank_nli.scores import KINDS, check_threshold
from rerank_nli.thresholds import is_share

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from rerank_nli.scores import FloatArray

__all__ = ["Guarantee", "Sample", "check_promise"]

# Where the search for a precision begins, as shares of the score's range or as P(entailment) for a logit: numbers that
# no sample had a part in. More of them find more, and each costs all of them some confidence.
_STARTS = (0.999, 0.99, 0.95, 0.9, 0.7, 0.5)


class Sample(NamedTuple):
    """Scores with known truth.

    Attributes:
        scores: (n,) of passages, or the confidence of verdicts.
        truth: (n,) whether the passage entails its query, or the verdict is right.
        groups: (n,) the place of the query or claim that each belongs to.
        of: "passages" or "verdicts".
    """

    scores: FloatArray
    truth: NDArray[np.bool_]
    groups: NDArray[np.intp]
    of: str


@dataclass(frozen=True, slots=True)
class Guarantee(Fitted):
    """A threshold with what it promises: "at least `target`, with `confidence`", over samples drawn as this one was.

    Attributes:
        threshold: a score that reaches it is kept.
        aim: "recall": of the supporting passages, drawn one for each query that has any, at least `target` are kept.
            "precision": of what is kept of passages, drawn one for each query, or of verdicts, at least `target` is
            right.
        target: what is promised, above 0 and below 1.
        confidence: at most 1 - confidence of all samples lead to a threshold that breaks the promise.
        of: "passages", for `filter`, or "verdicts", for `verify` and `check`.
        size: how many were drawn and tested: supporting passages for a recall, else passages or verdicts.
        kept: how many of them reach the threshold.
        observed: recall or precision of the sample.
        key: what a calibration's key has, with the model's labels and the calibration, if any.
    """

    _name: ClassVar[str] = "guarantee"

    threshold: float
    aim: str
    target: float
    confidence: float
    of: str
    size: int
    kept: int
    observed: float
    key: dict[str, Any] = field(repr=False)

    @classmethod
    def fit(
        cls, sample: Sample, aim: str, target: float, confidence: float, key: Mapping[str, Any], seed: int = 0
    ) -> Guarantee:
        """Find the threshold on scores whose truth is known (needs the `eval` extra).

        One score is drawn from each group, since those of one query are not independent of each other.

        A recall: the chance that a supporting passage is missed rises with the threshold. From the lowest threshold
        upwards "more than 1 - target are missed" is tested with p = P(Bin(n, 1 - target) ≤ misses), until a test fails;
        the highest threshold that passed is taken. The order of the tests is fixed before the scores are seen, so a
        wrong threshold is reached only if the first test of a true hypothesis errs, and each errs with at most 1 -
        confidence.

        A precision: "more than 1 - target of what is kept is wrong" is tested with p = P(Bin(kept, 1 - target) ≤
        wrong), from a strict threshold downwards, until a test fails. The strictest keeps few, and one wrong score ends
        a sequence there, so it is begun anew at six numbers that are fixed beforehand. Each of the six sequences errs
        with at most a sixth of 1 - confidence, hence any of them with at most 1 - confidence (Bonferroni), and the
        lowest threshold that any reached may be taken. Both sequences run over all numbers; p-values change only where
        scores lie, so that no others are tried.

        Args:
            sample: the scores.
            aim: "recall" or "precision".
            target: what is promised, above 0 and below 1.
            confidence: above 0 and below 1.
            key: `Scorer.settings` of what made the scores.
            seed: of the draw.

        Raises:
            InputError: as `check_promise`, or a seed that is no whole number.
            CalibrationError: too small a sample, with the smallest that could do; truth of one class; or a precision
                that no threshold shows.
        """
        check_promise(aim, target, confidence)
        rng = np.random.default_rng(counted("seed", seed, least=0))
        scores, truth, groups, of = sample
        total = len(np.unique(groups))
        if aim == "recall":
            scores, truth, groups = scores[truth], truth[truth], groups[truth]
        elif of == "passages" and (truth.all() or not truth.any()):
            message = f"a precision needs passages of both classes, got {truth.sum()} supporting ones of {len(truth)}"
            raise CalibrationError(message)
        order = rng.permutation(len(groups))
        drawn = order[np.unique(groups[order], return_index=True)[1]]  # one of each group
        s, y = scores[drawn], truth[drawn]
        risk = 1 - confidence if aim == "recall" else (1 - confidence) / len(_STARTS)
        least = math.ceil(math.log(risk) / math.log(target))
        if len(s) < least:
            many = {"recall": "queries with a supporting passage", "precision": "queries"}[aim]
            message = (
                f"{aim}={target:g} with confidence={confidence:g} takes at least {least} "
                f"{'claims' if of == 'verdicts' else many}, and the data has {len(s)}"
                f"{f' of {total}' if aim == 'recall' else ''}: bring more, or ask for less"
            )
            raise CalibrationError(message)
        threshold = _recall(s, target, risk) if aim == "recall" else _precision(s, y, target, risk, str(key["kind"]))
        inside = s >= threshold
        observed = inside.mean() if aim == "recall" else y[inside].mean()
        return cls(
            threshold=float(threshold),
            aim=aim,
            target=float(target),
            confidence=float(confidence),
            of=of,
            size=len(s),
            kept=int(inside.sum()),
            observed=float(observed),
            key=dict(key),
        )

    def _try(self) -> None:
        check_threshold(self.threshold, self.key["kind"])
        one_of("aim of a guarantee", self.aim, ("recall", "precision"))
        one_of("subject of a guarantee", self.of, ("passages", "verdicts"))
        check_promise(self.aim, self.target, self.confidence)


def check_promise(aim: str, target: float, confidence: float) -> None:
    """Refuse a promise that cannot be one.

    Raises:
        InputError: a share or a confidence that is no number above 0 and below 1.
    """
    for name, value in ((aim, target), ("confidence", confidence)):
        if not is_share(value) or value == 1:
            message = f"{name}={value!r}: expected a number above 0 and below 1"
            raise InputError(message)


def _recall(s: FloatArray, recall: float, risk: float) -> float:
    """The highest threshold that passes; at the k-th lowest score, fewer than k are missed."""
    p = require("scipy.stats", "eval").binom.cdf(np.arange(len(s)), len(s), 1 - recall)  # (n,) rising
    passed = max(int(np.count_nonzero(p <= risk)), 1)  # a p-value may round to above the risk that the size allows
    return float(np.sort(s)[passed - 1])


def _precision(s: FloatArray, y: NDArray[np.bool_], precision: float, risk: float, kind: str) -> float:
    """The lowest threshold that a sequence from one of the starts reaches."""
    tail = require("scipy.stats", "eval").binom.cdf
    order = np.argsort(-s)
    falling = s[order]  # (n,)
    wrong = np.append(0, np.cumsum(~y[order]))  # (n + 1,) among the first so many
    reached: list[float] = []
    tried: list[tuple[float, float, int, int]] = []
    for start in _starts(kind):
        cuts = np.append(start, np.unique(s[s < start])[::-1])
        kept = np.searchsorted(-falling, -cuts, side="right")
        p = tail(wrong[kept], kept, 1 - precision)
        passed = int(np.argmax(np.append(p > risk, True)))  # all may pass
        reached += [float(cut) for cut in cuts[:passed][-1:]]
        tried.append((float(p[0]), float(start), int(kept[0]), int(wrong[kept[0]])))
    if not reached:
        _, start, count, errors = min(tried)
        message = (
            f"no threshold shows precision={precision:g} on this sample of {len(s)}: of the {count} scores from "
            f"{start:.4g} up {errors} are wrong; bring more data, or ask for less"
        )
        raise CalibrationError(message)
    return min(reached)


def _starts(kind: str) -> FloatArray:
    low, high = KINDS[kind].low, KINDS[kind].high
    levels = np.array(_STARTS)
    return np.log(levels / (1 - levels)) if np.isinf(high) else low + (high - low) * levels
