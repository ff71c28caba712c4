"""Long passages: split to a token budget by sentence, with character offsets, and pool the window scores back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rerank_nli.types import Span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from rerank_nli.scores import FloatArray

    IntArray = NDArray[np.integer[Any]]

__all__ = ["POOLS", "QUESTION_MARKS", "Tokens", "Window", "asks", "sentences", "statements", "windows"]

QUESTION_MARKS = "?？؟"

# Patterns are compiled, and remembered by `re`, at their first use: the import stays light.
_OPENING, _CLOSING = "\"'“‘«([「『（【", "\"'”’»)]」』）】"
_NOTE = r"\[\^?\d+(?:\s?[,;–-]\s?\d+)*\]"  # of a source, as [1] or [2, 3]
_CLOSERS = rf"(?:[{re.escape(_CLOSING)}*_`†‡¹²³⁰-⁹]|{_NOTE}|【[^】\n]{{0,40}}】|\(\d{{1,3}}\))*"
_LINE = r"(?m:^)[^\S\r\n]*(?:\#{1,6}[^\S\r\n][^\r\n]*|(?:`{3,}|~{3,})[^`\r\n]*(?=[\r\n]|\Z))"  # a heading, a fence
_BOUNDARY = (
    rf"(?P<stop>(?<![.!?…])[.!?…]+){_CLOSERS}(?:[^\S\r\n]+{_NOTE})*(?=\s|\Z)"
    rf"|[。！？｡।॥؟۔።။។]+{_CLOSERS}"  # scripts whose full stop needs no space after it
    rf"|{_LINE}"
    # a blank line, or an item of a list, a row of a table, a heading or code that begins
    r"|(?:\r\n|\n|\r(?!\n))(?=[^\S\r\n]*(?:[\r\n]|[-+*•▪◦‣–]\s|(?:\d+[.)]|[A-Za-z]\))\s|\||\#{1,6}\s|```|~~~))"
    r"|[\v\f\u2028\u2029]"
)
_MARK = r"[-+*•▪◦‣–|]|>(?!\s*\d)|(?P<number>\d{1,3})[.)]|[A-Za-z]\)"  # of an item, a row, a quotation
_FENCE = (
    rf"(?m:^)[^\S\r\n]*(?P<first>(?:(?:{_MARK})[^\S\r\n]+)*(?P<fence>`{{3,}}|~{{3,}}))(?P<rest>[^`\r\n]*)(?=[\r\n]|\Z)"
)
_ABBREVIATION = (
    r"(?:^|[\s(\[\"'“‘])"
    r"(?:(?:[A-Za-z]\.)*[A-Z]|[a-z]\.[a-z]|Mrs?|Ms|Drs?|Prof|St|Mt|vs|cf|ca|approx|al|Gen|Col|Capt|Lt|Sgt|Rev|Hon"
    r"|Sen|Gov|Pres|Rep)\.$"
)
# A full stop after a word that is long for an abbreviation, or before a word that begins sentences: in small letters.
_SMALL = (
    r"(?<=[^\W\d_]{5})\.(?=\s|\Z)"
    r"|(?<=\w)\.(?=\s+(?:the|an?|it|he|she|they|we|i|you|this|that|these|those|there)\b|\s*\Z)"
)
_SMALL_ABBREVIATION = r"\b(?:etc|inc|ltd|corp|jr|sr|incl|fig|dept|assoc)\.$"
_ITEM_NUMBER = r"(?:(?:\A|[\r\n])[^\S\r\n]*|\b[a-z]\w{2,}\.\s)\d{1,3}\.$"  # "2." at the start of a line or sentence
_BEFORE_NUMBER = (
    r"(?:^|[\s(\[])"
    r"(?:[Nn]os?|[Ff]igs?|[Ee]qs?|[Vv]ol|pp?|[Ss]ec|[Cc]h|Art|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\.$"
)
_TRAIL = rf"(?:\s*{_NOTE}|[†‡¹²³⁰-⁹]|【[^】\n]{{0,40}}】|\(\d{{1,3}}\))\Z"  # of what ends before it
_NEAR = 60  # characters: no source is longer
_ENDS = tuple(f".!?…。！؟？।*_{_CLOSING}")
_EMPHASIS = r"(\*{1,3}|_{1,3})(?![\s*_])([^*_]+)\1"  # of all


def sentences(text: str) -> list[Span]:
    r"""Where each sentence stands, without the white space around it; a block of code is one.

    >>> [text[a:b] for text in ["Dr. Li came at 9.30 a.m. today. 她走了。他也走了。"] for a, b in sentences(text)]
    ['Dr. Li came at 9.30 a.m. today.', '她走了。', '他也走了。']
    """
    spans: list[Span] = []
    start, small = 0, _in_small_letters(text)
    for block in (*_blocks(text), Span(len(text), len(text))):
        for match in re.compile(_BOUNDARY).finditer(text, start, block.start):
            if match["stop"] and not _ends_sentence(text, match, small=small):
                continue
            _append(spans, text, start, match.end())
            start = match.end()
        _append(spans, text, start, block.start)
        _append(spans, text, *block)
        start = block.end
    return spans


def asks(sentence: str) -> bool:
    """Whether a sentence is a question, perhaps within quotation marks or brackets that begin and end it."""
    whole = sentence.strip()
    inside = whole.rstrip(_CLOSING)
    return inside.endswith(tuple(QUESTION_MARKS)) and (inside == whole or whole[0] in _OPENING)


def statements(text: str) -> list[Span]:
    r"""Where each sentence stands that states something: no question, no code, no heading, nothing without a letter.

    Marks of lists, of tables and of emphasis of all, and the numbers of sources after it are left out.

    >>> text = "## Trains\n- They are **late**.[1] [2]\n- Why?\n\n---\n2. Two ran. 3. One did not [4]."
    >>> [text[a:b] for a, b in statements(text)]
    ['They are **late**.', 'Two ran.', 'One did not [4].']
    """
    numbers = {int(n) for n in re.findall(r"(?<![\w.])(\d{1,3})[.)]\s", text)}
    found = []
    for start, end in sentences(text):
        if re.match(r"\#{1,6}\s", text[start:end]):
            continue
        inner = _unmarked(text, Span(start, end), numbers)
        said = text[inner.start : inner.end]
        if any(c.isalnum() for c in said) and not asks(said) and not re.match(_FENCE, said):
            found.append(inner)
    return found


def _unmarked(text: str, sentence: Span, numbers: set[int]) -> Span:
    """A sentence without what marks it; a number is a mark where the one before it or after it is there too."""
    start, end = sentence
    in_table = text.startswith("|", start)
    while match := re.compile(rf"(?:{_MARK})\s+").match(text, start, end):
        if match["number"] and not numbers & {int(match["number"]) - 1, int(match["number"]) + 1}:
            break
        start = match.end()
    if in_table:
        end = start + len(text[start:end].rstrip(" \t|"))
    last = end
    while match := re.compile(_TRAIL).search(text, max(start, last - _NEAR), last):
        last = match.start()
    if text[start:last].endswith(_ENDS):
        end = last
    whole = re.compile(_EMPHASIS).fullmatch(text, start, end)
    return Span(start, end) if whole is None else Span(*whole.span(2))


def _blocks(text: str) -> list[Span]:
    """Where fenced code stands, from its first fence to its last; a fence that nothing closes is none."""
    blocks: list[Span] = []
    opened: re.Match[str] | None = None
    for line in re.finditer(_FENCE, text):
        named = bool(line["rest"].strip())
        if opened is None or (named and not opened["rest"].strip() and line["fence"].startswith(opened["fence"])):
            opened = line  # a bare fence before one that names a language closed what began before the text
        elif not named and line["fence"].startswith(opened["fence"]):
            blocks.append(Span(opened.start("first"), line.end("fence")))
            opened = None
    return blocks


def _in_small_letters(text: str) -> bool:
    """Whether a text seems to have several sentences, and none that begins with a capital letter."""
    first = next((c for c in text if c.isalpha()), "")
    if not first.islower() or any(m[1].isupper() for m in re.finditer(r"[.!?…]\s+(\w)", text)):
        return False
    return next(islice(re.finditer(_SMALL, text), 1, None), None) is not None


def _ends_sentence(text: str, stop: re.Match[str], *, small: bool) -> bool:
    rest = text[stop.end() : stop.end() + 40].lstrip()
    before = text[max(0, stop.start() - 12) : stop.end("stop")]
    if rest[:1].islower():
        known = re.search(_ABBREVIATION, before, re.IGNORECASE) or re.search(_SMALL_ABBREVIATION, before)
        return small and not known and re.compile(_SMALL).match(text, stop.start()) is not None
    if stop["stop"] != ".":
        return True
    return not (
        re.search(_ITEM_NUMBER, before)
        or re.search(_ABBREVIATION, before)
        or (rest[:1].isdigit() and re.search(_BEFORE_NUMBER, before))
    )


def _append(spans: list[Span], text: str, start: int, end: int) -> None:
    part = text[start:end]
    body = part.strip()
    if body:
        start += len(part) - len(part.lstrip())
        spans.append(Span(start, start + len(body)))


@dataclass(frozen=True, slots=True)
class Tokens:
    """A text as an engine reads it.

    Attributes:
        text: the text.
        ids: (t,) token ids, without special tokens.
        spans: (t, 2) first character of each token, and the one after its last.
    """

    text: str
    ids: IntArray
    spans: IntArray

    def __len__(self) -> int:
        """How many tokens there are."""
        return len(self.ids)

    def cut(self, window: Window) -> Tokens:
        """The tokens of one window; the text is the window's."""
        if window.size == len(self):
            return self
        part = slice(window.first, window.last)
        return Tokens(
            self.text[window.span.start : window.span.end], self.ids[part], self.spans[part] - window.span.start
        )

    def first(self, count: int) -> Tokens:
        """The first `count` tokens, or all; the text ends with them."""
        if count >= len(self):
            return self
        end = int(self.spans[:count, 1].max(initial=0))
        return Tokens(self.text[:end], self.ids[:count], self.spans[:count])


