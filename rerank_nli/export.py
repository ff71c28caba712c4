"""A checkpoint folder → a bundle in one of several forms: graphs or weights, tokenizer, manifest and model card."""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rerank_nli.checkpoints import convert_tokenizer, max_length, no_progress_bars, read_classifier, readable
from rerank_nli.deberta import skew_attention
from rerank_nli.errors import InputError, one_of, require
from rerank_nli.files import BY_BATCH, CALIBRATED, ENCODER, INT8, ONNX, OPENVINO
from rerank_nli.labels import Labels
from rerank_nli.manifest import Manifest, sha256, stated_languages
from rerank_nli.quantize import DATA, quantize_by_batch, quantize_by_calibration, store_int8
from rerank_nli.unpack import name_parameters

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["FORMS", "check_card", "export", "require_absent"]

FORMS = {  # the form, and what its manifest says that it is stored in
    "int8": "int8",
    "fp32": "fp32",
    "int8-dynamic": "int8-batch-dependent",
    "int8-static": "int8-static",
    "openvino": "fp32",
    "safetensors": "fp32",
}

_OPSET = 20  # the first with Gelu as one operator
_LARGEST = 2**31 - 2**26  # bytes of weights in an ONNX file, which protobuf ends at 2 GiB with the graph
_TRACING = threading.Lock()  # torch traces one model at a time in a process
_KEPT = ("name", "version", "base", "data", "training", "window", "temperature")  # of a bundle, in another form of it
_CARD = (*_KEPT, "scores", "languages")


def export(
    folder: str | Path,
    out: str | Path,
    *,
    form: str = "int8",
    labels: Sequence[str] | None = None,
    card: Mapping[str, Any] | None = None,
    calibrate_on: Sequence[tuple[str, str]] = (),
) -> Manifest:
    """Write a model in one form, tokenizer.json, manifest.json and the model card (needs the `export` extra).

    What a bundle says of its model is kept in another form of it, but for its scores. Nothing is held against the
    source here: `agreement.export_checked` does both.

    Args:
        folder: a Hugging Face sequence-classification checkpoint: config.json, weights, tokenizer; or a bundle in the
            form "int8" or "fp32", whose weights are as it has rounded them.
        out: folder to make; it must not exist, and appears only when it is complete.
        form: "int8" is ONNX with weights in 8 bits, as model.onnx, which computes in fp32, and model_int8.onnx, where
            each token's activations are rounded on their own. "fp32" is ONNX as the checkpoint is. "int8-dynamic" has
            one scale for the activations of a batch, so that scores would hang on it: it is run one pair at a time.
            "int8-static" has scales that are measured on `calibrate_on`. "openvino" is OpenVINO's IR in fp32 (needs
            the `openvino` extra too), "safetensors" a Hugging Face folder.
        labels: names of the outputs in order, where the checkpoint does not say.
        card: manifest entries that the checkpoint cannot tell: name, version, base, data, training, scores, languages,
            window, temperature.
        calibrate_on: premises and hypotheses such as the model will be used for; "int8-static" needs a hundred or more.

    Raises:
        ModelNotFoundError: no such folder, or no weights or tokenizer in it.
        DamagedModelError: weights that cannot be read, or lack a layer.
        InputError: `out` exists, an unknown form, "int8-static" without pairs or another form with some, `card` has an
            entry that a manifest has not, or the model is no classifier.
        LabelError: the outputs cannot be told apart.
        MissingExtraError: a package that the form needs is not installed.
    """
    folder, out = Path(folder), Path(out)
    one_of("form", form, FORMS)
    require_absent(out)
    check_card(card or {})
    if (form == "int8-static") != bool(calibrate_on):
        message = f"calibrate_on has {len(calibrate_on)} pairs: form='int8-static' needs some, and no other takes any"
        raise InputError(message)
    if form == "openvino":
        require("openvino", "openvino")  # before the work
    own = Manifest.read(folder)
    model = read_classifier(folder, "fp32", "export", attention="eager")
    resolved = Labels.resolve(dict(enumerate(own.labels)) if own else model.config.id2label, labels)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        bundle, work = Path(scratch) / "bundle", Path(scratch) / "work"
        bundle.mkdir()
        work.mkdir()
        convert_tokenizer(folder, bundle / "tokenizer.json")
        longest = own.max_length if own else max_length(folder, model.config.to_dict())
        if form == "safetensors":
            _write_weights(model, folder, bundle, resolved.names)
        else:
            shared = form in ("fp32", "int8")  # graphs over the same weights
            graph = (bundle if shared else work) / ONNX[0]
            _write_graph(model, graph, longest, with_states=shared)
            del model  # a large one leaves room for its graph
            if form == "int8":
                store_int8(bundle)
            if shared:
                _part_encoder(bundle)
            elif form == "int8-dynamic":
                quantize_by_batch(graph, bundle / BY_BATCH)
            elif form == "int8-static":
                inputs = _inputs(graph, bundle / "tokenizer.json", longest, calibrate_on)
                quantize_by_calibration(graph, bundle / CALIBRATED, inputs)
            elif form == "openvino":
                _write_ir(graph, bundle / OPENVINO[0])
        kept = {name: getattr(own, name) for name in _KEPT} if own else {"name": _name(folder), "version": "0"}
        manifest = Manifest(
            **{**kept, "languages": stated_languages(folder), **(card or {})},
            labels=list(resolved.names),
            max_length=longest,
            precision=FORMS[form],
            files={file.name: sha256(file) for file in sorted(bundle.iterdir())},
        )
        manifest.write(bundle)
        bundle.rename(out)
    return manifest


