"""Which form of the weights is small, fast and true? Run: python benchmarks/quantization.py CHECKPOINT --data DIR.

CHECKPOINT is a Hugging Face folder; every form is made of it here. The forms that ship are measured on whole dev sets,
and all of them on the first --rows of mnli_dev_matched. Accuracy, in %, is of three labels, of P(entailment) > ½ where
there are two, and of entailment against contradiction where no pair is neutral. Batch: the difference in probability
between a pair alone and among its neighbours. Speed: 32 pairs of 128 tokens, the forms by turns, medians. Needs
openvino; DIR holds nli/{mnli_dev_matched,snli_dev,qnli_dev,fever_symmetric_dev,healthver_dev}.jsonl.gz.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import openvino
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from reading import rows

from rerank_nli import OnnxEngine
from rerank_nli.batches import PairTemplate, in_batches
from rerank_nli.checkpoints import read_json, read_tokenizer
from rerank_nli.export import export
from rerank_nli.labels import COLUMNS, Labels
from rerank_nli.scores import probabilities

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from rerank_nli.windows import Tokens

    Array = NDArray[Any]
    Pairs = Sequence[tuple[Tokens, Tokens]]
    Runtime = Callable[[Mapping[str, Array]], Array]

RESULT = Path(__file__).parent / "results" / "quantization.json"
SETS = ("mnli_dev_matched", "snli_dev", "qnli_dev", "fever_symmetric_dev", "healthver_dev")
ALONE_ROWS = 500
BATCH, LENGTH, ROUNDS = 32, 128, 9
SHIPPED = ("fp32", "int8 weights, fp32 compute", "int8 weights, int8 compute by token")


def make_forms(checkpoint: Path, folder: Path) -> dict[str, Path]:
    """Every form as an ONNX file, by name; the forms of a bundle in a folder of their own."""
    export(checkpoint, folder / "fp32", form="fp32")
    export(checkpoint, folder / "bundle")
    fp32 = folder / "fp32" / "model.onnx"
    paths = {
        "fp32": fp32,
        "int8 weights, fp32 compute": folder / "bundle" / "model.onnx",
        "int8 weights, int8 compute by token": folder / "bundle" / "model_int8.onnx",
    }
    graph = onnx.load(str(fp32))
    del graph.graph.value_info[:]  # the quantizers infer their own
    plain = folder / "plain.onnx"
    onnx.save(graph, str(plain))
    name = "dynamic int8, by channel"
    paths[name] = folder / "dynamic.onnx"
    quantize_dynamic(plain, paths[name], per_channel=True, weight_type=QuantType.QInt8)
    for level in (0, 4):
        quantizer = MatMulNBitsQuantizer(
            onnx.load(str(plain)), bits=8, block_size=128, is_symmetric=True, accuracy_level=level
        )
        quantizer.process()
        name = f"MatMulNBits 8 bit, block 128, {'int8' if level else 'fp32'} compute"
        paths[name] = folder / f"nbits{level}.onnx"
        quantizer.model.save_model_to_file(str(paths[name]))
    return paths


def onnx_runtime(path: Path, *, own: bool) -> Runtime:
    """A session with default settings, or with those of rerank_nli's own engine."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if own:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda arrays: session.run(None, dict(arrays))[0]


def open_vino(path: Path) -> Runtime | None:
    """The CPU plugin with default settings (bf16 where the processor has it), or None where it cannot run the graph."""
    core = openvino.Core()
    ones = np.ones((2, 8), np.int64)
    try:
        compiled = core.compile_model(core.read_model(str(path)), "CPU")
        compiled({"input_ids": ones, "attention_mask": ones, "token_type_ids": 0 * ones})
    except RuntimeError:
        return None
    return lambda arrays: compiled(dict(arrays))[0]


def size(path: Path) -> float:
    """MB of what a user of this graph needs beside the tokenizer."""
    data = path.with_name("model.onnx_data")
    return round((path.stat().st_size + (data.stat().st_size if data.is_file() else 0)) / 1e6, 1)


def read(data: Path, engine: OnnxEngine, name: str) -> tuple[Pairs, Array]:
    """Tokenized pairs and their columns; "not_entailment" is a column after the three."""
    columns = {label: column for column, label in enumerate((*COLUMNS, "not_entailment"))}
    found = rows(data / f"nli/{name}.jsonl.gz")
    sides = [engine.tokenize([row[side] for row in found]) for side in ("premise", "hypothesis")]
    return list(zip(*sides, strict=True)), np.array([columns[row["label"]] for row in found])


