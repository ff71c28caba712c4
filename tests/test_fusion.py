"""Learned fusion: the weights of a sample made for it come back, rank goes by them, and other settings are refused."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from texts import binary, stating

from rerank_nli import CalibrationError, Fusion, InputError, NLIReranker
from rerank_nli.fusion import FOLDS, _loss, fold_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rerank_nli.scores import FloatArray

    Rows = list[tuple[FloatArray, FloatArray, FloatArray]]

KEY = {"weights": "0f" * 32, "kind": "entailment", "pool": "max"}
CLAIM = "The ferry leaves twice a day."
PASSAGES = ["first e=0.8,c=0.1", "second e=0.5,c=0.1", "third e=0.2,c=0.7", "fourth e=0.4,c=0.0"]
RETRIEVED = [10.0, 30.0, 25.0, 20.0]


def sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


def stretched(values: Any) -> Any:
    """Min-max of each column."""
    values = np.asarray(values, dtype=float)
    return (values - values.min(axis=0)) / np.ptp(values, axis=0)


def odds(p: Any) -> Any:
    """Log-odds."""
    return np.log(p) - np.log1p(-np.asarray(p))


def drawn(seed: int, queries: int, retrieval: float, entailment: float, contradiction: float) -> Rows:
    """Queries of 20 passages whose odds of support are exp(w · features - 2), with these weights."""
    rng = np.random.default_rng(seed)
    rows: Rows = []
    for _ in range(queries):
        p, r = rng.dirichlet([1, 1, 1], size=20), rng.uniform(-5, 40, size=20)
        near = stretched(odds(p.clip(1e-4, 1 - 1e-4)))
        z = retrieval * stretched(r) + entailment * near[:, 0] + contradiction * near[:, 2] - 2
        rows.append((p, r, (rng.uniform(size=20) < sigmoid(z)).astype(float)))
    return rows


def won(rows: Rows, order: Callable[[FloatArray, FloatArray], FloatArray]) -> float:
    """How often a supporting passage lies above another of its query, in the mean over queries."""
    shares = []
    for p, r, y in rows:
        scores = order(p, r)
        if 0 < y.sum() < len(y):
            shares.append((scores[y == 1][:, None] > scores[y == 0]).mean())
    return float(np.mean(shares))


@pytest.fixture(scope="module")
def learned() -> Fusion:
    """Weights that were fitted where retrieval counts 4, entailment 5 and contradiction -5."""
    pytest.importorskip("scipy")
    return Fusion.fit(drawn(0, 200, 4, 5, -5), KEY)


@pytest.fixture
def reranker() -> NLIReranker:
    """The passages' probabilities are stated in them."""
    return NLIReranker(stating())


def of(reranker: NLIReranker, *weights: float, intercept: float = 0.0) -> Fusion:
    return Fusion(list(weights), intercept, reranker.calibration_key)


def test_fit_finds_the_weights(learned: Fusion) -> None:
    """The weights that a sample was drawn by come back."""
    assert learned.weights == pytest.approx([4, 5, 0, -5], abs=0.5)
    assert learned.intercept == pytest.approx(-2, abs=0.5)


def test_weights_order_within_queries() -> None:
    """That some queries have more support than others, and other probabilities, gives these no weight."""
    pytest.importorskip("scipy")
    rng = np.random.default_rng(8)
    rows = []
    for query in range(200):
        lucky = query % 2
        p = rng.dirichlet([1 + 9 * lucky, 1, 1], size=20)
        rows.append((p, rng.uniform(size=20), (rng.uniform(size=20) < 0.1 + 0.8 * lucky).astype(float)))
    assert Fusion.fit(rows, KEY).weights == pytest.approx([0, 0, 0, 0], abs=0.4)


