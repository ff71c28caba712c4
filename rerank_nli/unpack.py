"""A bundle's graph → the classifier that it computes, to train it further or to store it in another form."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from rerank_nli.errors import DamagedModelError, InputError, require
from rerank_nli.files import ONNX

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rerank_nli.scores import FloatArray

__all__ = ["name_parameters", "read_graph"]

_ENTRIES = _CONFIG, _PARAMETERS = "config", "parameters"  # of a graph's metadata


def name_parameters(model: Any, traced: Any) -> None:  # noqa: ANN401 - of torch and onnx_ir, which are optional
    """Write into a traced graph the model's config, and which of its tensors holds which parameter.

    Tracing loses their names, transposes matrices and stores equal tensors once, so that they are found by what they
    hold. A graph is left as it is where it has not every parameter, as where constants were folded into others.
    """
    held = {
        _content(value.const_value.numpy()): name
        for name, value in traced.graph.initializers.items()
        if value.const_value.dtype.numpy() == np.float32
    }
    places: dict[str, dict[str, Any] | None] = {}
    for name, parameter in model.named_parameters():
        array = parameter.detach().numpy()
        straight = held.get(_content(array))
        tensor = straight or held.get(_content(array.T))
        if tensor:
            places[name] = {"tensor": tensor, "transposed": straight is None}
        elif not array.any():
            places[name] = None  # zeros that are added are left out of a graph
    if len(places) == sum(1 for _ in model.named_parameters()):
        config = json.loads(model.config.to_json_string(use_diff=False))
        config.pop("_name_or_path", None)  # where it was made
        traced.metadata_props[_CONFIG] = json.dumps(config)
        traced.metadata_props[_PARAMETERS] = json.dumps(places)


def read_graph(folder: Path) -> Any:  # noqa: ANN401
    """The classifier of a bundle's model.onnx in fp32, on the CPU, its weights as the bundle has rounded them.

    Raises:
        InputError: the graph does not say which of its tensors holds which parameter.
        DamagedModelError: it cannot be read, or is not what it says.
        MissingExtraError: torch, transformers or onnx is not installed.
    """
    onnx, torch, transformers = (require(name, "export") for name in ("onnx", "torch", "transformers"))
    path = folder / ONNX[0]
    try:
        stored = onnx.load(str(path))
        said = {entry.key: json.loads(entry.value) for entry in stored.metadata_props if entry.key in _ENTRIES}
        model = _built(torch, transformers, said, _tensors(onnx, stored.graph)) if said else None
    except Exception as error:
        message = f"{path} cannot be read as the classifier that it says it is ({error!r}): export it again"
        raise DamagedModelError(message) from error
    if model is None:
        message = f"{path} does not say whose weights it holds: use the checkpoint that it was exported from"
        raise InputError(message)
    return model


def _built(torch: Any, transformers: Any, said: dict[str, Any], tensors: Mapping[str, FloatArray]) -> Any:  # noqa: ANN401
    config = transformers.AutoConfig.for_model(**said[_CONFIG])
    model = transformers.AutoModelForSequenceClassification.from_config(
        config, attn_implementation="eager", trust_remote_code=False
    )
    for name, parameter in model.named_parameters():
        place = said[_PARAMETERS][name]
        tensor = np.zeros(parameter.shape) if place is None else tensors[place["tensor"]]
        parameter.data.copy_(torch.from_numpy(np.array(tensor.T if place and place["transposed"] else tensor)))
    return model.eval()


def _content(array: FloatArray) -> tuple[tuple[int, ...], bytes]:
    return array.shape, hashlib.blake2b(np.ascontiguousarray(array).data).digest()


def _tensors(onnx: Any, graph: Any) -> Mapping[str, FloatArray]:  # noqa: ANN401
    """A graph's tensors by name; those in 8 bits as what they stand for."""
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    axes = {node.output[0]: node.attribute[0].i for node in graph.node if node.op_type == "DequantizeLinear"}
    for name in [name.removesuffix(".int8") for name in stored if name.endswith(".int8")]:
        scale = np.expand_dims(stored[f"{name}.scale"], 1 - axes.get(name, 0))  # a table has one for each row
        stored[name] = stored[f"{name}.int8"].astype(np.float32) * scale
    return stored
