"""What a training run starts from: an encoder with a new head, or a classifier, whose head may get other outputs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rerank_nli.checkpoints import is_classifier, no_progress_bars, read_classifier, read_json
from rerank_nli.errors import DamagedModelError, InputError, LabelError, require
from rerank_nli.labels import COLUMNS, Labels

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["open_base"]

# The layers of keys, as architectures call them: what stands beside one is attention's own.
_KEYS = {"key", "key_proj", "k", "k_lin", "k_proj"}


def open_base(base: Path, labels: Sequence[str] | None, dropout: float) -> tuple[Any, Labels]:
    """The model to train, and what its outputs mean (needs the `train` extra).

    An encoder gets a new head. A classifier keeps its own; where `labels` are others than its names, each output starts
    from the rows that mean the same. not_entailment starts from the mean of neutral and contradiction plus ln 2, since
    ln(eⁿ + eᶜ) is (n + c)/2 + ln 2 where n = c, and above it elsewhere: P(entailment) then ranks nearly as before, with
    the threshold where it was. neutral and contradiction start from not_entailment less ln 2, which leaves
    P(entailment) exactly as it was.

    Args:
        base: a Hugging Face folder.
        labels: names of the outputs to train, in order; None is the classifier's own, or entailment, neutral and
            contradiction. They name the outputs of a classifier whose own names, as LABEL_0, say nothing.
        dropout: everywhere but among the probabilities of attention.

    Raises:
        InputError: an encoder that cannot be read, or a classifier without a linear head.
        LabelError: the outputs cannot be told apart, before or after.
        ModelNotFoundError, DamagedModelError: as `read_classifier`.
    """
    torch = require("torch", "train")
    config = read_json(base / "config.json")
    if is_classifier(config):
        model = read_classifier(base, "fp32", "train", "eager")  # which trains faster than SDPA on CPUs
        named = [name for _, name in sorted(model.config.id2label.items())]
        before, after = _labels(base, named, labels)
        if before.columns != after.columns:
            _carry_over(torch, _head(torch, model, len(named), base), before, after)
    else:
        after = Labels.of(labels or COLUMNS)
        model = _with_new_head(torch, base, len(after.names))
    model.config.id2label = dict(enumerate(after.names))
    model.config.label2id = {name: n for n, name in enumerate(after.names)}
    model.num_labels = len(after.names)
    _share_dropout(torch, model, dropout)
    return model, after


def _labels(base: Path, named: Sequence[str], labels: Sequence[str] | None) -> tuple[Labels, Labels]:
    """What a classifier's outputs mean, and what they shall mean."""
    if labels is None:
        before = Labels.of(named)
        return before, before
    after = Labels.of(labels)
    try:
        return Labels.of(named), after
    except LabelError as error:
        if len(named) == len(labels):
            return after, after
        if len(named) not in (2, len(COLUMNS)):
            raise
        message = (
            f"{base} names its outputs {list(named)}, which does not tell what {list(labels)} can start from: "
            "write their names into id2label of its config.json"
        )
        raise LabelError(message) from error


def _head(torch: Any, model: Any, outputs: int, base: Path) -> Any:  # noqa: ANN401 - torch is optional
    """The layer that gives the logits, which each architecture calls otherwise: the last with as many outputs."""
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == outputs]
    if not layers:
        message = f"the head of {base}, a {type(model).__name__}, has no linear layer with {outputs} outputs to change"
        raise InputError(message)
    return layers[-1]


def _carry_over(torch: Any, head: Any, before: Labels, after: Labels) -> None:  # noqa: ANN401
    """Make each row of a head from the rows that meant the same."""
    sources = [_sources(before, after, output) for output in range(len(after.names))]
    shift = math.log((len(before.names) - 1) / (len(after.names) - 1))  # ln 2, -ln 2, or 0 where they only move
    with torch.no_grad():
        head.weight = torch.nn.Parameter(torch.stack([head.weight[rows].mean(dim=0) for rows in sources]))
        if head.bias is not None:
            bias = torch.stack([head.bias[rows].mean() for rows in sources]) + shift
            bias[after.columns[0]] -= shift
            head.bias = torch.nn.Parameter(bias)
    head.out_features = len(after.names)


def _sources(before: Labels, after: Labels, output: int) -> list[int]:
    """The outputs of a head that an output of another starts from."""
    if output == after.columns[0]:
        return [before.columns[0]]
    same = dict(zip(after.columns, before.columns, strict=True)).get(output)
    if same is not None:
        return [same]
    return [n for n in range(len(before.names)) if n != before.columns[0]]


def _with_new_head(torch: Any, base: Path, outputs: int) -> Any:  # noqa: ANN401
    try:
        with no_progress_bars():  # that the head is new is no news here
            model, report = require("transformers", "train").AutoModelForSequenceClassification.from_pretrained(
                str(base),
                local_files_only=True,
                trust_remote_code=False,
                attn_implementation="eager",
                dtype=torch.float32,
                num_labels=outputs,
                output_loading_info=True,
            )
    except MemoryError:
        raise
    except Exception as error:
        message = f"{base} holds no encoder that can be trained ({error})"
        raise InputError(message) from error
    body = f"{model.base_model_prefix}."
    lacking = sorted(name for name in report["missing_keys"] if name.startswith(body) and ".pooler." not in name)
    if lacking:
        message = f"the weights in {base} are incomplete ({len(lacking)} missing, as {lacking[0]}): fetch them again"
        raise DamagedModelError(message)
    return model


def _share_dropout(torch: Any, model: Any, rate: float) -> None:  # noqa: ANN401
    """Dropout with one mask for all tokens of a text (Gal and Ghahramani 2016), which costs next to nothing to draw.

    None of the probabilities of attention, where it halves the speed. Where an architecture calls a function for
    dropout, as BART does, each token has a mask of its own.
    """

    class Shared(torch.nn.Module):  # type: ignore[misc]
        def forward(self, hidden: Any) -> Any:  # noqa: ANN401
            if not self.training:
                return hidden
            shape = (len(hidden), *[1] * (hidden.ndim - 2), hidden.shape[-1])
            return hidden * ((torch.rand(shape, device=hidden.device) >= rate) / (1 - rate)).to(hidden.dtype)

    for name, module in list(model.named_modules()):
        attends = not _KEYS.isdisjoint(child for child, _ in module.named_children())
        for own in ("dropout", "activation_dropout"):
            if isinstance(getattr(module, own, None), float):
                setattr(module, own, 0.0 if attends else rate)
        for own, part in list(module.named_children()):
            if isinstance(part, torch.nn.Dropout):
                if attends and own != "output_dropout":
                    part.p = 0.0
                else:
                    model.set_submodule(f"{name}.{own}".lstrip("."), Shared())
