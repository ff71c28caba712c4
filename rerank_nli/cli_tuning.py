"""The commands that find settings: tune, and the threshold of a promise."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rerank_nli.cli_options import add_calibration, add_model, add_settings, load_model, load_reranker
from rerank_nli.inputs import require_folder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rerank_nli.guarantees import Guarantee
    from rerank_nli.tune import Measured, Tuned

__all__ = ["add_guarantee", "add_tune"]

_ABOUT = """\
Choose direction, score kind, template, pool and, with retrieval scores, the fusion by nDCG@10, cross-validated over
queries, and say what each choice is worth. The default stays unless what is found is better beyond its interval, on
queries that it was not found on.
"""
_USE = """\
the file in Python:
  from rerank_nli.tune import Tuned
  tuned = Tuned.load("tuned.json")
  reranker = NLIReranker(model, **tuned.settings)
  reranker.rank(query, passages, retrieval_scores=scores, **tuned.rank)
It is JSON: "settings" are arguments of NLIReranker, "rank" those of rank and filter beside retrieval_scores. Where
"rank" says that the fusion is learned, its weights are in the file, and rank(fuse="tuned.json") takes it as it is.
"""


def add_tune(command: argparse.ArgumentParser) -> None:
    """Options of `tune`."""
    command.description, command.epilog = _ABOUT, _USE
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.add_argument(
        "data",
        help='JSON lines with "query", "passages", "labels" (1 supports, 0 does not) and, in all or none, '
        '"retrieval_scores"; also .jsonl.gz or .parquet',
    )
    command.add_argument("-o", "--out", type=Path, required=True, help="JSON file to write")
    command.add_argument(
        "--template", action="append", help='"… {query} …" to try beside "auto", in place of those tried if unsaid'
    )
    command.add_argument("--seed", type=int, default=0, help="of folds and resamples")
    command.add_argument("--resamples", type=int, default=1000, help="of the bootstrap")
    command.add_argument("--json", action="store_true", help="print what the file holds")
    add_model(command)
    command.set_defaults(run=_tune)


def add_guarantee(command: argparse.ArgumentParser) -> None:
    """Options of `guarantee`."""
    command.add_argument(
        "data",
        type=Path,
        help='rows with "query", "passages", "labels" (1 supports, 0 does not), or with "claim", "passages", "label": '
        ".jsonl, .jsonl.gz or .parquet",
    )
    command.add_argument("-o", "--out", type=Path, required=True, help="JSON file to write, for --guarantee")
    command.add_argument("--recall", type=float, help="above 0 and below 1; either this or --precision")
    command.add_argument("--precision", type=float, help="above 0 and below 1")
    command.add_argument("--confidence", type=float, default=0.95)
    command.add_argument("--seed", type=int, default=0, help="of the draw of one passage for each query")
    command.add_argument("--json", action="store_true", help="print what the file holds")
    add_model(command)
    add_settings(command, without=("normalize",))
    add_calibration(command)
    command.set_defaults(run=_guarantee)


def _guarantee(options: argparse.Namespace) -> int:
    from rerank_nli.pairs import read_judged
    from rerank_nli.rows import read_rows

    require_folder(options.out)
    _, first = next(read_rows(options.data), (0, {}))
    claims = "claim" in first
    promising = load_reranker(options).with_guarantee(
        [row for _, row in read_rows(options.data)] if claims else read_judged(options.data),
        recall=options.recall,
        precision=options.precision,
        confidence=options.confidence,
        seed=options.seed,
    )
    found = cast("Guarantee", promising.guarantee)
    found.save(options.out)
    if options.json:
        print(json.dumps(found.to_dict(), ensure_ascii=False))
        return 0
    print(
        f"threshold {found.threshold:.4f}: {found.aim} of {found.of} at least {found.target:g}, with confidence "
        f"{found.confidence:g}; on this sample of {found.size} it keeps {found.kept}, {found.aim} {found.observed:.3f}"
    )
    return 0


def _tune(options: argparse.Namespace) -> int:
    from rerank_nli.pairs import read_judged
    from rerank_nli.tune import TEMPLATES, tune

    require_folder(options.out)
    data = read_judged(options.data)
    tuned = tune(
        load_model(options),
        data,
        templates=options.template or TEMPLATES,
        seed=options.seed,
        resamples=options.resamples,
    )
    tuned.save(options.out)
    print(json.dumps(tuned.to_dict(), ensure_ascii=False) if options.json else _show(tuned, options.out))
    return 0


def _show(tuned: Tuned, out: Path) -> str:
    lines = [f"{tuned.queries} queries; means with 95 % intervals, and how far they lie above the default's", ""]
    lines += _table(tuned.choices)
    lines += ["", "found, measured on queries that it was not found on:", *_table([tuned.found])]
    if tuned.kept_default:
        verdict = "no choice is better than the default beyond its interval on held-out queries: the default stays"
    else:
        verdict = f"the same was found in {tuned.agreeing} of 5 folds; {out} has it"
    return "\n".join([*lines, "", verdict])


def _table(rows: Iterable[Measured]) -> list[str]:
    """A line for each; names first, as wide as the longest."""
    cells: list[tuple[str, ...]] = [("", "nDCG@10", "gain", "MRR", "gain")]
    for row in rows:
        figures = (row.ndcg, row.ndcg_gain, row.mrr, row.mrr_gain)
        signs = ("", "+", "", "+")
        texts = (f"{v:{s}.4f} {a:{s}.3f}…{b:{s}.3f}" for (v, a, b), s in zip(figures, signs, strict=True))
        cells.append((row.name, *texts))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in cells]
