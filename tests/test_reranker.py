"""rank, rank_many and filter: what goes in, what comes out, in which order."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import pickle
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from texts import binary, neutral_sentences, stating

from rerank_nli import (
    FunctionEngine,
    InputError,
    InputTypeError,
    LabelError,
    NLIReranker,
    Ranking,
    load,
)

CLAIM = "The ferry sails at noon."
# P(entailment) 0.2, 0.9, 0.5 and P(contradiction) 0.7, 0.05, 0.4.
THREE = ["e=0.2,c=0.7", "e=0.9,c=0.05", "e=0.5,c=0.4"]

chances = st.integers(1, 49).map(lambda n: n / 100)
passages_of = st.lists(st.builds("e={},c={}".format, chances, chances), max_size=12)
kinds = st.sampled_from(["entailment", "entailment_vs_contradiction", "margin", "logit"])


def indices(ranking: Ranking) -> list[int]:
    """Where the ranked passages stood in the input."""
    return [p.index for p in ranking]


def numbers(value: Any) -> list[Any]:
    """Every number in a nest of dicts and lists."""
    if isinstance(value, dict):
        return [n for inner in value.values() for n in numbers(inner)]
    if isinstance(value, list | tuple):
        return [n for inner in value for n in numbers(inner)]
    return [] if value is None or isinstance(value, str) else [value]


def test_rank_puts_the_best_first() -> None:
    """Rank orders by score, best first."""
    ranking = NLIReranker(stating()).rank(CLAIM, THREE)
    assert indices(ranking) == [1, 2, 0]
    assert [p.score for p in ranking] == pytest.approx([0.9, 0.5, 0.2], abs=1e-6)


def test_a_ranking_says_how_it_was_made() -> None:
    """A Ranking carries query, direction, score kind and whether it is calibrated."""
    ranking = NLIReranker(stating(), direction="bidirectional", score="margin").rank(CLAIM, THREE)
    made = (ranking.query, ranking.direction, ranking.score_kind, ranking.calibrated)
    assert made == (CLAIM, "bidirectional", "margin", False)


def test_a_ranking_is_a_sequence() -> None:
    """A Ranking has a length, items, slices and membership."""
    ranking = NLIReranker(stating()).rank(CLAIM, THREE)
    assert (len(ranking), ranking[0], ranking[-1]) == (3, ranking.passages[0], ranking.passages[2])
    assert ranking[1:] == ranking.passages[1:]
    assert ranking[2] in ranking
    assert list(reversed(ranking)) == list(ranking.passages)[::-1]


@given(passages_of, kinds)
def test_ties_keep_the_order_they_came_in(passages: list[str], score: str) -> None:
    """Scores never rise down a ranking, and passages of one score stand as they came in."""
    ranking = NLIReranker(stating(), score=score).rank(CLAIM, passages)
    assert sorted(indices(ranking)) == list(range(len(passages)))
    assert all((-a.score, a.index) < (-b.score, b.index) for a, b in itertools.pairwise(ranking))


@given(passages_of, st.integers(1, 15))
def test_top_k_is_the_head_of_the_whole(passages: list[str], top_k: int) -> None:
    """Rank with top_k is the beginning of rank without it."""
    reranker = NLIReranker(stating(), normalize="minmax")
    assert reranker.rank(CLAIM, passages, top_k).passages == reranker.rank(CLAIM, passages).passages[:top_k]


class WithText:
    """Something with .text and .id, as retrievers return."""

    def __init__(self, text: str, id: str | None = None) -> None:  # noqa: A002
        self.text = text
        self.id = id


@pytest.mark.parametrize(
    ("passage", "found_id"),
    [
        ("e=0.5,c=0.1", None),
        (np.str_("e=0.5,c=0.1"), None),
        (("doc7", "e=0.5,c=0.1"), "doc7"),
        ((7, "e=0.5,c=0.1"), 7),
        (["doc7", "e=0.5,c=0.1"], "doc7"),
        ({"text": "e=0.5,c=0.1"}, None),
        ({"text": "e=0.5,c=0.1", "id": "doc7", "metadata": {"page": 3}}, "doc7"),
        (WithText("e=0.5,c=0.1", "doc7"), "doc7"),
        (SimpleNamespace(page_content="e=0.5,c=0.1", metadata={}), None),
        (SimpleNamespace(page_content="e=0.5,c=0.1", id="doc7"), "doc7"),
        (SimpleNamespace(text=None, page_content="e=0.5,c=0.1"), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_forms_of_a_passage(passage: Any, found_id: Any) -> None:
    """Every form of a passage gives its text, its id and the caller's object itself."""
    best = NLIReranker(stating()).rank(CLAIM, [passage])[0]
    assert (best.text, best.id) == ("e=0.5,c=0.1", found_id)
    assert best.passage is passage
    assert best.score == pytest.approx(0.5, abs=1e-6)


