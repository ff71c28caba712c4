"""Engines are timed beside each other on one batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from rerank_nli import FunctionEngine, InputError, NLIReranker
from rerank_nli.cli import main
from rerank_nli.throughput import throughput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rerank_nli.scores import FloatArray


def _working(times: int, seen: list[Sequence[tuple[str, str]]]) -> FunctionEngine:
    def fn(pairs: Sequence[tuple[str, str]]) -> FloatArray:
        seen.append(pairs)
        for _ in range(times):
            np.linalg.inv(np.eye(60))
        return np.zeros((len(pairs), 3))

    return FunctionEngine(fn)


def test_the_faster_is_told() -> None:
    """An engine that does a hundredth of the work has the higher rate, and they take turns."""
    seen: list[Sequence[tuple[str, str]]] = []
    rates = throughput({"slow": _working(500, seen), "fast": _working(5, seen)}, rounds=3)
    assert list(rates) == ["slow", "fast"]
    assert 0 < rates["slow"] < rates["fast"]
    assert len(seen) == 2 * (1 + 3)


@pytest.mark.parametrize(("pairs", "tokens"), [(1, 2), (3, 9), (32, 128), (2, 512)])
def test_one_batch_of_that_shape(pairs: int, tokens: int) -> None:
    """The batch has as many pairs as asked for, each of as many tokens, about a quarter of them the hypothesis."""
    seen: list[Sequence[tuple[str, str]]] = []
    throughput({"one": _working(0, seen)}, pairs=pairs, tokens=tokens, rounds=1)
    for batch in seen:
        assert len(batch) == pairs
        for premise, hypothesis in batch:
            assert len(premise.split()) + len(hypothesis.split()) == tokens
            assert len(hypothesis.split()) == max(1, tokens // 4)


def test_the_bundled_model(bundled: NLIReranker) -> None:
    """Special tokens are counted in: the longest pair that the model takes can be timed, and no longer one."""
    assert throughput({"mini": bundled.engine}, pairs=1, tokens=512, rounds=1)["mini"] > 0
    with pytest.raises(InputError, match="tokens=513: expected a whole number from 5 to 512"):
        throughput({"mini": bundled.engine}, tokens=513)


@pytest.mark.parametrize("wrong", [{"pairs": 0}, {"rounds": 0}, {"tokens": 1}, {"tokens": 2.5}])
def test_counts(wrong: dict[str, Any]) -> None:
    """A number that is no count is an error that names it."""
    with pytest.raises(InputError, match=f"{next(iter(wrong))}="):
        throughput({"one": _working(0, [])}, **wrong)


def test_doctor_measures(capsys: pytest.CaptureFixture[str]) -> None:
    """`doctor --measure` times the engines that can run the model, the fastest first, and says why others cannot."""
    assert main(["doctor", "--measure", "--threads", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rates = [float(line.split(": ")[1].split(" pairs/s")[0]) for line in lines if "pairs/s" in line]
    assert len(rates) >= 2
    assert rates == sorted(rates, reverse=True)
    assert any(line.startswith("  torch fp32: the bundled model is an ONNX file") for line in lines)
