"""Exports: every matrix within its rounding, complete or not there at all, and nothing printed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from texts import CARD, batch_logits, mixed_pairs

import rerank_nli
from rerank_nli import DamagedModelError, InputError, LabelError, ModelNotFoundError, OnnxEngine, load
from rerank_nli.export import FORMS, export
from rerank_nli.manifest import Manifest, sha256
from rerank_nli.onnx_engine import BUNDLED

if TYPE_CHECKING:
    from collections.abc import Callable

PAIRS = [
    ("A cat sleeps on the mat.", "The cat sleeps."),
    ("The quick brown fox jumps over a lazy dog, and nobody sees it!", "No cat."),
    ("a", "b"),
]
MIXED = [(premise[: 12 + 9 * i], hypothesis[:20]) for i, (premise, hypothesis) in enumerate(mixed_pairs()[:9])]
MODEL = ["encoder.onnx", "model.onnx", "model.onnx_data", "model_int8.onnx", "tokenizer.json"]


def test_a_bundle_is_complete(int8: Path) -> None:
    """An export makes its folder with graphs, weights, tokenizer, manifest and card, and nothing else beside it."""
    assert sorted(path.name for path in int8.iterdir()) == sorted(["README.md", "manifest.json", *MODEL])
    assert [path.name for path in int8.parent.iterdir()] == ["int8"]


def test_an_fp32_bundle_has_one_classifier(exported: OnnxEngine) -> None:
    """An export in the form fp32 has one classifier, an encoder over the same weights, and says that they are fp32."""
    files = ["encoder.onnx", "model.onnx", "model.onnx_data", "tokenizer.json"]
    assert sorted(path.name for path in exported.folder.iterdir()) == sorted(["README.md", "manifest.json", *files])
    manifest = Manifest.read(exported.folder)
    assert manifest is not None
    assert (manifest.precision, list(manifest.files)) == ("fp32", files)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_others_may_read_a_bundle(int8: Path, exported: OnnxEngine, tmp_path: Path) -> None:
    """A bundle's folder and all its files have the modes of what is made without a word about modes."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for bundle in (int8, exported.folder):
        assert bundle.stat().st_mode == (tmp_path / "folder").stat().st_mode
        assert {path.stat().st_mode for path in bundle.iterdir()} == {(tmp_path / "file").stat().st_mode}


@pytest.mark.parametrize(
    ("place", "name"),
    [("models--org--some-nli/snapshots/0123456789", "some-nli"), ("run/snapshots/step500", "step500")],
)
def test_a_bundle_is_named_after_its_model(checkpoint: Path, tmp_path: Path, place: str, name: str) -> None:
    """Without a card the name is the folder's or, in the Hub's cache, the model's."""
    shutil.copytree(checkpoint, tmp_path / place)
    assert export(tmp_path / place, tmp_path / "out", form="safetensors").name == name


def test_no_file_names_a_place_on_this_machine(int8: Path, exported: OnnxEngine, checkpoint: Path) -> None:
    """No file of a bundle holds a path of the machine that it was made on."""
    own = [Path(rerank_nli.__file__).parent.parent, checkpoint, int8.parent, exported.folder.parent, sys.prefix]
    paths = [b"site-packages", b"/home", *(str(path).encode() for path in own)]
    for bundle in (BUNDLED, int8, exported.folder):
        for file in bundle.iterdir():
            content = file.read_bytes()
            assert [path for path in paths if path in content] == [], file


def test_the_manifest_holds_card_and_checkpoint(int8: Path) -> None:
    """The manifest has the card's entries, the checkpoint's labels and length, and the files' digests."""
    manifest = Manifest.read(int8)
    assert manifest is not None
    assert {name: getattr(manifest, name) for name in CARD} == CARD
    assert manifest.labels == ["contradiction", "entailment", "neutral"]
    assert manifest.max_length == 128
    assert manifest.precision == "int8"
    assert manifest.files == {name: sha256(int8 / name) for name in MODEL}
    engine = OnnxEngine(int8)
    assert (engine.temperature, engine.window, engine.labels.columns) == (1.25, 64, (1, 2, 0))


def _graph(path: Path) -> tuple[dict[str, Any], list[Any]]:
    """Tensors by name, and nodes."""
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(str(path)).graph
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}, list(graph.node)


def _axes(nodes: list[Any]) -> dict[str, int]:
    """The axis along which each matrix stored in int8 has its scales: rows that are looked up have one each."""
    axes = {}
    for node in nodes:
        name = node.input[0] if node.input else ""
        if name.endswith(".int8") and node.op_type in ("DequantizeLinear", "Gather"):
            axes[name.removesuffix(".int8")] = 0 if node.op_type == "Gather" else node.attribute[0].i
    return axes


