"""Finding the entailment column by name."""

from __future__ import annotations

from typing import Any

import pytest

from rerank_nli.errors import InputTypeError, LabelError
from rerank_nli.labels import COLUMNS, Labels


def test_columns_are_named_in_the_public_order() -> None:
    """Arrays of probabilities hold entailment, neutral, contradiction, in this order."""
    assert COLUMNS == ("entailment", "neutral", "contradiction")


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (["entailment", "neutral", "contradiction"], (0, 1, 2)),
        (["contradiction", "entailment", "neutral"], (1, 2, 0)),
        (["CONTRADICTION", "NEUTRAL", "ENTAILMENT"], (2, 1, 0)),
        (["Entails", "Neutral", "Contradicts"], (0, 1, 2)),
        (["SUPPORTS", "REFUTES", "NOT ENOUGH INFO"], (0, 2, 1)),
        (["Supported", "Refuted", "NEI"], (0, 2, 1)),
        (["refuted", "unrelated", "support"], (2, 1, 0)),
        (["0: contradiction", "1 - neutral", "2_entailment"], (2, 1, 0)),
        (["LABEL_ENTAILMENT", "LABEL_NEUTRAL", "LABEL_CONTRADICTION"], (0, 1, 2)),
        (["contradictory", "neutral", "entailed"], (2, 1, 0)),
        (["entail", "neutral", "contradict"], (0, 1, 2)),
        (["e", "n", "c"], (0, 1, 2)),
        (["C", "E", "N"], (1, 2, 0)),
        (["REFUTES", "SUPPORTS", "NOT_ENOUGH_INFO"], (1, 2, 0)),
        (["Supports", "Not enough evidence", "Contradicts"], (0, 1, 2)),
        (["refuted", "supported", "insufficient"], (1, 2, 0)),
        (["is_entailed", "unknown", "is_contradicted"], (0, 1, 2)),
    ],
)
def test_three_labels(names: list[str], columns: tuple[int, int, int]) -> None:
    """Columns are found in any order, case and punctuation, and in the words of fact checking."""
    labels = Labels.of(names)
    assert labels.columns == columns
    assert labels.names == tuple(names)
    assert not labels.binary


@pytest.mark.parametrize(
    "negative",
    ["not_entailment", "not-entailment", "NOT ENTAILMENT", "non-entailment", "no_entailment", "not entailed",
     "unsupported", "Not Supported", "NONENTAILMENT", "LABEL_NOT_ENTAILMENT", "is not entailed", "1: not_entailment",
     "does not entail", "unentailed"],
)  # fmt: skip
def test_two_labels(negative: str) -> None:
    """The absence of entailment is never taken for entailment, on whichever side it stands."""
    assert Labels.of([negative, "entailment"]).columns == (1, None, None)
    assert Labels.of(["entailed", negative]).columns == (0, None, None)
    assert Labels.of([negative, "entailment"]).binary


@pytest.mark.parametrize(
    "names",
    [
        ["LABEL_0", "LABEL_1", "LABEL_2"],
        ["0", "1", "2"],
        ["entailment", "entailment", "contradiction"],
        ["entailment", "not_entailment", "contradiction"],
        ["entailment", "neutral", "LABEL_2"],
        ["negative", "neutral", "positive"],
        ["contradiction", "neutral", "not_contradiction"],
        [],
    ],
)
def test_unclear_names(names: list[str]) -> None:
    """Names that do not tell the outputs apart are an error that shows them and says what to pass."""
    with pytest.raises(LabelError, match=r'pass labels=.*\["contradiction", "entailment", "neutral"\]') as caught:
        Labels.of(names)
    assert str(names) in str(caught.value)