class Window(NamedTuple):
    """Tokens first … last - 1 of a passage, and the characters they stand for."""

    first: int
    last: int
    span: Span

    @property
    def size(self) -> int:
        """How many tokens the window holds."""
        return self.last - self.first


def windows(tokens: Tokens, budget: int) -> list[Window]:
    """Pack whole sentences into windows of at most `budget` tokens that overlap by one sentence.

    A sentence is split only when it alone is over the budget: into pieces of at most half of it, which then overlap
    like sentences do, so that no phrase is lost to a cut.

    Args:
        tokens: the passage.
        budget: most tokens that a window may hold, at least 1.

    Returns:
        Windows in the order of the text, which together hold every token; none for a text without tokens.
    """
    if not len(tokens):
        return []
    if len(tokens) <= budget:
        return [Window(0, len(tokens), _trim(tokens.text, 0, len(tokens.text)))]
    units = list(_units(tokens, budget))
    packed: list[Window] = []
    first = 0
    while True:
        last = first
        while last + 1 < len(units) and units[last + 1].last - units[first].first <= budget:
            last += 1
        packed.append(Window(units[first].first, units[last].last, Span(units[first].span.start, units[last].span.end)))
        if last + 1 == len(units):
            return packed
        overlaps = last > first and units[last + 1].last - units[last].first <= budget
        first = last if overlaps else last + 1


