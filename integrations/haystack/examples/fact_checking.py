"""Sort retrieved documents into those that back a claim, those that contradict it, and the rest.

Two EvidenceFilters share one model; both see what BM25 found, in its order. Run: python examples/fact_checking.py
"""

from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack_integrations.components.rankers.rerank_nli import EvidenceFilter

from rerank_nli import NLIReranker

REPORTS = [
    "The Marlow bridge was closed to lorries after the flood in May.",
    "After the May flood, no lorry was allowed to cross the Marlow bridge.",
    "The Marlow bridge stayed open to all lorries after the flood in May.",
    "Lorries crossed the Marlow bridge on every day after the flood.",
    "The flood reached the lower steps of the Marlow town hall.",
]


def check(claim: str) -> dict[str, list[Document]]:
    """What the reports say about a claim: "for" it and "against" it."""
    store = InMemoryDocumentStore()
    store.write_documents([Document(content=text) for text in REPORTS])
    reranker = NLIReranker()
    pipeline = Pipeline()
    pipeline.add_component("retriever", InMemoryBM25Retriever(store))
    pipeline.add_component("for", EvidenceFilter(threshold=0.4, reranker=reranker))
    pipeline.add_component("against", EvidenceFilter(threshold=0.4, keep="contradiction", reranker=reranker))
    pipeline.connect("retriever.documents", "for.documents")
    pipeline.connect("retriever.documents", "against.documents")
    found = pipeline.run({name: {"query": claim} for name in ("retriever", "for", "against")})
    return {side: found[side]["documents"] for side in ("for", "against")}


if __name__ == "__main__":
    for side, documents in check("Lorries were not allowed on the Marlow bridge after the flood.").items():
        print(f"{side}:")
        for document in documents:
            judged = ", ".join(f"{name} {document.meta[f'nli_{name}']:.2f}" for name in ("entailment", "contradiction"))
            print(f"  {document.content} ({judged})")
