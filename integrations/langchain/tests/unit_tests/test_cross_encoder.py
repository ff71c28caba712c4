"""NLICrossEncoder: a score for each (query, text), as NLIReranker would give it."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_rerank_nli import NLICrossEncoder
from pydantic import ValidationError
from shared_cases import CASES, Case

from rerank_nli import InputTypeError, NLIReranker

# Thresholds and fusion are not a cross-encoder's affair, nor is `normalize`: it has no list to normalize over.
PLAIN = [c for c in CASES if c.threshold is None and c.fuse is None and "normalize" not in c.settings]


@pytest.mark.parametrize("case", PLAIN, ids=[case.name for case in PLAIN])
def test_what_the_reranker_gives(case: Case, bundled: NLIReranker) -> None:
    """Each pair's score is NLIReranker's for the same settings, in the order of the pairs."""
    reranker = NLIReranker(bundled.engine, **case.settings)
    found = NLICrossEncoder(reranker=reranker).score([(case.query, text) for text in case.texts])
    expected = {p.index: p.score for p in reranker.rank(case.query, case.texts)}
    assert found == pytest.approx([expected[i] for i in range(len(case.texts))], abs=1e-6)
    assert all(type(score) is float for score in found)


def test_settings_reach_the_model(bundled: NLIReranker) -> None:
    """Direction and score kind, given to the cross-encoder, are the reranker's."""
    settings: dict[str, Any] = {"direction": "bidirectional", "score": "margin"}
    query, text = "The ferry sails at noon.", "At noon the ferry sails, and at six."
    [expected] = NLIReranker(bundled.engine, **settings).rank(query, [text])
    found = NLICrossEncoder(model="mini", **settings).score([(query, text)])
    assert found == pytest.approx([expected.score], abs=1e-5)


def test_the_first_is_the_query(bundled: NLIReranker) -> None:
    """Pairs are (query, text): the text is what must entail, so the two orders differ."""
    wide, narrow = "A cat is asleep on the red mat.", "A cat is asleep."
    encoder = NLICrossEncoder(reranker=bundled)
    entailed, not_entailed = encoder.score([(narrow, wide), (wide, narrow)])
    assert entailed > 0.5 > not_entailed


def test_several_queries_at_once(stating: NLIReranker) -> None:
    """Pairs of several queries, mixed, keep their order."""
    pairs = [("one", "e=0.2"), ("two", "e=0.8"), ("one", "e=0.6"), ("two", "")]
    assert NLICrossEncoder(reranker=stating).score(pairs) == pytest.approx([0.2, 0.8, 0.6, 0.0])
    assert NLICrossEncoder(reranker=stating).score([]) == []


def test_a_thousand_pairs(stating: NLIReranker) -> None:
    """1,000 pairs come back as 1,000 scores in their order."""
    stated = [(100 + i % 700) / 1000 for i in range(1000)]
    found = NLICrossEncoder(reranker=stating).score([("claim", f"e={score:.3f}") for score in stated])
    assert found == pytest.approx(stated, abs=1e-6)


def test_errors(stating: NLIReranker, failing: NLIReranker) -> None:
    """A query that is no text, an engine's error and a setting that no call could use reach the caller."""
    with pytest.raises(InputTypeError, match="query 1 must be a text, got None"):
        NLICrossEncoder(reranker=stating).score([("claim", "e=0.5"), (None, "e=0.5")])  # type: ignore[list-item]
    with pytest.raises(OSError, match="no power"):
        NLICrossEncoder(reranker=failing).score([("claim", "text")])
    with pytest.raises(ValidationError, match="'margin'"):
        NLICrossEncoder(score="cosine")


@pytest.mark.parametrize("settings", [{"model": "mini"}, {"score": "margin"}, {"direction": "bidirectional"}])
def test_a_reranker_and_model_settings_are_one_too_many(settings: dict[str, Any], stating: NLIReranker) -> None:
    """A ready reranker beside a model setting is an error that names the setting."""
    with pytest.raises(ValidationError, match=f"leave out {next(iter(settings))}"):
        NLICrossEncoder(reranker=stating, **settings)


def test_fields_alone_rebuild_it() -> None:
    """A dump of the fields, through JSON too, makes the same component again, by either name of the score kind."""
    encoder = NLICrossEncoder(direction="bidirectional", score="margin")
    assert NLICrossEncoder.model_validate_json(encoder.model_dump_json()) == encoder
    assert NLICrossEncoder(**encoder.model_dump(by_alias=True)) == encoder


def test_it_is_a_cross_encoder(stating: NLIReranker) -> None:
    """It is what LangChain calls a cross-encoder."""
    assert isinstance(NLICrossEncoder(reranker=stating), BaseCrossEncoder)
