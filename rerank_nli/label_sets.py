"""Which labels a text may get: their names and wordings, which exclude each other, which depends on which."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rerank_nli.errors import InputError, InputTypeError
from rerank_nli.inputs import listed

__all__ = ["Group", "LabelSet", "label_names", "label_sets", "require_known"]


class Group(NamedTuple):
    """Labels that are scored together: places in a label set."""

    members: tuple[int, ...]
    exclusive: bool
    parent: int | None


@dataclass(frozen=True, slots=True)
class LabelSet:
    """The labels of a text.

    Attributes:
        names: the labels.
        wordings: what stands for each in a template.
        groups: every label is in one; a parent's group stands before its children's.
    """

    names: tuple[str, ...]
    wordings: tuple[str, ...]
    groups: tuple[Group, ...]

    @property
    def structure(self) -> dict[str, Any]:
        """Labels, wordings and groups in a form that does not depend on their order."""
        groups = [
            {"labels": sorted(self.names[i] for i in group.members), "exclusive": group.exclusive}
            for group in self.groups
        ]
        return {
            "wordings": dict(sorted(zip(self.names, self.wordings, strict=True))),
            "groups": sorted((g for g in groups if g["exclusive"]), key=lambda g: str(g["labels"])),
        }


def label_sets(
    labels: Any,  # noqa: ANN401
    texts: int,
    *,
    multi_label: bool,
    exclusive: Any,  # noqa: ANN401
    parents: Any,  # noqa: ANN401
) -> tuple[list[LabelSet], tuple[str, ...]]:
    """Read the labels of each text.

    Args:
        labels: a list of names, a mapping of names to wordings, or a list with one of these for each text.
        texts: how many there are.
        multi_label: whether labels that are in no exclusive group stand alone; else they exclude their siblings.
        exclusive: lists of labels that exclude each other, or None.
        parents: a mapping of labels to their parents, or None.

    Returns:
        One for each text, equal ones one object; and all labels in the order they came in.

    Raises:
        InputError: no labels, a blank one or one twice; lists of another number than texts; an unknown label in
            `exclusive` or `parents`; a label in two groups; a group with several parents; a circle of parents.
        InputTypeError: something that is no label, no list of them or no mapping.
    """
    named = _named_labels(labels, texts)
    known = {name: None for names in named for name in names}  # in their order
    above = _parents(parents, known)
    group_of = _exclusive(exclusive, known, above)
    made: dict[tuple[tuple[str, str], ...], LabelSet] = {}
    sets = []
    for index, names in enumerate(named):
        key = tuple(names.items())
        if key not in made:
            made[key] = LabelSet(
                tuple(names), tuple(names.values()), _groups(index, list(names), above, group_of, multi_label)
            )
        sets.append(made[key])
    return sets[:texts], tuple(known)


def label_names(labels: Any, of: str = "") -> dict[str, str]:  # noqa: ANN401
    """Read one set of labels: their names, and the words that stand for them.

    Args:
        labels: a list of names, or a mapping of names to wordings.
        of: whose they are, as an error says it after "labels".

    Raises:
        InputError: no labels, a blank one or one twice.
        InputTypeError: something that is no text, or no list of them.
    """
    mapped = isinstance(labels, Mapping)
    pairs = list(labels.items()) if mapped else [(name, name) for name in listed(f"labels{of}", labels)]
    if not pairs:
        message = f"labels{of}: there is none, and a text is classified by at least one"
        raise InputError(message)
    seen: dict[str, int] = {}
    for index, pair in enumerate(pairs):
        for text in pair:
            if not isinstance(text, str) or not text.strip():
                message = f"label {index}{of} must be a text that is not blank, got {text!r:.80}"
                raise InputError(message) if isinstance(text, str) else InputTypeError(message)
        first = seen.setdefault(pair[0].strip(), index)
        if first != index:
            message = f"labels {first} and {index}{of} are both {pair[0]!r}: leave one out"
            raise InputError(message)
    return dict(pairs)


def require_known(what: str, names: Iterable[Any], known: Iterable[str]) -> None:
    """Refuse names that are no labels.

    Raises:
        InputError: one of `names` is none of `known`.
    """
    labels = list(known)
    for name in names:
        if name not in labels:
            message = f"{what} names {name!r:.80}, which is no label: expected some of {labels!r:.400}"
            raise InputError(message)


def _is_set(one: Any) -> bool:  # noqa: ANN401
    return isinstance(one, Iterable) and not isinstance(one, str | bytes)


def _named_labels(labels: Any, texts: int) -> list[dict[str, str]]:  # noqa: ANN401
    """Names and wordings of the labels of each text."""
    if not isinstance(labels, Mapping):
        labels = listed("labels", labels)
    if isinstance(labels, Mapping) or ((labels or texts) and not any(map(_is_set, labels))):
        return [label_names(labels)] * max(texts, 1)  # they are checked where there is no text, too
    if len(labels) != texts:
        message = f"{len(labels)} lists of labels, but {texts} texts: give one list for each text, or one for all"
        raise InputError(message)
    return [label_names(one, f" of text {i}") for i, one in enumerate(labels)]


def _parents(parents: Any, known: Iterable[str]) -> dict[str, str]:  # noqa: ANN401
    if parents is None:
        return {}
    if not isinstance(parents, Mapping):
        message = f"parents must be a mapping of labels to their parents, got {parents!r:.80}"
        raise InputTypeError(message)
    require_known("parents", (name for pair in parents.items() for name in pair), known)
    above = dict(parents)
    for name in above:
        chain = [name]
        while chain[-1] in above:
            chain.append(above[chain[-1]])
            if chain[-1] in chain[:-1]:
                message = f"parents go in a circle: {' → '.join(chain)}"
                raise InputError(message)
    return above


def _exclusive(exclusive: Any, known: Iterable[str], above: Mapping[str, str]) -> dict[str, int]:  # noqa: ANN401
    """The number of the group that a label is in."""
    group_of: dict[str, int] = {}
    for number, group in enumerate([] if exclusive is None else listed("exclusive", exclusive)):
        names = listed(f"exclusive group {number}", group)
        require_known(f"exclusive group {number}", names, known)
        for name in names:
            if name in group_of:
                message = f"label {name!r} is in exclusive group {group_of[name]} and in group {number}: leave one out"
                raise InputError(message)
            group_of[name] = number
        if len({above.get(name) for name in names}) > 1:
            message = f"exclusive group {number} has labels below different parents: {names!r:.200}"
            raise InputError(message)
    return group_of


def _groups(
    index: int,
    names: Sequence[str],
    above: Mapping[str, str],
    group_of: Mapping[str, int],
    multi_label: bool,  # noqa: FBT001 - the one call site is above
) -> tuple[Group, ...]:
    places = {name: place for place, name in enumerate(names)}
    members: dict[tuple[str | None, int | None], list[int]] = {}
    for name in names:
        parent = above.get(name)
        if parent is not None and parent not in places:
            message = f"the labels of text {index} hold {name!r} without its parent {parent!r}: add that"
            raise InputError(message)
        members.setdefault((parent, group_of.get(name)), []).append(places[name])

    def depth(key: tuple[str | None, int | None]) -> int:
        return 0 if key[0] is None else 1 + depth((above.get(key[0]), None))

    return tuple(
        Group(
            tuple(members[key]),
            # a label that has nothing to exclude would get all of the probability whatever the text says
            exclusive=len(members[key]) > 1 and not (multi_label and key[1] is None),
            parent=None if key[0] is None else places[key[0]],
        )
        for key in sorted(members, key=depth)
    )
