"""Nodes whose texts state the probabilities that a stand-in engine reads from them."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from llama_index.core.schema import NodeWithScore, TextNode

from rerank_nli import FunctionEngine, NLIReranker

if TYPE_CHECKING:
    from collections.abc import Sequence

CLAIM = "The ferry sails at noon."


def stated(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
    """Logits of "e=0.8,c=0.1" in a premise; a premise that states nothing is neutral."""
    rows = []
    for premise, _ in pairs:
        found = re.search(r"e=([\d.]+),c=([\d.]+)", premise)
        e, c = (float(p) for p in found.groups()) if found else (0.01, 0.01)
        rows.append([math.log(p) for p in (e, 1 - e - c, c)])
    return rows


def failing(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
    """Scores nothing."""
    message = f"no power for {len(pairs)} pairs"
    raise RuntimeError(message)


def stating() -> NLIReranker:
    """A reranker that reads the probabilities from the texts."""
    return NLIReranker(FunctionEngine(stated))


def nodes_of(*texts: str, scores: Sequence[float | None] | None = None) -> list[NodeWithScore]:
    """A node for each text, n0, n1, …, with retrieval scores if there are any."""
    return [
        NodeWithScore(node=TextNode(text=text, id_=f"n{i}"), score=scores[i] if scores else None)
        for i, text in enumerate(texts)
    ]


def ids(nodes: Sequence[NodeWithScore]) -> list[str]:
    """Their ids, in order."""
    return [node.node_id for node in nodes]
