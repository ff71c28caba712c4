"""Training pairs as token ids in batches of few shapes, and what each pair asks of the model's outputs."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rerank_nli.checkpoints import readable
from rerank_nli.errors import InputError
from rerank_nli.labels import COLUMNS, NOT_ENTAILMENT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from rerank_nli.labels import Labels
    from rerank_nli.pairs import Pair

__all__ = ["WIDTHS", "Asked", "Batch", "Examples", "divergence", "loss"]

WIDTHS = (16, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 384, 512)  # few shapes: kernels are made for each
_CHUNK = 10_000  # pairs to tokenize at once: a tokenizer's own objects are large
_TEACHER = 0.25  # weight of an error in a teacher's log-odds beside a cross-entropy


class Batch(NamedTuple):
    """Some pairs that are computed together."""

    rows: NDArray[np.int64]  # (m,)
    width: int  # tokens that each is padded to


class Asked(NamedTuple):
    """What pairs ask of the outputs, as arrays of all n or as tensors of a batch."""

    right: Any  # (n, C) the outputs that are right: all where there is no label
    odds: Any  # (n,) a teacher's log-odds of entailment; NaN where there are none
    taught: Any  # (n, C) a teacher's probabilities; NaN where there are none


class Examples:
    """Pairs as token ids in one long array, and what each asks of the outputs.

    Args:
        pairs: labelled, or with what a teacher says of them.
        tokenizer: without truncation and padding.
        labels: of the model's outputs.
        longest: most tokens of a pair; longer ones are left out, and counted in `left_out`.

    Raises:
        InputError: a pair with neither label nor probability, or with an unknown label.
    """

    def __init__(self, pairs: Sequence[Pair], tokenizer: Any, labels: Labels, longest: int) -> None:  # noqa: ANN401
        ids: list[NDArray[np.int32]] = []
        types: list[NDArray[np.int8]] = []
        self.pairs: list[Pair] = []
        self.widths = np.minimum(WIDTHS, longest)
        for first in range(0, len(pairs), _CHUNK):
            chunk = pairs[first : first + _CHUNK]
            encodings = tokenizer.encode_batch([(readable(p.premise), readable(p.hypothesis)) for p in chunk])
            for pair, encoding in zip(chunk, encodings, strict=True):
                if len(encoding.ids) <= longest:
                    self.pairs.append(pair)
                    ids.append(np.array(encoding.ids, dtype=np.int32))
                    types.append(np.array(encoding.type_ids, dtype=np.int8))
        self.left_out = len(pairs) - len(self.pairs)
        self.lengths = np.array([len(tokens) for tokens in ids], dtype=np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)
        self.ids = np.concatenate([*ids, []]).astype(np.int32)
        self.types = np.concatenate([*types, []]).astype(np.int8)
        likely = np.array([pair.probability for pair in self.pairs], dtype=np.float64)
        self.asked = Asked(
            right=np.array([_right(pair, labels) for pair in self.pairs]),
            odds=np.log(likely / (1 - likely)).astype(np.float32),
            taught=np.array([_taught(pair, labels) for pair in self.pairs], dtype=np.float32),
        )

    @property
    def digest(self) -> str:
        """How many pairs, and what tells them from others: tokens, targets and sources."""
        found = blake2b("\n".join(pair.source for pair in self.pairs).encode(), digest_size=8)
        for array in (self.lengths, self.ids, *self.asked):
            found.update(array.tobytes())
        return f"{len(self.pairs)} of {found.hexdigest()}"

    def batches(self, tokens: int, mix: Mapping[str, float], seed: int, epoch: int) -> list[Batch]:
        """One epoch, in an order that seed and epoch decide."""
        rng = np.random.default_rng((seed, epoch))
        weights = np.array([mix.get(pair.source, 1.0) for pair in self.pairs])
        rows = np.repeat(np.arange(len(weights)), (weights + rng.random(len(weights))).astype(int))
        rng.shuffle(rows)
        widths = self.widths[np.searchsorted(WIDTHS, self.lengths[rows])]
        cut = []
        for width in np.unique(widths):
            bucket, size = rows[widths == width], max(1, tokens // int(width))
            cut += [Batch(bucket[start : start + size], int(width)) for start in range(0, len(bucket), size)]
        return [cut[n] for n in rng.permutation(len(cut))]

    def inputs(self, batch: Batch, pad: int) -> dict[str, NDArray[np.int64]]:
        """Arrays (m, width) as the model takes them."""
        places = np.arange(batch.width)
        mask = places < self.lengths[batch.rows, None]
        tokens = np.where(mask, self.starts[batch.rows, None] + places, 0)
        ids, types = np.where(mask, self.ids[tokens], pad), np.where(mask, self.types[tokens], 0)
        named = {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}
        return {name: array.astype(np.int64) for name, array in named.items()}


def loss(
    torch: Any,  # noqa: ANN401 - it is optional
    logits: Any,  # noqa: ANN401
    asked: Asked,
    entailment: int,
    smoothing: float,
    teacher: float,
) -> Any:  # noqa: ANN401
    """What a batch costs, pair by pair.

    A labelled pair costs -log P(one of its right outputs), less `smoothing`, which goes to all outputs alike (Szegedy
    et al. 2016). One with a teacher's probabilities costs their cross-entropy (Hinton et al. 2015): the share `teacher`
    of the cost where it has a label too, else all of it. One with a teacher's log-odds costs their Huber error (squared
    up to 1, absolute beyond; Huber 1964), and that what is not entailment should be neutral.

    Args:
        torch: the module.
        logits: (m, C).
        asked: tensors of m pairs.
        entailment: its column.
        smoothing: 0..1.
        teacher: 0..1.

    Returns:
        (m,) costs.
    """
    right, odds, taught = asked
    logp = torch.log_softmax(logits, dim=1)  # (m, C)
    known = torch.logsumexp(logp.masked_fill(~right, -torch.inf), dim=1)
    labelled = -(1 - smoothing) * known - smoothing * logp.mean(dim=1)
    lesson = -(torch.nan_to_num(taught) * logp).sum(dim=1)
    share = torch.where(torch.isnan(taught[:, 0]), 0.0, torch.where(right.all(dim=1), 1.0, teacher))
    labelled = torch.lerp(labelled, lesson, share)
    rest = torch.logsumexp(torch.cat([logp[:, :entailment], logp[:, entailment + 1 :]], dim=1), dim=1)
    error = torch.nn.functional.huber_loss(logp[:, entailment] - rest, torch.nan_to_num(odds), reduction="none")
    return torch.where(torch.isnan(odds), labelled, _TEACHER * error + rest - known)


def divergence(torch: Any, one: Any, other: Any) -> Any:  # noqa: ANN401 - torch is optional
    """(m,) the mean of both Kullback-Leibler divergences between the probabilities of two (m, C) logits."""
    p, q = (torch.log_softmax(logits, dim=1) for logits in (one, other))
    return ((p.exp() - q.exp()) * (p - q)).sum(dim=1) / 2


def _right(pair: Pair, labels: Labels) -> NDArray[np.bool_]:
    """(C,) the outputs that a pair's label allows: two of them for "neutral or contradiction"."""
    columns = {**dict(zip(COLUMNS, labels.columns, strict=True)), NOT_ENTAILMENT: None}
    outputs = np.arange(len(labels.names))
    if pair.label is None and pair.probability is None and pair.taught:
        return outputs >= 0
    label = "neutral" if pair.label is None and pair.probability else pair.label
    if label not in columns:
        message = f"{pair.premise!r:.40} has the label {label!r}: training needs {', '.join(columns)} or a probability"
        raise InputError(message)
    column = columns[label]
    return outputs != labels.columns[0] if column is None else outputs == column


def _taught(pair: Pair, labels: Labels) -> NDArray[np.float64]:
    """(C,) a teacher's probabilities, in the columns of these outputs."""
    p = np.full(len(labels.names), np.nan)
    if pair.taught is not None:
        p[:] = 1 - pair.taught[0]  # of not_entailment
        for column, value in zip(labels.columns, pair.taught, strict=True):
            if column is not None:
                p[column] = value
    return p
