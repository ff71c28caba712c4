"""What comes back: frozen results that hold plain Python numbers and serialise to JSON (standard library only)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from numbers import Integral
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar, overload

from rerank_nli.errors import require

__all__ = [
    "Conflicts",
    "Filtered",
    "Foreign",
    "Grounding",
    "Items",
    "Probabilities",
    "RankedAnswer",
    "RankedPassage",
    "Ranking",
    "Relation",
    "Span",
    "Verdict",
    "plain_id",
]

_Item = TypeVar("_Item")


class Items(Sequence[_Item]):
    """A result that is the sequence of what one of its fields holds; a slice is a tuple."""

    __slots__ = ()
    _items: ClassVar[str]  # the field's name

    @overload
    def __getitem__(self, index: int) -> _Item: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[_Item, ...]: ...
    def __getitem__(self, index: int | slice) -> _Item | tuple[_Item, ...]:
        items: tuple[_Item, ...] = getattr(self, self._items)
        return items[index]

    def __len__(self) -> int:
        return len(getattr(self, self._items))


def plain_id(own: Any) -> str | int | None:  # noqa: ANN401 - a caller's id is whatever it is
    """A passage's id as a JSON type: one that is no text or whole number becomes its str."""
    if own is None or isinstance(own, str | int):
        return own
    return int(own) if isinstance(own, Integral) else str(own)  # numpy's whole numbers are whole numbers


class Span(NamedTuple):
    """Where a text stands inside another: first character, and the one after the last."""

    start: int
    end: int


class Probabilities(NamedTuple):
    """P(entailment), P(neutral), P(contradiction), each in 0..1; the last two are None for a two-label checkpoint."""

    entailment: float
    neutral: float | None
    contradiction: float | None


@dataclass(frozen=True, slots=True)
class RankedPassage:
    """One passage with its scores.

    Attributes:
        index: position in the caller's list.
        passage: the caller's own object, untouched.
        text: its text.
        id: its id, if it has one.
        score: absolute score in the range of the score kind; filters read only this.
        relative: per-query value, what fusion ranks by; None unless `normalize` or `fuse` is set.
        retrieval_score: what the caller's retriever gave.
        entailment, neutral, contradiction: probabilities of the window that won the score.
        span: characters of that window in `text`; in a verdict or after `pinpoint`, of its deciding sentence.
        refutation: the highest P(contradiction) over all windows; None for a two-label checkpoint.
        refutation_span: characters of the window that holds it; narrowed as `span`.
        windows: how many windows were scored; 0 for a blank passage, which gets the floor of its score kind.
        truncated: whether the model left some of the text unread.
        reverse: bidirectional only, the probabilities of query → passage in the window that won.
    """

    index: int
    passage: Any
    text: str
    id: Any
    score: float
    relative: float | None
    retrieval_score: float | None
    entailment: float
    neutral: float | None
    contradiction: float | None
    span: Span
    refutation: float | None
    refutation_span: Span | None
    windows: int
    truncated: bool = False
    reverse: Probabilities | None = None

    @property
    def evidence(self) -> str:
        """The text of the window that won the score."""
        return self.text[self.span.start : self.span.end]

    @property
    def refuting_evidence(self) -> str | None:
        """The text of the window with the highest P(contradiction)."""
        return (
            None if self.refutation_span is None else self.text[self.refutation_span.start : self.refutation_span.end]
        )

    def to_dict(self) -> dict[str, Any]:
        """Every field but the caller's own object, as JSON types; an id that is no text or int becomes its str."""
        row = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "passage"}
        row["id"] = plain_id(self.id)
        row["span"] = list(self.span)
        row["refutation_span"] = None if self.refutation_span is None else list(self.refutation_span)
        row["reverse"] = None if self.reverse is None else self.reverse._asdict()
        return row