def test_numpy_texts_on_the_bundled_model(bundled: NLIReranker) -> None:
    """An array of texts is a list of passages for the real tokenizer too."""
    texts = ["The ferry sails at noon each day.", "Tea is grown on hills."]
    assert bundled.rank(CLAIM, np.array(texts)).to_pairs() == bundled.rank(CLAIM, texts).to_pairs()


@pytest.mark.parametrize("wrap", [tuple, iter, set, dict.fromkeys, np.array], ids=lambda wrap: wrap.__name__)
def test_passages_come_in_any_iterable(wrap: Any) -> None:
    """tuples, iterators, sets, arrays and the views of a dict are read like a list."""
    passages = wrap(THREE)
    passages = passages.keys() if isinstance(passages, dict) else passages
    ranking = NLIReranker(stating()).rank(CLAIM, passages)
    assert [p.text for p in ranking] == ["e=0.9,c=0.05", "e=0.5,c=0.4", "e=0.2,c=0.7"]


def test_one_mapping_in_place_of_query_and_passages() -> None:
    """{"query", "candidates"} ranks and filters as the two arguments do."""
    reranker = NLIReranker(stating())
    mapping = {"query": CLAIM, "candidates": THREE}
    assert reranker.rank(mapping) == reranker.rank(CLAIM, THREE)
    assert reranker.filter(mapping, threshold=0.3) == reranker.filter(CLAIM, THREE, 0.3)
    assert mapping == {"query": CLAIM, "candidates": THREE}


@pytest.mark.parametrize("mapping", [{"query": CLAIM}, {"candidates": THREE}, {"question": CLAIM, 3: THREE}])
def test_a_mapping_without_its_keys_is_refused(mapping: dict[Any, Any]) -> None:
    """A mapping that lacks query or candidates is an error that lists the keys it has."""
    with pytest.raises(InputTypeError, match=r"must hold 'query' and 'candidates'.*got the keys \["):
        NLIReranker(stating()).rank(mapping)


def test_a_mapping_stands_alone() -> None:
    """A mapping beside a list of passages is an error."""
    with pytest.raises(InputTypeError, match="stand alone"):
        NLIReranker(stating()).rank({"query": CLAIM, "candidates": THREE}, THREE)


@pytest.mark.parametrize(
    ("normalize", "expected"),
    [
        ("minmax", [1.0, (0.5 - 0.2) / 0.7, 0.0]),
        ("sum", [0.9 / 1.6, 0.5 / 1.6, 0.2 / 1.6]),
        ("rank", [3 / 3, 2 / 3, 1 / 3]),
        ("softmax", [float(np.exp(s) / np.exp([0.9, 0.5, 0.2]).sum()) for s in (0.9, 0.5, 0.2)]),
        ("zscore", [float((s - 1.6 / 3) / np.std([0.9, 0.5, 0.2])) for s in (0.9, 0.5, 0.2)]),
    ],
)
def test_normalize_fills_relative(normalize: str, expected: list[float]) -> None:
    """Relative is the normalization's formula of the scores, which stay what they are."""
    ranking = NLIReranker(stating(), normalize=normalize).rank(CLAIM, THREE)
    assert [p.relative for p in ranking] == pytest.approx(expected, abs=1e-5)
    assert [p.score for p in ranking] == pytest.approx([0.9, 0.5, 0.2], abs=1e-6)


def test_relative_is_none_where_nothing_asks_for_it() -> None:
    """Without normalize and fuse there is no relative."""
    assert [p.relative for p in NLIReranker(stating()).rank(CLAIM, THREE)] == [None, None, None]


