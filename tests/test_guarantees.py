"""Promises: they are kept on fresh draws from where the sample came from, and refused where it cannot give them."""

from __future__ import annotations

import json
import math
import pickle
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from texts import binary, stated, stating

from rerank_nli import (
    Calibration,
    CalibrationError,
    FunctionEngine,
    Guarantee,
    InputError,
    InputTypeError,
    LabelError,
    NLIReranker,
)
from rerank_nli.guarantees import Sample

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rerank_nli.scores import FloatArray

pytest.importorskip("scipy")

KEY = {"kind": "entailment"}
DRAWS = 1000
KEPT = 936  # 95 % of 1,000, less twice the standard deviation of such a count: 950 - 2 · √(1000 · 0.95 · 0.05)


def _fit(scores: FloatArray, truth: Any, aim: str, target: float, each: int = 3, confidence: float = 0.95) -> Guarantee:
    """A guarantee on queries whose passages all score the same: so many scores, but one say for each query."""
    groups = np.repeat(np.arange(len(scores)), each)
    sample = Sample(np.repeat(scores, each), np.repeat(truth, each), groups, "passages")
    return Guarantee.fit(sample, aim, target, confidence, KEY)


# The simulation


@pytest.mark.parametrize(("queries", "recall"), [(29, 0.9), (200, 0.9), (300, 0.8)])
def test_a_recall_is_kept(queries: int, recall: float) -> None:
    """Supporting passages score √u, so P(score < t) = t²: 1 - t² is at least the recall in 936 of 1,000 draws."""
    rng = np.random.default_rng(queries)
    true = np.ones(queries, dtype=bool)
    thresholds = [_fit(np.sqrt(rng.random(queries)), true, "recall", recall).threshold for _ in range(DRAWS)]
    reached = 1 - np.square(thresholds)
    assert (reached >= recall).sum() >= KEPT


def test_a_promise_of_recall_is_not_empty() -> None:
    """With 2,000 queries the threshold gives away little: a recall of 0.9 is reached by less than 0.93, and drops."""
    rng = np.random.default_rng(0)
    found = _fit(np.sqrt(rng.random(2000)), np.ones(2000, dtype=bool), "recall", 0.9)
    assert 0.9 <= 1 - found.threshold**2 < 0.93
    assert found.threshold > np.sqrt(0.07)
    assert found.kept < found.size == 2000


def _even(s: FloatArray) -> FloatArray:
    return s


def _false_at_the_top(s: FloatArray) -> FloatArray:
    return np.select([s > 0.97, s > 0.6], [0.3, 0.95], 0.2)


def _just_too_low(s: FloatArray) -> FloatArray:
    return np.full(len(s), 0.8 - 1e-6)


