"""Many passages and pairs without end: memory and work grow with what is asked for, and with nothing else.

benchmarks/growth.py measures the time.
"""

from __future__ import annotations

import gc
import itertools
import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest
from texts import stated

from rerank_nli import FunctionEngine, NLIReranker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rerank_nli.scores import FloatArray

CLAIM = "The ferry sails at noon."


def zeros(pairs: Sequence[tuple[str, str]]) -> FloatArray:
    """Logits that cost nothing."""
    return np.zeros((len(pairs), 3))


def endless() -> Iterator[tuple[str, str]]:
    """Pairs without end, no two the same."""
    return ((f"Rain fell on day {i}.", CLAIM) for i in itertools.count())


def test_ten_thousand_passages() -> None:
    """10,000 passages come back in the order of their scores, ties as they came in, each scored once."""
    asked: list[tuple[str, str]] = []

    def fn(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        asked.extend(pairs)
        return stated(pairs)

    chances = [(i * 7919 % 10_000) // 100 / 100 for i in range(10_000)]  # 0.00 … 0.99, a hundred of each
    passages = [f"e={chance:.2f},c=0.0 says passage {i}." for i, chance in enumerate(chances)]
    ranking = NLIReranker(FunctionEngine(fn)).rank(CLAIM, passages)
    assert [p.index for p in ranking] == sorted(range(10_000), key=lambda i: -chances[i])
    assert [p.text for p in ranking] == [passages[p.index] for p in ranking]
    assert [p.score for p in ranking] == pytest.approx(sorted(chances, reverse=True), abs=1e-6)
    assert sorted(asked) == sorted((passage, CLAIM) for passage in passages)


def test_memory_grows_with_the_passages() -> None:
    """The peak of ranking 10,000 passages is at most 11 times that of 1,000."""

    def peak(count: int) -> int:
        reranker = NLIReranker(FunctionEngine(zeros))
        passages = [passage for passage, _ in itertools.islice(endless(), count)]
        tracemalloc.start()
        reranker.rank(CLAIM, passages)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak(1_000)  # what is imported at the first call
    assert peak(10_000) <= 11 * peak(1_000)


def test_memory_stays_flat_over_a_generator() -> None:
    """The peak over 100,000 pairs of a generator is that over the first 10,000, give or take 5 %.

    Without the collector, which empties the interpreter's own lists of free tuples at moments of its own, to be filled
    again; and so no cycle of ours may hold memory.
    """
    rows = NLIReranker(FunctionEngine(zeros), cache_size=100).predict(endless())
    gc.disable()
    tracemalloc.start()
    peaks = []
    for count in (10_000, 90_000):
        for _ in itertools.islice(rows, count):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.reset_peak()
    tracemalloc.stop()
    gc.enable()
    assert peaks[1] <= 1.05 * peaks[0]


def test_a_generator_is_read_as_it_is_needed() -> None:
    """Nothing is read before the first row is asked for, and never more than 1,024 pairs ahead of the rows."""
    read = 0

    def counted() -> Iterator[tuple[str, str]]:
        nonlocal read
        for pair in endless():
            read += 1
            yield pair

    rows = NLIReranker(FunctionEngine(zeros)).predict(counted(), output="dicts")
    assert read == 0
    for given in range(5_000):
        next(rows)
        assert given < read <= given + 1_024
