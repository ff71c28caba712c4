"""The commands that need labelled pairs: train, evaluate and calibrate."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rerank_nli.calibration import METHODS
from rerank_nli.checkpoints import is_classifier, read_json
from rerank_nli.cli_options import (
    add_languages,
    add_model,
    add_settings,
    load_model,
    load_reranker,
    names,
    read_card,
    watch_languages,
)
from rerank_nli.errors import InputError, one_of, require
from rerank_nli.inputs import require_folder
from rerank_nli.labels import output_names
from rerank_nli.loading import checkpoint
from rerank_nli.recipe import Recipe
from rerank_nli.reranker import NLIReranker

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator, Sequence

    from rerank_nli.evaluate import Evaluation
    from rerank_nli.pairs import Pair

__all__ = ["add_calibrate", "add_evaluate", "add_train"]

_FIGURES = ("accuracy", "macro_f1", "auroc", "ece")
_RECIPE = {  # what numbers of a recipe are, in a line
    "epochs": "passes over the pairs; the last may be a part of one",
    "rate": "highest learning rate, that of the head",
    "layer_decay": "what the rate is multiplied by from each layer to the one below it",
    "frozen": "layers, from the lowest, that stay as they are",
    "batch_tokens": "tokens of a batch, padding included",
    "longest": "most tokens of a pair; longer ones are left out",
    "dropout": "everywhere but among the probabilities of attention",
    "smoothing": "share of the loss that asks for all outputs alike",
    "teacher": "share of a labelled pair's loss that asks for the probabilities that `score` added",
    "consistency": "weight of how far two passes with other dropout are apart; above 0 a step takes twice as long",
    "average": "weight of the past in the running average of the weights, which is what is kept",
    "warmup": "share of the steps over which the rate rises",
    "weight_decay": "of matrices",
    "seed": "of the order, the head and the dropout",
}
_DATA = "pairs: .jsonl or .csv, also with .gz, or .parquet"
_DATA_LABELS = (
    "what labels that are numbers count in, a,b,c, as entailment,not_entailment of GLUE; the model's outputs if unsaid"
)


def add_train(command: argparse.ArgumentParser) -> None:
    """Options of `train`."""
    command.add_argument("data", nargs="+", help=_DATA)
    command.add_argument("-o", "--out", type=Path, required=True, help="folder of the run; the same command goes on")
    command.add_argument("--base", required=True, help="folder or Hub id of an encoder or a classifier, or mini")
    command.add_argument("--dev", nargs="*", default=[], help="dev sets, in the same forms; the best on them is kept")
    command.add_argument(
        "--labels",
        type=names,
        help="names of the outputs in order, a,b,c, in which numeric labels count; two may start from a base's three",
    )
    command.add_argument("--card", type=Path, help="JSON: name, version, base, data with licences, languages, window")
    command.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 …; auto is a GPU, if there is one")
    command.add_argument("--every", type=int, default=500, help="steps between looks at the dev sets")
    command.add_argument(
        "--mix", nargs="*", default=[], metavar="SOURCE=WEIGHT", help="weight of a source, 1 if unsaid"
    )
    command.add_argument(
        "--class-weights", nargs="*", default=[], metavar="LABEL=WEIGHT", help="weight of a label's loss, 1 if unsaid"
    )
    for field in fields(Recipe):
        if field.name not in ("mix", "class_weights"):
            kind, what = int if isinstance(field.default, int) else float, f"{_RECIPE[field.name]} (%(default)s)"
            command.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default, help=what)
    command.set_defaults(run=_train)


def add_evaluate(command: argparse.ArgumentParser) -> None:
    """Options of `evaluate`."""
    command.add_argument("model", nargs="?", default="mini", help='"mini", a folder, an .onnx file or a Hub id')
    command.add_argument("--data", nargs="+", required=True, help=_DATA)
    command.add_argument("--data-labels", type=names, help=_DATA_LABELS)
    command.add_argument("--resamples", type=int, default=1000, help="of the bootstrap; 0 leaves intervals out")
    command.add_argument("--json", action="store_true")
    command.add_argument("--plot", type=Path, help="also save reliability and confusion as .svg or .png")
    add_model(command, with_model=False)
    add_languages(command)
    command.set_defaults(run=_evaluate)


def add_calibrate(command: argparse.ArgumentParser) -> None:
    """Options of `calibrate`."""
    command.add_argument("data", nargs="+", help=f"{_DATA}; the hypothesis is the query, the premise its passage")
    command.add_argument(
        "-o", "--out", type=Path, required=True, help="the calibration, for NLIReranker(calibration=…)"
    )
    command.add_argument("--data-labels", type=names, help=_DATA_LABELS)
    command.add_argument("--method", choices=("auto", *METHODS), default="auto")
    command.add_argument("--resamples", type=int, default=1000, help="of the bootstrap; 0 leaves intervals out")
    command.add_argument("--plot", type=Path, help="also save the reliability diagram as .svg or .png")
    command.add_argument("--json", action="store_true")
    add_model(command)
    add_settings(command, without=("normalize",))
    command.set_defaults(run=_calibrate)


def _train(options: argparse.Namespace) -> int:
    from rerank_nli.pairs import read_pairs
    from rerank_nli.train import train

    outputs = options.labels or _named_by(options.base)
    weights = {name: _weights(name, getattr(options, name)) for name in ("mix", "class_weights")}
    settings = {field.name: getattr(options, field.name) for field in fields(Recipe)}
    manifest = train(
        [pair for file in options.data for pair in read_pairs(file, outputs)],
        options.out,
        base=options.base,
        dev=_sets(options.dev, outputs),
        recipe=Recipe(**{**settings, **weights}),
        labels=options.labels,
        card=read_card(options.card),
        device=options.device,
        every=options.every,
    )
    assert manifest is not None  # noqa: S101 - all steps were asked for
    print((options.out / "bundle" / "README.md").read_text(encoding="utf-8"), end="")
    return 0


def _named_by(base: str) -> list[str] | None:
    """The names of a classifier's outputs, which labels that are numbers count in; None of an encoder."""
    config = read_json(checkpoint(base) / "config.json")
    return (output_names(config.get("id2label")) or None) if is_classifier(config) else None


