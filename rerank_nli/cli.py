"""The command line: the verbs of the Python API over JSON lines or plain text, and the demo."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import json
import os
import re
import sys
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rerank_nli.cli_models import add_doctor, add_export, add_models
from rerank_nli.cli_options import (
    add_calibration,
    add_languages,
    add_model,
    add_settings,
    load_model,
    load_reranker,
    names,
    threshold,
    watch_languages,
)
from rerank_nli.cli_scoring import add_score
from rerank_nli.cli_serving import add_serve
from rerank_nli.cli_training import add_calibrate, add_evaluate, add_train
from rerank_nli.cli_tuning import add_guarantee, add_tune
from rerank_nli.errors import CalibrationError, InputError, InputTypeError, RerankNLIError, require
from rerank_nli.inputs import pair
from rerank_nli.label_sets import label_names
from rerank_nli.ranking import KEEPS, compared_by
from rerank_nli.reranker import NLIReranker
from rerank_nli.rows import without_nan
from rerank_nli.zeroshot import TEMPLATE, ZeroShotClassifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rerank_nli.classification import Classification
    from rerank_nli.types import Conflicts, Filtered, Grounding, Ranking, Verdict

__all__ = ["main"]

_STATEMENT = {"rank": "query", "filter": "query", "verify": "claim", "check": "answer"}
_INTERRUPTED = 130
_CHUNK = 256  # texts that are classified at a time
_WEB_FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # a picture asks no other host for anything


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the result is its exit status: 0, 1 for a failed probe, 2 for bad input, 130 for Ctrl-C."""
    _speak_utf8()
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _INTERRUPTED
    except (RerankNLIError, OSError) as error:
        print(f"rerank-nli: {error}", file=sys.stderr)
        return 2
    return status


def _speak_utf8() -> None:
    """Read and write UTF-8 on every system; what UTF-8 cannot hold is written as JSON escapes it."""
    for stream, encoding, errors in (
        (sys.stdin, "utf-8-sig", "strict"),
        (sys.stdout, "utf-8", "backslashreplace"),
        (sys.stderr, "utf-8", "backslashreplace"),
    ):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=encoding, errors=errors)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rerank-nli", description="Rank and filter passages by entailment.")
    parser.add_argument("--version", action="version", version=importlib.metadata.version("rerank-nli"))
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for verb, summary in (
        ("rank", "order passages by whether they entail a query"),
        ("filter", "keep the passages whose score passes a threshold"),
        ("verify", "say whether passages support or refute a claim"),
        ("check", "give a verdict on each sentence of an answer that states something"),
    ):
        command = commands.add_parser(verb, help=summary, description=summary)
        add_model(command)
        _add_verb(command, verb)
    predict = commands.add_parser("predict", help="score (premise, hypothesis) pairs as they are")
    predict.add_argument("file", nargs="?", default="-", help='JSON lines with "premise" and "hypothesis"; - is stdin')
    predict.add_argument("--output", choices=("dicts", "array", "logits", "labels"), default="dicts")
    predict.add_argument("--abstain-below", type=float, help='label "abstain" where no label is this likely')
    add_model(predict)
    add_languages(predict)
    predict.set_defaults(run=_predict)
    add_score(commands.add_parser("score", help="score the rows of a large file, and go on where it was killed"))
    # here --labels are those that texts get, and the model's outputs are named by --outputs
    _add_classify(commands.add_parser("classify", help="give texts labels of your own", conflict_handler="resolve"))
    _add_conflicts(commands.add_parser("conflicts", help="say which passages contradict or agree with each other"))
    _add_demo(commands.add_parser("demo", help="retrieve, rerank and filter on one screen"))
    add_train(commands.add_parser("train", help="fine-tune an NLI cross-encoder: from pairs to a bundle"))
    add_evaluate(commands.add_parser("evaluate", help="measure a model on labelled pairs"))
    add_tune(commands.add_parser("tune", help="find the settings that order passages best, and what each is worth"))
    add_calibrate(commands.add_parser("calibrate", help="make scores mean what they say, and show how well they do"))
    add_guarantee(commands.add_parser("guarantee", help="find a threshold that promises a recall or precision"))
    add_export(commands.add_parser("export", help="make a bundle of a checkpoint, and check it"))
    add_doctor(commands.add_parser("doctor", help="what can run here, and whether a model's labels are in order"))
    add_models(commands.add_parser("models", help="models worth knowing: labels, size, languages, licence"))
    add_serve(commands.add_parser("serve", help="answer over HTTP, to the clients of other rerankers too"))
    return parser


