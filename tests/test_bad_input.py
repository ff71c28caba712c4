"""What is empty, huge, strange or wrong: a defined result, or one error that shows the value and says what to do."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from texts import keyword, neutral_sentences, stating

from rerank_nli import FunctionEngine, InputError, InputTypeError, ModelNotFoundError, NLIReranker, QueryTooLongError
from rerank_nli.windows import windows

CLAIM = "The ferry sails at noon."
SETTLED = "They SUPPORT it."


def judge() -> NLIReranker:
    """A reranker that looks for one word."""
    return NLIReranker(FunctionEngine(keyword))


# Defined results


def test_no_passages_make_an_empty_ranking(bundled: NLIReranker) -> None:
    """An empty list ranks to an empty ranking, which still says what it was for."""
    ranking = bundled.rank(CLAIM, [])
    assert (len(ranking), ranking.query, ranking.to_pairs()) == (0, CLAIM, [])


@pytest.mark.parametrize("normalize", [None, "softmax", "minmax", "zscore", "rank", "sum"])
@pytest.mark.parametrize("fuse", [None, "linear", "rrf"])
def test_no_passages_under_every_setting(normalize: str | None, fuse: str | None) -> None:
    """No normalization and no fusion stumbles over an empty list."""
    ranking = NLIReranker(stating(), normalize=normalize).rank(CLAIM, [], retrieval_scores=[], fuse=fuse)
    assert ranking.passages == ()


@pytest.mark.parametrize("blank", ["", " ", "\n\t\r\n", "\u00a0\u3000", "\u2028"])
def test_blank_passages_keep_their_place(bundled: NLIReranker, blank: str) -> None:
    """A blank passage scores 0 as neutral, is kept, and ranks after one that says something."""
    ranking = bundled.rank(CLAIM, [blank, CLAIM, blank])
    assert [p.index for p in ranking] == [1, 0, 2]
    last = ranking[2]
    assert (last.score, last.entailment, last.neutral, last.contradiction, last.windows) == (0.0, 0.0, 1.0, 0.0, 0)
    assert (last.text, last.evidence, last.refuting_evidence) == (blank, "", "")


def test_nothing_but_blank_passages() -> None:
    """A list of blank passages never reaches the model."""

    def unreachable(pairs: list[tuple[str, str]]) -> Any:
        message = f"the model was asked about {pairs}"
        raise AssertionError(message)

    ranking = NLIReranker(FunctionEngine(unreachable), direction="bidirectional").rank(CLAIM, ["", " "])
    assert [(p.index, p.score) for p in ranking] == [(0, 0.0), (1, 0.0)]
    assert ranking[0].reverse == (0.0, 1.0, 0.0)


STRANGE = {
    "NUL": "They\x00 SUPPORT it.\x00",
    "control characters": "They \x07\x1b[31m SUPPORT\x7f it.",
    "lone surrogate": "They \ud800 SUPPORT it \udfff.",
    "right to left": "\u202bנחנו SUPPORT את זה.\u202c",
    "emoji": "👍🏽👩‍👩‍👧 SUPPORT 🇫🇷",
    "zero width": "They\u200b SUPPORT\u200d it\ufeff.",
    "combining marks": "e" + "\u0301" * 300 + " SUPPORT",
    "noncharacter": "They \uffff SUPPORT \U0010ffff it.",
    "special tokens": "[CLS] They [SEP] SUPPORT [PAD] <s> </s> it. [MASK]",
    "braces": "{query} SUPPORT {0}",
    "one long word": "SUPPORT" * 5000,
}


@pytest.mark.parametrize("text", STRANGE.values(), ids=STRANGE.keys())
def test_strange_texts_are_passages(text: str) -> None:
    """A passage of any characters is scored, and comes back as it was."""
    best = judge().rank(CLAIM, [text])[0]
    assert best.text is text
    assert best.score == pytest.approx(0.9, abs=1e-6)
    assert "SUPPORT" in best.evidence
    assert json.loads(json.dumps(best.to_dict()))["text"] == text


@pytest.mark.parametrize("text", STRANGE.values(), ids=STRANGE.keys())
@pytest.mark.parametrize("direction", ["passage_entails_query", "query_entails_passage"])
def test_strange_texts_on_the_bundled_model(bundled: NLIReranker, text: str, direction: str) -> None:
    """The real tokenizer takes any characters, as passage and as query: probabilities that add up to 1."""
    reranker = NLIReranker(bundled.engine, direction=direction)
    for query, passage in ((CLAIM, text), (text[:60], CLAIM)):
        best = reranker.rank(query, [passage])[0]
        assert best.entailment + (best.neutral or 0) + (best.contradiction or 0) == pytest.approx(1.0)
        assert 0 <= best.score <= 1


@given(st.text(st.characters(), max_size=60), st.text(st.characters(), max_size=60))
def test_any_text_is_a_passage_and_any_that_is_not_blank_a_query(query: str, passage: str) -> None:
    """Every pair of texts, surrogates and all, is ranked unless the query is blank, which is an error."""
    if query.strip():
        assert judge().rank(query, [passage])[0].text == passage
    else:
        with pytest.raises(InputError, match="query 0 is blank"):
            judge().rank(query, [passage])


def test_a_megabyte_of_text() -> None:
    """A passage of 1 MB is read to its last sentence."""
    passage = "Rain fell on the roof of the old mill all day. " * 21_500 + SETTLED
    best = judge().rank(CLAIM, [passage])[0]
    assert len(passage) > 1_000_000
    assert best.score == pytest.approx(0.9, abs=1e-6)
    assert best.evidence.endswith(SETTLED)
    assert best.span.end == len(passage)


def test_a_megabyte_through_the_real_tokenizer(bundled: NLIReranker) -> None:
    """The real tokenizer reads 1 MB whole, and the windows hold every token of it."""
    passage = "Rain fell on the roof of the old mill all day. " * 21_500
    tokens = bundled.engine.tokenize([passage])[0]
    cut = windows(tokens, 200)
    assert len(tokens) >= 11 * 21_500
    assert (cut[0].first, cut[-1].last) == (0, len(tokens))
    assert all(a.last >= b.first for a, b in itertools.pairwise(cut))
    assert max(window.size for window in cut) <= 200


def test_a_megabyte_without_a_space() -> None:
    """A passage of 1 MB in one word is one window."""
    best = judge().rank(CLAIM, ["SUPPORT" * 150_000])[0]
    assert (best.windows, best.span) == (1, (0, 1_050_000))


# Passages that are none


@pytest.mark.parametrize(
    "bad",
    [
        None,
        b"text",
        3,
        2.5,
        float("nan"),
        True,
        np.float64(1.0),
        object,
        {"content": "text"},
        {"text": None},
        {"text": b"text"},
        ("id", None),
        ("id", "text", "more"),
        ["text"],
        [],
        ("id", ["text"]),
    ],
    ids=repr,
)
@pytest.mark.parametrize("call", ["rank", "filter", "verify", "check"])
def test_what_is_no_passage_is_named(call: str, bad: Any) -> None:
    """Something that is no passage is a TypeError that names its index and says what a passage is."""
    with pytest.raises(InputTypeError, match=r"passage 1 must be a text, .*got "):
        getattr(judge(), call)(CLAIM, ["fine", bad, "fine"])


def test_the_error_shows_the_passage_cut_short() -> None:
    """An error shows the value that was passed, and of a huge one the beginning."""
    with pytest.raises(InputTypeError, match=r"got \{'content': 'xxx") as caught:
        judge().rank(CLAIM, [{"content": "x" * 100_000}])
    assert len(str(caught.value)) < 300


def test_rank_many_names_list_and_passage() -> None:
    """rank_many says in which list the bad passage stands, and which list is none."""
    with pytest.raises(InputTypeError, match="passage 2 of list 1 must be a text"):
        judge().rank_many(["a", "b"], [["x"], ["x", "y", None]])
    with pytest.raises(InputTypeError, match="passages of list 1 must be a list of them, got 'text'"):
        judge().rank_many(["a", "b"], [["x"], "text"])


@pytest.mark.parametrize("passages", ["a text", b"bytes", None, 5, {"id": "text"}, {"text": "a"}], ids=repr)
@pytest.mark.parametrize("call", ["rank", "filter", "verify", "check"])
def test_what_is_no_list_of_passages_is_refused(call: str, passages: Any) -> None:
    """A text or a mapping in place of the list of passages is an error, not a list of its characters or keys."""
    with pytest.raises(InputTypeError, match=r"passages must be a list of them, got "):
        getattr(judge(), call)(CLAIM, passages)


@pytest.mark.parametrize(("queries", "lists"), [("ab", [["x"], ["y"]]), (["a"], "x"), (None, []), ([], None)])
def test_rank_many_of_no_lists_is_refused(queries: Any, lists: Any) -> None:
    """A text in place of the list of queries or of lists is an error that shows it."""
    with pytest.raises(InputTypeError, match=r"(queries|passage_lists) must be a list of them, got "):
        judge().rank_many(queries, lists)


# Queries


@pytest.mark.parametrize("query", [None, b"a claim", 3, float("nan"), ["a claim"], ("a", "b")], ids=repr)
@pytest.mark.parametrize("call", ["rank", "filter", "verify"])
def test_a_query_that_is_no_text_is_refused(call: str, query: Any) -> None:
    """A query or claim that is no text is a TypeError that shows it, for an empty list too."""
    for passages in (["x"], []):
        with pytest.raises(InputTypeError, match=f"{'claim' if call == 'verify' else 'query'} 0 must be a text, got "):
            getattr(judge(), call)(query, passages)


@pytest.mark.parametrize("query", ["", " ", "\n\t"])
@pytest.mark.parametrize("call", ["rank", "filter", "verify"])
def test_a_blank_query_is_refused(call: str, query: str) -> None:
    """A blank query or claim is an error: there is nothing to entail."""
    with pytest.raises(InputError, match=f"{'claim' if call == 'verify' else 'query'} 0 is blank"):
        getattr(judge(), call)(query, ["x"])


@pytest.mark.parametrize("query", ["\x00", "\u200b\u200d", "\x07 \x1b"], ids=repr)
def test_a_query_that_the_tokenizer_reads_nothing_in(bundled: NLIReranker, query: str) -> None:
    """A query of which the real tokenizer leaves nothing is an error; a passage of that kind counts as blank."""
    with pytest.raises(InputError, match="query 0 is blank to the model"):
        bundled.rank(query, [CLAIM])
    blank = bundled.rank(CLAIM, [query])[0]
    assert (blank.score, blank.windows) == (0.0, 0)


def test_rank_many_names_the_query() -> None:
    """rank_many names the query that is blank, no text, or too long."""
    for query, error, message in (
        (" ", InputError, "query 1 is blank"),
        (None, InputTypeError, "query 1 must be a text, got None"),
        ("word " * 500, QueryTooLongError, "query 1 takes 500 of the model's 512 tokens and leaves 12"),
    ):
        with pytest.raises(error, match=message):
            judge().rank_many(["fine", query], [["x"], ["x"]])  # type: ignore[list-item]


@pytest.mark.parametrize("answer", [None, b"An answer.", 3, ["An answer."]], ids=repr)
def test_an_answer_that_is_no_text_is_refused(answer: Any) -> None:
    """An answer to check that is no text is a TypeError that shows it."""
    with pytest.raises(InputTypeError, match="the answer must be a text, got "):
        judge().check(answer, ["x"])


def test_a_query_leaves_at_least_32_tokens() -> None:
    """A query of 480 of 512 words is ranked; one word more is an error that counts and says what to do."""
    assert len(judge().rank("word " * 480, [SETTLED])) == 1
    with pytest.raises(
        QueryTooLongError, match=r"takes 481 of the model's 512 tokens and leaves 31 .*shorten or split"
    ):
        judge().rank("word " * 481, [SETTLED])


@pytest.mark.parametrize("direction", ["passage_entails_query", "query_entails_passage", "bidirectional"])
def test_a_long_query_on_the_bundled_model(bundled: NLIReranker, direction: str) -> None:
    """A query too long for the real model is refused in every direction, never cut."""
    query = " ".join(neutral_sentences()[:40])
    with pytest.raises(QueryTooLongError, match=f"of the model's {bundled.engine.max_length} tokens"):
        NLIReranker(bundled.engine, direction=direction).rank(query, ["x"])


# Numbers


@pytest.mark.parametrize("top_k", [0, -1, True, 1.5, "3", float("nan")], ids=repr)
def test_top_k_is_a_count(top_k: Any) -> None:
    """A top_k that is no count from 1 is an error that shows it, in every call that takes one."""
    reranker = judge()
    calls = (
        lambda: reranker.rank(CLAIM, ["x"], top_k),
        lambda: reranker.filter(CLAIM, ["x"], top_k=top_k),
        lambda: reranker.rank_many([CLAIM], [["x"]], top_k),
        lambda: reranker.rank_answers("Who?", ["Ann"], ["x"], top_k),
    )
    for call in calls:
        with pytest.raises(InputError, match=f"top_k={top_k!r}: expected a whole number from 1"):
            call()


def test_top_k_over_the_count_is_all() -> None:
    """A top_k above the number of passages returns all of them."""
    assert len(judge().rank(CLAIM, ["x", "y"], top_k=5)) == 2


@pytest.mark.parametrize(
    ("score", "threshold", "allowed"),
    [
        ("entailment", -0.01, "0..1"),
        ("entailment", 1.01, "0..1"),
        ("entailment", float("nan"), "0..1"),
        ("entailment", float("inf"), "0..1"),
        ("entailment", True, "0..1"),
        ("entailment", "0.5", "0..1"),
        ("entailment_vs_contradiction", 1.5, "0..1"),
        ("margin", -1.01, "-1..1"),
        ("margin", 1.01, "-1..1"),
        ("logit", float("inf"), "any finite number"),
        ("logit", float("nan"), "any finite number"),
    ],
)
def test_a_threshold_out_of_range_is_refused(score: str, threshold: Any, allowed: str) -> None:
    """A threshold that the score can never be compared with is an error that shows it and the range."""
    with pytest.raises(InputError, match=f"threshold {threshold!r} .*{allowed}"):
        NLIReranker(stating(), score=score).filter(CLAIM, ["x"], threshold)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1.0], "1 retrieval_scores, but 2 passages"),
        ([1.0, 2.0, 3.0], "3 retrieval_scores, but 2 passages"),
        ([1.0, float("nan")], "retrieval score 1 must be a finite number, got nan"),
        ([float("inf"), 1.0], "retrieval score 0 must be a finite number, got inf"),
        ([1.0, None], "retrieval score 1 must be a finite number, got None"),
        ([1.0, "2"], "retrieval score 1 must be a finite number, got '2'"),
        ([[1.0], [2.0]], "retrieval score 0 must be a finite number"),
        ([1.0, 10**400], "retrieval score 1 must be a finite number, got 1000"),
    ],
)
@pytest.mark.parametrize("fuse", [None, "linear"])
def test_bad_retrieval_scores(scores: Any, message: str, fuse: str | None) -> None:
    """Retrieval scores of another number than the passages, or not finite, are an error that names the index."""
    with pytest.raises(InputError, match=message):
        judge().rank(CLAIM, ["x", "y"], retrieval_scores=scores, fuse=fuse)


@pytest.mark.parametrize("scores", [0.5, "12", {"a": 1}])
def test_retrieval_scores_are_a_list(scores: Any) -> None:
    """One number, a text or a mapping in place of the list of retrieval scores is an error."""
    with pytest.raises(InputTypeError, match="retrieval_scores must be a list of them, got "):
        judge().rank(CLAIM, ["x", "y"], retrieval_scores=scores)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan"), True, "0.5", None], ids=repr)
def test_alpha_is_a_share(alpha: Any) -> None:
    """An alpha outside 0..1 is an error that names alpha and shows it."""
    with pytest.raises(InputError, match=f"alpha={alpha!r}: expected a number in 0..1"):
        judge().rank(CLAIM, ["x"], retrieval_scores=[1.0], fuse="linear", alpha=alpha)


def test_fuse_needs_retrieval_scores() -> None:
    """Fuse without retrieval scores is an error that says so."""
    with pytest.raises(InputError, match="fuse='rrf' needs retrieval_scores"):
        judge().rank(CLAIM, ["x"], fuse="rrf")


@pytest.mark.parametrize(
    ("setting", "value"),
    [(setting, value) for setting in ("window", "batch_tokens") for value in (0, -1, True, 1.5, "64")]
    + [("window", 513), ("batch_tokens", None)],
)
def test_counts_of_tokens(setting: str, value: Any) -> None:
    """A window or batch that is no whole number of tokens, or a window over the model's 512, is an error."""
    with pytest.raises(InputError, match=f"{setting}={value!r}: expected a whole number from 1"):
        NLIReranker(stating(), **{setting: value})


