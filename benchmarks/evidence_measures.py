"""What evidence.py says of scores: order, separation, verdicts and calibration, each with its interval."""

from __future__ import annotations

from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any

import ir_measures
import numpy as np
from ir_measures import nDCG
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from rerank_nli import CalibrationError
from rerank_nli.calibrate import by_halves
from rerank_nli.evaluate import ece
from rerank_nli.guarantees import Guarantee, Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from evidence_sets import Set
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Scores = list[Array]  # of each query's passages
    Measure = Callable[[Array, Array], float]

RESAMPLES, FEWER = 1000, 200  # the second where each takes a sort of all passages
PRECISION = 0.95
HALVINGS = 20
LABELS = ("entailment", "neutral", "contradiction")


def interval(statistic: Callable[[Array], float], count: int, resamples: int = RESAMPLES) -> list[float]:
    """Value and 95 % bootstrap interval (percentiles) of a statistic of `count` queries, given by position."""
    rng = np.random.default_rng(0)
    drawn = [statistic(rng.integers(count, size=count)) for _ in range(resamples)]
    return [round(float(v), 4) for v in (statistic(np.arange(count)), *np.nanpercentile(drawn, [2.5, 97.5]))]


def per_query(
    measure: Any,  # noqa: ANN401 - ir_measures states no type
    scores: Scores,
    numbers: Sequence[Sequence[int]],
    relevant: Sequence[set[int]],
) -> Array:
    """A measure of each query that has anything relevant; ties keep the order they are in."""
    qrels = {str(q): {str(i): 1 for i in found} for q, found in enumerate(relevant) if found}
    run = {
        q: {
            str(numbers[int(q)][i]): -float(place) for place, i in enumerate(np.argsort(-scores[int(q)], kind="stable"))
        }
        for q in qrels
    }
    values = {metric.query_id: metric.value for metric in ir_measures.iter_calc([measure], qrels, run)}
    return np.array([values[q] for q in qrels])


def ranked(
    measures: Sequence[Any], scores: Scores, numbers: Sequence[Sequence[int]], relevant: Sequence[set[int]]
) -> dict[str, list[float]]:
    """{measure: mean and interval}."""
    found = {str(m): per_query(m, scores, numbers, relevant) for m in measures}
    return {m: interval(lambda chosen, v=values: v[chosen].mean(), len(values)) for m, values in found.items()}  # type: ignore[misc]


def relevant(part: Set, aim: tuple[str, ...]) -> list[set[int]]:
    """The places of what a ranking should bring up."""
    return [{place for place, label in query.says.items() if label in aim} for query in part.queries]


class Items:
    """What is known to say something or nothing, with its score: passages, or rows with their strongest passage.

    Intervals and halves are of claims, of which some sets have several rows.
    """

    def __init__(self, part: Set, scores: Scores) -> None:
        if part.whole:
            says = [[query.says[query.passages[0]]] for query in part.queries]
            scores = [s.max(keepdims=True) for s in scores]
        else:
            says = [[query.says[place] for place in query.passages] for query in part.queries]
        claim = claims(part)
        self.count = int(claim.max()) + 1
        self.query = np.repeat(claim, [len(labels) for labels in says])
        self.says = np.array(list(chain(*says)))
        self.scores = np.concatenate(scores)
        self.support = self.says == "entailment"

    def separation(self) -> dict[str, list[float]]:
        """AUROC and average precision of support over refutation and over no evidence, where there is any."""
        found = {}
        for other, name in (("contradiction", "refutation"), ("none", "no evidence")):
            if other in self.says:
                for measure, of in (("AUROC", roc_auc_score), ("AP", average_precision_score)):
                    found[f"{measure}, support against {name}"] = interval(
                        lambda chosen, of=of, other=other: self._separated(of, other, chosen),  # type: ignore[misc]
                        self.count,
                        FEWER,
                    )
        return found

    def coverage(self) -> list[float]:
        """Of what supports, the share that is kept at the lowest threshold with a precision of 95 %."""

        def statistic(chosen: Array) -> float:
            times = np.bincount(chosen, minlength=self.count)[self.query].astype(float)
            order = np.argsort(-self.scores, kind="stable")
            right = np.cumsum((times * self.support)[order])
            kept = np.cumsum(times[order])
            last = np.append(np.diff(self.scores[order]) != 0, True)  # equal scores go together
            good = last & (right >= PRECISION * kept) & (kept > 0)
            return float((right[good] / right[-1]).max(initial=0.0)) if right[-1] else np.nan

        return interval(statistic, self.count, FEWER)

    def calibration(self) -> dict[str, list[float]]:
        """ECE of the scores as probabilities of support, and by fits on one half of the claims for the other.

        The latter is the mean over random halvings, with where 95 % of them lie. Beside it stands what it would be if
        the fitted scores were true: so few items, drawn by them, fall into the bins unevenly.
        """
        found = {"ECE": self._ece(self.scores)}
        rng = np.random.default_rng(0)
        reached, chance = [], []
        with suppress(CalibrationError):  # scores that say nothing, or too few of them
            for _ in range(HALVINGS):
                fitted = by_halves(self.scores, self.support, rng.permutation(self.count)[self.query])[1]
                reached.append(ece(fitted, self.support))
                chance.append(ece(fitted, rng.uniform(size=len(fitted)) < fitted))
            found["ECE, fitted on the other half"] = _spread(reached)
            found["ECE, if the fit were true"] = _spread(chance)
        return found

    def promise(self, recall: float, confidence: float, times: int = 100) -> dict[str, float]:
        """What a promise of recall comes to: fitted on a random half of the claims, counted on the other, many times.

        One supporting passage counts for each claim, drawn at random, as the promise has it. A half is a sample itself,
        so that its recall lies above what is promised less often than the promise is kept.
        """
        rng = np.random.default_rng(0)
        reached = []
        for seed in range(times):
            fit = (rng.permutation(self.count) < self.count / 2)[self.query]
            sample = Sample(self.scores[fit], self.support[fit], self.query[fit], "passages")
            promised = Guarantee.fit(sample, "recall", recall, confidence, {"kind": "entailment"}, seed)
            held = rng.permutation(np.flatnonzero(~fit & self.support))
            drawn = held[np.unique(self.query[held], return_index=True)[1]]
            reached.append(float((self.scores[drawn] >= promised.threshold).mean()))
        return {
            "claims of a half with support": len(drawn),
            "mean recall": round(float(np.mean(reached)), 4),
            f"halves with at least {recall:g}": round(float(np.mean(np.array(reached) >= recall)), 4),
        }

    def _separated(self, measure: Callable[[Array, Array], float], other: str, chosen: Array) -> float:
        times = np.bincount(chosen, minlength=self.count)[self.query] * np.isin(self.says, ["entailment", other])
        truth = np.repeat(self.support, times)
        return float(measure(truth, np.repeat(self.scores, times))) if 0 < truth.sum() < len(truth) else np.nan

    def _ece(self, scores: Array) -> list[float]:
        def statistic(chosen: Array) -> float:
            times = np.bincount(chosen, minlength=self.count)[self.query]
            return ece(np.repeat(scores, times), np.repeat(self.support, times))

        return interval(statistic, self.count, FEWER)