def test_int8_weights_are_within_half_a_step(int8: Path, exported: OnnxEngine) -> None:
    """Every large matrix is stored in int8, each number within half a step of its scale, and the rest is unchanged."""
    before, _ = _graph(exported.file)
    after, nodes = _graph(int8 / "model.onnx")
    large = {name for name, w in before.items() if w.dtype == np.float32 and w.ndim == 2 and w.size >= 4096}
    assert len(large) == 2 * 6 + 3  # six matrices for each of two layers; the pooler; words and positions
    axes = _axes(nodes)
    assert set(axes) == large
    for name, axis in axes.items():
        stored, scale, weights = after[f"{name}.int8"], after[f"{name}.scale"], before[name]
        assert stored.dtype == np.int8
        largest = np.abs(weights).max(axis=1 - axis)
        if axis == 1:  # two neighbouring rows are added in 16 bits, so that their sums count too
            largest = np.maximum(largest, np.abs(weights[::2] + weights[1::2]).max(axis=0))
        assert scale == pytest.approx(np.where(largest == 0, 1, largest / 127))  # the row of the padding token is 0
        step = np.expand_dims(scale, 1 - axis)
        assert (np.abs(stored * step - weights) <= step / 2 * 1.001).all()
    for name in set(before) - large:
        assert (after[name] == before[name]).all()


def test_scales_follow_the_outputs(int8: Path) -> None:
    """A table of embeddings has a scale for each row, a matrix for each of its outputs, transposed or not."""
    _, nodes = _graph(int8 / "model.onnx")
    axes = _axes(nodes)
    used = {(node.op_type, axes[name.removesuffix(".int8")])
            for node in nodes if node.op_type != "DequantizeLinear"
            for name in node.input if name.removesuffix(".int8") in axes}  # fmt: skip
    assert used == {("Gather", 0), ("MatMul", 1), ("Gemm", 0)}


def test_the_fp32_form_computes_in_fp32(int8: Path, exported: OnnxEngine, checkpoint: Path, tmp_path: Path) -> None:
    """The fp32 form's logits are those of the fp32 graph with the rounded weights put in, to 1e-4."""
    onnx = pytest.importorskip("onnx")
    stored, nodes = _graph(int8 / "model.onnx")
    model = onnx.load(str(exported.file))
    for tensor in model.graph.initializer:
        if tensor.name in (axes := _axes(nodes)):
            scale = np.expand_dims(stored[f"{tensor.name}.scale"], 1 - axes[tensor.name])
            tensor.CopyFrom(onnx.numpy_helper.from_array(stored[f"{tensor.name}.int8"] * scale, tensor.name))
    onnx.save(model, str(tmp_path / "model.onnx"))
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(checkpoint / name, tmp_path)
    expected = batch_logits(OnnxEngine(tmp_path), PAIRS)
    assert np.abs(expected - batch_logits(exported, PAIRS)).max() > 1e-3  # rounding shows at this tolerance
    assert batch_logits(OnnxEngine(int8, dtype="fp32"), PAIRS) == pytest.approx(expected, abs=1e-4)


def test_int8_is_smaller(int8: Path, exported: OnnxEngine) -> None:
    """Stored in int8 this small model takes under two thirds of its fp32 form, both its graphs included."""
    sizes = [sum((folder / name).stat().st_size for name in MODEL if (folder / name).is_file())
             for folder in (int8, exported.folder)]  # fmt: skip
    assert sizes[0] < sizes[1] * 2 / 3


@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_int8_logits(int8: Path, exported: OnnxEngine, dtype: str) -> None:
    """A bundle's logits lie within 0.5 of those before rounding, whose spread is over 2, and are not the same."""
    expected = batch_logits(exported, PAIRS)
    assert np.ptp(expected) > 2
    rows = batch_logits(OnnxEngine(int8, dtype=dtype), PAIRS)
    assert rows == pytest.approx(expected, abs=0.5)
    assert (rows != expected).any()


def test_an_existing_folder_is_not_overwritten(checkpoint: Path, tmp_path: Path) -> None:
    """A target that exists, even empty, is an error and stays as it is."""
    with pytest.raises(InputError, match=re.escape(f"{tmp_path} exists: choose another folder")):
        export(checkpoint, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unknown_card_entries(checkpoint: Path, tmp_path: Path) -> None:
    """An entry that a manifest has not is an error that lists those it has."""
    with pytest.raises(InputError, match=r"unknown entries in the card: \['colour', 'labels'\]; expected some of"):
        export(checkpoint, tmp_path / "out", card={"name": "x", "labels": [], "colour": "red"})


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"data": "MNLI"}, "data='MNLI': expected a list of objects with 'name' and 'licence'"),
        ({"data": {"name": "MNLI", "licence": "MIT"}}, "data={.*expected a list of objects"),
        ({"data": [{"name": "MNLI"}]}, "data=.*expected a list of objects with 'name' and 'licence'"),
        ({"base": "someone/base"}, "base='someone/base': expected an object of names and values"),
        ({"training": None}, "training=None: expected an object"),
        ({"scores": [0.5]}, r"scores=\[0.5\]: expected an object"),
        ({"temperature": 0}, "temperature=0: expected a number above 0"),
        ({"window": "64"}, "window='64': expected a whole number"),
    ],
    ids=str,
)
def test_card_entries_of_another_form(tmp_path: Path, card: dict[str, Any], message: str) -> None:
    """An entry of the card that no model card could be made of is refused before any work."""
    with pytest.raises(InputError, match=message):
        export(tmp_path / "none", tmp_path / "out", card=card)


