"""What a zero-shot classification gives back: labels with their scores for each text, frozen and ready for JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rerank_nli.errors import require
from rerank_nli.types import Items

if TYPE_CHECKING:
    from rerank_nli.scores import FloatArray

__all__ = ["Classification", "Classifications", "LabelScore"]


@dataclass(frozen=True, slots=True)
class LabelScore:
    """One label of one text.

    Attributes:
        label: the label.
        score: 0..1, its share among exclusive labels, or its own probability; below a parent, given the parent.
        accepted: whether it passed its threshold, and in a group of exclusive labels came first of those that did.
    """

    label: str
    score: float
    accepted: bool


@dataclass(frozen=True, slots=True)
class Classification:
    """The labels that were scored for one text, best first.

    Attributes:
        index: position of the text in the caller's list.
        text: the text.
        labels: every label that was scored. One that was not is not among them: it is off the shortlist, or its parent
            was not accepted.
    """

    index: int
    text: str
    labels: tuple[LabelScore, ...]

    @property
    def label(self) -> str | None:
        """The accepted label with the highest score; None where no label was accepted."""
        return next(iter(self.accepted), None)

    @property
    def score(self) -> float:
        """The score of `label`; where that is None the highest score of any label, which did not pass."""
        return next((one.score for one in self.labels if one.accepted), self.labels[0].score)

    @property
    def accepted(self) -> tuple[str, ...]:
        """The accepted labels, best first; empty where the classifier abstains."""
        return tuple(one.label for one in self.labels if one.accepted)

    @property
    def scores(self) -> dict[str, float]:
        """Score of each label that was scored, best first."""
        return {one.label: one.score for one in self.labels}

    def to_dict(self) -> dict[str, Any]:
        """The classification as JSON types."""
        return {
            "index": self.index,
            "text": self.text,
            "label": self.label,
            "score": self.score,
            "accepted": list(self.accepted),
            "scores": self.scores,
        }


@dataclass(frozen=True, slots=True)
class Classifications(Items[Classification]):
    """A classification for each text, in the order of the texts.

    Attributes:
        rows: n classifications.
        labels: the L labels of all label sets together, in the order they came in; the columns of the array.
    """

    _items = "rows"

    rows: tuple[Classification, ...]
    labels: tuple[str, ...]

    def to_dicts(self) -> list[dict[str, Any]]:
        """The classifications as JSON types."""
        return [one.to_dict() for one in self.rows]

    def to_array(self) -> FloatArray:
        """Scores as float64 (n, L), the columns as `labels`; NaN where a label was not scored for a text."""
        columns = {label: column for column, label in enumerate(self.labels)}
        out = np.full((len(self.rows), len(self.labels)), np.nan)  # (n, L)
        for row, one in zip(out, self.rows, strict=True):
            for label, score in one.scores.items():
                row[columns[label]] = score
        return out

    def to_frame(self) -> Any:  # noqa: ANN401 - pandas is optional, so its type cannot be named here
        """A pandas DataFrame with a row for each text and label: index, text, label, score, accepted (`eval` extra).

        Raises:
            MissingExtraError: pandas is not installed.
        """
        rows = [(one.index, one.text, s.label, s.score, s.accepted) for one in self.rows for s in one.labels]
        columns = ["index", "text", "label", "score", "accepted"]
        return require("pandas", "eval").DataFrame(rows, columns=columns)
