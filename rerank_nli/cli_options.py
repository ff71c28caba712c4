"""What commands have in common: the options that say which model runs and how, and the watch on texts' languages."""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from rerank_nli.errors import InputError
from rerank_nli.languages import card_languages, unlisted_languages
from rerank_nli.loading import ENGINES, load
from rerank_nli.reranker import NLIReranker
from rerank_nli.scorer import DIRECTIONS
from rerank_nli.scores import COMBINES, KINDS, NORMALIZATIONS
from rerank_nli.windows import POOLS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Collection, Iterable, Iterator
    from pathlib import Path

    from rerank_nli.engines import Engine

__all__ = [
    "LOADING",
    "add_calibration",
    "add_languages",
    "add_model",
    "add_settings",
    "calibration",
    "load_model",
    "load_reranker",
    "names",
    "read_card",
    "settings",
    "threshold",
    "watch_languages",
]

_SETTINGS: dict[str, dict[str, Any]] = {
    "direction": {"choices": DIRECTIONS, "default": DIRECTIONS[0]},
    "combine": {"choices": COMBINES, "default": "min"},
    "score": {"choices": KINDS, "default": "entailment"},
    "normalize": {"choices": NORMALIZATIONS},
    "template": {"action": "append", "help": '"… {query} …"; more than one is an ensemble'},
    "window": {"type": int, "help": "most tokens of a passage in one pair"},
    "pool": {"choices": POOLS, "default": "max"},
}
LOADING = ("engine", "device", "dtype", "revision", "labels", "threads")  # options that are arguments of `load`


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


def load_model(options: argparse.Namespace, **instead: Any) -> Engine:  # noqa: ANN401
    """The engine that those options say, but for what is said here."""
    return load(options.model, **{name: getattr(options, name) for name in LOADING} | instead)


def add_settings(command: argparse.ArgumentParser, *, without: Collection[str] = ()) -> None:
    """Add the options that say what a reranker's scores are, but for those that have no part in a command."""
    for name, option in _SETTINGS.items():
        if name not in without:
            command.add_argument(f"--{name}", **option)


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """What those options say, as NLIReranker takes it; what is unsaid has its default there."""
    said = {name: getattr(options, name, None) for name in _SETTINGS}
    return {name: value for name, value in said.items() if value is not None}


def add_calibration(command: argparse.ArgumentParser) -> None:
    """Add the option that says which calibration."""
    command.add_argument("--calibration", default="auto", help='"auto", "none", or a file that `calibrate` wrote')


def calibration(options: argparse.Namespace) -> str | None:
    """What that option says, as NLIReranker takes it."""
    said: str = options.calibration
    return None if said == "none" else said


def load_reranker(options: argparse.Namespace, **instead: Any) -> NLIReranker:  # noqa: ANN401
    """The reranker that those options say, but for what is said here."""
    fits = {"guarantee": getattr(options, "guarantee", None)}
    if hasattr(options, "calibration"):
        fits["calibration"] = calibration(options)
    return NLIReranker(load_model(options), **settings(options) | fits | instead)


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


def threshold(text: str) -> str | float:
    """A number, or "auto"."""
    return text if text == "auto" else float(text)


def names(text: str) -> list[str]:
    """What stands between the commas."""
    return [name.strip() for name in text.split(",")]


def read_card(file: Path | None) -> dict[str, Any]:
    """What a JSON object in a file says of a model; nothing, without a file."""
    if file is None:
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        message = f"{file} is no JSON object ({error})"
        raise InputError(message) from error