@cache
def _precisions(chance: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """P(true | score ≥ t) at t = 0, 0.0001, …, of scores that are uniform in 0..1."""
    chances = chance(np.linspace(0, 1, 10_001))
    return np.cumsum(chances[::-1])[::-1] / np.arange(10_001, 0, -1)


@pytest.mark.parametrize("chance", [_even, _false_at_the_top, _just_too_low])
def test_a_precision_is_kept(chance: Callable[[FloatArray], FloatArray]) -> None:
    """Whatever the truth's chance at a score, in 936 of 1,000 draws 0.8 of what is kept is true, or it is refused."""
    rng = np.random.default_rng(1)
    kept = 0
    for _ in range(DRAWS):
        scores = rng.random(400)
        try:
            found = _fit(scores, rng.random(400) < chance(scores), "precision", 0.8, each=2)
        except CalibrationError:
            kept += 1
        else:
            kept += bool(_precisions(chance)[math.ceil(found.threshold * 10_000)] >= 0.8)
    assert kept >= KEPT


def test_a_promise_of_precision_is_not_empty() -> None:
    """Of 5,000 uniform scores with the chance of truth s, over half of those are kept that could be: down to 0.6."""
    rng = np.random.default_rng(2)
    scores = rng.random(5000)
    found = _fit(scores, rng.random(5000) < scores, "precision", 0.8)
    assert 0.6 <= found.threshold < 0.8
    assert found.observed >= 0.8
    assert found.kept == (scores >= found.threshold).sum() > 1000


def test_a_wrong_score_at_the_top_does_not_end_the_search() -> None:
    """Where the five highest of 500 are false, a threshold below them is found all the same."""
    scores = np.linspace(0.2, 0.9999, 500)
    truth = (scores > 0.5) & (np.arange(500) < 495)
    assert _fit(scores, truth, "precision", 0.9).threshold < 0.6


def test_the_search_ends_at_the_first_test_that_fails() -> None:
    """Where 30 false scores follow 100 true ones, the 400 true ones below them are not reached, good as all are."""
    scores = np.concatenate([np.linspace(1, 0.5, 100), np.linspace(0.49, 0.4, 30), np.linspace(0.39, 0, 400)])
    truth = ~((scores > 0.395) & (scores < 0.495))
    assert truth.mean() > 0.94
    found = _fit(scores, truth, "precision", 0.9)
    assert 0.4 < found.threshold <= 0.5
    assert found.observed >= 0.9


# What is found


def _tail(n: int, most: int, chance: float) -> float:
    return sum(math.comb(n, k) * chance**k * (1 - chance) ** (n - k) for k in range(most + 1))


@pytest.mark.parametrize(("n", "recall", "confidence"), [(29, 0.9, 0.95), (100, 0.9, 0.95), (60, 0.75, 0.99)])
def test_the_threshold_of_a_recall_is_the_highest_that_passes(n: int, recall: float, confidence: float) -> None:
    """At the threshold so many are missed that P(Bin(n, 1 - recall) ≤ misses) is within the risk; one more is not."""
    scores = np.random.default_rng(n).permutation(np.arange(1, n + 1)) / n
    found = _fit(scores, np.ones(n, dtype=bool), "recall", recall, confidence=confidence)
    misses = int((scores < found.threshold).sum())
    assert _tail(n, misses, 1 - recall) <= 1 - confidence < _tail(n, misses + 1, 1 - recall)
    assert (found.size, found.kept, found.observed) == (n, n - misses, 1 - misses / n)


@pytest.mark.parametrize(
    ("aim", "target", "confidence", "least"),
    [
        ("recall", 0.9, 0.95, 29),  # 0.9^29 = 0.047, 0.9^28 = 0.052
        ("recall", 0.95, 0.95, 59),  # 0.95^59 = 0.0485
        ("recall", 0.5, 0.75, 2),  # 0.5^2 = 0.25
        ("precision", 0.9, 0.95, 46),  # 0.9^46 = 0.0079, a sixth of 0.05 is 0.0083
    ],
)
def test_the_smallest_sample(aim: str, target: float, confidence: float, least: int) -> None:
    """One query fewer than the smallest number is an error that says both; that number is enough where all is well."""
    scores, truth = np.linspace(1, 0.995, least + 1), np.ones(least + 1, dtype=bool)
    if aim == "precision":
        scores[0], truth[0] = 0.0, False
    else:
        scores, truth = scores[1:], truth[1:]
    assert _fit(scores, truth, aim, target, confidence=confidence).observed == 1
    few = Sample(scores[:-2], truth[:-2], np.arange(len(scores) - 2), "passages")
    with pytest.raises(CalibrationError, match=rf"takes at least {least} queries.* and the data has {len(scores) - 2}"):
        Guarantee.fit(few, aim, target, confidence, KEY)


def test_scores_of_another_range_have_the_same_promise() -> None:
    """The log-odds of the scores get the log-odds of the threshold, since the search begins at the same places."""
    rng = np.random.default_rng(3)
    scores = rng.uniform(0.01, 0.99, 2000)
    truth = rng.random(2000) < scores
    groups = np.arange(2000)
    plain = Guarantee.fit(Sample(scores, truth, groups, "passages"), "precision", 0.8, 0.95, KEY)
    odds = Sample(np.log(scores / (1 - scores)), truth, groups, "passages")
    logit = Guarantee.fit(odds, "precision", 0.8, 0.95, {"kind": "logit"})
    assert logit.threshold == pytest.approx(math.log(plain.threshold / (1 - plain.threshold)))
    margin = Guarantee.fit(
        Sample(2 * scores - 1, truth, groups, "passages"), "precision", 0.8, 0.95, {"kind": "margin"}
    )
    assert margin.threshold == pytest.approx(2 * plain.threshold - 1)


# Of a reranker


def _rows(count: int = 100, seed: int = 0) -> list[dict[str, Any]]:
    """Queries with a supporting passage that states √u and two others that state u²."""
    u = np.random.default_rng(seed).random((count, 3))
    return [
        {
            "query": f"Statement {i}.",
            "passages": [f"e={math.sqrt(a):.5f},c=0.0", f"e={b * b:.5f},c=0.0", f"e={c * c:.5f},c=0.0"],
            "labels": [1, 0, 0],
        }
        for i, (a, b, c) in enumerate(u)
    ]


def _claims(count: int = 300) -> list[dict[str, Any]]:
    """Claims whose passages state u for the right verdict and against it, right with the chance u."""
    rng = np.random.default_rng(4)
    rows = []
    for i in range(count):
        u = rng.uniform(0.3, 0.99)
        supports, right = rng.random() < 0.5, rng.random() < u
        stated = f"e={u:.5f},c=0.0" if supports else f"e=0.0,c={u:.5f}"
        label = ("supported" if supports else "refuted") if right else "insufficient"
        rows.append({"claim": f"Claim {i}.", "passages": [stated, "e=0.1,c=0.1"], "label": label})
    return rows


@pytest.fixture(scope="module")
def promising() -> NLIReranker:
    return NLIReranker(stating()).with_guarantee(_rows(), recall=0.9)


def test_filter_takes_the_promised_threshold(promising: NLIReranker) -> None:
    """The default threshold of filter is the guarantee's, and any that is given goes before it."""
    assert promising.guarantee is not None
    least = promising.guarantee.threshold
    assert 0 < least < 0.32  # 0.9 of √u lie above √0.1
    passages = [f"e={least - 0.01:.5f},c=0", f"e={least + 0.01:.5f},c=0"]
    filtered = promising.filter("x", passages)
    assert filtered.threshold == promising.filter("x", passages, "auto").threshold == least
    assert [p.index for p in filtered.kept] == [1]
    assert promising.filter("x", passages, 0.9).threshold == 0.9
    assert promising.filter("x", passages, None).threshold is None
    assert promising.verify("x", [f"e={least + 0.01:.5f},c=0"]).label == "insufficient"


def test_a_promise_leaves_the_reranker_as_it_was() -> None:
    """A new reranker comes back, over the same engine and what it remembers; the old one has no promise."""
    calls: list[int] = []

    def counting(pairs: list[tuple[str, str]]) -> list[list[float]]:
        calls.append(len(pairs))
        return stated(pairs)

    plain = NLIReranker(FunctionEngine(counting))
    other = plain.with_guarantee(_rows(40), recall=0.9)
    scored = len(calls)
    assert other.engine is plain.engine
    plain.rank("Statement 3.", _rows(40)[3]["passages"])
    other.rank("Statement 3.", _rows(40)[3]["passages"])
    assert len(calls) == scored > 0
    assert plain.guarantee is None
    assert plain.filter("x", []).threshold == 0.5
    assert other.filter("x", []).threshold != 0.5


def test_one_passage_of_each_query_is_drawn() -> None:
    """The sample counts queries, not passages, also where the rows of one query stand apart, and goes by the seed."""
    rows = [{**row, "passages": row["passages"][:2], "labels": [1, 1]} for row in _rows(50)]
    plain = NLIReranker(stating())
    both = plain.with_guarantee(rows, recall=0.9).guarantee
    apart = [{**row, "passages": [p], "labels": [1]} for row in rows for p in row["passages"]]
    assert both == plain.with_guarantee(apart, recall=0.9).guarantee
    assert both is not None
    assert both.size == 50
    thresholds = {plain.with_guarantee(rows, recall=0.9, seed=s).guarantee.threshold for s in range(5)}  # type: ignore[union-attr]
    assert len(thresholds) > 1


@pytest.mark.parametrize("keep", ["contradiction", "evidence"])
def test_a_promise_is_on_entailment(promising: NLIReranker, keep: str) -> None:
    """What is kept for something else has no promise: an error, unless a threshold is given."""
    with pytest.raises(CalibrationError, match=f"not made for keep='{keep}'"):
        promising.filter("x", ["e=0.5,c=0"], keep=keep)
    assert promising.filter("x", ["e=0.5,c=0"], 0.5, keep).threshold == 0.5


def test_verdicts_abstain() -> None:
    """On claims the promise is on verdicts: verify and check settle what its threshold lets them, filter keeps 0.5."""
    reranker = NLIReranker(stating()).with_guarantee(_claims(), precision=0.7)
    promise = reranker.guarantee
    assert promise is not None
    assert (promise.of, promise.aim, promise.size) == ("verdicts", "precision", 300)
    assert promise.observed >= 0.7
    assert 0.4 < promise.threshold < 0.9  # u is right with the chance u: 0.7 on average of 0.41..0.99
    for e, label in ((promise.threshold - 0.01, "insufficient"), (promise.threshold + 0.01, "supported")):
        assert reranker.verify("x", [f"e={e:.5f},c=0"]).label == label
        assert [v.label for v in reranker.check("It is so.", [f"e={e:.5f},c=0"])] == [label]
    assert reranker.verify("x", ["e=0.05,c=0.01"], 0.01).label == "supported"
    assert reranker.filter("x", []).threshold == 0.5
    labels = [reranker.verify(row["claim"], row["passages"]).label for row in _claims()]
    right = [label == row["label"] for label, row in zip(labels, _claims(), strict=True) if label != "insufficient"]
    assert (len(right), sum(right) / len(right)) == (promise.kept, pytest.approx(promise.observed))


def test_verdicts_of_joined_passages_have_no_promise() -> None:
    """What two passages say together was not in the sample: an error, unless a threshold is given."""
    reranker = NLIReranker(stating()).with_guarantee(_claims(), precision=0.7)
    for call in (reranker.verify, reranker.check):
        with pytest.raises(CalibrationError, match="not made for join=2"):
            call("It is so.", ["e=0.3,c=0"], join=2)
        call("It is so.", ["e=0.3,c=0"], 0.5, join=2)


@pytest.mark.parametrize(
    "names", [("entailment", "contradiction", "neutral"), ("SUPPORTS", "REFUTES", "NOT ENOUGH INFO"), (0, "2", 1)]
)
def test_labels_of_other_data(names: tuple[Any, Any, Any]) -> None:
    """Labels may be spelled as NLI and fact-checking data have them, or be numbers of the model's outputs."""
    spelled = dict(zip(("supported", "refuted", "insufficient"), names, strict=True))
    rows = [{**row, "label": spelled[row["label"]]} for row in _claims()]
    plain = NLIReranker(stating())
    expected = plain.with_guarantee(_claims(), precision=0.7).guarantee
    assert plain.with_guarantee(rows, precision=0.7).guarantee == expected


# Kept in a file, and held to its settings


def test_a_promise_is_saved_and_taken_up(promising: NLIReranker, tmp_path: Path) -> None:
    """A guarantee comes back from its file and into another reranker of the same settings, which pickles."""
    promise = promising.guarantee
    assert promise is not None
    promise.save(tmp_path / "promise.json")
    assert Guarantee.load(tmp_path / "promise.json") == promise
    assert json.loads((tmp_path / "promise.json").read_text(encoding="utf-8")) == promise.to_dict()
    for given in (promise, tmp_path / "promise.json", str(tmp_path / "promise.json")):
        other = pickle.loads(pickle.dumps(NLIReranker(stating(), guarantee=given)))  # noqa: S301 - written on this line
        assert other.guarantee == promise
        assert other.filter("x", []).threshold == promise.threshold


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"pool": "mean"}, "pool: fitted for 'max', used with 'mean'"),
        ({"direction": "query_entails_passage"}, "direction: "),
        ({"score": "logit"}, "kind: "),
        ({"template": "It is said that {query}"}, "template: "),
        ({"window": 64}, "window: "),
    ],
)
def test_other_settings_refuse_a_promise(promising: NLIReranker, settings: dict[str, Any], named: str) -> None:
    """A guarantee for other settings is an error that names what differs."""
    with pytest.raises(CalibrationError, match=f"this guarantee is for other settings.*{named}"):
        NLIReranker(stating(), guarantee=promising.guarantee, **settings)