def test_fused_order_beats_its_parts(learned: Fusion) -> None:
    """On queries that were not fitted on, the fused order is better than each part's, and nearly the best there is."""
    rows = drawn(1, 200, 4, 5, -5)
    fused = won(rows, learned.apply)
    assert fused > won(rows, lambda p, _: p[:, 0]) + 0.05
    assert fused > won(rows, lambda _, r: r) + 0.05
    best = won(rows, lambda p, r: 4 * stretched(r) + 5 * stretched(odds(p))[:, 0] - 5 * stretched(odds(p))[:, 2])
    assert fused == pytest.approx(best, abs=0.005)


def test_fused_values_are_probabilities(learned: Fusion) -> None:
    """Of the passages with a fused value near a tenth, the half, nine tenths, that share supports."""
    rows = drawn(2, 400, 4, 5, -5)
    fused = np.concatenate([learned.apply(p, r) for p, r, _ in rows])
    truth = np.concatenate([y for *_, y in rows])
    for share in (0.1, 0.5, 0.9):
        assert truth[abs(fused - share) < 0.05].mean() == pytest.approx(share, abs=0.05)


def test_a_useless_retriever_weighs_nothing() -> None:
    """Retrieval scores that tell nothing get a weight near 0, and the model keeps its own."""
    pytest.importorskip("scipy")
    fusion = Fusion.fit(drawn(3, 800, 0, 5, -5), KEY)
    assert abs(fusion.weights[0]) < 0.2
    assert fusion.weights[1] - fusion.weights[3] > 9


def test_a_useless_model_weighs_nothing() -> None:
    """Probabilities that tell nothing get weights near 0, and retrieval keeps its own."""
    pytest.importorskip("scipy")
    fusion = Fusion.fit(drawn(4, 200, 5, 0, 0), KEY)
    assert fusion.weights == pytest.approx([5, 0, 0, 0], abs=0.5)


def test_two_labels() -> None:
    """Of a model without neutral and contradiction, P(entailment) alone is weighed beside retrieval."""
    pytest.importorskip("scipy")
    rows = [([(e, None, None) for e, *_ in p], r, y) for p, r, y in drawn(5, 200, 4, 5, 0)]
    fusion = Fusion.fit(rows, KEY)
    assert fusion.weights == pytest.approx([4, 5], abs=0.5)
    reranker = NLIReranker(binary())
    ranking = reranker.rank(CLAIM, PASSAGES, retrieval_scores=RETRIEVED, fuse=of(reranker, 0.0, 1.0))
    assert [p.index for p in ranking] == [0, 1, 3, 2]


def test_queries_without_support_count_in_the_mean() -> None:
    """The mean of the fused values is the share of all passages that support, whatever their queries."""
    pytest.importorskip("scipy")
    barren = [(p, r, np.zeros_like(y)) for p, r, y in drawn(9, 300, 4, 5, -5)]
    rows = drawn(10, 100, 4, 5, -5) + barren
    fusion = Fusion.fit(rows, KEY)
    fused = np.concatenate([fusion.apply(p, r) for p, r, _ in rows])
    assert fused.mean() == pytest.approx(np.concatenate([y for *_, y in rows]).mean(), abs=1e-6)


def test_far_weights_have_a_loss() -> None:
    """A supporting passage far above or below all others has a finite loss and gradient, without a warning."""
    x, y, query = np.array([[1.0, 0.0], [0.0, 0.0], [0.5, 0.0]]), np.array([True, False, False]), np.zeros(3, dtype=int)
    for weight, expected in ((2000.0, 0.0), (-2000.0, 2000.0)):
        loss, gradient = _loss(np.array([weight, 0.0]), x, y, query)
        assert loss == pytest.approx(expected)
        assert gradient == pytest.approx([0.0, 0.0] if weight > 0 else [-1.0, 0.0])


def test_fit_is_repeatable() -> None:
    """The same rows and seed give the same weights, and what was passed in is unchanged."""
    pytest.importorskip("scipy")
    rows, key = drawn(6, 30, 4, 5, -5), dict(KEY)
    fusion = Fusion.fit(rows, key, seed=3)
    assert Fusion.fit(rows, key, seed=3) == fusion
    for row, same in zip(rows, drawn(6, 30, 4, 5, -5), strict=True):
        assert all((a == b).all() for a, b in zip(row, same, strict=True))
    key["pool"] = "mean"
    assert fusion.key == KEY


