"""Passages longer than the model: one sentence among two thousand words is found, and nothing is cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from texts import CLAIMS, keyword, neutral_sentences, with_sentence

from rerank_nli import FunctionEngine, NLIReranker
from rerank_nli.windows import windows

if TYPE_CHECKING:
    from collections.abc import Sequence

TOPICS = ["bridge", "comet", "vitamin"]
NEUTRAL = " ".join(neutral_sentences())


def test_the_neutral_text_is_long_and_varied() -> None:
    """The text that the sentences are hidden in has over 2,000 words and no sentence twice."""
    assert len(NEUTRAL.split()) > 2000
    assert len(set(neutral_sentences())) == len(neutral_sentences()) == 120


@pytest.mark.parametrize("claim", [claim for claim, _, _ in CLAIMS], ids=TOPICS)
def test_two_thousand_neutral_words_settle_nothing(bundled: NLIReranker, claim: str) -> None:
    """The bundled model finds neither support nor refutation in 2,000 words on other things."""
    verdict = bundled.verify(claim, [NEUTRAL])
    assert verdict.label == "insufficient"


@pytest.mark.parametrize(("claim", "supporting", "_refuting"), CLAIMS, ids=TOPICS)
def test_one_supporting_sentence_is_found(bundled: NLIReranker, claim: str, supporting: str, _refuting: str) -> None:
    """One supporting sentence in 2,000 neutral words makes "supported", and the span holds it."""
    verdict = bundled.verify(claim, [with_sentence(supporting, 0.5)])
    assert verdict.label == "supported"
    assert supporting in verdict.supporting[0].evidence


@pytest.mark.parametrize(("claim", "_supporting", "refuting"), CLAIMS, ids=TOPICS)
def test_one_refuting_sentence_is_found(bundled: NLIReranker, claim: str, _supporting: str, refuting: str) -> None:
    """One refuting sentence in 2,000 neutral words makes "refuted", and the refutation's span holds it."""
    verdict = bundled.verify(claim, [with_sentence(refuting, 0.5)])
    assert verdict.label == "refuted"
    assert refuting in (verdict.refuting[0].refuting_evidence or "")


@pytest.mark.parametrize("at", [0.0, 1.0])
def test_the_ends_of_a_passage_are_read(bundled: NLIReranker, at: float) -> None:
    """A supporting sentence at either end of 2,000 words is found."""
    claim, supporting, _ = CLAIMS[0]
    assert supporting in bundled.rank(claim, [with_sentence(supporting, at)])[0].evidence


