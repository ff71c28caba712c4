"""Scoring jobs: each row once, with the library's scores, whatever ends them."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import signal
import subprocess
import sys
import time
import tracemalloc
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from texts import CLAIMS, stated

from rerank_nli import FunctionEngine, InputError, NLIReranker, score_columns, score_file
from rerank_nli.rows import form_of, read_rows
from rerank_nli.workers import in_processes, threads_each

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from rerank_nli.workers import Part

WAIT = 120  # seconds, after which something hangs
PART = 2048
NAMES = ("entailment", "neutral", "contradiction")
FORMS = ("jsonl", "jsonl.gz", "csv", "csv.gz", "parquet")
PROGRAM = "import sys; from rerank_nli.cli import main; raise SystemExit(main(sys.argv[1:]))"


def rows(count: int, distinct: int = 50) -> list[dict[str, Any]]:
    """Rows with pairs that state what they are worth."""
    worth = ((i * 7 % distinct) / distinct for i in range(count))
    return [
        {"id": i, "premise": f"e={0.9 * e:.6f},c=0.1", "hypothesis": f"größer {i % 3} 🙂"} for i, e in enumerate(worth)
    ]


def stop_once_done(done: int, _: int) -> None:
    """A report that ends the job after its first part."""
    if done:
        raise KeyboardInterrupt


def write(path: Path, given: Sequence[Any]) -> Path:
    path.write_text("".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in given), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(path)]


def scorer(asked: list[tuple[str, str]] | None = None, stop: int | None = None) -> NLIReranker:
    """A reranker that notes what it is asked, and fails once it was asked for so many pairs."""

    def fn(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        if asked is not None:
            asked.extend(pairs)
            if stop is not None and len(asked) > stop:
                raise KeyboardInterrupt
        return stated(pairs)

    return NLIReranker(FunctionEngine(fn), cache_size=0)


def run(*arguments: str | Path, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, whose files may have so many bytes."""
    before = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n" if limit else ""
    command = [sys.executable, "-c", before + PROGRAM, "score", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=WAIT)


@pytest.mark.parametrize("into", FORMS)
@pytest.mark.parametrize("form", FORMS)
def test_all_forms(tmp_path: Path, form: str, into: str) -> None:
    """Rows come out of every form into every form in their order, with all columns and the scores of `predict`."""
    if "parquet" in (form, into):
        pytest.importorskip("pyarrow")
    given = rows(10)
    source = write(tmp_path / "rows.jsonl", given)
    if form != "jsonl":  # a job makes the other forms
        source = tmp_path / f"rows.{form}"
        score_file(tmp_path / "rows.jsonl", source, scorer(), prefix="first_")
    out = tmp_path / f"out.{into}"
    assert score_file(source, out, scorer(), prefix="then_") == 10
    pairs = [(row["premise"], row["hypothesis"]) for row in given]
    expected = scorer().predict(pairs, output="dicts")
    found = read(out)
    as_text = "csv" in form or "csv" in into
    assert [row["id"] for row in found] == [str(row["id"]) if as_text else row["id"] for row in given]
    assert [(row["premise"], row["hypothesis"]) for row in found] == pairs
    for prefix in ("then_", *(["first_"] if form != "jsonl" else [])):
        assert [{name: float(row[prefix + name]) for name in NAMES} for row in found] == expected
    assert os.listdir(tmp_path).count(f"out.{into}.parts") == 0  # noqa: PTH208


