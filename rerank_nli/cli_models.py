"""The commands about models: train, evaluate, export, doctor and models."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import sys
import time
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rerank_nli.checkpoints import read_json
from rerank_nli.errors import InputError, MissingExtraError, require
from rerank_nli.export import FORMS
from rerank_nli.files import locate
from rerank_nli.labels import Labels
from rerank_nli.languages import card_languages, unlisted_languages
from rerank_nli.loading import ENGINES, load
from rerank_nli.onnx_engine import BUNDLED
from rerank_nli.recipe import Recipe
from rerank_nli.reranker import NLIReranker

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rerank_nli.engines import Engine
    from rerank_nli.evaluate import Evaluation
    from rerank_nli.pairs import Pair

__all__ = ["add_commands", "add_languages", "add_model", "load_model", "names", "watch_languages"]

_PROBES = (
    ("A cat sleeps.", "A cat sleeps.", "entailment"),
    ("A cat sleeps.", "No cat sleeps.", "contradiction"),
    ("A woman plays the guitar.", "A woman plays the guitar for her sister.", "neutral"),
)
_FIGURES = ("accuracy", "macro_f1", "auroc", "ece")
_DATA = "pairs: .jsonl or .csv, also with .gz, or .parquet"
_WHY = {
    "onnx": "there is an ONNX file and no CUDA, or no torch",
    "openvino": "there is nothing else",
    "torch": "there is CUDA, or no ONNX file",
}
_PACKAGES = (  # the package, what its core needs, what its extras bring
    *("rerank-nli", "numpy", "tokenizers", "onnxruntime", "huggingface-hub"),
    *("torch", "transformers", "sentence-transformers", "faiss-cpu", "model2vec", "rich"),
    *("onnx", "onnxscript", "openvino", "scikit-learn", "pandas"),
)


def add_commands(commands: Any) -> None:  # noqa: ANN401 - argparse keeps its type to itself
    """Add train, evaluate, export, doctor and models to a parser's commands."""
    _add_train(commands.add_parser("train", help="fine-tune an NLI cross-encoder: from pairs to a bundle"))
    _add_evaluate(commands.add_parser("evaluate", help="measure a model on labelled pairs"))
    _add_export(commands.add_parser("export", help="make a bundle of a checkpoint, and check it"))
    doctor = commands.add_parser("doctor", help="what can run here, and whether a model's labels are in order")
    doctor.add_argument("model", nargs="?", help="a model to probe")
    add_model(doctor, with_model=False)
    doctor.set_defaults(run=_doctor)
    models = commands.add_parser("models", help="models worth knowing: labels, size, languages, licence")
    models.add_argument("--json", action="store_true")
    models.set_defaults(run=_models)


def add_model(command: argparse.ArgumentParser, *, with_model: bool = True) -> None:
    """Add the options that say which model, and how to run it."""
    if with_model:
        command.add_argument("--model", default="mini", help='"mini", a folder, an .onnx file or a Hub id')
    command.add_argument("--engine", choices=ENGINES, default="auto")
    command.add_argument("--device", default="auto")
    command.add_argument("--dtype", default="auto")
    command.add_argument("--revision")
    command.add_argument("--labels", type=names, help="names of the outputs in order, a,b,c")
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


def add_languages(command: argparse.ArgumentParser) -> None:
    """Add the option that has texts' languages held against the model's card."""
    command.add_argument(
        "--languages",
        action="store_true",
        help="say on stderr how many texts are in a language that the model's card does not list",
    )


@contextlib.contextmanager
def watch_languages(options: argparse.Namespace, engine: Engine) -> Iterator[Callable[[Iterable[Any]], None]]:
    """Give a function that is shown texts; at the end, one line on stderr says what the card does not list."""
    if not options.languages:
        yield lambda _: None
        return
    listed = card_languages(engine)
    unlisted_languages(engine, [], listed)  # a missing extra is said before the work begins
    counts: Counter[str] = Counter()

    def show(texts: Iterable[Any]) -> None:
        counts.update(found.language for found in unlisted_languages(engine, texts, listed))

    yield show
    if not listed:
        print(f"rerank-nli: the card of {options.model} lists no languages to hold the texts against", file=sys.stderr)
    elif total := counts.total():
        found = ", ".join(f"{language} {count}" for language, count in counts.most_common())
        texts = "1 text is" if total == 1 else f"{total} texts are"
        print(
            f"rerank-nli: {texts} in a language that the card of {options.model} does not list: {found} "
            f"(it lists {', '.join(listed)}); scores of such texts may mean little",
            file=sys.stderr,
        )


def names(text: str) -> list[str]:
    """What stands between the commas."""
    return [name.strip() for name in text.split(",")]


def _add_train(command: argparse.ArgumentParser) -> None:
    command.add_argument("data", nargs="+", help=f"{_DATA}")
    command.add_argument("-o", "--out", type=Path, required=True, help="folder of the run; the same command goes on")
    command.add_argument("--base", required=True, help="folder or Hub id of an encoder or a classifier")
    command.add_argument("--dev", nargs="*", default=[], help="dev sets, in the same forms; the best on them is kept")
    command.add_argument(
        "--labels", type=names, help="names of the outputs in order, a,b,c; two may start from a base's three"
    )
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
    add_languages(command)
    command.set_defaults(run=_evaluate)


