"""Calibrations: what they fit is the truth of a sample made for it, and they refuse what they were not made for."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from rerank_nli import Calibration, CalibrationError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rerank_nli.scores import FloatArray

METHODS = ("platt", "beta", "isotonic")
KEY = {
    "weights": "0f" * 32,
    "precision": "fp32",
    "direction": "passage_entails_query",
    "kind": "entailment",
    "template": "auto",
    "window": None,
    "pool": "max",
}


def _truth(s: FloatArray) -> FloatArray:
    """P(true | score) of the sample: odds are the square of the score's odds, divided by e."""
    odds = (s / (1 - s)) ** 2 / np.e
    return odds / (1 + odds)


def _sample(seed: int, size: int = 8000) -> tuple[FloatArray, Any]:
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0.001, 0.999, size)
    return scores, rng.uniform(size=size) < _truth(scores)


def _expected_calibration_error(p: FloatArray, labels: FloatArray) -> float:
    """ECE over ten bins of equal width (Guo et al. 2017)."""
    bins = np.minimum((p * 10).astype(int), 9)
    gaps = [abs(p[bins == b].mean() - labels[bins == b].mean()) * (bins == b).mean() for b in set(bins.tolist())]
    return float(sum(gaps))


@pytest.fixture(params=METHODS, scope="module")
def fitted(request: pytest.FixtureRequest) -> Calibration:
    """One calibration of each method, fitted on one sample."""
    pytest.importorskip("sklearn")
    return Calibration.fit(*_sample(1), request.param, KEY)


def test_fit_finds_the_truth(fitted: Calibration) -> None:
    """Calibrated scores of the sample's distribution lie within 0.05 of the true probability, 0.01 on average."""
    grid = np.linspace(0.02, 0.98, 97)
    error = np.abs(fitted.apply(grid) - _truth(grid))
    assert error.max() < (0.1 if fitted.method == "isotonic" else 0.05)
    assert error.mean() < (0.02 if fitted.method == "isotonic" else 0.01)


def test_platt_finds_the_coefficients() -> None:
    """The truth is σ(2·logit(s) - 1), and that is what Platt's method finds."""
    pytest.importorskip("sklearn")
    (weight,), (intercept,) = Calibration.fit(*_sample(1), "platt", KEY).parameters
    assert weight == pytest.approx(2, abs=0.15)
    assert intercept == pytest.approx(-1, abs=0.15)


def test_calibration_error_falls(fitted: Calibration) -> None:
    """On a fresh sample the calibration error falls from over 0.1 to under 0.02."""
    scores, labels = _sample(2)
    assert _expected_calibration_error(scores, labels) > 0.1
    assert _expected_calibration_error(fitted.apply(scores), labels) < 0.02


def test_apply_is_monotone(fitted: Calibration) -> None:
    """A higher score is never calibrated lower, and all are probabilities, at 0 and 1 too."""
    p = fitted.apply(np.linspace(0, 1, 1001))
    assert (np.diff(p) >= 0).all()
    assert p.min() >= 0
    assert p.max() <= 1
    assert p[0] < 0.01
    assert p[-1] > 0.99


@pytest.mark.parametrize("method", METHODS)
def test_scores_beyond_those_of_the_fit_keep_their_order(method: str) -> None:
    """Scores below the least and above the highest that was fitted on are not tied, and become probabilities too."""
    pytest.importorskip("sklearn")
    scores, labels = _sample(1)
    inside = (scores > 0.1) & (scores < 0.9)
    calibration = Calibration.fit(scores[inside], labels[inside], method, KEY)
    p = calibration.apply(np.array([0.0, 0.01, 0.02, 0.98, 0.99, 1.0]))
    assert (np.diff(p) > 0).all()
    assert p[0] >= 0
    assert p[-1] <= 1


def test_apply_keeps_shape_and_input(fitted: Calibration) -> None:
    """A number, a row and a table come back in their shape, and are unchanged."""
    table = np.full((2, 3), 0.25)
    assert fitted.apply(table).shape == (2, 3)
    assert fitted.apply(np.array(0.25)).shape == ()
    assert fitted.apply(table)[1, 2] == fitted.apply(np.array(0.25))
    assert (table == 0.25).all()