@pytest.mark.parametrize(
    "names",
    [
        ["LABEL_0", "LABEL_1"],
        ["0", "1"],
        ["entailment", "neutral"],
        ["entailment", "contradiction"],
        ["contradiction", "not_contradiction"],
        ["POSITIVE", "NEGATIVE"],
        ["", ""],
    ],
)
def test_two_unclear_names(names: list[str]) -> None:
    """Two names that do not tell the outputs apart are an error whose example is of two names."""
    with pytest.raises(LabelError, match=r'pass labels=.*\["not_entailment", "entailment"\]') as caught:
        Labels.of(names)
    assert str(names) in str(caught.value)


@pytest.mark.parametrize(
    "names",
    [
        ["entailment", "neutral", "contradiction", "other"],
        ["strong entailment", "weak entailment", "neutral", "weak contradiction", "strong contradiction"],
        [f"LABEL_{n}" for n in range(77)],
    ],
)
def test_more_outputs(names: list[str]) -> None:
    """A head with more than three outputs is refused with their number and the first names: no labels= would help."""
    with pytest.raises(LabelError, match=rf"{len(names)} outputs.*'{names[0]}'.*not NLI: use a checkpoint") as caught:
        Labels.of(names)
    assert len(str(caught.value)) < 300
    assert "labels=" not in str(caught.value)


def test_one_output() -> None:
    """A head with one output is refused as a relevance reranker, with its name."""
    with pytest.raises(LabelError, match=r"'LABEL_0'.*relevance reranker"):
        Labels.of(["LABEL_0"])


@pytest.mark.parametrize("names", ["entailment", b"entailment", ["entailment", 1], 3, None, {"entailment": 0}])
def test_not_a_list_of_names(names: Any) -> None:
    """Anything but a sequence of texts is a type error that shows it."""
    with pytest.raises(InputTypeError, match="labels must be a list of names"):
        Labels.of(names)
    if names is not None:
        with pytest.raises(InputTypeError, match="labels must be a list of names"):
            Labels.resolve({0: "entailment", 1: "not_entailment"}, names)


def test_resolve_orders_outputs_by_number() -> None:
    """id2label counts by its numbers, texts or not, whatever order the file has them in."""
    assert Labels.resolve({"2": "neutral", "0": "contradiction", "1": "entailment"}, None).columns == (1, 2, 0)
    assert Labels.resolve({1: "entailment", 0: "not_entailment"}, None).columns == (1, None, None)


def test_given_labels_go_first() -> None:
    """labels= replaces the checkpoint's own names."""
    given = ["neutral", "entailment", "contradiction"]
    assert Labels.resolve({0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}, given).columns == (1, 0, 2)
    assert Labels.resolve(None, given).columns == (1, 0, 2)


def test_given_labels_of_another_length() -> None:
    """labels= with more or fewer names than outputs is an error that counts both."""
    with pytest.raises(LabelError, match=r"has 2 names, but the checkpoint has 3 outputs: \['a', 'b', 'c'\]"):
        Labels.resolve({0: "a", 1: "b", 2: "c"}, ["entailment", "not_entailment"])


@pytest.mark.parametrize("own", [None, {}])
def test_no_names_at_all(own: dict[int | str, str] | None) -> None:
    """A checkpoint without names needs labels=, and the error says so."""
    with pytest.raises(LabelError, match=r"config\.json .* names the labels: pass labels="):
        Labels.resolve(own, None)


def test_contradiction_is_required_by_name() -> None:
    """What needs P(contradiction) is refused on two labels, with its name and the mend, and allowed on three."""
    Labels.of(["entailment", "neutral", "contradiction"]).require_contradiction("a verdict")
    with pytest.raises(LabelError, match=r"a verdict needs P\(contradiction\).*three-label checkpoint"):
        Labels.of(["entailment", "not_entailment"]).require_contradiction("a verdict")


@pytest.mark.parametrize("id2label", [["entailment", "neutral"], {"a": "entailment", "b": "neutral"}, {0: 0, 1: None}])
def test_an_id2label_of_another_form(id2label: Any) -> None:
    """An id2label that is no mapping of numbers to names is an error that says what to pass."""
    with pytest.raises(LabelError, match="pass labels="):
        Labels.resolve(id2label, None)
