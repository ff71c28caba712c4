"""Evaluation: figures by visible arithmetic, intervals, and a temperature that is found again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rerank_nli import FunctionEngine, InputError, Labels, NLIReranker
from rerank_nli.cli import main
from rerank_nli.pairs import Pair

pytest.importorskip("sklearn")

from rerank_nli.evaluate import evaluate, fit_temperature, measure, plot, truths

if TYPE_CHECKING:
    from pathlib import Path

THREE = Labels.of(["entailment", "neutral", "contradiction"])
# decided: entailment, entailment, neutral, contradiction, contradiction
P = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8], [0.3, 0.2, 0.5]])


def test_three_labels() -> None:
    """Accuracy, macro-F1, AUROC and ECE of five rows are what pencil and paper give."""
    found = measure(P, np.array([0, 1, 1, 2, 0]), resamples=0)
    assert found.accuracy == 3 / 5
    # F1: entailment 2·1/(2+2), neutral 2·1/(2+1), contradiction 2·1/(1+2)
    assert found.macro_f1 == round((1 / 2 + 2 / 3 + 2 / 3) / 3, 4)
    # entailment at .8 and .3 against .6, .2, .1: .8 beats 3, .3 beats 2, of 6
    assert found.auroc == round(5 / 6, 4)
    # bins of 1/15: .8 (two, both right), .6 (wrong), .7 (right), .5 (wrong)
    assert found.ece == round((2 * 0.2 + 0.6 + 0.3 + 0.5) / 5, 4)
    assert found.confusion["entailment"] == {"entailment": 1, "neutral": 0, "contradiction": 1}
    assert sum(b["rows"] for b in found.reliability) == found.rows == 5
    assert not found.two_labels


def test_macro_f1_is_over_the_labels_of_the_set() -> None:
    """A label that the set has not is no part of the mean, also where the model says it."""
    found = measure(P, np.array([0, 0, 0, 2, 2]), resamples=0)
    # entailment 2·2/(2+3), contradiction 2·2/(2+2)
    assert found.macro_f1 == round((4 / 5 + 1) / 2, 4)


def test_not_entailment_is_decided_by_half() -> None:
    """Where a set knows entailment and its absence only, P(entailment) > ½ decides, whatever is likeliest of three."""
    found = measure(np.array([[0.4, 0.3, 0.3], [0.9, 0.05, 0.05]]), np.array([3, 0]), resamples=0)
    assert (found.two_labels, found.accuracy) == (True, 1.0)
    assert found.confusion == {
        "entailment": {"entailment": 1, "not_entailment": 0},
        "not_entailment": {"entailment": 0, "not_entailment": 1},
    }


def test_a_model_of_two_labels_on_three() -> None:
    """On a set of three labels a two-label model is right where it denies neutral and contradiction."""
    nan = np.nan
    found = measure(np.array([[0.9, nan, nan], [0.2, nan, nan], [0.7, nan, nan]]), np.array([0, 1, 2]), resamples=0)
    assert (found.two_labels, found.accuracy) == (True, round(2 / 3, 4))


def test_intervals_hold_the_figure_and_narrow_with_rows() -> None:
    """The interval of a figure lies around it, and four times the rows halve it."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet([1, 1, 1], size=1600)
    truth = np.array([rng.choice(3, p=row) for row in p])
    few, many = measure(p[:400], truth[:400], resamples=300), measure(p, truth, resamples=300)
    for found in (few, many):
        for name, (low, high) in found.intervals.items():
            if name != "ece":  # resampling adds noise to it, so its interval lies above it
                assert low < getattr(found, name) < high
    widths = [found.intervals["accuracy"][1] - found.intervals["accuracy"][0] for found in (few, many)]
    assert 1.5 < widths[0] / widths[1] < 2.7
    assert measure(p, truth, resamples=50, seed=1) == measure(p, truth, resamples=50, seed=1)


def test_a_resample_of_one_class_has_no_say() -> None:
    """With one row of entailment among five, resamples without it leave the interval of AUROC to the others."""
    found = measure(P, np.array([0, 1, 1, 2, 2]), resamples=50)
    assert found.auroc == 1
    assert found.intervals["auroc"] == [1, 1]  # .8 beats all the others, however often they are drawn
    assert set(found.intervals) == {"accuracy", "macro_f1", "auroc", "ece"}


