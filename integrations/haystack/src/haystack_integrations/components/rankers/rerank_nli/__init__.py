"""Haystack components that rank and filter documents by whether they entail the query."""

from haystack_integrations.components.rankers.rerank_nli.evidence_filter import EvidenceFilter
from haystack_integrations.components.rankers.rerank_nli.ranker import NLIRanker

__all__ = ["EvidenceFilter", "NLIRanker"]
