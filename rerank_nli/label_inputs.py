"""What callers say of a classification: texts, labels, templates, thresholds, shares, gold; checked and read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from rerank_nli.errors import InputError, InputTypeError, is_number
from rerank_nli.inputs import listed, texts
from rerank_nli.label_sets import label_sets, require_known

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rerank_nli.label_sets import LabelSet

__all__ = ["Task", "gold_labels", "limits", "read_shares"]

_HALF = 0.5  # more likely than not


class Task(NamedTuple):
    """Texts that are classified, and by what.

    Attributes:
        texts: n of them.
        sets: n, the labels of each text; equal ones are one object.
        known: all labels, in the order they came in.
        templates: a text with {label} in it each.
    """

    texts: list[str]
    sets: list[LabelSet]
    known: tuple[str, ...]
    templates: list[str]

    @classmethod
    def read(cls, given: Any, labels: Any, template: Any, **grouping: Any) -> Task:  # noqa: ANN401
        """Check and read the texts, labels and templates of `ZeroShotClassifier.classify`.

        Args:
            given: the texts.
            labels: as `label_sets`.
            template: a text or a list of them.
            grouping: multi_label, exclusive and parents, as `label_sets`.

        Raises:
            InputTypeError: a text or template that is no text, or no list of them.
            InputError: no template, or one without {label}.
            InputError, InputTypeError: as `label_sets`.
        """
        read = texts(given)
        sets, known = label_sets(labels, len(read), **grouping)
        return cls(read, sets, known, _templates(template))


def limits(thresholds: Any, known: Sequence[str]) -> Callable[[str, bool], float]:  # noqa: ANN401
    """The least score that a label is accepted with, as a function of the label and whether it is exclusive.

    Args:
        thresholds: "auto", None, a number in 0..1, or a mapping of labels to numbers; those that it leaves out are
            "auto".
        known: all labels.

    Raises:
        InputError: a threshold out of range or no number, or one for an unknown label.
    """
    own: dict[str, float] = {}
    if isinstance(thresholds, Mapping):
        require_known("thresholds", thresholds, known)
        own = {name: _threshold(f"threshold of label {name!r}", value) for name, value in thresholds.items()}
    elif thresholds is None:
        return lambda _name, _exclusive: 0.0
    elif not (isinstance(thresholds, str) and thresholds == "auto"):
        number = _threshold("threshold", thresholds)
        return lambda _name, _exclusive: number
    return lambda name, exclusive: own.get(name, 0.0 if exclusive else _HALF)


def read_shares(shares: Any, known: Sequence[str]) -> list[float]:  # noqa: ANN401
    """The expected share of each label.

    Raises:
        InputTypeError: no mapping.
        InputError: a label that is missing or unknown, or a share that is not between 0 and 1.
    """
    if not isinstance(shares, Mapping):
        message = f"shares must be a mapping of labels to their expected shares, got {shares!r:.80}"
        raise InputTypeError(message)
    require_known("shares", shares, known)
    if missing := [name for name in known if name not in shares]:
        message = f"shares has none for {missing!r:.200}: give one for every label"
        raise InputError(message)
    for name, share in shares.items():
        if not 0 < _threshold(f"share of label {name!r}", share) < 1:
            message = f"share of label {name!r} is {share!r}: expected a number between 0 and 1"
            raise InputError(message)
    return [float(shares[name]) for name in known]


def gold_labels(gold: Any, sets: Sequence[LabelSet]) -> list[set[int]]:  # noqa: ANN401
    """The places of each text's true labels, with those of their parents.

    Raises:
        InputError: gold for another number of texts, or one that is no label of its text.
        InputTypeError: no list.
    """
    read = listed("gold", gold)
    if len(read) != len(sets):
        message = f"gold for {len(read)} texts, but {len(sets)} texts: give a label, a list of them or None for each"
        raise InputError(message)
    truth = []
    for index, (one, names) in enumerate(zip(read, sets, strict=True)):
        true = [] if one is None else [one] if isinstance(one, str) else listed(f"gold of text {index}", one)
        require_known(f"gold of text {index}", true, names.names)
        above = {member: group.parent for group in names.groups for member in group.members}
        places: set[int] = set()
        for name in true:
            place: int | None = names.names.index(name)
            while place is not None:
                places.add(place)
                place = above[place]
        truth.append(places)
    return truth


def _templates(template: Any) -> list[str]:  # noqa: ANN401
    templates = [template] if isinstance(template, str) else listed("template", template)
    for index, one in enumerate(templates):
        if not isinstance(one, str):
            message = f"template {index} must be a text, got {one!r:.80}"
            raise InputTypeError(message)
        if "{label}" not in one:
            message = f"template {one!r:.200} has no {{label}} in it: every label would be the same hypothesis"
            raise InputError(message)
    if not templates:
        message = "template is an empty list: give at least one text with {label} in it"
        raise InputError(message)
    return templates


def _threshold(what: str, value: Any) -> float:  # noqa: ANN401
    if not is_number(value) or not 0 <= value <= 1:
        message = f"{what} {value!r}: expected a number in 0..1"
        raise InputError(message)
    return float(value)