def test_one_class_has_no_auroc() -> None:
    """AUROC is None where there is nothing to tell apart."""
    found = measure(P, np.zeros(5, dtype=int), resamples=20)
    assert found.auroc is None
    assert "auroc" not in found.intervals
    json.dumps(found.to_dict(), allow_nan=False)


def test_evaluate_asks_the_model() -> None:
    """The figures are those of the model's own probabilities, premise first."""
    logits = {"yes": [9.0, 0, 0], "perhaps": [0, 9.0, 0], "no": [0, 0, 9.0]}
    engine = FunctionEngine(lambda pairs: [logits[premise] for premise, _ in pairs])
    rows = [("yes", "entailment"), ("perhaps", "neutral"), ("no", "contradiction"), ("no", "entailment")]
    pairs = [Pair(premise, "h", label, None, "s") for premise, label in rows]
    found = evaluate(NLIReranker(engine), pairs, resamples=0)
    assert found.accuracy == 3 / 4
    assert found.confusion["entailment"]["contradiction"] == 1


@pytest.mark.parametrize("names", [["entailment", "neutral", "contradiction"], ["not_entailment", "entailment"]])
def test_the_temperature_is_found_again(names: list[str]) -> None:
    """Logits that were multiplied by 2.5 have the temperature 2.5."""
    rng = np.random.default_rng(1)
    labels = Labels.of(names)
    logits = rng.normal(size=(20_000, len(names)))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    outputs = np.array([rng.choice(len(names), p=row) for row in p])
    truth = np.where(outputs == labels.columns[0], 0, 3) if labels.binary else outputs
    assert fit_temperature(2.5 * logits, truth, labels) == pytest.approx(2.5, abs=0.15)


def test_what_cannot_be_measured() -> None:
    """No pairs, a pair without a label, negative resamples and a negative seed are errors."""
    reranker = NLIReranker(FunctionEngine(lambda pairs: [[0.0, 0, 0]] * len(pairs)))
    pair = Pair("p", "h", "neutral", None, "s")
    with pytest.raises(InputError, match="no pairs"):
        evaluate(reranker, [])
    with pytest.raises(InputError, match="pair 1 has no label"):
        truths([pair, pair._replace(label=None, probability=0.5)])
    with pytest.raises(InputError, match="resamples=-1"):
        evaluate(reranker, [pair], resamples=-1)
    with pytest.raises(InputError, match="seed=-1"):
        evaluate(reranker, [pair], seed=-1)


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_plots(suffix: str, tmp_path: Path) -> None:
    """Reliability and confusion of each set are drawn to a picture."""
    pytest.importorskip("matplotlib")
    evaluations = {"one": measure(P, np.array([0, 1, 1, 2, 0]), 0), "two": measure(P, np.array([0, 3, 3, 3, 0]), 0)}
    plot(evaluations, tmp_path / f"plot.{suffix}")
    start = (tmp_path / f"plot.{suffix}").read_bytes()[:8]
    assert start == b"\x89PNG\r\n\x1a\n" if suffix == "png" else start.startswith(b"<?xml")


def test_numbers_of_the_datas_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Labels that are numbers count in --data-labels, where the data's order is not that of the model."""
    rows = [("A cat naps.", "A cat is sleeping.", 0), ("A cat naps.", "No cat is sleeping.", 1)]
    named = [{"premise": p, "hypothesis": h, "label": ("entailment", "not_entailment")[n]} for p, h, n in rows]
    numbered = [row | {"label": n} for row, (_, _, n) in zip(named, rows, strict=True)]
    found = []
    for name, given, more in (
        ("named", named, []),
        ("numbered", numbered, ["--data-labels", "entailment,not_entailment"]),
    ):
        path = tmp_path / name / "rows.jsonl"
        path.parent.mkdir()
        path.write_text("".join(f"{json.dumps(row)}\n" for row in given), encoding="utf-8")
        assert main(["evaluate", "--data", str(path), "--resamples", "0", "--json", *more]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1]
    assert found[0]["accuracy"] == 1


def test_a_plot_of_another_kind(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A plot is .svg or .png; the command says so before it measures anything."""
    with pytest.raises(InputError, match=r"unknown suffix of a plot '\.bmp': expected one of '\.svg', '\.png'"):
        plot({}, tmp_path / "plot.bmp")
    assert main(["evaluate", "no/model", "--data", "none.jsonl", "--plot", "plot.pdf"]) == 2
    assert "unknown suffix of a plot '.pdf'" in capsys.readouterr().err
