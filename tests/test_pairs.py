"""Training and evaluation pairs, in the forms that people have them."""

from __future__ import annotations

import csv
import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from rerank_nli import InputError
from rerank_nli.pairs import Judged, Pair, read_judged, read_pairs

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


@pytest.mark.parametrize(("first", "second"), [("sentence1", "sentence2"), ("sentence_0", "sentence_1")])
def test_other_names_of_the_columns(first: str, second: str, tmp_path: Path) -> None:
    """The first sentence is the premise and the second the hypothesis, by either pair of names."""
    path = _write(tmp_path / "gates.jsonl", [{second: PAIR.hypothesis, first: PAIR.premise, "label": 0}])
    assert read_pairs(path, ["contradiction", "entailment", "neutral"]) == [PAIR]
    _write(path, [{first: PAIR.premise, "label": 0}])
    with pytest.raises(InputError, match=f"row 1: expected {first} and {second} among its columns, got {first}, label"):
        read_pairs(path, ["contradiction", "entailment", "neutral"])


def test_groups(tmp_path: Path) -> None:
    """A query with its passages is a pair for each passage: label 1 is entailment, 0 is not_entailment."""
    path = _write(tmp_path / "a.jsonl", [{"query": "q", "passages": ["yes", "no"], "labels": [1, 0], "source": "s"}])
    assert read_pairs(path) == [
        Pair("yes", "q", "entailment", None, "s"),
        Pair("no", "q", "not_entailment", None, "s"),
    ]


def test_a_blank_passage(tmp_path: Path) -> None:
    """A passage of a judged query may be blank, as a retriever's may."""
    path = _write(tmp_path / "a.jsonl", [{"query": "q", "passages": ["", "yes"], "labels": [0, 1]}])
    assert read_judged(path) == [Judged("q", ["", "yes"], [0, 1], None)]


def test_groups_in_a_table(tmp_path: Path) -> None:
    """In CSV a cell holds the list as JSON; an empty one holds none."""
    path = tmp_path / "a.csv"
    path.write_text('query,passages,labels,retrieval_scores\nq,"[""yes"", ""no""]","[1, 0]",\n', encoding="utf-8")
    assert read_pairs(path) == [
        Pair("yes", "q", "entailment", None, "a"),
        Pair("no", "q", "not_entailment", None, "a"),
    ]
    path.write_text('query,passages,labels\nq,yes,"[1]"\n', encoding="utf-8")
    with pytest.raises(InputError, match="row 2: passages are 'yes': expected a list of them, in CSV as JSON"):
        read_pairs(path)


def test_two_empty_cells(tmp_path: Path) -> None:
    """A row of a table with neither label nor probability says so."""
    path = tmp_path / "a.csv"
    path.write_text("premise,hypothesis,label,entailment\np,h,,\n", encoding="utf-8")
    with pytest.raises(InputError, match='row 2: no "label", and "entailment" is'):
        read_pairs(path)


def test_forms_side_by_side(tmp_path: Path) -> None:
    """A table with rows of several forms, where each row has the columns of all, is read as JSON lines are."""
    path = tmp_path / "a.csv"
    path.write_text(
        "premise,hypothesis,label,sentence_0,sentence_1,query,passages,labels\n"
        'p,h,neutral,,,,,\n,,entailment,s,t,,,\n,,,,,q,"[""a"", ""b""]","[1, 0]"\n',
        encoding="utf-8",
    )
    assert read_pairs(path) == [
        Pair("p", "h", "neutral", None, "a"),
        Pair("s", "t", "entailment", None, "a"),
        Pair("a", "q", "entailment", None, "a"),
        Pair("b", "q", "not_entailment", None, "a"),
    ]
    path.write_text("premise,hypothesis,label,sentence_0,sentence_1\n,h,neutral,,\n", encoding="utf-8")
    with pytest.raises(InputError, match="row 2: premise is ''"):
        read_pairs(path)


def test_rows_are_lines(tmp_path: Path) -> None:
    """The number in an error is that of the line where the row ends, also after a cell of several lines."""
    path = tmp_path / "a.csv"
    path.write_text('premise,hypothesis,label\n"a\nb\nc",x,entailment\n\nq,r,perhaps\n', encoding="utf-8")
    with pytest.raises(InputError, match="row 6: unknown label 'perhaps'"):
        read_pairs(path)


def test_a_teachers_probability(tmp_path: Path) -> None:
    """A row may have a probability of entailment in the place of a label."""
    path = _write(tmp_path / "a.jsonl", [{"premise": "p", "hypothesis": "h", "entailment": 0.25}])
    assert read_pairs(path) == [Pair("p", "h", None, 0.25, "a")]