def test_save_and_load(fitted: Calibration, tmp_path: Path) -> None:
    """A saved calibration comes back equal, and nothing but its file is left behind."""
    fitted.save(tmp_path / "calibration.json")
    assert Calibration.load(tmp_path / "calibration.json") == fitted
    assert Calibration.load(str(tmp_path / "calibration.json")) == fitted
    assert [path.name for path in tmp_path.iterdir()] == ["calibration.json"]


def test_fit_leaves_its_input_alone() -> None:
    """Scores, labels and key are unchanged, and the calibration does not share the key."""
    pytest.importorskip("sklearn")
    scores, labels = _sample(3, 100)
    key: dict[str, Any] = dict(KEY)
    before = scores.copy(), labels.copy()
    calibration = Calibration.fit(scores, labels, "platt", key)
    assert (scores == before[0]).all()
    assert (labels == before[1]).all()
    key["pool"] = "mean"
    assert calibration.key == KEY


@pytest.mark.parametrize("method", METHODS)
def test_fit_takes_separable_and_extreme_scores(method: str) -> None:
    """Scores of 0 and 1 that tell the classes apart perfectly stay finite and in order."""
    pytest.importorskip("sklearn")
    scores = np.array([0.0] * 15 + [1.0] * 15)
    low, middle, high = Calibration.fit(scores, scores, method, KEY).apply(np.array([0, 0.5, 1]))
    assert low < 0.01
    assert low <= middle <= high
    assert high > 0.99


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, y: (s[:19], y[:19]), "at least 20 scores with a label each, got 19"),
        (lambda s, y: (s, y[1:]), r"got \(100,\) and \(99,\)"),
        (lambda s, y: (s[:, None], y[:, None]), r"got \(100, 1\)"),
        (lambda s, y: (s, y * 0), "labels of both classes, got 0 true of 100"),
        (lambda s, y: (s, y * 0 + 1), "labels of both classes, got 100 true of 100"),
        (lambda s, y: (s + 0.5, y), "scores in 0..1"),
        (lambda s, y: (s - 0.5, y), "scores in 0..1"),
        (lambda s, y: (np.where(s > 0.5, np.nan, s), y), "scores in 0..1"),
        (lambda s, y: (s, 1 - y), "the scores do not rise with the labels"),
    ],
)
def test_samples_that_cannot_be_fitted(
    method: str, change: Callable[[Any, Any], tuple[FloatArray, FloatArray]], message: str
) -> None:
    """Too few rows, one class, scores outside 0..1 and scores that fall with the labels are errors that say so."""
    pytest.importorskip("sklearn")
    scores = np.linspace(0.01, 0.99, 100)
    labels = (scores + np.tile([0.2, -0.2], 50) > 0.5).astype(int)
    with pytest.raises(CalibrationError, match=message):
        Calibration.fit(*change(scores, labels), method, KEY)


def test_questions_are_told_apart_by_any_truth() -> None:
    """Which scores are of questions may come as bools, 0 and 1 or a list, and must be said of each."""
    pytest.importorskip("sklearn")
    scores, labels = _sample(1, 400)
    questions = np.arange(400) % 3 == 0
    expected = Calibration.fit(scores, labels, "isotonic", KEY, questions)
    assert expected.questions == Calibration.fit(scores[questions], labels[questions], "isotonic", KEY).parameters
    for same in (questions.astype(int), questions.tolist()):
        assert Calibration.fit(scores, labels, "isotonic", KEY, same) == expected
    with pytest.raises(CalibrationError, match=r"questions says of each of 400 scores .* got \(399,\)"):
        Calibration.fit(scores, labels, "isotonic", KEY, questions[1:])


def test_any_text_can_be_saved(tmp_path: Path) -> None:
    """A template that UTF-8 cannot hold is kept too, and nothing is left beside the file."""
    calibration = Calibration("platt", [[1.0], [0.0]], {**KEY, "template": ["\ud800 {query}"]})
    calibration.save(tmp_path / "cal.json")
    assert Calibration.load(tmp_path / "cal.json") == calibration
    assert [path.name for path in tmp_path.iterdir()] == ["cal.json"]


def test_unknown_method() -> None:
    """An unknown method is an error that lists the three."""
    with pytest.raises(InputError, match=r"'spline'.*'platt', 'beta', 'isotonic'"):
        Calibration.fit(*_sample(1, 50), "spline", KEY)


def test_key_must_match() -> None:
    """The same settings are accepted, in any order and after JSON."""
    calibration = Calibration("platt", [[1.0], [0.0]], dict(KEY))
    calibration.require_key(dict(reversed(KEY.items())))
    calibration.require_key(json.loads(json.dumps(KEY)))


