"""The commands about a model itself: export, doctor and models."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rerank_nli.checkpoints import read_json
from rerank_nli.cli_options import add_model, load_model, names, read_card
from rerank_nli.errors import MissingExtraError, RerankNLIError, require
from rerank_nli.export import FORMS
from rerank_nli.labels import Labels
from rerank_nli.languages import card_languages
from rerank_nli.loading import checkpoint, load
from rerank_nli.reranker import NLIReranker
from rerank_nli.throughput import throughput

if TYPE_CHECKING:
    import argparse

    from rerank_nli.engines import Engine

__all__ = ["add_doctor", "add_export", "add_models"]

_PROBES = (
    ("A cat sleeps.", "A cat sleeps.", "entailment"),
    ("A cat sleeps.", "No cat sleeps.", "contradiction"),
    ("A woman plays the guitar.", "A woman plays the guitar for her sister.", "neutral"),
)
_WHY = {  # of what auto takes
    ("onnx", "int8"): "int8 is the fastest that there is, without CUDA and bf16",
    ("onnx", "fp32"): "there is no graph in int8, no CUDA and no bf16",
    ("openvino", "bf16"): "the processor computes in bf16, where OpenVINO is the fastest",
    ("openvino", "fp32"): "there is nothing else",
    ("torch", "bf16"): "there is CUDA, or the processor computes in bf16",
    ("torch", "fp32"): "there is no ONNX file",
}
_MEASURED = (("onnx", "int8"), ("onnx", "fp32"), *((e, d) for e in ("openvino", "torch") for d in ("fp32", "bf16")))
_PACKAGES = (  # the package, what its core needs, what its extras bring
    *("rerank-nli", "numpy", "tokenizers", "onnxruntime", "huggingface-hub"),
    *("torch", "transformers", "sentence-transformers", "faiss-cpu", "model2vec", "rich"),
    *("onnx", "onnxscript", "openvino", "scikit-learn", "pandas"),
)


def add_export(command: argparse.ArgumentParser) -> None:
    """Options of `export`."""
    command.add_argument("model", help="a Hub id, a folder with config.json, weights and tokenizer, a bundle, or mini")
    command.add_argument("-o", "--out", type=Path, required=True, help="folder to make")
    command.add_argument("--form", choices=FORMS, default="int8", help="what is made; int8 if unsaid")
    command.add_argument("--labels", type=names, help="names of the outputs in order, a,b,c")
    command.add_argument(
        "--card", type=Path, help="JSON: name, version, base, data, training, scores, window, temperature, languages"
    )
    command.add_argument("--pairs", help="pairs to check with, labelled or not: .jsonl, .csv or .parquet")
    command.add_argument(
        "--tolerance",
        type=float,
        help="fp32 forms: most that a logit may differ by, 0.001 if unsaid; int8 forms: most that rank correlation and "
        "same decisions may fall short of 1, 0.05, or 0.1 where it is dynamic or static",
    )
    command.set_defaults(run=_export)


def add_doctor(command: argparse.ArgumentParser) -> None:
    """Options of `doctor`."""
    command.add_argument("model", nargs="?", help="a model to probe; the bundled one is what is measured without")
    command.add_argument("--measure", action="store_true", help="time every engine that can run the model")
    add_model(command, with_model=False)
    command.set_defaults(run=_doctor)


def add_models(command: argparse.ArgumentParser) -> None:
    """Options of `models`."""
    command.add_argument("--json", action="store_true")
    command.set_defaults(run=_models)


def _export(options: argparse.Namespace) -> int:
    from rerank_nli.agreement import export_checked
    from rerank_nli.pairs import read_pairs

    card = read_card(options.card)
    pairs = None
    if options.pairs:
        id2label = read_json(checkpoint(options.model) / "config.json").get("id2label")
        pairs = read_pairs(options.pairs, Labels.resolve(id2label, options.labels).names, unlabelled=True)
    started = time.perf_counter()
    manifest, found = export_checked(
        options.model,
        options.out,
        form=options.form,
        labels=options.labels,
        card=card,
        pairs=pairs,
        tolerance=options.tolerance,
    )
    minutes = (time.perf_counter() - started) / 60
    size = sum((options.out / name).stat().st_size for name in manifest.files) / 1e6
    labels = ", ".join(manifest.labels)
    print(f"{options.out}: {size:.1f} MB, {manifest.precision}, labels {labels}, made in {minutes:.1f} minutes")
    print(f"against the source: {found}")
    return 0


def _models(options: argparse.Namespace) -> int:
    from rerank_nli.catalogue import catalogue, is_here

    listed = [(model, is_here(model)) for model in catalogue()]
    if options.json:
        for model, here in listed:
            print(json.dumps({**model.to_dict(), "here": here}))
        return 0
    rows: list[tuple[str, ...]] = [("model", "labels", "layers × width", "MB", "languages", "licence", "here", "for")]
    for model, here in listed:
        initials = " ".join("-" if name.startswith("not") else name[0].lower() for name in model.labels) or "none"
        languages = f"{len(model.languages)} languages" if len(model.languages) > 1 else "".join(model.languages)
        cells = (model.id, initials, model.shape, f"{model.megabytes:,}", languages, model.licence, "yes" * here)
        rows.append((*(cell or "not stated" for cell in cells[:-1]), cells[-1], model.purpose))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print("\nlabels in the order of the outputs: e entailment, n neutral, c contradiction, - not_entailment")
    print("here: bundled, or in the Hub's cache; MB: of the weights; languages and licence: as the card says")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    print(f"Python {platform.python_version()}, {platform.platform()}, {os.cpu_count()} cores")
    for package in _PACKAGES:
        print(f"  {package} {_version(package)}")
    openvino = "openvino (CPU)" if importlib.util.find_spec("openvino") else "no openvino"
    print(f"engines: onnx (CPU), {openvino}, {_torch_status()}")
    bundled = load()
    print(f"auto takes {bundled.name} in {bundled.precision} for the bundled model: {_why(bundled)}")
    passed = options.model is None or _probe(options)
    if options.measure:
        options.model = options.model or "mini"
        _measure(options)
    return 0 if passed else 1


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "is not installed"


def _why(engine: Engine) -> str:
    return _WHY.get((engine.name, engine.precision), "as asked")


def _torch_status() -> str:
    try:
        torch = require("torch", "torch")
        require("transformers", "torch")
    except MissingExtraError as error:
        return f"no torch ({error})"
    return f"torch ({'CUDA' if torch.cuda.is_available() else 'CPU'})"


def _measure(options: argparse.Namespace) -> None:
    """Every engine and arithmetic that can run the model, beside each other."""
    engines: dict[str, Engine] = {}
    for engine, dtype in _MEASURED:
        try:
            engines[f"{engine} {dtype}"] = load_model(options, engine=engine, dtype=dtype)
        except RerankNLIError as error:  # noqa: PERF203 - what cannot run is said, and the next one tried
            print(f"  {engine} {dtype}: {error}")
    for name, rate in sorted(throughput(engines).items(), key=lambda found: -found[1]):
        print(f"  {name}: {rate:.0f} pairs/s, 32 of 128 tokens at once")


def _probe(options: argparse.Namespace) -> bool:
    """Whether the columns mean what their names say, shown on sentences whose labels nobody doubts."""
    engine = load_model(options)
    why = "as asked" if options.engine != "auto" else f"auto: {_why(engine)}"
    file = getattr(engine, "file", None)
    print(
        f"{options.model}: {engine.name} engine in {engine.precision} ({why}), {file.name if file else 'no file'}, "
        f"{engine.max_length} tokens, "
        f"labels {list(engine.labels.names)}, languages {', '.join(card_languages(engine)) or 'not stated'}"
    )
    reranker = NLIReranker(engine)
    passed = True
    for premise, hypothesis, expected in _PROBES:
        row = reranker.predict([(premise, hypothesis)], output="dicts")[0]
        if engine.labels.binary:
            wanted = "entailment" if expected == "entailment" else "not entailment"
            good = (row["entailment"] >= 0.5) == (expected == "entailment")  # noqa: PLR2004
        else:
            wanted, good = expected, max(row, key=row.get) == expected
        passed = passed and good
        numbers = ", ".join(f"{name} {p:.3f}" for name, p in row.items() if p is not None)
        print(f"  {'ok  ' if good else 'FAIL'} {premise!r} → {hypothesis!r}: {wanted} ({numbers})")
    if not passed:
        print("  the labels may be in another order than their names say: pass --labels, or use another checkpoint")
    return passed
