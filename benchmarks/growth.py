"""What does a pair cost among many? Run: python benchmarks/growth.py, or for a trial with --scale 0.01 --out FILE.

A round ranks the same 10,000 passages once as ten rankings of 1,000 and once as one of 10,000, in alternating order;
medians of the rounds are reported. With a function as the engine the cost is the pipeline's own. Then a generator of
1,000,000 pairs goes through predict; memory is the process's largest resident set so far.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import resource
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from rerank_nli import Engine, FunctionEngine, NLIReranker, load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

RESULT = Path(__file__).parent / "results" / "growth.json"
CLAIM = "It rained for a week."
PARTS = 10  # rankings that the passages of one are divided among


def zeros(pairs: Sequence[tuple[str, str]]) -> NDArray[Any]:
    return np.zeros((len(pairs), 3))


def largest_resident_set() -> float:
    """In MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)


def cost(engine: Engine, passages: Sequence[str], parts: int) -> float:
    """Microseconds for each passage, ranked in so many parts by a new reranker."""
    reranker = NLIReranker(engine)
    size = len(passages) // parts
    gc.collect()
    start = time.perf_counter()
    for first in range(0, len(passages), size):
        reranker.rank(CLAIM, passages[first : first + size])
    return (time.perf_counter() - start) / len(passages) * 1e6


def compare(engine: Engine, count: int, rounds: int) -> dict[str, Any]:
    """The cost of a passage in many rankings and in one."""
    NLIReranker(engine).rank(CLAIM, ["It rained."])
    costs: dict[int, list[float]] = {PARTS: [], 1: []}
    for turn in range(rounds):
        passages = [f"Rain fell on day {i} of week {turn}." for i in range(count)]
        for parts in (PARTS, 1) if turn % 2 else (1, PARTS):
            costs[parts].append(cost(engine, passages, parts))
    few, many = f"{count // PARTS} passages", f"{count} passages"
    ratios = [one / parted for one, parted in zip(costs[1], costs[PARTS], strict=True)]
    return {
        "rounds": rounds,
        f"µs a pair, {few}": round(median(costs[PARTS]), 2),
        f"µs a pair, {many}": round(median(costs[1]), 2),
        "ratio, median of the rounds": round(median(ratios), 4),
        "ratio, least and greatest": [round(min(ratios), 4), round(max(ratios), 4)],
    }


def stream(counts: Sequence[int]) -> list[dict[str, Any]]:
    """Speed and memory after so many pairs of one generator, all at least 1."""
    rows = NLIReranker(FunctionEngine(zeros)).predict((f"Rain fell on day {i}.", CLAIM) for i in itertools.count())
    measured = []
    done = 0
    before = largest_resident_set()
    for count in counts:
        start = time.perf_counter()
        for _ in itertools.islice(rows, count - done):
            pass
        speed = (count - done) / (time.perf_counter() - start)
        measured.append(
            {
                "pairs": count,
                "pairs/s since the last": round(speed),
                "MB more than before": round(largest_resident_set() - before, 1),
            }
        )
        done = count
        print(json.dumps(measured[-1]), flush=True)
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the pairs and passages")
    parser.add_argument("--rounds", type=int, default=21, help="with a function as the engine")
    parser.add_argument("--model-rounds", type=int, default=5, help="with the bundled model")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    passages = max(PARTS, round(10_000 * arguments.scale))
    # First, before a model is loaded: no memory that it needed hides what the stream needs.
    streamed = stream([max(1, round(pairs * arguments.scale)) for pairs in (10_000, 100_000, 1_000_000)])
    engine = load()
    result: dict[str, Any] = {"fingerprint": engine.fingerprint, "precision": engine.precision, "cores": os.cpu_count()}
    result["predict, a generator through a function"] = streamed
    for name, ranked_by, rounds in (
        ("rank, a function", FunctionEngine(zeros), arguments.rounds),
        ("rank, the bundled model", engine, arguments.model_rounds),
    ):
        result[name] = compare(ranked_by, passages, rounds)
        print(name, json.dumps(result[name], ensure_ascii=False), flush=True)
    arguments.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
