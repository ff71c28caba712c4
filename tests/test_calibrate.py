"""Calibrating a reranker on labelled pairs: what is fitted, what it is worth by halves, and the command."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from texts import stated

from rerank_nli import CalibrationError, FunctionEngine, InputError, NLIReranker
from rerank_nli.calibrate import calibrate, plot_calibration
from rerank_nli.calibration import Calibration
from rerank_nli.cli import main
from rerank_nli.pairs import Pair

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("sklearn")

ENGINE = FunctionEngine(stated)


def _pairs(count: int, queries: int, seed: int = 0) -> list[Pair]:
    """Passages that state P(entailment) s and are entailed with the probability .3 + .4 s: s says too much."""
    rng = np.random.default_rng(seed)
    scores = rng.random(count)
    truth = rng.random(count) < 0.3 + 0.4 * scores
    return [
        Pair(f"e={s:.3f},c=0.000 says passage {i}.", f"Claim {i % queries} holds.", label, None, "made")
        for i, (s, label) in enumerate(
            zip(scores, np.where(truth, "entailment", "not_entailment").tolist(), strict=True)
        )
    ]


def _never(_: object) -> Any:
    pytest.fail("something was scored")


def _uncalibrated(**settings: Any) -> NLIReranker:
    return NLIReranker(ENGINE, calibration=None, **settings)


@pytest.mark.parametrize("method", ["auto", "platt", "beta", "isotonic"])
def test_scores_come_to_mean_what_they_say(method: str) -> None:
    """Scores that are off by .1 on average are off by less than .03 on what a fit has not seen."""
    calibration, report = calibrate(_uncalibrated(), _pairs(4_000, 500), method, resamples=50)
    assert method in ("auto", report.method)
    assert report.before["ece"][0] > 0.08
    assert report.after["ece"][0] < 0.03
    for figure in ("brier", "nll"):
        assert report.after[figure][0] < report.before[figure][0]
    new = _pairs(2_000, 400, seed=1)
    reranker = NLIReranker(ENGINE, calibration=calibration)
    assert reranker.calibrated
    by_passage = {p.text: p.score for p in reranker.rank("Claim 0 holds.", [pair.premise for pair in new])}
    high = [pair.label == "entailment" for pair in new if by_passage[pair.premise] > 0.5]
    mean = np.mean([score for score in by_passage.values() if score > 0.5])
    assert np.mean(high) == pytest.approx(mean, abs=0.05)


def test_figures_of_a_few_rows() -> None:
    """Before: ECE, Brier score and negative log-likelihood of two bins are what one computes by hand."""
    pairs = [
        Pair(
            f"e={s:.1f},c=0.0 says passage {i}.", f"Claim {i} holds.", "entailment" if true else "neutral", None, "made"
        )
        for i, (s, true) in enumerate([(0.8, True), (0.8, True), (0.8, False), (0.2, False), (0.2, True)] * 20)
    ]
    _, report = calibrate(_uncalibrated(), pairs, "platt", resamples=0)
    assert report.before == {
        "ece": [pytest.approx(3 / 5 * (0.8 - 2 / 3) + 2 / 5 * (0.5 - 0.2), abs=1e-3)],
        "brier": [pytest.approx((2 * 0.04 + 0.64 + 0.04 + 0.64) / 5, abs=1e-3)],
        "nll": [pytest.approx(-(3 * np.log(0.8) + 2 * np.log(0.2)) / 5, abs=1e-3)],
    }
    assert [(b["rows"], b["confidence"]) for b in report.reliability["before"]] == [(40, 0.2), (60, 0.8)]
    assert (report.rows, report.entailed) == (100, 60)


def test_queries_are_not_parted() -> None:
    """All passages of a query are in one half: what a fit learns of a query is not what it is judged on."""
    pairs = _pairs(400, 2)  # each half is one query
    _, report = calibrate(_uncalibrated(), pairs, "isotonic", resamples=0)
    scores = np.array([float(pair.premise[2:7]) for pair in pairs])
    truth = np.array([pair.label == "entailment" for pair in pairs])
    fits = [Calibration.fit(scores[half::2], truth[half::2], "isotonic", {}) for half in (0, 1)]
    expected = np.empty(400)
    expected[0::2], expected[1::2] = fits[1].apply(scores[0::2]), fits[0].apply(scores[1::2])
    assert report.after["brier"] == [pytest.approx(((expected - truth) ** 2).mean(), abs=1e-3)]


def test_logits_are_refused_before_the_work() -> None:
    """A score that is no probability is refused before anything is scored."""
    with pytest.raises(CalibrationError, match="not of score='margin'"):
        calibrate(NLIReranker(FunctionEngine(_never), score="margin", calibration=None), _pairs(40, 4))


def test_intervals_are_of_queries() -> None:
    """Each pair ten times over, under the same query, makes no interval narrower."""
    pairs = _pairs(200, 50)
    widths = []
    for times in (1, 10):
        _, report = calibrate(_uncalibrated(), pairs * times, "platt", resamples=400)
        widths.append(report.before["brier"][2] - report.before["brier"][1])
    assert widths[1] == pytest.approx(widths[0], rel=0.01)


def test_intervals_hold_the_figure() -> None:
    """Each figure lies in its interval, and intervals come from resampling queries by the seed."""
    pairs = _pairs(600, 60)
    _, report = calibrate(_uncalibrated(), pairs, "platt", resamples=200)
    for figures in (report.before, report.after):
        for value, low, high in figures.values():
            assert low - 0.02 < value < high + 0.02  # an ECE of resamples is above that of the sample
            assert low < high
    assert calibrate(_uncalibrated(), pairs, "platt", resamples=200)[1] == report
    assert calibrate(_uncalibrated(), pairs, "platt", resamples=200, seed=1)[1] != report


def test_the_settings_are_those_of_the_reranker() -> None:
    """The calibration has the key of the reranker's settings, and serves no other."""
    calibration, _ = calibrate(_uncalibrated(pool="mean"), _pairs(200, 50), "platt", resamples=0)
    assert NLIReranker(ENGINE, pool="mean", calibration=calibration).calibrated
    with pytest.raises(CalibrationError, match="pool: fitted for 'mean', used with 'max'"):
        NLIReranker(ENGINE, calibration=calibration)