@pytest.mark.parametrize("size", [-1, 1.5, True, "10"], ids=repr)
def test_cache_size_is_a_count(size: Any) -> None:
    """A cache_size that is no count is an error that shows it."""
    with pytest.raises(InputError, match=f"cache_size={size!r}: expected a whole number from 0"):
        NLIReranker(stating(), cache_size=size)


# Names


@pytest.mark.parametrize(
    ("setting", "valid"),
    [
        ("direction", "'passage_entails_query', 'query_entails_passage', 'bidirectional'"),
        ("combine", "'min', 'mean', 'harmonic', 'max'"),
        ("score", "'entailment', 'entailment_vs_contradiction', 'margin', 'logit'"),
        ("pool", "'max', 'mean', 'top3'"),
        ("normalize", "'softmax', 'minmax', 'zscore', 'rank', 'sum'"),
    ],
)
@pytest.mark.parametrize("value", ["Nothing", "", 3, ["min"]], ids=repr)
def test_an_unknown_setting_lists_the_known(setting: str, valid: str, value: Any) -> None:
    """An unknown name of a setting is an error that shows it and lists the valid ones."""
    with pytest.raises(InputError) as caught:
        NLIReranker(stating(), **{setting: value})
    assert str(caught.value) == f"unknown {setting} {value!r}: expected one of {valid}"


