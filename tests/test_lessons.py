"""Lessons: what two teachers say of pairs, kept without their texts, is given to the same pairs again."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "make_lessons.py"
SAID: list[dict[str, Any]] = [  # by one teacher and by another
    {"hypothesis": "It rains.", "source": "mnli", "label": "neutral", "p": ([0.6, 0.4, 0.0], [0.2, 0.6, 0.2])},
    {
        "hypothesis": "Does it rain?",
        "source": "qnli",
        "label": "not_entailment",
        "p": ([0.2, 0.2, 0.6], [0.2, 0.6, 0.2]),
    },
    {"hypothesis": "Rain falls.", "source": "turned", "p": ([0.3, 0.2, 0.5], [0.3, 0.2, 0.5])},
    {"hypothesis": "No rain.", "source": "agreeing", "p": ([0.0, 0.0, 1.0], [0.0, 0.0, 1.0])},
]
MEANS = [[0.4, 0.5, 0.1], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0], [0.0, 1.0, 0.0]]


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def test_lessons_are_kept_and_given(tmp_path: Path) -> None:
    """A labelled pair gets the mean; of a question, and of what cannot contradict, no contradiction is left."""
    pairs = [{"premise": "Water is in the air.", **{k: v for k, v in row.items() if k != "p"}} for row in SAID]
    told = [
        _write(
            tmp_path / f"teacher{n}.jsonl.gz",
            [
                pair | dict(zip(("entailment", "neutral", "contradiction"), row["p"][n], strict=True))
                for pair, row in zip(pairs, SAID, strict=True)
            ],
        )
        for n in (0, 1)
    ]
    asked = _write(tmp_path / "asked.jsonl.gz", [*pairs, {**pairs[0], "premise": "Nobody was told of this."}])
    npz, given = tmp_path / "lessons.npz", tmp_path / "given.jsonl.gz"
    subprocess.run([sys.executable, SCRIPT, "keep", *told, "-o", npz], check=True)
    subprocess.run([sys.executable, SCRIPT, "give", npz, asked, "-o", given], check=True)
    with gzip.open(given, "rt", encoding="utf-8") as file:
        found = [json.loads(line) for line in file]
    assert [row["source"] for row in found] == [f"taught_{row['source']}" for row in SAID]
    assert [row.get("label") for row in found] == [row.get("label") for row in SAID]
    for row, mean in zip(found, MEANS, strict=True):
        assert [row[c] for c in ("entailment", "neutral", "contradiction")] == pytest.approx(mean, abs=0.01)
    assert b"Water" not in npz.read_bytes()
