"""How to train: numbers, each with its range."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from rerank_nli.errors import InputError, counted, is_number
from rerank_nli.examples import WIDTHS
from rerank_nli.labels import COLUMNS, NOT_ENTAILMENT

__all__ = ["Recipe"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train; the defaults are those of the bundled model, but for epochs, rate and mix.

    Attributes:
        epochs: passes over the pairs; the last may be a part of one.
        rate: highest learning rate, that of the head; it rises over the first `warmup` share of steps, then falls
            in a straight line.
        layer_decay: what the rate is multiplied by from each layer to the one below it.
        frozen: layers, from the lowest, that stay as they are, and the embeddings with them, which saves time.
        batch_tokens: in a batch, padding included: 4,096 are 42 pairs of 96 tokens, or 128 of 32.
        longest: most tokens of a pair; longer ones are left out, never cut.
        dropout: everywhere but among the probabilities of attention, with one mask for all tokens of a text.
        smoothing: share of the loss that asks for all outputs alike.
        teacher: share of the loss of a labelled pair that asks for its teacher's probabilities; a pair without a label
            asks for nothing else.
        consistency: weight of how far two passes over a pair, each with its own dropout, are from each other (R-Drop;
            Liang et al. 2021); above 0 a step takes twice as long.
        average: weight that the running average of the weights keeps at each step; the average is what is measured
            and kept.
        warmup, weight_decay: as usual.
        mix: {source: weight}; at 1.5 each of its pairs comes once an epoch and half of them once more.
        class_weights: {label: weight} of the loss; a head of two labels takes that of not_entailment for neutral and
            contradiction too, unless they have their own.
        seed: of the order, the head and the dropout.
    """

    epochs: float = 4.0
    rate: float = 1e-4
    layer_decay: float = 0.9
    frozen: int = 0
    batch_tokens: int = 4096
    longest: int = 160
    dropout: float = 0.1
    smoothing: float = 0.05
    teacher: float = 0.0
    consistency: float = 0.0
    average: float = 0.999
    warmup: float = 0.06
    weight_decay: float = 0.01
    mix: dict[str, float] = field(default_factory=dict)
    class_weights: dict[str, float] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what would only show after hours.

        Raises:
            InputError: a number out of its range, or a weight for a label that does not exist.
        """
        wholes = {
            "batch_tokens": counted("batch_tokens", self.batch_tokens),
            "longest": counted("longest", self.longest, least=WIDTHS[0], most=WIDTHS[-1]),
            "seed": counted("seed", self.seed, least=0),
            "frozen": counted("frozen", self.frozen, least=0),
        }
        for name, whole in wholes.items():
            object.__setattr__(self, name, whole)  # an int, which a saved state can hold, where it was numpy's
        for name in ("epochs", "rate", "layer_decay"):
            _require(name, getattr(self, name), positive=True)
        _require("consistency", self.consistency)
        for name in ("dropout", "smoothing", "teacher", "average", "warmup", "weight_decay"):
            _require(name, getattr(self, name), below=1)
        if self.consistency and not self.dropout:
            message = f"consistency={self.consistency} with dropout=0: two passes without dropout are the same"
            raise InputError(message)
        for weights in (self.mix, self.class_weights):
            for name, weight in weights.items():
                _require(f"the weight of {name!r}", weight)
        unknown = set(self.class_weights) - {*COLUMNS, NOT_ENTAILMENT}
        if unknown:
            message = f"class_weights for {sorted(unknown)}: expected some of {[*COLUMNS, NOT_ENTAILMENT]}"
            raise InputError(message)

    def weight(self, label: str | None, *, binary: bool) -> float:
        """Of a pair in the loss; None is the label of a pair that has a probability in its place."""
        if binary and label in COLUMNS[1:] and label not in self.class_weights:
            label = NOT_ENTAILMENT
        return self.class_weights.get(label or "", 1.0)


def _require(name: str, value: object, below: float = math.inf, *, positive: bool = False) -> None:
    known = isinstance(value, int | float) and is_number(value) and 0 <= float(value) < below
    if not known or (positive and value == 0):
        message = f"{name}={value!r}: expected a number {'above' if positive else 'from'} 0"
        raise InputError(message + (f" and below {below:g}" if below < math.inf else ""))
