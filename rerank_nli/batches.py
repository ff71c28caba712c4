"""Batches of pairs: cut by token budget, sorted by length, few distinct shapes, and put back in order.

Many texts are read in chunks, each while the one before it is scored.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tokenizers import Encoding, Tokenizer

    from rerank_nli.scores import FloatArray
    from rerank_nli.windows import IntArray, Tokens

    _Parts = list[tuple[IntArray, IntArray]]

__all__ = ["PairTemplate", "ahead", "in_batches", "in_chunks"]

_In = TypeVar("_In")
_Out = TypeVar("_Out")

_CHUNK = 2048  # passages or pairs that are read together: batches cut of so many waste little padding
_PADDING = 0.08  # share of a batch beyond which it is cut, if it has enough tokens to keep a processor busy
_ENOUGH = 1024
_MULTIPLE = 4  # lengths are rounded up to this, so that a runtime sees few distinct shapes


class PairTemplate:
    """How a tokenizer joins two texts: its special tokens before, between and after them, read off a probe pair.

    Pairs are put together from token ids, so that a window is scored without tokenising it again and a text is cut
    only where `windows` says.
    """

    def __init__(self, tokenizer: Tokenizer, pad_id: int, max_length: int) -> None:
        self._pad_id, self._max_length = pad_id, max_length
        self._pair = _parts(tokenizer.encode("a", "b"))
        self._alone = _parts(tokenizer.encode("a"))

    @property
    def special(self) -> int:
        """How many special tokens a pair has; a text that stands alone has no more."""
        return sum(len(ids) for ids, _ in self._pair)

    def arrays(self, pairs: Sequence[tuple[Tokens, Tokens]]) -> dict[str, IntArray]:
        """Model inputs of a batch, padded on the right.

        Args:
            pairs: m pairs of premise and hypothesis.

        Returns:
            int64 arrays (m, S) input_ids, attention_mask and token_type_ids, S a multiple of 4 up to the longest
            length that the model takes.
        """
        return self._arrays(self._pair, pairs)

    def lone_arrays(self, texts: Sequence[Tokens]) -> dict[str, IntArray]:
        """`arrays` for m texts that each stand alone."""
        return self._arrays(self._alone, [(text,) for text in texts])

    def _arrays(self, parts: _Parts, rows: Sequence[tuple[Tokens, ...]]) -> dict[str, IntArray]:
        longest = max(sum(len(ids) for ids, _ in parts) + sum(map(len, texts)) for texts in rows)
        width = max(longest, min(_rounded(longest), self._max_length))
        ids = np.full((len(rows), width), self._pad_id, dtype=np.int64)  # (m, S)
        mask = np.zeros_like(ids)
        types = np.zeros_like(ids)
        special, kinds = [part for part, _ in parts], [kind for _, kind in parts]
        for row, texts in enumerate(rows):
            special[1::2] = [text.ids for text in texts]
            joined = np.concatenate(special)
            kinds[1::2] = [np.repeat(kind, len(text)) for (_, kind), text in zip(parts[1::2], texts, strict=True)]
            ids[row, : len(joined)] = joined
            mask[row, : len(joined)] = 1
            types[row, : len(joined)] = np.concatenate(kinds)
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def _parts(probe: Encoding) -> _Parts:
    """Special tokens, a text, special tokens …: ids and types of the special ones, and the type of each text alone."""
    ids, types = np.array(probe.ids, dtype=np.int64), np.array(probe.type_ids, dtype=np.int64)
    sides, start, parts = probe.sequence_ids, 0, []
    for side in range(probe.n_sequences):
        first = sides.index(side)
        parts += [(ids[start:first], types[start:first]), (ids[:0], types[first : first + 1])]
        start = first + sides.count(side)
    return [*parts, (ids[start:], types[start:])]


def _rounded(length: int) -> int:
    return -(-length // _MULTIPLE) * _MULTIPLE


def in_batches(
    pairs: Sequence[tuple[Tokens, Tokens]],
    logits: Callable[[Sequence[tuple[Tokens, Tokens]]], FloatArray],
    batch_tokens: int,
    special: int = 0,
    parallel: int = 1,
) -> FloatArray:
    """Logits of all pairs, in their order.

    Args:
        pairs: m pairs, at least one.
        logits: an engine's, for one batch.
        batch_tokens: most tokens of a padded batch; a pair over it makes a batch of its own.
        special: special tokens of a pair.
        parallel: batches that the engine takes at a time.

    Returns:
        (m, C).

    Raises:
        MemoryError: a single pair does not fit.
    """
    lengths = np.array([special + len(a) + len(b) for a, b in pairs])
    order = np.argsort(lengths, kind="stable")[::-1]  # the longest first: what does not fit shows at once
    batches = [[pairs[i] for i in batch] for batch in _cut(order, lengths, batch_tokens)]
    if parallel > 1:
        with ThreadPoolExecutor(parallel) as pool:
            parts = list(pool.map(lambda batch: _halving(batch, logits), batches))
    else:
        parts = [_halving(batch, logits) for batch in batches]
    rows = np.concatenate(parts)  # (m, C)
    out = np.empty_like(rows)
    out[order] = rows
    return out


def _cut(order: IntArray, lengths: IntArray, batch_tokens: int) -> Iterator[IntArray]:
    """Rows of a batch each, the longest first: what the budget holds, or fewer where more would be much padding."""
    start = 0
    while start < len(order):
        width = max(1, _rounded(int(lengths[order[start]])))
        rows = order[start : start + max(1, batch_tokens // width)]
        padded = width * np.arange(1, len(rows) + 1)
        wasteful = (padded > _ENOUGH) & (padded - np.cumsum(lengths[rows]) > _PADDING * padded)
        rows = rows[: int(wasteful.argmax())] if wasteful.any() else rows
        yield rows
        start += len(rows)


def _halving(
    batch: Sequence[tuple[Tokens, Tokens]], logits: Callable[[Sequence[tuple[Tokens, Tokens]]], FloatArray]
) -> FloatArray:
    """The logits of a batch, or where memory runs out those of its halves."""
    try:
        return logits(batch)
    except MemoryError:
        if len(batch) == 1:
            raise
    half = len(batch) // 2
    return np.concatenate([_halving(batch[:half], logits), _halving(batch[half:], logits)])


def in_chunks(items: Sequence[_In]) -> list[Sequence[_In]]:
    """The items in runs of 2,048, at least one."""
    return [items[start : start + _CHUNK] for start in range(0, max(1, len(items)), _CHUNK)]


def ahead(read: Callable[[_In], _Out], chunks: Sequence[_In]) -> Iterator[_Out]:
    """What is read of each chunk, in a thread where there are several, one ahead of the one in use."""
    if len(chunks) == 1:  # as most calls have it, who need not wait for a thread to start
        yield read(chunks[0])
        return
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(read, chunks[0])
        for chunk in [*chunks[1:], None]:
            ready = following.result()
            if chunk is not None:
                following = pool.submit(read, chunk)
            yield ready
