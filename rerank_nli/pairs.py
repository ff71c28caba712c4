"""Labelled data: what files hold, in the forms that people have them, as pairs or as queries with their passages."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from rerank_nli.errors import InputError
from rerank_nli.inputs import in_cell, listed, retrieval, text_and_id
from rerank_nli.labels import COLUMNS, NOT_ENTAILMENT, label_of
from rerank_nli.rows import read_rows

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from rerank_nli.scores import FloatArray

__all__ = ["SIDES", "Judged", "Pair", "judged", "read_judged", "read_pairs"]

_EMPTY = (None, "")  # a cell that says nothing, in JSON and in CSV
_ROUNDED = 0.02  # what a sum of probabilities may be off by
SIDES = (("premise", "hypothesis"), ("sentence1", "sentence2"), ("sentence_0", "sentence_1"))


class Pair(NamedTuple):
    """A premise and a hypothesis, with what is known of them.

    Attributes:
        label: "entailment", "neutral", "contradiction" or "not_entailment", which is one of the last two; None where
            only `probability` is known, or nothing.
        probability: P(entailment) by a teacher, above 0 and below 1; the rest is neutral.
        source: where the pair is from, for `mix`.
        language: what the row says of it, as "de".
        taught: P(entailment), P(neutral) and P(contradiction) by a teacher, beside the label or in its place.
    """

    premise: str
    hypothesis: str
    label: str | None
    probability: float | None
    source: str
    language: str | None = None
    taught: tuple[float, float, float] | None = None


class Judged(NamedTuple):
    """A query and its passages, each judged.

    Attributes:
        labels: n, 1 for a passage that entails the query, 0 for one that does not.
        retrieval_scores: (n,), None where the retriever's are not known.
    """

    query: str
    passages: list[str]
    labels: list[int]
    retrieval_scores: FloatArray | None


_Read = TypeVar("_Read", Pair, Judged)


def read_pairs(
    path: str | os.PathLike[str], names: Sequence[str] | None = None, *, unlabelled: bool = False
) -> list[Pair]:
    """Read .jsonl, .csv (either with .gz) or .parquet (needs the `parquet` extra).

    Rows are {"premise", "hypothesis", "label"}, or "entailment", a probability, in the place of "label", or
    "entailment", "neutral" and "contradiction", as `rerank-nli score` adds them, beside "label" or in its place; the
    same with "sentence1" and "sentence2", as many NLI data sets have them, or "sentence_0" and "sentence_1", as
    sentence-transformers writes them; or {"query", "passages", "labels"}, where a label of 1 says that the passage
    entails the query and 0 that it does not. All may have a "source", else it is the file's name, and a "language".

    Args:
        path: the file.
        names: what a label that is a number counts in: the names of the checkpoint's outputs.
        unlabelled: whether rows may have neither label nor probability.

    Raises:
        InputError: a row that is none of these, or no rows; the message names file and line.
        OSError: the file cannot be opened.
    """
    path = Path(path)
    source = path.name.split(".")[0]
    return _read(path, "pairs", lambda row: _pairs(row, names, source, unlabelled=unlabelled))


def read_judged(path: str | os.PathLike[str]) -> list[Judged]:
    """Read rows {"query", "passages", "labels"}, perhaps with "retrieval_scores", of .jsonl (or .gz) or .parquet.

    Args:
        path: the file.

    Raises:
        InputError: a row that is none of these, or no rows; the message names file and line.
        OSError: the file cannot be opened.
    """
    return _read(Path(path), "queries", lambda row: [judged(row)])


def judged(row: Mapping[str, Any]) -> Judged:
    """One such row, checked.

    Raises:
        InputError, InputTypeError: something in it is missing, of another length or kind.
    """
    query = _text("query", row.get("query"))
    passages, labels = (listed(name, in_cell(name, row.get(name))) for name in ("passages", "labels"))
    if len(passages) != len(labels):
        message = f"{len(passages)} passages, but {len(labels)} labels"
        raise InputError(message)
    texts = [text_and_id(f"passage {number}", passage)[0] for number, passage in enumerate(passages)]
    for label in labels:
        if label not in (0, 1):
            message = f"labels of passages are 1 (entails the query) or 0, got {label!r}"
            raise InputError(message)
    scores = retrieval(in_cell("retrieval_scores", row.get("retrieval_scores")), len(passages))
    return Judged(query, texts, [int(label) for label in labels], scores)


def _read(path: Path, what: str, read: Callable[[Mapping[str, Any]], Iterable[_Read]]) -> list[_Read]:
    found: list[_Read] = []
    for number, row in read_rows(path):
        try:
            found.extend(read(row))
        except (TypeError, ValueError, OverflowError) as error:  # noqa: PERF203 - it names the row
            message = f"{path}, row {number}: {error}"
            raise InputError(message) from error
    if not found:
        message = f"{path} holds no {what}"
        raise InputError(message)
    return found


def _pairs(row: Mapping[str, Any], names: Sequence[str] | None, source: str, *, unlabelled: bool) -> Iterator[Pair]:
    source = str(row.get("source") or source)
    language = str(row.get("language") or "").strip() or None
    alone = all(row.get(first) in _EMPTY for first, _ in SIDES)  # a row of a table has the columns of other forms, too
    if row.get("passages") not in _EMPTY or (alone and row.get("query") not in _EMPTY):
        given = judged(row)
        for premise, label in zip(given.passages, given.labels, strict=True):
            yield Pair(premise, given.query, "entailment" if label else NOT_ENTAILMENT, None, source, language)
        return
    sides = max(SIDES, key=lambda names: (row.get(names[0]) not in _EMPTY, names[0] in row))  # the first of the best
    if not set(sides) <= set(row):
        message = f"expected {' and '.join(sides)} among its columns, got {', '.join(map(str, row))}"
        raise InputError(message)
    premise, hypothesis = (_text(side, row[side]) for side in sides)
    taught = _taught(row)
    if row.get("label") not in _EMPTY:
        yield Pair(premise, hypothesis, label_of(row["label"], names), None, source, language, taught)
    elif taught is not None or (unlabelled and row.get("entailment") in _EMPTY):
        yield Pair(premise, hypothesis, None, None, source, language, taught)
    elif all(row.get(column) not in _EMPTY for column in COLUMNS):
        message = f'no "label", and {", ".join(COLUMNS)} are {[row[column] for column in COLUMNS]}: expected a sum of 1'
        raise InputError(message)
    else:
        probability = float(row.get("entailment") or math.nan)
        if not 0 < probability < 1:
            message = f'no "label", and "entailment" is {row.get("entailment")!r}: expected a probability, not 0 or 1'
            raise InputError(message)
        yield Pair(premise, hypothesis, None, probability, source, language)


def _taught(row: Mapping[str, Any]) -> tuple[float, float, float] | None:
    """Three probabilities, made to sum to 1 as rounded ones do not; None where the columns are not there, or other."""
    try:
        p = [float(row[column]) for column in COLUMNS]
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if min(p) < 0 or not abs(sum(p) - 1) < _ROUNDED:
        return None
    entailment, neutral, contradiction = (value / sum(p) for value in p)
    return entailment, neutral, contradiction


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        message = f"{name} is {value!r}: expected a text"
        raise InputError(message)
    return value