def measure(checkpoint: Path, data: Path, count: int) -> dict[str, dict[str, Any]]:
    config = read_json(checkpoint / "config.json")
    tokenizer, pad_id = read_tokenizer(checkpoint, config)
    template = PairTemplate(tokenizer, pad_id, config["max_position_embeddings"])
    labels = Labels.resolve(config["id2label"], None)

    def predicted(run: Runtime, pairs: Pairs, batch_tokens: int = 4096) -> Array:
        logits = in_batches(pairs, lambda batch: run(template.arrays(batch)), batch_tokens, template.special)
        return probabilities(logits, labels)

    def judged(run: Runtime, name: str) -> dict[str, Any]:
        pairs, truth = first
        row: dict[str, Any] = {"accuracy": accuracy(predicted(run, pairs), truth)}
        if name in SHIPPED:
            for dev, (pairs, truth) in sets.items():
                p = predicted(run, pairs)
                apart = np.abs(p - exact.setdefault(dev, p)).mean()
                row[dev] = {"accuracy": accuracy(p, truth), "mean difference": round(float(apart), 4)}
        some = first[0][:ALONE_ROWS]
        apart = np.abs(predicted(run, some) - predicted(run, some, batch_tokens=1)).max(axis=1)
        row["batch, 99.9th percentile"] = float(f"{np.quantile(apart, 0.999):.1e}")
        row["batch, maximum"] = float(f"{apart.max():.1e}")
        return row

    with tempfile.TemporaryDirectory() as scratch:
        paths = make_forms(checkpoint, Path(scratch))
        engine = OnnxEngine(paths["fp32"].parent)
        sets = {name: read(data, engine, name) for name in SETS}
        first = sets[SETS[0]][0][:count], sets[SETS[0]][1][:count]
        runs = {name: onnx_runtime(path, own=name in SHIPPED) for name, path in paths.items()}
        others = {name: run for name, path in paths.items() if (run := open_vino(path)) is not None}
        exact: dict[str, Array] = {}
        result: dict[str, dict[str, Any]] = {}
        for name, run in runs.items():
            result[name] = row = {"MB": size(paths[name]), **judged(run, name)}
            if name in others:
                row["accuracy, OpenVINO"] = accuracy(predicted(others[name], first[0]), first[1])
            print(name, json.dumps(row), flush=True)
        for runtime, timed in (("ONNX Runtime", runs), ("OpenVINO", others)):
            for name, rate in speeds(timed).items():
                result[name][f"{runtime} pairs/s"] = rate
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=2000, help="of mnli_dev_matched, for all forms")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # the quantizers report each node
    result = measure(arguments.checkpoint, arguments.data, arguments.rows)
    versions = {name: version(name) for name in ("onnxruntime", "openvino", "torch", "numpy")}
    written = {
        "rows": arguments.rows,
        "processor": processor(),
        "versions": versions | {"python": platform.python_version()},
        "forms": result,
    }
    RESULT.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(
        json.dumps({name: {k: v for k, v in row.items() if "pairs/s" in k} for name, row in result.items()}, indent=1)
    )


def accuracy(p: Array, truth: Array) -> float:
    entailed, labels = truth == 0, set(truth)
    if len(COLUMNS) in labels:
        right = (p[:, 0] > 0.5) == entailed  # noqa: PLR2004
    elif COLUMNS.index("neutral") in labels:
        right = p.argmax(axis=1) == truth
    else:
        right = (p[:, 0] > p[:, 2]) == entailed
    return round(100 * float(right.mean()), 2)


def speeds(runs: Mapping[str, Runtime]) -> dict[str, float]:
    rng = np.random.default_rng(0)
    arrays = {
        "input_ids": rng.integers(1000, 20_000, (BATCH, LENGTH)),
        "attention_mask": np.ones((BATCH, LENGTH), np.int64),
        "token_type_ids": np.zeros((BATCH, LENGTH), np.int64),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(ROUNDS + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run(arrays)
            if round_:  # the first warms up
                seconds[name].append(time.perf_counter() - start)
    return {name: round(BATCH / float(np.median(found)), 1) for name, found in seconds.items()}


def processor() -> str:
    """The processor's name, its cores, and what it has for matrix products."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.is_file() else ""
    name = next((line.partition(": ")[2] for line in text.splitlines() if line.startswith("model name")), "unknown")
    has = [
        flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16") if f" {flag}" in text
    ]
    return f"{name}, {text.count('processor')} cores, {' '.join(has)}"


if __name__ == "__main__":
    main()