def test_a_calibration_moves_scores(promising: NLIReranker) -> None:
    """A guarantee on plain scores is refused where they are calibrated, the other way round, and on other labels."""
    calibration = Calibration("platt", [[2.0], [0.0]], promising.calibration_key)
    with pytest.raises(CalibrationError, match=r"calibration: fitted for None, used with \{'method': 'platt'"):
        NLIReranker(stating(), calibration=calibration, guarantee=promising.guarantee)
    calibrated = NLIReranker(stating(), calibration=calibration).with_guarantee(_rows(), recall=0.9).guarantee
    with pytest.raises(CalibrationError, match=r"calibration: fitted for \{'method': 'platt'"):
        NLIReranker(stating(), guarantee=calibrated)
    turned = FunctionEngine(stated, labels=["contradiction", "neutral", "entailment"])
    with pytest.raises(CalibrationError, match="labels: "):
        NLIReranker(turned, guarantee=promising.guarantee)


def test_a_promise_on_verdicts_knows_no_pool() -> None:
    """Verdicts have one direction, kind and pool: their guarantee holds whatever those of the reranker are."""
    promise = NLIReranker(stating()).with_guarantee(_claims(), precision=0.7).guarantee
    other = NLIReranker(stating(), guarantee=promise, pool="mean", score="margin")
    assert promise is not None
    assert other.verify("x", [f"e={promise.threshold + 0.01:.5f},c=0"]).label == "supported"


