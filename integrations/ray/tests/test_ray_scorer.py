"""NLIScorer and a cluster: the library's scores, each row once, whoever is killed."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import ray
from rerank_nli_ray import NLIScorer, on_cluster

from rerank_nli import FunctionEngine, InputError, NLIReranker, score_columns, score_file

if TYPE_CHECKING:
    from collections.abc import Callable

WAIT = 120  # seconds, after which something hangs
PAIRS = {
    "premise": ["Run dry, the kettle turns itself off.", "The kettle is red.", "It holds 1.7 litres."],
    "hypothesis": ["The kettle is off when it is empty.", "The kettle is blue.", "It is raining."],
}


def lengths(first: Path | None = None) -> FunctionEngine:
    """Logits that tell texts apart; the first process that is asked writes its id into a pipe, and waits to be killed.

    The function stands in here, so that it is pickled whole: a worker cannot import a test.
    """

    def fn(pairs: list[tuple[str, str]]) -> list[list[float]]:
        if first is not None:
            try:
                first.with_suffix(".taken").touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                first.write_text(str(os.getpid()))
                threading.Event().wait()
        return [[len(a) % 7, len(b) % 5, sum(map(ord, a)) % 11] for a, b in pairs]

    return FunctionEngine(fn)


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A pipe for the id of the process that is asked first."""
    pipe = tmp_path / "first"
    os.mkfifo(pipe)
    return pipe


def kill(first: Path) -> int:
    """Kill the process that writes its id, once it has."""
    end = os.open(first, os.O_RDWR)
    try:
        assert select.select([end], [], [], WAIT)[0], "no actor was asked for anything"
        victim = int(os.read(end, 20))
    finally:
        os.close(end)
    os.kill(victim, signal.SIGKILL)
    return victim


def test_rows_come_once_though_an_actor_is_killed(cluster: str, first: Path) -> None:
    """With one of three actors killed in the middle of a batch, `map_batches` gives each row once, with its scores."""
    assert cluster
    rows = [{"id": i, "premise": "a" * (i % 23) + f" {i}", "hypothesis": "b" * (i % 13)} for i in range(600)]
    scored = ray.data.from_items(rows, override_num_blocks=6).map_batches(
        NLIScorer,
        fn_constructor_kwargs={"model": lengths(first)},
        batch_size=50,
        compute=ray.data.ActorPoolStrategy(size=3),
        num_cpus=1,
    )
    with ThreadPoolExecutor(1) as thread:
        taken = thread.submit(scored.take_all)
        victim = kill(first)
        found = sorted(taken.result(WAIT), key=lambda row: row["id"])
    assert victim != os.getpid()
    pairs = [(row["premise"], row["hypothesis"]) for row in rows]
    expected = NLIReranker(lengths(), cache_size=0).predict(pairs, output="dicts")
    assert found == [row | scores for row, scores in zip(rows, expected, strict=True)]


def test_a_file_is_whole_though_an_actor_is_killed(cluster: str, first: Path, tmp_path: Path) -> None:
    """`score_file` on a cluster that loses an actor in the middle of a part writes the bytes that one process does."""
    source = tmp_path / "rows.jsonl"
    rows = ({"query": f"claim {i % 9}", "passages": ["p" * (i % 17), f"passage {i}"]} for i in range(2_500))
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    here, there = tmp_path / "here.jsonl", tmp_path / "there.jsonl"
    score_file(source, here, NLIReranker(lengths(), cache_size=0))
    with ThreadPoolExecutor(1) as thread:
        spread = on_cluster(cluster, 2, model=lengths(first))
        written = thread.submit(score_file, source, there, NLIReranker(lengths(), cache_size=0), spread=spread)
        kill(first)
        assert written.result(WAIT) == 2_500
    assert there.read_bytes() == here.read_bytes()


def test_actors_that_find_no_room_are_done_without(cluster: str, tmp_path: Path) -> None:
    """With more actors asked for than the cluster has room for, those that stand score all."""
    source = tmp_path / "rows.jsonl"
    rows = ({"premise": "p" * (i % 17), "hypothesis": f"h {i}"} for i in range(9_000))
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    reranker = NLIReranker(lengths(), cache_size=0)
    with ThreadPoolExecutor(1) as thread:
        spread = on_cluster(cluster, 6, model=lengths())
        written = thread.submit(score_file, source, tmp_path / "out.jsonl", reranker, spread=spread)
        assert written.result(WAIT) == 9_000


