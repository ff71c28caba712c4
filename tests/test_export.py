"""Exports: int8 within its rounding, complete or not there at all, and nothing printed."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from rerank_nli import DamagedModelError, InputError, LabelError, ModelNotFoundError, OnnxEngine
from rerank_nli.export import export
from rerank_nli.manifest import Manifest, sha256

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAIRS = [
    ("A cat sleeps on the mat.", "The cat sleeps."),
    ("The quick brown fox jumps over a lazy dog, and nobody sees it!", "No cat."),
    ("a", "b"),
]
CARD = {"name": "tiny", "version": "7", "base": {"model": "own", "licence": "MIT"}, "temperature": 1.25, "window": 64}


def _logits(engine: OnnxEngine, pairs: list[tuple[str, str]]) -> Any:
    tokens = engine.tokenize([text for pair in pairs for text in pair])
    return engine.logits(list(zip(tokens[::2], tokens[1::2], strict=True)))


@pytest.fixture(scope="session")
def int8(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint as an int8 bundle with a card."""
    pytest.importorskip("onnxscript")
    out = tmp_path_factory.mktemp("bundles") / "below" / "int8"
    assert export(checkpoint, out, card=CARD) == Manifest.read(out)
    return out


def test_a_bundle_is_complete(int8: Path) -> None:
    """An export makes its folder with graph, tokenizer, manifest and card, and leaves nothing else beside it."""
    names = sorted(path.name for path in int8.iterdir())
    assert names == ["README.md", "manifest.json", "model.onnx", "tokenizer.json"]
    assert [path.name for path in int8.parent.iterdir()] == ["int8"]


def test_the_manifest_holds_card_and_checkpoint(int8: Path) -> None:
    """The manifest has the card's entries, the checkpoint's labels and length, and the files' digests."""
    manifest = Manifest.read(int8)
    assert manifest is not None
    assert {name: getattr(manifest, name) for name in CARD} == CARD
    assert manifest.labels == ["contradiction", "entailment", "neutral"]
    assert manifest.max_length == 128
    assert manifest.precision == "int8 weights, fp32 compute"
    assert manifest.files == {name: sha256(int8 / name) for name in ("model.onnx", "tokenizer.json")}
    engine = OnnxEngine(int8)
    assert (engine.temperature, engine.window, engine.labels.columns) == (1.25, 64, (1, 2, 0))


def _graph(path: Path) -> tuple[dict[str, Any], list[Any]]:
    """Tensors by name, and nodes."""
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(str(path)).graph
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}, list(graph.node)


def test_int8_weights_are_within_half_a_step(int8: Path, exported: OnnxEngine) -> None:
    """Every large matrix is stored in int8, each number within half a step of its scale, and the rest is unchanged."""
    before, _ = _graph(exported.file)
    after, nodes = _graph(int8 / "model.onnx")
    large = {name for name, w in before.items() if w.dtype == np.float32 and w.ndim == 2 and w.size >= 4096}
    assert len(large) == 2 * 6 + 3  # six matrices for each of two layers; the pooler; words and positions
    axes = {node.output[0]: node.attribute[0].i for node in nodes if node.op_type == "DequantizeLinear"}
    assert set(axes) == large
    for name, axis in axes.items():
        stored, scale, weights = after[f"{name}.int8"], after[f"{name}.scale"], before[name]
        assert stored.dtype == np.int8
        largest = np.abs(weights).max(axis=1 - axis)
        assert scale == pytest.approx(np.where(largest == 0, 1, largest / 127))  # the row of the padding token is 0
        step = np.expand_dims(scale, 1 - axis)
        assert (np.abs(stored * step - weights) <= step / 2 * 1.001).all()
    for name in set(before) - large:
        assert (after[name] == before[name]).all()


def test_scales_follow_the_outputs(int8: Path) -> None:
    """A table of embeddings has a scale for each row, a matrix for each of its outputs, transposed or not."""
    _, nodes = _graph(int8 / "model.onnx")
    axes = {node.output[0]: node.attribute[0].i for node in nodes if node.op_type == "DequantizeLinear"}
    used = {(node.op_type, axes[name]) for node in nodes for name in node.input if name in axes}
    assert used == {("Gather", 0), ("MatMul", 1), ("Gemm", 0)}