@pytest.mark.parametrize(
    "change", [{"threshold": 2}, {"threshold": "0.5"}, {"aim": 3, "target": None}, {"confidence": 1}, {"key": {}}]
)
def test_files_without_a_promise(promising: NLIReranker, change: dict[str, Any], tmp_path: Path) -> None:
    """A file with values that are none is an error that names it."""
    assert promising.guarantee is not None
    path = tmp_path / "promise.json"
    path.write_text(json.dumps({**promising.guarantee.to_dict(), **change}), encoding="utf-8")
    with pytest.raises(CalibrationError, match=r"promise\.json holds no guarantee that can be read"):
        NLIReranker(stating(), guarantee=path)


# What cannot be promised


@pytest.mark.parametrize(
    ("promise", "message"),
    [
        ({}, "got recall=None and precision=None: give exactly one"),
        ({"recall": 0.9, "precision": 0.9}, "got recall=0.9 and precision=0.9: give exactly one"),
        ({"recall": 1}, "recall=1: expected a number above 0 and below 1"),
        ({"recall": 0}, "recall=0: expected"),
        ({"precision": 1.5}, "precision=1.5: expected"),
        ({"precision": math.nan}, "precision=nan: expected"),
        ({"recall": True}, "recall=True: expected"),
        ({"recall": "0.9"}, "recall='0.9': expected"),
        ({"recall": 0.9, "confidence": 95}, "confidence=95: expected"),
        ({"recall": 0.9, "seed": 1.5}, "seed=1.5: expected a whole number"),
    ],
)
def test_promises_that_are_none(promise: dict[str, Any], message: str) -> None:
    """Both or neither of recall and precision, and numbers out of range, are errors."""
    with pytest.raises(InputError, match=message):
        NLIReranker(stating()).with_guarantee(_rows(40), **promise)