def test_scores_are_those_of_one_call(tmp_path: Path) -> None:
    """On the bundled model, three parts hold bit by bit what one call of `predict` for all rows gives."""
    texts = [*CLAIMS[0], *CLAIMS[1], *CLAIMS[2]]
    pairs = [(texts[i % 9], texts[i // 9 % 3 * 3]) for i in range(2 * PART + 100)]
    given = [{"sentence1": premise, "sentence2": hypothesis} for premise, hypothesis in pairs]
    reranker = NLIReranker(cache_size=0)
    score_file(write(tmp_path / "in.jsonl", given), tmp_path / "out.jsonl", reranker)
    expected = reranker.predict(pairs, output="dicts")
    assert read(tmp_path / "out.jsonl") == [row | scores for row, scores in zip(given, expected, strict=True)]


@pytest.mark.parametrize("into", ["jsonl", "csv", "parquet"])
def test_queries(tmp_path: Path, into: str) -> None:
    """A query with its passages gains lists in the passages' order, equal to those of `rank_many`."""
    if into == "parquet":
        pytest.importorskip("pyarrow")
    given: list[dict[str, Any]] = [
        {"query": "A.", "passages": ["e=0.1,c=0.1", "e=0.9,c=0.0", "e=0.5,c=0.2"]},
        {"query": "B.", "passages": []},
        {"query": "C.", "passages": ["e=0.3,c=0.3", " "]},
    ]
    out = tmp_path / f"out.{into}"
    score_file(write(tmp_path / "in.jsonl", given), out, scorer())
    if into == "csv":  # and back: a cell of CSV holds a list as JSON
        score_file(out, tmp_path / "again.csv", scorer(), prefix="again_")
        out = tmp_path / "again.csv"
    ranked = scorer().rank_many([row["query"] for row in given], [row["passages"] for row in given])
    for name in ("score", *NAMES):
        expected = [[getattr(p, name) for p in sorted(one, key=lambda p: p.index)] for one in ranked]
        for prefix in ("", *(["again_"] if into == "csv" else [])):
            found = [row[prefix + name] for row in read(out)]
            assert [json.loads(cell) if into == "csv" else cell for cell in found] == expected


def test_a_query_with_a_passage_under_other_names(tmp_path: Path) -> None:
    """A query with one passage gains one score, from the columns that are named, under the names that are asked for."""
    given = [{"q": "Is it?", "text": "e=0.75,c=0.0", "score": 7}]
    columns = {"query": "q", "passage": "text"}
    score_file(write(tmp_path / "in.jsonl", given), tmp_path / "out.jsonl", scorer(), columns=columns, prefix="nli_")
    (found,) = read(tmp_path / "out.jsonl")
    assert list(found) == ["q", "text", "score", "nli_score", *(f"nli_{name}" for name in NAMES)]
    assert (found["score"], found["nli_score"]) == (7, pytest.approx(0.75, abs=1e-6))


def test_a_model_of_two_labels_tells_one_number(tmp_path: Path) -> None:
    """What a model of two labels does not tell is null, and an empty cell of CSV."""
    engine = FunctionEngine(lambda pairs: np.zeros((len(pairs), 2)), ["not_entailment", "entailment"])
    source = write(tmp_path / "in.jsonl", rows(1))
    for name, empty in (("out.jsonl", None), ("out.csv", "")):
        score_file(source, tmp_path / name, NLIReranker(engine))
        (found,) = read(tmp_path / name)
        assert [float(found["entailment"]), found["neutral"], found["contradiction"]] == [0.5, empty, empty]


def test_an_ended_job_goes_on(tmp_path: Path) -> None:
    """A job that ends in its second part scores, when it is called again, the second and third and not the first."""
    given = rows(2 * PART + 10, distinct=10_000)
    source, out = write(tmp_path / "in.jsonl", given), tmp_path / "out.jsonl"
    told: list[tuple[int, int]] = []
    with pytest.raises(KeyboardInterrupt):
        score_file(source, out, scorer([], stop=PART))
    assert not out.exists()
    asked: list[tuple[str, str]] = []
    score_file(source, out, scorer(asked), report=lambda done, total: told.append((done, total)))
    assert {premise for premise, _ in asked} == {row["premise"] for row in given[PART:]}
    assert told[0] == (PART, len(given))
    assert told[-1] == (len(given), len(given))
    score_file(source, tmp_path / "whole.jsonl", scorer())
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl", "whole.jsonl"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_kill_nine(tmp_path: Path) -> None:
    """`rerank-nli score --processes 2`, killed in the middle, leaves no process; run again, it has the same bytes."""
    given = [{"premise": CLAIMS[i % 3][1], "hypothesis": CLAIMS[i % 2][0]} for i in range(2 * PART)]
    given += [{"premise": f"The ferry carried {i} people.", "hypothesis": "It is full."} for i in range(150)]
    source, out, whole = write(tmp_path / "in.jsonl", given), tmp_path / "out.jsonl.gz", tmp_path / "whole.jsonl.gz"
    command = [sys.executable, "-c", PROGRAM, "score", str(source), "-o", str(out), "--processes", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    parts = out.with_name(f"{out.name}.parts")
    deadline = time.monotonic() + WAIT
    while len(list(parts.glob("*-*.json"))) < 2:
        assert time.monotonic() < deadline
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.02)  # it must not end before
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=WAIT)  # until the last process that has its pipes is gone
    assert not out.exists()
    kept = sorted(parts.glob("*-*.json"))
    assert 2 <= len(kept) < 3
    for path in (out, whole):
        ran = run(source, "-o", path)
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"{path}: {len(given)} rows\n", "")
    assert out.read_bytes() == whole.read_bytes()
    assert not parts.exists()


def fatal(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
    if any("fatal" in premise for premise, _ in pairs):
        os.kill(os.getpid(), signal.SIGKILL)
    return stated(pairs)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_worker_that_is_killed_is_told(tmp_path: Path) -> None:
    """A killed worker ends the job in one error; what the others scored is kept, and the job goes on from there."""
    given = rows(2 * PART)
    given[-1]["premise"] += " fatal"
    source, out = write(tmp_path / "in.jsonl", given), tmp_path / "out.jsonl"
    with pytest.raises(ChildProcessError, match="ended from outside"):
        score_file(source, out, scorer(), spread=in_processes(NLIReranker(FunctionEngine(fatal)), 1))
    kept = sorted(path.name for path in (tmp_path / "out.jsonl.parts").glob("*-*.json"))
    assert kept == ["000000000000-000000002048.json"]
    assert score_file(source, out, scorer()) == len(given)
    assert [row["id"] for row in read(out)] == list(range(len(given)))


def test_processes_share_the_cores() -> None:
    """The threads of all processes together are no more than the processors, and each has one."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    assert threads_each(1) == processors
    assert all(1 <= threads_each(count) <= max(1, processors // count) for count in range(1, 2 * processors))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit for the size of files")
@pytest.mark.parametrize(("limit", "parts"), [(50_000, 0), (400_000, 2)], ids=["a part", "the output"])
def test_a_full_disk(tmp_path: Path, limit: int, parts: int) -> None:
    """A part or an output that cannot be written ends in one line; with room, the same command has the same bytes."""
    given = [{"id": i, "premise": CLAIMS[i % 3][1], "hypothesis": CLAIMS[i % 2][0]} for i in range(PART + 1_000)]
    source, out, whole = write(tmp_path / "in.jsonl", given), tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    ran = run(source, "-o", out, limit=limit)
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert "File too large; finished parts are kept, so mend that and run the same again" in ran.stderr
    assert not out.exists()
    assert not list(tmp_path.rglob("*.tmp"))
    assert len(list((tmp_path / "out.jsonl.parts").glob("*-*.json"))) == parts
    assert run(source, "-o", out).returncode == 0
    score_file(source, whole, NLIReranker(cache_size=0))
    assert out.read_bytes() == whole.read_bytes()


def test_parts_of_another_job_are_refused(tmp_path: Path) -> None:
    """Another input, model, setting or column is refused, says what differs, and leaves the parts as they are."""
    source, out = write(tmp_path / "in.jsonl", rows(PART + 10, distinct=10_000)), tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        score_file(source, out, scorer([], stop=PART))
    kept = {path.name: path.read_bytes() for path in (tmp_path / "out.jsonl.parts").iterdir()}
    other = write(tmp_path / "other.jsonl", rows(PART + 11))
    swapped = {"premise": "hypothesis", "hypothesis": "premise"}
    engine = scorer().engine
    for reranker, differs, settings in (
        (NLIReranker(FunctionEngine(stated)), "weights", {}),
        (NLIReranker(engine, score="margin"), "kind 'entailment', now 'margin'", {}),
        (NLIReranker(engine, template="{query}!"), "template", {}),
        (scorer(), "columns", {"columns": swapped}),
    ):
        with pytest.raises(InputError, match=f"parts of another job .*{differs}"):
            score_file(source, out, reranker, **settings)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"parts of another job \(input"):
        score_file(other, out, scorer())
    assert {path.name: path.read_bytes() for path in (tmp_path / "out.jsonl.parts").iterdir()} == kept


def test_two_jobs_on_one_output(tmp_path: Path) -> None:
    """A job on the parts of another that still runs is refused, and that one ends as if alone."""
    source, out = write(tmp_path / "in.jsonl", rows(PART + 5)), tmp_path / "out.jsonl"
    refused: list[str] = []

    def report(done: int, _: int) -> None:
        if done == PART:
            with pytest.raises(InputError) as caught:
                score_file(source, out, scorer())
            refused.append(str(caught.value))

    assert score_file(source, out, scorer(), report=report) == PART + 5
    assert len(refused) > 0
    assert all("another process works on" in message for message in refused)
    assert len(read(out)) == PART + 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_what_is_in_the_way_stays(tmp_path: Path) -> None:
    """An output that is there, and a folder that is no job's, are refused and left alone."""
    source = write(tmp_path / "in.jsonl", rows(3))
    (tmp_path / "out.jsonl").write_text("mine")
    with pytest.raises(InputError, match=r"out\.jsonl is there already"):
        score_file(source, tmp_path / "out.jsonl", scorer())
    (tmp_path / "new.jsonl.parts").mkdir()
    (tmp_path / "new.jsonl.parts" / "notes").write_text("mine")
    with pytest.raises(InputError, match=r"new\.jsonl\.parts is in the way"):
        score_file(source, tmp_path / "new.jsonl", scorer())
    assert (tmp_path / "out.jsonl").read_text() == "mine"
    assert (tmp_path / "new.jsonl.parts" / "notes").read_text() == "mine"


def test_a_part_that_is_gone_is_missed(tmp_path: Path) -> None:
    """An output is not made of parts with a gap: one that is taken away meanwhile is said."""
    source, out = write(tmp_path / "in.jsonl", rows(2 * PART)), tmp_path / "out.jsonl"

    def report(done: int, total: int) -> None:
        if done == total:
            (tmp_path / "out.jsonl.parts" / "000000000000-000000002048.json").unlink()

    with pytest.raises(InputError, match="row 1 is missing"):
        score_file(source, out, scorer(), report=report)
    assert not out.exists()
    assert score_file(source, out, scorer()) == 2 * PART


def test_an_input_that_changes_is_refused(tmp_path: Path) -> None:
    """Rows that are added while a job runs make no output of which half is old."""
    source, out = write(tmp_path / "in.jsonl", rows(3)), tmp_path / "out.jsonl"

    def report(*_: int) -> None:
        with source.open("a") as file:
            file.write('{"premise": "a", "hypothesis": "b"}\n')

    with pytest.raises(InputError, match="was changed while it was scored"):
        score_file(source, out, scorer(), report=report)
    assert not out.exists()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("nonsense", "row 2: no JSON"),
        ("[1]", "row 2: expected an object"),
        ({"premise": "a"}, "row 2: hypothesis is None: expected a text"),
        ({"premise": 3, "hypothesis": "a"}, "row 2: premise is 3: expected a text"),
        ({"premise": "a", "hypothesis": "word " * 500}, "row 2: .* takes 500 tokens, and the model takes 480"),
        ({"premise": "a", "hypothesis": "b", "neutral": 1}, "row 2: there is a column 'neutral' already: .* prefix"),
    ],
)
def test_bad_rows_are_found_before_the_work(tmp_path: Path, row: object, message: str) -> None:
    """A row that cannot be scored is named by its line before any is scored."""
    asked: list[tuple[str, str]] = []
    source = write(tmp_path / "in.jsonl", [rows(1)[0], row, rows(1)[0]])
    with pytest.raises(InputError, match=message) as error:
        score_file(source, tmp_path / "out.jsonl", scorer(asked))
    assert str(error.value).startswith(f"{source}, row 2: ")
    assert (asked, sorted(path.name for path in tmp_path.iterdir())) == ([], ["in.jsonl"])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("in.jsonl", "\n \n", "holds no rows"),
        ("in.csv", "premise,hypothesis\n", "holds no rows"),
        ("in.csv", "premise,hypothesis,premise\na,b,c\n", "two columns are called 'premise'"),
        ("in.csv", "premise,hypothesis\na,b\na,b,c\n", "row 3: it has more cells than the header, which names 2"),
        ("in.csv", "query,passages\na,b\n", "row 2: passages are 'b': expected a list of them, in CSV as JSON"),
        ("in.jsonl", '{"query": " ", "passage": "a"}\n', "row 1: query must be a text that is not blank"),
        ("in.jsonl", '{"query": "a", "passages": [1]}\n', "row 1: passage 0 must be a text"),
        ("in.jsonl", '{"text": "a"}\n', "row 1: expected the columns premise and hypothesis or .*, got text"),
        ("in.txt", "a\n", r"in.txt: expected \.jsonl, \.csv, \.parquet"),
        ("in.parquet", "no table", r"in\.parquet: "),
    ],
)
def test_bad_files(tmp_path: Path, name: str, text: str, message: str) -> None:
    """A file without rows, with columns that clash or of no known form ends in an error that names it."""
    if name == "in.parquet":
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message) as error:
        score_file(tmp_path / name, tmp_path / "out.jsonl", scorer())
    assert str(tmp_path / name) in str(error.value)


