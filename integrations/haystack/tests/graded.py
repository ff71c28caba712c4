"""An engine that reads the probabilities off the document: "entails 0.7 refutes 0.2"."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from haystack import Document

from rerank_nli import FunctionEngine, NLIReranker

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

CLAIM = "The ferry sails at noon."


def probabilities(premise: str) -> list[float]:
    """P(entailment), P(neutral), P(contradiction) that a text states; where it states none, it is neutral."""
    stated = [re.search(rf"{verb} (0\.\d+)", premise) for verb in ("entails", "refutes")]
    entailment, contradiction = (float(found[1]) if found else 0.01 for found in stated)
    return [entailment, 1 - entailment - contradiction, contradiction]


def logits(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
    """Logits whose softmax is what the premises state."""
    return [np.log(probabilities(premise)).tolist() for premise, _ in pairs]


def graded(**settings: Any) -> NLIReranker:
    """A reranker with the engine of this module."""
    return NLIReranker(FunctionEngine(logits), **settings)


def documents(*stated: tuple[float, float] | float, scores: Sequence[float | None] = ()) -> list[Document]:
    """Documents that state (entailment, contradiction), or entailment alone, with retrieval scores if any are given."""
    pairs = [pair if isinstance(pair, tuple) else (pair, 0.01) for pair in stated]
    given = scores or [None] * len(pairs)
    return [
        Document(id=f"d{i}", content=f"entails {e} refutes {c}", score=score, meta={"place": i})
        for i, ((e, c), score) in enumerate(zip(pairs, given, strict=True))
    ]


def places(found: Sequence[Document]) -> list[int]:
    """Where in the input each document stood."""
    return [document.meta["place"] for document in found]