def test_no_checkpoint(tmp_path: Path) -> None:
    """A folder without config.json, or none at all, is not a checkpoint."""
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(ModelNotFoundError, match=r"is not a checkpoint folder: it has no config\.json"):
            export(folder, tmp_path / "out")


def test_no_weights(checkpoint: Path, tmp_path: Path) -> None:
    """A checkpoint without weights is an error that names the folder."""
    folder = shutil.copytree(checkpoint, tmp_path / "copied")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match=re.escape(f"{folder} has none of model.safetensors, ")):
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


# Forms

_ALL_FORMS = """
import sys
from pathlib import Path
from rerank_nli.export import FORMS, export
from rerank_nli.agreement import demo_pairs
pairs = [(pair.premise, pair.hypothesis) for pair in demo_pairs()[:40]]
for form in FORMS:
    calibrate_on = pairs if form == "int8-static" else ()
    export(sys.argv[1], Path(sys.argv[2]) / form, form=form, card={"temperature": 1.25}, calibrate_on=calibrate_on)
"""


@pytest.fixture(scope="module")
def forms(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with the checkpoint in every form, and what a program that made them printed."""
    for module in ("onnxscript", "openvino"):
        pytest.importorskip(module)
    out = tmp_path_factory.mktemp("forms")
    arguments = [sys.executable, "-c", _ALL_FORMS, str(checkpoint), str(out)]
    made = subprocess.run(arguments, check=False, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return out, made.stdout + made.stderr


def test_nothing_is_printed(forms: tuple[Path, str]) -> None:
    """A program that sets up no logging and makes every form prints nothing, and leaves nothing beside them."""
    out, printed = forms
    assert printed == ""
    assert sorted(path.name for path in out.iterdir()) == sorted(FORMS)


FILES = {
    "int8": MODEL,
    "fp32": ["encoder.onnx", "model.onnx", "model.onnx_data", "tokenizer.json"],
    "int8-dynamic": [
        "model_int8_batch_dependent.onnx",
        "model_int8_batch_dependent.onnx_data",
        "tokenizer.json",
    ],
    "int8-static": ["model_int8_static.onnx", "model_int8_static.onnx_data", "tokenizer.json"],
    "openvino": ["openvino_model.bin", "openvino_model.xml", "tokenizer.json"],
    "safetensors": ["config.json", "model.safetensors", "tokenizer.json"],
}
LOADED = {  # engine and its precision; the manifest's
    "int8": ("onnx", "int8", "int8"),
    "fp32": ("onnx", "fp32", "fp32"),
    "int8-dynamic": ("onnx", "int8", "int8-batch-dependent"),
    "int8-static": ("onnx", "int8", "int8-static"),
    "openvino": ("openvino", "fp32", "fp32"),
    "safetensors": ("torch", "fp32", "fp32"),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_complete(forms: tuple[Path, str], form: str) -> None:
    """Each form has its files, which its manifest describes, a card, and modes and contents as every bundle."""
    folder = forms[0] / form
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES[form], "README.md", "manifest.json"])
    manifest = Manifest.read(folder)
    assert manifest is not None
    assert sorted(manifest.files) == sorted(FILES[form])
    assert manifest.precision == LOADED[form][2]
    assert f"- Stored as: {LOADED[form][2]}" in (folder / "README.md").read_text(encoding="utf-8")
    own = [b"site-packages", b"/home", str(forms[0]).encode(), sys.prefix.encode()]
    assert [file.name for file in folder.iterdir() if any(path in file.read_bytes() for path in own)] == []
    if sys.platform != "win32":
        assert len({path.stat().st_mode for path in folder.iterdir()}) == 1


@pytest.mark.parametrize("form", FORMS)
def test_each_form_loads(forms: tuple[Path, str], checkpoint: Path, form: str) -> None:
    """`load` opens each form in its engine with the checkpoint's labels and length and the card's temperature."""
    engine = load(forms[0] / form, device="cpu")
    assert (engine.name, engine.precision) == LOADED[form][:2]
    source = load(checkpoint, engine="torch", device="cpu")
    assert (engine.labels, engine.max_length, engine.special) == (source.labels, source.max_length, source.special)
    assert (engine.temperature, source.temperature) == (1.25, 1.0)
    exact, rows = (batch_logits(one, MIXED) for one in (source, engine))
    assert np.ptp(exact, axis=0).min() > 0.5
    if LOADED[form][1] == "fp32":
        assert rows == pytest.approx(exact, abs=1e-3)
    else:
        assert 0 < np.abs(rows - exact).mean() < 0.3
    alone = np.concatenate([batch_logits(engine, [pair]) for pair in MIXED])
    assert rows == pytest.approx(alone, abs=0.02 if form == "int8" else 1e-3)


def test_the_batch_dependent_form_is_called_so(forms: tuple[Path, str]) -> None:
    """The runtime itself gives a pair other logits beside others in the form int8-dynamic, and not in int8-static."""
    onnxruntime = pytest.importorskip("onnxruntime")
    apart = {}
    for form in ("int8-dynamic", "int8-static"):
        engine = OnnxEngine(forms[0] / form)
        session = onnxruntime.InferenceSession(str(engine.file), providers=["CPUExecutionProvider"])
        tokens = engine.tokenize([text for pair in MIXED for text in pair])
        arrays = engine._template.arrays(list(zip(tokens[::2], tokens[1::2], strict=True)))
        together = session.run(["logits"], arrays)[0][0]
        alone = session.run(["logits"], {name: array[:1] for name, array in arrays.items()})[0][0]
        apart[form] = np.abs(together - alone).max()
    assert apart["int8-dynamic"] > 1e-3
    assert apart["int8-static"] < 1e-4


def test_bin_weights_become_safetensors(checkpoint: Path, tmp_path: Path) -> None:
    """A .bin checkpoint without label names becomes a folder that transformers opens with names and same weights."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    from safetensors.torch import load_file

    folder = shutil.copytree(checkpoint, tmp_path / "bin")
    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["id2label"] = {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 99}', encoding="utf-8")
    names = ["neutral", "entailment", "contradiction"]
    export(folder, tmp_path / "out", form="safetensors", labels=names)
    made = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert made.config.id2label == dict(enumerate(names))
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert {name for name in weights if not torch.equal(weights[name], after[name])} == set()
    engine = load(tmp_path / "out", device="cpu")
    assert (engine.labels.columns, engine.max_length) == ((1, 0, 2), 99)


def test_a_bundle_in_another_form(checkpoint: Path, tmp_path: Path) -> None:
    """A bundle of weights that is exported keeps what it says of its model but scores, unless the card says other."""
    first = export(checkpoint, tmp_path / "first", form="safetensors", card={**CARD, "scores": {"mine": 1}})
    second = export(tmp_path / "first", tmp_path / "second", form="safetensors", card={"version": "9"})
    assert (first.temperature, first.window) == (1.25, 64)
    assert second == replace(first, version="9", scores={}, files=second.files)


def test_threads_may_export_at_once(checkpoint: Path, tmp_path: Path) -> None:
    """Two threads that export a graph at the same time each get theirs, and both are the same."""
    pytest.importorskip("onnxscript")
    outs = [tmp_path / "one", tmp_path / "two"]
    with ThreadPoolExecutor(2) as threads:
        one, two = threads.map(lambda out: export(checkpoint, out, form="fp32"), outs)
    assert one == two
    assert batch_logits(load(outs[0]), PAIRS) == pytest.approx(batch_logits(load(checkpoint), PAIRS), abs=1e-4)


def test_unknown_forms(checkpoint: Path, tmp_path: Path) -> None:
    """An unknown form is an error that lists the forms; pairs to calibrate on go with static int8 and nothing else."""
    with pytest.raises(InputError, match="unknown form 'fp16': expected one of 'int8', 'fp32', 'int8-dynamic'"):
        export(checkpoint, tmp_path / "out", form="fp16")
    with pytest.raises(InputError, match="calibrate_on has 0 pairs: form='int8-static' needs some"):
        export(checkpoint, tmp_path / "out", form="int8-static")
    with pytest.raises(InputError, match=r"calibrate_on has 3 pairs: .* and no other takes any"):
        export(checkpoint, tmp_path / "out", calibrate_on=PAIRS)


def test_an_interrupted_export_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    """An export that is stopped in the middle of its work leaves neither its folder nor a part of it."""
    pytest.importorskip("onnxscript")

    class Stopped(list[tuple[str, str]]):
        def __iter__(self) -> Any:
            yield PAIRS[0]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(checkpoint, tmp_path / "out", form="int8-static", calibrate_on=Stopped(PAIRS))
    assert list(tmp_path.iterdir()) == []
