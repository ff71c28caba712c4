"""What speed.py found, as a table and as a plot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path


def table(found: dict[str, Any], base: str) -> str:
    """A line for each library; in brackets least and greatest."""
    workloads = found["workloads"]
    head = ["", *(f"{name}: pairs/s | × {base}" for name in workloads), "peak MB | Kendall τ | largest difference"]
    lines = [f"| {' | '.join(head)} |", "|---" * (2 * len(workloads) + 4) + "|"]
    for kind, mb in found["peak MB"].items():
        cells = [kind]
        for row in (workload["libraries"].get(kind) for workload in workloads.values()):
            cells += ["{:.0f} ({:.0f}–{:.0f})".format(*row["pairs/s"]) if row else ""]
            cells += ["{:.2f} ({:.2f}–{:.2f})".format(*row["ratio"]) if row else ""]
        scores = found["scores"].get(kind, {})
        cells += [f"{mb:.0f}", *(str(scores.get(key, "")) for key in ("Kendall tau", "largest difference"))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"{kind}: {why}" for kind, why in found["cannot run"].items())])


def plot(by_model: dict[str, Any], path: Path) -> None:
    """Pairs a second of each library on each workload, with the least and the greatest of the rounds."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "speed"  # the same figure is the same file
    panels = {
        f"{model}, {name}": row["libraries"]
        for model, found in by_model.items()
        for name, row in found["workloads"].items()
    }
    figure = Figure(figsize=(8, 12))
    axes = figure.subplots(len(panels), 1, height_ratios=[len(libraries) for libraries in panels.values()])
    for axis, (title, libraries) in zip(axes, panels.items(), strict=True):
        kinds = list(reversed(libraries))
        middle, least, most = np.array([libraries[kind]["pairs/s"] for kind in kinds]).T
        colours = ["#1b6e53" if kind.startswith("ours") else "#9a9a9a" for kind in kinds]
        axis.barh(kinds, middle, xerr=[middle - least, most - middle], color=colours, capsize=2)
        axis.set_title(f"{title}: pairs/s", loc="left", fontsize=10)
        axis.tick_params(labelsize=8)
        axis.grid(axis="x", color="#dddddd")
        axis.set_axisbelow(True)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
