"""Training and evaluation pairs, in the forms that people have them."""

from __future__ import annotations

import csv
import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from rerank_nli import InputError
from rerank_nli.pairs import Pair, read_pairs

if TYPE_CHECKING:
    from pathlib import Path

ROW = {"premise": "The gate is shut.", "hypothesis": "The gate is open.", "label": "contradiction"}
PAIR = Pair("The gate is shut.", "The gate is open.", "contradiction", None, "gates")


def _write(path: Path, rows: list[Any]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["gates.jsonl", "gates.jsonl.gz", "gates.csv", "gates.parquet"])
def test_files(name: str, tmp_path: Path) -> None:
    """The same row is the same pair in every kind of file; without a source it is the file's."""
    path = tmp_path / name
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(ROW))
            writer.writeheader()
            writer.writerow(ROW)
    elif path.suffix == ".parquet":
        pytest.importorskip("pyarrow")
        pytest.importorskip("pandas").DataFrame([ROW]).to_parquet(path)
    else:
        _write(path, [ROW])
    assert read_pairs(path) == [PAIR]


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("ENTAILMENT", "entailment"),
        ("not_entailment", "not_entailment"),
        (0, "contradiction"),
        ("2", "neutral"),
        (1.0, "entailment"),
    ],
)
def test_labels(label: object, expected: str, tmp_path: Path) -> None:
    """A label is a name in any spelling, or the number of one of the checkpoint's outputs."""
    path = _write(tmp_path / "a.jsonl", [{**ROW, "label": label}])
    assert read_pairs(path, ["contradiction", "entailment", "neutral"])[0].label == expected


def test_sentence_transformers_columns(tmp_path: Path) -> None:
    """sentence_0 is the premise and sentence_1 the hypothesis."""
    path = _write(tmp_path / "gates.jsonl", [{"sentence_0": PAIR.premise, "sentence_1": PAIR.hypothesis, "label": 0}])
    assert read_pairs(path, ["contradiction", "entailment", "neutral"]) == [PAIR]


def test_groups(tmp_path: Path) -> None:
    """A query with its passages is a pair for each passage: label 1 is entailment, 0 is not_entailment."""
    path = _write(tmp_path / "a.jsonl", [{"query": "q", "passages": ["yes", "no"], "labels": [1, 0], "source": "s"}])
    assert read_pairs(path) == [
        Pair("yes", "q", "entailment", None, "s"),
        Pair("no", "q", "not_entailment", None, "s"),
    ]


def test_a_teachers_probability(tmp_path: Path) -> None:
    """A row may have a probability of entailment in the place of a label."""
    path = _write(tmp_path / "a.jsonl", [{"premise": "p", "hypothesis": "h", "entailment": 0.25}])
    assert read_pairs(path) == [Pair("p", "h", None, 0.25, "a")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**ROW, "premise": " "}, "row 2: premise is ' '"),
        ({**ROW, "premise": None}, "row 2: premise is None"),
        ({**ROW, "label": "perhaps"}, "row 2: unknown label 'perhaps'"),
        ({**ROW, "label": 7}, "row 2: label 7 is a number"),
        ({"premise": "p", "hypothesis": "h"}, 'row 2: no "label"'),
        ({"premise": "p", "hypothesis": "h", "entailment": 1}, 'row 2: no "label"'),
        ({"query": "q", "passages": ["a"], "labels": [1, 0]}, "row 2: 1 passages, but 2 labels"),
        ({"query": "q", "passages": ["a"], "labels": [2]}, "row 2: labels of passages are 1"),
        ({"query": "q", "passages": [None], "labels": [1]}, "row 2: passage 0 is None"),
        (["premise", "hypothesis"], "row 2: expected an object"),
    ],
)
def test_bad_rows(row: object, message: str, tmp_path: Path) -> None:
    """An error names file, row and what is wrong."""
    path = _write(tmp_path / "bad.jsonl", [ROW, row])
    with pytest.raises(InputError) as error:
        read_pairs(path)
    assert str(error.value).startswith(f"{path}, {message}")


def test_bad_files(tmp_path: Path) -> None:
    """No file, an empty one, one that is no JSON and one of another kind are errors."""
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl"):
        read_pairs(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="holds no pairs"):
        read_pairs(tmp_path / "empty.jsonl")
    (tmp_path / "text.jsonl").write_text("premise, hypothesis\n")
    with pytest.raises(InputError, match="row 1: no JSON"):
        read_pairs(tmp_path / "text.jsonl")
    (tmp_path / "pairs.xlsx").write_text("")
    with pytest.raises(InputError, match=r"expected \.jsonl"):
        read_pairs(tmp_path / "pairs.xlsx")


def test_pairs_without_labels_on_request(tmp_path: Path) -> None:
    """A row with neither label nor probability is a pair where unlabelled ones are asked for, and else an error."""
    file = tmp_path / "some.jsonl"
    file.write_text('{"premise": "A cat.", "hypothesis": "A pet."}\n', encoding="utf-8")
    assert read_pairs(file, unlabelled=True) == [Pair("A cat.", "A pet.", None, None, "some")]
    with pytest.raises(InputError, match='row 1: no "label"'):
        read_pairs(file)
    file.write_text('{"premise": "A cat.", "hypothesis": "A pet.", "entailment": 2}\n', encoding="utf-8")
    with pytest.raises(InputError, match="expected a probability"):
        read_pairs(file, unlabelled=True)