def test_apply_is_its_formula() -> None:
    """The fused value is σ(w · (retrieval score, log-odds of e, n, c, each stretched) + b)."""
    fusion = Fusion([2.0, 3.0, 0.5, -1.0], -1.0, {})
    p = np.array([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6], [0.5, 0.5, 0.0]])
    fused = fusion.apply(p, np.array([30.0, 10.0, 20.0]))
    least, most = math.log(0.2 / 0.8), math.log(0.6 / 0.4)  # of e
    e = (math.log(0.5 / 0.5) - least) / (most - least)
    least, most = math.log(0.2 / 0.8), math.log(0.5 / 0.5)  # of n
    n = (math.log(0.3 / 0.7) - least) / (most - least)
    least, most = math.log(0.0001 / 0.9999), math.log(0.6 / 0.4)  # of c, which is not taken for less than 0.0001
    c = (math.log(0.1 / 0.9) - least) / (most - least)
    first = 2 * 1 + 3 * 1 + 0.5 * n - 1 * c - 1
    second = 2 * 0 + 3 * 0 + 0.5 * 0 - 1 * 1 - 1
    third = 2 * 0.5 + 3 * e + 0.5 * 1 - 1 * 0 - 1
    assert fused == pytest.approx([1 / (1 + math.exp(-z)) for z in (first, second, third)])


def test_extremes_do_not_overflow() -> None:
    """Weights of a thousand give 0 and 1, without a warning."""
    fused = Fusion([0.0, 1e3, 0.0, -1e3], 0.0, {}).apply(np.eye(3), np.zeros(3))
    assert fused == pytest.approx([1, 0.5, 0])


@pytest.mark.parametrize(("given", "counts"), [(25.0, 1.0), (0.7, 0.7), (-3.0, 0.0)])
def test_a_lone_retrieval_score_stays_in_range(given: float, counts: float) -> None:
    """What is lone or tied has nothing to be stretched by: it counts as it is, but as 0..1 as others do."""
    fusion = Fusion([1.0, 3.0, 0.0, 0.0], 0.0, {})
    for count in (1, 2):
        fused = fusion.apply(np.full((count, 3), 1 / 3), np.full(count, given))
        assert fused == pytest.approx([sigmoid(counts + 3 * 1 / 3)] * count)


def test_rank_goes_by_the_fused_value(reranker: NLIReranker) -> None:
    """`relative` holds the fused value, which gives the order; the score stays what it is."""
    fusion = of(reranker, 3.0, 2.0, 0.0, -2.0, intercept=-1.0)
    ranking = reranker.rank(CLAIM, PASSAGES, retrieval_scores=RETRIEVED, fuse=fusion)
    p = np.array([(0.8, 0.1), (0.5, 0.1), (0.2, 0.7), (0.4, 0.0001)])  # e, c
    near, (e, c) = stretched(RETRIEVED), stretched(odds(p)).T
    expected = dict(enumerate(sigmoid(3 * near + 2 * e - 2 * c - 1)))
    assert {p.index: p.relative for p in ranking} == pytest.approx(expected)
    assert [p.index for p in ranking] == sorted(expected, key=lambda i: -expected[i])
    assert [p.index for p in ranking] == [1, 3, 0, 2]
    plain = {p.index: p.score for p in reranker.rank(CLAIM, PASSAGES)}
    assert {p.index: p.score for p in ranking} == plain


def test_a_file_serves_as_well(reranker: NLIReranker, tmp_path: Path) -> None:
    """`fuse` takes a fusion's file, as a path or as its name, in rank and in filter."""
    fusion = of(reranker, 3.0, 2.0, 0.0, -2.0)
    path = tmp_path / "fusion.json"
    fusion.save(path)
    given: dict[str, Any] = {"retrieval_scores": RETRIEVED}
    expected = reranker.rank(CLAIM, PASSAGES, **given, fuse=fusion)
    assert reranker.rank(CLAIM, PASSAGES, **given, fuse=path) == expected
    assert reranker.rank(CLAIM, PASSAGES, **given, fuse=str(path)) == expected
    filtered = reranker.filter(CLAIM, PASSAGES, 0.3, **given, fuse=path)
    assert [p.index for p in filtered.kept] == [1, 3, 0] == [p.index for p in expected if p.score >= 0.3]


