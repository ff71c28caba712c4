"""From what a model says of each label to the labels' scores, and a prior correction: small pure numpy functions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from rerank_nli.fitted import Fitted
from rerank_nli.scores import entailment, entailment_vs_contradiction, probabilities, sigmoid, softmax

if TYPE_CHECKING:
    from rerank_nli.labels import Labels
    from rerank_nli.scores import FloatArray

__all__ = [
    "LabelPrior",
    "corrected",
    "exclusive_scores",
    "fitted_offsets",
    "independent_scores",
    "matching_offsets",
]

_EPSILON = 1e-12  # keeps a logarithm finite where a score has rounded to 0 or 1
_STEPS = 2_000  # where scores are near 0 and 1, a step is small
_CLOSE = 1e-9


@dataclass(frozen=True, slots=True)
class LabelPrior(Fitted):
    """How much a model favours each label whatever the text says, from `ZeroShotClassifier.fit_prior`.

    Attributes:
        offsets: what is added to a label's log-score (exclusive labels) or log-odds (labels that stand alone).
        key: the weights, precision, window, templates, wordings and groups of the scores that it was fitted on.
    """

    _name: ClassVar[str] = "prior"

    offsets: dict[str, float]
    key: dict[str, Any] = field(repr=False)

    def _try(self) -> None:
        if not np.isfinite(list(self.offsets.values())).all():
            message = f"offsets {self.offsets}"
            raise ValueError(message)


def exclusive_scores(logits: FloatArray, labels: Labels, temperature: float) -> FloatArray:
    """Softmax of the entailment logits over labels that exclude each other (Yin et al. 2019), mean over templates.

    >>> from rerank_nli.labels import Labels
    >>> head = Labels.of(["entailment", "not_entailment"])
    >>> exclusive_scores(np.array([[[0.0, 9.0], [np.log(3), 9.0]]]), head, 1.0).round(6)
    array([0.25, 0.75])

    Args:
        logits: (T, G, C) of T templates and G labels, in the checkpoint's own order.
        labels: which output is which.
        temperature: what logits are divided by.

    Returns:
        (G,), with the sum 1.
    """
    z = np.asarray(logits[..., labels.columns[0]], dtype=np.float64) / temperature  # (T, G)
    return np.mean([softmax(row) for row in z], axis=0)


def independent_scores(logits: FloatArray, labels: Labels, temperature: float) -> FloatArray:
    """P(e) / (P(e) + P(c)) of each label, for a two-label head P(e); mean over templates.

    >>> from rerank_nli.labels import Labels
    >>> head = Labels.of(["contradiction", "neutral", "entailment"])
    >>> independent_scores(np.log([[[0.2, 0.5, 0.3], [0.1, 0.0001, 0.1]]]), head, 1.0).round(6)
    array([0.6, 0.5])

    Args:
        logits: as `exclusive_scores`.
        labels: as `exclusive_scores`.
        temperature: as `exclusive_scores`.

    Returns:
        (G,), each in 0..1.
    """
    templates, group, outputs = logits.shape
    p = probabilities(logits.reshape(-1, outputs), labels, temperature)  # (T · G, 3)
    scores = entailment(p) if labels.binary else entailment_vs_contradiction(p)
    return scores.reshape(templates, group).mean(axis=0)


def corrected(scores: FloatArray, offsets: FloatArray, *, exclusive: bool) -> FloatArray:
    """Scores with a prior's offsets added to their logarithms, or to their log-odds for labels that stand alone.

    >>> corrected(np.array([0.5, 0.5]), np.log([1.0, 3.0]), exclusive=True).round(6)
    array([0.25, 0.75])
    >>> corrected(np.array([0.5, 0.5]), np.log([1.0, 3.0]), exclusive=False).round(6)
    array([0.5 , 0.75])

    Args:
        scores: (G,) of one text.
        offsets: (G,).
        exclusive: whether the scores are shares of 1.
    """
    if exclusive:
        return softmax(np.log(np.maximum(scores, _EPSILON)) + offsets)
    s = np.clip(scores, _EPSILON, 1 - _EPSILON)
    return sigmoid(np.log(s / (1 - s)) + offsets)


def matching_offsets(scores: FloatArray, shares: FloatArray) -> FloatArray:
    """Offsets of log-scores under which exclusive labels get, on average over the texts, the shares expected of them.

    "Prior matching" (Liusie et al. 2023, Mitigating Word Bias in Zero-shot Prompt-based Classifiers): b with
    mean_i softmax(log s_i + b) = shares. Its first step, log(shares / mean_i s_i), is batch calibration (Zhou et al.
    2024, Batch Calibration: Rethinking Calibration for In-Context Learning and Prompt Engineering).

    >>> matching_offsets(np.array([[0.8, 0.2]]), np.array([0.5, 0.5])).round(6)  # ± ½ ln 4
    array([-0.693147,  0.693147])

    Args:
        scores: (n, G) of texts whose labels nobody knows.
        shares: (G,) above 0, with the sum 1.

    Returns:
        (G,), with the sum 0.
    """
    logs = np.log(np.maximum(scores, _EPSILON))  # (n, G)
    offsets = np.zeros(len(shares))
    for _ in range(_STEPS):
        weights = np.exp(logs + offsets - (logs + offsets).max(axis=1, keepdims=True))
        found = (weights / weights.sum(axis=1, keepdims=True)).mean(axis=0)  # (G,)
        step = np.log(shares / np.maximum(found, _EPSILON))
        offsets += step - step.mean()
        if np.abs(found - shares).max() < _CLOSE:
            break
    return offsets


def fitted_offsets(scores: FloatArray, shares: FloatArray | None, *, exclusive: bool) -> FloatArray:
    """A prior's offsets: `matching_offsets` of the labels, or of each label and its absence where they stand alone.

    Args:
        scores: (n, G).
        shares: (G,) in 0..1, brought to the sum 1 for exclusive labels; None expects labels alike: 1 / G of exclusive
            ones, their common mean score of others.
        exclusive: whether the scores of a text are shares of 1.

    Returns:
        (G,), as `corrected` takes them.
    """
    count = scores.shape[1]
    if exclusive:
        return matching_offsets(scores, np.full(count, 1 / count) if shares is None else shares / shares.sum())
    wanted = np.full(count, scores.mean()) if shares is None else shares
    w = np.clip(wanted, _EPSILON, 1 - _EPSILON)
    both = [
        matching_offsets(np.stack([s, 1 - s], axis=1), np.array([q, 1 - q])) for s, q in zip(scores.T, w, strict=True)
    ]
    return np.array([present - absent for present, absent in both])
