"""Folders and files that are no NLI model, or a spoilt one: one clear error each, in torch and in ONNX Runtime."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from texts import batch_logits

from rerank_nli import (
    DamagedModelError,
    InputError,
    InputTypeError,
    LabelError,
    ModelNotFoundError,
    OnnxEngine,
    TorchEngine,
    load,
)
from rerank_nli.checkpoints import read_json

if TYPE_CHECKING:
    from collections.abc import Callable

PAIRS = [("A cat sleeps on the mat.", "The cat sleeps."), ("a", "b")]
TWO = ["not_entailment", "entailment"]
PAGE = b"\n<!DOCTYPE html>\n<html><body>Sign in to go on</body></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345\n"


@pytest.fixture(params=["torch", "onnx"])
def folder(request: pytest.FixtureRequest, checkpoint: Path, tmp_path: Path) -> Path:
    """The checkpoint, which a test may spoil, with its weights or with a graph in their place."""
    copied = shutil.copytree(checkpoint, tmp_path / "copied")
    if request.param == "onnx":
        shutil.copy(request.getfixturevalue("graph"), copied)
        (copied / "model.safetensors").unlink()
    return copied


@pytest.fixture
def copied(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint with its weights."""
    return shutil.copytree(checkpoint, tmp_path / "copied")


def configured(folder: Path, **entries: Any) -> Path:
    """The folder with these entries in its config.json, those that are None taken out."""
    config = {**read_json(folder / "config.json"), **entries}
    config = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def fails(error: type[Exception], model: Path, message: str, **settings: Any) -> None:
    """Assert that a model does not load, with an error of one line that holds the message."""
    with pytest.raises(error, match=message) as caught:
        load(model, **{"device": "cpu", **settings})
    assert "\n" not in str(caught.value)


# Checkpoints of other tasks


def test_one_output(folder: Path) -> None:
    """A head with one output is refused as a relevance reranker, and labels= for two are counted against it."""
    configured(folder, id2label={"0": "LABEL_0"})
    fails(LabelError, folder, r"one output \('LABEL_0'\) is a relevance reranker .*use a checkpoint with entailment")
    fails(LabelError, folder, r"has 2 names, but the checkpoint has 1 outputs: \['LABEL_0'\]", labels=TWO)


def test_five_outputs(folder: Path) -> None:
    """A head with five outputs is refused by their number and names, also where labels= names five."""
    stars = [f"{n} stars" for n in range(1, 6)]
    configured(folder, id2label={str(n): name for n, name in enumerate(stars)})
    for labels in (None, ["entailment", "neutral", "contradiction", "other", "another"]):
        fails(LabelError, folder, "5 outputs .* is another classifier, not NLI: use a checkpoint", labels=labels)
    fails(LabelError, folder, r"has 2 names, but the checkpoint has 5 outputs: \['1 stars'", labels=TWO)


@pytest.mark.parametrize("kind", ["xlnet", "fnet", "convbert", "yoso"])
def test_what_reads_padding(folder: Path, kind: str) -> None:
    """A model whose scores hang on the padding of a batch is refused."""
    configured(folder, architectures=["SomeForSequenceClassification"], model_type=kind)
    fails(InputError, folder, f"holds {kind}, whose scores hang on the padding of a batch: use another model")


@pytest.mark.parametrize("architecture", ["BertForMaskedLM", "BertModel", "BertForQuestionAnswering"])
def test_another_architecture(folder: Path, architecture: str) -> None:
    """A language or embedding model is refused by its config, whatever labels= say, with what would work."""
    configured(folder, architectures=[architecture])
    (folder / "modules.json").write_text("[]", encoding="utf-8")  # as sentence-transformers' embedding models have it
    for labels in (None, TWO, ["entailment", "neutral", "contradiction"]):
        message = rf"holds \['{architecture}'\], not a sequence classifier: use an NLI checkpoint"
        fails(InputError, folder, message, labels=labels)


@pytest.mark.parametrize("engine", ["torch", "onnx"])
@pytest.mark.parametrize("architecture", ["BertForMaskedLM", "BertModel"])
def test_weights_without_a_head(make_checkpoint: Callable[..., Path], architecture: str, engine: str) -> None:
    """Where the config does not name the architecture, the weights show that there is no head: it would be random."""
    folder = configured(make_checkpoint(architecture), architectures=None)
    for labels in (TWO, None):
        configured(folder, id2label=None if labels else {"0": "not_entailment", "1": "entailment"})
        message = r"has no classification head.*: use an NLI checkpoint"
        fails(InputError, folder, message, labels=labels, engine=engine)