def test_int8_is_smaller(int8: Path, exported: OnnxEngine) -> None:
    """Stored in int8 this small graph takes under two thirds of its fp32 form."""
    assert (int8 / "model.onnx").stat().st_size < exported.file.stat().st_size * 2 / 3


def test_int8_logits(int8: Path, exported: OnnxEngine) -> None:
    """int8 logits lie within 0.5 of the fp32 ones, whose spread is over 2, and are not the same."""
    expected = _logits(exported, PAIRS)
    assert np.ptp(expected) > 2
    rows = _logits(OnnxEngine(int8), PAIRS)
    assert rows == pytest.approx(expected, abs=0.5)
    assert (rows != expected).any()


def test_int8_scores_do_not_depend_on_neighbours(int8: Path) -> None:
    """A pair has the same logits alone as beside a longer one."""
    engine = OnnxEngine(int8)
    alone = np.concatenate([_logits(engine, [pair]) for pair in PAIRS])
    assert _logits(engine, PAIRS) == pytest.approx(alone, abs=1e-5)


def test_an_existing_folder_is_not_overwritten(checkpoint: Path, tmp_path: Path) -> None:
    """A target that exists, even empty, is an error and stays as it is."""
    with pytest.raises(InputError, match=re.escape(f"{tmp_path} exists: choose another folder")):
        export(checkpoint, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unknown_card_entries(checkpoint: Path, tmp_path: Path) -> None:
    """An entry that a manifest has not is an error that lists those it has."""
    with pytest.raises(InputError, match=r"unknown entries in the card: \['colour', 'labels'\]; expected some of"):
        export(checkpoint, tmp_path / "out", card={"name": "x", "labels": [], "colour": "red"})


def test_no_checkpoint(tmp_path: Path) -> None:
    """A folder without config.json, or none at all, is not a checkpoint."""
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(ModelNotFoundError, match=r"is not a checkpoint folder: it has no config\.json"):
            export(folder, tmp_path / "out")


def test_no_weights(checkpoint: Path, tmp_path: Path) -> None:
    """A checkpoint without weights is an error that names the folder."""
    folder = shutil.copytree(checkpoint, tmp_path / "copied")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match=re.escape(f"{folder} holds no weights that can be read")):
        export(folder, tmp_path / "out")


def test_missing_weights(checkpoint: Path, tmp_path: Path) -> None:
    """A checkpoint that lacks a layer is an error that names it: random numbers would take its place."""
    from safetensors.numpy import load_file, save_file

    folder = shutil.copytree(checkpoint, tmp_path / "copied")
    weights = {k: v for k, v in load_file(folder / "model.safetensors").items() if k != "classifier.bias"}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DamagedModelError, match=r"incomplete \(missing: \['classifier\.bias'\]\)"):
        export(folder, tmp_path / "out")


def test_truncated_weights(checkpoint: Path, tmp_path: Path) -> None:
    """Half a safetensors file is an error that names the folder."""
    folder = shutil.copytree(checkpoint, tmp_path / "copied")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedModelError, match=re.escape(f"the weights in {folder} are damaged")):
        export(folder, tmp_path / "out")


def test_not_a_classifier(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """A masked language model is not exported, whatever labels it is given."""
    folder = make_checkpoint("BertForMaskedLM")
    with pytest.raises(InputError, match=r"\['BertForMaskedLM'\], not a sequence classifier"):
        export(folder, tmp_path / "out", labels=["entailment", "not_entailment"])


@pytest.mark.parametrize("spoil", ["labels", "tokenizer"])
def test_a_failed_export_leaves_nothing(checkpoint: Path, tmp_path: Path, spoil: str) -> None:
    """An export that fails on labels or tokenizer leaves neither its folder nor a part of it."""
    folder = shutil.copytree(checkpoint, tmp_path / "copied")
    if spoil == "tokenizer":
        (folder / "tokenizer.json").write_text("{", encoding="utf-8")
    else:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config["id2label"] = {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(LabelError if spoil == "labels" else DamagedModelError):
        export(folder, tmp_path / "outputs" / "bundle")
    assert [path for path in tmp_path.rglob("*") if path.parent != folder and path.is_file()] == []
    assert not (tmp_path / "outputs" / "bundle").exists()
