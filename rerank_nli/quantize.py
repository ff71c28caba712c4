"""An fp32 ONNX graph → weights stored in 8 bits and two graphs over them: one computes in fp32, the other in int8.

Runtimes quantize activations with one scale for a whole batch, so that a pair's score depends on the pairs beside it.
Here each token has a scale of its own, and a score depends on its own pair alone. ONNX Runtime's own two ways are here
too: a scale for each batch, and fixed scales that were measured beforehand.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from rerank_nli.errors import require
from rerank_nli.files import INT8, ONNX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from rerank_nli.scores import FloatArray

__all__ = ["DATA", "quantize_by_batch", "quantize_by_calibration", "store_int8"]

DATA = "model.onnx_data"
_SMALLEST = 4096  # matrices with fewer numbers stay in fp32: they weigh nothing and matter most
_MOST = 127  # of a rounded weight, either side of 0
_ZERO = 128  # what stands for 0 among rounded activations


def store_int8(folder: Path) -> None:
    """Replace a folder's fp32 model.onnx by model.onnx and model_int8.onnx over the same model.onnx_data.

    Each large matrix is rounded to 8 bits with a scale for each of its outputs, a table of embeddings for each row.
    model.onnx makes fp32 of them when it is loaded. model_int8.onnx multiplies by them as they are, a token's
    activations rounded to 8 bits with a scale for the token. Needs the `export` extra.
    """
    onnx = require("onnx", "export")
    path = folder / ONNX[0]
    model = onnx.load(str(path))
    graph = model.graph
    body = list(graph.node)
    axes = _store_matrices(onnx, graph)
    _replace(graph.node, _rewritten(onnx, body, axes, int8=False))
    path.unlink()
    (folder / DATA).unlink(missing_ok=True)  # of fp32 weights over 2 GiB
    _save(onnx, model, path, DATA)
    _replace(graph.node, _rewritten(onnx, body, axes, int8=True))  # the tensors now point into the saved file
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, str(folder / INT8))
    for name in (ONNX[0], INT8):
        onnx.checker.check_model(str(folder / name))


def quantize_by_batch(graph: Path, out: Path) -> None:
    """Write a graph whose activations are rounded with one scale for all tokens of a batch (needs the `export` extra).

    It is ONNX Runtime's dynamic quantization: a pair's score depends on the pairs beside it. Weights have 7 bits, since
    processors without VNNI overflow with 8.

    Args:
        graph: in fp32; nothing is written beside it that stays.
        out: the file to write; its weights come into another beside it.
    """
    onnx, plain = require("onnx", "export"), _without_shapes(graph)
    quantization = require("onnxruntime.quantization", "export")
    made = graph.with_name("quantized.onnx")
    with _unheard():
        quantization.quantize_dynamic(
            plain,
            made,
            per_channel=True,
            reduce_range=True,
            weight_type=quantization.QuantType.QInt8,
            use_external_data_format=True,
        )
    _save(onnx, onnx.load(str(made)), out, f"{out.name}_data")
    onnx.checker.check_model(str(out))


def quantize_by_calibration(graph: Path, out: Path, inputs: Iterable[Mapping[str, Any]]) -> None:
    """Write a graph whose activations are rounded with scales that are measured here (needs the `export` extra).

    It is ONNX Runtime's static quantization, for products with a matrix of weights: the least and the largest number of
    each factor set its scale. What a product gives stays in fp32, as do products of two activations, and the matrices
    that narrow (the second of a transformer's feed-forward pair, whose factors have few, far outliers). Tables of
    embeddings are rounded row by row.

    Args:
        graph: in fp32; nothing is written beside it that stays.
        out: the file to write; its weights come into another beside it.
        inputs: of the graph, one pair each, such as it will be used for.
    """
    onnx, plain = require("onnx", "export"), _without_shapes(graph)
    quantization = require("onnxruntime.quantization", "export")
    proto = onnx.load(str(plain), load_external_data=False).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in proto.initializer}
    narrowing = [
        node.name
        for node in proto.node
        if node.op_type == "MatMul" and len(shape := shapes.get(node.input[1], ())) == 2 and shape[0] > shape[1]  # noqa: PLR2004
    ]
    given = iter(inputs)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def get_next(self) -> Mapping[str, Any] | None:
            return next(given, None)

    made = graph.with_name("quantized.onnx")
    with _unheard():
        quantization.quantize_static(
            plain,
            made,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["MatMul"],
            nodes_to_exclude=narrowing,
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            use_external_data_format=True,
            extra_options={"MatMulConstBOnly": True, "OpTypesToExcludeOutputQuantization": ["MatMul"]},
        )
    model = onnx.load(str(made))
    body = list(model.graph.node)
    axes = _store_matrices(onnx, model.graph, tables_only=True)
    _replace(model.graph.node, _rewritten(onnx, body, axes, int8=False))
    _save(onnx, model, out, f"{out.name}_data")
    onnx.checker.check_model(str(out))


def _store_matrices(onnx: Any, graph: Any, *, tables_only: bool = False) -> dict[str, int]:  # noqa: ANN401
    """Round a graph's large matrices, or only its tables of embeddings; the axis along which each has its scales."""
    tables = {node.input[0] for node in graph.node if node.op_type == "Gather"}
    by_row = tables | {node.input[1] for node in graph.node if any(a.name == "transB" and a.i for a in node.attribute)}
    kept, axes = [], {}
    for tensor in graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        small = values.dtype != np.float32 or values.ndim != 2 or values.size < _SMALLEST  # noqa: PLR2004
        if small or (tables_only and tensor.name not in tables):
            kept.append(tensor)
            continue
        axes[tensor.name] = axis = 0 if tensor.name in by_row else 1
        rounded, scale = _rounded(values, axis)
        kept.append(onnx.numpy_helper.from_array(rounded, f"{tensor.name}.int8"))
        kept.append(onnx.numpy_helper.from_array(scale, f"{tensor.name}.scale"))
    _replace(graph.initializer, kept)
    _replace(graph.value_info, [])  # it described the matrices that are gone
    return axes


def _save(onnx: Any, model: Any, path: Path, data: str) -> None:  # noqa: ANN401
    """A graph, and its weights in a file beside it."""
    onnx.save(model, str(path), save_as_external_data=True, location=data, size_threshold=_SMALLEST)
    path.with_name(data).chmod(path.stat().st_mode)  # it was written for its owner alone


def _without_shapes(graph: Path) -> Path:
    """The graph as the quantizers want it: they infer the shapes of its values themselves."""
    onnx = require("onnx", "export")
    model = onnx.load(str(graph), load_external_data=False)
    _replace(model.graph.value_info, [])
    plain = graph.with_name("plain.onnx")
    onnx.save(model, str(plain))
    return plain


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """The quantizers log through the root logger, which prints where nobody has set it up: nothing here prints."""

    def is_other(record: logging.LogRecord) -> bool:
        return "onnxruntime" not in record.pathname

    nowhere, root = logging.NullHandler(), logging.getLogger()
    root.addHandler(nowhere)
    root.addFilter(is_other)
    try:
        yield
    finally:
        root.removeFilter(is_other)
        root.removeHandler(nowhere)


def _rounded(values: FloatArray, axis: int) -> tuple[NDArray[np.int8], FloatArray]:
    """(K, N) in 8 bits, and its scales along the axis.

    Many processors multiply unsigned activations by signed weights, and add two neighbouring products in 16 bits. A
    column's scale is so large that no two neighbours overflow: 255 (|a| + |b|) < 2^15 after rounding.
    """
    largest = np.abs(values).max(axis=1 - axis)
    if axis == 1:
        even, odd = values[0 : len(values) // 2 * 2 : 2], values[1::2]
        largest = np.maximum(largest, np.abs(even + odd).max(axis=0, initial=0))
    scale = largest.astype(np.float32) / _MOST
    scale[scale == 0] = 1
    return np.rint(values / np.expand_dims(scale, 1 - axis)).astype(np.int8), scale


def _rewritten(onnx: Any, body: Iterable[Any], axes: dict[str, int], *, int8: bool) -> Iterator[Any]:  # noqa: ANN401
    """The nodes with each large matrix looked up, multiplied or dequantized from its 8 bits."""
    done = set()
    for node in body:
        first, second = [*node.input, "", ""][:2]
        if node.op_type == "Gather" and first in axes:
            yield from _lookup(onnx, node)
        elif node.op_type == "MatMul" and second in axes and int8:
            if first not in done:
                done.add(first)
                yield from _rounded_tokens(onnx, first)
            yield from _product(onnx, node)
        else:
            for name in node.input:
                if name in axes and name not in done:
                    done.add(name)
                    parts = [f"{name}.int8", f"{name}.scale"]
                    yield onnx.helper.make_node("DequantizeLinear", parts, [name], axis=axes[name])
            yield node


def _lookup(onnx: Any, node: Any) -> Iterator[Any]:  # noqa: ANN401
    """Rows of a table, made fp32 after they are looked up: the table itself stays in 8 bits."""
    make, (table, ids), out = onnx.helper.make_node, node.input, node.output[0]
    yield make("Gather", [f"{table}.int8", ids], [f"{out}.int8"])
    yield make("Gather", [f"{table}.scale", ids], [f"{out}.scale"])
    yield _constant(onnx, f"{out}.last", np.array([-1]))
    yield make("Unsqueeze", [f"{out}.scale", f"{out}.last"], [f"{out}.scales"])
    yield make("Cast", [f"{out}.int8"], [f"{out}.float"], to=onnx.TensorProto.FLOAT)
    yield make("Mul", [f"{out}.float", f"{out}.scales"], [out])


def _rounded_tokens(onnx: Any, x: str) -> Iterator[Any]:  # noqa: ANN401
    """Activations (…, K) as tokens (M, K) in 8 bits, with a scale (M,) of each token's own."""
    make = onnx.helper.make_node
    yield _constant(onnx, f"{x}.axis", np.array([1]))
    yield _constant(onnx, f"{x}.step", np.float32(1 / _MOST))
    yield _constant(onnx, f"{x}.least", np.float32(1e-9))  # a token of zeros has no scale
    yield _constant(onnx, f"{x}.zero", np.array([_ZERO], np.uint8))
    yield make("Shape", [x], [f"{x}.leading"], end=-1)
    yield make("Flatten", [x], [f"{x}.tokens"], axis=-1)  # (M, K)
    yield make("Abs", [f"{x}.tokens"], [f"{x}.abs"])
    yield make("ReduceMax", [f"{x}.abs", f"{x}.axis"], [f"{x}.max"], keepdims=0)
    yield make("Mul", [f"{x}.max", f"{x}.step"], [f"{x}.steps"])
    yield make("Max", [f"{x}.steps", f"{x}.least"], [f"{x}.scale"])  # (M,)
    yield make("Shape", [f"{x}.scale"], [f"{x}.count"])
    yield make("Expand", [f"{x}.zero", f"{x}.count"], [f"{x}.zeros"])
    yield make("QuantizeLinear", [f"{x}.tokens", f"{x}.scale", f"{x}.zeros"], [f"{x}.int8"], axis=0)
    yield make("Unsqueeze", [f"{x}.scale", f"{x}.axis"], [f"{x}.scales"])  # (M, 1)


def _product(onnx: Any, node: Any) -> Iterator[Any]:  # noqa: ANN401
    """Tokens (M, K) times a matrix (K, N), exact in integers, then scaled by row and by column."""
    make, (x, w), out = onnx.helper.make_node, node.input, node.output[0]
    yield _constant(onnx, f"{out}.one", np.float32(1))
    yield _constant(onnx, f"{out}.zero", np.uint8(_ZERO))
    yield _constant(onnx, f"{out}.last", np.array([-1]))
    parts = [f"{x}.int8", f"{w}.int8", f"{out}.one", f"{w}.scale", f"{out}.zero"]
    yield make("MatMulIntegerToFloat", parts, [f"{out}.columns"], domain="com.microsoft")
    yield make("Mul", [f"{out}.columns", f"{x}.scales"], [f"{out}.tokens"])  # (M, N)
    yield make("Concat", [f"{x}.leading", f"{out}.last"], [f"{out}.shape"], axis=0)
    yield make("Reshape", [f"{out}.tokens", f"{out}.shape"], [out])


def _constant(onnx: Any, name: str, value: Any) -> Any:  # noqa: ANN401
    tensor = onnx.numpy_helper.from_array(np.asarray(value), name)
    return onnx.helper.make_node("Constant", [], [name], value=tensor)


def _replace(field: Any, items: Iterable[Any]) -> None:  # noqa: ANN401
    """Put other items into a repeated field of a protocol buffer."""
    items = list(items)
    del field[:]
    field.extend(items)
