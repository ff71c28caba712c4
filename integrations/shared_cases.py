"""One table of cases for all adapters: each must give what NLIReranker itself gives for the same settings.

Adapters order by entailment alone unless they are told to fuse, as `NLIReranker` does, whatever scores the input has.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rerank_nli import NLIReranker

_FERRY = "The last ferry leaves the island at nine in the evening."
_TEXTS = (
    "Ferries from the island run until 9 p.m., and none later.",
    "No ferry leaves the island after five in the afternoon.",
    "The island has two bakeries and a lighthouse.",
    "The last ferry of the day leaves the island at nine in the evening, when the lamps on the pier are lit.",
)
_RETRIEVED = (0.2, 0.9, 0.8, 0.1)


class Case(NamedTuple):
    """Settings, input and, from NLIReranker, the expected output."""

    name: str
    query: str
    texts: tuple[str, ...]
    settings: Mapping[str, Any] = MappingProxyType({})
    top_n: int | None = None
    threshold: float | None = None
    keep: str = "entailment"
    retrieval_scores: tuple[float, ...] | None = None
    fuse: str | None = None

    def expected(self, reranker: NLIReranker) -> list[tuple[int, float]]:
        """(index in the input, score) of what is kept, best first, from a reranker with the case's settings."""
        fusion: dict[str, Any] = {"retrieval_scores": self.retrieval_scores, "fuse": self.fuse} if self.fuse else {}
        kept = reranker.filter(self.query, self.texts, self.threshold, self.keep, self.top_n, **fusion).kept
        return [(p.index, p.score) for p in kept]


CASES = (
    Case("defaults", _FERRY, _TEXTS),
    Case("top_n", _FERRY, _TEXTS, top_n=2),
    Case("top_n over the number of texts", _FERRY, _TEXTS, top_n=50),
    Case("threshold", _FERRY, _TEXTS, threshold=0.5),
    Case("threshold zero keeps all", _FERRY, _TEXTS, threshold=0.0),
    Case("threshold that nothing passes", _FERRY, _TEXTS, threshold=1.0),
    Case("contradictions", _FERRY, _TEXTS, threshold=0.5, keep="contradiction"),
    Case("evidence", _FERRY, _TEXTS, threshold=0.5, keep="evidence"),
    Case("margin", _FERRY, _TEXTS, {"score": "margin"}, threshold=0.0),
    Case("logit", _FERRY, _TEXTS, {"score": "logit"}),
    Case("against contradiction", _FERRY, _TEXTS, {"score": "entailment_vs_contradiction"}),
    Case("other direction", _FERRY, _TEXTS, {"direction": "query_entails_passage"}),
    Case("both directions", _FERRY, _TEXTS, {"direction": "bidirectional"}, top_n=3),
    Case("normalized", _FERRY, _TEXTS, {"normalize": "softmax"}),
    Case("duplicates", _FERRY, (_TEXTS[0], _TEXTS[2], _TEXTS[0])),
    Case("blank texts", _FERRY, (_TEXTS[2], "", "   ", _TEXTS[0])),
    Case("nothing", _FERRY, ()),
    Case("one text", _FERRY, _TEXTS[1:2]),
    Case("a question", "When does the last ferry leave?", _TEXTS),
    Case("a long text", _FERRY, (" ".join([_TEXTS[2]] * 60 + [_TEXTS[0]]), _TEXTS[2])),
    Case("retrieval scores", _FERRY, _TEXTS, retrieval_scores=_RETRIEVED),
    Case("linear fusion", _FERRY, _TEXTS, retrieval_scores=_RETRIEVED, fuse="linear"),
    Case("rank fusion and a threshold", _FERRY, _TEXTS, threshold=0.5, retrieval_scores=_RETRIEVED, fuse="rrf"),
)
