"""Which output of a checkpoint is which: id2label → the entailment, neutral and contradiction columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rerank_nli.errors import InputTypeError, LabelError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["COLUMNS", "NOT_ENTAILMENT", "Labels", "label_of", "output_names"]

COLUMNS: tuple[Literal["entailment"], Literal["neutral"], Literal["contradiction"]] = (
    "entailment",
    "neutral",
    "contradiction",
)
NOT_ENTAILMENT: Literal["not_entailment"] = "not_entailment"  # neutral or contradiction
_MEND = "use a checkpoint with entailment and not_entailment, or entailment, neutral and contradiction"

# Spellings with everything but letters taken out, and "label" before them. "not" comes first: "notentailment" holds
# "entail".
_SPELLINGS = {
    NOT_ENTAILMENT: r"(is|does)?(not|non|no|un)(entail|support)",
    "entailment": r"(is)?entail|support|e$",
    "neutral": r"neutral|notenough|insufficient|inconclusive|nei$|neither$|unknown|unrelated|n$",
    "contradiction": r"(is)?contradict|refut|c$",
}


@dataclass(frozen=True, slots=True)
class Labels:
    """The outputs of an NLI head.

    Attributes:
        names: the checkpoint's own names, in the order of its outputs.
        columns: output of entailment, of neutral and of contradiction; None for what the head does not have.
    """

    names: tuple[str, ...]
    columns: tuple[int, int | None, int | None]

    @classmethod
    def of(cls, names: Sequence[str]) -> Labels:
        """Find the columns by name.

        >>> Labels.of(["CONTRADICTION", "Entailment", "neutral"]).columns
        (1, 2, 0)
        >>> Labels.of(["entailment", "not_entailment"]).columns
        (0, None, None)

        Args:
            names: a name for each output, in any case and with any punctuation.

        Raises:
            LabelError: the names do not say which output is entailment, or there are not two or three of them.
            InputTypeError: `names` is not a sequence of texts.
        """
        _require_names(names)
        if len(names) == 1:
            message = f"a head with one output ({names[0]!r}) is a relevance reranker or a regression, not NLI: {_MEND}"
            raise LabelError(message)
        if len(names) > len(COLUMNS):
            message = f"a head with {len(names)} outputs ({_shown(names)}) is another classifier, not NLI: {_MEND}"
            raise LabelError(message)
        kinds = [_kind(name) for name in names]
        wanted = ("entailment", NOT_ENTAILMENT) if len(names) == 2 else COLUMNS  # noqa: PLR2004
        if sorted(map(str, kinds)) != sorted(wanted):
            message = f"cannot tell which output is which from {list(names)}: {_hint(len(names))}"
            raise LabelError(message)
        neutral, contradiction = (kinds.index(kind) if kind in kinds else None for kind in COLUMNS[1:])
        return cls(tuple(names), (kinds.index("entailment"), neutral, contradiction))

    @classmethod
    def resolve(cls, id2label: Mapping[int | str, str] | None, labels: Sequence[str] | None) -> Labels:
        """Take the names from `labels`, or from a checkpoint's id2label where none are passed.

        Raises:
            LabelError: neither says which output is entailment, or `labels` has another length than id2label.
            InputTypeError: `labels` is not a sequence of texts.
        """
        own = output_names(id2label)
        if labels is None:
            if not own:
                message = f"neither config.json nor manifest.json names the labels: {_hint()}"
                raise LabelError(message)
            return cls.of(own)
        _require_names(labels)
        if own and len(own) != len(labels):
            has = f"the checkpoint has {len(own)} outputs: {_shown(own)}"
            message = f"labels={list(labels)} has {len(labels)} names, but {has}"
            raise LabelError(message)
        return cls.of(labels)

    @property
    def binary(self) -> bool:
        """Whether the head knows entailment and its absence only."""
        return self.columns[2] is None

    def require_contradiction(self, what: str) -> None:
        """Refuse what needs P(contradiction) on a head that has none.

        Raises:
            LabelError: the head has two labels.
        """
        if self.binary:
            message = (
                f"{what} needs P(contradiction), but this checkpoint has two labels, {list(self.names)}: "
                'use score="entailment" and keep="entailment", or a three-label checkpoint'
            )
            raise LabelError(message)


def output_names(id2label: Mapping[int | str, str] | None) -> list[str]:
    """The names in a checkpoint's id2label, in the order of its outputs; none where it has none.

    Raises:
        LabelError: it is no mapping of numbers to names.
    """
    try:
        return [name for _, name in sorted((int(i), str(name)) for i, name in (id2label or {}).items())]
    except (AttributeError, TypeError, ValueError) as error:
        message = f"id2label {id2label!r} is no mapping of output numbers to names: {_hint()}"
        raise LabelError(message) from error


def label_of(value: object, names: Sequence[str] | None = None) -> str:
    """Which of entailment, neutral, contradiction and not_entailment a row of data says.

    >>> label_of("Refuted"), label_of(1, ["contradiction", "entailment", "neutral"])
    ('contradiction', 'entailment')

    Args:
        value: a name in any spelling that checkpoints use, or the number of an output.
        names: of the outputs, in order; what numbers count in.

    Raises:
        LabelError: neither, or a number without names.
    """
    text = str(value).strip()
    if re.fullmatch(r"\d+(\.0)?", text):
        number = int(text.removesuffix(".0"))
        if names is None or number >= len(names):
            message = (
                f"label {value!r} is a number, and the outputs are {list(names) if names else 'not known'}: give their "
                "names in order, as contradiction,entailment,neutral: names= of read_pairs, --labels of train, or "
                "--data-labels"
            )
            raise LabelError(message)
        text = names[number]
    kind = _kind(text)
    if kind is None:
        message = f"unknown label {value!r}: expected one of {[*COLUMNS, NOT_ENTAILMENT]}"
        raise LabelError(message)
    return kind


def _hint(outputs: int = 3) -> str:
    example = '["not_entailment", "entailment"]' if outputs == 2 else '["contradiction", "entailment", "neutral"]'  # noqa: PLR2004
    return f"pass labels=, the names in the order of the outputs, for example labels={example}"


def _shown(names: Sequence[str]) -> str:
    most = 6
    return str(list(names)) if len(names) <= most else f"{str(list(names[:most]))[:-1]}, …]"


def _require_names(names: object) -> None:
    if not isinstance(names, Sequence) or isinstance(names, str | bytes) or not all(isinstance(n, str) for n in names):
        message = f"labels must be a list of names, got {names!r}"
        raise InputTypeError(message)


def _kind(name: str) -> str | None:
    letters = re.sub(r"[^a-z]", "", name.lower()).removeprefix("label")
    return next((kind for kind, spelling in _SPELLINGS.items() if re.match(spelling, letters)), None)