def test_no_parquet_to_parquet(tmp_path: Path) -> None:
    """What is called Parquet and is none ends in the same error where Parquet is to be written."""
    pytest.importorskip("pyarrow")
    (tmp_path / "in.parquet").write_bytes(b"")
    with pytest.raises(InputError, match=r"in\.parquet: "):
        score_file(tmp_path / "in.parquet", tmp_path / "out.parquet", scorer())


@pytest.mark.parametrize("columns", [None, {"premise": "a", "hypothesis": "b"}])
def test_columns_that_are_numbers(columns: dict[str, str] | None) -> None:
    """A table whose columns have numbers for names lacks the named ones, and the error says what it has."""
    with pytest.raises(InputError, match="0, 1"):
        score_columns(scorer(), {0: ["a"], 1: ["b"]}, columns)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"premise": "id"}, "columns were chosen for premise: expected premise and hypothesis or"),
        ({"premise": "none", "hypothesis": "id"}, "there is no column 'none': there are id, premise, hypothesis"),
    ],
)
def test_bad_columns(tmp_path: Path, columns: dict[str, str], message: str) -> None:
    """Columns that are chosen must belong together, and be there."""
    with pytest.raises(InputError, match=message):
        score_file(write(tmp_path / "in.jsonl", rows(1)), tmp_path / "out.jsonl", scorer(), columns=columns)


