"""How fast engines are beside each other, on the machine that this runs on."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

from rerank_nli.errors import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rerank_nli.engines import Engine
    from rerank_nli.windows import Tokens

__all__ = ["throughput"]

_TEXT = "The ferry leaves the old harbour at noon and reaches the island an hour later, unless the wind is strong. "


def throughput(engines: Mapping[str, Engine], pairs: int = 32, tokens: int = 128, rounds: int = 5) -> dict[str, float]:
    """Pairs per second of one batch, as the median over rounds in which the engines take turns.

    Other work on a machine slows whoever runs at that moment, so only the ratios of one call mean something.

    Args:
        engines: {name: engine}.
        pairs: of the batch.
        tokens: of each pair, special tokens included.
        rounds: after one that is not counted.

    Returns:
        {name: pairs per second}.

    Raises:
        InputError: a number that is no count, or pairs longer than an engine takes.
    """
    counted("pairs", pairs)
    counted("rounds", rounds)
    batches = {name: [_pair(engine, tokens)] * pairs for name, engine in engines.items()}
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(1 + rounds):
        for name, engine in engines.items():
            started = time.perf_counter()
            engine.logits(batches[name])
            seconds[name].append(time.perf_counter() - started)
    return {name: pairs / statistics.median(taken[1:]) for name, taken in seconds.items()}


def _pair(engine: Engine, tokens: int) -> tuple[Tokens, Tokens]:
    """Three quarters premise, one quarter hypothesis."""
    room = counted("tokens", tokens, least=engine.special + 2, most=engine.max_length) - engine.special
    text = engine.tokenize([_TEXT * (1 + tokens // 8)])[0]
    hypothesis = max(1, room // 4)
    return text.first(room - hypothesis), text.first(hypothesis)