@pytest.mark.parametrize("score", ["entailment", "margin", "logit"])
def test_a_lone_passage_keeps_its_score_under_minmax(score: str) -> None:
    """A lone passage and tied ones keep their scores under min-max."""
    reranker = NLIReranker(stating(), score=score, normalize="minmax")
    for passages in (["e=0.3,c=0.4"], ["e=0.3,c=0.4"] * 3):
        assert all(p.relative == p.score for p in reranker.rank(CLAIM, passages))


@pytest.mark.parametrize("normalize", ["sum", "softmax"])
@pytest.mark.parametrize("score", ["margin", "logit"])
def test_shares_of_negative_scores(normalize: str, score: str) -> None:
    """Sum and softmax of negative scores are shares in 0..1 that add up to 1."""
    ranking = NLIReranker(stating(), score=score, normalize=normalize).rank(
        CLAIM, ["e=0.1,c=0.6", "e=0.2,c=0.7", "e=0.05,c=0.3"]
    )
    shares = [p.relative for p in ranking if p.relative is not None]
    assert all(p.score < 0 for p in ranking)
    assert sum(shares) == pytest.approx(1.0)
    assert all(0 <= share <= 1 for share in shares)


RETRIEVAL = [12.0, 4.0, 8.0]  # min-max 1, 0, 0.5


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        (1.0, {0: 0.0, 1: 1.0, 2: 0.3 / 0.7}),
        (0.0, {0: 1.0, 1: 0.0, 2: 0.5}),
        (0.75, {0: 0.25 * 1.0, 1: 0.75 * 1.0, 2: 0.75 * 0.3 / 0.7 + 0.25 * 0.5}),
    ],
)
def test_linear_fusion(alpha: float, expected: dict[int, float]) -> None:
    """Linear fusion ranks by alpha · minmax(score) + (1 - alpha) · minmax(retrieval score)."""
    ranking = NLIReranker(stating()).rank(CLAIM, THREE, retrieval_scores=RETRIEVAL, fuse="linear", alpha=alpha)
    assert {p.index: p.relative for p in ranking} == pytest.approx(expected, abs=1e-6)
    assert indices(ranking) == sorted(expected, key=lambda i: -expected[i])


def test_rrf_fusion() -> None:
    """Rrf ranks by alpha / (60 + rank by score) + (1 - alpha) / (60 + rank by retrieval score)."""
    ranking = NLIReranker(stating()).rank(CLAIM, THREE, retrieval_scores=RETRIEVAL, fuse="rrf", alpha=0.7)
    expected = {0: 0.7 / 63 + 0.3 / 61, 1: 0.7 / 61 + 0.3 / 63, 2: 0.7 / 62 + 0.3 / 62}
    assert {p.index: p.relative for p in ranking} == pytest.approx(expected)
    assert indices(ranking) == [1, 2, 0]


def test_a_filter_does_not_read_the_fusion() -> None:
    """What a filter keeps depends on the score, whatever the fusion says; the order is the fusion's."""
    reranker = NLIReranker(stating(), normalize="rank")
    filtered = reranker.filter(CLAIM, THREE, 0.4, retrieval_scores=RETRIEVAL, fuse="linear", alpha=0.1)
    assert indices(filtered.kept) == [2, 1]
    assert indices(filtered.dropped) == [0]


def test_normalize_acts_on_the_fusion() -> None:
    """With both, relative is the normalization of the fused values."""
    reranker = NLIReranker(stating(), normalize="rank")
    ranking = reranker.rank(CLAIM, THREE, retrieval_scores=RETRIEVAL, fuse="rrf", alpha=0.1)
    assert [p.relative for p in ranking] == pytest.approx([3 / 3, 2 / 3, 1 / 3])


def test_retrieval_scores_alone_are_only_carried() -> None:
    """Retrieval scores without fuse are carried along and change nothing."""
    reranker = NLIReranker(stating())
    scores: Any = np.array(RETRIEVAL, dtype=np.float32)
    carried = reranker.rank(CLAIM, THREE, retrieval_scores=scores)
    assert indices(carried) == indices(reranker.rank(CLAIM, THREE))
    assert [(p.retrieval_score, p.relative) for p in carried] == [(4.0, None), (8.0, None), (12.0, None)]