def _name(folder: Path) -> str:
    """Of a folder, or of the Hub's model whose snapshot it is: that is called by its revision."""
    cached = folder.parent.name == "snapshots" and folder.parents[1].name.startswith("models--")
    return folder.parents[1].name.rpartition("--")[2] if cached else folder.name


def require_absent(out: Path) -> None:
    """Refuse to write where something is.

    Raises:
        InputError: there is.
    """
    if out.exists():
        message = f"{out} exists: choose another folder, or remove it first"
        raise InputError(message)


def check_card(card: Mapping[str, Any]) -> None:
    """Refuse a card with an entry that a manifest has not, or has in another form.

    Raises:
        InputError: it has one.
    """
    unknown = sorted(set(card) - set(_CARD))
    if unknown:
        message = f"unknown entries in the card: {unknown}; expected some of {list(_CARD)}"
        raise InputError(message)
    Manifest(**{"name": "", "version": "", "max_length": 1 << 31, **card})  # the model's own length is not known yet


def _write_weights(model: Any, folder: Path, bundle: Path, names: Sequence[str]) -> None:  # noqa: ANN401
    """The weights as safetensors, and a config.json that names the outputs."""
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: number for number, name in enumerate(names)}
    with no_progress_bars():
        model.save_pretrained(bundle)
    for weights in bundle.glob("*.safetensors"):
        weights.chmod((bundle / "config.json").stat().st_mode)  # they were written for their owner alone
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, bundle / name)


def _write_ir(graph: Path, path: Path) -> None:
    # openvino.convert_model would do this and report its use over the network; read_model only reads.
    openvino = require("openvino", "openvino")
    openvino.save_model(openvino.Core().read_model(str(graph)), str(path), compress_to_fp16=False)


def _inputs(
    graph: Path, tokenizer: Path, longest: int, pairs: Sequence[tuple[str, str]]
) -> Iterator[dict[str, NDArray[np.int64]]]:
    """What a graph takes of each pair, cut where it is too long."""
    from tokenizers import Tokenizer

    taken = [wanted.name for wanted in require("onnx", "export").load(str(graph), load_external_data=False).graph.input]
    reader = Tokenizer.from_file(str(tokenizer))
    reader.enable_truncation(longest)
    for premise, hypothesis in pairs:
        read = reader.encode(readable(premise), readable(hypothesis))
        named = {"input_ids": read.ids, "attention_mask": read.attention_mask, "token_type_ids": read.type_ids}
        yield {name: np.array([named[name]]) for name in taken}