def test_the_command_scores_on_a_cluster(cluster: str, tmp_path: Path) -> None:
    """`rerank-nli score --ray ADDRESS` writes what it writes without, on the bundled model."""
    program = Path(sys.executable).parent / "rerank-nli"
    source = tmp_path / "rows.csv"
    pd.DataFrame(PAIRS).to_csv(source, index=False)
    for name, more in (("here.csv", []), ("there.csv", ["--ray", cluster, "--processes", "1"])):
        command = [str(part) for part in (program, "score", source, "-o", tmp_path / name, *more)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WAIT)
        assert (ran.returncode, ran.stdout) == (0, f"{tmp_path / name}: 3 rows\n"), ran.stderr
    assert (tmp_path / "here.csv").read_bytes() == (tmp_path / "there.csv").read_bytes()


def test_an_address_that_is_none(tmp_path: Path) -> None:
    """What Ray cannot read as an address ends in status 2 and one line that names it."""
    source = tmp_path / "rows.jsonl"
    source.write_text('{"premise": "a", "hypothesis": "b"}\n', encoding="utf-8")
    program = Path(sys.executable).parent / "rerank-nli"
    command = [str(part) for part in (program, "score", source, "-o", tmp_path / "out.csv", "--ray", "nonsense")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WAIT)
    assert ran.returncode == 2
    assert ran.stderr.startswith("rerank-nli: Ray cannot use the address 'nonsense': ")
    assert len(ran.stderr.splitlines()) == 1


def test_no_room_for_an_actor(cluster: str, tmp_path: Path) -> None:
    """On this machine alone an actor that it has no CPUs for is refused, not waited for."""
    assert cluster
    source = tmp_path / "rows.jsonl"
    source.write_text('{"premise": "a", "hypothesis": "b"}\n', encoding="utf-8")
    spread = on_cluster("local", model=lengths(), threads=9_999)
    with pytest.raises(InputError, match="an actor takes 9999 CPUs, which this machine has not"):
        score_file(source, tmp_path / "out.jsonl", NLIReranker(lengths(), cache_size=0), spread=spread)


def test_what_is_for_others_is_refused() -> None:
    """Settings for loading beside an Engine, another precision, and columns that `score_file` is to be told."""
    with pytest.raises(InputError, match=r"^labels: .*give them to load\(\)"):
        NLIScorer(lengths(), labels=["contradiction", "neutral", "entailment"])
    with pytest.raises(InputError, match="computes in fp32 here, not in bf16: say engine and dtype"):
        NLIScorer(dtype="fp32", precision="bf16")
    with pytest.raises(InputError, match=r"columns and prefix: .* tell score_file"):
        on_cluster("auto", columns={"premise": "a", "hypothesis": "b"}, prefix="nli_")


def test_what_an_actor_refuses_is_told(cluster: str, tmp_path: Path) -> None:
    """Rows that a cluster cannot score, and weights that are others there, end in an error that says which."""
    source = tmp_path / "rows.jsonl"
    source.write_text('{"premise": "a", "hypothesis": "b"}\n', encoding="utf-8")
    reranker = NLIReranker(lengths(), cache_size=0)
    broken = FunctionEngine(lambda pairs: np.full((len(pairs), 3), np.nan))
    with pytest.raises(InputError, match=r"rows 1 to 1: .* not finite"):
        score_file(source, tmp_path / "out.jsonl", reranker, spread=on_cluster(cluster, 1, model=broken))
    other = on_cluster(cluster, 1, model=lengths(), fingerprint="another")
    with pytest.raises(InputError, match=r"an actor cannot start: .*the weights here are"):
        score_file(source, tmp_path / "out.jsonl", reranker, spread=other)
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("batch_format", ["numpy", "pandas", "pyarrow"])
def test_lists_of_passages_in_every_kind_of_batch(cluster: str, batch_format: str) -> None:
    """Lists of several lengths go through a dataset in each batch format, and gain lists as long."""
    assert cluster
    rows = [
        {"query": "It rains.", "passages": ["It pours.", "The sun shines."]},
        {"query": "Fog.", "passages": ["Mist."]},
    ]
    scored = ray.data.from_items(rows, override_num_blocks=1).map_batches(
        NLIScorer,
        fn_constructor_kwargs={"model": lengths()},
        batch_format=batch_format,
        compute=ray.data.ActorPoolStrategy(size=1),
        num_cpus=1,
    )
    queries, lists = [str(row["query"]) for row in rows], [row["passages"] for row in rows]
    rankings = NLIReranker(lengths()).rank_many(queries, lists)
    expected = [[p.score for p in sorted(ranking, key=lambda p: p.index)] for ranking in rankings]
    assert [list(row["score"]) for row in scored.take_all()] == expected