def test_what_no_passage_could_be_ranked_by_is_found_before_the_work(tmp_path: Path) -> None:
    """A query that its template makes too long, or that the model reads nothing in, is named before any is scored."""
    fine = {"query": "A.", "passage": "e=0.5,c=0.1"}
    asked: list[tuple[str, str]] = []
    engine = scorer(asked).engine
    long = NLIReranker(engine, template="word " * 470 + "{query}", cache_size=0)
    source = write(tmp_path / "in.jsonl", [fine] * PART + [fine | {"query": "word " * 20}])
    with pytest.raises(InputError, match=f"row {PART + 1}: query 0 takes 490 of the model's 512 tokens"):
        score_file(source, tmp_path / "out.jsonl", long)
    source = write(tmp_path / "in.jsonl", [fine, fine | {"query": "\u200b"}])
    with pytest.raises(InputError, match="row 2: query 0 is blank to the model"):
        score_file(source, tmp_path / "out.jsonl", NLIReranker(cache_size=0))
    assert (asked, sorted(path.name for path in tmp_path.iterdir())) == ([], ["in.jsonl"])


@pytest.mark.parametrize("name", ["a.csv.parquet.zst", "a.jsonl.zst", "a.parquet.gz", "a.csv.gz.gz", "a"])
def test_a_name_says_its_form_at_its_end(tmp_path: Path, name: str) -> None:
    """What a file is called before its last suffix is no form, so that no file is written in another than it says."""
    with pytest.raises(InputError, match=r"expected \.jsonl, \.csv, \.parquet"):
        score_file(write(tmp_path / "in.jsonl", rows(1)), tmp_path / name, scorer())
    assert form_of(tmp_path / "a.csv.parquet") == ".parquet"
    assert form_of(tmp_path / "a.parquet.csv.gz") == ".csv"


