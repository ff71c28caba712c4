"""What bears on a claim, for it or against it, kept; what merely speaks of the same thing, dropped."""

from __future__ import annotations

from langchain_core.documents import Document
from langchain_rerank_nli import NLIRerank

CLAIM = "The council decided to keep the tram line open."
REPORTS = [
    "Trams have run through the old town since 1908.",
    "The city council voted on Monday to keep the tram line open until at least 2030.",
    "Members of the council are elected every five years.",
    "The tram line will be closed at the end of this year, the council decided on Monday.",
    "A new tram stop was built beside the hospital.",
]


def main() -> None:
    """Filter, and say which way each report points."""
    evidence = NLIRerank(threshold=0.5, keep="evidence")
    for document in evidence.compress_documents([Document(text) for text in REPORTS], CLAIM):
        supports = document.metadata["nli_entailment"] > document.metadata["nli_contradiction"]
        print("supports:" if supports else "refutes: ", document.page_content)


if __name__ == "__main__":
    main()
