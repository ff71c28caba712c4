"""Score pairs, or queries and passages, by entailment on Ray."""

from rerank_nli_ray.cluster import on_cluster
from rerank_nli_ray.scorer import NLIScorer

__all__ = ["NLIScorer", "on_cluster"]
