"""join=2: what two passages say together where none of them settles a claim alone."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from texts import stated

from rerank_nli import FunctionEngine, InputError, NLIReranker

if TYPE_CHECKING:
    from collections.abc import Sequence

CLAIM = "The ferry sails at noon."
ALONE = {"ONE": "e=0.4,c=0.05", "TWO": "e=0.3,c=0.05", "NOT": "e=0.04,c=0.2", "": "e=0.05,c=0.05"}


def needs_two(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
    """P(e) 0.9 where ONE stands before TWO, P(c) 0.8 where it does before NOT, else what the first says alone."""

    def said(premise: str) -> str:
        words = [word for word in premise.replace(".", "").split() if word in ALONE]
        together = {"ONE TWO": "e=0.9,c=0.05", "ONE NOT": "e=0.1,c=0.8"}
        return together.get(" ".join(words), ALONE[words[0] if words else ""])

    return stated([(said(premise), hypothesis) for premise, hypothesis in pairs])


def judge(**settings: int) -> NLIReranker:
    """A reranker that finds a claim supported or refuted by two words."""
    return NLIReranker(FunctionEngine(needs_two), **settings)  # type: ignore[arg-type]


def test_two_passages_support_what_neither_does() -> None:
    """Two passages that only together entail the claim make it supported, and are named in the order that did."""
    passages = ["It rains.", {"id": "b", "text": "TWO is here. Or there."}, "ONE is here."]
    alone, both = judge().verify(CLAIM, passages), judge().verify(CLAIM, passages, join=2)
    assert (alone.label, alone.joined) == ("insufficient", None)
    assert (both.label, both.joined, both.claim) == ("supported", (2, 1), CLAIM)
    assert both.confidence == pytest.approx(0.9, abs=1e-6)
    assert [p.evidence for p in both.supporting] == ["ONE is here.", "TWO is here. Or there."]
    assert [p.score for p in both.supporting] == pytest.approx([0.4, 0.3], abs=1e-6)
    assert (both.supporting[1].id, both.supporting[1].passage) == ("b", passages[1])
    assert len(both.refuting) == 0


def test_two_passages_refute_what_neither_does() -> None:
    """Two passages that only together contradict the claim make it refuted."""
    verdict = judge().verify(CLAIM, ["NOT here.", "ONE is here."], join=2)
    assert (verdict.label, verdict.joined) == ("refuted", (1, 0))
    assert verdict.confidence == pytest.approx(0.8, abs=1e-6)
    assert [p.refuting_evidence for p in verdict.refuting] == ["ONE is here.", "NOT here."]
    assert len(verdict.supporting) == 0


def test_the_stronger_pair_is_the_verdict() -> None:
    """Where one pair refutes and another supports, the stronger of the two is reported."""
    verdict = judge().verify(CLAIM, ["NOT here.", "ONE is here.", "TWO is here."], join=2)
    assert (verdict.label, verdict.joined) == ("supported", (1, 2))


def test_pairs_of_equal_strength_support() -> None:
    """Where pairs support and refute equally the claim is supported, by the first of those that do."""
    says = {"A. B.": [0.0, -1000.0, 0.5], "A. C.": [0.5, -1000.0, 0.0], "B. C.": [0.5, -1000.0, 0.0]}
    even = FunctionEngine(lambda pairs: [says.get(premise, [0.0, 1.0, 0.0]) for premise, _ in pairs])
    verdict = NLIReranker(even).verify(CLAIM, ["A.", "B.", "C."], 0.6, join=2)
    assert (verdict.label, verdict.joined) == ("supported", (0, 2))


@given(st.lists(st.sampled_from(["ONE then TWO.", "ONE then NOT.", "ONE.", "TWO.", "NOT.", " "]), max_size=5))
def test_join_changes_only_what_is_insufficient(passages: list[str]) -> None:
    """A verdict that one passage settles is the same with join; a new one has two passages and is named so."""
    alone, both = judge().verify(CLAIM, passages), judge().verify(CLAIM, passages, join=2)
    if alone.label != "insufficient":
        assert both == alone
    elif "ONE." in passages and {"TWO.", "NOT."} & set(passages):
        assert both.joined is not None
        first, second = (passages[i] for i in both.joined)
        assert (first, second, both.label) == (
            "ONE.",
            *(("TWO.", "supported") if "TWO." in passages else ("NOT.", "refuted")),
        )
    else:
        assert (both.label, both.joined) == ("insufficient", None)


def test_confidence_counts_what_was_tried() -> None:
    """Where no pair passes, confidence is one minus the highest probability of passages and pairs."""
    passages = ["ONE.", "TWO."]
    assert judge().verify(CLAIM, passages, 0.95).confidence == pytest.approx(1 - 0.4, abs=1e-6)
    assert judge().verify(CLAIM, passages, 0.95, join=2).confidence == pytest.approx(1 - 0.9, abs=1e-6)
    assert judge().verify(CLAIM, ["TWO.", "NOT."], join=2).confidence == pytest.approx(1 - 0.3, abs=1e-6)


def test_the_four_strongest_are_joined_in_every_order() -> None:
    """Of six passages the four with the highest P(e) or P(c) are tried, in twelve ordered pairs."""
    seen: set[str] = set()

    def note(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        seen.update(premise for premise, _ in pairs)
        return stated(pairs)

    passages = ["e=0.1,c=0.1", "e=0.2,c=0.1", "e=0.1,c=0.4", "e=0.3,c=0.1", "e=0.05,c=0.01", "e=0.1,c=0.25"]
    NLIReranker(FunctionEngine(note)).verify(CLAIM, passages, join=2)
    assert seen - set(passages) == {f"{a} {b}" for a, b in permutations([passages[i] for i in (2, 3, 5, 1)], 2)}


def test_a_text_is_not_joined_with_itself() -> None:
    """Two passages of one text are one: saying a thing twice is no evidence."""

    def twice(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        return stated([("e=0.9,c=0.05" if p.count("ONE") > 1 else "e=0.4,c=0.1", h) for p, h in pairs])

    reranker = NLIReranker(FunctionEngine(twice))
    assert reranker.verify(CLAIM, ["ONE.", "ONE."], join=2).label == "insufficient"
    assert reranker.verify(CLAIM, ["ONE.", "ONE!"], join=2).joined == (0, 1)


@pytest.mark.parametrize("passages", [[], [" "], ["ONE."], ["ONE.", " "], ["", "\n"]])
def test_fewer_than_two_passages_cannot_be_joined(passages: list[str]) -> None:
    """Without two passages that say something, join is as if it were off."""
    assert judge().verify(CLAIM, passages, join=2) == judge().verify(CLAIM, passages)


def test_of_a_long_passage_the_strongest_window_is_joined() -> None:
    """Passages of several windows are joined by those that say most, each span in its own text."""
    first = "It rained all of May. ONE is not far. Bread rises when warm."
    second = "Gulls nest on the roof. The harbour is grey. NOT at this time."
    verdict = judge(window=5).verify(CLAIM, [second, f"  {first}"], join=2)
    assert (verdict.label, verdict.joined) == ("refuted", (1, 0))
    assert [p.evidence for p in verdict.refuting] == ["ONE is not far.", "NOT at this time."]
    assert [p.refuting_evidence for p in verdict.refuting] == ["ONE is not far.", "NOT at this time."]


FILLER = "Rain fell on the roof of the old mill. "  # nine words


def test_what_does_not_fit_is_windowed() -> None:
    """Of two passages that the model cannot take together, what the deciding window holds of each is reported."""
    reranker = NLIReranker(FunctionEngine(needs_two, max_length=44))
    verdict = reranker.verify(CLAIM, [FILLER * 4 + "ONE is here.", "TWO is here. " + FILLER * 4], join=2)
    assert (verdict.label, verdict.joined) == ("supported", (0, 1))
    assert [p.windows for p in verdict.supporting] == [1, 1]
    assert [p.evidence for p in verdict.supporting] == ["ONE is here.", "TWO is here. " + (FILLER * 3).strip()]


def test_what_stands_too_far_apart_is_not_joined() -> None:
    """Two passages whose halves stand in no window together settle nothing."""
    reranker = NLIReranker(FunctionEngine(needs_two, max_length=44))
    verdict = reranker.verify(CLAIM, ["ONE is here. " + FILLER * 3, FILLER * 3 + "TWO is here."], join=2)
    assert verdict.label == "insufficient"


def test_a_window_of_one_passage_is_no_pair() -> None:
    """A window of the joined text that holds one passage alone settles nothing, however sure it is."""

    def unspoiled(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        return stated([("e=0.9,c=0.05" if "ONE" in p and "SPOILT" not in p else "e=0.1,c=0.1", h) for p, h in pairs])

    reranker = NLIReranker(FunctionEngine(unspoiled, max_length=44))
    passages = ["It is SPOILT. " + FILLER * 3 + "ONE is here.", "Or SPOILT. " + FILLER * 2]
    texts = [f"{a} {b}" for a, b in permutations(passages)]
    assert max(p.score for p in reranker.rank(CLAIM, texts)) == pytest.approx(0.9, abs=1e-6)
    assert reranker.verify(CLAIM, passages, join=2).label == "insufficient"


@pytest.mark.parametrize("direction", ["query_entails_passage", "bidirectional"])
def test_joined_passages_are_the_premise(direction: str) -> None:
    """Pairs are judged as verdicts are, passages → claim, whatever the reranker's own settings."""
    reranker = NLIReranker(FunctionEngine(needs_two), direction=direction, score="margin", pool="mean")
    assert reranker.verify(CLAIM, ["ONE.", "TWO."], join=2) == judge().verify(CLAIM, ["ONE.", "TWO."], join=2)


@pytest.mark.parametrize("join", [0, 1, 3, True, "2", [2], 2.5])
@pytest.mark.parametrize("call", ["verify", "check"])
def test_join_is_two_or_none(call: str, join: object) -> None:
    """Another number than two is an error that says so, even where nothing would be joined."""
    with pytest.raises(InputError, match=r"unknown join .*: expected one of None, 2"):
        getattr(judge(), call)(CLAIM, [], join=join)


def test_join_on_the_bundled_model(bundled: NLIReranker) -> None:
    """The bundled model finds in two passages together what it finds in neither."""
    passages = ["Ann Lee designed the Aldmoor bridge.", "The Aldmoor bridge opened in 1932."]
    claim = "The bridge that Ann Lee designed opened in 1932."
    assert bundled.verify(claim, passages).label == "insufficient"
    verdict = bundled.verify(claim, passages, join=2)
    assert (verdict.label, sorted(verdict.joined or ())) == ("supported", [0, 1])
