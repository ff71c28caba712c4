"""Rank, filter and check LangChain documents by whether they entail the query."""

from langchain_rerank_nli.groundedness import NLIGroundedness
from langchain_rerank_nli.rerank import NLICrossEncoder, NLIRerank, NLIRerankRetriever

__all__ = ["NLICrossEncoder", "NLIGroundedness", "NLIRerank", "NLIRerankRetriever"]
