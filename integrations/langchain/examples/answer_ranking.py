"""Sentences ranked by whether they answer a question, as a step of a chain, several questions at once."""

from __future__ import annotations

from langchain_core.documents import Document
from langchain_core.runnables import RunnablePassthrough
from langchain_rerank_nli import NLIRerank

SENTENCES = [
    "Bees dance to tell each other where flowers are.",
    "Bees make honey from nectar.",
    "A hive may hold fifty thousand bees.",
    "Bees have five eyes.",
    "A queen can live for five years.",
]
QUESTIONS = ["How many eyes does a bee have?", "Why do bees dance?", "What do bees make honey from?"]


def main() -> None:
    """Print the best sentence for each question."""
    documents = [Document(text) for text in SENTENCES]
    chain = {"query": RunnablePassthrough(), "documents": lambda _: documents} | NLIRerank(top_n=1).as_runnable()
    for question, found in zip(QUESTIONS, chain.batch(QUESTIONS), strict=True):
        print(f"{found[0].metadata['relevance_score']:.2f}  {question}  {found[0].page_content}")


if __name__ == "__main__":
    main()
