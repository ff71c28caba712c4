"""predict: premise and hypothesis as they are, in every form of input and output."""

from __future__ import annotations

import copy
import itertools
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from texts import binary, stated, stating

from rerank_nli import FunctionEngine, InputError, InputTypeError, NLIReranker, QueryTooLongError
from rerank_nli.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

CLAIM = "The ferry sails at noon."
PAIRS = [("e=0.7,c=0.1", CLAIM), ("e=0.1,c=0.6", CLAIM), ("e=0.2,c=0.1", CLAIM)]
ROWS = [[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.2, 0.7, 0.1]]


def test_array_is_entailment_neutral_contradiction() -> None:
    """The array is float32 (n, 3): entailment, neutral, contradiction."""
    array = NLIReranker(stating()).predict(PAIRS)
    assert (array.dtype, array.shape) == (np.float32, (3, 3))
    np.testing.assert_allclose(array, ROWS, atol=1e-6)


def test_array_has_one_order_whatever_the_checkpoints() -> None:
    """The columns of the array do not follow the checkpoint's order, those of the logits do."""

    def reordered(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        return [[c, e, n] for e, n, c in stated(pairs)]

    reranker = NLIReranker(FunctionEngine(reordered, labels=["contradiction", "entailment", "neutral"]))
    np.testing.assert_allclose(reranker.predict(PAIRS), ROWS, atol=1e-6)
    expected = [[math.log(c), math.log(e), math.log(n)] for e, n, c in ROWS]
    np.testing.assert_allclose(reranker.predict(PAIRS, output="logits"), expected, atol=1e-5)


def test_logits_are_the_engines() -> None:
    """Logits are float32 (n, C) as the engine returned them."""
    logits = NLIReranker(stating()).predict(PAIRS, output="logits")
    assert (logits.dtype, logits.shape) == (np.float32, (3, 3))
    np.testing.assert_array_equal(logits, np.array(stated(PAIRS), dtype=np.float32))


def test_dicts() -> None:
    """Dicts name the probabilities and hold Python floats."""
    dicts = NLIReranker(stating()).predict(PAIRS, output="dicts")
    assert [list(row) for row in dicts] == [["entailment", "neutral", "contradiction"]] * 3
    assert [list(row.values()) for row in dicts] == [pytest.approx(row, abs=1e-6) for row in ROWS]
    assert {type(value) for row in dicts for value in row.values()} == {float}


def test_labels() -> None:
    """Labels are the likeliest of the three."""
    assert NLIReranker(stating()).predict(PAIRS, output="labels") == ["entailment", "contradiction", "neutral"]


def test_frame() -> None:
    """A frame has a row for each pair and the three columns."""
    pytest.importorskip("pandas")
    frame = NLIReranker(stating()).predict(PAIRS, output="frame")
    assert list(frame.columns) == ["entailment", "neutral", "contradiction"]
    np.testing.assert_allclose(frame.to_numpy(), ROWS, atol=1e-6)


def test_a_frame_keeps_its_index() -> None:
    """Rows of a part of a frame, or of a frame in another order, are found by their own index."""
    pandas = pytest.importorskip("pandas")
    given = pandas.DataFrame(PAIRS, columns=["premise", "hypothesis"]).iloc[::-1]
    frame = NLIReranker(stating()).predict(given, output="frame")
    assert list(frame.index) == list(given.index) != list(range(len(PAIRS)))
    np.testing.assert_allclose(frame.sort_index().to_numpy(), ROWS, atol=1e-6)


@pytest.mark.parametrize("output", ["array", "logits", "dicts", "labels", "frame"])
def test_no_pairs_make_no_rows(output: str) -> None:
    """An empty list gives an empty result of the same kind."""
    empty, full = (NLIReranker(stating()).predict(pairs, output=output) for pairs in ([], PAIRS))
    assert type(empty) is type(full)
    assert len(empty) == 0
    assert getattr(empty, "shape", (0, 3)) == (0, 3)


def test_forms_of_a_pair() -> None:
    """tuples, lists, mappings and a frame of pairs give the same rows."""
    pandas = pytest.importorskip("pandas")
    reranker = NLIReranker(stating())
    mappings = [{"premise": a, "hypothesis": b, "gold": 1} for a, b in PAIRS]
    expected = reranker.predict(PAIRS)
    for pairs in ([list(pair) for pair in PAIRS], tuple(PAIRS), mappings, pandas.DataFrame(mappings, index=[5, 5, 9])):
        np.testing.assert_array_equal(reranker.predict(pairs), expected)


def test_a_frame_without_the_columns_is_refused() -> None:
    """A frame that lacks a column is an error that lists what it has."""
    pandas = pytest.importorskip("pandas")
    with pytest.raises(InputError, match=r"no column \['hypothesis'\]: it has \['premise', 'claim'\]"):
        NLIReranker(stating()).predict(pandas.DataFrame({"premise": ["a"], "claim": ["b"]}))


def test_a_hole_in_a_frame_is_named() -> None:
    """A missing text in a frame is an error that names its row."""
    pandas = pytest.importorskip("pandas")
    with pytest.raises(InputTypeError, match="pair 1 "):
        NLIReranker(stating()).predict(pandas.DataFrame({"premise": ["a", None], "hypothesis": ["b", "c"]}))


def test_predict_ignores_direction_and_template() -> None:
    """The rows are the same under any direction and template."""
    other = NLIReranker(stating(), direction="query_entails_passage", template="On {query}", score="margin")
    np.testing.assert_array_equal(other.predict(PAIRS), NLIReranker(stating()).predict(PAIRS))


@pytest.mark.parametrize(
    ("windows", "row"),
    [
        (["e=0.2,c=0.3", "e=0.1,c=0.8", "e=0.7,c=0.1"], [0.1, 0.1, 0.8]),
        (["e=0.2,c=0.3", "e=0.1,c=0.6", "e=0.7,c=0.1"], [0.7, 0.2, 0.1]),
        (["e=0.1,c=0.1", "e=0.2,c=0.25", "e=0.1,c=0.2"], [0.2, 0.55, 0.25]),
    ],
)
def test_a_long_premise_gives_the_row_of_its_most_decided_window(windows: list[str], row: list[float]) -> None:
    """Of a long premise's windows the one with the largest max(P(e), P(c)) is the row."""
    premise = " ".join(f"It says {chances} there." for chances in windows)
    array = NLIReranker(stating(), window=4).predict([("e=0.3,c=0.3", CLAIM), (premise, CLAIM)])
    np.testing.assert_allclose(array, [[0.3, 0.4, 0.3], row], atol=1e-6)


@pytest.mark.parametrize("pair", [("", CLAIM), (" \n", CLAIM), ("a premise", ""), ("", "")])
def test_blank_texts_are_pairs(bundled: NLIReranker, pair: tuple[str, str]) -> None:
    """A blank premise or hypothesis is scored as the model scores it: three probabilities that add up to 1."""
    array = bundled.predict([pair])
    assert array.shape == (1, 3)
    assert array.sum() == pytest.approx(1.0, abs=1e-6)


@given(st.lists(st.tuples(st.integers(1, 49), st.integers(1, 49)), max_size=10))
def test_rows_are_distributions(chances: list[tuple[int, int]]) -> None:
    """Each row is the distribution of its own pair, wherever it stands."""
    pairs = [(f"e={e / 100},c={c / 100}", CLAIM) for e, c in chances]
    array = NLIReranker(stating()).predict(pairs)
    expected = np.array([[e, 100 - e - c, c] for e, c in chances]).reshape(-1, 3) / 100
    np.testing.assert_allclose(array, expected, atol=1e-6)


def test_two_labels() -> None:
    """A two-label checkpoint has NaN in the array, None in dicts, and logits of two columns."""
    reranker = NLIReranker(binary())
    pairs = [("e=0.7,c=0.0", CLAIM), ("e=0.5,c=0.0", CLAIM), ("e=0.2,c=0.0", CLAIM)]
    array = reranker.predict(pairs)
    np.testing.assert_allclose(array[:, 0], [0.7, 0.5, 0.2], atol=1e-6)
    assert np.isnan(array[:, 1:]).all()
    assert [row["contradiction"] for row in reranker.predict(pairs, output="dicts")] == [None] * 3
    assert reranker.predict(pairs, output="logits").shape == (3, 2)
    assert reranker.predict(pairs, output="labels") == ["entailment", "entailment", "not_entailment"]


def test_two_labels_and_a_long_premise() -> None:
    """A two-label checkpoint takes the window with the largest P(entailment)."""
    premise = "It says e=0.2,c=0 there. It says e=0.6,c=0 there. It says e=0.4,c=0 there."
    assert NLIReranker(binary(), window=4).predict([(premise, CLAIM)])[0, 0] == pytest.approx(0.6, abs=1e-6)


def endless() -> Iterator[tuple[str, str]]:
    """Pairs without end, no two the same."""
    return ((f"e=0.{10 + i % 40},c=0.1 {i}", CLAIM) for i in itertools.count())


@pytest.mark.parametrize("output", ["array", "logits", "dicts", "labels"])
def test_a_generator_gives_a_generator(output: str) -> None:
    """An iterator of pairs gives an iterator of the rows that a list of them gives."""
    reranker = NLIReranker(stating())
    pairs = list(itertools.islice(endless(), 2100))
    rows = reranker.predict(iter(pairs), output=output)
    assert iter(rows) is rows
    whole = list(rows)
    assert len(whole) == 2100
    if output in ("array", "logits"):
        np.testing.assert_array_equal(np.array(whole), reranker.predict(pairs, output=output))
    else:
        assert whole == reranker.predict(pairs, output=output)


def test_a_generator_and_a_frame() -> None:
    """A frame of an iterator is an error, since it would hold it whole."""
    with pytest.raises(InputError, match="frame of an iterator"):
        NLIReranker(stating()).predict(endless(), output="frame")


def test_an_unknown_output_of_a_generator_raises_at_once() -> None:
    """An unknown output is an error before the first row is asked for."""
    with pytest.raises(InputError, match="unknown output 'json': expected one of 'array', 'logits'"):
        NLIReranker(stating()).predict(endless(), output="json")


def test_a_long_hypothesis_is_refused() -> None:
    """A hypothesis that leaves the premise fewer than 32 words is an error that names its pair."""
    pairs = [("p", "word " * 32), ("p", "word " * 33)]
    reranker = NLIReranker(stating(max_length=64))
    assert reranker.predict(pairs[:1]).shape == (1, 3)
    with pytest.raises(QueryTooLongError, match=r"hypothesis of pair 1 takes 33 of the model's 64 tokens.*shorten"):
        reranker.predict(pairs)


def test_a_long_hypothesis_in_a_generator_is_named() -> None:
    """An error of a generator counts pairs from its beginning."""
    pairs = itertools.chain(itertools.islice(endless(), 1500), [("p", "word " * 33)])
    with pytest.raises(QueryTooLongError, match="pair 1500 "):
        list(NLIReranker(stating(max_length=64)).predict(pairs))


@pytest.mark.parametrize(
    "bad",
    ["a text", ("one",), ("a", "b", "c"), ("a", None), (b"a", "b"), {"premise": "a"}, None, 3, ("a", float("nan"))],
)
def test_what_is_no_pair_is_named(bad: Any) -> None:
    """Something that is not a pair of texts is an error that names its index, in a list and in a generator."""
    for pairs in ([PAIRS[0], PAIRS[1], bad], iter([PAIRS[0], PAIRS[1], bad])):
        with pytest.raises(InputTypeError, match=r"pair 2 must be \(premise, hypothesis\)"):
            list(NLIReranker(stating()).predict(pairs))


@pytest.mark.parametrize("pairs", [None, 5, "ab", b"ab", {"premise": ["a"], "hypothesis": ["b"]}])
def test_what_is_no_list_of_pairs_is_refused(pairs: Any) -> None:
    """A text, a mapping or nothing in place of the list of pairs is an error that shows it."""
    with pytest.raises(InputTypeError, match="pairs must be a list of them, got "):
        NLIReranker(stating()).predict(pairs)


def test_pairs_are_not_changed() -> None:
    """The caller's pairs are afterwards what they were."""
    pairs = [{"premise": "e=0.5,c=0.1", "hypothesis": CLAIM, "meta": {"a": [1]}}]
    before = copy.deepcopy(pairs)
    NLIReranker(stating()).predict(pairs)
    assert pairs == before


def test_predict_on_the_bundled_model(bundled: NLIReranker) -> None:
    """The bundled model labels a restatement, a denial and a stranger."""
    pairs = [("Every day at noon the ferry sails.", CLAIM), ("The ferry does not sail at noon.", CLAIM)]
    assert bundled.predict(pairs, output="labels") == ["entailment", "contradiction"]


def test_a_long_premise_on_the_bundled_model(bundled: NLIReranker) -> None:
    """A premise over the model's length is windowed, and its row is that of the window that says so."""
    filler = "Tea is grown on hills in the south. " * 150
    reranker = NLIReranker(bundled.engine, window=48)
    array = reranker.predict([(f"{filler}{CLAIM} {filler}", CLAIM)])
    assert array[0].argmax() == 0


ABSTAINING = ["entailment", "abstain", "neutral"]  # 0.7, 0.6 and 0.7 against 0.65


@pytest.mark.parametrize(
    ("least", "labels"),
    [
        (None, ["entailment", "contradiction", "neutral"]),
        (0, ["entailment", "contradiction", "neutral"]),
        (0.65, ABSTAINING),
        (1, ["abstain"] * 3),
    ],
)
def test_abstain_below(least: float | None, labels: list[str]) -> None:
    """A pair whose likeliest label is less likely than abstain_below gets "abstain", and None never does."""
    assert NLIReranker(stating()).predict(PAIRS, output="labels", abstain_below=least) == labels


def test_the_abstention_threshold_itself_is_enough() -> None:
    """A label that is exactly as likely as abstain_below is given."""
    even = FunctionEngine(lambda pairs: [[0.0, 0.0] for _ in pairs], labels=["entailment", "not_entailment"])
    assert NLIReranker(even).predict(PAIRS[:1], output="labels", abstain_below=0.5) == ["entailment"]


def test_two_labels_abstain_between() -> None:
    """Of two labels the likelier has max(P(entailment), 1 - P(entailment)): 0.7, 0.55 and 1 - 0.2."""
    pairs = [("e=0.7,c=0.0", CLAIM), ("e=0.55,c=0.0", CLAIM), ("e=0.2,c=0.0", CLAIM)]
    reranker = NLIReranker(binary())
    assert reranker.predict(pairs, output="labels", abstain_below=0.6) == ["entailment", "abstain", "not_entailment"]
    assert reranker.predict(pairs, output="dicts", abstain_below=0.75)[2]["label"] == "not_entailment"


def test_dicts_and_frame_carry_the_label() -> None:
    """With abstain_below dicts and frame have a label beside the same probabilities."""
    pytest.importorskip("pandas")
    reranker = NLIReranker(stating())
    dicts = reranker.predict(PAIRS, output="dicts", abstain_below=0.65)
    assert [row.pop("label") for row in dicts] == ABSTAINING
    assert dicts == reranker.predict(PAIRS, output="dicts")
    frame = reranker.predict(PAIRS, output="frame", abstain_below=0.65)
    assert list(frame.columns) == ["entailment", "neutral", "contradiction", "label"]
    assert list(frame["label"]) == ABSTAINING
    assert list(reranker.predict([], output="frame", abstain_below=0.65).columns) == list(frame.columns)


@pytest.mark.parametrize("output", ["labels", "dicts"])
def test_a_generator_abstains_alike(output: str) -> None:
    """An iterator of pairs abstains where a list of them does."""
    reranker = NLIReranker(stating())
    rows = reranker.predict(iter(PAIRS), output=output, abstain_below=0.65)
    assert list(rows) == reranker.predict(PAIRS, output=output, abstain_below=0.65)


@pytest.mark.parametrize("output", ["array", "logits"])
def test_numbers_do_not_abstain(output: str) -> None:
    """An output without labels refuses abstain_below, of an iterator before the first row."""
    for pairs in (PAIRS, endless()):
        with pytest.raises(InputError, match=f"output='{output}' has none: use 'labels'"):
            NLIReranker(stating()).predict(pairs, output=output, abstain_below=0.6)


@pytest.mark.parametrize("least", [-0.1, 1.01, math.nan, math.inf, "0.6", True])
def test_abstain_below_is_a_probability(least: Any) -> None:
    """abstain_below outside 0..1 is an error that shows it."""
    with pytest.raises(InputError, match=r"abstain_below=.*expected a probability in 0\.\.1"):
        NLIReranker(stating()).predict(PAIRS, output="labels", abstain_below=least)


PREMISES = [premise for premise, _ in PAIRS]


def test_average_weighs_alike() -> None:
    """Without weights the average is the mean of the rows, as plain numbers."""
    average = NLIReranker(stating()).average(CLAIM, PREMISES)
    means = [(0.7 + 0.1 + 0.2) / 3, (0.2 + 0.3 + 0.7) / 3, (0.1 + 0.6 + 0.1) / 3]
    assert list(average) == pytest.approx(means, abs=1e-6)
    assert {type(p) for p in average} == {float}


@pytest.mark.parametrize("scale", [1, 1e-300, 5e307])
def test_average_weighs(scale: float) -> None:
    """Weights of 3 : 0 : 1 count as 0.75, 0 and 0.25, however large they are."""
    average = NLIReranker(stating()).average(CLAIM, PREMISES, [3 * scale, 0, scale])
    assert average.entailment == pytest.approx(0.75 * 0.7 + 0.25 * 0.2, abs=1e-6)
    assert average.contradiction == pytest.approx(0.75 * 0.1 + 0.25 * 0.1, abs=1e-6)


def test_equal_premises_are_scored_once_and_each_counts() -> None:
    """Of three premises, two of them equal, two are scored, and the equal ones have two thirds of the weight."""
    seen: list[tuple[str, str]] = []

    def note(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        seen.extend(pairs)
        return stated(pairs)

    average = NLIReranker(FunctionEngine(note)).average(CLAIM, [PREMISES[0], {"text": PREMISES[1]}, PREMISES[0]])
    assert sorted(seen) == sorted([PAIRS[0], PAIRS[1]])
    assert average.entailment == pytest.approx((2 * 0.7 + 0.1) / 3, abs=1e-6)


def test_average_of_two_labels() -> None:
    """A two-label checkpoint has an average P(entailment) and None for the others."""
    average = NLIReranker(binary()).average(CLAIM, ["e=0.8,c=0", "e=0.2,c=0"])
    assert average.entailment == pytest.approx(0.5, abs=1e-6)
    assert average[1:] == (None, None)


@given(st.lists(st.tuples(st.integers(1, 49), st.integers(1, 49), st.integers(1, 99)), min_size=1, max_size=6))
def test_an_average_lies_between_its_premises(parts: list[tuple[int, int, int]]) -> None:
    """A weighted average is a distribution that no premise's probability lies wholly below or above."""
    premises = [f"e={e / 100},c={c / 100}" for e, c, _ in parts]
    average = NLIReranker(stating()).average(CLAIM, premises, [w for *_, w in parts])
    assert math.fsum(p or 0 for p in average) == pytest.approx(1)
    assert min(e for e, *_ in parts) - 1e-4 <= average.entailment * 100 <= max(e for e, *_ in parts) + 1e-4


@pytest.mark.parametrize(
    ("hypothesis", "premises", "weights", "error", "message"),
    [
        (CLAIM, [], None, InputError, "no premises"),
        (CLAIM, ["a", "b"], [1], InputError, "1 weights, but 2 premises"),
        (CLAIM, ["a", "b"], [1, -1], InputError, "weight 1 must be a finite number that is at least 0, got -1"),
        (CLAIM, ["a", "b"], [math.nan, 1], InputError, "weight 0 must be"),
        (CLAIM, ["a", "b"], [1, math.inf], InputError, "weight 1 must be"),
        (CLAIM, ["a", "b"], [True, 1], InputError, "weight 0 must be"),
        (CLAIM, ["a", "b"], ["1", 1], InputError, "weight 0 must be"),
        (CLAIM, ["a", "b"], [0, 0.0], InputError, "all weights are 0"),
        (CLAIM, ["a", "b"], "12", InputTypeError, "weights must be a list"),
        (CLAIM, ["a", None], None, InputTypeError, "premise 1 must be a text"),
        (CLAIM, "a", None, InputTypeError, "premises must be a list"),
        (None, ["a"], None, InputTypeError, "the hypothesis must be a text, got None"),
    ],
)
def test_what_cannot_be_averaged(
    hypothesis: Any, premises: Any, weights: Any, error: type[Exception], message: str
) -> None:
    """What is no hypothesis, premise or weight is one error that says which."""
    with pytest.raises(error, match=message):
        NLIReranker(stating()).average(hypothesis, premises, weights)


def test_abstaining_on_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`predict --abstain-below` labels a pair of the bundled model "abstain", and is refused for an array."""
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps({"premise": "A cat sleeps.", "hypothesis": "A cat sleeps."}), encoding="utf-8")
    labels = []
    for least in ("0.5", "1"):
        assert main(["predict", str(file), "--output", "labels", "--abstain-below", least]) == 0
        labels.append(json.loads(capsys.readouterr().out))
    assert labels == ["entailment", "abstain"]
    assert main(["predict", str(file), "--output", "array", "--abstain-below", "0.5"]) == 2
    assert "abstain_below=0.5" in capsys.readouterr().err