@given(st.lists(passages_of, max_size=5), kinds)
def test_rank_many_is_rank_for_each(lists: list[list[str]], score: str) -> None:
    """rank_many gives for each query what rank gives for it alone."""
    reranker = NLIReranker(stating(), score=score, normalize="softmax")
    queries = [f"claim {i}" for i in range(len(lists))]
    alone = [reranker.rank(query, passages, 3) for query, passages in zip(queries, lists, strict=True)]
    assert reranker.rank_many(queries, lists, 3) == alone


def test_rank_many_on_the_bundled_model() -> None:
    """In fp32 the bundled model scores a stream of queries as it scores them one by one, to 1e-5."""
    engine = load("mini", dtype="fp32")
    queries = [CLAIM, "Tea is grown on hills."]
    lists = [neutral_sentences()[:5], neutral_sentences()[5:8]]
    many = NLIReranker(engine, cache_size=0).rank_many(queries, lists)
    for ranking, query, passages in zip(many, queries, lists, strict=True):
        alone = NLIReranker(engine, cache_size=0).rank(query, passages)
        assert indices(ranking) == indices(alone)
        assert [p.score for p in ranking] == pytest.approx([p.score for p in alone], abs=1e-5)


def test_rank_many_takes_generators() -> None:
    """Queries and lists of passages may be generators."""
    reranker = NLIReranker(stating())
    many = reranker.rank_many((q for q in ["a", "b"]), (iter(THREE) for _ in range(2)))
    assert many == [reranker.rank("a", THREE), reranker.rank("b", THREE)]


def test_rank_many_wants_a_list_for_each_query() -> None:
    """Another number of lists than of queries is an error that counts both."""
    with pytest.raises(InputError, match="2 queries, but 1 lists"):
        NLIReranker(stating()).rank_many(["a", "b"], [THREE])


def test_rank_many_of_nothing() -> None:
    """No queries make no rankings."""
    assert NLIReranker(stating()).rank_many([], []) == []


def test_every_number_is_pythons_own(bundled: NLIReranker) -> None:
    """Every number of a result is exactly a Python float, int or bool, on the bundled model."""
    reranker = NLIReranker(bundled.engine, direction="bidirectional", normalize="zscore", window=32)
    passages: list[Any] = ["", " ".join(neutral_sentences()[:4]), (1, "The ferry sails at noon.")]
    numpys: dict[str, Any] = {"threshold": np.float32(0.5), "retrieval_scores": np.arange(3.0)}
    filtered = reranker.filter(CLAIM, passages, **numpys, fuse="rrf")
    found = numbers(filtered.to_dict()) + [n for p in filtered.kept for n in numbers(dataclasses.asdict(p))]
    assert len(found) > 30
    assert {type(n) for n in found} <= {float, int, bool}


def test_to_dict_writes_a_strange_id_as_text() -> None:
    """An id that JSON has no type for becomes its str."""
    ranking = NLIReranker(stating()).rank(CLAIM, [((1, 2), "a passage")])
    assert ranking[0].id == (1, 2)
    assert ranking.to_dict()["passages"][0]["id"] == "(1, 2)"


def test_to_pairs() -> None:
    """to_pairs is text and score, best first."""
    pairs = NLIReranker(stating()).rank(CLAIM, THREE).to_pairs()
    assert [text for text, _ in pairs] == ["e=0.9,c=0.05", "e=0.5,c=0.4", "e=0.2,c=0.7"]
    assert [score for _, score in pairs] == pytest.approx([0.9, 0.5, 0.2], abs=1e-6)


def test_to_frame() -> None:
    """to_frame has a row for each passage, best first, and a column for each field but the caller's object."""
    pytest.importorskip("pandas")
    ranking = NLIReranker(stating()).rank(CLAIM, THREE)
    frame = ranking.to_frame()
    assert frame["index"].tolist() == [1, 2, 0]
    assert frame["score"].tolist() == [p.score for p in ranking]
    assert "passage" not in frame.columns
    assert list(NLIReranker(stating()).rank(CLAIM, []).to_frame().columns) == list(frame.columns)


