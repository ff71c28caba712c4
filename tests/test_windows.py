"""Sentences and windows: nothing is lost, nothing is cut that could stay whole."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_nli import FunctionEngine, NLIReranker, Span
from rerank_nli.windows import POOLS, Tokens, statements, windows
from rerank_nli.windows import sentences as sentence_spans

if TYPE_CHECKING:
    from collections.abc import Callable

WORDS = FunctionEngine(lambda pairs: [[0.0, 0.0, 0.0] for _ in pairs])
# Any character at all, lone surrogates and NUL too, with those that end or close sentences often enough to matter.
ANY_TEXT = st.text(st.characters() | st.sampled_from(" .!?…\n\r\t\"')。！؟۔।-1aBé🙂\u0301\u200d\u2028"), max_size=200)
MARKED = st.lists(
    st.sampled_from(
        ["```", "~~~", "**", "_", "| ", "# ", "[1]", "¹", "- ", "1. ", "2. ", "\n", ". ", "?", "”", "It is red"]
    ),
    max_size=30,
).map("".join)
SENTENCES = st.lists(st.integers(1, 12), min_size=1, max_size=15)  # words in each sentence


def _sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text)]


def _prose(counts: list[int]) -> tuple[str, list[tuple[int, int]]]:
    """Sentences of so many words, and the first word of each with the one after its last."""
    text = " ".join(" ".join(f"W{i}" for i in range(count)) + "." for count in counts)
    ends = np.cumsum(counts).tolist()
    return text, list(zip([0, *ends], ends, strict=False))


@pytest.mark.parametrize(
    "expected",
    [
        ["One sentence without an end"],
        ["It rained.", "Was it late?", "Yes!", "So it was."],
        ["Dr. Li met Mrs. Ortiz and Prof. Ek.", "They spoke of St. Olav."],
        ["J. R. R. Tolkien and E.B. White wrote.", "The U.S. Senate met."],
        ["It costs 3.50 or .5 a piece.", "Version 2.0.1 came out."],
        ["See Fig. 3 and No. 7, p. 12.", "It left on Jan. 5 at noon."],
        ["Cats, e.g. tabbies, i.e. striped ones, sleep.", "Dogs too, cf. Smith et al. and others."],
        ["He left at 9 a.m. and slept.", "She stayed."],
        ["She said “Stop.”", "He did (at last.)", "'Now?'", "«Oui.»", "Good."],
        ["“Stop!” he cried.", "Then he ran."],
        ["Wait… what?", "No…", "Yes."],
        ["Well... maybe not.", "Well...", "Maybe."],
        ["What?!", "Really!!!", "Yes."],
        ["Visit example.com or mail a.b@c.org today.", "It works."],
        ["It is red.[1]", "It is big.[2, 3] [4]", "It is old.¹", "It is loud.†", "It was.(5)", "It is.【6】", "Yes."],
        ["**It is red.**", "_It is big._", "`It is old.`", "It is loud."],
        ["1. It is red.", "2. It is big.", "See p. 12.", "He is 12.", "It rains."],
        ["Sen. Li met Gov. Ortiz.", "They spoke."],
        ["the kettle is red.", "it holds water, tea, etc. the soup, e.g. of mr. li, is warm.", "they drink."],
        ["the area is about 330 sq. miles along the coast."],
        ["yahoo! is a search engine."],
        ["he asked “why?” and then waited... and left at 5 p.m. with mr. electric co. in 1990."],
        ["How many moons does it have?", "42.", "They are red."],
        ["of the economy.", "The budget grew by 5 pct. this year."],
    ],
)
def test_english_sentences(expected: list[str]) -> None:
    """English text is cut at the ends of sentences, not at abbreviations, initials, decimals, quotes or addresses."""
    assert _sentences(" ".join(expected)) == expected


@pytest.mark.parametrize("gap", ["\n\n", "\r\n\r\n", "\r\r", "\n \t\n", "\n\n\n", "\u2028", "\u2029", "\f", "\v"])
def test_paragraphs(gap: str) -> None:
    """A blank line and a separator character end a sentence that has no full stop."""
    assert _sentences(f"A heading{gap}The text goes on") == ["A heading", "The text goes on"]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_one_line_break_is_a_space(newline: str) -> None:
    """A single line break inside a sentence does not end it."""
    expected = [f"The cat{newline}sleeps.", f"It{newline}purrs."]
    assert _sentences(" ".join(expected)) == expected


@pytest.mark.parametrize("marker", ["- ", "* ", "• ", "– ", "+ ", "▪ ", "1. ", "12) ", "a) ", "  - "])
def test_list_items(marker: str) -> None:
    """Each item of a list is a sentence of its own."""
    items = [f"{marker.strip()} flour", f"{marker.strip()} salt"]
    assert _sentences(f"Bread needs:\n{marker}flour\n{marker}salt") == ["Bread needs:", *items]


@pytest.mark.parametrize(
    ("gap", "expected"),
    [
        ("", ["他走了。", "她说：“好！”", "真的吗？", "是。"]),
        ("", ["猫が寝ている。", "「本当？」", "そうです。"]),
        ("", ["三点五米ｌ｡", "是｡"]),
        (" ", ["बिल्ली सो रही है।", "क्या यह सच है?", "हाँ।"]),
        (" ", ["نام القط.", "هل هذا صحيح؟", "نعم."]),
        ("", ["بلی سو رہی ہے۔", "کیا یہ سچ ہے؟", "ہاں۔"]),
        (" ", ["แมวนอนหลับอยู่บนเสื่อ ฝนตกหนักมาก"]),
        (" ", ["고양이가 잔다.", "정말?", "네."]),
        (" ", ["Кошка спит.", "Правда?", "Да."]),
        (" ", ["It works 🎉!", "Great 👍🏽.", "🙂 Yes."]),
    ],
)
def test_other_scripts(gap: str, expected: list[str]) -> None:
    """Each script's own full stop ends a sentence, with or without a space after it; without stops nothing is cut."""
    assert _sentences(gap.join(expected)) == expected


