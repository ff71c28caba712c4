"""Keep of the retrieved nodes only those that support a claim or contradict it, and give a verdict on it."""

from __future__ import annotations

from llama_index.core import VectorStoreIndex
from llama_index.core.schema import QueryBundle, TextNode
from llama_index.postprocessor.rerank_nli import EvidenceFilter
from offline import WordEmbedding

from rerank_nli import NLIReranker

NODES = [
    TextNode(text="The Marrow tunnel is open to cyclists at all hours.", id_="website"),
    TextNode(text="Cyclists may not use the Marrow tunnel.", id_="sign"),
    TextNode(text="The Marrow tunnel is 900 metres long.", id_="survey"),
    TextNode(text="The cycling club was founded in 1987.", id_="club"),
]
CLAIM = "The Marrow tunnel is open to cyclists."


def main() -> None:
    """Print the evidence on each side, and what comes of it."""
    reranker = NLIReranker()
    retriever = VectorStoreIndex(NODES, embed_model=WordEmbedding()).as_retriever(similarity_top_k=4)
    evidence_filter = EvidenceFilter(threshold=0.5, keep="evidence", reranker=reranker)
    evidence = evidence_filter.postprocess_nodes(retriever.retrieve(CLAIM), QueryBundle(CLAIM))
    print("evidence:", *(node.node_id for node in evidence))
    verdict = reranker.verify(CLAIM, [(node.node_id, node.text) for node in evidence])
    print("supporting:", *(passage.id for passage in verdict.supporting))
    print("refuting:", *(passage.id for passage in verdict.refuting))
    print("verdict:", verdict.label)


if __name__ == "__main__":
    main()