def test_nothing_of_the_caller_is_changed() -> None:
    """queries, passages, their metadata and retrieval scores are afterwards what they were."""

    @dataclass
    class Document:
        text: str
        metadata: dict[str, Any]

    passages = [
        {"text": "e=0.5,c=0.1", "metadata": {"a": [1]}},
        Document("e=0.9,c=0.1", {"b": 2}),
        ["x", "e=0.4,c=0.1"],
    ]
    scores: Any = np.array([3.0, 2.0, 1.0])
    before = copy.deepcopy((passages, scores.tolist()))
    reranker = NLIReranker(stating(), normalize="softmax", template=["{query}"])
    reranker.rank(CLAIM, passages, 2, retrieval_scores=scores, fuse="linear")
    reranker.filter(CLAIM, passages, 0.45, keep="evidence")
    reranker.check(CLAIM, passages)
    assert (passages, scores.tolist()) == before


@pytest.mark.parametrize("call", ["rank", "filter", "verify", "check"])
def test_results_are_frozen(call: str) -> None:
    """No field of a result can be set."""
    result = getattr(NLIReranker(stating()), call)(CLAIM, THREE)
    for field in dataclasses.fields(result):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(result, field.name, None)


def test_a_ranked_passage_is_frozen() -> None:
    """No field of a ranked passage can be set, nor one be added."""
    best = NLIReranker(stating()).rank(CLAIM, THREE)[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        best.score = 1.0  # type: ignore[misc]
    with pytest.raises((AttributeError, TypeError)):
        best.note = "mine"  # type: ignore[attr-defined]


def test_results_pickle() -> None:
    """Results survive pickle and copy unchanged."""
    filtered = NLIReranker(stating(), direction="bidirectional").filter(CLAIM, THREE, 0.4)
    assert pickle.loads(pickle.dumps(filtered)) == filtered  # noqa: S301 - written one line above
    assert copy.deepcopy(filtered) == filtered


def test_a_memory_that_is_shared_keeps_its_size(bundled: NLIReranker) -> None:
    """Other settings over the same memory cannot give it another size."""
    with pytest.raises(InputError, match="whose cache_size is settled"):
        bundled.with_settings(score="margin", cache_size=0)


@pytest.mark.parametrize("settings", [{"engine": "onnx"}, {"engine": "torch"}, {"labels": ["a", "b", "c"]}])
def test_loading_options_beside_an_engine_are_refused(settings: dict[str, Any]) -> None:
    """engine= and labels= beside an Engine are an error that points to load()."""
    with pytest.raises(InputError, match=r"load\(\)"):
        NLIReranker(stating(), **settings)


def test_an_engine_of_ones_own() -> None:
    """An object with the members of Engine is taken as it is."""
    engine = stating()
    assert NLIReranker(engine).engine is engine


# Filter


def test_filter_splits_at_the_threshold() -> None:
    """A score at the threshold is kept, one below it is dropped."""
    engine = FunctionEngine(lambda pairs: [[0.0, 0.0, 0.0] for _ in pairs], ["entailment", "neutral", "contradiction"])
    score = NLIReranker(engine).rank(CLAIM, ["x"])[0].score
    assert score == pytest.approx(1 / 3)
    assert len(NLIReranker(engine).filter(CLAIM, ["x"], score).kept) == 1
    assert len(NLIReranker(engine).filter(CLAIM, ["x"], np.nextafter(score, 1)).kept) == 0


def test_threshold_zero_is_a_threshold() -> None:
    """0.0 drops a negative margin, None keeps it."""
    reranker = NLIReranker(stating(), score="margin")
    assert indices(reranker.filter(CLAIM, THREE, 0.0).kept) == [1, 2]
    assert indices(reranker.filter(CLAIM, THREE, None).kept) == [1, 2, 0]
    assert reranker.filter(CLAIM, THREE, 0.0).threshold == 0.0
    assert reranker.filter(CLAIM, THREE, None).threshold is None


@pytest.mark.parametrize(
    ("score", "threshold", "kept"),
    [
        ("entailment", 0.0, [1, 2, 0]),
        ("entailment", 1.0, []),
        ("entailment_vs_contradiction", 0.55, [1, 2]),  # 0.5 / 0.9 = 0.556
        ("margin", -1.0, [1, 2, 0]),
        ("margin", 0.5, [1]),
        ("logit", -2.0, [1, 2, 0]),  # ln(0.2 / 0.8) = -1.39
        ("logit", 2.0, [1]),  # ln(0.9 / 0.1) = 2.20
        ("logit", 100.0, []),
    ],
)
def test_thresholds_lie_in_the_range_of_the_kind(score: str, threshold: float, kept: list[int]) -> None:
    """A threshold is compared with the score in the score's own range."""
    assert indices(NLIReranker(stating(), score=score).filter(CLAIM, THREE, threshold).kept) == kept


@pytest.mark.parametrize(
    ("keep", "threshold", "kept", "dropped"),
    [
        ("entailment", 0.5, [1], [2, 0]),
        ("contradiction", 0.4, [0], [2, 1]),
        ("evidence", 0.6, [1, 0], [2]),
        ("contradiction", None, [0, 2, 1], []),
        ("evidence", None, [1, 0, 2], []),
    ],
)
def test_keep_says_what_is_compared(keep: str, threshold: float | None, kept: list[int], dropped: list[int]) -> None:
    """keep="entailment" compares the score, "contradiction" the refutation, "evidence" the larger, and orders by it."""
    passages = ["e=0.2,c=0.7", "e=0.9,c=0.05", "e=0.48,c=0.39"]
    filtered = NLIReranker(stating()).filter(CLAIM, passages, threshold, keep=keep)
    assert (indices(filtered.kept), indices(filtered.dropped), filtered.keep) == (kept, dropped, keep)


def test_contradiction_of_any_window_counts() -> None:
    """keep="contradiction" reads the highest P(c) of all windows."""
    passage = "It says e=0.9,c=0.05 there. It says e=0.1,c=0.8 there."
    reranker = NLIReranker(stating(), window=4)
    assert len(reranker.filter(CLAIM, [passage], 0.75, keep="contradiction").kept) == 1
    assert reranker.rank(CLAIM, [passage])[0].contradiction == pytest.approx(0.05, abs=1e-6)


def test_keep_contradiction_of_a_margin_compares_probabilities() -> None:
    """The threshold of keep="contradiction" is a P(c) in 0..1 whatever the score kind."""
    reranker = NLIReranker(stating(), score="margin")
    assert indices(reranker.filter(CLAIM, THREE, 0.39, keep="contradiction").kept) == [0, 2]
    with pytest.raises(InputError, match=r"-0\.5"):
        reranker.filter(CLAIM, THREE, -0.5, keep="contradiction")


@pytest.mark.parametrize("score", ["margin", "logit"])
def test_keep_evidence_of_other_ranges_is_refused(score: str) -> None:
    """keep="evidence" of a margin or a logit is an error, since P(c) cannot be compared with it."""
    with pytest.raises(InputError, match=f"score='{score}'"):
        NLIReranker(stating(), score=score).filter(CLAIM, THREE, 0.5, keep="evidence")


@pytest.mark.parametrize("keep", ["contradiction", "evidence"])
def test_keep_needs_contradiction(keep: str) -> None:
    """A two-label checkpoint refuses to keep by contradiction."""
    with pytest.raises(LabelError, match=f"keep='{keep}'"):
        NLIReranker(binary()).filter(CLAIM, THREE, 0.5, keep=keep)


def test_two_labels_filter_by_entailment() -> None:
    """A two-label checkpoint filters by the score."""
    assert indices(NLIReranker(binary()).filter(CLAIM, THREE, 0.4).kept) == [1, 2]


def test_top_k_comes_after_the_threshold() -> None:
    """top_k takes from what passed the threshold, and the rest is dropped in its order."""
    filtered = NLIReranker(stating()).filter(CLAIM, THREE, 0.4, top_k=1)
    assert (indices(filtered.kept), indices(filtered.dropped)) == ([1], [2, 0])


def test_filter_of_nothing() -> None:
    """An empty list filters to two empty sides."""
    filtered = NLIReranker(stating()).filter(CLAIM, [])
    assert (len(filtered.kept), len(filtered.dropped)) == (0, 0)
    assert filtered.kept.query == filtered.dropped.query == CLAIM


def test_filter_on_the_bundled_model(bundled: NLIReranker) -> None:
    """The bundled model keeps the passage that entails the claim and drops the one that denies it."""
    filtered = bundled.filter(CLAIM, ["The ferry does not sail at noon.", "Every day at noon the ferry sails."])
    assert (indices(filtered.kept), indices(filtered.dropped)) == ([1], [0])
    refuting = bundled.filter(CLAIM, ["The ferry does not sail at noon."], keep="contradiction")
    assert len(refuting.kept) == 1
