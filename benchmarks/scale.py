"""The arithmetic of docs/scale.md: what a billion pairs take, from what was measured. Run: python benchmarks/scale.py.

Measures what the one process of a scoring job does while others score: reading and checking rows, keeping parts,
joining them. The model's own speed is in results/speed.json, where speed.py puts it. The page's tables are made of
both; a figure that is in neither is called missing, not guessed. With --page the page alone is made anew.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from quantization import processor

from rerank_nli import FunctionEngine, NLIReranker, score_file
from rerank_nli.rows import read_rows

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from rerank_nli.workers import Part

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGE = HERE.parent / "docs" / "scale.md"
PAIRS = 1_000_000_000
ROWS = 40_960  # of the measured job, 20 parts
MISSING = "missing"
BLOCK = re.compile(r"(?<=<!-- figures: benchmarks/scale.py -->\n).*(?=<!-- end of figures -->)", re.DOTALL)
WORDS = (
    "the",
    "ferry",
    "leaves",
    "an",
    "old",
    "harbour",
    "at",
    "noon",
    "unless",
    "wind",
    "is",
    "strong",
    "and",
    "cold",
)


def ready(parts: Iterable[Part]) -> Generator[tuple[Part, dict[str, list[float]]]]:
    """Scores with all their digits that cost nothing: what others would have found meanwhile."""
    numbers = np.random.default_rng(0).random((3, 2048)).tolist()
    for part in parts:
        columns = zip(("entailment", "neutral", "contradiction"), numbers, strict=True)
        yield part, {name: column[: part.end - part.first] for name, column in columns}


def measure() -> dict[str, Any]:
    """Rows a second of reading, and of all that one process does; bytes of a row."""
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {"processor": processor(), "rows": ROWS, "rows/s": {}, "bytes of a row": {}}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source = folder / "rows.jsonl"
        with source.open("w", encoding="utf-8") as file:
            for i in range(ROWS):
                premise, hypothesis = (" ".join(rng.choice(WORDS, size)) for size in (24, 10))
                file.write(json.dumps({"id": i, "premise": f"{premise} {i}.", "hypothesis": f"{hypothesis}."}) + "\n")
        reranker = NLIReranker(FunctionEngine(lambda _: []), cache_size=0)
        parts: list[int] = []

        def report(done: int, total: int) -> None:
            if done == total:
                parts.extend(path.stat().st_size for path in (folder / "rows.parquet.parts").glob("*-*.json"))

        for out in ("rows.parquet", "out.jsonl"):
            started = time.perf_counter()
            score_file(folder / source.name, folder / out, reranker, spread=ready, report=report)
            found["rows/s"][f"job, {source.suffix} to {Path(out).suffix}"] = round(
                ROWS / (time.perf_counter() - started)
            )
        for path in (source, folder / "rows.parquet"):
            started = time.perf_counter()
            assert sum(1 for _ in read_rows(path)) == ROWS  # noqa: S101
            found["rows/s"][f"read {path.suffix}"] = round(ROWS / (time.perf_counter() - started))
        for name, size in (("input", source.stat().st_size), ("parts", sum(parts))):
            found["bytes of a row"][name] = round(size / ROWS, 1)
    return found


def held(name: str) -> dict[str, Any]:
    """A committed result, {} where there is none."""
    path = RESULTS / f"{name}.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def speeds(speed: dict[str, Any]) -> dict[str, tuple[float, str]]:
    """Pairs a second of our engines on texts of real lengths, and the megabytes of their processes."""
    model = speed.get("MiniLM", {})
    libraries = model.get("workloads", {}).get("real lengths", {}).get("libraries", {})
    ours = {kind: row["pairs/s"][0] for kind, row in libraries.items() if kind.startswith("ours")}
    return {kind: (rate, str(model.get("peak MB", {}).get(kind, MISSING))) for kind, rate in ours.items()}


def render(speed: dict[str, Any], scale: dict[str, Any]) -> str:
    """The page's figures."""
    lines = [
        "| engine, texts of real lengths | pairs/s of the machine | pairs/s of a core | core-hours | MB of a process |",
        "|---|---|---|---|---|",
    ]
    told = re.search(r"(\d+) cores", speed.get("processor", ""))
    cores = int(told[1]) if told else None
    for kind, (rate, megabytes) in speeds(speed).items():
        per_core = f"{rate / cores:.0f} | {PAIRS * cores / rate / 3600:,.0f}" if cores else f"{MISSING} | {MISSING}"
        lines.append(f"| {kind} | {rate:.0f} | {per_core} | {megabytes} |")
    if not speeds(speed):
        lines.append(f"| results/speed.json is not there yet | {' | '.join([MISSING] * 4)} |")
    gpu = speed.get("GPU", {}).get("pairs/s")
    hours = f"{PAIRS / gpu / 3600:,.1f}" if gpu else MISSING
    lines += ["", "| a GPU | |", "|---|---|", f"| pairs/s | {gpu or MISSING} |", f"| GPU-hours | {hours} |", ""]
    lines += ["| the one process of a job | |", "|---|---|"]
    for name, rate in scale["rows/s"].items():
        lines.append(f"| {name}, rows/s | {rate:,} |")
        lines.append(f"| {name}, hours | {PAIRS / rate / 3600:,.1f} |")
    for name, size in scale["bytes of a row"].items():
        lines.append(f"| {name}, GB at {size} bytes a row | {PAIRS * size / 1e9:,.0f} |")
    lines.append(f"| parts of 2,048 pairs | {-(-PAIRS // 2048):,} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", action="store_true", help="measure nothing")
    if not parser.parse_args().page:
        path = RESULTS / "scale.json"
        path.write_text(json.dumps(measure(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    figures = render(held("speed"), held("scale"))
    PAGE.write_text(BLOCK.sub(lambda _: figures, PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(figures)


if __name__ == "__main__":
    main()
