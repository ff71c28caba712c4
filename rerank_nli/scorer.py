"""The one pipeline: texts → pairs → windows → logits → probabilities → score → pool → calibrate.

It is the only place that knows which side the passage stands on.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rerank_nli.batches import ahead, in_batches, in_chunks
from rerank_nli.cache import Cache
from rerank_nli.calibration import Calibration
from rerank_nli.errors import (
    CalibrationError,
    DamagedModelError,
    InputError,
    InputTypeError,
    QueryTooLongError,
    counted,
    one_of,
)
from rerank_nli.scores import COMBINES, KINDS, probabilities
from rerank_nli.types import Span
from rerank_nli.windows import POOLS, windows

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from rerank_nli.engines import Engine
    from rerank_nli.scores import FloatArray
    from rerank_nli.windows import Tokens

__all__ = ["DIRECTIONS", "FEWEST_TOKENS", "Scored", "Scorer", "is_question"]

DIRECTIONS = ("passage_entails_query", "query_entails_passage", "bidirectional")
FEWEST_TOKENS = 32  # a query that leaves a passage less than this is refused
_LONGEST_KEPT = 512  # tokens of a text that is remembered: a long one is cheap to read again beside its windows
# An interrogative begins no question that ends as a statement does, and WHO may be the organization.
_QUESTION = r"(?is)(?!.*[.!。]$)(?!(?-i:WHO\b.*[a-z]))(who|whom|whose|what|when|where|which|why|how)\b|.*[?？؟]$"
_AUTO = ("{query}",)  # claims and questions as they are: benchmarks/templates.py compares the alternatives


def is_question(query: str) -> bool:
    """Whether a query ends in a question mark, or starts with an interrogative and does not end as a statement.

    >>> [is_question(q) for q in ("Who wrote it?", "how tides work", "When heated, water expands.", "WHO warns of it")]
    [True, True, False, False]
    """
    return re.match(_QUESTION, query.strip()) is not None


class Scored(NamedTuple):
    """One passage against one query, in numbers.

    Attributes:
        score: pooled and calibrated.
        probabilities: (3,) of the window that won, in the passage → query direction where there are two.
        reverse: (3,) of the other direction, for bidirectional.
        span: characters of the window that won.
        refutation: the highest P(contradiction), NaN for a two-label head.
        refutation_span: characters of the window that holds it.
        windows: how many were scored.
    """

    score: float
    probabilities: FloatArray
    reverse: FloatArray | None
    span: Span
    refutation: float
    refutation_span: Span
    windows: int


@dataclass(frozen=True, slots=True)
class _Cut:
    """The windows of one passage: their spans, the row of the first in the arrays of all, and what the query is."""

    spans: list[Span]
    row: int
    question: bool


class Scorer:
    """Scores passages for queries with one engine and one set of settings, all checked here.

    The arguments are those of NLIReranker.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        direction: str,
        combine: str,
        score: str,
        template: str | Sequence[str] | None,
        window: int | None,
        pool: str,
        calibration: str | os.PathLike[str] | Calibration | None,
        cache_size: int | None,
        batch_tokens: int,
    ) -> None:
        one_of("direction", direction, DIRECTIONS)
        one_of("combine", combine, COMBINES)
        one_of("score", score, KINDS)
        one_of("pool", pool, POOLS)
        if KINDS[score].ternary:
            engine.labels.require_contradiction(f"score={score!r}")
        if combine == "harmonic" and direction == "bidirectional" and not KINDS[score].is_probability:
            message = (
                f"combine='harmonic' has no meaning for score={score!r}, which may be negative: use 'min' or 'mean'"
            )
            raise InputError(message)
        self.engine = engine
        self.direction = direction
        self.combine = combine
        self.kind = score
        self.templates = _templates(template)
        self.window = None if window is None else counted("window", window, most=engine.max_length)
        self.pool = pool
        self.batch_tokens = counted("batch_tokens", batch_tokens)
        size = 0 if cache_size is None else counted("cache_size", cache_size, least=0)
        self._rows: Cache[bytes, FloatArray] = Cache(size)
        self._texts: Cache[str, Tokens] = Cache(size)
        self._cuts: Cache[tuple[str, int], list[tuple[Span, Tokens]]] = Cache(size)
        self.calibration = self._matching(calibration)

    @property
    def key(self) -> dict[str, Any]:
        """What a calibration must have been fitted for."""
        direction = f"bidirectional {self.combine}" if self.direction == "bidirectional" else self.direction
        return {
            "weights": self.engine.fingerprint,
            "precision": self.engine.precision,
            "temperature": self.engine.temperature,
            "direction": direction,
            "kind": self.kind,
            "template": "auto" if self.templates == _AUTO else list(self.templates),
            "window": self._window,
            "pool": self.pool,
        }

    @property
    def settings(self) -> dict[str, Any]:
        """What a guarantee must have been made for: all that a score hangs on."""
        return {
            **self.key,
            "labels": list(self.engine.labels.names),
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
        }

    def for_verdicts(self) -> Scorer:
        """The same engine and cache, set to what a verdict means: P(entailment), passage → claim, strongest window.

        It is not calibrated: support is compared with P(contradiction), for which there is no calibration.
        """
        judge = copy.copy(self)
        judge.direction, judge.kind, judge.pool = "passage_entails_query", "entailment", "max"
        judge.calibration = None
        return judge

    def share_memory(self, other: Scorer) -> None:
        """Remember what another scorer of the same engine does, and in the same place, whatever its settings."""
        self._rows, self._texts, self._cuts = other._rows, other._texts, other._cuts

    @property
    def remembered(self) -> tuple[int, int]:
        """How many pairs were asked for whose logits were remembered, and how many were asked for in all."""
        return self._rows.hits, self._rows.hits + self._rows.misses

    def unwindowed(self) -> Scorer:
        """The same engine, cache and settings, but a text is one window wherever the model takes it whole."""
        whole = copy.copy(self)
        whole.window = self.engine.max_length
        return whole

    def score(
        self, queries: Sequence[str], passage_lists: Sequence[Sequence[str]], what: str = "query"
    ) -> list[list[Scored]]:
        """Score each query's passages, all in one stream of batches.

        Args:
            queries: q texts, none blank.
            passage_lists: q lists of texts.
            what: what errors call a query.

        Returns:
            q lists, in the order of the passages.

        Raises:
            InputError: a blank query.
            QueryTooLongError: a query that leaves fewer than 32 tokens for a passage.
        """
        forms = [self._tokenized_forms(query, f"{what} {index}") for index, query in enumerate(queries)]
        budgets = [
            min(self._room(f"{what} {index}", hypotheses), self._window or self.engine.max_length)
            for index, hypotheses in enumerate(forms)
        ]

        questions = [is_question(query) for query in queries]

        def read(asked: Sequence[tuple[int, str]]) -> tuple[list[tuple[Tokens, Tokens]], list[_Cut]]:
            tokenized = self._tokenize({text for _, text in asked})
            pairs: list[tuple[Tokens, Tokens]] = []
            cuts, rows = [], 0
            for query, text in asked:
                cut = self._windows(tokenized[text], budgets[query]) if text.strip() else []
                pairs += (pair for _, part in cut for form in forms[query] for pair in self._directed(part, form))
                cuts.append(_Cut([span for span, _ in cut], rows, questions[query]))
                rows += len(cut)
            return pairs, cuts

        asked = list(dict.fromkeys((q, text) for q, passages in enumerate(passage_lists) for text in passages))
        found: list[Scored] = []
        for pairs, cuts in ahead(read, in_chunks(asked)):
            p = self._probabilities(pairs)  # (rows, D, 3)
            s = self._combined(p)  # (rows,)
            found += [self._pooled(cut, s, p) for cut in cuts]
        by_passage = dict(zip(asked, found, strict=True))
        return [[by_passage[q, text] for text in passages] for q, passages in enumerate(passage_lists)]

    def predict(
        self, pairs: Sequence[tuple[str, str]], first: int = 0, *, by_entailment: bool = False
    ) -> tuple[FloatArray, FloatArray]:
        """Logits and probabilities of (premise, hypothesis) texts, without direction and template.

        A premise that the model cannot take whole is windowed; its row is the window's with the largest
        max(P(entailment), P(contradiction)).

        Args:
            pairs: n of them.
            first: what an error calls the first one.
            by_entailment: take the window with the largest P(entailment) alone.

        Returns:
            (n, C) float32 and (n, 3) float64.

        Raises:
            QueryTooLongError: a hypothesis that leaves fewer than 32 tokens for the premise.
        """

        def read(places: Sequence[int]) -> tuple[list[tuple[Tokens, Tokens]], list[int]]:
            tokenized = self._tokenize({text for place in places for text in pairs[place]})
            windowed: list[tuple[Tokens, Tokens]] = []
            starts = [0]
            for place in places:
                premise, hypothesis = (tokenized[text] for text in pairs[place])
                room = self._room(f"the hypothesis of pair {first + place}", [hypothesis])
                cut = self._windows(premise, min(room, self.window or room))
                windowed += [(part, hypothesis) for _, part in cut] or [(premise, hypothesis)]
                starts.append(len(windowed))
            return windowed, starts

        rows = [np.empty((0, len(self.engine.labels.names)), dtype=np.float32)]
        for windowed, starts in ahead(read, in_chunks(range(len(pairs)))):
            logits = self._logits(windowed)  # (m, C)
            p = probabilities(logits, self.engine.labels, self.engine.temperature)  # (m, 3)
            decided = p[:, 0] if by_entailment else np.fmax(p[:, 0], p[:, 2])
            rows.append(logits[[a + int(decided[a:b].argmax()) for a, b in pairwise(starts)]])
        chosen = np.concatenate(rows)
        return chosen, probabilities(chosen, self.engine.labels, self.engine.temperature)

    def _tokenized_forms(self, query: str, which: str) -> list[Tokens]:
        if not query.strip():
            message = f"{which} is blank: there is nothing to entail"
            raise InputError(message)
        forms = self.engine.tokenize([template.replace("{query}", query) for template in self.templates])
        if not all(len(form) for form in forms):
            message = f"{which} is blank to the model: its tokenizer reads nothing in {query!r:.80}"
            raise InputError(message)
        return forms

    def reads(self, texts: Sequence[str]) -> list[bool]:
        """Whether the model reads anything in each text; what it does not is blank."""
        tokenized = self._tokenize(set(texts))
        return [len(tokenized[text]) > 0 for text in texts]

    def _tokenize(self, texts: set[str]) -> dict[str, Tokens]:
        """The tokens of each text, those of the last texts remembered."""
        found = {text: tokens for text in texts if (tokens := self._texts.get(text)) is not None}
        new = [text for text in texts if text not in found]
        for text, tokens in zip(new, self.engine.tokenize(new), strict=True):
            found[text] = tokens
            if len(tokens) <= _LONGEST_KEPT:
                self._texts.put(text, tokens)
        return found

    def _windows(self, tokens: Tokens, budget: int) -> list[tuple[Span, Tokens]]:
        """The windows of a text, with what each holds; those of the last texts that need several are remembered."""
        if len(tokens) <= budget:
            return [(w.span, tokens) for w in windows(tokens, budget)]
        found = self._cuts.get((tokens.text, budget))
        if found is None:
            found = [(w.span, tokens.cut(w)) for w in windows(tokens, budget)]
            if len(tokens) <= _LONGEST_KEPT:
                self._cuts.put((tokens.text, budget), found)
        return found

    @property
    def _window(self) -> int | None:
        return self.window or self.engine.window

    def _room(self, what: str, queries: Sequence[Tokens]) -> int:
        """Tokens that the model has left for a passage beside the longest of these."""
        longest = max(len(query) for query in queries)
        room = self.engine.max_length - self.engine.special - longest
        if room < FEWEST_TOKENS:
            message = (
                f"{what} takes {longest} of the model's {self.engine.max_length} tokens and leaves {room} for a "
                f"passage, fewer than {FEWEST_TOKENS}: shorten or split it (it begins {queries[0].text[:60]!r})"
            )
            raise QueryTooLongError(message)
        return room

    def _directed(self, passage: Tokens, query: Tokens) -> Iterator[tuple[Tokens, Tokens]]:
        """(premise, hypothesis) for each direction."""
        if self.direction != "query_entails_passage":
            yield passage, query
        if self.direction != "passage_entails_query":
            yield query, passage

    def _probabilities(self, pairs: Sequence[tuple[Tokens, Tokens]]) -> FloatArray:
        """(windows, D, 3), an ensemble of templates averaged."""
        directions = 2 if self.direction == "bidirectional" else 1
        p = probabilities(self._logits(pairs), self.engine.labels, self.engine.temperature)
        return p.reshape(-1, len(self.templates), directions, 3).mean(axis=1)

    def _combined(self, p: FloatArray) -> FloatArray:
        formula = KINDS[self.kind].formula
        if self.direction != "bidirectional":
            return formula(p[:, 0])
        return COMBINES[self.combine](formula(p[:, 0]), formula(p[:, 1]))

    def _pooled(self, cut: _Cut, s: FloatArray, p: FloatArray) -> Scored:
        count = len(cut.spans)
        if not count:
            nothing = np.array([0.0, np.nan, np.nan] if self.engine.labels.binary else [0.0, 1.0, 0.0])
            reverse = nothing if self.direction == "bidirectional" else None
            none = Span(0, 0)
            return Scored(KINDS[self.kind].floor, nothing, reverse, none, float(nothing[2]), none, 0)
        rows = slice(cut.row, cut.row + count)
        scores, per_window = s[rows], p[rows]  # (w,), (w, D, 3)
        score = POOLS[self.pool](scores)
        if self.calibration is not None:
            score = float(self.calibration.apply(np.array(score), question=cut.question))
        best, worst = int(scores.argmax()), int(per_window[:, 0, 2].argmax())
        return Scored(
            score=score,
            probabilities=per_window[best, 0],
            reverse=per_window[best, 1] if self.direction == "bidirectional" else None,
            span=cut.spans[best],
            refutation=float(per_window[worst, 0, 2]),
            refutation_span=cut.spans[worst],
            windows=count,
        )

    def _logits(self, pairs: Sequence[tuple[Tokens, Tokens]]) -> FloatArray:
        """(m, C), equal pairs and remembered ones not scored again."""
        if not pairs:
            return np.empty((0, len(self.engine.labels.names)), dtype=np.float32)
        keys = [_key(a, b) for a, b in pairs]
        known = {key: row for key in set(keys) if (row := self._rows.get(key)) is not None}
        new = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in known}
        if new:
            engine = self.engine
            parallel = getattr(engine, "parallel", 1)
            rows = in_batches(list(new.values()), engine.logits, self.batch_tokens, engine.special, parallel)
            if not np.isfinite(rows).all():
                half = self.engine.precision in ("fp16", "bf16")
                why = f"{self.engine.precision} cannot hold them, use dtype='fp32'" if half else "the model is damaged"
                message = f"the {self.engine.name} engine returned logits that are not finite: {why}"
                raise DamagedModelError(message)
            for key, row in zip(new, rows, strict=True):
                known[key] = row
                self._rows.put(key, row.copy())  # a view would keep its whole batch alive
        return np.stack([known[key] for key in keys])

    def _matching(self, calibration: str | os.PathLike[str] | Calibration | None) -> Calibration | None:
        if calibration is None:
            return None
        if calibration == "auto":
            own = self.engine.calibration
            return own if own is not None and own.fits(self.key) else None
        if not isinstance(calibration, Calibration):
            calibration = Calibration.load(calibration)
        if not KINDS[self.kind].is_probability:
            message = f"a calibration acts on scores in 0..1, not on score={self.kind!r}: use score='entailment'"
            raise CalibrationError(message)
        calibration.require_key(self.key)
        return calibration


def _key(premise: Tokens, hypothesis: Tokens) -> bytes:
    digest = blake2b(digest_size=16)
    for tokens in (premise, hypothesis):
        text = tokens.text.encode("utf-8", "surrogatepass")
        digest.update(len(text).to_bytes(8, "little") + text + len(tokens).to_bytes(8, "little"))
        digest.update(tokens.ids.tobytes())  # a text cut inside a word may have other tokens than the same text alone
    return digest.digest()


def _templates(template: str | Sequence[str] | None) -> tuple[str, ...]:
    if template is None or (isinstance(template, str) and template == "auto"):
        return _AUTO
    listed = (template,) if not isinstance(template, Sequence) or isinstance(template, str) else tuple(template)
    if not listed or not all(isinstance(t, str) for t in listed):
        message = f"template must be 'auto', None, a text or a list of texts, got {template!r}"
        raise InputTypeError(message)
    for t in listed:
        if "{query}" not in t:
            message = f"template {t!r} has no {{query}} in it: the query would not be asked about"
            raise InputError(message)
    return listed
