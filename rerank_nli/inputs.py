"""What callers may pass: queries, passages of several forms, pairs, counts and retrieval scores, checked and read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rerank_nli.errors import InputError, InputTypeError, counted, is_number
from rerank_nli.fusion import Fusion
from rerank_nli.scores import ALPHA, FUSIONS

if TYPE_CHECKING:
    from rerank_nli.scores import FloatArray

__all__ = [
    "check_top_k",
    "fusion",
    "in_cell",
    "limits",
    "listed",
    "pair",
    "query_and_passages",
    "require_folder",
    "retrieval",
    "text_and_id",
    "texts",
    "weights",
    "worded",
]


def in_cell(name: str, value: Any) -> Any:  # noqa: ANN401
    """A list as a row has it: itself, or JSON in a cell of CSV, None where that is empty."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else None
    except (ValueError, RecursionError) as error:
        message = f"{name} are {value!r:.60}: expected a list of them, in CSV as JSON"
        raise InputError(message) from error


def require_folder(out: Path) -> None:
    """Refuse, before the work, a file that could not be written."""
    if not out.parent.is_dir():
        message = f"{out.parent} is no folder: {out} could not be written"
        raise InputError(message)


def query_and_passages(query: Any, passages: Any) -> tuple[Any, Any]:  # noqa: ANN401
    """Both, from two arguments or from one mapping {"query", "candidates"}."""
    if isinstance(query, Mapping):
        if passages is not None or not {"query", "candidates"} <= set(query):
            message = f"a mapping must hold 'query' and 'candidates' and stand alone, got the keys {list(query)}"
            raise InputTypeError(message)
        return query["query"], query["candidates"]
    return query, passages


def listed(what: str, values: Any) -> list[Any]:  # noqa: ANN401
    """Several of something as a list: a text, a mapping or a table is one thing, and refused."""
    one = isinstance(values, str | bytes | Mapping) or hasattr(values, "columns")  # a DataFrame iterates over columns
    one = one or getattr(values, "shape", None) == ()
    if one or not isinstance(values, Iterable):
        message = f"{what} must be a list of them, got {values!r:.80}"
        raise InputTypeError(message)
    return list(values)


def texts(values: Any) -> list[str]:  # noqa: ANN401
    """Several texts as a list."""
    read = listed("texts", values)
    for index, text in enumerate(read):
        if not isinstance(text, str):
            message = f"text {index} must be a text, got {text!r:.80}"
            raise InputTypeError(message)
    return read


def worded(which: str, text: Any) -> str:  # noqa: ANN401
    """A text that is not blank."""
    if isinstance(text, str) and text.strip():
        return text
    message = f"{which} must be a text that is not blank, got {text!r:.80}"
    raise InputError(message) if isinstance(text, str) else InputTypeError(message)


def text_and_id(which: str, passage: Any) -> tuple[str, Any]:  # noqa: ANN401
    """The text of a passage in any of its forms, and its id if it has one."""
    if isinstance(passage, str):
        return passage, None
    if isinstance(passage, Mapping):
        text, found = passage.get("text"), passage.get("id")
    elif type(passage) in (tuple, list) and len(passage) == 2:  # noqa: PLR2004 - (id, text), not a named tuple
        found, text = passage
    else:
        text = getattr(passage, "text", None)
        text = getattr(passage, "page_content", None) if text is None else text
        found = getattr(passage, "id", None)
    if not isinstance(text, str):
        message = (
            f"{which} must be a text, (id, text), a mapping with 'text' or an object with .text or "
            f".page_content, got {passage!r:.80}"
        )
        raise InputTypeError(message)
    return text, found


def pair(which: str, pair: Any) -> tuple[str, str]:  # noqa: ANN401
    """Premise and hypothesis of a pair in either of its forms."""
    if isinstance(pair, Mapping):
        pair = (pair.get("premise"), pair.get("hypothesis"))
    whole = isinstance(pair, tuple | list | np.ndarray) and len(pair) == 2  # noqa: PLR2004
    if not whole or not all(isinstance(text, str) for text in pair):
        message = f"{which} must be (premise, hypothesis) or a mapping with those keys, texts both; got {pair!r:.80}"
        raise InputTypeError(message)
    return pair[0], pair[1]


def check_top_k(top_k: int | None) -> None:
    """Refuse what is no count."""
    if top_k is not None:
        counted("top_k", top_k)


def limits(depth: int | None, budget_ms: float | None) -> tuple[int | None, float | None]:
    """The most passages to score, and the most seconds for it."""
    if depth is not None:
        depth = counted("depth", depth)
    if budget_ms is None:
        return depth, None
    if not is_number(budget_ms) or budget_ms <= 0:
        message = f"budget_ms={budget_ms!r}: expected milliseconds, a number above 0"
        raise InputError(message)
    return depth, float(budget_ms) / 1000


def fusion(fuse: Any) -> str | Fusion | None:  # noqa: ANN401
    """A fusion by its name or as it is, or from its file."""
    if fuse is None or isinstance(fuse, Fusion) or (isinstance(fuse, str) and fuse in FUSIONS):
        return fuse
    if isinstance(fuse, os.PathLike) or (isinstance(fuse, str) and Path(fuse).is_file()):
        return Fusion.load(fuse)
    message = f"unknown fuse {fuse!r}: expected one of {', '.join(map(repr, FUSIONS))}, a Fusion or the file of one"
    raise InputError(message)


def retrieval(
    scores: Iterable[float] | None, wanted: int, fuse: str | Fusion | None = None, alpha: float = ALPHA
) -> FloatArray | None:
    """Retrieval scores as (n,), finite, with what fusing them needs."""
    if fuse is not None:
        if scores is None:
            message = f"fuse={fuse!r:.40} needs retrieval_scores, one for each passage"
            raise InputError(message)
        if not is_number(alpha) or not 0 <= alpha <= 1:
            message = f"alpha={alpha!r}: expected a number in 0..1, the weight of the score against the retriever's"
            raise InputError(message)
    if scores is None:
        return None
    values = listed("retrieval_scores", scores)
    if len(values) != wanted:
        message = f"{len(values)} retrieval_scores, but {wanted} passages: give one score for each passage"
        raise InputError(message)
    for index, score in enumerate(values):
        if not is_number(score):
            message = f"retrieval score {index} must be a finite number, got {score!r}"
            raise InputError(message)
    return np.array(values, dtype=np.float64)


def weights(given: Iterable[float] | None, wanted: int) -> FloatArray:
    """Weights as (n,) that add up to 1, from numbers that are at least 0; None weighs all alike."""
    if not wanted:
        message = "no premises: there is nothing to average"
        raise InputError(message)
    if given is None:
        return np.full(wanted, 1 / wanted)
    values = listed("weights", given)
    if len(values) != wanted:
        message = f"{len(values)} weights, but {wanted} premises: give one weight for each premise"
        raise InputError(message)
    for index, weight in enumerate(values):
        if not is_number(weight) or weight < 0:
            message = f"weight {index} must be a finite number that is at least 0, got {weight!r}"
            raise InputError(message)
    w = np.array(values, dtype=np.float64)
    if not w.any():
        message = "all weights are 0: give at least one premise a weight above 0"
        raise InputError(message)
    w = w / w.max()  # a sum of large ones would overflow
    return w / w.sum()