@pytest.mark.parametrize(
    ("kind", "read"),
    [
        (lambda columns: {name: np.array(column) for name, column in columns.items()}, lambda column: column.tolist()),
        (pd.DataFrame, lambda column: column.tolist()),
        (pa.table, lambda column: column.to_pylist()),
    ],
    ids=["numpy", "pandas", "pyarrow"],
)
def test_batches_keep_their_kind(kind: Callable[..., Any], read: Callable[[Any], list[float]]) -> None:
    """A batch comes back in its kind with all columns and the scores of `predict`; what came in is not changed."""
    batch = kind({"text": PAIRS["premise"], "claim": PAIRS["hypothesis"], "id": [7, 8, 9]})
    scorer = NLIScorer(columns={"premise": "text", "hypothesis": "claim"}, prefix="nli_")
    scored = scorer(batch)
    names = ["text", "claim", "id", "nli_entailment", "nli_neutral", "nli_contradiction"]
    assert type(scored) is type(batch)
    assert list(getattr(scored, "column_names", scored)) == names
    assert list(getattr(batch, "column_names", batch)) == names[:3]
    assert read(scored["id"]) == [7, 8, 9]
    rows = NLIReranker(cache_size=0).predict(list(zip(*PAIRS.values(), strict=True)), output="dicts")
    for name in ("entailment", "neutral", "contradiction"):
        assert read(scored[f"nli_{name}"]) == [row[name] for row in rows]


def test_queries_and_the_settings_of_a_reranker() -> None:
    """A query with a passage gains the score of `rank` under the settings given."""
    columns = {"query": ["The kettle is red."] * 2, "passage": ["The red kettle hums.", "The kettle is blue."]}
    scored = NLIScorer(direction="bidirectional", score="margin")(columns)
    assert scored["score"].tolist() == pytest.approx(
        score_columns(NLIReranker(direction="bidirectional", score="margin"), columns)["score"]
    )
    assert scored["score"][0] > scored["score"][1]


def test_lists_of_nothing_have_the_kind_of_others() -> None:
    """A table whose queries have no passages gains lists of numbers, as other parts of its dataset do."""
    for rows in (0, 1):
        passages = pa.array([[]] * rows, pa.list_(pa.string()))
        table = NLIScorer(lengths())(pa.table({"query": pa.array(["a"] * rows, pa.string()), "passages": passages}))
        assert table.schema.field("score").type == pa.list_(pa.float64())
    frame = NLIScorer(lengths())(pd.DataFrame({"query": ["a", "b"], "passages": [["c", "d"], ["e", "f"]]}))
    assert [type(row) for row in frame["score"]] == [list, list]


def test_two_labels_are_nan() -> None:
    """Of a model of two labels, neutral and contradiction are NaN in arrays and null in a pyarrow table."""
    engine = FunctionEngine(lambda pairs: np.zeros((len(pairs), 2)), ["not_entailment", "entailment"])
    scorer = NLIScorer(engine)
    assert np.isnan(scorer(PAIRS)["neutral"]).all()
    assert scorer(pd.DataFrame(PAIRS))["neutral"].dtype == np.float64
    table = scorer(pa.table(PAIRS))
    assert table["contradiction"].null_count == 3
    assert table.schema.field("contradiction").type == pa.float64()


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"text": ["a"]}, "expected the columns premise and hypothesis or .*, got text"),
        (
            {"premise": ["a"], "hypothesis": ["b"], "neutral": [1]},
            "column 'neutral' already: give the new ones a prefix",
        ),
        ({"premise": ["a", "b"], "hypothesis": ["b"]}, "'premise' 2, 'hypothesis' 1"),
        ({"query": ["a", " "], "passage": ["b", "b"]}, "query 1 is blank"),
    ],
)
def test_bad_batches(batch: dict[str, Any], message: str) -> None:
    """What cannot be scored is said by its column or its row."""
    with pytest.raises(InputError, match=message):
        NLIScorer(lengths())(batch)
