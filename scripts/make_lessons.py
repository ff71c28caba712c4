"""Make lessons of what several teachers say of the same pairs. Run: python scripts/make_lessons.py --help.

Each file is what `rerank-nli score` wrote of make_pairs.py's `asked` by one teacher. A lesson is the mean of their
probabilities (Hinton et al. 2015). `turned` and `agreeing` pairs are known not to contradict: there P(contradiction)
goes to the other two, in proportion.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prove_apart import rows

if TYPE_CHECKING:
    from collections.abc import Sequence

COLUMNS = ("entailment", "neutral", "contradiction")


def lesson(said: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The pair with its mean probabilities and its source as one that was taught."""
    if len({(row["premise"], row["hypothesis"]) for row in said}) > 1:
        message = f"the files hold different pairs: {said[0]['premise']!r:.60} stands beside {said[1]['premise']!r:.60}"
        raise SystemExit(message)
    mean = [sum(row[column] for row in said) / len(said) for column in COLUMNS]
    if said[0]["source"] in ("turned", "agreeing"):
        mean[2] = 0.0
    shares = [round(p / sum(mean), 5) for p in mean]
    return {**said[0], **dict(zip(COLUMNS, shares, strict=True)), "source": f"taught_{said[0]['source']}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help=".jsonl.gz of each teacher")
    parser.add_argument("-o", "--out", type=Path, required=True, help=".jsonl.gz")
    options = parser.parse_args()
    with gzip.open(options.out, "wt", encoding="utf-8") as file:
        for said in zip(*map(rows, options.files), strict=True):
            file.write(json.dumps(lesson(said), ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