@pytest.mark.parametrize("fence", ["```", "~~~"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_markdown(fence: str, newline: str) -> None:
    """A heading, a row of a table and a block of code are each by themselves; a fence that nothing closes is a line."""
    lines = [
        "Look:",
        f"{fence}py{newline}a.b = 1  # One. Two.{newline}{fence}",
        "## Red. And",
        "| a |",
        "|---|",
    ]
    assert _sentences(newline.join(lines)) == lines
    assert _sentences(f"Look:{newline}{fence}{newline}One. Two.") == ["Look:", fence, "One.", "Two."]


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("It is red. Is it? “Why?” Yes.", ["It is red.", "Yes."]),
        ("# Red\nIt is.\n\n---\n\n* *** \n…", ["It is."]),
        ("1. It is **red**.[1] [2]\n  2. **It is big.**\n> a) _old_¹", ["It is **red**.", "It is big.", "old"]),
        ("It is [1] red [2]. It is 5", ["It is [1] red [2].", "It is 5"]),
        ("```\nIt is red.\n```\n| It is |\n|---|", ["It is"]),
        ("他走了吗？他走了。", ["他走了。"]),
        ("To list, run ```sh\nls\n```\nIt is red. It is.", ["To list, run ```sh\nls", "It is red.", "It is."]),
        ("1. ```sh\n   ls\n   ```\n2. It is red.", ["It is red."]),
        ("```ls``` lists files.\nIt is.", ["```ls``` lists files.", "It is."]),
        ("a = 1\n```\nIt is red. It is.\n```py\nb = 2\n```", ["a = 1", "It is red.", "It is."]),
        ("````\n```py\na\n```\n````\nIt is.", ["It is."]),
        (
            "- Area: 500 m²\n- x lies in [0, 1]\n- 答案是【北京】",
            ["Area: 500 m²", "x lies in [0, 1]", "答案是【北京】"],
        ),
        (
            "- **Price:** It is 5.\n\n*Hamlet* is a play.\n\n__init__ is called",
            ["**Price:** It is 5.", "*Hamlet* is a play.", "__init__ is called"],
        ),
        ("3. Mai 1945 war es.\n\n> 90% agree.", ["3. Mai 1945 war es.", "> 90% agree."]),
        (
            "He wrote “Who is afraid?” She read (Why?). 他问：“好吗？”",
            ["He wrote “Who is afraid?”", "She read (Why?).", "他问：“好吗？”"],
        ),
    ],
)
def test_statements(text: str, stated: list[str]) -> None:
    """Statements are sentences without the marks around them; questions, headings, code and bare marks are none."""
    assert [text[a:b] for a, b in statements(text)] == stated