def _units(tokens: Tokens, budget: int) -> Iterator[Window]:
    """Sentences as token ranges that leave no token out, those over the budget in pieces."""
    ends = np.maximum.accumulate(tokens.spans[:, 1])  # (t,)
    spans = sentences(tokens.text) or [Span(0, len(tokens.text))]
    # A token goes with the sentence that its last character is in: some tokenizers count the space before a word to it.
    firsts = [0, *np.searchsorted(ends, [s.start for s in spans[1:]], side="right").tolist(), len(tokens)]
    for span, first, last in zip(spans, firsts, firsts[1:], strict=False):
        if last - first > budget:
            yield from _pieces(tokens, first, last, max(1, budget // 2))
        elif last > first:
            start = min(span.start, int(tokens.spans[first, 0]))  # a token may begin in the sentence before
            yield Window(first, last, _trim(tokens.text, start, span.end))


def _pieces(tokens: Tokens, first: int, last: int, size: int) -> Iterator[Window]:
    """A long sentence in pieces of at most `size` tokens, cut between words where there are any."""
    while last - first > size:
        candidates = range(first + size, first + (size + 1) // 2, -1)
        cut = next((i for i in candidates if _between_words(tokens, i)), None)
        cut = cut or next((i for i in candidates if tokens.spans[i - 1, 1] <= tokens.spans[i, 0]), first + size)
        yield Window(first, cut, _characters(tokens, first, cut))
        first = cut
    yield Window(first, last, _characters(tokens, first, last))


def _between_words(tokens: Tokens, index: int) -> bool:
    start = int(tokens.spans[index, 0])
    return start > tokens.spans[index - 1, 1] or tokens.text[start : start + 1].isspace()


def _characters(tokens: Tokens, first: int, last: int) -> Span:
    part = tokens.spans[first:last]
    return _trim(tokens.text, int(part[:, 0].min()), int(part[:, 1].max()))


def _trim(text: str, start: int, end: int) -> Span:
    body = text[start:end].strip()
    start += len(text[start:end]) - len(text[start:end].lstrip()) if body else 0
    return Span(start, start + len(body))


def _mean(scores: FloatArray) -> float:
    return float(scores.mean())


def _top3(scores: FloatArray) -> float:
    return float(np.sort(scores)[-3:].mean())


POOLS: dict[str, Callable[[FloatArray], float]] = {
    "max": lambda scores: float(scores.max()),
    "mean": _mean,
    "top3": _top3,
}