def _write_graph(model: Any, path: Path, longest: int, *, with_states: bool) -> None:  # noqa: ANN401
    """A graph that gives logits, and perhaps the states of the encoder's last layer."""
    torch = require("torch", "export")
    require("onnxscript", "export")
    skew_attention(model, keep=False)
    example = torch.ones((2, 16), dtype=torch.int64)
    inputs = {"input_ids": example, "attention_mask": example.clone()}  # one tensor twice would be one input
    if getattr(model.config, "type_vocab_size", 0) > 1:
        inputs["token_type_ids"] = torch.zeros_like(example)
    kind = model.config.model_type
    untraced = f"PyTorch cannot trace {kind} for ONNX: use engine='torch', or export it with form='safetensors'"
    batch = torch.export.Dim("batch", min=1, max=1 << 16)
    length = torch.export.Dim("length", min=2, max=longest)

    states: list[Any] = []
    encoder = model.base_model.get_encoder() if model.config.is_encoder_decoder else model.base_model

    class Outputs(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> Any:  # noqa: ANN401
            types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            logits = model(input_ids=input_ids, attention_mask=attention_mask, **types).logits
            return (logits, states[-1]) if with_states else logits

    log = logging.getLogger("torch.onnx")
    with _TRACING, torch.no_grad(), warnings.catch_warnings(), contextlib.ExitStack() as after:
        warnings.simplefilter("ignore")  # the exporter warns of its own internals, and logs them
        after.callback(log.setLevel, log.level)
        log.setLevel(logging.ERROR)
        after.callback(encoder.register_forward_hook(lambda *seen: states.append(seen[-1][0])).remove)
        try:
            program = torch.onnx.export(
                Outputs().eval(),
                kwargs=inputs,
                input_names=list(inputs),
                output_names=["logits", "states"] if with_states else ["logits"],
                dynamic_shapes={name: {0: batch, 1: length} for name in inputs},
                opset_version=_OPSET,
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:  # its message has hundreds of lines
            raise InputError(untraced) from error
    if any(isinstance(size, int) for given in program.model.graph.inputs for size in given.shape):
        raise InputError(untraced)
    _forget_sources(program.model)
    name_parameters(model, program.model)
    _save_graph(program.model, path, 0 if with_states else _LARGEST)


def _part_encoder(bundle: Path) -> None:
    """Move the states out of the classifier's graphs into one of their own, over the same weights."""
    onnx = require("onnx", "export")
    for name in (ONNX[0], INT8):
        if not (bundle / name).is_file():
            continue
        model = onnx.load(str(bundle / name), load_external_data=False)
        logits, states = model.graph.output
        if name == ONNX[0]:
            model.graph.output.remove(logits)
            onnx.save(model, str(bundle / ENCODER))
            model.graph.output.insert(0, logits)
        model.graph.output.remove(states)
        onnx.save(model, str(bundle / name))


def _forget_sources(traced: Any) -> None:  # noqa: ANN401
    """Take out where in whose files each node came from."""
    graph, nodes = traced.graph, list(traced.graph.all_nodes())
    weights = list(graph.initializers.values())
    values = [*graph.inputs, *weights, *(value for node in nodes for value in node.outputs)]
    for part in (traced, graph, *nodes, *values, *(value.const_value for value in weights)):
        part.metadata_props.clear()


def _save_graph(traced: Any, path: Path, largest: int) -> None:  # noqa: ANN401
    """One file, with the weights in another beside it where they have more bytes than `largest`."""
    beside = sum(value.const_value.nbytes for value in traced.graph.initializers.values()) > largest
    require("onnx_ir", "export").save(traced, path, external_data=DATA if beside else None)
