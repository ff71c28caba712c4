"""Each route of the server gives the library's own scores, in the form that its clients know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jsonschema
import numpy as np
import pytest
from bounds import INT8
from serving import CLAIM, PASSAGES, Served, close_to, served

from rerank_nli import FunctionEngine, NLIReranker, load

if TYPE_CHECKING:
    from collections.abc import Iterator

NUMBER = {"type": "number"}
INDEX = {"type": "integer", "minimum": 0}
# The answers that Cohere and Text Embeddings Inference publish, as JSON schemas.
COHERE_META = {
    "type": "object",
    "properties": {
        "api_version": {"type": "object", "required": ["version"], "properties": {"version": {"type": "string"}}},
        "billed_units": {"type": "object", "properties": {"search_units": NUMBER}},
    },
}


def of_cohere(result: dict[str, Any], *, more: bool) -> dict[str, Any]:
    """An answer whose results have these properties, and whether it and they may have more."""
    row = {"type": "object", "required": ["index", "relevance_score"], "properties": {"index": INDEX, **result}}
    return {
        "type": "object",
        "required": ["results"],
        "additionalProperties": more,
        "properties": {
            "id": {"type": "string"},
            "results": {"type": "array", "items": {**row, "additionalProperties": more}},
            "meta": COHERE_META,
        },
    }


COHERE_V2 = of_cohere({"relevance_score": {**NUMBER, "minimum": 0, "maximum": 1}}, more=False)
COHERE_V1_DOCUMENT = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}}
COHERE_V1 = of_cohere({"relevance_score": NUMBER, "document": COHERE_V1_DOCUMENT}, more=True)
TEI_RERANK = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["index", "score"],
        "additionalProperties": False,
        "properties": {"index": INDEX, "score": NUMBER, "text": {"type": ["string", "null"]}},
    },
}
TEI_LABELS = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["label", "score"],
        "additionalProperties": False,
        "properties": {"label": {"type": "string"}, "score": NUMBER},
    },
}
TEI_INFO = {
    "type": "object",
    "required": [
        *("model_id", "model_dtype", "model_type", "max_concurrent_requests", "max_input_length", "version"),
        *("max_batch_tokens", "tokenization_workers"),
    ],
    "properties": {
        "model_type": {
            "type": "object",
            "required": ["reranker"],
            "properties": {"reranker": {"type": "object", "required": ["id2label", "label2id"]}},
        }
    },
}


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    """The bundled model, and one that counts words."""
    words = FunctionEngine(lambda pairs: [[len(premise.split()) / 10, 1.0, 0.0] for premise, _ in pairs])
    with served({"mini": load(), "words": words}) as server:
        yield server


def order(results: list[dict[str, Any]]) -> list[int]:
    """The places of the results, in their order."""
    return [result["index"] for result in results]


def test_cohere_second_version(server: Served, bundled: NLIReranker) -> None:
    """/v2/rerank answers in Cohere's published form with the library's order and scores, to a body full of nulls."""
    nulls = dict.fromkeys(("model", "top_n", "max_tokens_per_doc", "priority", "return_documents"))
    answer = server.post("/v2/rerank", {"query": CLAIM, "documents": PASSAGES, **nulls})
    jsonschema.validate(answer, COHERE_V2)
    ranking = bundled.rank(CLAIM, PASSAGES)
    expected = [{"index": p.index, "relevance_score": p.score} for p in ranking]
    assert answer["results"] == close_to(expected)


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank"])
def test_documents(server: Served, bundled: NLIReranker, path: str) -> None:
    """/v1/rerank and /rerank answer Cohere's first form, with the documents and all that the model says of each."""
    answer = server.post(path, {"query": CLAIM, "documents": PASSAGES, "return_documents": True, "top_n": 2})
    jsonschema.validate(answer, COHERE_V1)
    assert answer["model"] == "mini"
    assert "dropped" not in answer
    for result, p in zip(answer["results"], bundled.rank(CLAIM, PASSAGES, 2), strict=True):
        expected = {
            "index": p.index,
            "relevance_score": p.score,
            "document": {"text": p.text},
            "nli": {
                "entailment": p.entailment,
                "neutral": p.neutral,
                "contradiction": p.contradiction,
                "span": list(p.span),
                "refutation": p.refutation,
                "refutation_span": list(p.refutation_span or ()),
                "windows": p.windows,
            },
        }
        assert result == close_to(expected)


@pytest.mark.parametrize("top_n", [0, None, 99])
@pytest.mark.parametrize("path", ["/v2/rerank", "/rerank"])
def test_all_of_them(server: Served, path: str, top_n: int | None) -> None:
    """A top_n of 0, of null or beyond their number returns all documents."""
    answer = server.post(path, {"query": CLAIM, "documents": PASSAGES, "top_n": top_n})
    assert sorted(order(answer["results"])) == [0, 1, 2]


