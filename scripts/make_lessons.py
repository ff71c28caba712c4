"""What teachers say of pairs, kept without their texts, and given to them again.

Run: python scripts/make_lessons.py --help.

keep    the mean of the probabilities that `rerank-nli score` wrote by each teacher of the same pairs (Hinton et al.
        2015) as an .npz: of each pair a hash, P(entailment) and P(contradiction), and no text; with those that an .npz
        of before has
give    those of some pairs that an .npz has a lesson for, with its three probabilities, their source as one that was
        taught

make_pairs.py's `turned` and `agreeing` pairs are known not to contradict: there P(contradiction) goes to the other two,
in proportion. Nor does a passage deny a question: beside one it goes to P(neutral).
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from prove_apart import rows

if TYPE_CHECKING:
    from collections.abc import Sequence

COLUMNS = ("entailment", "neutral", "contradiction")
MOST = 255  # stands for a probability of 1


def key(row: dict[str, Any]) -> int:
    """64 bits that tell a pair from others."""
    text = json.dumps([row["premise"], row["hypothesis"]])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def keep(files: Sequence[Path], out: Path, before: Path | None = None) -> None:
    means = known(before) if before else {}
    for said in zip(*map(rows, files), strict=True):
        if len({key(row) for row in said}) > 1:
            message = f"the files hold different pairs: {said[0]['premise']!r:.60} and {said[1]['premise']!r:.60}"
            raise SystemExit(message)
        means[key(said[0])] = [sum(row[c] for row in said) / len(said) for c in ("entailment", "contradiction")]
    keys = sorted(means)
    rounded = np.rint(np.array([means[k] for k in keys]) * MOST).astype(np.uint8)
    np.savez_compressed(out, keys=np.array(keys, dtype=np.uint64), probabilities=rounded)


def known(lessons: Path) -> dict[int, list[float]]:
    """P(entailment) and P(contradiction) by the hash of their pair."""
    with np.load(lessons) as kept:
        return dict(zip(kept["keys"].tolist(), (kept["probabilities"] / MOST).tolist(), strict=True))


def give(files: Sequence[Path], lessons: Path, out: Path) -> None:
    means = known(lessons)
    with gzip.open(out, "wt", encoding="utf-8") as file:
        for row in (row for path in files for row in rows(path)):
            if said := means.get(key(row)):
                file.write(json.dumps(lesson(row, *said), ensure_ascii=False) + "\n")


def lesson(row: dict[str, Any], entailment: float, contradiction: float) -> dict[str, Any]:
    """The pair with its probabilities and its source as one that was taught."""
    said = [entailment, max(0.0, 1 - entailment - contradiction), contradiction]
    if row["hypothesis"].rstrip().endswith("?"):
        said[1:] = [1 - entailment, 0.0]
    elif row["source"] in ("turned", "agreeing"):
        said[2] = 0.0
    said[1] += not sum(said)  # all of it was P(contradiction)
    shares = [round(p / sum(said), 5) for p in said]
    return {**row, **dict(zip(COLUMNS, shares, strict=True)), "source": f"taught_{row['source']}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("keep")
    command.add_argument("files", nargs="+", type=Path, help=".jsonl.gz of each teacher")
    command.add_argument("--before", type=Path, help=".npz whose lessons are kept too")
    command.add_argument("-o", "--out", type=Path, required=True, help=".npz")
    command = commands.add_parser("give")
    command.add_argument("lessons", type=Path, help=".npz")
    command.add_argument("files", nargs="+", type=Path, help=".jsonl.gz of pairs")
    command.add_argument("-o", "--out", type=Path, required=True, help=".jsonl.gz")
    options = parser.parse_args()
    if options.command == "keep":
        keep(options.files, options.out, options.before)
    else:
        give(options.files, options.lessons, options.out)


if __name__ == "__main__":
    main()