def _add_export(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", help="a Hub id, or a folder with config.json, weights and tokenizer")
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
    with watch_languages(options, reranker.engine) as show:
        show(text for pairs in sets.values() for pair in pairs for text in (pair.premise, pair.hypothesis))
        evaluations = {
            name: {language: evaluate(reranker, part, options.resamples) for language, part in parts.items()}
            for name, parts in _by_language(sets).items()
        }
    rows = [row for name, parts in evaluations.items() for row in _rows(name, parts)]
    if options.plot:
        plot(
            {" ".join(filter(None, (name, k))): e for name, p in evaluations.items() for k, e in p.items()},
            options.plot,
        )
    if options.json:
        for row in rows:
            print(json.dumps(row))
    else:
        print(_table(rows))
    return 0


def _by_language(sets: dict[str, list[Pair]]) -> dict[str, dict[str | None, list[Pair]]]:
    """Each set in parts of one language, which its pairs or, as xnli_de, its file's name say; None where none does."""
    parted: dict[str, dict[str | None, list[Pair]]] = {}
    for name, pairs in sets.items():
        match = re.fullmatch("(xnli)_([a-z]{2,3})", name)
        for pair in pairs:
            language = pair.language or (match[2] if match else None)
            parted.setdefault(match[1] if match else name, {}).setdefault(language, []).append(pair)
    return parted


def _rows(name: str, parts: dict[str | None, Evaluation]) -> Iterator[dict[str, Any]]:
    """What is shown of a set: each language, then the mean of the languages."""
    for language, evaluation in parts.items():
        yield {"set": name} | ({} if language is None else {"language": language}) | evaluation.to_dict()
    known = [evaluation for language, evaluation in parts.items() if language is not None]
    if len(known) > 1:
        means: dict[str, float | None] = {}
        for figure in _FIGURES:
            values = [getattr(evaluation, figure) for evaluation in known]
            means[figure] = None if None in values else round(sum(values) / len(values), 4)
        yield {"set": name, "language": "mean", "rows": sum(evaluation.rows for evaluation in known), **means}


def _table(rows: Sequence[dict[str, Any]]) -> str:
    by_language = any("language" in row for row in rows)

    def line(name: str, language: str, count: object, cells: Iterable[str]) -> str:
        return " ".join(
            [f"{name:24s}", *[f"{language:8s}"] * by_language, f"{count:>6}", *(f"{c:>22s}" for c in cells)]
        )

    lines = [line("set", "language", "rows", _FIGURES)]
    for row in rows:
        cells = []
        for figure in _FIGURES:
            value, interval = row[figure], row.get("intervals", {}).get(figure)
            text = "-" if value is None else f"{value:.4f}"
            cells.append(text + (f" {interval[0]:.3f}–{interval[1]:.3f}" if interval else ""))
        lines.append(line(row["set"], row.get("language", "-"), row["rows"], cells))
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


def _card(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        message = f"{file} is no JSON object ({error})"
        raise InputError(message) from error


def _export(options: argparse.Namespace) -> int:
    from rerank_nli.agreement import export_checked
    from rerank_nli.pairs import read_pairs

    card = _card(options.card)
    pairs = None
    if options.pairs:
        id2label = read_json(locate(options.model, None) / "config.json").get("id2label")
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
    versions = {d.name.lower().replace("_", "-"): d.version for d in importlib.metadata.distributions()}
    for package in _PACKAGES:
        print(f"  {package} {versions.get(package, 'is not installed')}")
    openvino = "openvino (CPU)" if importlib.util.find_spec("openvino") else "no openvino"
    print(f"engines: onnx (CPU), {openvino}, {_torch_status()}")
    print(f"auto takes {load().name} for the bundled model ({BUNDLED.name}: an ONNX file needs no torch)")
    return 0 if options.model is None else _probe(options)


def _torch_status() -> str:
    try:
        torch = require("torch", "torch")
        require("transformers", "torch")
    except MissingExtraError as error:
        return f"no torch ({error})"
    return f"torch ({'CUDA' if torch.cuda.is_available() else 'CPU'})"


def _probe(options: argparse.Namespace) -> int:
    """Whether the columns mean what their names say, shown on sentences whose labels nobody doubts."""
    engine = load_model(options)
    why = "as asked" if options.engine != "auto" else "auto: " + _WHY[engine.name]
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
        wanted = expected if expected == "entailment" or not engine.labels.binary else "not entailment"
        found = row["entailment"] >= 0.5 if engine.labels.binary else max(row, key=row.get) == expected  # noqa: PLR2004
        good = found if expected == "entailment" or not engine.labels.binary else not found
        passed = passed and good
        numbers = ", ".join(f"{name} {p:.3f}" for name, p in row.items() if p is not None)
        print(f"  {'ok  ' if good else 'FAIL'} {premise!r} → {hypothesis!r}: {wanted} ({numbers})")
    if not passed:
        print("  the labels may be in another order than their names say: pass --labels, or use another checkpoint")
    return 0 if passed else 1