def _add_verb(command: argparse.ArgumentParser, verb: str) -> None:
    name = _STATEMENT[verb]
    command.add_argument(
        "file",
        nargs="?",
        default="-",
        help=f"with --{name}: passages, a text or JSON object a line; without: JSON lines with "
        f'"{name}", "passages" and perhaps "id", which comes back; - is stdin',
    )
    command.add_argument(f"--{name}", dest="statement")
    command.add_argument("--json", action="store_true", help="JSON lines; the rule without " + f"--{name}")
    if verb in ("rank", "filter"):
        command.add_argument("--top-k", type=int)
    if verb != "rank":
        command.add_argument(
            "--threshold", type=threshold, default="auto", help="a number; auto is that of the guarantee, or 0.5"
        )
    if verb in ("verify", "check"):
        command.add_argument("--join", type=int, help="2 tries two passages together where none alone settles a claim")
        add_settings(command, without=("direction", "combine", "score", "normalize", "pool"))  # a verdict has its own
    else:
        add_settings(command)
        add_calibration(command)
    if verb != "rank":
        command.add_argument(
            "--guarantee", help="a file that `guarantee` wrote: --threshold auto then keeps its promise"
        )
    if verb == "filter":
        command.add_argument("--keep", choices=KEEPS, default="entailment")
    add_languages(command)
    command.set_defaults(run=_verb, verb=verb)


def _add_classify(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "file", nargs="?", default="-", help='a text a line, or JSON lines with "text" and perhaps "labels"; - is stdin'
    )
    add_model(command)
    command.add_argument("--labels", dest="classes", metavar="A,B,C", help="labels of the texts that bring none")
    command.add_argument("--outputs", dest="labels", type=names, metavar="A,B,C", help="the model's outputs in order")
    command.add_argument("--template", action="append", help='"… {label} …"; more than one is an ensemble')
    command.add_argument("--multi-label", action="store_true", help="each label stands alone; else one of them is true")
    command.add_argument("--threshold", type=float, help="least score of an accepted label")
    command.add_argument("--json", action="store_true", help="JSON lines with the score of every label")
    add_languages(command)
    command.set_defaults(run=_classify)


