"""What the server reads and writes: the bodies of requests, in the forms that clients of other servers send.

Fields that nothing here uses are allowed and ignored, as each client sends some of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from rerank_nli.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "FORM_NAMES",
    "CheckForm",
    "CohereForm",
    "Document",
    "LabelScore",
    "Nli",
    "PredictForm",
    "Problem",
    "Ranked",
    "RankedV2",
    "Rerank",
    "RerankForm",
    "Result",
    "Text",
    "TextScore",
    "TextsForm",
    "Usage",
    "VerifyForm",
    "read_texts",
]

_Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
Document = str | dict[str, Any]


class _Form(BaseModel):
    """A body; a number is never read from a text, nor a text from a number."""

    model_config = ConfigDict(strict=True, protected_namespaces=())


class CohereForm(_Form):
    """Documents to put in order, as Cohere has it."""

    model: str | None = Field(None, description="A name that /v1/models lists; null is the default.")
    query: str = Field(description="A claim, a question or keywords.", examples=["The kettle is red."])
    documents: list[Document] = Field(
        description='Texts, or objects whose "text", or fields named in rank_fields, are read.',
        examples=[["The kettle is blue.", "The red kettle holds 1.7 litres."]],
    )
    top_n: int | None = Field(None, ge=0, description="Most results; 0 or null is all.")
    return_documents: bool | None = Field(
        None,
        description="Whether each result brings its document; null is true at /rerank and /v1/rerank, false elsewhere.",
    )
    rank_fields: list[str] | None = Field(None, description="Fields of a document that is an object, read in order.")


class RerankForm(CohereForm):
    """Documents to put in order, as Jina, vLLM and Infinity have it too, with what else a reranker can be asked for."""

    direction: Literal["passage_entails_query", "query_entails_passage", "bidirectional"] | None = None
    score: Literal["entailment", "entailment_vs_contradiction", "margin", "logit"] | None = None
    template: str | None = Field(None, description='A text with {query} in it, or "auto".')
    raw_scores: bool | None = Field(None, description="The logit in the place of a score that is not said.")
    threshold: _Finite | None = Field(None, description='Least score of a result; the others come as "dropped".')
    keep: Literal["entailment", "contradiction", "evidence"] | None = Field(
        None, description="What the threshold is held against."
    )


class TextsForm(_Form):
    """Texts to put in order, as Text Embeddings Inference has it; long ones are read in windows, never cut."""

    model: str | None = None
    query: str = Field(examples=["The kettle is red."])
    texts: list[str] = Field(examples=[["The kettle is blue.", "The red kettle holds 1.7 litres."]])
    raw_scores: bool | None = Field(None, description="The logit of the score in its place.")
    return_text: bool | None = Field(None, description="Whether each result brings its text.")
    truncate: bool | None = Field(None, description="Taken and ignored: nothing is cut.")
    truncation_direction: Literal["Left", "Right", "left", "right"] | None = None


FORM_NAMES = ("with documents", "with texts")


def _which(body: Any) -> str:  # noqa: ANN401 - a body, or the form made of one
    fields = body if isinstance(body, dict) else getattr(body, "model_fields_set", ())
    return FORM_NAMES["texts" in fields and "documents" not in fields]


Rerank = Annotated[
    Annotated[RerankForm, Tag(FORM_NAMES[0])] | Annotated[TextsForm, Tag(FORM_NAMES[1])], Discriminator(_which)
]

_Pair = Annotated[list[str], Field(min_length=2, max_length=2)]


class PredictForm(_Form):
    """Pairs of premise and hypothesis, as Text Embeddings Inference has it: one, or a list of them."""

    model: str | None = None
    inputs: _Pair | list[_Pair] = Field(examples=[["A cat naps.", "A cat is sleeping."]])
    raw_scores: bool | None = Field(None, description="Logits in the place of probabilities.")
    truncate: bool | None = None
    truncation_direction: Literal["Left", "Right", "left", "right"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _only_pairs(cls, body: Any) -> Any:  # noqa: ANN401
        """Say in one sentence what the inputs must be, in the place of what each form of them lacks."""
        inputs = body.get("inputs") if isinstance(body, dict) else None
        alone = isinstance(inputs, list) and any(isinstance(one, str) for one in inputs)
        pairs = [inputs] if alone else inputs
        if isinstance(body, dict) and (
            not isinstance(pairs, list)
            or not all(isinstance(p, list) and len(p) == 2 and all(isinstance(t, str) for t in p) for p in pairs)  # noqa: PLR2004
        ):
            message = '"inputs" must be a pair [premise, hypothesis] of texts, or a list of such pairs'
            raise ValueError(message)
        return body


class VerifyForm(_Form):
    """A claim, and what is held against it."""

    model: str | None = None
    claim: str = Field(examples=["The kettle is red."])
    passages: list[Document] = Field(examples=[["The kettle is blue."]])
    threshold: _Probability = 0.5


class CheckForm(_Form):
    """An answer, each sentence of which is a claim if it states something: no question, heading or code."""

    model: str | None = None
    answer: str = Field(examples=["The kettle is red. It holds 1.7 litres."])
    passages: list[Document] = Field(examples=[["The red kettle holds 1.7 litres."]])
    threshold: _Probability = 0.5


def read_texts(what: str, documents: Sequence[Document], fields: Sequence[str] | None = None) -> list[str]:
    """The text of each document; of an object that of its fields, each once, joined by line breaks.

    Raises:
        InputError: an object has no such text; the message says which one.
    """
    return [
        document if isinstance(document, str) else _joined(f"{what} {place}", document, fields or ["text"])
        for place, document in enumerate(documents)
    ]


def _joined(which: str, document: dict[str, Any], fields: Sequence[str]) -> str:
    found = [document[name] for name in dict.fromkeys(fields) if document.get(name) is not None]
    if not found or not all(isinstance(text, str) for text in found):
        message = f"{which} is an object without a text in {', '.join(map(repr, fields))}: give it, or a text instead"
        raise InputError(message)
    return "\n".join(found)


class Problem(BaseModel):
    """Why a request was not answered, under each name that a client looks for."""

    message: str
    detail: str
    error: str
    error_type: str
    id: str = Field(description="Of the request, as in X-Request-ID.")


class TextScore(BaseModel):
    """A result of `texts`."""

    index: int
    score: float
    text: str | None = None


class LabelScore(BaseModel):
    """A label of the model's, and how likely it is, or its logit."""

    label: str
    score: float


class Text(BaseModel):
    """A document that is returned."""

    text: str


class Nli(BaseModel):
    """What the model says of a document: null is what a two-label model cannot say."""

    entailment: float
    neutral: float | None
    contradiction: float | None
    span: tuple[int, int]
    refutation: float | None
    refutation_span: tuple[int, int] | None
    windows: int


class Result(BaseModel):
    """A document's place in the request and its score; in /infinity/rerank the document is its text alone."""

    index: int
    relevance_score: float
    document: Text | str | None = None
    nli: Nli | None = None


class Usage(BaseModel):
    """Tokens that the model read: none for pairs that it remembered."""

    prompt_tokens: int
    total_tokens: int


class Ranked(BaseModel):
    """Documents, best first."""

    id: str
    object: str
    model: str
    results: list[Result]
    dropped: list[Result] | None = None
    usage: Usage
    meta: dict[str, Any]


class RankedV2(BaseModel):
    """Documents, best first, as Cohere's second version has it."""

    id: str
    results: list[Result]
    meta: dict[str, Any]
