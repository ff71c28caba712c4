"""Results: plain, frozen, and the same after JSON or pickle."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Sequence
from typing import Any, Literal
from uuid import UUID

import numpy as np
import pytest

from rerank_nli import (
    ChosenPassage,
    Classification,
    Classifications,
    Conflicts,
    Cover,
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


def _grounding(*verdicts: Verdict) -> Grounding:
    count = len(verdicts)
    spans = ((Span(0, 10), Span(11, 36)) * count)[:count]
    return Grounding(TEXT, verdicts, spans, ((0.5, 0.0),) * count, ((0.25, 0.5),) * count)


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
    ("own", "written"),
    [("a", "a"), (7, 7), (np.int64(7), 7), (None, None), (UUID(int=1), str(UUID(int=1))), (float("nan"), "nan")],
)
def test_ids_in_a_dict(own: Any, written: Any) -> None:
    """An id that is a text or a whole number stays what it is, another one becomes its text."""
    row = _passage(id=own).to_dict()
    assert row["id"] == written
    assert json.loads(json.dumps(row)) == row


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
    grounding = _grounding(_verdict("refuted"), _verdict("supported"))
    cover = Cover(("Rain.", "Snow."), (ChosenPassage(1, object(), TEXT, UUID(int=1), (0,)),), (1, None), 1.0, 0.5)
    filtered = Filtered(_ranking(_passage()), _ranking(), 0.5, "entailment")
    answer = RankedAnswer(1, "Rain", "Why? Rain", 0.75, _ranking(_passage()))
    for result in (_ranking(_passage()), filtered, _verdict("refuted"), grounding, answer, cover):
        assert json.loads(json.dumps(result.to_dict())) == result.to_dict()
    assert filtered.to_dict()["kept"] == _ranking(_passage()).to_dict()
    assert filtered.to_dict()["dropped"]["passages"] == []
    assert grounding.to_dict()["groundedness"] == 0.5
    assert grounding.to_dict()["sentences"][1] == {"span": [11, 36], **_verdict("supported").to_dict()}
    assert grounding.to_dict()["refutation"] == [[0.25, 0.5], [0.25, 0.5]]
    assert dataclasses.replace(_verdict("refuted"), joined=(2, 0)).to_dict()["joined"] == [2, 0]
    assert (cover.covered, cover.to_dict()["covered"], cover.to_dict()["best"]) == (1 / 2, 1 / 2, [1, None])
    assert cover.to_dict()["passages"] == [{"index": 1, "text": TEXT, "id": str(UUID(int=1)), "adds": [0]}]
    assert answer.to_dict()["evidence"]["passages"][0]["text"] == TEXT
    assert _verdict("refuted").to_dict()["refuting"]["passages"][0]["score"] == 0.75


def test_groundedness_is_the_share_supported() -> None:
    """One supported sentence of four is 0.25, and a refuted one counts like one without evidence."""
    verdicts = (_verdict("supported"), _verdict("refuted"), _verdict("insufficient"), _verdict("refuted"))
    assert _grounding(*verdicts).groundedness == 1 / 4


_VERDICT = Verdict("refuted", 0.5, _ranking(), _ranking(_passage(passage=TEXT)), "The match took place.")
_RELATION = Relation("agree", 0.5, 0, 1, 0, Span(0, 1), Span(0, 1), "a", "b")
_CHOSEN = ChosenPassage(0, "a", "a", None, (0,))
_CLASSIFIED = Classification(0, "a", (LabelScore("b", 0.5, accepted=True),))
SEQUENCES: list[tuple[Any, Any]] = [
    (_ranking(_passage(passage=TEXT), _passage(passage=TEXT, index=1)), "passages"),
    (_grounding(_VERDICT, dataclasses.replace(_VERDICT, label="supported")), "verdicts"),
    (Cover(("a",), (_CHOSEN, dataclasses.replace(_CHOSEN, index=1)), (0,), 1.0, 0.5), "passages"),
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
    assert _grounding().groundedness == 1.0


@pytest.mark.parametrize("result", [_passage(), _ranking(), _verdict("refuted"), _grounding()])
def test_results_are_frozen(result: Any) -> None:
    """No field of a result can be set, and none added."""
    name = dataclasses.fields(result)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(result, name, None)
    assert not hasattr(result, "__dict__")


def test_results_survive_pickle() -> None:
    """A pickled result comes back equal."""
    verdict = dataclasses.replace(_verdict("refuted"), refuting=_ranking(_passage(passage=TEXT)))
    grounding = _grounding(verdict)
    assert pickle.loads(pickle.dumps(grounding)) == grounding  # noqa: S301 - made on this line
