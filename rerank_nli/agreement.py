"""Whether an export scores as its source does: both on the same pairs, and an export that fails leaves nothing."""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rerank_nli.batches import in_batches
from rerank_nli.errors import ExportError, InputError, is_number, one_of, require
from rerank_nli.evaluate import measure, truths
from rerank_nli.export import FORMS, check_card, export, require_absent
from rerank_nli.loading import checkpoint, load
from rerank_nli.pairs import Pair
from rerank_nli.scores import KINDS, probabilities
from rerank_nli.torch_engine import TorchEngine
from rerank_nli.windows import Tokens, sentences

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from rerank_nli.engines import Engine
    from rerank_nli.manifest import Manifest
    from rerank_nli.scores import FloatArray

__all__ = ["TOLERANCES", "Agreement", "agreement", "demo_pairs", "export_checked"]

# Forms in fp32 differ from their source by the order of their sums alone: 1e-5 of a logit in a small model, more in
# deep ones with large activations. Forms in int8 are others than their source, and are held to what is done with
# scores, ranking and deciding: of a model as the bundled one, int8 by token reaches 0.98 and 0.99, the others 0.95 and
# 0.97.
TOLERANCES = {
    "fp32": 1e-3,
    "openvino": 1e-3,
    "safetensors": 1e-3,
    "int8": 0.05,
    "int8-dynamic": 0.1,
    "int8-static": 0.1,
}
_CORPUS = Path(__file__).parent / "demo_corpus"
_FEWEST = 20  # pairs: a rank correlation of fewer says little
_BATCH_TOKENS = 4096  # of long and short pairs side by side, so that padding is held against the source too
_STRIDE = 53  # to passages on other subjects


