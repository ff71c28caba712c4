"""A checkpoint folder → an ONNX bundle whose weights are stored in int8 and computed with in fp32.

Dynamic quantization would take one activation scale for a whole batch, so that a pair's score depends on the pairs
beside it. Here only weights are rounded, once, and a score depends on its own pair alone.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rerank_nli.checkpoints import convert_tokenizer, max_length, no_progress_bars, read_json, require_classifier
from rerank_nli.errors import DamagedModelError, InputError, ModelNotFoundError, require
from rerank_nli.labels import Labels
from rerank_nli.manifest import Manifest, sha256

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["export"]

_OPSET = 18
_SMALLEST = 4096  # tensors with fewer numbers stay in fp32: they weigh nothing and matter most
_CARD = ("name", "version", "base", "data", "scores", "window", "temperature")


def export(
    folder: str | Path,
    out: str | Path,
    *,
    int8: bool = True,
    labels: Sequence[str] | None = None,
    card: Mapping[str, Any] | None = None,
) -> Manifest:
    """Write model.onnx, tokenizer.json and manifest.json (needs the `export` extra).

    Args:
        folder: a Hugging Face sequence-classification checkpoint: config.json, weights, tokenizer.
        out: folder to make; it must not exist, and appears only when it is complete.
        int8: store weights in int8, per output channel, embeddings per row; else in fp32.
        labels: names of the outputs in order, where the checkpoint does not say.
        card: manifest entries that the checkpoint cannot tell: name, version, base, data, scores, window, temperature.

    Raises:
        ModelNotFoundError: no such folder, or no weights or tokenizer in it.
        InputError: `out` exists, or `card` has an entry that a manifest has not.
        LabelError: the outputs cannot be told apart.
    """
    folder, out = Path(folder), Path(out)
    if out.exists():
        message = f"{out} exists: choose another folder, or remove it first"
        raise InputError(message)
    unknown = sorted(set(card or {}) - set(_CARD))
    if unknown:
        message = f"unknown entries in the card: {unknown}; expected some of {list(_CARD)}"
        raise InputError(message)
    model = _read_checkpoint(folder)
    resolved = Labels.resolve(model.config.id2label, labels)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        bundle = Path(scratch) / "bundle"
        bundle.mkdir()
        convert_tokenizer(folder, bundle / "tokenizer.json")
        longest = max_length(folder, model.config.to_dict())
        _write_graph(model, bundle / "model.onnx", longest)
        if int8:
            _store_int8(bundle / "model.onnx")
        manifest = Manifest(
            **{"name": folder.name, "version": "0", **(card or {})},
            labels=list(resolved.names),
            max_length=longest,
            precision="int8 weights, fp32 compute" if int8 else "fp32",
            files={name: sha256(bundle / name) for name in ("model.onnx", "tokenizer.json")},
        )
        manifest.write(bundle)
        bundle.rename(out)
    return manifest


def _read_checkpoint(folder: Path) -> Any:  # noqa: ANN401 - torch is optional, so its types cannot be named here
    if not (folder / "config.json").is_file():
        message = f"{folder} is not a checkpoint folder: it has no config.json"
        raise ModelNotFoundError(message)
    config = read_json(folder / "config.json")
    require_classifier(folder, config)
    torch, transformers = require("torch", "export"), require("transformers", "export")
    try:
        with no_progress_bars():
            model, report = transformers.AutoModelForSequenceClassification.from_pretrained(
                str(folder),
                local_files_only=True,
                trust_remote_code=False,
                attn_implementation="eager",
                dtype=torch.float32,
                output_loading_info=True,
            )
    except OSError as error:
        message = f"{folder} holds no weights that can be read: {error}"
        raise ModelNotFoundError(message) from error
    except MemoryError:
        raise
    except Exception as error:
        message = f"the weights in {folder} are damaged ({error}): fetch them again"
        raise DamagedModelError(message) from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        message = f"the weights in {folder} are incomplete (missing: {missing}): fetch them again"
        raise DamagedModelError(message)
    return model.eval()


def _write_graph(model: Any, path: Path, longest: int) -> None:  # noqa: ANN401
    torch = require("torch", "export")
    require("onnxscript", "export")
    example = torch.ones((2, 16), dtype=torch.int64)
    inputs = {"input_ids": example, "attention_mask": example.clone()}  # one tensor twice would be one input
    if getattr(model.config, "type_vocab_size", 0) > 1:
        inputs["token_type_ids"] = torch.zeros_like(example)
    batch = torch.export.Dim("batch", min=1, max=1 << 16)
    length = torch.export.Dim("length", min=2, max=longest)

    class Logits(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> Any:  # noqa: ANN401
            types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            return model(input_ids=input_ids, attention_mask=attention_mask, **types).logits

    log = logging.getLogger("torch.onnx")
    level = log.level
    with torch.no_grad(), warnings.catch_warnings(), contextlib.ExitStack() as after:
        warnings.simplefilter("ignore")  # the exporter warns of its own internals, and logs them
        after.callback(log.setLevel, level)
        log.setLevel(logging.ERROR)
        torch.onnx.export(
            Logits().eval(),
            kwargs=inputs,
            f=str(path),
            input_names=list(inputs),
            output_names=["logits"],
            dynamic_shapes={name: {0: batch, 1: length} for name in inputs},
            opset_version=_OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def _store_int8(path: Path) -> None:
    """Replace each large fp32 matrix by int8 rows or columns with a scale each, and DequantizeLinear.

    A matrix multiplied from the right (x @ W) gets a scale for each column, an embedding table one for each row.
    """
    onnx = require("onnx", "export")
    graph_model = onnx.load(str(path))
    graph = graph_model.graph
    by_row = {  # the tensors whose rows, not columns, are the outputs: embedding tables and Gemm's transposed weights
        node.input[0 if node.op_type == "Gather" else 1]
        for node in graph.node
        if node.op_type == "Gather"
        or (node.op_type == "Gemm" and any(a.name == "transB" and a.i for a in node.attribute))
    }
    kept, nodes = [], []
    for tensor in graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.ndim != 2 or values.size < _SMALLEST:  # noqa: PLR2004
            kept.append(tensor)
            continue
        axis = 0 if tensor.name in by_row else 1
        scale = np.abs(values).max(axis=1 - axis).astype(np.float32) / 127
        scale[scale == 0] = 1
        rounded = np.rint(values / np.expand_dims(scale, 1 - axis)).astype(np.int8)
        kept += [
            onnx.numpy_helper.from_array(rounded, f"{tensor.name}.int8"),
            onnx.numpy_helper.from_array(scale, f"{tensor.name}.scale"),
        ]
        nodes.append(
            onnx.helper.make_node(
                "DequantizeLinear", [f"{tensor.name}.int8", f"{tensor.name}.scale"], [tensor.name], axis=axis
            )
        )
    del graph.initializer[:]
    graph.initializer.extend(kept)
    body = list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes + body)
    del graph.value_info[:]  # it described the initializers that are gone
    onnx.checker.check_model(graph_model)
    onnx.save(graph_model, str(path))
