"""Texts as vectors: the hidden states of an NLI model's encoder, pooled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rerank_nli.batches import in_batches
from rerank_nli.errors import InputError
from rerank_nli.windows import Tokens, windows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rerank_nli.engines import Engine
    from rerank_nli.scores import FloatArray
    from rerank_nli.windows import IntArray

__all__ = ["POOLINGS", "embed"]

POOLINGS: dict[str, Callable[[FloatArray, IntArray], FloatArray]] = {  # (m, S, H), mask (m, S) → (m, H)
    "cls": lambda states, _: states[:, 0],
    "mean": lambda states, mask: (states * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True),
}


def embed(engine: Engine, texts: Sequence[str], pool: str, batch_tokens: int) -> FloatArray:
    """Unit vectors of texts; the windows of a long text are averaged, each by its share of the tokens.

    Args:
        engine: one that has the encoder's states.
        texts: n of them; one without a token becomes zeros.
        pool: a name in POOLINGS.
        batch_tokens: most tokens of a batch.

    Returns:
        (n, H) float32.

    Raises:
        InputError: the engine has only logits.
    """
    states: Any = getattr(engine, "states", None)
    if states is None:
        message = f"the {engine.name} engine has no encoder to embed texts with: use a checkpoint or a bundle"
        raise InputError(message)
    nothing = Tokens("", np.empty(0, dtype=np.int64), np.empty((0, 2), dtype=np.int64))

    def pooled(batch: Sequence[tuple[Tokens, Tokens]]) -> FloatArray:
        return POOLINGS[pool](*states([text for text, _ in batch]))

    budget = min(engine.max_length - engine.special, engine.window or engine.max_length)
    cut = [
        (index, tokens.cut(window))
        for index, tokens in enumerate(engine.tokenize(texts))
        for window in windows(tokens, budget)
    ]
    if not cut:
        return np.zeros((len(texts), states([nothing])[0].shape[-1]), dtype=np.float32)
    vectors = in_batches([(text, nothing) for _, text in cut], pooled, batch_tokens, engine.special)  # (m, H)
    sums = np.zeros((len(texts), vectors.shape[1]), dtype=np.float32)
    np.add.at(sums, [index for index, _ in cut], vectors * np.array([[len(text)] for _, text in cut]))
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