def test_infinity(server: Served) -> None:
    """/infinity/rerank returns a document as its text alone."""
    answer = server.post("/infinity/rerank", {"query": CLAIM, "documents": PASSAGES, "return_documents": True})
    assert {result["index"]: result["document"] for result in answer["results"]} == dict(enumerate(PASSAGES))
    assert answer["object"] == "rerank"  # the one value that its client knows


@pytest.mark.parametrize(("path", "unasked"), [("/rerank", True), ("/v1/rerank", True), ("/infinity/rerank", False)])
def test_documents_unasked(server: Served, path: str, unasked: bool) -> None:  # noqa: FBT001
    """Jina and vLLM return documents unless told otherwise, Infinity only where told."""
    asked = {"query": CLAIM, "documents": PASSAGES}
    for more, returned in (({}, unasked), ({"return_documents": None}, unasked), ({"return_documents": False}, False)):
        results = server.post(path, asked | more)["results"]
        assert {"document" in result for result in results} == {returned}


@pytest.mark.parametrize("encoding", ["gzip", "br"])
def test_packed_bodies(server: Served, encoding: str) -> None:
    """A body that is packed is refused with the header's name, rather than read as text."""
    response = server.http.post("/rerank", content=b"\x1f\x8b\x08", headers={"Content-Encoding": encoding})
    assert response.status_code == 415
    assert f"Content-Encoding: {encoding}" in response.json()["message"]


def test_infinity_says_no_model(server: Served, bundled: NLIReranker) -> None:
    """Infinity's client names a model for none, and may ask for logits."""
    asked = {"query": CLAIM, "documents": PASSAGES, "model": "default/not-specified", "raw_scores": True}
    answer = server.post("/infinity/rerank", asked)
    expected = NLIReranker(bundled.engine, score="logit").rank(CLAIM, PASSAGES)
    assert [r["relevance_score"] for r in answer["results"]] == pytest.approx([p.score for p in expected])
    assert server.post("/rerank", asked)["model"] == "mini"


def test_objects(server: Served) -> None:
    """Of a document that is an object the text is read, or the fields that rank_fields names, in their order."""
    documents = [{"title": "Kettles", "text": "one two three", "year": 1987}, "one"]
    by_text = server.post("/rerank", {"query": "q", "documents": documents, "return_documents": True, "model": "words"})
    assert [r["document"]["text"] for r in by_text["results"]] == ["one two three", "one"]
    asked = {"query": "q", "documents": documents[:1], "rank_fields": ["title", "text"], "return_documents": True}
    by_fields = server.post("/v1/rerank", {**asked, "model": "words"})
    assert by_fields["results"][0]["document"]["text"] == "Kettles\none two three"


@pytest.mark.parametrize(
    "settings",
    [
        {"direction": "query_entails_passage"},
        {"direction": "bidirectional", "score": "margin"},
        {"score": "entailment_vs_contradiction"},
        {"template": "It is true that {query}"},
    ],
)
def test_settings(server: Served, settings: dict[str, str]) -> None:
    """Direction, score and template of a request give the scores of a reranker made with them."""
    answer = server.post("/rerank", {"query": CLAIM, "documents": PASSAGES, **settings})
    expected = NLIReranker(**settings).rank(CLAIM, PASSAGES)  # type: ignore[arg-type]
    assert order(answer["results"]) == [p.index for p in expected]
    np.testing.assert_allclose(
        [r["relevance_score"] for r in answer["results"]], [p.score for p in expected], atol=INT8.most
    )


@pytest.mark.parametrize("keep", ["entailment", "contradiction", "evidence"])
def test_threshold(server: Served, bundled: NLIReranker, keep: str) -> None:
    """With a threshold, what it drops stands beside the results, both as `filter` parts them."""
    answer = server.post("/rerank", {"query": CLAIM, "documents": PASSAGES, "threshold": 0.5, "keep": keep})
    filtered = bundled.filter(CLAIM, PASSAGES, 0.5, keep)
    assert order(answer["results"]) == [p.index for p in filtered.kept]
    assert order(answer["dropped"]) == [p.index for p in filtered.dropped]
    assert filtered.kept
    assert {result["nli"]["windows"] for result in answer["dropped"]} == {1}


def test_texts(server: Served, bundled: NLIReranker) -> None:
    """/rerank with texts answers in Text Embeddings Inference's form: a bare array of all, best first."""
    body = {"query": CLAIM, "texts": PASSAGES, "truncate": True, "raw_scores": False, "truncation_direction": "Right"}
    answer = server.post("/rerank", body)
    jsonschema.validate(answer, TEI_RERANK)
    assert answer == close_to([{"index": p.index, "score": p.score} for p in bundled.rank(CLAIM, PASSAGES)])