def _evaluate(options: argparse.Namespace) -> int:
    from rerank_nli.evaluate import evaluate, plot

    _check_plot(options.plot)
    reranker = NLIReranker(load_model(options))
    sets = _sets(options.data, options.data_labels or list(reranker.engine.labels.names))
    with watch_languages(options, reranker.engine) as show:
        show(text for pairs in sets.values() for pair in pairs for text in (pair.premise, pair.hypothesis))
        evaluations = {
            name: {language: evaluate(reranker, part, options.resamples) for language, part in parts.items()}
            for name, parts in _by_language(sets).items()
        }
    rows = [row for name, parts in evaluations.items() for row in _rows(name, parts)]
    if options.json:
        for row in rows:
            print(json.dumps(row))
    else:
        print(_table(rows))
    if options.plot:
        plot(
            {" ".join(filter(None, (name, k))): e for name, p in evaluations.items() for k, e in p.items()},
            options.plot,
        )
    return 0


def _calibrate(options: argparse.Namespace) -> int:
    from rerank_nli.calibrate import calibrate, plot_calibration
    from rerank_nli.pairs import read_pairs

    _check_plot(options.plot)
    require_folder(options.out)
    reranker = load_reranker(options, calibration=None)
    outputs = options.data_labels or list(reranker.engine.labels.names)
    pairs = [pair for file in options.data for pair in read_pairs(file, outputs)]
    calibration, report = calibrate(reranker, pairs, options.method, options.resamples)
    calibration.save(options.out)
    if options.plot:
        plot_calibration(report, options.plot)
    if options.json:
        print(json.dumps(report.to_dict()))
        return 0
    print(f"{options.out}: {report.method}, fitted on {report.rows} pairs, {report.entailed} of them entailed")
    print(f"{'':6s}{'before':>24s}{'after, by the other half':>28s}")
    for name, before in report.before.items():
        shown = [
            f"{v:.4f}" + (f" {ends[0]:.3f}–{ends[1]:.3f}" if ends else "") for v, *ends in (before, report.after[name])
        ]
        print(f"{name:6s}{shown[0]:>24s}{shown[1]:>28s}")
    return 0


def _check_plot(path: Path | None) -> None:
    """Refuse, before the work, a plot that could not be drawn."""
    from rerank_nli.evaluate import PLOTS

    if path is not None:
        one_of("suffix of a plot", path.suffix, PLOTS)
        require_folder(path)
        require("matplotlib", "eval")


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