def test_few_passages(reranker: NLIReranker) -> None:
    """No passages are no ranking, and those that `depth` leaves out have no part in the fusion."""
    fusion = of(reranker, 0.0, 1.0, 0.0, 0.0)
    assert list(reranker.rank(CLAIM, [], retrieval_scores=[], fuse=fusion)) == []
    ranking = reranker.rank(CLAIM, PASSAGES, retrieval_scores=RETRIEVED, fuse=fusion, depth=2)
    assert ([p.index for p in ranking], ranking.unscored) == ([1, 2], (0, 3))


def test_other_settings_are_refused(reranker: NLIReranker, tmp_path: Path) -> None:
    """A fusion for another key is an error that names what differs, as an object and from its file."""
    fusion = of(NLIReranker(stating(), pool="mean"), 1.0, 1.0, 0.0, 0.0)
    fusion.save(tmp_path / "fusion.json")
    for fuse in (fusion, tmp_path / "fusion.json"):
        with pytest.raises(CalibrationError) as caught:
            reranker.rank(CLAIM, PASSAGES, retrieval_scores=RETRIEVED, fuse=fuse)
        assert "this fusion is for other settings (pool: fitted for 'mean', used with 'max')" in str(caught.value)


def test_retrieval_scores_are_needed(reranker: NLIReranker) -> None:
    """A fusion without retrieval scores is an error."""
    with pytest.raises(InputError, match=r"fuse=Fusion\(weights=.* needs retrieval_scores"):
        reranker.rank(CLAIM, PASSAGES, fuse=of(reranker, 1.0, 1.0, 0.0, 0.0))


def test_save_and_load(learned: Fusion, tmp_path: Path) -> None:
    """A saved fusion comes back equal to the last bit, and nothing but its file is left behind."""
    learned.save(tmp_path / "fusion.json")
    assert Fusion.load(tmp_path / "fusion.json") == learned
    assert [path.name for path in tmp_path.iterdir()] == ["fusion.json"]


def test_apply_needs_no_extra(tmp_path: Path) -> None:
    """A fusion is loaded and ranks where neither scipy nor scikit-learn can be imported."""
    program = """
import sys
sys.modules["sklearn"] = sys.modules["scipy"] = None
from texts import stating
from rerank_nli import Fusion, NLIReranker
reranker = NLIReranker(stating())
Fusion([1.0, 0.0, 0.0, 0.0], 0.0, reranker.calibration_key).save(sys.argv[1])
ranking = reranker.rank("A claim.", ["a e=0.9,c=0.0", "b e=0.1,c=0.0"], retrieval_scores=[1, 2], fuse=sys.argv[1])
print([p.index for p in ranking])
"""
    command = [sys.executable, "-c", program, str(tmp_path / "fusion.json")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert (result.stdout, result.stderr) == ("[1, 0]\n", "")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"weights": [1, 2], "intercept": 0}',
        '{"weights": [1, 2, 3], "intercept": 0, "key": {}}',
        '{"weights": 1, "intercept": 0, "key": {}}',
        '{"weights": [1, "a"], "intercept": 0, "key": {}}',
        '{"weights": [1, NaN], "intercept": 0, "key": {}}',
        '{"weights": [1, 2], "intercept": null, "key": {}}',
        '{"weights": [1, 2], "intercept": 0, "key": 5}',
        "[" * 100_000,
    ],
)
def test_files_without_a_fusion(content: str, reranker: NLIReranker, tmp_path: Path) -> None:
    """A damaged file, and one that holds something else, is an error that names it."""
    path = tmp_path / "other.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(CalibrationError, match=re.escape(f"{path} holds no fusion that can be read")):
        reranker.rank(CLAIM, PASSAGES, retrieval_scores=RETRIEVED, fuse=path)