@pytest.mark.parametrize(
    ("direction", "keyword_side"), [("passage_entails_query", 0), ("query_entails_passage", 1), ("bidirectional", 0)]
)
@pytest.mark.parametrize("at", [0.0, 0.3, 1.0])
def test_the_passage_is_windowed_on_whichever_side_it_stands(direction: str, keyword_side: int, at: float) -> None:
    """In every direction the window with the telling sentence wins, whole and at its place in the text."""

    def one_side(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        return keyword([(pair[keyword_side], "") for pair in pairs])

    reranker = NLIReranker(FunctionEngine(one_side, max_length=100), direction=direction, combine="max")
    passage = with_sentence("They SUPPORT the plan.", at)
    best = reranker.rank("a short claim", [passage])[0]
    assert best.score == pytest.approx(0.9, abs=1e-6)
    assert "They SUPPORT the plan." in best.evidence
    assert best.windows > len(passage.split()) / 100


def test_support_and_refutation_have_spans_of_their_own() -> None:
    """A passage that says both is found at both places."""
    sentences = neutral_sentences()
    sentences[20], sentences[90] = "They SUPPORT it.", "They REFUTE it."
    best = NLIReranker(FunctionEngine(keyword), window=60).rank("a claim", [" ".join(sentences)])[0]
    assert "SUPPORT" in best.evidence
    assert "REFUTE" not in best.evidence
    assert best.refutation == pytest.approx(0.9, abs=1e-6)
    assert "They REFUTE it." in (best.refuting_evidence or "")


@pytest.mark.parametrize("direction", ["passage_entails_query", "query_entails_passage"])
def test_every_word_of_a_hundred_long_passages_is_read(direction: str) -> None:
    """Of 100 passages of 2,000 words the model is shown every word, beside the whole query, within its length."""
    query = "a claim of some six words"
    passages = []
    for i in range(100):
        words = [f"p{i}w{j}" + ("." if j % (7 + i % 30) == 6 else "") for j in range(2000)]
        words[(i * 193) % 2000] = f"SUPPORT{i}"
        passages.append(" ".join(words))
    shown: set[str] = set()
    longest = 0

    def note(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        nonlocal longest
        side = 0 if direction == "passage_entails_query" else 1
        assert {pair[1 - side] for pair in pairs} == {query}
        for pair in pairs:
            words = pair[side].split()
            shown.update(words)
            longest = max(longest, len(words) + len(query.split()))
        return keyword([(pair[side], "") for pair in pairs])

    ranking = NLIReranker(FunctionEngine(note), direction=direction, batch_tokens=100_000).rank(query, passages)
    assert shown == {word for passage in passages for word in passage.split()}
    assert longest <= 512
    assert all(f"SUPPORT{p.index}" in p.evidence for p in ranking)
    assert not any(p.truncated for p in ranking)
    assert [p.score for p in ranking] == pytest.approx([0.9] * 100, abs=1e-6)


SCRIPTS = {
    "CRLF": "The mill stood idle.\r\nNobody came.\r\n\r\nThey SUPPORT the plan.\r\nIt rained again.\r\n" * 3,
    "Chinese": "今天下雨。我们 SUPPORT 这个计划。他走了。她也走了！" * 3,
    "Japanese": "朝は静かだった。「SUPPORT します。」と彼女は言った。雨が降った。" * 3,
    "Arabic": "وصل القطار متأخرا. نحن SUPPORT الخطة؟ هل نزل المطر؟ ثم عاد الجميع إلى البيت. " * 3,
    "Hebrew": "הרכבת איחרה. אנחנו SUPPORT את התוכנית. ירד גשם כל היום. " * 3,
    "emoji": "We 👩‍👩‍👧 came 🎉🎉. They SUPPORT it 👍🏽! Then 🇫🇷 rain ☔️. " * 3,
    "accents": "Cafe\u0301 ferme\u0301. Ils SUPPORT le pro\u0301jet. Naı\u0308ve é \u0130stanbul ﬁn. " * 3,
    "tabs and no-break spaces": "One\u00a0two\tthree.\u2003They\u00a0SUPPORT\u2009it.\u3000Four\u200bfive. " * 3,
}


@pytest.mark.parametrize("text", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_spans_are_characters_of_the_callers_text(text: str) -> None:
    """In every script the span cuts out of the passage exactly the text that the model was shown."""
    shown: set[str] = set()

    def note(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        shown.update(premise.strip() for premise, _ in pairs)
        return keyword(pairs)

    best = NLIReranker(FunctionEngine(note), window=12).rank("a claim", [text])[0]
    assert best.windows > 1
    assert "SUPPORT" in best.evidence
    assert best.evidence in shown
    assert best.text[best.span.start : best.span.end] == best.evidence == best.evidence.strip()


@pytest.mark.parametrize("text", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_real_windows_map_back_to_characters(bundled: NLIReranker, text: str) -> None:
    """With the real tokenizer a window's characters, tokenized alone, are the window's tokens."""
    tokens = bundled.engine.tokenize([text])[0]
    cut = windows(tokens, 24)
    assert len(cut) > 1
    for window in cut:
        alone = bundled.engine.tokenize([text[window.span.start : window.span.end]])[0]
        np.testing.assert_array_equal(alone.ids, tokens.ids[window.first : window.last])
    assert {i for window in cut for i in range(window.first, window.last)} == set(range(len(tokens)))


@given(st.text(alphabet="ab .!?\n\r。！é👍‍\u200bא\u3000", max_size=200), st.integers(1, 12))
@settings(max_examples=60)
def test_no_text_loses_a_word(text: str, window: int) -> None:
    """Of any text every word is shown, and the winning span cuts out what was shown."""
    shown: list[str] = []

    def note(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        shown.extend(premise for premise, _ in pairs)
        return [[0.0, 0.0, 0.0] for _ in pairs]

    engine = FunctionEngine(note)
    best = NLIReranker(engine, window=window).rank("claim", [text])[0]
    words = {text[a:b] for a, b in engine.tokenize([text])[0].spans.tolist()}
    assert words <= {premise[a:b] for premise in shown for a, b in engine.tokenize([premise])[0].spans.tolist()}
    assert best.windows == 0 or best.evidence in {premise.strip() for premise in shown}
