"""The standard tests that LangChain has for retrievers, over its in-memory vector store and the bundled model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_rerank_nli import NLIRerankRetriever
from langchain_tests.integration_tests import RetrieversIntegrationTests

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

    from rerank_nli import NLIReranker

TEXTS = ["The ferry sails at noon.", "Gulls cry.", "No ferry sails at noon.", "The pier is of oak.", "Nets dry there."]


class TestNLIRerankRetriever(RetrieversIntegrationTests):
    """Every standard test, none left out."""

    @pytest.fixture(autouse=True)
    def _store(self, words: Embeddings, bundled: NLIReranker) -> None:
        self.store = InMemoryVectorStore(words)
        self.store.add_documents([Document(text) for text in TEXTS])
        self.reranker = bundled

    @property
    def retriever_constructor(self) -> type[NLIRerankRetriever]:
        """The retriever under test."""
        return NLIRerankRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        """A vector store below it."""
        return {"base_retriever": self.store.as_retriever(search_kwargs={"k": 5}), "reranker": self.reranker}

    @property
    def retriever_query_example(self) -> str:
        """A query that the store can answer."""
        return "When does the ferry sail?"