def test_text_of_all_kinds(tmp_path: Path) -> None:
    """Line ends, quotes, a byte order mark, emoji and half of a surrogate pair come through JSON lines as they were."""
    texts = ["a\nb\r\n\u2028c", 'say "no", and', "🙂 ﷺ", "old\rends\r", "half \ud83d", "\x00\x1f"]
    given = [{"premise": text, "hypothesis": "e=0.5,c=0.1", "nested": {"ü": [None, 1.5]}} for text in texts]
    source = write(tmp_path / "in.jsonl", given)
    source.write_bytes(b"\xef\xbb\xbf" + source.read_bytes())
    score_file(source, tmp_path / "out.jsonl", scorer())
    assert [{name: row[name] for name in given[0]} for row in read(tmp_path / "out.jsonl")] == given
    score_file(write(tmp_path / "some.jsonl", given[:4]), tmp_path / "some.csv", scorer())
    assert [row["premise"] for row in read(tmp_path / "some.csv")] == texts[:4]
    name = write(tmp_path / "name.jsonl", [given[0] | {"half \ud83d": 1}])
    with pytest.raises(InputError, match=r"row 1: 'half \\ud83d' holds half of a surrogate pair.*: write .jsonl"):
        score_file(name, tmp_path / "name.csv", scorer())
    with pytest.raises(InputError, match=r"row 5: 'half \\ud83d' holds half of a surrogate pair.*: write .jsonl"):
        score_file(source, tmp_path / "all.csv", scorer())


