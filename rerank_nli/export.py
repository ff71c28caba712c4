"""A checkpoint folder → an ONNX bundle: graphs, weights, tokenizer and manifest."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rerank_nli.checkpoints import convert_tokenizer, max_length, no_progress_bars, read_json, require_classifier
from rerank_nli.errors import DamagedModelError, InputError, ModelNotFoundError, require
from rerank_nli.labels import Labels
from rerank_nli.manifest import Manifest, sha256
from rerank_nli.quantize import store_int8

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["check_card", "export"]

_OPSET = 20  # the first with Gelu as one operator
_CARD = ("name", "version", "base", "data", "training", "scores", "window", "temperature")


def export(
    folder: str | Path,
    out: str | Path,
    *,
    int8: bool = True,
    labels: Sequence[str] | None = None,
    card: Mapping[str, Any] | None = None,
) -> Manifest:
    """Write graphs, weights, tokenizer.json and manifest.json (needs the `export` extra).

    Args:
        folder: a Hugging Face sequence-classification checkpoint: config.json, weights, tokenizer.
        out: folder to make; it must not exist, and appears only when it is complete.
        int8: round weights to 8 bits, and write model_int8.onnx beside model.onnx; else both would be the same.
        labels: names of the outputs in order, where the checkpoint does not say.
        card: manifest entries that the checkpoint cannot tell: name, version, base, data, training, scores, window,
            temperature.

    Raises:
        ModelNotFoundError: no such folder, or no weights or tokenizer in it.
        InputError: `out` exists, or `card` has an entry that a manifest has not.
        LabelError: the outputs cannot be told apart.
    """
    folder, out = Path(folder), Path(out)
    if out.exists():
        message = f"{out} exists: choose another folder, or remove it first"
        raise InputError(message)
    check_card(card or {})
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
            store_int8(bundle)
        manifest = Manifest(
            **{"name": folder.name, "version": "0", **(card or {})},
            labels=list(resolved.names),
            max_length=longest,
            precision="int8" if int8 else "fp32",
            files={file.name: sha256(file) for file in sorted(bundle.iterdir())},
        )
        manifest.write(bundle)
        bundle.rename(out)
    return manifest


def check_card(card: Mapping[str, Any]) -> None:
    """Refuse a card with an entry that a manifest has not.

    Raises:
        InputError: it has one.
    """
    unknown = sorted(set(card) - set(_CARD))
    if unknown:
        message = f"unknown entries in the card: {unknown}; expected some of {list(_CARD)}"
        raise InputError(message)


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
        program = torch.onnx.export(
            Logits().eval(),
            kwargs=inputs,
            input_names=list(inputs),
            output_names=["logits"],
            dynamic_shapes={name: {0: batch, 1: length} for name in inputs},
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
    proto = program.model_proto
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
        del part.metadata_props[:]  # where in whose files each node came from
    require("onnx", "export").save(proto, str(path))
