"""One library in a process of its own, for speed.py: python speed_worker.py KIND FOLDER [--threads N] [--started TIME].

FOLDER holds the model in the form that the library reads. A line of JSON says when it is loaded, in seconds since the
process was started; then each line of stdin, a list of rankings {"query", "passages"}, is answered by a line with the
seconds of the scoring alone, the scores, and the largest resident set. What a library cannot do is answered as
{"error": its first line}. With --prepare OUT, FOLDER is a checkpoint, and what the library reads is made of it there.

Each library is imported where it is used: any virtual environment will do that has it and numpy.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import sys
import time
from functools import partial
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Rankings = Sequence[dict[str, Any]]
    Run = Callable[[Rankings], Any]  # is timed
    Read = Callable[[Any], dict[str, Any]]  # what there is to say of what it returned

BATCH = 32  # sentence-transformers' default; a pipeline of transformers has 1
SIDE, LEAST_SECONDS = 2048, 0.4  # of the matrices that are multiplied
FLASHRANK = ("ms-marco-TinyBERT-L-2-v2", "flashrank-TinyBERT-L-2-v2.onnx")  # it reads models under its own names alone


def pairs(rankings: Rankings) -> list[tuple[str, str]]:
    """(premise, hypothesis) of every passage."""
    return [(passage, ranking["query"]) for ranking in rankings for passage in ranking["passages"]]


def entailment(folder: Path) -> int:
    """The column that the checkpoint's config calls so."""
    names = json.loads((folder / "config.json").read_text(encoding="utf-8"))["id2label"]
    return next(int(i) for i, name in names.items() if name.lower().startswith("entail"))


class Timed:
    """An engine that adds up the seconds of its logits."""

    def __init__(self, engine: Any) -> None:  # noqa: ANN401 - this file is read without rerank_nli, too
        self.engine, self.seconds = engine, 0.0

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self.engine, name)

    def logits(self, batch: Any) -> Any:  # noqa: ANN401
        """What the engine returns."""
        started = time.perf_counter()
        rows = self.engine.logits(batch)
        self.seconds += time.perf_counter() - started
        return rows


def ours(folder: Path, threads: int | None, engine: str = "auto", dtype: str = "auto") -> tuple[Run, Read]:
    from rerank_nli import NLIReranker, load

    timed = Timed(load(folder, engine=engine, device="cpu", dtype=dtype, threads=threads))
    reranker = NLIReranker(timed, template=None, cache_size=0)

    def run(rankings: Rankings) -> Any:  # noqa: ANN401
        timed.seconds = 0.0
        return reranker.rank_many([r["query"] for r in rankings], [r["passages"] for r in rankings])

    def read(ranked: Any) -> dict[str, Any]:  # noqa: ANN401
        in_order = [p for ranking in ranked for p in sorted(ranking, key=attrgetter("index"))]
        chosen = f"{timed.name} {timed.precision}"
        return {"scores": [p.entailment for p in in_order], "engine s": timed.seconds, "engine": chosen}

    return run, read


def sentence_transformers(
    folder: Path, _: int | None, backend: str = "torch", form: str = "", **model_kwargs: str
) -> tuple[Run, Read]:
    """The CrossEncoder; `form` is a pattern of the graph's file name, where there are several."""
    from sentence_transformers import CrossEncoder

    if form:
        model_kwargs["file_name"] = str(next((folder / "onnx").glob(form)).relative_to(folder))
    model = CrossEncoder(str(folder), device="cpu", backend=backend, model_kwargs=model_kwargs)
    column = entailment(folder)
    return (
        lambda rankings: model.predict(pairs(rankings), apply_softmax=True, batch_size=BATCH),
        lambda rows: {"scores": [float(row[column]) for row in rows]},
    )


def transformers(folder: Path, _: int | None) -> tuple[Run, Read]:
    """The pipeline; it tells logits, so that every other peer can be held against them."""
    from transformers import pipeline

    classify = pipeline("text-classification", model=str(folder), device="cpu")
    names = json.loads((folder / "config.json").read_text(encoding="utf-8"))["id2label"].values()

    def run(rankings: Rankings) -> Any:  # noqa: ANN401
        texts = [{"text": a, "text_pair": b} for a, b in pairs(rankings)]
        return classify(texts, batch_size=BATCH, truncation=True, top_k=None, function_to_apply="none")

    def read(rows: Any) -> dict[str, Any]:  # noqa: ANN401
        by_name = [{output["label"]: output["score"] for output in row} for row in rows]
        return {"logits": [[row[name] for name in names] for row in by_name]}

    return run, read


def rerankers(folder: Path, _: int | None) -> tuple[Run, Read]:
    """Its score is the list of all logits, by the first of which it ranks; of a lone passage it is the first."""
    ranker = import_module("rerankers").Reranker(str(folder), model_type="cross-encoder", verbose=0)

    def read(ranked: Any) -> dict[str, Any]:  # noqa: ANN401
        results = [sorted(found.results, key=lambda result: result.document.doc_id) for found in ranked]
        scores = [result.score for found in results for result in found]
        return {"scores": [score[0] if isinstance(score, list) else score for score in scores]}

    return lambda rankings: [ranker.rank(r["query"], r["passages"]) for r in rankings], read


def flashrank(folder: Path, _: int | None) -> tuple[Run, Read]:
    library = import_module("flashrank")
    ranker = library.Ranker(model_name=FLASHRANK[0], cache_dir=str(folder))

    def run(rankings: Rankings) -> Any:  # noqa: ANN401
        asked = [(r["query"], [{"id": i, "text": text} for i, text in enumerate(r["passages"])]) for r in rankings]
        return [ranker.rerank(library.RerankRequest(query=query, passages=passages)) for query, passages in asked]

    def read(ranked: Any) -> dict[str, Any]:  # noqa: ANN401
        return {"scores": [float(p["score"]) for found in ranked for p in sorted(found, key=lambda p: p["id"])]}

    return run, read