def test_another_window_is_another_job(tmp_path: Path, bundled: NLIReranker) -> None:
    """What the bundled model reads whole it reads in windows where they are asked for, even those of its own size."""
    source = write(tmp_path / "in.jsonl", rows(PART + 1))
    engine = bundled.engine
    out = tmp_path / "out.jsonl"

    with pytest.raises(KeyboardInterrupt):
        score_file(source, out, NLIReranker(engine), report=stop_once_done)
    with pytest.raises(InputError, match=r"parts of another job \(window of premises None, now 96\)"):
        score_file(source, out, NLIReranker(engine, window=engine.window))


def test_parquet_keeps_its_kinds(tmp_path: Path) -> None:
    """A Parquet table keeps kinds, nulls and metadata of all its columns; JSON has dates and decimals as text."""
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    table = pa.table(
        {
            "premise": ["e=0.5,c=0.1"] * 3,
            "hypothesis": pa.array(["a", "b", "a"]).dictionary_encode(),
            "when": pa.array([1, None, 3], pa.timestamp("ns")),
            "price": pa.array([Decimal("1.50"), None, Decimal("2.25")]),
            "day": [dt.date(2020, 1, 2), None, None],
            "raw": pa.array([b"\xff", None, b""]),
            "nan": [float("nan"), 1.0, None],
            "tags": [["x"], [], None],
        }
    ).replace_schema_metadata({"about": "mine"})
    pq.write_table(table, tmp_path / "in.parquet")
    score_file(tmp_path / "in.parquet", tmp_path / "out.parquet", scorer())
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.select(table.column_names).to_pydict()["when"] == table.to_pydict()["when"]
    assert found.drop(["nan", *NAMES]).equals(table.drop(["nan"]))
    assert found.schema.metadata[b"about"] == b"mine"
    assert [str(found.schema.field(name).type) for name in NAMES] == ["double"] * 3
    with pytest.raises(InputError, match=r"row 1: b'\\xff' has no form in JSON or CSV"):
        score_file(tmp_path / "in.parquet", tmp_path / "out.jsonl", scorer())
    pq.write_table(table.drop(["raw", "when"]), tmp_path / "plain.parquet")
    score_file(tmp_path / "plain.parquet", tmp_path / "out.jsonl", scorer())
    first = read(tmp_path / "out.jsonl")[0]
    assert (first["price"], first["day"], first["nan"], first["tags"]) == ("1.50", "2020-01-02", None, ["x"])


