"""Show that no text of a development set is in the training pairs. Run: python scripts/prove_apart.py --help.

Texts are compared in lower case, by their letters and digits alone. A text of five words or more counts if it is one
side of a pair, a text of eight or more also if it is a part of one: shorter ones ("The man is outside.") are written
anew by many. Exit status 1 if one is found.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

WHOLE, PART = 5, 8  # words
SETS = (
    "nli/mnli_dev_matched",
    "nli/snli_dev",
    "nli/qnli_dev",
    "nli/fever_symmetric_dev",
    "nli/healthver_dev",
    "nli/anli_dev",
    "nli/xnli_en",
    "zeroshot/banking77_test",
    "qa/wikiqa_dev",
    "evidence/fm2_dev",
    "evidence/wice_dev",
    "retrieval/scifact/claims_dev",
)


class Apart:
    """Texts that training must not hold, by their first words."""

    def __init__(self) -> None:
        self.by_start: dict[tuple[str, ...], dict[tuple[str, ...], str]] = {}

    def add(self, text: str, name: str) -> None:
        """Keep a text apart, as one of the set `name`."""
        words = split(text)
        if len(words) >= WHOLE:
            self.by_start.setdefault(words[:WHOLE], {})[words] = name

    def found(self, text: str) -> str | None:
        """The set that has the text, or a part of it."""
        words = split(text)
        for start in range(len(words) - WHOLE + 1):
            for known, name in self.by_start.get(words[start : start + WHOLE], {}).items():
                end = start + len(known)
                if words[start:end] == known and (len(known) >= PART or len(known) == len(words)):
                    return name
        return None


def split(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[^\W_]+", text.lower()))


def texts(value: Any) -> Iterator[str]:  # noqa: ANN401
    """Every text in a row, whatever its form."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from texts(part)


def rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from (json.loads(line) for line in file)


def kept_apart(folder: Path) -> Apart:
    """The development sets; of SciFact the abstracts that development claims cite, too."""
    apart = Apart()
    for name in SETS:
        for row in rows(folder / f"{name}.jsonl.gz"):
            for text in texts(row):
                apart.add(text, name)
    cited = {d for claim in rows(folder / "retrieval/scifact/claims_dev.jsonl.gz") for d in claim["cited"]}
    for row in rows(folder / "retrieval/scifact/corpus.jsonl.gz"):
        if row["_id"] in cited:
            for text in texts(row):
                apart.add(text, "retrieval/scifact, cited abstracts")
    return apart


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", type=Path, help="training files")
    parser.add_argument("--data", type=Path, required=True, help="folder of the development sets")
    options = parser.parse_args()
    apart = kept_apart(options.data)
    found: Counter[tuple[str, str, str]] = Counter()
    for path in options.pairs:
        for row in rows(path):
            for side in ("premise", "hypothesis"):
                name = apart.found(row[side])
                if name:
                    found[name, side, row["source"]] += 1
    for (name, side, source), count in found.most_common():
        print(f"{count} times the {side} of a {source} pair stands in {name}")
    print(f"{found.total()} texts of development sets found in training")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