@given(text=MARKED | ANY_TEXT)
@settings(max_examples=300)
def test_statements_are_within_sentences(text: str) -> None:
    """In any text each statement lies within a sentence of its own, and holds a letter or a digit."""
    whole = sentence_spans(text)
    homes = [next(i for i, (a, b) in enumerate(whole) if a <= start < end <= b) for start, end in statements(text)]
    assert homes == sorted(set(homes))
    assert all(any(c.isalnum() for c in text[a:b]) for a, b in statements(text))


@pytest.mark.parametrize("text", ["", " ", "\n\n", "\u3000\t\u2028"])
def test_blank_text(text: str) -> None:
    """A blank text has no sentences and no windows."""
    assert sentence_spans(text) == []
    assert windows(WORDS.tokenize([text])[0], 5) == []


@given(text=ANY_TEXT)
@settings(max_examples=300)
def test_sentences_cover_any_text(text: str) -> None:
    """In any text sentences are trimmed, in order, apart, and leave out nothing but white space."""
    spans = sentence_spans(text)
    assert all(text[a:b] == text[a:b].strip() != "" for a, b in spans)
    assert all(first.end <= second.start for first, second in pairwise(spans))
    outside = [0, *(edge for span in spans for edge in span), len(text)]
    assert all(not text[a:b].strip() for a, b in zip(outside[::2], outside[1::2], strict=True))


@pytest.mark.parametrize(
    "text",
    [
        "." * 50_000 + "x",
        '."' * 25_000,
        "\n" + " " * 50_000,
        "\n1" * 25_000,
        "." * 50_000,
        ".【" * 25_000,
        "```\n" * 15_000,
        ".[1" * 15_000,
        ". [1]" * 9_000,
        "```a\n" * 15_000,
        *(f"a{run * 30_000}b" for run in ("_", "*", " ", " |", " [1]", "¹")),
    ],
)
@pytest.mark.parametrize("read", [sentence_spans, statements])
def test_sentences_take_linear_time(read: Callable[[str], object], text: str) -> None:
    """A text of nothing but stops, quotes or blanks is read in time that grows with its length only."""
    began = time.perf_counter()
    read(text)
    assert time.perf_counter() - began < 5  # a pattern that started anew at each stop took 47 s


def test_a_short_text_is_one_window() -> None:
    """A text within the budget is one window, without the white space around it."""
    tokens = WORDS.tokenize(["  One two. Three.\n"])[0]
    assert windows(tokens, 3) == [(0, 3, Span(2, 2 + 15))]
    assert tokens.cut(windows(tokens, 3)[0]) is tokens


def test_windows_overlap_by_one_sentence() -> None:
    """Four sentences of 4 words in windows of 8: each window starts with the sentence that ended the last."""
    text, ranges = _prose([4, 4, 4, 4])
    cut = windows(WORDS.tokenize([text])[0], 8)
    assert [(w.first, w.last) for w in cut] == [(0, 8), (4, 12), (8, 16)]
    assert [(w.first, w.last) for w in cut] == [(a[0], b[1]) for a, b in pairwise(ranges)]
    assert [text[w.span.start : w.span.end] for w in cut] == ["W0 W1 W2 W3. W0 W1 W2 W3."] * 3


