"""Results: plain, frozen, and the same after JSON or pickle."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Sequence
from typing import Any, Literal
from uuid import UUID

import pytest

from rerank_nli import (
    Classification,
    Classifications,
    Conflicts,
    Filtered,
    Grounding,
    LabelScore,
    Probabilities,
    RankedAnswer,
    RankedPassage,
    Ranking,
    Relation,
    Span,
    Verdict,
)

TEXT = "It rained. The match was called off."


def _passage(**changes: Any) -> RankedPassage:
    fields = {
        "index": 0,
        "passage": object(),
        "text": TEXT,
        "id": "a",
        "score": 0.75,
        "relative": None,
        "retrieval_score": 3.5,
        "entailment": 0.75,
        "neutral": 0.125,
        "contradiction": 0.125,
        "span": Span(11, 36),
        "refutation": 0.25,
        "refutation_span": Span(0, 10),
        "windows": 2,
    }
    return RankedPassage(**{**fields, **changes})


def _ranking(*passages: RankedPassage) -> Ranking:
    return Ranking("The match took place.", passages, "passage_entails_query", "entailment", calibrated=False)


def _verdict(label: Literal["supported", "refuted", "insufficient"]) -> Verdict:
    return Verdict(label, 0.5, _ranking(), _ranking(_passage()), "The match took place.")


def test_evidence_is_the_text_of_the_span() -> None:
    """Evidence and refuting evidence are cut from the text by their spans."""
    assert _passage().evidence == "The match was called off."
    assert _passage().refuting_evidence == "It rained."
    assert _passage(refutation_span=None).refuting_evidence is None


def test_passage_to_dict_holds_all_but_the_object() -> None:
    """A passage's dict has every field but the caller's object, and survives JSON."""
    row = _passage(reverse=Probabilities(0.5, None, None)).to_dict()
    assert set(row) == {f.name for f in dataclasses.fields(RankedPassage)} - {"passage"}
    assert row["span"] == [11, 36]
    assert row["refutation_span"] == [0, 10]
    assert row["reverse"] == {"entailment": 0.5, "neutral": None, "contradiction": None}
    assert json.loads(json.dumps(row)) == row


@pytest.mark.parametrize(
    ("own", "written"), [("a", "a"), (7, 7), (None, None), (UUID(int=1), str(UUID(int=1))), (float("nan"), "nan")]
)
def test_ids_in_a_dict(own: Any, written: Any) -> None:
    """An id that is a text or a whole number stays what it is, another one becomes its text."""
    assert _passage(id=own).to_dict()["id"] == written


def test_binary_passage_to_dict() -> None:
    """What a two-label checkpoint does not know is None in the dict."""
    row = _passage(neutral=None, contradiction=None, refutation=None, refutation_span=None).to_dict()
    assert [row[k] for k in ("neutral", "contradiction", "refutation", "refutation_span", "reverse")] == [None] * 5


def test_ranking_to_pairs() -> None:
    """Pairs hold text and score, best first."""
    assert _ranking(_passage(), _passage(text="b", score=0.25)).to_pairs() == [(TEXT, 0.75), ("b", 0.25)]


def test_ranking_to_frame_has_a_row_for_each_passage() -> None:
    """A frame has the dict's columns and values, best first."""
    pytest.importorskip("pandas")
    frame = _ranking(_passage(), _passage(index=1, score=0.25)).to_frame()
    assert list(frame.columns) == list(_passage().to_dict())
    assert frame["index"].tolist() == [0, 1]
    assert frame["score"].tolist() == [0.75, 0.25]


def test_empty_ranking_to_frame_keeps_its_columns() -> None:
    """A frame of an empty ranking has no rows and every column."""
    pytest.importorskip("pandas")
    frame = _ranking().to_frame()
    assert len(frame) == 0
    assert list(frame.columns) == list(_passage().to_dict())