def test_raw_texts(server: Served) -> None:
    """Raw scores are the library's logits, and return_text brings the texts."""
    answer = server.post("/rerank", {"query": CLAIM, "texts": PASSAGES, "raw_scores": True, "return_text": True})
    jsonschema.validate(answer, TEI_RERANK)
    ranking = NLIReranker(score="logit").rank(CLAIM, PASSAGES)
    assert answer == close_to([{"index": p.index, "score": p.score, "text": p.text} for p in ranking])


def test_predict(server: Served, bundled: NLIReranker) -> None:
    """/predict gives a pair its labels, likeliest first, and several pairs a list each."""
    pairs = [[passage, CLAIM] for passage in PASSAGES]
    answer = server.post("/predict", {"inputs": pairs})
    for labels, row in zip(answer, bundled.predict(pairs, output="dicts"), strict=True):
        jsonschema.validate(labels, TEI_LABELS)
        assert {one["label"]: one["score"] for one in labels} == close_to(row)
        assert labels[0]["score"] == max(one["score"] for one in labels)
    assert server.post("/predict", {"inputs": pairs[0]}) == close_to(answer[0])
    raw = server.post("/predict", {"inputs": pairs[0], "raw_scores": True})
    logits = bundled.predict(pairs[:1], output="logits")[0]
    assert [one["score"] for one in raw] == close_to(sorted(logits.tolist(), reverse=True))


def test_verify_and_check(server: Served, bundled: NLIReranker) -> None:
    """/v1/verify and /v1/check answer what the library's results say of themselves."""
    verdict = server.post("/v1/verify", {"claim": CLAIM, "passages": PASSAGES})
    assert verdict == close_to(bundled.verify(CLAIM, PASSAGES, 0.5).to_dict())
    answer = f"{CLAIM} It holds 1.7 litres."
    report = server.post("/v1/check", {"answer": answer, "passages": PASSAGES, "threshold": 0.7})
    assert report == close_to(bundled.check(answer, PASSAGES, 0.7).to_dict())
    assert len(report["sentences"]) == 2


def test_models_by_name(server: Served) -> None:
    """A name chooses the model; an absent or null one is the first."""
    listed = server.http.get("/v1/models").json()
    assert [row["id"] for row in listed["data"]] == ["mini", "words"]
    for model, expected in (("words", "words"), ("mini", "mini"), (None, "mini")):
        assert server.post("/rerank", {"query": "q", "documents": ["a b"], "model": model})["model"] == expected
    assert server.post("/rerank", {"query": "q", "documents": ["a b"]})["model"] == "mini"
    one_word = server.post("/rerank", {"query": "q", "texts": ["a"], "raw_scores": True, "model": "words"})
    assert one_word[0]["score"] == pytest.approx(np.log(np.exp(0.1) / (np.e + 1)))


@pytest.mark.parametrize("name", ["bert", "../mini", "/etc/passwd", "https://example.com/model", "", "a" * 10_000])
@pytest.mark.parametrize("path", ["/v2/rerank", "/rerank"])
def test_unknown_model(server: Served, path: str, name: str) -> None:
    """A name that is none of the models', path and URL alike, is 404 with the list of names."""
    response = server.http.post(path, json={"query": "q", "documents": ["a"], "model": name})
    assert response.status_code == 404
    assert response.json()["message"].endswith("there is 'mini', 'words'")


def test_nothing_to_rank(server: Served) -> None:
    """Without documents or texts there are no results; a blank one is a result with the floor of its score."""
    assert server.post("/rerank", {"query": CLAIM, "documents": []})["results"] == []
    assert server.post("/rerank", {"query": CLAIM, "texts": []}) == []
    assert server.post("/predict", {"inputs": []}) == []
    assert server.post("/rerank", {"query": CLAIM, "texts": [" "]}) == [{"index": 0, "score": 0.0}]


def test_ten_thousand(server: Served) -> None:
    """10,000 passages in one request come back in order, each once."""
    texts = [f"{'word ' * (i % 50)}number {i}" for i in range(10_000)]
    answer = server.post("/rerank", {"query": "q", "documents": texts, "model": "words"})
    assert sorted(order(answer["results"])) == list(range(10_000))
    lengths = [len(texts[i].split()) for i in order(answer["results"])]
    assert lengths == sorted(lengths, reverse=True)


def test_state(server: Served) -> None:
    """/health says that it serves, /info describes the default model in Text Embeddings Inference's form."""
    assert server.http.get("/health").json() == {"status": "ok"}
    info = server.http.get("/info").json()
    jsonschema.validate(info, TEI_INFO)
    assert info["model_id"] == "mini"
    assert info["model_type"]["reranker"]["label2id"] == {"entailment": 0, "neutral": 1, "contradiction": 2}
