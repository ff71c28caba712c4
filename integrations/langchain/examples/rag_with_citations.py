"""A question answered from retrieved documents; each sentence is checked, cited, and written anew if nothing backs it.

The chat model is a fake with two answers in store, of which the first says something that no document says.
"""

from __future__ import annotations

from typing import Any

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_rerank_nli import NLIGroundedness, NLIRerankRetriever

from rerank_nli import NLIReranker

TEXTS = {
    "history.md": "The Corran observatory opened in 1911 on a hill above the bay.",
    "telescope.md": "Its first telescope, a refractor with a lens of 38 centimetres, was built in Leeds.",
    "visits.md": "Visitors may look through the refractor on Friday nights from October to March.",
    "summer.md": "The observatory is closed to visitors in summer, when the nights are too bright.",
    "storm.md": "The dome was repaired in 1987 after a storm had torn off two of its panels.",
    "seals.md": "The bay below the hill is known for its seals.",
}
ANSWERS = [
    "The observatory opened in 1911. Its telescope was built in London.",
    "The observatory opened in 1911. Its telescope was built in Leeds.",
]


class Letters(Embeddings):
    """How often each letter occurs: an embedding that is good for nothing but an example."""

    def embed_query(self, text: str) -> list[float]:
        """26 counts."""
        return [float(text.lower().count(letter)) for letter in "abcdefghijklmnopqrstuvwxyz"]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """26 counts for each text."""
        return [self.embed_query(text) for text in texts]


def cited(report: dict[str, Any]) -> str:
    """The answer, each sentence followed by the source of the document that supports it best."""
    parts = []
    for sentence in report["sentences"]:
        supporting = sentence["supporting"]["passages"]
        source = supporting[0]["source"] if sentence["label"] == "supported" else sentence["label"]
        parts.append(f"{sentence['claim']} [{source}]")
    return " ".join(parts)


def main() -> None:
    """Ask, and ask again until every sentence is supported."""
    store = InMemoryVectorStore(Letters())
    store.add_documents([Document(text, id=name, metadata={"source": name}) for name, text in TEXTS.items()])
    reranker = NLIReranker()  # one model for both
    retriever = NLIRerankRetriever(base_retriever=store.as_retriever(search_kwargs={"k": 6}), k=4, reranker=reranker)
    check = NLIGroundedness(reranker=reranker)
    prompt = ChatPromptTemplate.from_template("Answer from these notes only.\n{notes}\nQuestion: {question}")
    answer = prompt | FakeListChatModel(responses=ANSWERS) | StrOutputParser()

    question = "When did the Corran observatory open, and where was its telescope built?"
    documents = retriever.invoke(question)
    notes = "\n".join(document.page_content for document in documents)
    for _ in ANSWERS:
        text = answer.invoke({"notes": notes, "question": question})
        report = check.invoke({"answer": text, "documents": documents})
        print(f"{report['groundedness']:.0%} grounded: {cited(report)}")
        if report["groundedness"] == 1:
            break


if __name__ == "__main__":
    main()