def claims(part: Set) -> Array:
    """(q,) the number of each query's text: rows of the same claim are drawn together."""
    return np.unique([query.text for query in part.queries], return_inverse=True)[1]


def over(groups: Array, statistic: Callable[[Array], float]) -> list[float]:
    """Value and interval of a statistic of rows, those of a group drawn together."""
    rows = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    return interval(lambda chosen: statistic(np.concatenate([rows[i] for i in chosen])), len(rows))


def against(
    scores: Scores, other: Scores, numbers: Sequence[Sequence[int]], goal: Sequence[set[int]]
) -> dict[str, int]:
    """How many queries are ordered better, the same or worse than by other scores, by nDCG@10."""
    gain = np.sign(per_query(nDCG @ 10, scores, numbers, goal) - per_query(nDCG @ 10, other, numbers, goal))
    return {name: int((gain == sign).sum()) for name, sign in (("better", 1), ("same", 0), ("worse", -1))}


def said_of(part: Set, scores: Scores, probabilities: Sequence[Array]) -> dict[str, dict[str, float]]:
    """{what passages say: {label: how often it is most likely}}; of each query's strongest, where they are whole."""
    found: dict[str, list[int]] = {}
    for query, strength, p in zip(part.queries, scores, probabilities, strict=True):
        for i in [int(strength.argmax())] if part.whole else range(len(query.passages)):
            if query.passages[i] in query.says:
                found.setdefault(query.says[query.passages[i]], []).append(int(p[i].argmax()))
    return {
        truth: {label: round(float(np.mean(np.array(most) == k)), 3) for k, label in enumerate(LABELS)}
        for truth, most in sorted(found.items())
    }


def _spread(values: Sequence[float]) -> list[float]:
    """Mean, and where 95 % lie."""
    return [round(float(v), 4) for v in (np.mean(values), *np.percentile(values, [2.5, 97.5]))]


def verdict_measures(classes: Sequence[str]) -> dict[str, Measure]:
    """Accuracy and macro-F1 over these classes, each of truth (n,) and verdicts (n,)."""
    return {
        "accuracy": lambda truth, said: float((truth == said).mean()),
        "macro-F1": lambda truth, said: float(
            f1_score(truth, said, labels=list(classes), average="macro", zero_division=0)
        ),
    }


def verdicts(said: Sequence[str], truth: Sequence[str], groups: Array) -> dict[str, list[float]]:
    """Accuracy and macro-F1 of verdicts, those of a claim together."""
    a, b = np.array(truth), np.array(said)
    return {
        f"verdict {name}": over(groups, lambda chosen, m=measure: m(a[chosen], b[chosen]))  # type: ignore[misc]
        for name, measure in verdict_measures(sorted(set(truth))).items()
    }