def test_a_teachers_three_probabilities(tmp_path: Path) -> None:
    """A row may have all three beside its label or in its place; rounded ones are made to sum to 1."""
    row = {"premise": "p", "hypothesis": "h", "entailment": 0.5, "neutral": 0.3, "contradiction": 0.2}
    thirds = {**row, "label": "neutral", **dict.fromkeys(("entailment", "neutral", "contradiction"), 0.33)}
    path = _write(tmp_path / "a.jsonl", [row, thirds, {**row, "neutral": None}])
    first, second, third = read_pairs(path)
    assert first == Pair("p", "h", None, None, "a", taught=(0.5, 0.3, 0.2))
    assert second.label == "neutral"
    assert second.taught == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert third == Pair("p", "h", None, 0.5, "a")
    (tmp_path / "a.csv").write_text("premise,hypothesis,label,entailment,neutral,contradiction\np,h,,.5,.3,.2\n")
    assert read_pairs(tmp_path / "a.csv") == [first]
    (tmp_path / "a.csv").write_text("premise,hypothesis,label,entailment,neutral,contradiction\np,h,,.5,,\n")
    assert read_pairs(tmp_path / "a.csv") == [third]


@pytest.mark.parametrize("columns", [(4, 1, 0), (0.9, 0.9, 0), (-0.5, 1, 0.5), ("high", 0, 0), (10**400, 0, 0)])
def test_columns_that_are_no_probabilities(columns: tuple[object, ...], tmp_path: Path) -> None:
    """Beside a label, columns of those names that are votes or words are something else; without one, an error."""
    row = dict(zip(("entailment", "neutral", "contradiction"), columns, strict=True))
    assert read_pairs(_write(tmp_path / "a.jsonl", [{**ROW, **row}]))[0].taught is None
    with pytest.raises(InputError, match='row 1: no "label", and entailment, neutral, contradiction are'):
        read_pairs(_write(tmp_path / "b.jsonl", [{**ROW, **row, "label": None}]))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**ROW, "premise": " "}, "row 2: premise is ' '"),
        ({**ROW, "premise": None}, "row 2: premise is None"),
        ({**ROW, "label": "perhaps"}, "row 2: unknown label 'perhaps'"),
        ({**ROW, "label": 7}, "row 2: label 7 is a number"),
        ({**ROW, "label": 10**400}, "row 2: label 1000"),
        ({"premise": "p", "hypothesis": "h", "entailment": 10**400}, "row 2: "),
        ({"premise": "p", "hypothesis": "h"}, 'row 2: no "label"'),
        ({"premise": "p", "hypothesis": "h", "entailment": 1}, 'row 2: no "label"'),
        ({"query": "q", "passages": ["a"], "labels": [1, 0]}, "row 2: 1 passages, but 2 labels"),
        ({"query": "q", "passages": ["a"], "labels": [2]}, "row 2: labels of passages are 1"),
        ({"query": "q", "passages": [None], "labels": [1]}, "row 2: passage 0 must be a text, "),
        ({"query": "q", "passages": ["a"]}, "row 2: labels must be a list of them, got None"),
        ({"query": "q", "passages": "ab", "labels": [1, 0]}, "row 2: passages are 'ab': expected a list of them"),
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
    """No file, an empty one, one that is no JSON, one that is damaged and one of another kind are errors."""
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl"):
        read_pairs(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="holds no pairs"):
        read_pairs(tmp_path / "empty.jsonl")
    (tmp_path / "text.jsonl").write_text("premise, hypothesis\n")
    with pytest.raises(InputError, match="row 1: no JSON"):
        read_pairs(tmp_path / "text.jsonl")
    (tmp_path / "deep.jsonl").write_text("[" * 100_000)
    with pytest.raises(InputError, match="row 1: no JSON"):
        read_pairs(tmp_path / "deep.jsonl")
    whole = _write(tmp_path / "some.jsonl.gz", [ROW]).read_bytes()
    for content in (whole[:-9], whole[:12] + b"\xff" * 40, b"{}"):
        (tmp_path / "some.jsonl.gz").write_bytes(content)
        with pytest.raises(InputError, match=r"some\.jsonl\.gz"):
            read_pairs(tmp_path / "some.jsonl.gz")
    (tmp_path / "pairs.xlsx").write_text("")
    with pytest.raises(InputError, match=r"pairs\.xlsx: expected \.jsonl"):
        read_pairs(tmp_path / "pairs.xlsx")


@pytest.mark.parametrize("labels", [["entailment", None], [1, None]])
def test_an_empty_cell_is_nothing(labels: list[Any], tmp_path: Path) -> None:
    """A table's empty cell, which is read as NaN, is no label, no probability and no source."""
    pytest.importorskip("pyarrow")
    row = {"premise": "p", "hypothesis": "h"}
    rows = [{**row, "label": label, "entailment": 0.5, "source": "s" if label else None} for label in labels]
    pytest.importorskip("pandas").DataFrame([*rows, row]).to_parquet(tmp_path / "some.parquet")
    assert read_pairs(tmp_path / "some.parquet", ["not_entailment", "entailment"], unlabelled=True) == [
        Pair("p", "h", "entailment", None, "s"),
        Pair("p", "h", None, 0.5, "some"),
        Pair("p", "h", None, None, "some"),
    ]


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
