"""What turns pairs of texts into logits: the protocol, a function as an engine, and what engines over files share."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rerank_nli.batches import PairTemplate
from rerank_nli.calibration import Calibration
from rerank_nli.checkpoints import max_length, read_json, read_tokenizer, readable, require_classifier
from rerank_nli.errors import InputError, InputTypeError, counted
from rerank_nli.labels import Labels
from rerank_nli.manifest import Manifest
from rerank_nli.windows import Tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rerank_nli.scores import FloatArray

    Pairs = Sequence[tuple[Tokens, Tokens]]

__all__ = ["Engine", "FolderEngine", "FunctionEngine"]

_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # scripts without word spaces
_WORD = rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+"


class Engine(Protocol):
    """What the scorer needs of a model.

    Attributes:
        name: "onnx", "openvino", "torch" or "function".
        labels: which output is which.
        max_length: most tokens of a pair, `special` included.
        special: special tokens of a pair.
        window: tokens of a passage that the model judges best at once; None is as many as it takes.
        temperature: what logits are divided by.
        precision: of the arithmetic: "fp32", "bf16", "fp16", "int8".

    An engine that takes several batches at a time, from threads, says how many in `parallel`.
    """

    name: str
    labels: Labels
    max_length: int
    special: int
    window: int | None
    temperature: float
    precision: str

    @property
    def calibration(self) -> Calibration | None:
        """What came with the model, if anything did."""

    @property
    def fingerprint(self) -> str:
        """What tells these weights from others."""

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """Token ids and character offsets of each text, whole."""

    def logits(self, pairs: Pairs) -> FloatArray:
        """(m, C) for one batch of (premise, hypothesis), in the checkpoint's order; MemoryError if it does not fit."""


class FunctionEngine:
    """A function of the caller's as an engine; windows then count words.

    Args:
        fn: takes a list of (premise, hypothesis) texts, returns logits (m, C).
        labels: names of its outputs.
        max_length: most words of premise and hypothesis together.

    Raises:
        InputError: a length below 1.
        InputTypeError: no function.
        LabelError: the names do not say which output is entailment.
    """

    name = "function"
    special = 0
    window: int | None = None
    temperature = 1.0
    precision = "function"
    calibration: Calibration | None = None

    def __init__(
        self,
        fn: Callable[[list[tuple[str, str]]], Any],
        labels: Sequence[str] = ("entailment", "neutral", "contradiction"),
        max_length: int = 512,
    ) -> None:
        if not callable(fn):
            message = f"fn is {fn!r:.60}: expected a function of (premise, hypothesis) texts"
            raise InputTypeError(message)
        self.fn = fn
        self.labels = Labels.of(labels)
        self.max_length = counted("max_length", max_length)

    @property
    def fingerprint(self) -> str:
        """The function's own name: what it computes cannot be told from outside."""
        return f"{getattr(self.fn, '__module__', '')}.{getattr(self.fn, '__qualname__', type(self.fn).__qualname__)}"

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """Words, and single characters of scripts that put no space between words."""
        words = ([match.span() for match in re.finditer(_WORD, text)] for text in texts)
        return [_tokens(text, range(len(spans)), spans) for text, spans in zip(texts, words, strict=True)]

    def logits(self, pairs: Pairs) -> FloatArray:
        """What the function returns.

        Raises:
            InputTypeError: it is not one row of C numbers for each pair.
        """
        returned, expected = self.fn([(a.text, b.text) for a, b in pairs]), (len(pairs), len(self.labels.names))
        try:
            rows = np.asarray(returned, dtype=np.float32)
        except (TypeError, ValueError) as error:
            message = (
                f"the function returned no array of numbers for {expected[0]} pairs ({error}): expected {expected}"
            )
            raise InputTypeError(message) from error
        if rows.shape != expected:
            message = f"the function returned shape {rows.shape} for {expected[0]} pairs: expected {expected}"
            raise InputTypeError(message)
        return rows


class FolderEngine:
    """What engines that read a folder share: its tokenizer, its config and perhaps a manifest."""

    def __init__(self, folder: Path, labels: Sequence[str] | None, threads: int | None) -> None:
        self.folder = folder
        self.threads = None if threads is None else counted("threads", threads)
        manifest = Manifest.read(folder)
        config = read_json(folder / "config.json")
        require_classifier(folder, config)
        id2label = dict(enumerate(manifest.labels)) if manifest else config.get("id2label")
        self.labels = Labels.resolve(id2label, labels)
        self._given_labels = None if labels is None else tuple(labels)
        self._tokenizer, pad_id = read_tokenizer(folder, config)
        self.max_length = manifest.max_length if manifest else max_length(folder, config)
        self.window = manifest.window if manifest else None
        self.temperature = manifest.temperature if manifest else 1.0
        self.precision = "fp32"
        self._template = PairTemplate(self._tokenizer, pad_id, self.max_length)
        self.special = self._template.special

    @functools.cached_property
    def calibration(self) -> Calibration | None:
        """The calibration beside the model, that of this precision if it has its own."""
        names = (f"calibration.{self.precision}.json", "calibration.json")
        beside = next((self.folder / name for name in names if (self.folder / name).is_file()), None)
        return None if beside is None else Calibration.load(beside)

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """Token ids and character offsets of each text, whole.

        The tokenizer's settings never change after load, so any number of threads may share it; one text at a time
        keeps it from starting threads of its own, which would not survive a fork.
        """
        encoded = ((text, self._tokenizer.encode(readable(text), add_special_tokens=False)) for text in texts)
        return [_tokens(text, encoding.ids, encoding.offsets) for text, encoding in encoded]

    def _require_outputs(self, where: Path, outputs: int) -> None:
        if outputs != len(self.labels.names):
            message = f"{where} has {outputs} outputs, but {len(self.labels.names)} labels: {self.labels.names}"
            raise InputError(message)


def _tokens(text: str, ids: Sequence[int], offsets: Sequence[tuple[int, int]]) -> Tokens:
    return Tokens(text, np.array(ids, dtype=np.int64), np.array(offsets, dtype=np.int64).reshape(-1, 2))
