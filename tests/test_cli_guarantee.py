"""The command that makes a promise, and the options by which other commands take it, on the bundled model."""

from __future__ import annotations

import json
from itertools import product
from typing import TYPE_CHECKING

import pytest

from rerank_nli import NLIReranker
from rerank_nli.cli import main
from rerank_nli.guarantees import Guarantee

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

THINGS = ("door", "boat", "lamp", "chair", "kettle", "bicycle", "fence")
COLOURS = ("red", "green", "blue", "white", "black")
ROWS = [
    {
        "query": f"The {thing} is {colour}.",
        "passages": [f"In the yard stands a {colour} {thing}.", f"The {thing} was sold long ago."],
        "labels": [1, 0],
    }
    for thing, colour in product(THINGS, COLOURS)
]
CLAIMS = [
    {"claim": f"The {thing} is {colour}.", "passages": [passage], "label": label}
    for thing, colour in product(THINGS, COLOURS)
    for passage, label in (
        (f"In the yard stands a {colour} {thing}.", "supported"),
        (f"The {thing} is not {colour}.", "refuted"),
    )
]
PASSAGES = ["A red boat lies at the quay.", "The boat is at sea.", "No boat here is red."]


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def lines(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def passages(tmp_path: Path) -> Path:
    path = tmp_path / "passages.txt"
    path.write_text("\n".join(PASSAGES), encoding="utf-8")
    return path


def test_a_promise_is_made_and_kept(capsys: pytest.CaptureFixture[str], tmp_path: Path, passages: Path) -> None:
    """`guarantee` writes what with_guarantee finds, and `filter --guarantee` keeps by its threshold."""
    out = tmp_path / "recall.json"
    status, said, err = run(capsys, "guarantee", lines(tmp_path / "rows.jsonl", ROWS), "-o", out, "--recall", 0.9)
    expected = NLIReranker().with_guarantee(ROWS, recall=0.9)
    assert (status, err, Guarantee.load(out)) == (0, "", expected.guarantee)
    assert f"threshold {Guarantee.load(out).threshold:.4f}: recall of passages at least 0.9" in said
    query = "The boat is red."
    status, said, _ = run(capsys, "filter", "--json", "--query", query, "--guarantee", out, passages)
    assert (status, json.loads(said)) == (0, expected.filter(query, PASSAGES).to_dict())
    assert json.loads(said)["threshold"] != 0.5


def test_a_promise_on_verdicts(capsys: pytest.CaptureFixture[str], tmp_path: Path, passages: Path) -> None:
    """Of claims with a label the promise is on `verify`, whose threshold it then is."""
    out = tmp_path / "precision.json"
    data = lines(tmp_path / "claims.jsonl", CLAIMS)
    status, said, _ = run(capsys, "guarantee", data, "-o", out, "--precision", 0.8, "--json")
    assert (status, json.loads(said)) == (0, Guarantee.load(out).to_dict())
    status, said, _ = run(capsys, "verify", "--json", "--claim", "The boat is red.", "--guarantee", out, passages)
    expected = NLIReranker(guarantee=out).verify("The boat is red.", PASSAGES)
    assert (status, json.loads(said)) == (0, expected.to_dict())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recall", "0.9", "-o", "OUT", "FEW"], "at least 29"),
        (["-o", "OUT", "ROWS"], "exactly one"),
        (["--recall", "2", "-o", "OUT", "ROWS"], "recall=2.0: expected"),
        (["--recall", "0.9", "-o", "ABSENT", "ROWS"], "is no folder"),
    ],
)
def test_a_promise_that_cannot_be_made(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], message: str
) -> None:
    """Too small a sample, no aim, a number out of range, no folder: one line that says so, and no file."""
    paths = {
        "FEW": lines(tmp_path / "few.jsonl", ROWS[:20]),
        "ROWS": lines(tmp_path / "rows.jsonl", ROWS),
        "OUT": tmp_path / "out.json",
        "ABSENT": tmp_path / "absent" / "out.json",
    }
    status, out, err = run(capsys, "guarantee", *(paths.get(a, a) for a in arguments))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not paths["OUT"].exists()


