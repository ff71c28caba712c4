"""Bundles as checkpoints again: the same weights, to train from and to store in another form."""

from __future__ import annotations

import json
import math
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rerank_nli import DamagedModelError, InputError, load
from rerank_nli.agreement import agreement, demo_pairs
from rerank_nli.export import export
from rerank_nli.loading import checkpoint as as_checkpoint
from rerank_nli.manifest import Manifest
from rerank_nli.onnx_engine import BUNDLED
from rerank_nli.pairs import Pair
from rerank_nli.train import train
from rerank_nli.unpack import read_graph

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
safetensors = pytest.importorskip("safetensors.numpy")
pytest.importorskip("transformers")
PAIRS = demo_pairs()[:40]
KNOWN = [  # what nobody doubts
    Pair("A cat sleeps on the mat.", "A cat sleeps.", "entailment", None, "known"),
    Pair("A cat sleeps on the mat.", "No cat sleeps.", "contradiction", None, "known"),
]


@pytest.mark.parametrize("architecture", ["BertForSequenceClassification", "RobertaForSequenceClassification"])
def test_fp32(architecture: str, make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """The weights of a bundle in fp32 are those of its checkpoint, bit by bit, whatever its graph calls them."""
    source = make_checkpoint(architecture, id2label=dict(enumerate(("entailment", "neutral", "contradiction"))))
    export(source, tmp_path / "bundle", form="fp32")
    export(tmp_path / "bundle", tmp_path / "again", form="safetensors")
    before, after = (safetensors.load_file(folder / "model.safetensors") for folder in (source, tmp_path / "again"))
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_int8(int8: Path, tmp_path: Path) -> None:
    """A bundle in int8 gives the checkpoint that its graph in fp32 computes, under its names and with its card."""
    manifest = export(int8, tmp_path / "again", form="safetensors")
    made = load(tmp_path / "again", engine="torch", dtype="fp32")
    assert agreement(load(int8, engine="onnx", dtype="fp32"), made, PAIRS).largest < 1e-4
    bundle = Manifest.read(int8)
    assert bundle is not None
    assert (manifest.name, manifest.data, manifest.labels) == (bundle.name, bundle.data, bundle.labels)


def test_names_that_were_given(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """What the outputs were called at export they are called afterwards, whatever the first checkpoint said."""
    labels = ["neutral", "entailment", "contradiction"]
    source = make_checkpoint("BertForSequenceClassification", num_labels=3)
    export(source, tmp_path / "bundle", form="fp32", labels=labels)
    assert export(tmp_path / "bundle", tmp_path / "again", form="safetensors").labels == labels
    assert load(tmp_path / "again", engine="torch").labels.names == tuple(labels)


def test_mini() -> None:
    """The bundled model is a checkpoint too: made once, of the same outputs."""
    folder = as_checkpoint("mini")
    assert agreement(load(engine="onnx", dtype="fp32"), load(folder, engine="torch"), PAIRS).largest < 1e-4
    assert as_checkpoint(BUNDLED) == folder


def test_training_goes_on(tmp_path: Path) -> None:
    """Training that starts from the bundled model starts with what it knows."""
    assert train(KNOWN * 8, tmp_path, base="mini", stop_after=1) is None
    first = json.loads((tmp_path / "log.jsonl").read_text(encoding="utf-8"))
    assert first["loss"] < math.log(3) / 3


def test_a_checkpoint_stays(checkpoint: Path) -> None:
    """A folder with weights is the checkpoint itself."""
    assert as_checkpoint(checkpoint) == checkpoint


def test_graphs_that_do_not_say(int8: Path, tmp_path: Path) -> None:
    """A graph that does not tell whose weights it holds is refused with what to do, as is one that tells wrongly."""
    folder = tmp_path / "bundle"
    shutil.copytree(int8, folder)
    graph = onnx.load(str(folder / "model.onnx"), load_external_data=False)
    said = {entry.key: entry for entry in graph.metadata_props}
    said["parameters"].value = said["parameters"].value.replace('"tensor": "', '"tensor": "no ', 1)
    onnx.save(graph, str(folder / "model.onnx"))
    with pytest.raises(DamagedModelError, match=r"cannot be read as the classifier that it says it is .*no "):
        read_graph(folder)
    del graph.metadata_props[:]
    onnx.save(graph, str(folder / "model.onnx"))
    with pytest.raises(InputError, match="does not say whose weights it holds: use the checkpoint"):
        read_graph(folder)