def _add_conflicts(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", nargs="?", default="-", help="passages, a text or JSON object a line; - is stdin")
    command.add_argument("--threshold", type=float, default=0.5, help="of P(contradiction) and P(entailment)")
    command.add_argument("--json", action="store_true")
    add_model(command)
    add_languages(command)
    command.set_defaults(run=_conflicts)


def _add_demo(command: argparse.ArgumentParser) -> None:
    command.add_argument("--corpus", help=".jsonl, .jsonl.gz, a BEIR folder, a text file or a folder of them")
    command.add_argument("--query", help="a claim or a question; the default is one of the demo corpus")
    command.add_argument(
        "--retriever",
        default="static",
        help='"static" is the bundled one, "nli" the NLI model\'s own encoder, else a sentence-transformers model',
    )
    command.add_argument("--top-k", type=int, default=10, help="passages to retrieve")
    command.add_argument("--threshold", type=float, default=0.5)
    command.add_argument("--json", action="store_true")
    command.add_argument("--svg", type=Path, help="also save the screen as a picture")
    add_model(command)
    add_settings(command)
    command.set_defaults(run=_demo)


def _verb(options: argparse.Namespace) -> int:
    reranker = load_reranker(options)
    _require_promise(reranker, options)
    call = _calls(reranker, options)[options.verb]
    name = _STATEMENT[options.verb]
    with watch_languages(options, reranker.engine) as show:
        if options.statement is not None:
            given = [_passage(number, line) for number, line in _lines(options.file)]
            result = call(options.statement, given)
            show([options.statement, *given])
            print(json.dumps(result.to_dict(), ensure_ascii=False) if options.json else _SHOW[options.verb](result))
            return 0
        call("x", [])  # refuses options that no line could be read with
        for number, line in _progress(_lines(options.file)):
            record = _object(number, line, name)
            passages = record.get("passages", record.get("candidates"))
            if passages is None:
                message = f'line {number} has no "passages"'
                raise InputError(message)
            with _at(f"line {number}"):
                result = call(record[name], passages)
            own = {"id": record["id"]} if "id" in record else {}  # blank lines are passed over: it says which this was
            print(json.dumps(own | result.to_dict(), ensure_ascii=False), flush=True)
            show([record[name], *passages])
    return 0


def _require_promise(reranker: NLIReranker, options: argparse.Namespace) -> None:
    """Refuse a guarantee of which the verb would take nothing."""
    of = "passages" if options.verb == "filter" else "verdicts"
    if reranker.guarantee is not None and reranker.guarantee.of != of and options.threshold == "auto":
        promised = f"{options.guarantee} promises something of {reranker.guarantee.of}"
        message = f"{promised}, not of the {of} of {options.verb}: give a --threshold, or a guarantee of those"
        raise CalibrationError(message)


def _calls(reranker: NLIReranker, options: argparse.Namespace) -> dict[str, Callable[[Any, Any], Any]]:
    return {
        "rank": lambda query, passages: reranker.rank(query, passages, options.top_k),
        "filter": lambda query, passages: reranker.filter(
            query, passages, options.threshold, options.keep, options.top_k
        ),
        "verify": lambda claim, passages: reranker.verify(claim, passages, options.threshold, join=options.join),
        "check": lambda answer, passages: reranker.check(answer, passages, options.threshold, join=options.join),
    }


def _predict(options: argparse.Namespace) -> int:
    reranker = NLIReranker(load_model(options))
    with watch_languages(options, reranker.engine) as show:

        def records() -> Iterator[tuple[str, str]]:
            for number, line in _progress(_lines(options.file)):
                record = _object(number, line, "premise")
                read = pair(f"line {number}", record)
                yield read
                show(read)

        for row in reranker.predict(records(), output=options.output, abstain_below=options.abstain_below):
            print(json.dumps(without_nan(row.tolist() if hasattr(row, "tolist") else row), allow_nan=False), flush=True)
    return 0


def _classify(options: argparse.Namespace) -> int:
    common = None if options.classes is None else _checked_labels("--labels", names(options.classes))
    classifier = ZeroShotClassifier(load_model(options))
    lines = (_text_and_labels(number, line, common) for number, line in _progress(_lines(options.file)))
    with watch_languages(options, classifier.engine) as show:
        for first in count(step=_CHUNK):
            chunk = list(islice(lines, _CHUNK))
            if not chunk:
                return 0
            texts, labels = [text for text, _ in chunk], [labels for _, labels in chunk]
            for one in classifier.classify(
                texts,
                labels,
                options.template or TEMPLATE,
                multi_label=options.multi_label,
                thresholds="auto" if options.threshold is None else options.threshold,
            ):
                numbered = replace(one, index=first + one.index)
                row = json.dumps(numbered.to_dict(), ensure_ascii=False) if options.json else _show_classification(one)
                print(row, flush=True)
            show(texts)
    return 0


def _text_and_labels(number: int, line: str, common: Any) -> tuple[str, Any]:  # noqa: ANN401
    record = _passage(number, line)
    if isinstance(record, str):
        record = {"text": record}
    if not isinstance(record["text"], str):
        message = f'line {number}: "text" must be a text, got {record["text"]!r:.80}'
        raise InputError(message)
    labels = record.get("labels")
    if labels is None and common is None:
        message = f'line {number} brings no "labels": give --labels'
        raise InputError(message)
    return record["text"], common if labels is None else _checked_labels(f"line {number}", labels)


def _checked_labels(where: str, labels: Any) -> Any:  # noqa: ANN401
    """The labels; what is wrong with them is said with its place."""
    with _at(where):
        label_names(labels)
    return labels


@contextlib.contextmanager
def _at(where: str) -> Iterator[None]:
    """Say with bad input where it stands."""
    try:
        yield
    except (InputError, InputTypeError) as error:
        message = f"{where}: {error}"
        raise InputError(message) from error


def _conflicts(options: argparse.Namespace) -> int:
    reranker = NLIReranker(load_model(options))
    passages = [_passage(number, line) for number, line in _lines(options.file)]
    with watch_languages(options, reranker.engine) as show:
        found = reranker.conflicts(passages, options.threshold)
        show(passages)
    print(json.dumps(found.to_dict(), ensure_ascii=False) if options.json else _show_conflicts(found))
    return 0


def _demo(options: argparse.Namespace) -> int:
    from rerank_nli import demo

    passages = demo.read_corpus(options.corpus or demo.CORPUS)
    query = options.query
    if query is None and options.corpus is not None:
        message = "--corpus needs a --query: a claim or a question to ask of it"
        raise InputError(message)
    if query is None:
        query = json.loads(demo.QUERIES.read_text(encoding="utf-8").splitlines()[0])["query"]
    reranker = load_reranker(options)
    retriever = demo.Retriever(passages, reranker.embed if options.retriever == "nli" else options.retriever)
    shown = demo.answer(query, passages, retriever, reranker, options.top_k, options.threshold)
    if options.json:
        print(json.dumps(shown.to_dict(), ensure_ascii=False))
    if options.json and not options.svg:
        return 0
    screen = io.StringIO() if options.json else None  # which is JSON's
    console = require("rich.console", "demo").Console(record=options.svg is not None, file=screen)
    console.print(demo.render(shown))
    if options.svg:
        picture = console.export_svg(title=f'rerank-nli demo --query "{query}"')
        options.svg.write_text(_WEB_FONT.sub("", picture), encoding="utf-8")
    return 0


def _lines(file: str) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not blank."""
    if file == "-":
        yield from _numbered(sys.stdin)
        return
    with Path(file).open(encoding="utf-8-sig") as lines:
        yield from _numbered(lines)


def _numbered(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        message = f"line {number + 1} or one soon after it is not UTF-8 ({error})"
        raise InputError(message) from error


def _passage(number: int, line: str) -> Any:  # noqa: ANN401
    """A line that begins an object is a passage with its id; any other is a text."""
    return _object(number, line, "text") if line.lstrip().startswith("{") else line


def _object(number: int, line: str, key: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        message = f"line {number} is no JSON ({error}): expected an object with {key!r}"
        raise InputError(message) from error
    if not isinstance(record, dict) or key not in record:
        message = f"line {number}: expected an object with {key!r}, got {line:.80}"
        raise InputError(message)
    return record


def _progress(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Count on stderr, where that is a terminal."""
    from tqdm import tqdm

    yield from tqdm(lines, unit=" lines", file=sys.stderr, disable=None, leave=False)


def _show_ranking(ranking: Ranking, keep: str = "entailment") -> str:
    """A passage a line, with the number by which it was kept and the text that has it."""
    lines = ["   score  index  id  evidence"]
    for p in ranking:
        score = compared_by(p, keep)
        refutes = keep == "contradiction" or score > p.score
        text = (p.refuting_evidence or "") if refutes else p.evidence
        lines.append(f"{score:8.4f}  {p.index:5d}  {'-' if p.id is None else p.id}  {' '.join(text.split())}")
    return "\n".join(lines)


def _show_filtered(filtered: Filtered) -> str:
    shown = _show_ranking(filtered.kept, filtered.keep)
    return f"kept {len(filtered.kept)}, dropped {len(filtered.dropped)}\n{shown}"


def _show_verdict(verdict: Verdict) -> str:
    lines = [f"{verdict.label} ({verdict.confidence:.4f}): {verdict.claim}"]
    lines += (f"  + {p.score:.4f}  {' '.join(p.evidence.split())}" for p in verdict.supporting)
    lines += (f"  - {p.refutation:.4f}  {' '.join((p.refuting_evidence or '').split())}" for p in verdict.refuting)
    return "\n".join(lines)


def _show_grounding(grounding: Grounding) -> str:
    return "\n".join([*map(_show_verdict, grounding), f"groundedness {grounding.groundedness:.4f}"])


def _show_classification(one: Classification) -> str:
    return f"{one.score:8.4f}  {', '.join(one.accepted) or '-'}  {' '.join(one.text.split())}"


def _show_conflicts(conflicts: Conflicts) -> str:
    lines = [f"{len(conflicts.contradictions)} contradict, {len(conflicts.agreements)} agree"]
    for r in conflicts:
        lines.append(f"{r.kind} {r.probability:.4f}")
        lines += (f"  {i:5d}  {' '.join(t.split())}" for i, t in ((r.first, r.first_text), (r.second, r.second_text)))
    return "\n".join(lines)


_SHOW: dict[str, Callable[[Any], str]] = {
    "rank": _show_ranking,
    "filter": _show_filtered,
    "verify": _show_verdict,
    "check": _show_grounding,
}