def test_a_promise_for_other_settings(capsys: pytest.CaptureFixture[str], tmp_path: Path, passages: Path) -> None:
    """A guarantee is refused where another score kind is asked for."""
    out = tmp_path / "recall.json"
    NLIReranker().with_guarantee(ROWS, recall=0.9).guarantee.save(out)  # type: ignore[union-attr]
    status, _, err = run(capsys, "filter", "--score", "margin", "--query", "x", "--guarantee", out, passages)
    assert status == 2
    assert "kind" in err


def test_a_promise_of_the_other_kind(capsys: pytest.CaptureFixture[str], tmp_path: Path, passages: Path) -> None:
    """A promise on verdicts says nothing of passages, nor one on these of verdicts: an error without a threshold."""
    verdicts, kept = tmp_path / "precision.json", tmp_path / "recall.json"
    NLIReranker().with_guarantee(CLAIMS, precision=0.8).guarantee.save(verdicts)  # type: ignore[union-attr]
    NLIReranker().with_guarantee(ROWS, recall=0.9).guarantee.save(kept)  # type: ignore[union-attr]
    for verb, statement, file in (
        *(("filter", "--query", verdicts), ("verify", "--claim", kept)),
        ("check", "--answer", kept),
    ):
        asked = (verb, statement, "The boat is red.", "--guarantee", file, passages)
        status, out, err = run(capsys, *asked)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert "give a --threshold" in err
        assert run(capsys, *asked, "--threshold", 0.5)[0] == 0


def test_a_promise_without_calibration(capsys: pytest.CaptureFixture[str], tmp_path: Path, passages: Path) -> None:
    """What `filter` is told of a calibration `guarantee` can be told too; another is refused in a line."""
    out = tmp_path / "recall.json"
    data = lines(tmp_path / "rows.jsonl", ROWS)
    assert run(capsys, "guarantee", data, "-o", out, "--recall", 0.9, "--calibration", "none")[0] == 0
    asked = ("filter", "--query", "The boat is red.", "--guarantee", out, passages)
    assert run(capsys, *asked, "--calibration", "none")[0] == 0
    status, _, err = run(capsys, *asked)
    assert (status, err.count("\n"), len(err) < 1_000) == (2, 1, True)


def test_join(capsys: pytest.CaptureFixture[str], passages: Path) -> None:
    """`--join 2` is that of the Python API."""
    claim = "The boat is red and lies at the quay."
    options = ("--json", "--join", "2", "--threshold", "0.9", "--claim", claim)
    status, out, _ = run(capsys, "verify", *options, passages)
    expected = NLIReranker().verify(claim, PASSAGES, 0.9, join=2)
    assert (status, json.loads(out)) == (0, expected.to_dict())


def test_no_calibration(capsys: pytest.CaptureFixture[str], passages: Path) -> None:
    """`--calibration none` is None in the Python API."""
    claim = "The boat is red."
    status, out, _ = run(capsys, "rank", "--json", "--calibration", "none", "--query", claim, passages)
    expected = NLIReranker(calibration=None).rank(claim, PASSAGES)
    assert (status, json.loads(out)) == (0, expected.to_dict())


def test_a_row_that_cannot_be_read(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A row of another form is one line that names file and row, and no file is written."""
    data = lines(tmp_path / "data.jsonl", [ROWS[0], {**ROWS[1], "labels": [2, 0]}])
    status, _, err = run(capsys, "guarantee", data, "--recall", 0.9, "-o", tmp_path / "out.json")
    assert status != 0
    assert f"{data}, row 2: labels of passages are 1" in err
    assert not (tmp_path / "out.json").exists()