def test_numbers_that_json_has_not(tmp_path: Path) -> None:
    """NaN is null, within lists too; an infinite number, and a date beyond Python's, are refused with their row."""
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    source, out = tmp_path / "in.parquet", tmp_path / "out.jsonl"
    pair = {"premise": ["e=0.5,c=0.1"], "hypothesis": ["a"]}
    pq.write_table(pa.table({**pair, "vector": [[float("nan"), 1.0]]}), source)
    score_file(source, out, scorer())
    assert read(out)[0]["vector"] == [None, 1.0]
    out.unlink()
    for column, message in (
        ([float("inf")], "row 1: inf has no form in JSON"),
        (pa.array([10**15], pa.timestamp("ms")), r"in\.parquet: "),
    ):
        pq.write_table(pa.table({**pair, "x": column}), source)
        with pytest.raises(InputError, match=message):
            score_file(source, out, scorer())


def test_json_into_parquet(tmp_path: Path) -> None:
    """Columns that come later, nulls and whole numbers beside others fit one table; texts beside numbers do not."""
    pytest.importorskip("pyarrow")
    pair = {"premise": "e=0.5,c=0.1", "hypothesis": "a"}
    early = [{**pair, "a": None}] * PART
    source = write(tmp_path / "in.jsonl", [*early, {**pair, "a": 1}, {**pair, "a": 0.5, "b": ["x"]}])
    score_file(source, tmp_path / "out.parquet", scorer())
    found = read(tmp_path / "out.parquet")
    assert [row["a"] for row in found] == [None] * PART + [1.0, 0.5]
    assert found[-1]["b"] == ["x"]
    asked: list[tuple[str, str]] = []
    source = write(tmp_path / "in.jsonl", [{**pair, "a": 1}] * PART + [{**pair, "a": "one"}])
    with pytest.raises(
        InputError, match=r"row 2049 to 2049: column 'a' holds values that are not of one kind.* write \.jsonl"
    ):
        score_file(source, tmp_path / "two.parquet", scorer(asked))
    assert asked == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([2**70], "row 1 to 1: column 'a' holds values that are not of one kind"),
        (["\ud800"], "row 1 to 1: column 'a' holds values that are not of one kind"),
        ([2**60 + 1, *[None] * PART, 0.5], "cannot be written as Parquet"),
        ([{}], "cannot be written as Parquet"),
    ],
    ids=["huge", "surrogate", "rounded", "no-fields"],
)
def test_what_parquet_cannot_hold(tmp_path: Path, values: list[object], message: str) -> None:
    """Values that Parquet has no form for, alone or beside the others of their column, are found before the work."""
    pytest.importorskip("pyarrow")
    asked: list[tuple[str, str]] = []
    pair = {"premise": "e=0.5,c=0.1", "hypothesis": "a"}
    source = write(tmp_path / "in.jsonl", [{**pair, "a": value} for value in values])
    with pytest.raises(InputError, match=rf"{message}.* write \.jsonl"):
        score_file(source, tmp_path / "out.parquet", scorer(asked))
    assert (asked, sorted(path.name for path in tmp_path.iterdir())) == ([], ["in.jsonl"])


def test_wide_cells(tmp_path: Path) -> None:
    """A list of passages may be longer than the 131,072 characters that Python's reader of CSV allows a cell."""
    passages = ["e=0.5,c=0.1", "e=0.9,c=0 " + "and more " * 20_000]
    source = write(tmp_path / "in.jsonl", [{"query": "a", "passages": passages}])
    score_file(source, tmp_path / "one.csv", scorer())
    score_file(tmp_path / "one.csv", tmp_path / "two.csv", scorer(), prefix="again_")
    row = read(tmp_path / "two.csv")[0]
    assert row["again_score"] == row["score"]


@pytest.mark.parametrize("held", [b"", b"[]", b"\xff"])
@pytest.mark.parametrize(
    ("name", "message"),
    [("job.json", "holds parts of another job"), (f"{0:012d}-{PART:012d}.json", "row 1 is missing or not alone")],
)
def test_damaged_parts(tmp_path: Path, name: str, message: str, held: bytes) -> None:
    """A file of a job that a disk has damaged ends in one error, which says what to delete."""
    source, out = write(tmp_path / "in.jsonl", rows(PART + 1)), tmp_path / "out.jsonl"

    with pytest.raises(KeyboardInterrupt):
        score_file(source, out, scorer(), report=stop_once_done)
    (tmp_path / "out.jsonl.parts" / name).write_bytes(held)
    with pytest.raises(InputError, match=rf"{message}.* delete it"):
        score_file(source, out, scorer())
    assert not out.exists()


