"""What `predict` gives back: the rows of pairs as arrays, names or tables, with or without a label."""

from __future__ import annotations

from itertools import count, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from rerank_nli import inputs
from rerank_nli.errors import InputError, is_number, require
from rerank_nli.labels import COLUMNS, NOT_ENTAILMENT
from rerank_nli.ranking import named

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rerank_nli.scorer import Scorer
    from rerank_nli.scores import FloatArray

__all__ = ["OUTPUTS", "check_abstention", "rows", "stream"]

OUTPUTS = ("array", "logits", "dicts", "labels", "frame")
_CHUNK = 1024  # pairs of a generator that are scored at a time
_HALF = 0.5


def check_abstention(least: float | None, output: str) -> float | None:
    """The probability below which no label is given, if it is one and the output has labels."""
    if least is None:
        return None
    if not is_number(least) or not 0 <= least <= 1:
        message = f"abstain_below={least!r}: expected a probability in 0..1"
        raise InputError(message)
    if output in ("array", "logits"):
        message = f"abstain_below={least!r} decides on labels, and output={output!r} has none: use 'labels' or 'dicts'"
        raise InputError(message)
    return float(least)


def rows(scorer: Scorer, pairs: Sequence[tuple[str, str]], output: str, least: float | None, first: int = 0) -> Any:  # noqa: ANN401 - it follows `output`
    """The rows of (premise, hypothesis) texts in one of OUTPUTS; `first` is what an error calls the first pair."""
    logits, p = scorer.predict(pairs, first)  # (n, C), (n, 3)
    if output == "logits":
        return logits
    if output == "array":
        return p.astype(np.float32)
    labels = _labels(p, least, binary=scorer.engine.labels.binary)
    if output == "labels":
        return labels
    dicts: list[dict[str, Any]] = [named(row)._asdict() for row in p]
    columns = list(COLUMNS)
    if least is not None:
        columns.append("label")
        dicts = [{**row, "label": label} for row, label in zip(dicts, labels, strict=True)]
    return dicts if output == "dicts" else require("pandas", "eval").DataFrame(dicts, columns=columns)


def stream(scorer: Scorer, pairs: Iterator[Any], output: str, least: float | None) -> Iterator[Any]:
    """The rows of pairs that are read as they are needed."""
    numbered = (inputs.pair(f"pair {index}", pair) for index, pair in enumerate(pairs))
    for first in count(step=_CHUNK):
        chunk = list(islice(numbered, _CHUNK))
        if not chunk:
            return
        yield from rows(scorer, chunk, output, least, first)


def _labels(p: FloatArray, least: float | None, *, binary: bool) -> list[str]:
    """The likeliest label of each row of p, (n, 3), or "abstain"."""
    if binary:
        entailment = p[:, 0]
        labels: list[str] = [COLUMNS[0] if e >= _HALF else NOT_ENTAILMENT for e in entailment]
        highest = np.maximum(entailment, 1 - entailment)
    else:
        labels = [COLUMNS[i] for i in p.argmax(axis=1)]
        highest = p.max(axis=1)
    if least is None:
        return labels
    return ["abstain" if h < least else label for h, label in zip(highest, labels, strict=True)]
