"""Answer a question from a small guide book, citing the documents that the answer stands on.

BM25 retrieves, NLIRanker puts first what bears the question out, a prompt numbers the best two, and AnswerBuilder reads
the citations of the reply. The language model is a stand-in that quotes the first document of its prompt: put your own
generator in its place. Run: python examples/rag_with_citations.py
"""

from haystack import Document, GeneratedAnswer, Pipeline, component
from haystack.components.builders import AnswerBuilder, PromptBuilder
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack_integrations.components.rankers.rerank_nli import NLIRanker

GUIDE = [
    "The lighthouse on Skerry Point was painted white and red in 1931.",
    "Visitors may climb the lighthouse on Skerry Point from April to September.",
    "The lighthouse keeper's cottage on Skerry Point is closed to visitors.",
    "Skerry Point has a cafe, a car park and a beach of grey pebbles.",
]
TEMPLATE = """Answer from these documents and cite them by number.
{% for document in documents %}[{{ loop.index }}] {{ document.content }}
{% endfor %}Question: {{ query }}
"""


@component
class QuotingGenerator:
    """Stands in for a language model: its reply is the first document of the prompt, with its number."""

    @component.output_types(replies=list[str])
    def run(self, prompt: str) -> dict[str, list[str]]:
        """Reply to a prompt."""
        number, quote = prompt.splitlines()[1].split(" ", maxsplit=1)
        return {"replies": [f"{quote} {number}"]}


def build() -> Pipeline:
    """Retriever, ranker, prompt, generator and answer in one pipeline."""
    store = InMemoryDocumentStore()
    store.write_documents([Document(content=text) for text in GUIDE])
    pipeline = Pipeline()
    pipeline.add_component("retriever", InMemoryBM25Retriever(store))
    pipeline.add_component("ranker", NLIRanker(top_k=2))
    pipeline.add_component("prompt", PromptBuilder(TEMPLATE, required_variables="*"))
    pipeline.add_component("generator", QuotingGenerator())
    pipeline.add_component("answer", AnswerBuilder(reference_pattern=r"\[(\d+)\]"))
    pipeline.connect("retriever.documents", "ranker.documents")
    pipeline.connect("ranker.documents", "prompt.documents")
    pipeline.connect("ranker.documents", "answer.documents")
    pipeline.connect("prompt.prompt", "generator.prompt")
    pipeline.connect("generator.replies", "answer.replies")
    return pipeline


def ask(question: str) -> GeneratedAnswer:
    """The answer to a question, with the documents that it cites."""
    to_all = {name: {"query": question} for name in ("retriever", "ranker", "prompt", "answer")}
    answer: GeneratedAnswer = build().run(to_all)["answer"]["answers"][0]
    return answer


if __name__ == "__main__":
    found = ask("When can the lighthouse on Skerry Point be climbed?")
    print(found.data)
    for cited in found.documents:
        print(f"  entailment {cited.score:.2f}, BM25 {cited.meta['retrieval_score']:.2f}: {cited.content}")