def test_no_overlap_where_it_does_not_fit() -> None:
    """Sentences of 4, 4 and 5 words in windows of 8: the last two do not fit together, so they do not overlap."""
    text, _ = _prose([4, 4, 5])
    assert [(w.first, w.last) for w in windows(WORDS.tokenize([text])[0], 8)] == [(0, 8), (8, 13)]


def test_a_sentence_over_the_budget_is_split() -> None:
    """A sentence of 9 words in windows of 4 is cut in pieces of 2, which overlap by one."""
    text, _ = _prose([9])
    cut = windows(WORDS.tokenize([text])[0], 4)
    assert [(w.first, w.last) for w in cut] == [(0, 4), (2, 6), (4, 8), (6, 9)]
    assert text[cut[-1].span.start : cut[-1].span.end] == "W6 W7 W8."


@given(counts=SENTENCES, budget=st.integers(1, 30))
@settings(max_examples=300)
def test_windows_of_prose(counts: list[int], budget: int) -> None:
    """Windows hold every word, none is over the budget, and a sentence within the budget is whole in one of them."""
    text, ranges = _prose(counts)
    tokens = WORDS.tokenize([text])[0]
    cut = windows(tokens, budget)
    assert (cut[0].first, cut[-1].last) == (0, sum(counts))
    assert all(1 <= w.size <= budget for w in cut)
    assert all(a.first < b.first <= a.last < b.last for a, b in pairwise(cut))
    for first, last in ranges:
        if last - first <= budget:
            assert any(w.first <= first and last <= w.last for w in cut)
    for w in cut:
        part = tokens.cut(w)
        assert part.text == text[w.span.start : w.span.end]
        assert part.text.split() == text.split()[w.first : w.last]
        assert [part.text[a:b] for a, b in part.spans] == part.text.split()


@given(counts=SENTENCES, budget=st.integers(1, 30))
def test_neighbours_overlap_where_it_fits(counts: list[int], budget: int) -> None:
    """Windows of whole sentences overlap by exactly one unless that one and the next are over the budget."""
    counts = [min(count, budget) for count in counts]
    text, ranges = _prose(counts)
    for one, two in pairwise(windows(WORDS.tokenize([text])[0], budget)):
        final = next(r for r in ranges if r[1] == one.last)
        following = next(r for r in ranges if r[0] == one.last)
        fits = following[1] - final[0] <= budget and final[0] > one.first
        assert two.first == (final[0] if fits else following[0])


def _assert_covers(tokens: Tokens, budget: int) -> None:
    text = tokens.text
    cut = windows(tokens, budget)
    assert [*cut[:1], *cut[-1:]] == [] or (cut[0].first, cut[-1].last) == (0, len(tokens))
    assert all(1 <= w.size <= budget for w in cut)
    assert all(a.first < b.first <= a.last < b.last for a, b in pairwise(cut))
    for w in cut:
        assert 0 <= w.span.start <= w.span.end <= len(text)
        assert text[w.span.start : w.span.end] == text[w.span.start : w.span.end].strip()
        assert (tokens.cut(w).ids == tokens.ids[w.first : w.last]).all()
        for start, end in tokens.spans[w.first : w.last]:
            inside = text[start:end].strip()
            assert inside in text[w.span.start : w.span.end]
            assert not inside or (w.span.start < end and start < w.span.end)


@given(text=ANY_TEXT, budget=st.integers(1, 40))
@settings(max_examples=300)
def test_windows_of_any_text_by_words(text: str, budget: int) -> None:
    """In any text every word is in a window, inside its span, and no window is over the budget."""
    tokens = WORDS.tokenize([text])[0]
    _assert_covers(tokens, budget)
    covered = {i for w in windows(tokens, budget) for i in range(*w.span)}
    assert all(char.isspace() for i, char in enumerate(text) if i not in covered)