def fastembed(folder: Path, threads: int | None) -> tuple[Run, Read]:
    encoder = import_module("fastembed.rerank.cross_encoder").TextCrossEncoder
    source = import_module("fastembed.common.model_description").ModelSource
    encoder.add_custom_model(model="local/model", sources=source(hf="local/model"), model_file="onnx/model.onnx")
    model = encoder("local/model", specific_model_path=str(folder), threads=threads)
    return (
        lambda rankings: [list(model.rerank(r["query"], r["passages"])) for r in rankings],
        lambda found: {"scores": [float(score) for scores in found for score in scores]},
    )


def matrix_products(_: Path, __: int | None) -> tuple[Run, Read]:
    """Operations a second in large products, in fp32 and where the processor has it in bf16, which else takes ages."""
    import torch

    def rate(dtype: torch.dtype) -> float:
        a, b = (torch.randn(SIDE, SIDE).to(dtype) for _ in range(2))
        torch.matmul(a, b)
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < LEAST_SECONDS:
            torch.matmul(a, b)
            count += 1
        return count * 2 * SIDE**3 / (time.perf_counter() - started)

    names = ["float32", *(["bfloat16"] if has_bf16() else [])]
    return lambda _: {name: rate(getattr(torch, name)) for name in names}, dict


KINDS: dict[str, Callable[[Path, int | None], tuple[Run, Read]]] = {
    "ours": ours,
    "ours fp32": partial(ours, engine="onnx", dtype="fp32"),
    "ours openvino": partial(ours, engine="openvino", dtype="fp32"),
    "ours openvino bf16": partial(ours, engine="openvino", dtype="bf16"),
    "ours torch": partial(ours, engine="torch", dtype="fp32"),
    "ours torch bf16": partial(ours, engine="torch", dtype="bf16"),
    "sentence-transformers": sentence_transformers,
    "sentence-transformers bf16": partial(sentence_transformers, dtype="bfloat16"),
    "sentence-transformers onnx": partial(sentence_transformers, backend="onnx", form="model.onnx"),
    "sentence-transformers onnx int8": partial(sentence_transformers, backend="onnx", form="model_q*int8_*.onnx"),
    "sentence-transformers openvino": partial(sentence_transformers, backend="openvino"),
    "transformers": transformers,
    "rerankers": rerankers,
    "flashrank": flashrank,
    "fastembed": fastembed,
    "matrix products": matrix_products,
}


def prepare(kind: str, folder: Path, out: Path) -> None:
    """Make what the library reads of a checkpoint, sentence-transformers' ONNX for the others, too."""
    if kind.startswith("ours"):
        from rerank_nli.export import export

        export(folder, out, form="fp32" if "fp32" in kind else "int8")
        return
    from sentence_transformers import CrossEncoder, export_dynamic_quantized_onnx_model

    backend: Any = kind.split()[1]
    model = CrossEncoder(str(folder), device="cpu", backend=backend)
    model.save_pretrained(str(out))
    if backend == "onnx":
        inner = out / FLASHRANK[0]
        inner.mkdir()
        for file in filter(Path.is_file, out.iterdir()):
            shutil.copyfile(file, inner / file.name)
        shutil.copyfile(out / "onnx/model.onnx", inner / FLASHRANK[1])
        export_dynamic_quantized_onnx_model(model, instruction_set(), str(out))


def flags() -> str:
    """What the processor can do, where Linux tells."""
    info = Path("/proc/cpuinfo")
    return info.read_text(encoding="utf-8") if info.is_file() else ""


def has_bf16() -> bool:
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags().split()))


def instruction_set() -> str:
    """The best that sentence-transformers has a form in int8 for."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "arm64"
    return next((name for name in ("avx512_vnni", "avx512") if name in flags()), "avx2")


def largest_resident_set() -> float:
    """In MB; getrusage would tell the parent's where that was larger."""
    status = Path("/proc/self/status")
    if status.is_file():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"))
        return round(int(found[1]) * 1024 / 1e6, 1) if found else 0.0
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def answer(run: Run, read: Read, rankings: Rankings) -> dict[str, Any]:
    started = time.perf_counter()
    found = run(rankings)
    seconds = time.perf_counter() - started
    return {"s": seconds, **read(found), "MB": largest_resident_set()}


def main() -> None:
    started = time.time()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, help="where the library can be told; else as many as it chooses")
    parser.add_argument("--started", type=float, default=started, help="Unix time at which the process was started")
    parser.add_argument("--prepare", type=Path, metavar="OUT")
    arguments = parser.parse_args()
    if arguments.threads:  # read when torch and its like are imported
        os.environ |= {f"{name}_NUM_THREADS": str(arguments.threads) for name in ("OMP", "MKL")}
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer

    def say(**fields: object) -> None:
        print(json.dumps(fields), file=answers, flush=True)

    try:
        if arguments.prepare:
            prepare(arguments.kind, arguments.folder, arguments.prepare)
            return
        run, read = KINDS[arguments.kind](arguments.folder, arguments.threads)
        say(ready=time.time() - arguments.started)
        for line in sys.stdin:
            say(**answer(run, read, json.loads(line)))
    except Exception as error:
        say(error=first_line(error))
        raise


if __name__ == "__main__":
    main()
