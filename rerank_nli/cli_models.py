"""The commands about models: train, evaluate, export and doctor."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rerank_nli.errors import InputError, MissingExtraError, require
from rerank_nli.loading import ENGINES, load
from rerank_nli.onnx_engine import BUNDLED, OnnxEngine
from rerank_nli.recipe import Recipe
from rerank_nli.reranker import NLIReranker
from rerank_nli.torch_engine import TorchEngine

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from rerank_nli.engines import Engine
    from rerank_nli.evaluate import Evaluation
    from rerank_nli.pairs import Pair

__all__ = ["add_commands", "add_model", "load_model"]

_PROBES = (
    ("A cat sleeps.", "A cat sleeps.", "entailment"),
    ("A cat sleeps.", "No cat sleeps.", "contradiction"),
    ("A woman plays the guitar.", "A woman plays the guitar for her sister.", "neutral"),
)
_DATA = "pairs: .jsonl or .csv, also with .gz, or .parquet"
_WHY = {"onnx": "there is an ONNX file and no CUDA, or no torch", "torch": "there is CUDA, or no ONNX file"}
_PACKAGES = (  # the package, what its core needs, what its extras bring
    *("rerank-nli", "numpy", "tokenizers", "onnxruntime", "huggingface-hub"),
    *("torch", "transformers", "sentence-transformers", "faiss-cpu", "model2vec", "rich"),
    *("onnx", "onnxscript", "scikit-learn", "pandas"),
)


def add_commands(commands: Any) -> None:  # noqa: ANN401 - argparse keeps its type to itself
    """Add train, evaluate, export and doctor to a parser's commands."""
    _add_train(commands.add_parser("train", help="fine-tune an NLI cross-encoder: from pairs to a bundle"))
    _add_evaluate(commands.add_parser("evaluate", help="measure a model on labelled pairs"))
    _add_export(commands.add_parser("export", help="make an ONNX bundle of a checkpoint folder"))
    doctor = commands.add_parser("doctor", help="what can run here, and whether a model's labels are in order")
    doctor.add_argument("model", nargs="?", help="a model to probe")
    add_model(doctor, with_model=False)
    doctor.set_defaults(run=_doctor)


def add_model(command: argparse.ArgumentParser, *, with_model: bool = True) -> None:
    """Add the options that say which model, and how to run it."""
    if with_model:
        command.add_argument("--model", default="mini", help='"mini", a folder, an .onnx file or a Hub id')
    command.add_argument("--engine", choices=ENGINES, default="auto")
    command.add_argument("--device", default="auto")
    command.add_argument("--dtype", default="auto")
    command.add_argument("--revision")
    command.add_argument("--labels", type=_names, help="names of the outputs in order, a,b,c")
    command.add_argument("--threads", type=int)


def load_model(options: argparse.Namespace) -> Engine:
    """The engine that those options say."""
    return load(
        options.model,
        engine=options.engine,
        device=options.device,
        dtype=options.dtype,
        revision=options.revision,
        labels=options.labels,
        threads=options.threads,
    )


def _add_train(command: argparse.ArgumentParser) -> None:
    command.add_argument("data", nargs="+", help=f"{_DATA}")
    command.add_argument("-o", "--out", type=Path, required=True, help="folder of the run; the same command goes on")
    command.add_argument("--base", required=True, help="folder or Hub id of an encoder or a classifier")
    command.add_argument("--dev", nargs="*", default=[], help="dev sets, in the same forms; the best on them is kept")
    command.add_argument("--labels", type=_names, help="names of the outputs in order, a,b,c")
    command.add_argument("--card", type=Path, help="JSON: name, version, base, data with licences, window")
    command.add_argument("--device", default="auto")
    command.add_argument("--every", type=int, default=500, help="steps between looks at the dev sets")
    command.add_argument(
        "--mix", nargs="*", default=[], metavar="SOURCE=WEIGHT", help="weight of a source, 1 if unsaid"
    )
    command.add_argument("--class-weights", nargs="*", default=[], metavar="LABEL=WEIGHT")
    for field in fields(Recipe):
        if field.name not in ("mix", "class_weights"):
            kind = int if isinstance(field.default, int) else float
            command.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    command.set_defaults(run=_train)


