"""Answer from reranked nodes, check each sentence of the answer against them, and cite what supports it."""

from __future__ import annotations

from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.postprocessor.rerank_nli import NLIRerank
from offline import CannedLLM, WordEmbedding

from rerank_nli import NLIReranker

NODES = [
    TextNode(text="The Corvane lighthouse was built in 1874 by the engineer Ada Lindqvist.", id_="history"),
    TextNode(text="The lamp of the Corvane lighthouse was changed from oil to electric light in 1931.", id_="lamp"),
    TextNode(text="Visitors climb 214 steps to the gallery of the Corvane lighthouse.", id_="visit"),
    TextNode(text="The Corvane lighthouse was not built by Henrik Aalto, who only painted it.", id_="painter"),
    TextNode(
        text="When was the Corvane lighthouse built, and who built it, is a question in the local quiz.", id_="quiz"
    ),
]
QUESTION = "Who built the Corvane lighthouse, and when?"
ANSWER = "Ada Lindqvist built the Corvane lighthouse in 1874. It was closed to visitors last year."


def main() -> None:
    """Print the answer with the ids of the nodes that support it, and mark what none supports."""
    reranker = NLIReranker()  # one model, for ranking and for checking
    index = VectorStoreIndex(NODES, embed_model=WordEmbedding())
    engine = index.as_query_engine(
        llm=CannedLLM(answer=ANSWER),
        similarity_top_k=5,
        node_postprocessors=[NLIRerank(top_n=3, reranker=reranker)],
    )
    response = engine.query(QUESTION)
    sources = [{"id": node.node_id, "text": node.text} for node in response.source_nodes]
    for verdict in reranker.check(str(response), sources):
        cited = ", ".join(passage.id for passage in verdict.supporting)
        print(f"{verdict.claim} [{cited or 'no source says so'}]")


if __name__ == "__main__":
    main()
