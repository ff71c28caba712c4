"""Which passages are scored at all: the first few, or as many as there is time for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rerank_nli.scorer import Scored, Scorer

__all__ = ["score_first"]

_GROWTH = 4  # most characters of a step, in those of the last: a pace holds near where it was measured


def score_first(
    scorer: Scorer, query: str, texts: Sequence[str], turns: Sequence[int], seconds: float | None
) -> list[Scored | None]:
    """Score passages in turn until the time is out.

    The first takes as long as it takes. After it, each step has as many as fit into the time that is left, at the last
    step's pace in characters; where the next one does not fit, scoring stops.

    Args:
        scorer: what scores.
        query: the query.
        texts: n passages.
        turns: the places of those to score, in the order of their turns.
        seconds: above 0; None is as long as it takes.

    Returns:
        n results, None for what was not scored.
    """
    scored: list[Scored | None] = [None] * len(texts)
    sizes = [len(texts[i]) + 1 for i in turns]
    end = None if seconds is None else time.perf_counter() + seconds
    done, step = 0, len(turns) if end is None else 1
    while True:
        began = time.perf_counter()
        taken = turns[done : done + step]
        for place, result in zip(taken, scorer.score([query], [[texts[i] for i in taken]])[0], strict=True):
            scored[place] = result
        size = sum(sizes[done : done + step])
        done += step
        if end is None or done >= len(turns):
            return scored
        now = time.perf_counter()
        fitting = _fitting(sizes[done:], (end - now) * size / (now - began))
        if not fitting:
            return scored
        step = min(fitting, max(1, _fitting(sizes[done:], _GROWTH * size)))


def _fitting(sizes: Sequence[int], room: float) -> int:
    """How many of the first are no larger together than the room."""
    for count, size in enumerate(sizes):
        room -= size
        if room < 0:
            return count
    return len(sizes)
