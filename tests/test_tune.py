"""Tuning: it finds the settings that an engine was made to be best under, and keeps the default where none is."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from texts import binary, neutral_sentences, stated, stating

from rerank_nli import CalibrationError, FunctionEngine, Fusion, InputError, NLIReranker, QueryTooLongError
from rerank_nli.cli import main
from rerank_nli.pairs import Judged, judged, read_judged
from rerank_nli.scores import FUSIONS
from rerank_nli.tune import ALPHAS, Tuned, tune

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rerank_nli.scores import FloatArray

    Draw = Callable[[np.random.Generator], tuple[str, float]]

DEFAULT = {"direction": "passage_entails_query", "score": "entailment", "template": "auto", "pool": "max"}


def queries(count: int, draw: Draw, passages: int = 8, seed: int = 0) -> list[Judged]:
    """Queries whose passages state what is drawn, of which a passage supports with the chance drawn beside it."""
    rng = np.random.default_rng(seed)
    found = []
    for q in range(count):
        drawn = [draw(rng) for _ in range(passages)]
        labels = [int(rng.uniform() < chance) for _, chance in drawn]
        found.append(Judged(f"query {q}", [f"{q} {i} {text}" for i, (text, _) in enumerate(drawn)], labels, None))
    return found


def noise(rng: np.random.Generator) -> tuple[str, float]:
    e, _, c = rng.dirichlet([1, 1, 1])
    return f"e={e:.4f},c={c:.4f}", 0.4


def certain(rng: np.random.Generator) -> tuple[str, float]:
    e, _, c = rng.dirichlet([1, 1, 1])
    return f"e={e:.4f},c={c:.4f}", float(e > 0.5)


def backwards(rng: np.random.Generator) -> tuple[str, float]:
    e = rng.uniform(size=2).round(3)
    return f"e={e[0]},c=0.0 re={e[1]},rc=0.0", float(e[1] > 0.5)


def by_ratio(rng: np.random.Generator) -> tuple[str, float]:
    e, supports = rng.uniform(0.1, 0.6), rng.uniform() < 0.4
    c = e * (rng.uniform(0, 0.1) if supports else rng.uniform(0.3, 0.6))
    return f"e={e:.4f},c={c:.4f}", float(supports)


def of_three(rng: np.random.Generator) -> tuple[str, float]:
    e = rng.uniform(size=3).round(3)
    filler = " and so on" * 15
    return " ".join(f"It states e={value},c=0.0{filler}." for value in e), float(e.mean() > 0.55)


def worded(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
    """What the passage states, to a query that is asked about as "Stated: …"; to any other nothing but noise."""
    asked = [(p if h.startswith("Stated: ") else f"e=0.{sum(map(ord, p)) % 9},c=0.0", h) for p, h in pairs]
    return stated(asked)


FOUND: list[tuple[Callable[[], FunctionEngine], Draw, str, str]] = [
    (stating, backwards, "direction", "query_entails_passage"),
    (stating, by_ratio, "score", "entailment_vs_contradiction"),
    (lambda: FunctionEngine(worded), certain, "template", "Stated: {query}"),
    (lambda: stating(max_length=60), of_three, "pool", "mean"),
]


@pytest.mark.parametrize(("engine", "draw", "setting", "best"), FOUND, ids=[setting for *_, setting, _ in FOUND])
def test_what_is_best_is_found(engine: Callable[[], FunctionEngine], draw: Draw, setting: str, best: str) -> None:
    """The one setting that an engine is best under is found in every fold, and all else stays as in the default."""
    tuned = tune(engine(), queries(60, draw), templates=["Stated: {query}"])
    assert tuned.settings == {**DEFAULT, setting: best}
    assert (tuned.rank, tuned.kept_default, tuned.agreeing) == ({}, False, 5)
    assert tuned.found.name == f"{setting}={best}"
    gains = {choice.name: choice.ndcg_gain for choice in tuned.choices}
    gain, low, high = gains[f"{setting}={best}"]
    assert 0 < low < gain < high
    assert gain == max(value for value, *_ in gains.values())
    assert tuned.found.ndcg_gain == gains[f"{setting}={best}"]  # nothing was fitted, so held out is as it was


@pytest.mark.parametrize("seed", range(3))
def test_noise_keeps_the_default(seed: int) -> None:
    """Where labels hang on nothing, the default stays, with or without retrieval scores."""
    data = queries(24, noise, seed=seed)
    scores = np.random.default_rng(seed).uniform(size=(24, 8))
    for given in (data, [row._replace(retrieval_scores=r) for row, r in zip(data, scores, strict=True)]):
        tuned = tune(stating(), given, templates=[])
        assert (tuned.settings, tuned.rank, tuned.kept_default) == (DEFAULT, {}, True)


def test_a_perfect_default_stays() -> None:
    """Where the default is perfect, nothing is above it and it is what is found, in every fold."""
    tuned = tune(stating(), queries(24, certain), templates=[])
    assert (tuned.settings, tuned.kept_default, tuned.agreeing, tuned.found.name) == (DEFAULT, True, 5, "default")
    default, *others = tuned.choices
    assert (default.ndcg, default.mrr, default.ndcg_gain) == ([1, 1, 1], [1, 1, 1], [0, 0, 0])
    assert max(other.ndcg_gain[0] for other in others) <= 0


def formula(seed: int, count: int) -> list[Judged]:
    """Support with odds exp(5 · e - 5 · c + 5 · retrieval - 5): e and c are the log-odds of both, stretched to 0..1."""
    rng = np.random.default_rng(seed)
    data = []
    for q in range(count):
        p, r = rng.dirichlet([1, 1, 1], size=12), rng.uniform(size=12)
        odds = np.log(p / (1 - p))
        near = (odds - odds.min(axis=0)) / np.ptp(odds, axis=0)
        labels = rng.uniform(size=12) < 1 / (1 + np.exp(-(near @ [5, 0, -5] + 5 * r - 5)))
        texts = [f"{q} {i} e={e:.4f},c={c:.4f}" for i, (e, _, c) in enumerate(p)]
        data.append(Judged(f"query {q}", texts, labels.astype(int).tolist(), r))
    return data


@pytest.fixture(scope="module")
def fused() -> Tuned:
    """Tuned where support hangs on entailment, contradiction and retrieval."""
    pytest.importorskip("sklearn")
    return tune(stating(), formula(0, 50), templates=[], resamples=300)


def test_a_learned_fusion_wins(fused: Tuned) -> None:
    """Where support hangs on all three, learned weights gain most, on queries that they were not fitted on."""
    assert (fused.kept_default, list(fused.rank)) == (False, ["fuse"])
    assert isinstance(fused.rank["fuse"], Fusion)
    gains = {choice.name.split(",")[0]: choice.ndcg_gain[0] for choice in fused.choices}
    assert gains["fuse=learned"] == max(gains.values())
    assert gains["retrieval scores alone"] < 0 < gains["fuse=linear"]
    gain, low, high = fused.found.ndcg_gain
    assert 0 < low < gain < high
    assert fused.found.name == "fuse=learned"


def test_what_is_found_serves(fused: Tuned, tmp_path: Path) -> None:
    """The file gives a reranker and its `rank` what they take, and fresh queries are ordered better than before."""
    path = tmp_path / "tuned.json"
    fused.save(path)
    tuned = Tuned.load(path)
    assert tuned == fused
    reranker = NLIReranker(stating(), **tuned.settings)
    orders: list[list[float]] = []
    for row in formula(1, 200):
        given: dict[str, Any] = {"retrieval_scores": row.retrieval_scores}
        ranking = reranker.rank(row.query, row.passages, **given, **tuned.rank)
        assert reranker.rank(row.query, row.passages, **given, fuse=str(path)) == ranking
        orders.append([row.labels[r[0].index] for r in (ranking, reranker.rank(row.query, row.passages))])
    found, default = np.mean(orders, axis=0)
    assert found > default + 0.1


def test_the_file_is_plain_json(fused: Tuned, tmp_path: Path) -> None:
    """Settings and what `rank` takes stand in the file by name, with learned weights beside them."""
    fused.save(tmp_path / "tuned.json")
    values = json.loads((tmp_path / "tuned.json").read_text(encoding="utf-8"))
    assert values["settings"] == fused.settings
    assert values["rank"] == {"fuse": "learned"}
    assert values["weights"] == fused.rank["fuse"].weights
    assert values == fused.to_dict() | {"choices": list(values["choices"])}
    linear = Tuned(DEFAULT, {"fuse": "linear", "alpha": 0.4}, False, 1, fused.choices, fused.found, 5)  # noqa: FBT003
    linear.save(tmp_path / "tuned.json")
    assert Tuned.load(tmp_path / "tuned.json") == linear


def test_few_queries_learn_no_weights() -> None:
    """Under 34 queries learned weights are not tried, linear and rank fusion are, and a strong retriever is found."""
    rng = np.random.default_rng(0)
    data = [
        row._replace(retrieval_scores=np.array(row.labels) + rng.uniform(0, 1.2, size=8))
        for row in queries(33, noise)
        if 0 < sum(row.labels) < 8
    ]
    tuned = tune(stating(), data, templates=[])
    names = {choice.name.split(",")[0] for choice in tuned.choices}
    assert {"fuse=linear", "fuse=rrf"} == {name for name in names if name.startswith("fuse")}
    assert tuned.rank["fuse"] in ("linear", "rrf")
    assert tuned.rank["alpha"] in ALPHAS
    assert tuned.rank["alpha"] <= 0.4


def test_weights_are_measured_on_other_queries() -> None:
    """On noise, weights order the queries that they are fitted on better than the report says of them."""
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(2)
    data = [row._replace(retrieval_scores=rng.uniform(size=5)) for row in queries(60, noise, passages=5, seed=2)]
    tuned = tune(stating(), data, templates=[], resamples=100)
    reported = {choice.name.split(",")[0]: choice.ndcg[0] for choice in tuned.choices}
    reranker = NLIReranker(stating())
    listed = [sorted(reranker.rank(row.query, row.passages), key=lambda p: p.index) for row in data]
    p = [np.array([(one.entailment, one.neutral, one.contradiction) for one in ranking]) for ranking in listed]

    def ndcg(fused: Callable[[FloatArray, FloatArray], FloatArray]) -> float:
        orders = [(row.labels, fused(q, row.retrieval_scores)) for q, row in zip(p, data, strict=True)]  # type: ignore[arg-type]
        return float(np.mean([metrics.ndcg_score([y], [s]) for y, s in orders if 0 < sum(y) < len(y)]))

    for name, fuse in FUSIONS.items():
        best = max(ndcg(lambda q, r, a=a, f=fuse: f(q[:, 0], r, a)) for a in ALPHAS)  # type: ignore[misc]
        assert reported[f"fuse={name}"] < best - 0.01
    rows = [(q, row.retrieval_scores, row.labels) for q, row in zip(p, data, strict=True)]
    fusion = Fusion.fit(rows, reranker.calibration_key)
    assert reported["fuse=learned"] < ndcg(fusion.apply) - 0.01


def test_figures_are_those_of_ir_measures() -> None:
    """nDCG@10 and reciprocal rank are what ir_measures gives for the orders that `rank` gives."""
    ir_measures = pytest.importorskip("ir_measures")
    data = queries(30, noise, passages=25)
    reranker = NLIReranker(stating())
    qrels: dict[str, dict[str, int]] = {}
    run: dict[str, dict[str, float]] = {}
    for q, row in enumerate(data):
        qrels[str(q)] = {str(i): label for i, label in enumerate(row.labels)}
        run[str(q)] = {str(p.index): -float(place) for place, p in enumerate(reranker.rank(row.query, row.passages))}
    expected = ir_measures.calc_aggregate([ir_measures.nDCG @ 10, ir_measures.RR], qrels, run)
    default = tune(stating(), data, templates=[]).choices[0]
    assert default.ndcg[0] == pytest.approx(expected[ir_measures.nDCG @ 10], abs=1e-4)
    assert default.mrr[0] == pytest.approx(expected[ir_measures.RR], abs=1e-4)


def test_each_pair_is_scored_once() -> None:
    """Kinds, pools and bidirectional cost no pairs: each of a direction and a template is scored once."""
    asked: Counter[tuple[str, str]] = Counter()

    def counting(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        asked.update(pairs)
        return stated(pairs)

    tune(FunctionEngine(counting), queries(24, certain), templates=["Stated: {query}"])
    assert set(asked.values()) == {1}
    assert len(asked) == 24 * 8 * 3  # forwards, backwards, and forwards in the template


def test_two_labels() -> None:
    """A model without contradiction is tuned over the kinds that it has."""
    tuned = tune(binary(), queries(24, certain), templates=[])
    assert {c.name for c in tuned.choices if c.name.startswith("score=")} == {"score=logit"}


def test_tuning_is_repeatable() -> None:
    """The same data and seed give the same report; another seed draws other resamples."""
    data = queries(24, noise, seed=5)
    first, second, other = (tune(stating(), data, templates=[], seed=seed) for seed in (1, 1, 2))
    assert first == second
    assert first.choices[0].ndcg[0] == other.choices[0].ndcg[0]
    assert first.choices[0].ndcg != other.choices[0].ndcg


def test_queries_of_one_label_have_no_figure() -> None:
    """A query whose passages are all of one label changes no figure."""
    data = queries(24, certain)
    same = [Judged("all", ["1 e=0.1,c=0.1"], [1], None), Judged("none", ["2 e=0.9,c=0.1"] * 3, [0] * 3, None)]
    tuned = tune(stating(), [*same, *data], templates=[])
    assert tuned.queries == sum(0 < sum(row.labels) < 8 for row in data)
    assert tuned.choices[0].ndcg == [1, 1, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:19], "at least 20 queries with passages of both labels, got 19 of 19"),
        (lambda data: [*data[:19], *[data[0]._replace(labels=[0] * 8)] * 9], "got 19 of 28"),
        (lambda _: [], "labels of both classes, got 0 of 1 among 0"),
        (lambda data: [row._replace(labels=[0] * 8) for row in data], "got 0 of 1 among 192"),
        (lambda data: [row._replace(labels=[1] * 8) for row in data], "got 192 of 1 among 192"),
        (lambda data: [*data, data[0]._replace(retrieval_scores=np.ones(8))], "query 0 has no retrieval_scores"),
    ],
)
def test_data_that_cannot_be_tuned_on(change: Callable[[list[Judged]], list[Judged]], message: str) -> None:
    """Too few queries, labels of one class and retrieval scores of some queries are errors that say so."""
    with pytest.raises(InputError, match=message):
        tune(stating(), change([row for row in queries(60, certain) if 0 < sum(row.labels) < 8][:24]))


def test_other_arguments() -> None:
    """A template without {query}, one that leaves no room, and too few resamples are errors."""
    data = queries(24, certain)
    with pytest.raises(InputError, match=r"no \{query\} in it"):
        tune(stating(), data, templates=["nothing"])
    with pytest.raises(QueryTooLongError):
        tune(stating(), data, templates=["word " * 500 + "{query}"])
    with pytest.raises(InputError, match="resamples=5: expected a whole number from 100"):
        tune(stating(), data, resamples=5)
    with pytest.raises(InputError, match="seed=-1: expected a whole number from 0"):
        tune(stating(), data, seed=-1)


ROW: dict[str, Any] = {"query": "q", "passages": ["a", "b"], "labels": [0, 1], "retrieval_scores": [1, 2.5]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0, 2]}, r"labels of passages are 1 \(entails the query\) or 0, got 2"),
        ({"labels": ["yes", 0]}, "got 'yes'"),
        ({"labels": [1]}, "2 passages, but 1 labels"),
        ({"labels": None}, "labels must be a list"),
        ({"passages": "a text"}, "passages are .a text.: expected a list of them"),
        ({"passages": ["a", 3]}, "passage 1 must be a text"),
        ({"query": " "}, "query is ' ': expected a text"),
        ({"retrieval_scores": [1.0]}, "1 retrieval_scores, but 2 passages"),
        ({"retrieval_scores": [1.0, float("nan")]}, "retrieval score 1 must be a finite number, got None"),
        ({"retrieval_scores": [float("inf"), 0]}, "retrieval score 0 must be a finite number, got inf"),
        ({"retrieval_scores": 3}, "retrieval_scores must be a list"),
    ],
)
def test_rows_that_cannot_be_read(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    """A row with other labels, of other lengths or with numbers that are not finite is an error that names it."""
    path = tmp_path / "data.jsonl"
    path.write_text(f"{json.dumps(ROW)}\n\n{json.dumps(ROW | change)}\n", encoding="utf-8")
    with pytest.raises(InputError, match=rf"{re.escape(str(path))}, row 3: .*{message}"):
        read_judged(path)


def test_rows_are_read(tmp_path: Path) -> None:
    """Rows come with their numbers as they are, and without retrieval scores where there are none."""
    path = tmp_path / "data.jsonl"
    bare = {name: value for name, value in ROW.items() if name != "retrieval_scores"}
    path.write_text(f"{json.dumps(ROW)}\n{json.dumps(bare)}\n", encoding="utf-8")
    first, second = read_judged(path)
    scores: FloatArray | None = first.retrieval_scores
    assert scores is not None
    assert (first[:3], scores.tolist()) == (("q", ["a", "b"], [0, 1]), [1, 2.5])
    assert second == judged(bare) == ("q", ["a", "b"], [0, 1], None)
    path.write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="holds no queries"):
        read_judged(path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"settings": {}}', "[" * 100_000])
def test_files_without_settings(content: str, tmp_path: Path) -> None:
    """A damaged file, and one that holds something else, is an error that names it."""
    path = tmp_path / "tuned.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(CalibrationError, match=re.escape(f"{path} holds no tuned settings that can be read")):
        Tuned.load(path)


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Queries that are the first words of sentences, each with itself and another as its passages."""
    texts = [" ".join(sentence.split()[:4]) for sentence in neutral_sentences()[:20]]
    rows = [{"query": t, "passages": [texts[i - 1], t], "labels": [0, 1]} for i, t in enumerate(texts)]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_the_command(capsys: pytest.CaptureFixture[str], file: str, tmp_path: Path) -> None:
    """`tune` prints a line for each choice and what was found, and writes the file; --json prints what is in it."""
    out = tmp_path / "tuned.json"
    assert main(["tune", file, "-o", str(out), "--template", "It says: {query}", "--resamples", "100"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("20 queries; ")
    assert re.search(r"^default +1\.0000 1\.000…1\.000  \+0\.0000 ", shown, flags=re.MULTILINE)
    assert "\ntemplate=It says: {query} " in shown
    assert shown.endswith("the default stays\n")
    assert Tuned.load(out).settings == DEFAULT
    assert main(["tune", file, "-o", str(out), "--template", "It says: {query}", "--resamples", "100", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(out.read_text(encoding="utf-8"))


def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str], file: str, tmp_path: Path) -> None:
    """What cannot be tuned on ends in status 2 and one line, and nothing is written."""
    out = tmp_path / "tuned.json"
    few = tmp_path / "few.jsonl"
    few.write_text(json.dumps(ROW), encoding="utf-8")
    for arguments, says in (
        ([str(few)], "at least 20 queries"),
        (["no/such.jsonl"], "no/such.jsonl"),
        ([file, "--template", "nothing"], "{query}"),
        ([file, "--resamples", "0"], "resamples=0"),
        ([file, "-o", str(tmp_path / "none" / "tuned.json")], "none is no folder"),
    ):
        assert main(["tune", "-o", str(out), *arguments]) == 2
        err = capsys.readouterr().err
        assert (err.startswith("rerank-nli: "), err.count("\n"), says in err) == (True, 1, True)
    assert not out.exists()