@pytest.mark.parametrize(
    ("argument", "valid"),
    [("fuse", "'linear', 'rrf', a Fusion or the file of one"), ("keep", "'entailment', 'contradiction', 'evidence'")],
)
def test_an_unknown_argument_lists_the_known(argument: str, valid: str) -> None:
    """An unknown fuse or keep is an error that shows it and lists the valid ones."""
    with pytest.raises(InputError) as caught:
        judge().filter(CLAIM, ["x"], retrieval_scores=[1.0], **{argument: "other"})  # type: ignore[arg-type]
    assert str(caught.value) == f"unknown {argument} 'other': expected one of {valid}"


def test_an_unknown_output_lists_the_known() -> None:
    """An unknown output is an error that lists the valid ones."""
    with pytest.raises(InputError, match="unknown output 'list': expected one of 'array', 'logits', 'dicts', 'labels'"):
        judge().predict([("a", "b")], output="list")


@pytest.mark.parametrize("value", [5, b"{query}", [], ["{query}", None], {"{query}": 1}], ids=repr)
def test_a_template_that_is_no_text_is_refused(value: Any) -> None:
    """A template that is neither text nor a list of texts is a TypeError that shows it."""
    with pytest.raises(InputTypeError, match="template must be 'auto', None, a text or a list of texts, got "):
        NLIReranker(stating(), template=value)


