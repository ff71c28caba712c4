"""The command that scores a file: score."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rerank_nli.calibration import Calibration
from rerank_nli.cli_options import (
    LOADING,
    add_calibration,
    add_model,
    add_settings,
    calibration,
    load_reranker,
    settings,
)
from rerank_nli.errors import InputError, counted, require
from rerank_nli.jobs import score_file
from rerank_nli.workers import in_processes, in_turn, threads_each

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from rerank_nli.reranker import NLIReranker
    from rerank_nli.workers import Spread

__all__ = ["add_score"]

_ABOUT = """\
Score the rows of a file: they come out in their order, with all their columns and with entailment, neutral,
contradiction and, where there is a query, score. Finished parts are kept in a folder beside OUT until OUT is whole, so
the same command goes on where it was killed. What a reranker can be told (direction, score, template …) acts on
queries: a premise and its hypothesis are scored as they are, but for --window.
"""


def add_score(command: argparse.ArgumentParser) -> None:
    """Options of `score`."""
    command.description = _ABOUT
    command.add_argument(
        "file",
        type=Path,
        metavar="IN",
        help='rows with "premise" and "hypothesis", "query" and "passage", or "query" and "passages": .jsonl or .csv, '
        "also with .gz, or .parquet",
    )
    command.add_argument("-o", "--out", type=Path, required=True, help="a file of any of these forms")
    command.add_argument(
        "--column",
        action="append",
        metavar="ROLE=NAME",
        help="the column of the premise, hypothesis, query, passage or passages, if its name is another",
    )
    command.add_argument("--prefix", default="", help="of the new columns' names")
    command.add_argument("--processes", type=int, help="that score, with a share of the cores each; --ray: actors")
    command.add_argument("--ray", metavar="ADDRESS", help='score on a Ray cluster: "auto", "local" or HOST:PORT')
    add_model(command)
    add_settings(command, without=("normalize",))
    add_calibration(command)
    command.set_defaults(run=_score)


def _score(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    if options.processes is not None:
        counted("--processes", options.processes)
    on_cluster = require("rerank_nli_ray", "ray").on_cluster if options.ray else None  # before the work
    if options.processes and not options.ray and options.threads is None:
        options.threads = threads_each(options.processes)
    reranker = load_reranker(options, cache_size=0)
    if on_cluster is not None:
        spread: Spread = on_cluster(options.ray, options.processes, **_for_actors(options, reranker))
    else:
        spread = in_turn(reranker) if options.processes is None else in_processes(reranker, options.processes)
    with contextlib.ExitStack() as stack:
        bars: list[tqdm[None]] = []

        def report(done: int, total: int) -> None:
            if not bars:
                bar = tqdm(total=total, initial=done, unit=" rows", file=sys.stderr, disable=None, leave=False)
                bars.append(stack.enter_context(bar))
            bars[0].update(done - bars[0].n)

        columns, prefix = _columns(options.column), options.prefix
        rows = score_file(
            options.file, options.out, reranker, columns=columns, prefix=prefix, spread=spread, report=report
        )
    print(f"{options.out}: {rows} rows")
    return 0


def _columns(given: Sequence[str] | None) -> dict[str, str] | None:
    if given is None:
        return None
    wrong = [one for one in given if "=" not in one]
    if wrong:
        message = f"--column {wrong[0]}: expected ROLE=NAME, as premise=text"
        raise InputError(message)
    roles = [one.partition("=")[0] for one in given]
    twice = [role for role in roles if roles.count(role) > 1]
    if twice:
        message = f"--column {twice[0]}=… is said twice: a role is in one column"
        raise InputError(message)
    return dict(one.split("=", 1) for one in given)


def _for_actors(options: argparse.Namespace, reranker: NLIReranker) -> dict[str, Any]:
    """What a scorer on another machine needs to be this one."""
    needed = {name: getattr(options, name) for name in ("model", *LOADING)} | settings(options)
    if options.model != "mini" and Path(options.model).exists():
        needed["model"] = str(Path(options.model).absolute())  # an actor works in a folder of its own
    said = calibration(options)
    needed["calibration"] = Calibration.load(said) if said not in ("auto", None) else said
    return needed | {"fingerprint": reranker.engine.fingerprint, "precision": reranker.engine.precision}
