"""Rows of the files that benchmarks read."""

from __future__ import annotations

import gzip
import json
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def rows(path: Path, count: int | None = None) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines, the first so many, packed or not."""
    if not path.is_file():
        message = f"{path} is missing: --help says what the benchmark reads, and from where"
        raise SystemExit(message)
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in islice(file, count)]