def test_dicts_of_all_results_are_json() -> None:
    """Every result's dict survives JSON and holds its parts."""
    grounding = Grounding(TEXT, (_verdict("refuted"), _verdict("supported")), (Span(0, 10), Span(11, 36)))
    filtered = Filtered(_ranking(_passage()), _ranking(), 0.5, "entailment")
    answer = RankedAnswer(1, "Rain", "Why? Rain", 0.75, _ranking(_passage()))
    for result in (_ranking(_passage()), filtered, _verdict("refuted"), grounding, answer):
        assert json.loads(json.dumps(result.to_dict())) == result.to_dict()
    assert filtered.to_dict()["kept"] == _ranking(_passage()).to_dict()
    assert filtered.to_dict()["dropped"]["passages"] == []
    assert grounding.to_dict()["groundedness"] == 0.5
    assert grounding.to_dict()["sentences"][1] == {"span": [11, 36], **_verdict("supported").to_dict()}
    assert answer.to_dict()["evidence"]["passages"][0]["text"] == TEXT
    assert _verdict("refuted").to_dict()["refuting"]["passages"][0]["score"] == 0.75


def test_groundedness_is_the_share_supported() -> None:
    """One supported sentence of four is 0.25, and a refuted one counts like one without evidence."""
    verdicts = (_verdict("supported"), _verdict("refuted"), _verdict("insufficient"), _verdict("refuted"))
    assert Grounding("", verdicts, (Span(0, 0),) * 4).groundedness == 1 / 4


_VERDICT = Verdict("refuted", 0.5, _ranking(), _ranking(_passage(passage=TEXT)), "The match took place.")
_RELATION = Relation("agree", 0.5, 0, 1, 0, Span(0, 1), Span(0, 1), "a", "b")
_CLASSIFIED = Classification(0, "a", (LabelScore("b", 0.5, accepted=True),))
SEQUENCES: list[tuple[Any, Any]] = [
    (_ranking(_passage(passage=TEXT), _passage(passage=TEXT, index=1)), "passages"),
    (Grounding(TEXT, (_VERDICT, dataclasses.replace(_VERDICT, label="supported")), (Span(0, 9),) * 2), "verdicts"),
    (Conflicts((_RELATION, dataclasses.replace(_RELATION, kind="contradict")), 2, 0.5), "relations"),
    (Classifications((_CLASSIFIED, dataclasses.replace(_CLASSIFIED, index=1)), ("b",)), "rows"),
]


@pytest.mark.parametrize(("result", "field"), SEQUENCES)
def test_a_result_is_the_sequence_of_what_it_holds(result: Any, field: str) -> None:
    """Length, places from either end, slices and order are those of the field; it stays frozen and pickles."""
    held = getattr(result, field)
    assert issubclass(type(result), Sequence)
    assert (len(result), tuple(result), tuple(reversed(result))) == (2, held, held[::-1])
    assert (result[0], result[-1], result[1:], result[::-1]) == (held[0], held[1], held[1:], held[::-1])
    assert (result.index(held[1]), held[1] in result) == (1, True)
    with pytest.raises(IndexError):
        result[2]
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(result, field, ())
    assert not hasattr(result, "__dict__")
    assert pickle.loads(pickle.dumps(result)) == result  # noqa: S301 - made on this line
    assert not dataclasses.replace(result, **{field: ()}, **({"spans": ()} if field == "verdicts" else {}))


def test_an_empty_answer_is_grounded() -> None:
    """An answer without a sentence claims nothing, so nothing of it is ungrounded."""
    assert Grounding("", (), ()).groundedness == 1.0


@pytest.mark.parametrize("result", [_passage(), _ranking(), _verdict("refuted"), Grounding("", (), ())])
def test_results_are_frozen(result: Any) -> None:
    """No field of a result can be set, and none added."""
    name = dataclasses.fields(result)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(result, name, None)
    assert not hasattr(result, "__dict__")


def test_results_survive_pickle() -> None:
    """A pickled result comes back equal."""
    verdict = dataclasses.replace(_verdict("refuted"), refuting=_ranking(_passage(passage=TEXT)))
    grounding = Grounding(TEXT, (verdict,), (Span(0, 10),))
    assert pickle.loads(pickle.dumps(grounding)) == grounding  # noqa: S301 - made on this line