@pytest.mark.parametrize("output", ["last_hidden_state", "logits"])
def test_a_graph_without_a_head(copied: Path, output: str) -> None:
    """A graph that gives a vector for each token is refused with its inputs and outputs."""
    helper = pytest.importorskip("onnx").helper
    kinds = pytest.importorskip("onnx").TensorProto
    table = helper.make_tensor("table", kinds.FLOAT, [200, 3], [0.5] * 600)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], [output])],
        "encoder",
        [helper.make_tensor_value_info("input_ids", kinds.INT64, ["batch", "length"])],
        [helper.make_tensor_value_info(output, kinds.FLOAT, ["batch", "length", 3])],
        [table],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (copied / "model.onnx").write_bytes(model.SerializeToString())
    fails(InputError, copied, rf"model\.onnx is no sequence classifier: .*'{output}': \['batch', 'length', 3\]")


def test_a_graph_with_other_inputs(graph: Path, copied: Path) -> None:
    """A graph that wants what no classifier wants is refused with the names."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(graph))
    extra = onnx.helper.make_tensor_value_info("pixel_values", onnx.TensorProto.INT64, ["batch", "length"])
    model.graph.input.append(extra)
    model.graph.node.append(onnx.helper.make_node("Identity", ["pixel_values"], ["seen"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("seen", onnx.TensorProto.INT64, ["batch", "length"]))
    onnx.save(model, str(copied / "model.onnx"))
    fails(InputError, copied, r"takes \[.*'pixel_values'\].*; use a graph that takes some of \['input_ids'")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"model_type": "nothing-known"}, "of model type 'nothing-known'"),
        ({"model_type": None}, "of model type None"),
        ({"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}, "of model type 'own' .*trust_remote_code"),
    ],
)
def test_an_unknown_architecture(copied: Path, tmp_path: Path, entries: dict[str, Any], message: str) -> None:
    """A model type that transformers does not have is an error that names it, and the folder's own code never runs."""
    (copied / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n", encoding="utf-8")
    configured(copied, **entries)
    fails(InputError, copied, message, engine="torch")
    assert not (tmp_path / "ran").exists()


def test_a_tokenizer_that_needs_code(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Where a tokenizer is converted, nobody is asked whether the folder's own code may run, and it never does."""
    vocab = read_json(copied / "tokenizer.json")["model"]["vocab"]
    (copied / "tokenizer.json").unlink()
    (copied / "vocab.txt").write_text("\n".join(sorted(vocab, key=vocab.__getitem__)), encoding="utf-8")
    (copied / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n", encoding="utf-8")
    (copied / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}', encoding="utf-8")
    configured(copied, model_type="own", auto_map={"AutoConfig": "own.Own"})
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n" * 9))
    for engine in ("torch", "onnx"):
        fails(InputError, copied, "of model type 'own' .*trust_remote_code", engine=engine)
    assert not (tmp_path / "ran").exists()
    assert capfd.readouterr().out == ""


# Labels


@pytest.mark.parametrize("labels", ["entailment", 3, {"entailment": 0}, ["entailment", 1, 2], b"entailment"], ids=repr)
def test_labels_that_are_no_list(folder: Path, labels: Any) -> None:
    """labels= that is no list of names is a type error that shows it."""
    fails(InputTypeError, folder, "labels must be a list of names, got", labels=labels)


def test_labels_of_another_number(folder: Path) -> None:
    """labels= with more or fewer names than the checkpoint has is an error that counts both."""
    fails(LabelError, folder, "has 2 names, but the checkpoint has 3 outputs", labels=TWO)
    fails(LabelError, folder, "has 4 names, but the checkpoint has 3 outputs", labels=[*TWO, "neutral", "other"])
    fails(LabelError, folder, "has 0 names, but the checkpoint has 3 outputs", labels=[])


def test_labels_of_unknown_names(folder: Path) -> None:
    """labels= with names that say nothing, or the same twice, is an error that shows them and an example."""
    for labels in (["yes", "no", "maybe"], ["LABEL_0", "LABEL_1", "LABEL_2"], ["entailment"] * 3):
        fails(LabelError, folder, re.escape(f"cannot tell which output is which from {labels}: pass "), labels=labels)


def test_labels_of_another_number_than_outputs(folder: Path) -> None:
    """Where the config names no labels, another number of them than of outputs is an error that counts both."""
    configured(folder, id2label=None, num_labels=None, label2id=None)
    if (folder / "model.onnx").is_file():
        fails(InputError, folder, "has 3 outputs, but 2 labels", labels=TWO)
    else:  # a config without names is one of two outputs
        fails(DamagedModelError, folder, r"not of its config\.json \(other shapes: \['classifier", labels=TWO)


def test_numbers_in_place_of_names(folder: Path) -> None:
    """A config whose outputs are called by numbers is an error that says what to pass, and loads with that."""
    configured(folder, id2label={str(n): n for n in range(3)})
    fails(LabelError, folder, r"cannot tell which output is which from \['0', '1', '2'\]: pass labels=")
    assert load(folder, device="cpu", labels=["neutral", "entailment", "contradiction"]).labels.columns == (1, 0, 2)


def test_a_config_without_labels(folder: Path) -> None:
    """A checkpoint that names no labels is an error that says where it looked and what to pass."""
    configured(folder, id2label=None)
    fails(LabelError, folder, r"neither config\.json nor manifest\.json names the labels: pass labels=")


# What is not there


def test_no_such_folder(tmp_path: Path) -> None:
    """A folder or file that is not there is an error that names it, and is not looked for on the Hub."""
    for name in ("./none", "~/no/such", "~nobody-here/such", "a b", "a/b/c"):
        with pytest.raises(ModelNotFoundError, match=r"^no such folder: "):
            load(name)
    for model in (tmp_path / "none", str(tmp_path / "none"), tmp_path / "none.onnx"):
        with pytest.raises(ModelNotFoundError, match=re.escape(f"no such folder: {model}")):
            load(model)
    with pytest.raises(ModelNotFoundError, match=r"none of none\.onnx \(it has: \[\]\)"):
        OnnxEngine(tmp_path / "none.onnx")


@pytest.mark.parametrize("model", [None, 3, b"mini", ["mini"]])
def test_not_a_model(model: Any) -> None:
    """Anything but a text or Path is a type error that shows it."""
    with pytest.raises(InputTypeError, match="a model is a folder, a Hub id or 'mini', got"):
        load(model)


@pytest.mark.parametrize("engine", ["onnx", "torch", "auto"])
def test_an_empty_folder(tmp_path: Path, engine: str) -> None:
    """A folder without a model is an error that lists what was looked for and what is there."""
    (tmp_path / "notes.md").write_text("", encoding="utf-8")
    fails(ModelNotFoundError, tmp_path, r"has none of .*model\.\w+.* \(it has: \['notes\.md'\]\)$", engine=engine)


def test_unknown_names(checkpoint: Path, exported: OnnxEngine) -> None:
    """Unknown engines, types and devices are errors that say what there is."""
    fails(InputError, checkpoint, r"'tensorrt'.*'auto', 'onnx', .*'torch'", engine="tensorrt")
    fails(InputError, checkpoint, r"'int4'.*'auto', 'fp32', 'bf16', 'fp16', 'int8'", dtype="int4")
    fails(InputError, checkpoint, "device='nowhere' cannot be used here", device="nowhere")
    fails(InputError, exported.folder, "device='cuda', dtype='auto': .* computes in fp32 or int8", device="cuda")
    fails(InputError, exported.folder, "dtype='fp16'", dtype="fp16")


def test_a_revision_of_a_folder(checkpoint: Path) -> None:
    """A revision of a folder or of the bundled model is an error: only the Hub has revisions."""
    fails(InputError, checkpoint, "revision='main' is for a model on the Hub, and .* is a folder", revision="main")
    with pytest.raises(InputError, match="revision='main' is for a model on the Hub, and 'mini' is bundled"):
        load("mini", revision="main")


def test_no_config(folder: Path) -> None:
    """Weights without config.json are no checkpoint; a graph without it needs labels= only."""
    (folder / "config.json").unlink()
    names = ["contradiction", "entailment", "neutral"]
    if (folder / "model.onnx").is_file():
        fails(LabelError, folder, r"neither config\.json nor manifest\.json names the labels: pass labels=")
        assert load(folder, labels=names).labels.columns == (1, 2, 0)
        return
    for engine in ("torch", "onnx"):
        for labels in (None, names):
            message = r"is not a checkpoint folder: it has no config\.json"
            fails(ModelNotFoundError, folder, message, engine=engine, labels=labels)


def test_no_tokenizer(folder: Path) -> None:
    """A folder without any tokenizer is an error that lists what was looked for."""
    (folder / "tokenizer.json").unlink()
    fails(
        ModelNotFoundError, folder, r"no tokenizer\.json, nor one of vocab\.txt, spm\.model.*add the model's tokenizer"
    )


def test_an_index_without_shards(copied: Path) -> None:
    """An index whose shards are not there is an error that names them, the first four of many."""
    (copied / "model.safetensors").unlink()
    index = copied / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {f"layer{n}": f"shard{n}" for n in range(6)}}), encoding="utf-8")
    message = rf"{re.escape(str(index))} names files that are not there: \['shard0', .*'shard3'\] and 2 more"
    for engine in ("torch", "onnx"):
        fails(ModelNotFoundError, copied, message, engine=engine)