def test_no_file(reranker: NLIReranker, tmp_path: Path) -> None:
    """A path where nothing is is an error that names it; a name that is neither fusion nor file lists what there is."""
    with pytest.raises(CalibrationError, match=re.escape(str(tmp_path / "none.json"))):
        reranker.rank(CLAIM, PASSAGES, retrieval_scores=RETRIEVED, fuse=tmp_path / "none.json")
    with pytest.raises(
        InputError, match=r"unknown fuse 'none\.json': expected one of 'linear', 'rrf', a Fusion or the"
    ):
        reranker.rank(CLAIM, PASSAGES, retrieval_scores=RETRIEVED, fuse="none.json")


def first(rows: Rows, place: int, values: Any) -> Any:
    """The rows with something else in the first of them."""
    changed: list[Any] = list(rows[0])
    changed[place] = values
    return [tuple(changed), *rows[1:]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:19], "at least 20 queries with passages of both labels, got 19 of 19"),
        (lambda rows: first(rows[:20], 2, np.ones(20)), "got 19 of 20"),
        (lambda _: [], "labels of both classes, got 0 of 1 among 0"),
        (lambda rows: [(p, r, y * 0) for p, r, y in rows], "labels of both classes, got 0 of 1 among 600"),
        (lambda rows: [(p, r, y * 0 + 1) for p, r, y in rows], "labels of both classes, got 600 of 1 among 600"),
        (lambda rows: first(rows, 2, np.full(20, 2)), "query 0: labels must be 0 or 1, got 2"),
        (lambda rows: first(rows, 2, np.full(20, np.nan)), "query 0: labels must be 0 or 1, got nan"),
        (lambda rows: first(rows, 2, ["yes"] * 20), "query 0 is not probabilities, retrieval scores and labels"),
        (lambda rows: first(rows, 2, rows[0][2][1:]), r"query 0 has .*retrieval scores \(20,\) and labels \(19,\)"),
        (lambda rows: first(rows, 1, rows[0][1][1:]), r"query 0 has .*retrieval scores \(19,\) and labels \(20,\)"),
        (lambda rows: first(rows, 0, rows[0][0][:, :2]), r"query 0 has probabilities \(20, 2\)"),
        (lambda rows: first(rows, 1, np.full(20, np.inf)), "query 0: a retrieval score or a probability is not a fin"),
        (lambda rows: first(rows, 0, np.full((20, 3), np.inf)), "query 0: a retrieval score or a probability is not"),
        (lambda rows: first(rows, 0, [(0.5, None, None)] * 20), "fit on one model's rows"),
    ],
)
def test_samples_that_cannot_be_fitted(change: Callable[[Rows], Any], message: str) -> None:
    """Too few queries, one class, other labels or lengths and numbers that are not finite are errors that say so."""
    pytest.importorskip("scipy")
    with pytest.raises(CalibrationError, match=message):
        Fusion.fit(change(drawn(7, 30, 4, 5, -5)), KEY)


def test_queries_are_dealt_evenly() -> None:
    """Each fold has as many queries of both labels as any other, give or take one, and so of the rest."""
    mixed = np.random.default_rng(0).uniform(size=103) < 0.3
    fold = fold_of(mixed, 1)
    for part in (mixed, ~mixed):
        assert np.ptp(np.bincount(fold[part], minlength=FOLDS)) <= 1
    assert (fold != fold_of(mixed, 2)).any()
    assert (fold == fold_of(mixed, 1)).all()


def test_the_file_is_plain_json(learned: Fusion, tmp_path: Path) -> None:
    """The file holds weights, intercept and key by their names."""
    learned.save(tmp_path / "fusion.json")
    values = json.loads((tmp_path / "fusion.json").read_text(encoding="utf-8"))
    assert values == {"weights": learned.weights, "intercept": learned.intercept, "key": KEY}
