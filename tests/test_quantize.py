"""int8: each number within half a step, sums that fit in 16 bits, and scores of their own pair alone."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from bounds import FP32, INT8
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from texts import batch_logits, mixed_pairs

from rerank_nli import OnnxEngine
from rerank_nli.export import export
from rerank_nli.onnx_engine import BUNDLED
from rerank_nli.quantize import _rounded, quantize_by_batch, quantize_by_calibration, store_int8
from rerank_nli.scores import probabilities

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rerank_nli.scores import FloatArray

GRAPHS = ("model.onnx", "model_int8.onnx")
DATA = "model.onnx_data"
# Numbers of fp32 in all sizes that weights and activations may have, but none that only a rounding error could be.
NUMBERS = st.floats(-(2.0**20), 2.0**20, width=32, allow_subnormal=False).map(lambda x: 0.0 if abs(x) < 1e-20 else x)
MATRICES = hnp.arrays(np.float32, st.tuples(st.integers(2, 7), st.integers(1, 5)), elements=NUMBERS)


@pytest.fixture(params=["bundled", "exported"])
def bundle(request: pytest.FixtureRequest) -> Path:
    """The bundled model's folder, and the test checkpoint's in int8."""
    return BUNDLED if request.param == "bundled" else request.getfixturevalue("int8")


# Weights


def _pair_sums(rounded: Any) -> Any:
    """Least and most that two neighbouring products with activations of 0..255 add up to, in each column."""
    rows = np.concatenate([rounded, np.zeros_like(rounded[: len(rounded) % 2])]).astype(np.int64)
    first, second = rows[::2], rows[1::2]  # (K/2, N)
    most = 255 * (np.maximum(first, 0) + np.maximum(second, 0))
    least = 255 * (np.minimum(first, 0) + np.minimum(second, 0))
    return np.stack([least, most])


def _multiplied(folder: Path) -> list[Any]:
    """The matrices (K, N) of int8 that the int8 graph multiplies by."""
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(str(folder / "model_int8.onnx")).graph
    names = sorted({node.input[1] for node in graph.node if node.op_type == "MatMulIntegerToFloat"})
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    return [onnx.numpy_helper.to_array(tensors[name]) for name in names]


def test_no_neighbours_overflow(bundle: Path) -> None:
    """In every column of every multiplied matrix two neighbouring products fit in 16 bits, whatever the activations."""
    matrices = _multiplied(bundle)
    assert len(matrices) == (36 if bundle == BUNDLED else 12)  # six for each layer
    for matrix in matrices:
        assert matrix.dtype == np.int8
        assert _pair_sums(matrix).min() >= -(2**15)
        assert _pair_sums(matrix).max() < 2**15


def test_the_runtime_multiplies_exactly(bundle: Path) -> None:
    """The runtime's products are those of integers where activations are 255 for each weight above 0 of a column."""
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    make, kinds = onnx.helper, onnx.TensorProto
    for matrix in _multiplied(bundle):
        columns = np.argsort(_pair_sums(matrix)[1].max(axis=0))[-8:]  # those with the largest sums
        activations = np.where(matrix.T[columns] > 0, 255, 0).astype(np.uint8)  # (8, K)
        constants = {"w": matrix, "one": np.float32(1), "zero": np.uint8(128)}
        graph = make.make_graph(
            [make.make_node("MatMulIntegerToFloat", ["a", "w", "one", "one", "zero"], ["y"], domain="com.microsoft")],
            "product",
            [make.make_tensor_value_info("a", kinds.UINT8, ["m", len(matrix)])],
            [make.make_tensor_value_info("y", kinds.FLOAT, ["m", matrix.shape[1]])],
            [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        )
        opsets = [make.make_opsetid("", 20), make.make_opsetid("com.microsoft", 1)]
        model = make.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        expected = (activations.astype(np.int64) - 128) @ matrix.astype(np.int64)
        assert session.run(None, {"a": activations})[0] == pytest.approx(expected, rel=1e-6, abs=1e-6)


def _column(*values: float) -> list[int]:
    return _rounded(np.array([values], dtype=np.float32).T, 1)[0].ravel().tolist()


def test_a_single_row() -> None:
    """A matrix of one row, which has no neighbour, uses all 127 steps."""
    assert _column(0.5) == [127]


def test_neighbours_share_the_room() -> None:
    """Two equal neighbours get 64 of 127 steps each, two opposite ones and those of other pairs all 127."""
    assert _column(1, 1) == [64, 64]  # 255 · (64 + 64) = 32,640 < 2^15, and 63.5 rounds to even
    assert _column(1, -1) == [127, -127]  # products of either sign take from each other
    assert _column(1, 0, 0, 1) == [127, 0, 0, 127]
    assert _column(0, 1, 1) == [0, 127, 127]  # an odd number of rows: the last one has no neighbour
    assert _column(1, 1, 1) == [64, 64, 64]


@given(values=MATRICES, axis=st.sampled_from([0, 1]))
def test_rounding_is_within_half_a_step(values: FloatArray, axis: int) -> None:
    """Any matrix is rounded to within half a step of the scale of its row or column, and zeros stay zeros."""
    before = values.copy()
    rounded, scale = _rounded(values, axis)
    assert rounded.dtype == np.int8
    assert (rounded.shape, scale.shape) == (values.shape, (values.shape[axis],))
    step = np.expand_dims(scale, 1 - axis).astype(np.float64)
    assert (np.abs(rounded * step - values) <= step / 2 * 1.001).all()  # a thousandth for the division in fp32
    assert (rounded[values == 0] == 0).all()
    assert (scale > 0).all()
    assert (values == before).all()


@given(values=MATRICES)
def test_any_column_fits_and_is_used(values: FloatArray) -> None:
    """In any matrix neighbours fit in 16 bits, and each column that is not zero uses at least 126 of 127 steps."""
    rounded, _ = _rounded(values, 1)
    least, most = _pair_sums(rounded)
    assert least.min() >= -(2**15)
    assert most.max() < 2**15
    used = np.maximum(most, -least).max(axis=0)  # (N,)
    assert (used[np.abs(values).max(axis=0) > 0] >= 255 * 126).all()


@given(values=MATRICES)
def test_any_row_is_used(values: FloatArray) -> None:
    """Rows that are looked up, which nothing is added to, use all 127 steps, or none where they are zero."""
    largest = np.abs(_rounded(values, 0)[0].astype(int)).max(axis=1)
    assert (largest == np.where(np.abs(values).max(axis=1) > 0, 127, 0)).all()


# Files


def _stretches(path: Path) -> dict[str, tuple[str, int, int]]:
    """Where in which file each tensor of a graph lies that is not in the graph itself: start and end."""
    onnx = pytest.importorskip("onnx")
    found = {}
    for tensor in onnx.load(str(path), load_external_data=False).graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if entries:
            start = int(entries["offset"])
            found[tensor.name] = (entries["location"], start, start + int(entries["length"]))
    return found


def test_both_graphs_share_one_file(bundle: Path) -> None:
    """Both graphs name the same stretches of one file, which they fill without gap or overlap."""
    fp32, int8 = (_stretches(bundle / name) for name in GRAPHS)
    assert fp32 == int8
    assert {location for location, _, _ in fp32.values()} == {DATA}
    edges = sorted((start, end) for _, start, end in fp32.values())
    assert [start for start, _ in edges] == [0, *(end for _, end in edges[:-1])]
    assert edges[-1][1] == (bundle / DATA).stat().st_size


def test_no_weight_is_stored_twice(bundle: Path) -> None:
    """No two stretches of the data file hold the same bytes, and graphs hold no tensor of their own as large."""
    onnx = pytest.importorskip("onnx")
    content = (bundle / DATA).read_bytes()
    stretches = _stretches(bundle / "model.onnx").values()
    assert len({hashlib.sha256(content[start:end]).digest() for _, start, end in stretches}) == len(stretches)
    for name in GRAPHS:
        graph = onnx.load(str(bundle / name), load_external_data=False).graph
        assert max(len(tensor.raw_data) for tensor in graph.initializer) < 4096


# Products of a graph made by hand


class Product:
    """One matrix (65, 64), an odd number of rows, behind inputs (batch, length, 65)."""

    def __init__(self, folder: Path) -> None:
        onnx = pytest.importorskip("onnx")
        make = onnx.helper
        self.weights = np.random.default_rng(0).normal(size=(65, 64)).astype(np.float32)
        graph = make.make_graph(
            [make.make_node("MatMul", ["x", "w"], ["y"])],
            "product",
            [make.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", "length", 65])],
            [make.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", "length", 64])],
            [onnx.numpy_helper.from_array(self.weights, "w")],
        )
        model = make.make_model(graph, opset_imports=[make.make_opsetid("", 20)], ir_version=9)
        onnx.save(model, str(folder / "model.onnx"))
        store_int8(folder)
        rounded, scale = _rounded(self.weights, 1)
        self.stored = rounded * scale.astype(np.float64)
        self._sessions = {name: self._open(folder / name) for name in GRAPHS}

    @staticmethod
    def _open(path: Path) -> Any:
        onnxruntime = pytest.importorskip("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.disable_quant_qdq", "1")  # as the engine: fp32 is to be fp32
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def __call__(self, x: FloatArray, name: str = "model_int8.onnx") -> FloatArray:
        """The products (batch, length, 64)."""
        return self._sessions[name].run(None, {"x": x})[0]


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Product:
    """The product, stored in int8."""
    return Product(tmp_path_factory.mktemp("product"))


TOKENS = hnp.arrays(np.float32, (2, 3, 65), elements=NUMBERS)


@given(x=TOKENS)
def test_a_product_is_within_half_a_step_of_its_token(product: Product, x: FloatArray) -> None:
    """Each number of a product is off by at most what half a step of each activation times its weight adds up to."""
    expected = x.astype(np.float64) @ product.stored
    step = np.maximum(np.abs(x).max(axis=-1, keepdims=True) / 127, 1e-9).astype(np.float64)  # (2, 3, 1)
    most = step / 2 * np.abs(product.stored).sum(axis=0) * 1.001  # (2, 3, 64)
    assert (np.abs(product(x) - expected) <= most).all()
    exact = product(x, "model.onnx")
    assert (np.abs(exact - expected) <= most / 100).all()  # fp32: only its own last bits


def test_a_token_of_zeros(product: Product) -> None:
    """A token of zeros has products of zero, and leaves those of its neighbours as they are."""
    x = np.random.default_rng(1).normal(size=(2, 3, 65)).astype(np.float32)
    expected = product(x)
    x[0, 1] = 0
    expected[0, 1] = 0
    assert (product(x) == expected).all()
    assert (product(np.zeros((1, 2, 65), np.float32)) == 0).all()


@given(x=TOKENS, at=st.integers(0, 5))
def test_a_token_has_a_scale_of_its_own(product: Product, x: FloatArray, at: int) -> None:
    """A token's products are the same alone as beside any others."""
    token = x.reshape(6, 1, 65)[at : at + 1]
    assert product(token).ravel() == pytest.approx(product(x).reshape(6, 64)[at], rel=1e-6, abs=1e-30)


# Scores


def _differences(engine: OnnxEngine, one: FloatArray, other: FloatArray) -> FloatArray:
    """Of the probabilities of each pair, the largest."""
    first, second = (probabilities(rows, engine.labels, engine.temperature) for rows in (one, other))
    return np.abs(first - second).max(axis=1)


def _in_batches(engine: OnnxEngine) -> FloatArray:
    """Logits of the mixed pairs in batches of 50, each with long and short ones."""
    pairs, order = mixed_pairs(), np.random.default_rng(0).permutation(300)
    rows = np.concatenate([batch_logits(engine, [pairs[i] for i in part]) for part in np.split(order, 6)])
    return rows[np.argsort(order)]


@pytest.fixture(scope="module")
def together() -> FloatArray:
    """The bundled model's int8 logits of the mixed pairs in batches."""
    return _in_batches(OnnxEngine(dtype="int8"))


def test_int8_scores_do_not_depend_on_neighbours(together: FloatArray) -> None:
    """300 pairs of mixed lengths have the bundled int8 model's probabilities alone as among others."""
    engine = OnnxEngine(dtype="int8")
    alone = np.concatenate([batch_logits(engine, [pair]) for pair in mixed_pairs()])
    assert INT8.holds(_differences(engine, alone, together).tolist())


def test_int8_probabilities_are_near_fp32(together: FloatArray) -> None:
    """The bundled model's int8 probabilities of 300 pairs lie within 0.12 of fp32's, on average within 0.02."""
    engine = OnnxEngine(dtype="fp32")
    exact = _in_batches(engine)
    differences = _differences(engine, together, exact)
    assert differences.max() < 0.12  # measured: 0.061
    assert differences.mean() < 0.02  # measured: 0.010
    assert (together.argmax(axis=1) == exact.argmax(axis=1)).mean() > 0.95  # measured: 0.983
    assert differences.max() > FP32.most  # they are not the same form


HEADS = [
    ("BertForSequenceClassification", ["not_entailment", "entailment"], (1, None, None)),
    ("RobertaForSequenceClassification", ["entailment", "neutral", "contradiction"], (0, 1, 2)),
]


@pytest.mark.parametrize(("architecture", "labels", "columns"), HEADS)
def test_other_heads_have_an_int8_form(
    make_checkpoint: Callable[..., Path],
    tmp_path: Path,
    architecture: str,
    labels: list[str],
    columns: tuple[int | None, ...],
) -> None:
    """A two-label BERT and a RoBERTa are exported with an int8 form near its fp32 form, each pair on its own."""
    pytest.importorskip("onnxscript")
    export(make_checkpoint(architecture, id2label=dict(enumerate(labels))), tmp_path / "out")
    int8, fp32 = (OnnxEngine(tmp_path / "out", dtype=dtype) for dtype in ("int8", "fp32"))
    assert int8.labels.columns == columns
    pairs = [(premise[: 20 + 8 * i], hypothesis[:24]) for i, (premise, hypothesis) in enumerate(mixed_pairs()[:9])]
    rows, exact = batch_logits(int8, pairs), batch_logits(fp32, pairs)
    assert rows.shape == (9, len(labels))
    assert np.ptp(exact, axis=0).min() > 0.5  # the pairs differ, so that the comparison says something
    # The tokenizer is trained anew in each run, and with it every logit is another: the mean is held, not the largest.
    assert np.abs(rows - exact).mean() <= 0.25
    assert (rows != exact).any()
    assert rows == pytest.approx(np.concatenate([batch_logits(int8, [pair]) for pair in pairs]), abs=0.02)


# The runtime's own forms


def _inputs(engine: OnnxEngine) -> list[dict[str, Any]]:
    """Of single pairs."""
    tokens = [engine.tokenize([text[:40] for text in pair]) for pair in mixed_pairs()[:20]]
    return [engine._template.arrays([(a, b)]) for a, b in tokens]


def _constants(path: Path) -> dict[str, Any]:
    onnx = pytest.importorskip("onnx")
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(str(path)).graph.initializer}


@pytest.mark.parametrize("form", ["by batch", "by calibration"])
def test_weights_beside_the_graph_or_in_it(exported: OnnxEngine, tmp_path: Path, form: str) -> None:
    """A graph over 2 GiB, whose weights stand beside it, is quantized to the same tensors as one that holds them."""
    onnx = pytest.importorskip("onnx")
    made = []
    for where in ("beside", "inside"):
        work = tmp_path / where
        work.mkdir()
        onnx.save(onnx.load(str(exported.file)), str(work / "model.onnx"), save_as_external_data=where == "beside")
        out = tmp_path / f"{where}.onnx"
        if form == "by batch":
            quantize_by_batch(work / "model.onnx", out)
        else:
            quantize_by_calibration(work / "model.onnx", out, _inputs(exported))
        made.append(_constants(out))
        assert out.with_name(f"{where}.onnx_data").is_file()
    assert set(made[0]) == set(made[1])
    assert all((made[0][name] == made[1][name]).all() for name in made[0])


def test_what_is_calibrated(exported: OnnxEngine, tmp_path: Path) -> None:
    """Matrices that widen or keep and tables come in 8 bits; those that narrow stay as they were, product and all."""
    onnx = pytest.importorskip("onnx")
    work = tmp_path / "work"
    work.mkdir()
    onnx.save(onnx.load(str(exported.file)), str(work / "model.onnx"))
    quantize_by_calibration(work / "model.onnx", tmp_path / "out.onnx", _inputs(exported))
    after = _constants(tmp_path / "out.onnx")
    shapes = {(array.shape, str(array.dtype)) for array in after.values() if array.ndim == 2 and array.size >= 4096}
    words = exported._tokenizer.get_vocab_size()
    # attention and the first of each feed-forward pair; its second; words, positions; the pooler is no MatMul
    assert shapes == {
        ((64, 64), "int8"),
        ((64, 128), "int8"),
        ((128, 64), "float32"),
        ((words, 64), "int8"),
        ((128, 64), "int8"),
        ((64, 64), "float32"),
    }
    weights = {name: array for name, array in after.items() if array.shape == (64, 128) and array.dtype == np.int8}
    assert all(np.abs(array.astype(int)).max() <= 64 for array in weights.values())  # 7 bits: sums of two fit
