"""What evidence.py found, as tables and as a plot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from evidence_measures import LABELS
from evidence_methods import DEFAULT, STAGES

from rerank_nli.scores import ALPHA

if TYPE_CHECKING:
    from pathlib import Path

NLI = "NLI " + ", ".join(DEFAULT)
SHOWN = {  # of each set what is drawn
    "SciFact, 100 retrieved": "nDCG@10, support",
    "SciFact, cited abstracts": "AUROC, support against refutation",
    "WikiQA": "RR, answers",
    "FM2": "nDCG@10, support",
    "WiCE": "AUROC, support against no evidence",
    "HealthVer": "AUROC, support against no evidence",
    "FEVER symmetric": "AUROC, support against refutation",
}


def tables(sets: dict[str, Any]) -> str:
    """Every figure with its interval, in Markdown."""
    parts = ["# Evidence", "", "Made by `python benchmarks/evidence.py`; in brackets 95 % bootstrap intervals.", ""]
    for name, found in sets.items():
        says = ", ".join(f"{count:,} {label}" for label, count in found["passages say"].items())
        ms = "; ".join(f"{what}: {spent:g} ms a query" for what, spent in found["ms a query"].items())
        parts += [f"## {name}", "", f"{found['queries']:,} queries, {found['passages']:,} passages ({says}). {ms}.", ""]
        for columns in _groups(found["rows"]):
            parts += [*_table(found["rows"], columns), ""]
        if "said of" in found:
            parts += ["| of passages | " + " | ".join(LABELS) + " |", "|---" * (1 + len(LABELS)) + "|"]
            parts += [
                f"| {kind} | {' | '.join(f'{share:.3f}' for share in said.values())} |"
                for kind, said in found["said of"].items()
            ]
            parts += [""]
        for aim, ordered in found.get("queries ordered", {}).items():
            parts += [f"Queries that NLI alone orders, by nDCG@10, {aim}:", ""]
            parts += [
                f"- {' '.join(f'{count} {how}' for how, count in of.items())} than {name}"
                for name, of in ordered.items()
            ]
            parts += [""]
    return "\n".join(parts)


def _groups(rows: dict[str, Any]) -> list[list[str]]:
    """The columns in tables that a page can hold: order, separation, what is known of probabilities and verdicts."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    kinds = [("AUROC", "AP", "coverage"), ("ECE", "verdict")]
    groups = [[c for c in columns if not c.startswith(kinds[0] + kinds[1])]]
    groups += [[c for c in columns if c.startswith(kind)] for kind in kinds]
    return [group for group in groups if group]


def _table(rows: dict[str, Any], columns: list[str]) -> list[str]:
    lines = [f"| {' | '.join(['', *columns])} |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        cells = ["{:.3f} [{:.3f}, {:.3f}]".format(*row[column]) if column in row else "" for column in columns]
        if any(cells):
            lines.append(f"| {' | '.join([name, *cells])} |")
    return lines


def plot(sets: dict[str, Any], path: Path) -> None:
    """One figure of each set: first stages, NLI, and both together."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "evidence"  # the same figure is the same file
    figure = Figure(figsize=(8, 14))
    shown = {name: column for name, column in SHOWN.items() if name in sets}
    for axis, (name, column) in zip(np.ravel(figure.subplots(len(shown), 1)), shown.items(), strict=True):
        rows = sets[name]["rows"]
        wanted = [*STAGES, NLI, *(row for row in rows if row.endswith((f"linear {ALPHA:g}", "learned")))]
        names = [row for row in reversed(wanted) if column in rows.get(row, {})]
        values, lows, highs = np.array([rows[row][column] for row in names]).T
        labels = [row.replace(NLI, "NLI") for row in names]
        axis.errorbar(values, labels, xerr=[values - lows, highs - values], fmt="o", color="#1b6e53", capsize=3)
        axis.set_title(f"{name}: {column}", loc="left", fontsize=10)
        axis.tick_params(labelsize=8)
        axis.grid(axis="x", color="#dddddd")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