@pytest.mark.parametrize("content", ['{"metadata": {}}', '{"weight_map": ["a"]}', '{"weight_map": {"a": 1}}', "[]"])
def test_an_index_of_another_form(copied: Path, content: str) -> None:
    """An index that maps no names to files is an error that names it."""
    (copied / "model.safetensors").rename(copied / "model.safetensors.index.json")
    (copied / "model.safetensors.index.json").write_text(content, encoding="utf-8")
    fails(DamagedModelError, copied, r"model\.safetensors\.index\.json is no ")


# What is damaged


@pytest.mark.parametrize("engine", ["torch", "onnx"])
@pytest.mark.parametrize("left", [0.5, 0.999])
def test_truncated_weights(copied: Path, engine: str, left: float) -> None:
    """A safetensors file that is cut short is an error that names the folder."""
    path = copied / "model.safetensors"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * left)])
    message = rf"^the weights in {re.escape(str(copied))} are damaged \(.*\): fetch them again$"
    fails(DamagedModelError, copied, message, engine=engine)


@pytest.mark.parametrize("content", [b"not a graph", None])
def test_damaged_onnx(graph: Path, copied: Path, content: bytes | None) -> None:
    """An ONNX file that is something else, or cut short, is an error that names it, also where there are weights."""
    whole = graph.read_bytes()
    (copied / "model.onnx").write_bytes(whole[: len(whole) // 2] if content is None else content)
    fails(DamagedModelError, copied, re.escape(f"{copied / 'model.onnx'} cannot be read as ONNX"))


def test_damaged_weights_of_a_graph(graph: Path, copied: Path) -> None:
    """A graph whose weights beside it are cut short is an error of one line that names the graph."""
    onnx = pytest.importorskip("onnx")
    data, saved = "model.onnx_data", str(copied / "model.onnx")
    onnx.save(onnx.load(str(graph)), saved, save_as_external_data=True, location=data, size_threshold=0)
    (copied / data).write_bytes((copied / data).read_bytes()[:1000])
    fails(DamagedModelError, copied, re.escape(f"{saved} cannot be read as ONNX"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (PAGE, "is a web page, not a model: fetch"),
        (POINTER, "is git-lfs' pointer to a model: fetch"),
        (b"", "is empty"),
    ],
    ids=["page", "pointer", "empty"],
)
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.onnx", "model_quantized.onnx"])
def test_something_else_in_a_models_place(copied: Path, name: str, content: bytes, message: str) -> None:
    """A web page, a pointer of git-lfs or nothing, saved as a model file, is an error that says so."""
    (copied / "model.safetensors").unlink()
    (copied / name).write_bytes(content)
    fails(DamagedModelError, copied, re.escape(str(copied / name)) + f" {message}")


def test_a_page_among_shards(copied: Path) -> None:
    """A web page in place of one shard is an error that names the shard."""
    index = {"metadata": {}, "weight_map": {"a": "first.safetensors", "b": "other.safetensors"}}
    (copied / "other.safetensors").write_bytes(PAGE)
    (copied / "model.safetensors").rename(copied / "first.safetensors")
    (copied / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    fails(DamagedModelError, copied, r"other\.safetensors is a web page")


@pytest.mark.parametrize("content", [b'{"a":', PAGE, b"", b"[1, 2]"], ids=["cut", "page", "empty", "list"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json"])
def test_damaged_text_files(folder: Path, name: str, content: bytes) -> None:
    """A JSON file that is cut short or something else is an error that names it."""
    (folder / name).write_bytes(content)
    fails(DamagedModelError, folder, re.escape(str(folder / name)))


def _without(folder: Path, left_out: str) -> None:
    """Take the layers whose names hold a text out of the weights."""
    from safetensors.numpy import load_file, save_file

    path = folder / "model.safetensors"
    weights = {name: array for name, array in load_file(path).items() if left_out not in name}
    save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize("engine", ["torch", "onnx"])
@pytest.mark.parametrize(
    ("left_out", "missing"),
    [
        ("layer.1.", r"\['bert\.encoder\.layer\.1\.attention.*\] and 12 more"),
        ("classifier.bias", r"\['classifier\.bias'\]"),
        ("word_embeddings", r"\['bert\.embeddings\.word_embeddings\.weight'\]"),
    ],
)
def test_missing_weights(copied: Path, left_out: str, missing: str, engine: str) -> None:
    """A checkpoint that lacks a layer is an error that names what is missing: random numbers would take its place."""
    _without(copied, left_out)
    fails(DamagedModelError, copied, rf"incomplete \(missing: {missing}\): fetch them again", engine=engine)


def test_weights_of_another_config(copied: Path) -> None:
    """Weights of other shapes than the config makes are an error that names them."""
    configured(copied, intermediate_size=96)
    fails(DamagedModelError, copied, r"not of its config\.json \(other shapes: \['bert\.encoder\.layer\.0.*more\)")


def test_a_bundle_that_was_changed(exported: OnnxEngine, tmp_path: Path) -> None:
    """A bundle whose file is not the one in its manifest is not opened."""
    bundle = shutil.copytree(exported.folder, tmp_path / "bundle")
    with (bundle / "model.onnx").open("ab") as file:
        file.write(b" ")
    fails(DamagedModelError, bundle, r"model.onnx is damaged")


def test_other_errors_of_a_runtime_are_passed_on(checkpoint: Path, exported: OnnxEngine) -> None:
    """A pair longer than the model's positions, which no scorer makes, raises the runtime's own error."""
    pair = ("cat " * 200, "mat")
    with pytest.raises(RuntimeError, match="must match"):
        batch_logits(TorchEngine(checkpoint, device="cpu"), [pair])
    with pytest.raises(Exception, match="ONNXRuntimeError"):
        batch_logits(exported, [pair])


# .bin


@pytest.mark.parametrize("zipped", [True, False])
def test_bin_weights(copied: Path, checkpoint: Path, *, zipped: bool) -> None:
    """Weights in pytorch_model.bin, of either form that torch has had, give the same logits."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    weights = load_file(copied / "model.safetensors")
    torch.save(weights, copied / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    (copied / "model.safetensors").unlink()
    engine, source = load(copied, device="cpu"), load(checkpoint, device="cpu")
    assert (batch_logits(engine, PAIRS) == batch_logits(source, PAIRS)).all()
    assert engine.fingerprint != source.fingerprint


class _Harm:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "harm")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_bin_file_that_would_run_code(copied: Path, tmp_path: Path, *, zipped: bool) -> None:
    """A pickle that would run code is refused, by both engines, with what would work, and the code does not run."""
    torch = pytest.importorskip("torch")
    (copied / "model.safetensors").unlink()
    harmful = {"classifier.bias": _Harm(tmp_path / "ran")}
    torch.save(harmful, copied / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    for engine in ("torch", "onnx"):
        message = rf"^the weights in {re.escape(str(copied))} .*code to load, which is never run .*use .* safetensors$"
        fails(DamagedModelError, copied, message, engine=engine)
    assert not (tmp_path / "ran").exists()
    torch.load(copied / "pytorch_model.bin", weights_only=False)
    assert (tmp_path / "ran").exists()  # so it would have run


@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_bin_file(copied: Path, *, zipped: bool) -> None:
    """Half a .bin file is an error that names the folder."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    path = copied / "pytorch_model.bin"
    torch.save(load_file(copied / "model.safetensors"), path, _use_new_zipfile_serialization=zipped)
    (copied / "model.safetensors").unlink()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    fails(DamagedModelError, copied, rf"^the weights in {re.escape(str(copied))} are damaged")


def test_loading_prints_nothing(copied: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Loading in torch writes nothing, neither bars nor reports, of a whole checkpoint and of one that is not."""
    load(copied, device="cpu")
    _without(copied, "layer.1.")
    with pytest.raises(DamagedModelError):
        load(copied, device="cpu")
    configured(copied, intermediate_size=96)
    with pytest.raises(DamagedModelError):
        load(copied, device="cpu")
    assert capfd.readouterr() == ("", "")