def test_calibrated_already() -> None:
    """A reranker that is calibrated is refused: its scores are not what a calibration acts on."""
    calibration, _ = calibrate(_uncalibrated(), _pairs(200, 50), "platt", resamples=0)
    with pytest.raises(InputError, match="calibration=None"):
        calibrate(NLIReranker(ENGINE, calibration=calibration), _pairs(200, 50))


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ([], "at least 20 scores"),
        (_pairs(30, 30), "half of the queries, .* at least 20 scores"),
        ([pair._replace(label="neutral") for pair in _pairs(100, 10)], "both classes, got 0 true"),
        ([pair._replace(label=None) for pair in _pairs(100, 10)], "pair 0 has no label"),
    ],
)
def test_pairs_that_do_not_do(pairs: list[Pair], said: str) -> None:
    """Too few rows, one class or no label: one error that says which."""
    with pytest.raises((CalibrationError, InputError), match=said):
        calibrate(_uncalibrated(), pairs)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`calibrate` writes a calibration that the same settings take, prints figures, and draws the diagram."""
    data, out, picture = tmp_path / "pairs.jsonl", tmp_path / "cal.json", tmp_path / "cal.svg"
    rows = [
        {"premise": f"The ferry leaves at {hour}.", "hypothesis": f"The ferry leaves at {claimed}.", "label": label}
        for hour in ("noon", "dawn", "one", "two", "six", "ten", "nine", "dusk")
        for claimed in ("noon", "dawn", "one", "two", "six", "ten", "nine", "dusk")
        for label in ["entailment" if hour == claimed else "contradiction"]
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    arguments = ["calibrate", str(data), "-o", str(out), "--resamples", "20", "--method", "platt"]
    assert main([*arguments, "--plot", str(picture)]) == 0
    printed = capsys.readouterr().out
    assert "platt, fitted on 64 pairs, 8 of them entailed" in printed
    assert [line.split()[0] for line in printed.splitlines()[2:]] == ["ece", "brier", "nll"]
    assert "<svg" in picture.read_text(encoding="utf-8")
    assert NLIReranker(calibration=out).calibrated
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 64


def test_a_plot_of_another_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A picture that cannot be drawn is refused before the work, in the command and in the function."""
    arguments = ["calibrate", str(tmp_path / "none.jsonl"), "-o", str(tmp_path / "cal.json"), "--plot", "cal.bmp"]
    assert main(arguments) == 2
    assert "unknown suffix of a plot '.bmp'" in capsys.readouterr().err
    _, report = calibrate(_uncalibrated(), _pairs(200, 50), "platt", resamples=0)
    with pytest.raises(InputError, match=r"'\.gif'"):
        plot_calibration(report, tmp_path / "cal.gif")