def _blank(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "query": " "}


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ([], InputError, "data holds nothing"),
        ("rows.jsonl", InputTypeError, "data must be a list"),
        (
            [*_rows(40), {"claim": "x", "passages": ["y"], "label": "supported"}],
            InputError,
            "data row 40: query is None",
        ),
        ([*_rows(40), 7], InputError, "data row 40: expected"),
        ([_blank(row) for row in _rows(40)], InputError, "data row 0: query is ' '"),
        (_rows(28), CalibrationError, "at least 29 queries with a supporting passage, and the data has 28 of 28"),
        ([{**row, "labels": [0, 0, 0]} for row in _rows(40)], CalibrationError, "the data has 0 of 40"),
        (
            [{**row, "passages": ["e=0.5,c=0"] * 3} for row in _rows(40)],
            CalibrationError,
            "all 120 passages .*score 0.5",
        ),
    ],
)
def test_data_that_gives_no_recall(data: Any, error: type[Exception], message: str) -> None:
    """Rows of another form, blank or too few ones, none that support and equal scores are errors that say so."""
    with pytest.raises(error, match=message):
        NLIReranker(stating()).with_guarantee(data, recall=0.9)


@pytest.mark.parametrize("label", [0, 1])
def test_a_precision_needs_both_classes(label: int) -> None:
    """Passages that all support, or none, are no sample of what a precision parts."""
    rows = [{**row, "labels": [label] * 3} for row in _rows(60)]
    with pytest.raises(CalibrationError, match=f"passages of both classes, got {180 * label} supporting ones of 180"):
        NLIReranker(stating()).with_guarantee(rows, precision=0.9)


