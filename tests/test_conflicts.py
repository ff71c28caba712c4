"""conflicts: which passages contradict or agree with each other, and which sentences of them do."""

from __future__ import annotations

import asyncio
import json
import math
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from texts import binary, stating

from rerank_nli import FunctionEngine, InputError, InputTypeError, LabelError, NLIReranker
from rerank_nli.cli import main

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rerank_nli import Conflicts

AGREES, DENIES = 0.9, 0.8


def facts(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
    """Probabilities of "A is 1": entailment where the premise says so, contradiction where it says another number."""
    rows = []
    for premise, hypothesis in pairs:
        known = dict(re.findall(r"(\w) is (\d)", premise))
        claimed = dict(re.findall(r"(\w) is (\d)", hypothesis))
        denied = any(known.get(name, number) != number for name, number in claimed.items())
        follows = bool(claimed) and all(known.get(name) == number for name, number in claimed.items())
        chances = [0.05, 0.15, DENIES] if denied else [AGREES, 0.05, 0.05] if follows else [0.02, 0.96, 0.02]
        rows.append(chances)
    return rows


def logs(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
    """Logits whose softmax is `facts`."""
    return [[math.log(p) for p in row] for row in facts(pairs)]


@pytest.fixture
def reranker() -> NLIReranker:
    """A reranker that knows what `facts` knows."""
    return NLIReranker(FunctionEngine(logs))


def told(conflicts: Conflicts) -> list[tuple[str, int, int]]:
    """Kind and passages of each relation."""
    return [(r.kind, r.first, r.second) for r in conflicts]


PASSAGES = [
    "It rained. A is 1. Nobody came.",
    "B is 2. And A is 3!",
    "The sun shone. B is 2.",
]


def test_relations_of_three_passages(reranker: NLIReranker) -> None:
    """Two passages that state the same agree, two that state another number contradict, strongest first."""
    found = reranker.conflicts(PASSAGES)
    assert told(found) == [("agree", 1, 2), ("contradict", 0, 1)]
    assert [r.probability for r in found] == pytest.approx([AGREES, DENIES], abs=1e-6)
    assert (found.passages, found.threshold) == (3, 0.5)
    assert found.agreements + found.contradictions == found.relations
    assert found[0] is found.relations[0]
    assert found[:1] == found.relations[:1]


def test_spans_are_the_sentences_that_decide(reranker: NLIReranker) -> None:
    """Each span cuts out of its passage the sentence that was held against the other, or that decided there."""
    for relation in reranker.conflicts(PASSAGES):
        (a, b), (c, d) = relation.first_span, relation.second_span
        assert PASSAGES[relation.first][a:b] == relation.first_text
        assert PASSAGES[relation.second][c:d] == relation.second_text
        assert relation.claim in (relation.first, relation.second)
    agreement, contradiction = reranker.conflicts(PASSAGES)
    assert (agreement.first_text, agreement.second_text) == ("B is 2.", "B is 2.")
    assert (contradiction.first_text, contradiction.second_text) == ("A is 1.", "And A is 3!")


def test_two_passages_may_agree_and_contradict(reranker: NLIReranker) -> None:
    """Two passages have at most one contradiction and one agreement, however many sentences have part in them."""
    found = reranker.conflicts(["A is 1. B is 2. C is 3.", "A is 1. B is 4. C is 5."])
    assert told(found) == [("agree", 0, 1), ("contradict", 0, 1)]


def test_the_stronger_direction_counts() -> None:
    """Of the two directions the one with the higher probability is told, and `claim` says whose sentence it is."""

    def lopsided(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        heights = {"Low.": 0.6, "High.": 0.7}
        return [[math.log(0.1), math.log(0.9 - heights[h]), math.log(heights[h])] for _, h in pairs]

    for passages in (["Low.", "High."], ["High.", "Low."]):
        (relation,) = NLIReranker(FunctionEngine(lopsided)).conflicts(passages)
        assert relation.probability == pytest.approx(0.7, abs=1e-6)
        assert passages[relation.claim] == "High."
        assert (relation.first, relation.second) == (0, 1)


def test_the_cost_is_sentences_by_other_passages() -> None:
    """Sentences that state something are each held against every other passage once, and questions are not."""
    seen: list[tuple[str, str]] = []

    def note(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        seen.extend(pairs)
        return [[0.0, 9.0, 0.0] for _ in pairs]

    NLIReranker(FunctionEngine(note)).conflicts(["One. Two. Is it three?", "Four.", "Five. “Six?” Seven. 「八？」"])
    assert len(seen) == len(set(seen)) == (2 + 1 + 2) * (3 - 1)
    assert {hypothesis for _, hypothesis in seen} == {"One.", "Two.", "Four.", "Five.", "Seven."}


@pytest.mark.parametrize(
    "passages", [[], ["A is 1."], ["A is 1. A is 2."], ["", " \n"], ["A is 1.", " "], ["?", "A is 1?"]]
)
@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_nothing_to_compare(reranker: NLIReranker, passages: list[str], threshold: float) -> None:
    """No passage, one, blank ones and those that only ask have no relations, at threshold 0 too."""
    found = reranker.conflicts(passages, threshold)
    assert (len(found), found.passages) == (0, len(passages))


def test_duplicates_agree(reranker: NLIReranker) -> None:
    """Passages that are equal agree, each two of them once."""
    assert told(reranker.conflicts(["A is 1."] * 3)) == [("agree", 0, 1), ("agree", 0, 2), ("agree", 1, 2)]


def test_every_form_of_passage(reranker: NLIReranker) -> None:
    """Texts, (id, text), mappings, objects and an iterator give the same relations, and stay as they are."""

    class Document:
        page_content = PASSAGES[2]

    mapping = {"id": "b", "text": PASSAGES[1]}
    found = reranker.conflicts(iter([("a", PASSAGES[0]), mapping, Document()]))
    assert found == reranker.conflicts(PASSAGES)
    assert mapping == {"id": "b", "text": PASSAGES[1]}


def test_a_long_passage_is_windowed() -> None:
    """In a passage over the window the deciding sentence is found in its window."""
    long = " ".join(["It rained on the hills all day."] * 30 + ["A is 2."] + ["Nobody came to the fair."] * 30)
    (relation,) = NLIReranker(FunctionEngine(logs), window=40).conflicts(["A is 1.", long])
    assert (relation.kind, relation.first_text, relation.second_text) == ("contradict", "A is 1.", "A is 2.")
    assert long[slice(*relation.second_span)] == "A is 2."


def test_a_long_sentence_comes_in_pieces() -> None:
    """A sentence that no passage has room beside is held against the others in pieces, with its place."""
    endless = " ".join(["word"] * 90 + ["A is 1"] + ["word"] * 90)
    found = NLIReranker(FunctionEngine(logs, max_length=100)).conflicts([endless, "A is 2."])
    assert told(found) == [("contradict", 0, 1)]
    assert "A is 1" in endless[slice(*found[0].first_span)]


def test_settings_of_the_reranker_take_no_part() -> None:
    """Direction, score kind and pool change no relation: what is told are probabilities."""
    other = NLIReranker(FunctionEngine(logs), direction="query_entails_passage", score="margin", pool="mean")
    assert other.conflicts(PASSAGES) == NLIReranker(FunctionEngine(logs)).conflicts(PASSAGES)


@given(st.lists(st.lists(st.sampled_from(["A is 1.", "A is 2.", "B is 1.", "It rains."]), max_size=3), max_size=4))
def test_relations_follow_from_the_facts(sentences: list[list[str]]) -> None:
    """For every two passages there is a relation of a kind exactly where a sentence of one has it with the other."""
    passages = [" ".join(parts) for parts in sentences]
    expected = set()
    for i, first in enumerate(passages):
        for j, second in enumerate(passages[:i]):
            held = [(second, s) for s in sentences[i]] + [(first, s) for s in sentences[j]]
            for e, _, c in facts([(premise, s) for premise, s in held if premise]):
                expected |= {("agree", j, i)} if e > 0.5 else {("contradict", j, i)} if c > 0.5 else set()
    found = NLIReranker(FunctionEngine(logs)).conflicts(passages)
    assert set(told(found)) == expected
    assert len(found) == len(expected)
    assert [r.probability for r in found] == sorted((r.probability for r in found), reverse=True)


def test_relations_as_json(reranker: NLIReranker) -> None:
    """to_dict survives JSON and names everything."""
    as_dict = reranker.conflicts(PASSAGES).to_dict()
    assert json.loads(json.dumps(as_dict)) == as_dict
    assert as_dict["relations"][1]["first_span"] == [11, 18]
    assert as_dict["relations"][1]["first_text"] == "A is 1."


def test_conflicts_do_not_block_the_loop(reranker: NLIReranker) -> None:
    """Aconflicts gives what conflicts gives."""
    assert asyncio.run(reranker.aconflicts(PASSAGES)) == reranker.conflicts(PASSAGES)


def test_two_labels_have_no_contradiction() -> None:
    """A two-label checkpoint is an error, even for no passages."""
    with pytest.raises(LabelError, match="two labels"):
        NLIReranker(binary()).conflicts([])


@pytest.mark.parametrize(
    ("passages", "threshold", "error", "message"),
    [
        (["a", None], 0.5, InputTypeError, "passage 1 must be a text"),
        ("a text", 0.5, InputTypeError, "passages must be a list"),
        (["a"], 1.5, InputError, r"threshold 1\.5"),
        (["a"], None, InputError, "threshold None"),
    ],
)
def test_bad_input(passages: Any, threshold: Any, error: type[Exception], message: str) -> None:
    """What is no passage and no threshold is one error."""
    with pytest.raises(error, match=message):
        NLIReranker(stating()).conflicts(passages, threshold)


BRIDGE = [
    "The Harlow footbridge opened to walkers in 1998. It is painted green.",
    "The Harlow footbridge did not open to walkers in 1998. Tickets are sold at the north bank.",
    "In 1998 the Harlow footbridge opened to walkers.",
]


def test_conflicts_on_the_bundled_model(bundled: NLIReranker) -> None:
    """The bundled model sees that two of three passages agree, and that one denies what both say."""
    found = bundled.conflicts(BRIDGE, 0.6)
    assert {("agree", 0, 2), ("contradict", 0, 1), ("contradict", 1, 2)} <= set(told(found))
    denied = next(r for r in found.contradictions if (r.first, r.second) == (0, 1))
    assert denied.second_text == "The Harlow footbridge did not open to walkers in 1998."


def test_conflicts_on_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`conflicts FILE` prints a count and each relation with both texts; --json prints the same as an object."""
    file = tmp_path / "passages.txt"
    file.write_text("\n".join([BRIDGE[0], json.dumps({"text": BRIDGE[1]})]), encoding="utf-8")
    assert main(["conflicts", str(file)]) == 0
    shown = capsys.readouterr().out
    assert re.match(r"\d contradict, 0 agree\n", shown)
    assert "      1  The Harlow footbridge did not open to walkers in 1998.\n" in shown
    assert main(["conflicts", str(file), "--json", "--threshold", "0.6"]) == 0
    as_json = json.loads(capsys.readouterr().out)
    assert (as_json["passages"], as_json["threshold"]) == (2, 0.6)
    assert as_json["relations"][0]["kind"] == "contradict"
    assert main(["conflicts", str(file), "--threshold", "2"]) == 2
    assert "threshold 2.0" in capsys.readouterr().err