def test_memory_stays_flat(tmp_path: Path) -> None:
    """The peak of a job of five parts is that of one of two, give or take 5 %."""

    def peak(parts: int) -> int:
        source = write(tmp_path / f"{parts}.jsonl", rows(parts * PART))
        tracemalloc.start()
        score_file(source, tmp_path / f"{parts}.csv.gz", scorer())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak(1)  # what is imported at the first call
    assert peak(5) <= 1.05 * peak(2)


def test_no_more_parts_are_read_than_are_waited_for(tmp_path: Path) -> None:
    """Two processes have at most four parts between them, of however many; Parquet is written in groups of rows."""
    pq = pytest.importorskip("pyarrow.parquet")
    spread = in_processes(NLIReranker(FunctionEngine(stated), cache_size=0), 2)
    ahead: list[int] = []

    def counting(parts: Iterable[Part]) -> Generator[tuple[Part, Any]]:
        taken = given = 0

        def watched() -> Iterator[Part]:
            nonlocal taken
            for part in parts:
                taken += 1
                ahead.append(taken - given)
                yield part

        for done in spread(watched()):
            given += 1
            yield done

    out = tmp_path / "out.parquet"
    score_file(write(tmp_path / "in.jsonl", rows(17 * PART)), out, scorer(), spread=counting)
    assert (len(ahead), max(ahead)) == (17, 4)
    about = pq.ParquetFile(out).metadata
    assert [about.row_group(i).num_rows for i in range(about.num_row_groups)] == [16 * PART, PART]


def test_the_command(tmp_path: Path) -> None:
    """`rerank-nli score` writes the scores of the settings given, and is silent on stderr where that is no terminal."""
    query, passage = "The kettle is red.", "The red kettle hums."
    source, out = write(tmp_path / "in.jsonl", [{"id": 1, "question": query, "text": passage}]), tmp_path / "out.csv"
    names = ("--column", "query=question", "--column", "passage=text", "--prefix", "nli_")
    ran = run(source, "-o", out, *names, "--score", "margin", "--direction", "bidirectional", "--processes", "1")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"{out}: 1 rows\n", "")
    (row,) = read(out)
    expected = NLIReranker(score="margin", direction="bidirectional").rank(query, [passage])[0]
    assert float(row["nli_score"]) == expected.score
    assert float(row["nli_neutral"]) == expected.neutral


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals")
def test_a_terminal_shows_the_time_left(tmp_path: Path) -> None:
    """On a terminal, stderr shows rows, their number, the rate and the time left, and at the end nothing."""
    import fcntl  # not on Windows
    import struct
    import termios

    source = write(
        tmp_path / "in.jsonl", [{"premise": "It rains.", "hypothesis": f"It pours {i % 2}."} for i in range(3)]
    )
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    os.set_blocking(ours, False)
    command = [sys.executable, "-c", PROGRAM, "score", str(source), "-o", str(tmp_path / "out.jsonl")]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=theirs, check=True, timeout=WAIT)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    os.close(theirs)
    assert re.search(r"0/3 \[00:00<\?, \? rows/s\]", shown)
    assert not shown.rsplit("\r", 1)[-1].strip()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--column", "premise"], "--column premise: expected ROLE=NAME"),
        (["--processes", "0"], "--processes=0: expected a whole number from 1"),
        (["--model", "./absent"], "absent"),
    ],
)
def test_bad_arguments_are_one_line(tmp_path: Path, arguments: list[str], says: str) -> None:
    """Bad arguments end in status 2 and one line on stderr."""
    ran = run(write(tmp_path / "in.jsonl", rows(1)), "-o", tmp_path / "out.jsonl", *arguments)
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert says in ran.stderr


def test_without_ray_the_error_is_the_command_that_brings_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`--ray` without the adapter ends in the pip command that installs it, before a model is loaded."""
    from rerank_nli.cli import main

    monkeypatch.setitem(sys.modules, "rerank_nli_ray", None)
    source = write(tmp_path / "in.jsonl", rows(1))
    assert main(["score", str(source), "-o", str(tmp_path / "out.jsonl"), "--ray", "auto", "--model", "./absent"]) == 2
    assert "pip install 'rerank-nli[ray]'" in capsys.readouterr().err
