"""Are five architectures' logits at true shape those of transformers? Run: python benchmarks/checkpoints.py.

Each checkpoint is made of its published configuration with random weights, in the files that it has on the Hub, and
scores 200 pairs of 5 to 500 tokens, put together from the demo corpus: in PyTorch and in ONNX Runtime by rerank_nli,
and by transformers, in batches and one by one (some of them: --single-tokens). The tokenizers are trained on the
corpus; --spm is DeBERTa-v3's own spm.model. --only takes some of the five and keeps the others' results.
Needs 14 GB of memory and 8 GB of disk. Random weights enlarge what rounding does: of int8 it shows that the graphs run.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from quantization import processor

from rerank_nli import OnnxEngine, load
from rerank_nli.batches import in_batches
from rerank_nli.demo import CORPUS, QUERIES, read_corpus
from rerank_nli.quantize import DATA, store_int8

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from architectures import ARCHITECTURES, Architecture, build

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from rerank_nli import Engine

    Array = NDArray[Any]
    Texts = Sequence[tuple[str, str]]

RESULT = Path(__file__).parent / "results" / "checkpoints.json"
PAIRS, SHORTEST, LONGEST, HYPOTHESIS = 200, 5, 500, 40  # tokens of a pair; most of a hypothesis
BATCH_TOKENS = 4096
VOCAB = 4000
LIMITS = {"torch": 1e-4, "onnx": 1e-3}
LEAST_SPREAD = 0.5


def compose(engine: Engine) -> Texts:
    """Pairs of 5 to 500 tokens, half of them under 16 and one in five over 95."""
    rng = np.random.default_rng(0)
    passages = [passage.text for passage in read_corpus(CORPUS)]
    claims = [json.loads(line)["query"] for line in QUERIES.read_text(encoding="utf-8").splitlines()]
    pairs = []
    lengths = SHORTEST * (LONGEST / SHORTEST) ** (np.linspace(0, 1, PAIRS) ** 2)
    for length in lengths.round().astype(int):
        room = max(2, length - engine.special)
        hypothesis = cut(engine, str(rng.choice(claims)), min(HYPOTHESIS, max(1, room // 3)))
        left = max(1, room - len(engine.tokenize([hypothesis])[0]))
        pairs.append((cut(engine, " ".join(rng.permutation(passages)[:20]), left), hypothesis))
    return [pairs[i] for i in rng.permutation(PAIRS)]


def cut(engine: Engine, text: str, tokens: int) -> str:
    spans = engine.tokenize([text])[0].spans
    return text[: spans[min(tokens, len(spans)) - 1][1]].strip()


def some(lengths: Array, tokens: int) -> Array:
    """Every k-th pair by length, k as small as the budget allows."""
    order = np.argsort(lengths, kind="stable")
    return next(order[k // 2 :: k] for k in range(1, PAIRS) if lengths[order[k // 2 :: k]].sum() <= tokens)


def of_engine(engine: Engine, pairs: Texts, batch_tokens: int) -> Array:
    tokens = [(a, b) for a, b in zip(*(engine.tokenize(side) for side in zip(*pairs, strict=True)), strict=True)]
    return in_batches(tokens, engine.logits, batch_tokens, engine.special)


def of_transformers(folder: Path) -> Callable[[Texts, int], Array]:
    """The reference: its own tokenizer on the texts, its own padding."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()

    def logits(pairs: Texts, batch_tokens: int) -> Array:
        lengths = np.array([len(ids) for ids in tokenizer(*map(list, zip(*pairs, strict=True)))["input_ids"]])
        order = np.argsort(lengths, kind="stable")[::-1]
        out = np.empty((len(pairs), model.config.num_labels), np.float32)
        start = 0
        while start < len(pairs):
            rows = order[start : start + max(1, batch_tokens // lengths[order[start]])]
            batch = tokenizer(
                [pairs[i][0] for i in rows], [pairs[i][1] for i in rows], padding=True, return_tensors="pt"
            )
            with torch.inference_mode():
                out[rows] = model(**batch).logits.numpy()
            start += len(rows)
        return out

    return logits


def timed(logits: Callable[[Texts, int], Array], pairs: Texts, alone: Array) -> tuple[dict[str, Array], dict[str, Any]]:
    """Logits in batches, and of some pairs one by one; seconds of both."""
    start = time.perf_counter()
    batched = logits(pairs, BATCH_TOKENS)
    between = time.perf_counter()
    single = logits([pairs[i] for i in alone], 1)
    seconds = {"batched s": round(between - start, 1), "single s": round(time.perf_counter() - between, 1)}
    return {"batched": batched, "single": single}, seconds


def measure(architecture: Architecture, folder: Path, spm: Path | None, single_tokens: int) -> dict[str, Any]:
    passages = [passage.text for passage in read_corpus(CORPUS)]
    build(architecture, folder, passages, small=False, vocab_size=VOCAB, spm=spm)
    torch_engine = load(folder, engine="torch", device="cpu", labels=architecture.labels)
    pairs = compose(torch_engine)
    lengths = np.array([sum(map(len, torch_engine.tokenize(pair))) + torch_engine.special for pair in pairs])
    alone = some(lengths, single_tokens)
    row: dict[str, Any] = {
        "labels": list(torch_engine.labels.names),
        "tokens": {"shortest": int(lengths.min()), "longest": int(lengths.max()), "sum": int(lengths.sum())},
        "pairs": {"batched": len(pairs), "single": len(alone), "single tokens": int(lengths[alone].sum())},
    }
    reference, row["transformers"] = timed(of_transformers(folder), pairs, alone)
    row["standard deviation"] = [round(float(x), 2) for x in reference["batched"].std(axis=0)]
    gc.collect()
    own, row["torch"] = timed(partial(of_engine, torch_engine), pairs, alone)
    row["torch"] |= differences(own, reference, alone)
    del torch_engine
    gc.collect()
    start = time.perf_counter()
    engine = load(folder, engine="onnx", labels=architecture.labels)
    assert isinstance(engine, OnnxEngine)  # noqa: S101 - it is what was asked for
    seconds = round(time.perf_counter() - start, 1)
    own, row["onnx"] = timed(partial(of_engine, engine), pairs, alone)
    row["onnx"] |= {**differences(own, reference, alone), "export s": seconds, **sizes(engine.file.parent)}
    row["int8"] = int8(engine, pairs, alone, reference["single"], architecture.labels)
    return row


def differences(own: dict[str, Array], reference: dict[str, Array], alone: Array) -> dict[str, float]:
    """Largest ones: batch against batch, one against one, and a batch against the same pairs one by one."""
    found = {name: own[name] - reference[name] for name in own}
    found["batched from single"] = own["batched"][alone] - reference["single"]
    return {name: float(f"{np.abs(apart).max():.1e}") for name, apart in found.items()}


def sizes(folder: Path) -> dict[str, float]:
    return {f"{file.name} MB": round(file.stat().st_size / 1e6, 1) for file in sorted(folder.glob("*.onnx*"))}


def int8(
    engine: OnnxEngine, pairs: Texts, alone: Array, reference: Array, labels: Sequence[str] | None
) -> dict[str, Any]:
    """Both int8 forms: the correlation of their logits with the reference's."""
    folder = engine.file.parent / "int8"
    folder.mkdir()
    for name in ("model.onnx", DATA, "tokenizer.json"):
        if (engine.file.parent / name).is_file():
            shutil.move(engine.file.parent / name, folder / name)
    names = list(labels or engine.labels.names)
    del engine
    store_int8(folder)
    row: dict[str, Any] = {}
    for name in ("model.onnx", "model_int8.onnx"):
        own = of_engine(OnnxEngine(folder / name, names), [pairs[i] for i in alone], BATCH_TOKENS)
        each = [np.corrcoef(own[:, i], reference[:, i])[0, 1] for i in range(len(names))]
        row[f"{name} correlation"] = round(float(min(each)), 4)
    return row | sizes(folder)


def check(name: str, row: dict[str, Any]) -> None:
    for engine, limit in LIMITS.items():
        for how in ("batched", "single", "batched from single"):
            if not row[engine][how] <= limit:
                message = f"{name}: {engine}, {how}: {row[engine][how]} from transformers, over {limit}"
                raise SystemExit(message)
    if min(row["standard deviation"]) < LEAST_SPREAD:
        message = f"{name}: logits of {row['standard deviation']} spread less than {LEAST_SPREAD}"
        raise SystemExit(message)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spm", type=Path, help="DeBERTa-v3's SentencePiece model")
    parser.add_argument("--single-tokens", type=int, default=2500, help="of the pairs that are scored one by one")
    parser.add_argument("--only", nargs="+", choices=[a.short for a in ARCHITECTURES], metavar="NAME")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # the exporter reports each step
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    result = json.loads(RESULT.read_text(encoding="utf-8")) if arguments.only and RESULT.is_file() else {}
    found = result.get("checkpoints", {})
    for architecture in ARCHITECTURES:
        if arguments.only and architecture.short not in arguments.only:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            os.environ["RERANK_NLI_CACHE"] = str(Path(scratch) / "cache")
            folder = Path(scratch) / architecture.short
            folder.mkdir()
            row = measure(architecture, folder, arguments.spm, arguments.single_tokens)
        found[architecture.name] = row
        print(architecture.name, json.dumps(row), flush=True)
        check(architecture.name, row)
    written = {
        "spm": bool(arguments.spm),
        "processor": processor(),
        "versions": {name: version(name) for name in ("torch", "transformers", "onnxruntime", "numpy")},
        "checkpoints": {a.name: found[a.name] for a in ARCHITECTURES if a.name in found},
    }
    RESULT.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(table(found))


def table(found: dict[str, dict[str, Any]]) -> str:
    lines = ["| checkpoint | std of logits | torch | ONNX | model.onnx MB |", "|---|---|---|---|---|"]
    for name, row in found.items():
        own, onnx = (max(row[engine][how] for how in ("batched", "single")) for engine in ("torch", "onnx"))
        size = sum(value for key, value in row["onnx"].items() if key.endswith("MB"))
        lines.append(f"| {name} | {min(row['standard deviation'])} | {own:.1e} | {onnx:.1e} | {size:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
