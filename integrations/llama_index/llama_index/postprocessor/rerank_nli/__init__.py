"""LlamaIndex node postprocessors that rank and filter nodes by whether they entail the query."""

from llama_index.postprocessor.rerank_nli.base import EvidenceFilter, NLIRerank

__all__ = ["EvidenceFilter", "NLIRerank"]
