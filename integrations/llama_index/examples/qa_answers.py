"""Order candidate answers to a question by how well the reranked nodes support each."""

from __future__ import annotations

from llama_index.core import VectorStoreIndex
from llama_index.core.schema import QueryBundle, TextNode
from llama_index.postprocessor.rerank_nli import NLIRerank
from offline import WordEmbedding

from rerank_nli import NLIReranker

NODES = [
    TextNode(text="The opera The Glass Orchard was composed by Ines Halloran.", id_="programme"),
    TextNode(text="Tomas Brandt wrote the words of The Glass Orchard.", id_="libretto"),
    TextNode(text="Marta Quill conducted the first performance of The Glass Orchard.", id_="premiere"),
    TextNode(text="The orchard behind the opera house has apples and pears.", id_="garden"),
]
QUESTION = "Who composed The Glass Orchard?"
ANSWERS = ["Tomas Brandt", "Marta Quill", "Ines Halloran"]


def main() -> None:
    """Print the answers, best first, each with the node that speaks most for it."""
    reranker = NLIReranker()
    retriever = VectorStoreIndex(NODES, embed_model=WordEmbedding()).as_retriever(similarity_top_k=4)
    nodes = NLIRerank(top_n=3, reranker=reranker).postprocess_nodes(retriever.retrieve(QUESTION), QueryBundle(QUESTION))
    for ranked in reranker.rank_answers(QUESTION, ANSWERS, [(node.node_id, node.text) for node in nodes]):
        print(f"{ranked.score:.2f} {ranked.answer} [{ranked.evidence[0].id}]")


if __name__ == "__main__":
    main()