def test_scores_that_say_nothing_promise_no_precision() -> None:
    """Where truth is a coin's, no threshold shows a precision of 0.9, and the error says what the best start shows."""
    rng = np.random.default_rng(5)
    rows = [{**row, "labels": rng.integers(0, 2, 3).tolist()} for row in _rows(200)]
    with pytest.raises(CalibrationError, match=r"no threshold shows precision=0.9 on this sample of 200: of the \d+"):
        NLIReranker(stating()).with_guarantee(rows, precision=0.9)


CLAIM = {"claim": "x", "passages": ["e=0.5,c=0"], "label": "supported"}


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([*_claims(50), {"query": "x"}], InputError, r'data row 50: expected {"claim", "passages", "label"}, got'),
        ([{**CLAIM, "claim": " "}], InputError, "data row 0: claim is ' ': expected a text"),
        ([{**CLAIM, "claim": 3}], InputError, "data row 0: claim is 3: expected a text"),
        ([{**CLAIM, "passages": []}], InputError, "data row 0: there are no passages"),
        ([{**CLAIM, "passages": "y"}], InputError, "data row 0: passages must be a list"),
        ([{**CLAIM, "label": "maybe"}], InputError, "data row 0: unknown label 'maybe'"),
        ([{**CLAIM, "label": "not_entailment"}], InputError, "does not tell refuted from insufficient"),
        ([CLAIM] * 60, CalibrationError, "data has the label 'supported' alone"),
        ([CLAIM, {**CLAIM, "label": "refuted"}], CalibrationError, "all 2 verdicts of the data score 0.5"),
        (_claims(20), CalibrationError, "takes at least 46 claims, and the data has 20:"),
    ],
)
def test_claims_that_give_no_promise(rows: Any, error: type[Exception], message: str) -> None:
    """Claims of another form, blank ones, labels of one kind and too few claims are errors that say so."""
    with pytest.raises(error, match=message):
        NLIReranker(stating()).with_guarantee(rows, precision=0.9)


def test_verdicts_have_no_recall_and_need_three_labels() -> None:
    """A recall of verdicts is an error, and so are claims for a model with two labels."""
    with pytest.raises(InputError, match="of verdicts there is no recall"):
        NLIReranker(stating()).with_guarantee(_claims(), recall=0.9)
    with pytest.raises(LabelError, match="a verdict needs P"):
        NLIReranker(binary()).with_guarantee(_claims(), precision=0.9)
    assert NLIReranker(binary()).with_guarantee(_rows(), recall=0.9).guarantee is not None