@given(text=ANY_TEXT, budget=st.integers(1, 40))
@settings(max_examples=200)
def test_windows_of_any_text_by_the_bundled_tokenizer(bundled: NLIReranker, text: str, budget: int) -> None:
    """In any text every token of the bundled model is in a window, inside its span, and none is over the budget."""
    _assert_covers(bundled.engine.tokenize([text])[0], budget)


def test_a_word_across_a_full_stop_is_not_lost() -> None:
    """A word that holds a full stop of another script stays whole in the window of its second sentence."""
    tokens = WORDS.tokenize(["Ask the API。The rest."])[0]
    assert [tokens.cut(w).text for w in windows(tokens, 2)] == ["Ask the API。", "API。The rest."]


@pytest.mark.parametrize("budget", [12, 25, 60])
def test_cut_equals_tokenising_the_window(bundled: NLIReranker, budget: int) -> None:
    """In ordinary prose a window's ids and offsets are those of its text tokenised alone."""
    prose = (
        "The harbour at Saltholm freezes in January. Fishermen (there are 14 of them) then mend their nets indoors! "
        "“We drink coffee,” says Ms. Dahl, “and we wait.” Does the ice hold? It held a lorry in 1987, at -21.5 °C."
    )
    tokens = bundled.engine.tokenize([prose])[0]
    cut = windows(tokens, budget)
    assert len(cut) > 1
    for w in cut:
        alone = bundled.engine.tokenize([prose[w.span.start : w.span.end]])[0]
        assert tokens.cut(w).text == alone.text
        assert tokens.cut(w).ids.tolist() == alone.ids.tolist()
        assert tokens.cut(w).spans.tolist() == alone.spans.tolist()


def test_a_long_word_is_split_inside() -> None:
    """A sentence that is one word of many tokens is cut between tokens, and its spans stay exact."""
    tokens = Tokens("abcdefgh", np.arange(8), np.array([(i, i + 1) for i in range(8)]))
    assert [tokens.cut(w).text for w in windows(tokens, 4)] == ["abcd", "cdef", "efgh"]


def test_tokens_of_one_character_stay_together() -> None:
    """Two tokens that are the bytes of one character are not torn apart: ten tokens are cut at 3, not at 4."""
    spans = np.array([(i, i + 1) for i in (0, 1, 2, 3, 3, 4, 5, 6, 7, 8)])
    cut = windows(Tokens("abcéefghi", np.arange(10), spans), 8)
    assert [(w.first, w.last) for w in cut] == [(0, 7), (3, 10)]


@pytest.mark.parametrize(
    ("pool", "scores", "expected"),
    [
        ("max", [0.1, 0.9, 0.5], 0.9),
        ("mean", [0.1, 0.9, 0.5], (0.1 + 0.9 + 0.5) / 3),
        ("top3", [0.1, 0.9, 0.5, 0.7], (0.9 + 0.7 + 0.5) / 3),
        ("top3", [0.2, 0.4], (0.2 + 0.4) / 2),
        ("max", [-3.0], -3.0),
    ],
)
def test_pools(pool: str, scores: list[float], expected: float) -> None:
    """Window scores are pooled by the named formula; the top three are all where there are fewer."""
    pooled = POOLS[pool](np.array(scores))
    assert pooled == pytest.approx(expected)
    assert type(pooled) is float


def test_item_numbers_stay_with_their_sentence() -> None:
    """The number of a list item is no sentence of its own, whatever the item begins with."""
    text = "1. A cat sleeps.\n2. The sky is blue.\n 10. It was 1989. It rained."
    assert _sentences(text) == [
        "1. A cat sleeps.",
        "2. The sky is blue.",
        "10. It was 1989.",
        "It rained.",
    ]