def _add_evaluate(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", nargs="?", default="mini", help='"mini", a folder, an .onnx file or a Hub id')
    command.add_argument("--data", nargs="+", required=True, help=_DATA)
    command.add_argument("--resamples", type=int, default=1000, help="of the bootstrap; 0 leaves intervals out")
    command.add_argument("--json", action="store_true")
    command.add_argument("--plot", type=Path, help="also save reliability and confusion as .svg or .png")
    add_model(command, with_model=False)
    command.set_defaults(run=_evaluate)


def _add_export(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", help="config.json, weights and tokenizer as Hugging Face saves them")
    command.add_argument("-o", "--out", type=Path, required=True, help="folder to make")
    command.add_argument("--fp32", action="store_true", help="do not store the weights in int8")
    command.add_argument("--labels", type=_names)
    command.add_argument(
        "--card", type=Path, help="JSON: name, version, base, data, training, scores, window, temperature"
    )
    command.set_defaults(run=_export)


def _train(options: argparse.Namespace) -> int:
    from rerank_nli.pairs import read_pairs
    from rerank_nli.train import train

    weights = {name: _weights(name, getattr(options, name)) for name in ("mix", "class_weights")}
    settings = {field.name: getattr(options, field.name) for field in fields(Recipe)}
    manifest = train(
        [pair for file in options.data for pair in read_pairs(file, options.labels)],
        options.out,
        base=options.base,
        dev=_sets(options.dev, options.labels),
        recipe=Recipe(**{**settings, **weights}),
        labels=options.labels,
        card=_card(options.card),
        device=options.device,
        every=options.every,
    )
    assert manifest is not None  # noqa: S101 - all steps were asked for
    print((options.out / "bundle" / "README.md").read_text(encoding="utf-8"), end="")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from rerank_nli.evaluate import evaluate, plot

    reranker = NLIReranker(load_model(options))
    sets = _sets(options.data, list(reranker.engine.labels.names))
    evaluations = {name: evaluate(reranker, pairs, options.resamples) for name, pairs in sets.items()}
    if options.plot:
        plot(evaluations, options.plot)
    if options.json:
        for name, evaluation in evaluations.items():
            print(json.dumps({"set": name, **evaluation.to_dict()}))
    else:
        print(_table(evaluations))
    return 0


def _table(evaluations: dict[str, Evaluation]) -> str:
    names = ("accuracy", "macro_f1", "auroc", "ece")
    lines = [" ".join([f"{'set':24s} {'rows':>6s}", *(f"{name:>22s}" for name in names)])]
    for name, evaluation in evaluations.items():
        cells = []
        for figure in names:
            value, interval = getattr(evaluation, figure), evaluation.intervals.get(figure)
            text = "-" if value is None else f"{value:.4f}"
            cells.append(f"{text + (f' {interval[0]:.3f}–{interval[1]:.3f}' if interval else ''):>22s}")
        lines.append(" ".join([f"{name:24s} {evaluation.rows:6d}", *cells]))
    return "\n".join(lines)


def _sets(files: Sequence[str], labels: Sequence[str] | None) -> dict[str, list[Pair]]:
    from rerank_nli.pairs import read_pairs

    sets: dict[str, list[Pair]] = {}
    for file in files:
        name = Path(file).name.split(".")[0]
        if name in sets:
            message = f"two sets are called {name!r}: rename a file"
            raise InputError(message)
        sets[name] = read_pairs(file, labels)
    return sets


def _weights(option: str, given: Sequence[str]) -> dict[str, float]:
    try:
        return {name: float(weight) for name, weight in (text.rsplit("=", 1) for text in given)}
    except ValueError as error:
        message = f"--{option.replace('_', '-')} {' '.join(given)}: expected NAME=WEIGHT, with a number for the weight"
        raise InputError(message) from error


def _names(text: str) -> list[str]:
    return text.split(",")


def _card(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        message = f"{file} is no JSON object ({error})"
        raise InputError(message) from error


def _export(options: argparse.Namespace) -> int:
    from rerank_nli.export import export

    manifest = export(
        options.folder, options.out, int8=not options.fp32, labels=options.labels, card=_card(options.card)
    )
    pairs = [(premise, hypothesis) for premise, hypothesis, _ in _PROBES]
    made = NLIReranker(OnnxEngine(options.out)).predict(pairs, output="logits")
    source = NLIReranker(TorchEngine(options.folder, options.labels, device="cpu")).predict(pairs, output="logits")
    size = sum((options.out / name).stat().st_size for name in manifest.files) / 1e6
    print(f"{options.out}: {size:.1f} MB, {manifest.precision}, labels {', '.join(manifest.labels)}")
    print(f"largest difference to the source's logits on {len(pairs)} pairs: {abs(made - source).max():.4f}")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    print(f"Python {platform.python_version()}, {platform.platform()}, {os.cpu_count()} cores")
    versions = {d.name.lower().replace("_", "-"): d.version for d in importlib.metadata.distributions()}
    for package in _PACKAGES:
        print(f"  {package} {versions.get(package, 'is not installed')}")
    print(f"engines: onnx (CPU), {_torch_status()}")
    print(f"auto takes {load().name} for the bundled model ({BUNDLED.name}: an ONNX file needs no torch)")
    return 0 if options.model is None else _probe(options)


def _torch_status() -> str:
    try:
        torch = require("torch", "torch")
        require("sentence_transformers", "torch")
    except MissingExtraError as error:
        return f"no torch ({error})"
    return f"torch ({'CUDA' if torch.cuda.is_available() else 'CPU'})"


def _probe(options: argparse.Namespace) -> int:
    """Whether the columns mean what their names say, shown on sentences whose labels nobody doubts."""
    engine = load_model(options)
    why = "as asked" if options.engine != "auto" else "auto: " + _WHY[engine.name]
    print(
        f"{options.model}: {engine.name} engine in {engine.precision} ({why}), {engine.max_length} tokens, "
        f"labels {list(engine.labels.names)}"
    )
    reranker = NLIReranker(engine)
    passed = True
    for premise, hypothesis, expected in _PROBES:
        row = reranker.predict([(premise, hypothesis)], output="dicts")[0]
        wanted = expected if expected == "entailment" or not engine.labels.binary else "not entailment"
        found = row["entailment"] >= 0.5 if engine.labels.binary else max(row, key=row.get) == expected  # noqa: PLR2004
        good = found if expected == "entailment" or not engine.labels.binary else not found
        passed = passed and good
        numbers = ", ".join(f"{name} {p:.3f}" for name, p in row.items() if p is not None)
        print(f"  {'ok  ' if good else 'FAIL'} {premise!r} → {hypothesis!r}: {wanted} ({numbers})")
    if not passed:
        print("  the labels may be in another order than their names say: pass --labels, or use another checkpoint")
    return 0 if passed else 1
