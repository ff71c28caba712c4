"""Texts as vectors: the encoder's hidden states, pooled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from rerank_nli import FunctionEngine, InputError, InputTypeError, ModelNotFoundError, NLIReranker, load
from rerank_nli.demo import Passage, Retriever

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = ["A cat sleeps on the mat.", "Does it rain?", "The quick brown fox."]


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_equals_transformers(checkpoint: Path, pool: str) -> None:
    """Vectors are those that transformers' own hidden states give, pooled by hand."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    found = NLIReranker(load(checkpoint, engine="torch")).embed(TEXTS, pool)
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    for text, vector in zip(TEXTS, found, strict=True):
        with torch.no_grad():
            states = model.base_model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].numpy()  # (S, H)
        expected = states[0] if pool == "cls" else states.mean(axis=0)
        assert vector == pytest.approx(expected / np.linalg.norm(expected), abs=1e-4)


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_onnx_equals_torch(checkpoint: Path, exported: Any, pool: str) -> None:
    """A bundle gives the vectors of the checkpoint that it was made of, whatever stands beside a text."""
    expected = NLIReranker(load(checkpoint, engine="torch")).embed(TEXTS, pool)
    assert NLIReranker(exported).embed(TEXTS, pool) == pytest.approx(expected, abs=1e-3)
    assert NLIReranker(exported).embed(TEXTS[1:2], pool) == pytest.approx(expected[1:2], abs=1e-3)


def test_lengths(bundled: NLIReranker) -> None:
    """Vectors have length 1, a text without a word becomes zeros, and no text at all gives no vector."""
    vectors = bundled.embed([*TEXTS, " "])
    assert vectors.shape == (4, 384)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1, 0], abs=1e-5)
    assert bundled.embed([]).shape == (0, 384)
    assert bundled.embed([""]).tolist() == [[0.0] * 384]


def test_likeness(bundled: NLIReranker) -> None:
    """Of two sentences the one on the same topic is the nearer."""
    a, same, other = bundled.embed(
        [
            "The ferry to the island leaves at noon.",
            "At noon a ferry goes to the island.",
            "Bread rises when it is warm.",
        ]
    )
    assert a @ same > a @ other + 0.1


def test_long_text(bundled: NLIReranker) -> None:
    """A text of several windows stands between those of its parts: no part of it is lost."""
    start, end = "Bread rises when it is warm. " * 80, "The ferry to the island leaves at noon. " * 80
    whole, first, last = bundled.embed([start + end, start, end])
    assert min(whole @ first, whole @ last) > first @ last + 0.01


def test_retriever(bundled: NLIReranker) -> None:
    """The demo's retriever takes any function of texts in the place of a name."""
    passages = [Passage("a", "Bread rises when it is warm."), Passage("b", "The ferry leaves at noon.")]
    assert Retriever(passages, bundled.embed).search("When does the ferry leave?", 1)[0][0] == 1


def test_bad_input(bundled: NLIReranker) -> None:
    """What cannot be embedded is refused by name."""
    with pytest.raises(InputError, match=r"unknown pool 'max': expected one of 'cls', 'mean'"):
        bundled.embed(TEXTS, "max")
    with pytest.raises(InputTypeError, match="text 1 must be a text"):
        bundled.embed(["a", None])  # type: ignore[list-item]
    with pytest.raises(InputError, match="the function engine has no encoder"):
        NLIReranker(FunctionEngine(lambda pairs: [[0, 0, 0]] * len(pairs))).embed(TEXTS)


def test_graph_alone(exported: Any, tmp_path: Path) -> None:
    """A folder with a classifier's graph alone says what to do."""
    for name in ("model.onnx", "model.onnx_data", "tokenizer.json"):
        if (exported.folder / name).is_file():
            (tmp_path / name).write_bytes((exported.folder / name).read_bytes())
    reranker = NLIReranker(load(tmp_path, engine="onnx", labels=exported.labels.names))
    with pytest.raises(ModelNotFoundError, match=r"encoder\.onnx"):
        reranker.embed(TEXTS)
