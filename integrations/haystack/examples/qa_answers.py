"""Order the candidate answers to a question by how well the documents support each.

NLIRanker narrows what was retrieved; `rank_answers` of the same NLIReranker makes a statement of the question and each
answer, and looks for a document that entails it. Run: python examples/qa_answers.py
"""

from haystack import Document, GeneratedAnswer
from haystack_integrations.components.rankers.rerank_nli import NLIRanker

from rerank_nli import NLIReranker

DOCUMENTS = [
    Document(content="The sonata in the drawer was composed by Ilse Brandt in the winter of 1911."),
    Document(content="Oskar Brandt, her brother, played the sonata at its first performance."),
    Document(content="The drawer also held a pocket watch and two train tickets."),
]


def rank(question: str, candidates: list[str]) -> list[GeneratedAnswer]:
    """The candidates, best first, each with its score and the document that supports it most."""
    reranker = NLIReranker()
    documents = NLIRanker(top_k=2, reranker=reranker).run(question, DOCUMENTS)["documents"]
    texts = [document.content or "" for document in documents]
    return [
        GeneratedAnswer(ranked.answer, question, [documents[ranked.evidence[0].index]], {"score": ranked.score})
        for ranked in reranker.rank_answers(question, candidates, texts)
    ]


if __name__ == "__main__":
    for answer in rank("Who composed the sonata?", ["Oskar Brandt", "Ilse Brandt", "A pocket watch"]):
        print(f"{answer.meta['score']:.2f} {answer.data}: {answer.documents[0].content}")