def test_an_unknown_folder(tmp_path: Any) -> None:
    """A model folder that is not there is an error that shows the path."""
    with pytest.raises(ModelNotFoundError, match="nowhere"):
        NLIReranker(tmp_path / "nowhere")


@pytest.mark.parametrize("model", [None, 5, b"mini"], ids=repr)
def test_a_model_that_is_no_name(model: Any) -> None:
    """A model that is neither name, path nor engine is a TypeError that shows it."""
    with pytest.raises(InputTypeError, match="got "):
        NLIReranker(model)


def test_an_unknown_engine_lists_the_known() -> None:
    """An unknown engine is an error that shows it and lists the valid ones."""
    with pytest.raises(InputError, match="unknown engine 'tpu': expected one of 'auto', 'onnx'"):
        NLIReranker(engine="tpu")


def test_a_function_that_returns_another_shape() -> None:
    """An engine function that does not return a row for each pair is an error that shows both shapes."""
    with pytest.raises(InputTypeError, match=r"shape \(1,\).*expected \(1, 3\)"):
        NLIReranker(FunctionEngine(lambda pairs: [0.5 for _ in pairs])).rank(CLAIM, ["x"])


def test_an_error_of_the_function_comes_through() -> None:
    """What an engine function raises reaches the caller as it is, and the next call works."""
    broken = [True]

    def fn(pairs: list[tuple[str, str]]) -> Any:
        if broken:
            message = "the caller's own error"
            raise KeyError(message)
        return keyword(pairs)

    reranker = NLIReranker(FunctionEngine(fn))
    with pytest.raises(KeyError, match="the caller's own error"):
        reranker.rank(CLAIM, [SETTLED])
    broken.clear()
    assert reranker.rank(CLAIM, [SETTLED])[0].score == pytest.approx(0.9, abs=1e-6)