@dataclass(frozen=True, slots=True)
class Agreement:
    """How near one engine's outputs are to another's.

    Attributes:
        pairs: that both scored, at most as long as the model takes.
        largest, mean: difference of a logit, absolute.
        correlation: Kendall's τ-b of the two orders by P(entailment).
        decisions: share of pairs of which both have the same largest output.
        labelled: pairs whose labels are known.
        accuracy, source_accuracy: on those; None where there are none.
    """

    pairs: int
    largest: float
    mean: float
    correlation: float
    decisions: float
    labelled: int = 0
    accuracy: float | None = None
    source_accuracy: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The same in JSON types."""
        return asdict(self)

    def __str__(self) -> str:
        """The figures in one line."""
        text = (
            f"logits differ by {self.largest:.2g} at most and {self.mean:.2g} on average, rank correlation "
            f"{self.correlation:.4f}, same decisions {self.decisions:.4f} ({self.pairs} pairs)"
        )
        if self.accuracy is None:
            return text
        return f"{text}, accuracy {self.accuracy:.4f} where the source has {self.source_accuracy:.4f} ({self.labelled})"

    def within(self, form: str, tolerance: float) -> bool:
        """Whether an export is near enough to its source.

        Args:
            form: one of `FORMS`.
            tolerance: of forms in fp32 the most that a logit may differ by; of forms in int8 the most that rank
                correlation and the share of same decisions may fall short of 1, and that accuracy may fall.
        """
        if not form.startswith("int8"):
            return self.largest <= tolerance
        fall = 0.0 if self.accuracy is None or self.source_accuracy is None else self.source_accuracy - self.accuracy
        return max(1 - self.correlation, 1 - self.decisions, fall) <= tolerance


def export_checked(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    form: str = "int8",
    labels: Sequence[str] | None = None,
    card: Mapping[str, Any] | None = None,
    pairs: Sequence[Pair] | None = None,
    tolerance: float | None = None,
) -> tuple[Manifest, Agreement]:
    """Export a checkpoint and hold the result against it (needs the `export` extra); `out` is there only if it passes.

    Args:
        model: folder or Hub id of a Hugging Face sequence-classification checkpoint, or a bundle as `export` has them,
            "mini" too.
        out: folder to make.
        form: as `export.export` has it; "int8-static" measures its scales on the even pairs and is checked on the odd.
        labels: names of the outputs in order, where the checkpoint does not say.
        card: manifest entries that the checkpoint cannot tell, as `export.export` has them.
        pairs: to score in both, with labels or without; None makes some of the demo's corpus.
        tolerance: as `Agreement.within` has it; None is the form's in `TOLERANCES`.

    Returns:
        The manifest, whose scores name the figures, and the figures.

    Raises:
        ExportError: the export differs by more than the tolerance, or not in numbers that can be compared.
        InputError: `out` exists, fewer than 20 pairs to check with, a tolerance that is no number from 0 on, or as
            `export.export`.
        ModelNotFoundError, DamagedModelError, LabelError, MissingExtraError: as `export.export`.
    """
    out = Path(out)
    one_of("form", form, FORMS)
    require_absent(out)
    check_card(card or {})
    tolerance = TOLERANCES[form] if tolerance is None else tolerance
    if not is_number(tolerance) or tolerance < 0:
        message = f"tolerance={tolerance!r}: expected a number from 0 on"
        raise InputError(message)
    pairs = demo_pairs() if pairs is None else pairs
    static = form == "int8-static"
    held = pairs[1::2] if static else pairs
    if len(held) < _FEWEST:
        message = f"{len(held)} pairs to check with: expected {_FEWEST} or more, and twice as many for 'int8-static'"
        raise InputError(message)
    folder = checkpoint(model)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        bundle = Path(scratch) / "bundle"
        calibrate_on = [(pair.premise, pair.hypothesis) for pair in pairs[::2]] if static else ()
        manifest = export(folder, bundle, form=form, labels=labels, card=card, calibrate_on=calibrate_on)
        source = TorchEngine(folder, labels, device="cpu", dtype="fp32")
        dtype = "int8" if form.startswith("int8") else "fp32"
        found = agreement(source, load(bundle, device="cpu", dtype=dtype), held)  # none holds a file when it moves
        if not found.within(form, tolerance):
            message = f"{out} was not written: as {form!r} it differs from {model} by more than {tolerance:g}: {found}"
            raise ExportError(message)
        manifest = replace(manifest, scores={**manifest.scores, "against the source": str(found)})
        manifest.write(bundle)
        bundle.rename(out)
    return manifest, found


def agreement(source: Engine, made: Engine, pairs: Sequence[Pair]) -> Agreement:
    """Hold one engine against another; a pair that is too long is cut alike for both (needs the `export` extra).

    Args:
        source: what is right.
        made: what is held against it.
        pairs: with labels, a probability or neither.

    Raises:
        InputError: no two pairs that the source scores differently.
        ExportError: the two have other outputs, or one gives what is no number.
    """
    if made.labels.columns != source.labels.columns:
        message = f"the outputs are {list(made.labels.names)}, where the source has {list(source.labels.names)}"
        raise ExportError(message)
    most = min(source.max_length, made.max_length)
    exact, rows = (_logits(engine, pairs, most) for engine in (source, made))  # (n, C) each
    if exact.shape != rows.shape or not (np.isfinite(exact).all() and np.isfinite(rows).all()):
        message = "the outputs are not finite, or not as many as the source's: neither can be held against the other"
        raise ExportError(message)
    orders = [KINDS["logit"].formula(probabilities(z, source.labels)) for z in (exact, rows)]
    if len(pairs) == 0 or np.ptp(orders[0]) == 0:
        message = f"the source scores all {len(pairs)} pairs alike, so that nothing can be said: check with other pairs"
        raise InputError(message)
    correlation = float(require("scipy.stats", "export").kendalltau(*orders).statistic)
    apart = np.abs(rows.astype(np.float64) - exact)
    known = [n for n, pair in enumerate(pairs) if pair.label is not None]
    accuracies: list[float | None] = [None, None]
    if known:
        truth = truths([pairs[n] for n in known])
        measured = (measure(probabilities(z[known], source.labels), truth, resamples=0) for z in (rows, exact))
        accuracies = [one.accuracy for one in measured]
    return Agreement(
        pairs=len(pairs),
        largest=float(apart.max()),
        mean=float(apart.mean()),
        correlation=0.0 if math.isnan(correlation) else correlation,  # all alike
        decisions=float((rows.argmax(axis=1) == exact.argmax(axis=1)).mean()),
        labelled=len(known),
        accuracy=accuracies[0],
        source_accuracy=accuracies[1],
    )


def demo_pairs() -> list[Pair]:
    """A few hundred pairs without labels: a sentence, a passage or three passages of the demo's corpus, and a query."""
    passages, queries = (
        [json.loads(line) for line in (_CORPUS / name).read_text(encoding="utf-8").splitlines()]
        for name in ("passages.jsonl", "queries.jsonl")
    )
    places = {passage["id"]: place for place, passage in enumerate(passages)}
    texts = [passage["text"] for passage in passages]
    pairs: list[Pair] = []
    for query in queries:
        own = [places[name] for kind in ("supports", "refutes", "lookalikes") for name in query[kind]]
        others = [(own[0] + _STRIDE * turn) % len(texts) for turn in range(1, 6)]
        for place in own + others:
            start, end = sentences(texts[place])[0]
            forms = (texts[place][start:end], texts[place], " ".join((texts * 2)[place : place + 3]))
            pairs.append(Pair(forms[len(pairs) % 3], query["query"], None, None, "demo"))
    return pairs


def _logits(engine: Engine, pairs: Sequence[Pair], most: int) -> FloatArray:
    """(n, C); the longer side of a pair is cut until it fits."""
    premises = engine.tokenize([pair.premise for pair in pairs])
    hypotheses = engine.tokenize([pair.hypothesis for pair in pairs])
    fitting = [_fitting(a, b, most - engine.special) for a, b in zip(premises, hypotheses, strict=True)]
    return in_batches(fitting, engine.logits, _BATCH_TOKENS, engine.special)


def _fitting(premise: Tokens, hypothesis: Tokens, most: int) -> tuple[Tokens, Tokens]:
    shorter = min(len(premise), len(hypothesis), most // 2)
    return premise.first(max(most - len(hypothesis), shorter)), hypothesis.first(max(most - len(premise), shorter))