def test_each_difference_is_named() -> None:
    """Settings that differ are each named with both values, the others not."""
    calibration = Calibration("platt", [[1.0], [0.0]], dict(KEY))
    with pytest.raises(CalibrationError) as caught:
        calibration.require_key({**KEY, "pool": "mean", "window": 128})
    assert "(window: fitted for None, used with 128; pool: fitted for 'max', used with 'mean')" in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "3",
        "{}",
        '{"method": "platt"}',
        '{"method": "platt", "parameters": [[1], [0]]}',
        '{"method": "platt", "parameters": [["a"]], "key": {}}',
    ],
)
def test_files_without_a_calibration(content: str, tmp_path: Path) -> None:
    """A file that holds something else is an error that names it."""
    path = tmp_path / "other.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(CalibrationError, match=re.escape(f"{path} holds no calibration that can be read")):
        Calibration.load(path)


def test_no_file(tmp_path: Path) -> None:
    """A file that is not there, and a folder, are an error that names the place."""
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(CalibrationError, match=re.escape(str(path))):
            Calibration.load(path)


def test_files_of_another_method(tmp_path: Path) -> None:
    """A file with a method that this version does not know is refused by name."""
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps({"method": "spline", "parameters": [], "key": {}}), encoding="utf-8")
    with pytest.raises(CalibrationError, match="spline"):
        Calibration.load(path)


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("platt", [[float("nan")], [0.0]]),
        ("platt", [[-1.0], [0.0]]),
        ("isotonic", [[0.0, 1.0], [0.9, 0.1]]),
        ("isotonic", [[0.0, 1.0], [0.0, 1.5]]),
        ("beta", [[1.0, -1.0], [0.0]]),
    ],
)
def test_files_that_do_not_rise(method: str, parameters: list[list[float]], tmp_path: Path) -> None:
    """A file whose map falls somewhere, leaves 0..1 or is no number is refused, and says so."""
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps({"method": method, "parameters": parameters, "key": KEY}), encoding="utf-8")
    with pytest.raises(CalibrationError, match=r"does not rise within 0\.\.1"):
        Calibration.load(path)


@pytest.mark.parametrize("labels", [[0.3, 1] * 20, [-1, 1] * 20, [float("nan"), 1] * 20])
def test_labels_that_are_no_labels(labels: list[float]) -> None:
    """A label is 0 or 1: anything else is refused rather than taken for true."""
    with pytest.raises(CalibrationError, match="labels of a calibration are 1"):
        Calibration.fit(np.linspace(0, 1, 40), np.array(labels), "platt", KEY)


@pytest.mark.parametrize("method", ["platt", "beta", "isotonic"])
def test_scores_that_are_all_the_same(method: str) -> None:
    """Scores that do not differ cannot be calibrated."""
    pytest.importorskip("sklearn")
    with pytest.raises(CalibrationError, match=r"all 40 scores are 0\.3: there is nothing to calibrate"):
        Calibration.fit(np.full(40, 0.3), np.array([0, 1] * 20), method, KEY)


def test_a_failed_save_keeps_the_old_file(tmp_path: Path) -> None:
    """A calibration that cannot be written leaves the one that was there."""
    path = tmp_path / "calibration.json"
    good = Calibration("platt", [[1.0], [0.0]], dict(KEY))
    good.save(path)
    with pytest.raises(TypeError):
        Calibration("platt", [[1.0], [0.0]], {"weights": object()}).save(path)
    assert Calibration.load(path) == good


def test_beta_leaves_out_a_falling_term() -> None:
    """Where one of beta's two terms would fall with the truth, it gets the weight 0 and the map still rises."""
    pytest.importorskip("sklearn")
    scores = np.concatenate([np.linspace(0.0, 0.3, 200), np.linspace(0.7, 1.0, 200)])
    rng = np.random.default_rng(0)
    truth = (rng.random(400) < np.where(scores < 0.5, 0.2 + 0.5 * np.exp(-30 * scores), 0.9)).astype(np.float64)
    calibration = Calibration.fit(scores, truth, "beta", KEY)
    assert calibration.parameters[0].count(0.0) == 1
    assert np.all(np.diff(calibration.apply(np.linspace(0.01, 0.99, 50))) >= 0)