@dataclass(frozen=True, slots=True)
class Ranking(Items[RankedPassage]):
    """Passages, best first, with the settings that the scores were made with.

    Attributes:
        query: as it was asked.
        passages: those that were scored.
        direction: which of passage and query is the premise.
        score_kind: what `score` is.
        calibrated: whether it is calibrated.
        unscored: places, in the caller's list, of the passages that `depth` or `budget_ms` left unscored.
    """

    _items = "passages"

    query: str
    passages: tuple[RankedPassage, ...]
    direction: str
    score_kind: str
    calibrated: bool
    unscored: tuple[int, ...] = ()

    def to_pairs(self) -> list[tuple[str, float]]:
        """Text and score of each passage, best first."""
        return [(p.text, p.score) for p in self.passages]

    def to_dict(self) -> dict[str, Any]:
        """The ranking as JSON types."""
        return {
            "query": self.query,
            "direction": self.direction,
            "score_kind": self.score_kind,
            "calibrated": self.calibrated,
            "unscored": list(self.unscored),
            "passages": [p.to_dict() for p in self.passages],
        }

    def to_frame(self) -> Any:  # noqa: ANN401 - pandas is optional, so its type cannot be named here
        """The ranking as a pandas DataFrame, a row for each passage.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        columns = [f.name for f in fields(RankedPassage) if f.name != "passage"]
        return require("pandas", "eval").DataFrame([p.to_dict() for p in self.passages], columns=columns)


@dataclass(frozen=True, slots=True)
class Filtered:
    """Both sides of a filter: together they hold every passage that went in."""

    kept: Ranking
    dropped: Ranking
    threshold: float | None
    keep: str

    def to_dict(self) -> dict[str, Any]:
        """Both sides as JSON types."""
        return {
            "kept": self.kept.to_dict(),
            "dropped": self.dropped.to_dict(),
            "threshold": self.threshold,
            "keep": self.keep,
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the passages say about a claim.

    Attributes:
        label: "supported", "refuted" or "insufficient".
        confidence: the highest P(entailment) if supported, the highest P(contradiction) if refuted, and if neither
            passed the threshold one minus the higher of the two, over passages and what was joined of them.
        supporting: passages whose score passes the threshold, best first.
        refuting: passages whose refutation passes it, strongest first.
        claim: the claim.
        joined: places, in the caller's list, of the two passages that settle the claim together, in the order they were
            joined in; None if none were needed or none did. `confidence` is then what both say as one premise;
            `supporting` or `refuting` holds both, with the scores that each has alone, and spans of what was joined.
    """

    label: Literal["supported", "refuted", "insufficient"]
    confidence: float
    supporting: Ranking
    refuting: Ranking
    claim: str
    joined: tuple[int, int] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The verdict as JSON types."""
        return {
            "claim": self.claim,
            "label": self.label,
            "confidence": self.confidence,
            "joined": None if self.joined is None else list(self.joined),
            "supporting": self.supporting.to_dict(),
            "refuting": self.refuting.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class Grounding(Items[Verdict]):
    """A verdict for each sentence of an answer that states something.

    Attributes:
        answer: the text that was checked.
        verdicts: c of them, one for each statement.
        spans: where each statement stands in the answer.
        support: c rows of n, the highest P(entailment) of each statement over the windows of each of the n passages, in
            the caller's order.
        refutation: the same of P(contradiction).
    """

    _items = "verdicts"

    answer: str
    verdicts: tuple[Verdict, ...]
    spans: tuple[Span, ...]
    support: tuple[tuple[float, ...], ...]
    refutation: tuple[tuple[float, ...], ...]

    @property
    def groundedness(self) -> float:
        """Share of the statements that are supported, 0..1; an answer without any claims nothing: 1.0."""
        if not self.verdicts:
            return 1.0
        return sum(v.label == "supported" for v in self.verdicts) / len(self.verdicts)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON types."""
        return {
            "answer": self.answer,
            "groundedness": self.groundedness,
            "sentences": [
                {"span": list(span), **verdict.to_dict()}
                for span, verdict in zip(self.spans, self.verdicts, strict=True)
            ],
            "support": [list(row) for row in self.support],
            "refutation": [list(row) for row in self.refutation],
        }


@dataclass(frozen=True, slots=True)
class RankedAnswer:
    """One candidate answer to a question, with the passages that were held against it.

    Attributes:
        index: position in the caller's list of answers.
        answer: the answer.
        hypothesis: the statement made of question and answer.
        score: the best passage's score.
        evidence: the passages, best first.
    """

    index: int
    answer: str
    hypothesis: str
    score: float
    evidence: Ranking

    def to_dict(self) -> dict[str, Any]:
        """The answer as JSON types."""
        return {
            "index": self.index,
            "answer": self.answer,
            "hypothesis": self.hypothesis,
            "score": self.score,
            "evidence": self.evidence.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class Relation:
    """What one passage says of a sentence of another.

    Attributes:
        kind: "contradict" or "agree".
        probability: P(contradiction) or P(entailment) of the sentence, given the strongest window of the other passage.
        first, second: positions of the two passages in the caller's list, `first` the lower.
        claim: `first` or `second`, whichever the sentence is of.
        first_span, second_span: characters of the sentence in its passage, and of the deciding sentence in the other.
        first_text, second_text: what stands there.
    """

    kind: Literal["contradict", "agree"]
    probability: float
    first: int
    second: int
    claim: int
    first_span: Span
    second_span: Span
    first_text: str
    second_text: str

    def to_dict(self) -> dict[str, Any]:
        """The relation as JSON types."""
        row = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**row, "first_span": list(self.first_span), "second_span": list(self.second_span)}


@dataclass(frozen=True, slots=True)
class Conflicts(Items[Relation]):
    """Which passages contradict or agree with each other, strongest first.

    Attributes:
        relations: at most one contradiction and one agreement for each two passages.
        passages: how many passages were compared.
        threshold: what each probability has reached.
    """

    _items = "relations"

    relations: tuple[Relation, ...]
    passages: int
    threshold: float

    @property
    def contradictions(self) -> tuple[Relation, ...]:
        """Those of kind "contradict", strongest first."""
        return tuple(r for r in self.relations if r.kind == "contradict")

    @property
    def agreements(self) -> tuple[Relation, ...]:
        """Those of kind "agree", strongest first."""
        return tuple(r for r in self.relations if r.kind == "agree")

    def to_dict(self) -> dict[str, Any]:
        """The relations as JSON types."""
        return {
            "passages": self.passages,
            "threshold": self.threshold,
            "relations": [r.to_dict() for r in self.relations],
        }


@dataclass(frozen=True, slots=True)
class Foreign:
    """A text in a language that the model's card does not list.

    Attributes:
        index: position in the caller's list.
        language: ISO 639 code of the likeliest language.
        probability: of that language, 0..1.
    """

    index: int
    language: str
    probability: float

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON types."""
        return {"index": self.index, "language": self.language, "probability": self.probability}
