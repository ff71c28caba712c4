"""The command `serve`: what it opens and refuses, what it writes, and how it stops."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from serving import CLAIM, PASSAGES, PATIENCE, close_to, in_thread, until

from rerank_nli.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rerank_nli import NLIReranker

_COMMAND = "import sys; from rerank_nli.cli import main; sys.exit(main())"


class Serving:
    """A server in a process of its own, and the lines of its log."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stderr is not None
        first = json.loads(process.stderr.readline())
        self.http = httpx.Client(base_url=first["url"], timeout=PATIENCE)

    def stop(self, sent: int = signal.SIGTERM) -> tuple[int, list[dict[str, Any]]]:
        """Its exit status, and the lines of its log after the first."""
        self.process.send_signal(sent)
        return self.ended()

    def ended(self) -> tuple[int, list[dict[str, Any]]]:
        """The same, of one that ends."""
        _, log = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, [json.loads(line) for line in log.splitlines()]


@contextmanager
def serving(*options: str) -> Iterator[Serving]:
    """The command on a free port."""
    command = [sys.executable, "-c", _COMMAND, "serve", "--port", "0", *options]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            server = Serving(process)
            with server.http:
                yield server
        finally:
            process.kill()


def test_serve(bundled: NLIReranker, tmp_path: Path) -> None:
    """It serves models by name behind the tokens of a file, writes a line of JSON for each request, and stops."""
    keys = tmp_path / "keys"
    keys.write_text("\ufeffopen sesame\n\n  second  \n", encoding="utf-8")
    with serving("--model", "a=mini", "--model", "rerank-v3.5=mini", "--api-key-file", str(keys)) as server:
        asked = {"query": CLAIM, "documents": PASSAGES, "model": "rerank-v3.5"}
        assert server.http.post("/v2/rerank", json=asked).status_code == 401
        for key in ("open sesame", "second"):
            answer = server.http.post("/v2/rerank", json=asked, headers={"Authorization": f"Bearer {key}"})
            expected = [{"index": p.index, "relevance_score": p.score} for p in bundled.rank(CLAIM, PASSAGES)]
            assert answer.json()["results"] == close_to(expected)
        status, log = server.stop()
    assert status == 0
    assert [line["status"] for line in log] == [401, 200, 200]
    assert all({"time", "level", "id", "seconds"} <= set(line) for line in log)
    assert CLAIM not in json.dumps(log)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that a process can answer")
def test_graceful_stop() -> None:
    """On SIGTERM it refuses what is new, finishes what it has begun, and leaves with status 0."""
    with serving("--batch-tokens", "256", "--threads", "1") as server:
        texts = [f"Passage {i} is about a kettle and {' and '.join(map(str, range(i % 60)))}." for i in range(200)]
        thread, answers = in_thread(lambda: server.http.post("/rerank", json={"query": CLAIM, "texts": texts}))
        until(lambda: "rerank_nli_batch_pairs_count" in server.http.get("/metrics").text)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: server.http.get("/health").status_code == 503)
        assert server.http.post("/rerank", json={"query": CLAIM, "texts": ["a"]}).status_code == 503
        assert not answers
        thread.join(PATIENCE)
        status, log = server.ended()
    assert answers[0].status_code == 200
    assert len(answers[0].json()) == 200
    assert status == 0
    assert sorted({line["status"] for line in log if line["method"] == "POST"}) == [200, 503]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "small"], "--model 'small': expected NAME=PATH"),
        (["--model", "=mini"], "expected NAME=PATH"),
        (["--model", "a=mini", "--model", "a=mini"], "there is a 'a' already"),
        (["--model", "a=/nowhere/at/all"], "no such folder"),
        (["--port", "65536"], "--port=65536: expected a whole number from 0 to 65535"),
        (["--queue", "0"], "--queue"),
        (["--deadline", "nan"], "--deadline=nan: expected a number"),
        (["--wait-ms", "-1"], "--wait-ms=-1.0: expected a number"),
        (["--max-passages", "-5"], "--max-passages"),
        (["--api-key-file", "/nowhere/at/all"], "/nowhere/at/all"),
    ],
)
def test_bad_options(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An option that cannot be used is one line with what was wrong, before anything is served."""
    assert main(["serve", "--port", "0", *options]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1


def test_no_key_in_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of tokens that holds none does not open the server to all."""
    empty = tmp_path / "keys"
    empty.write_text("\n \n", encoding="utf-8")
    assert main(["serve", "--port", "0", "--api-key-file", str(empty)]) == 2
    assert "holds no token" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
def test_keys_that_no_header_brings(tmp_path: Path, encoding: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of tokens with more than ASCII, be it another encoding's marks, is refused: it would open to nobody."""
    keys = tmp_path / "keys"
    keys.write_text("sésame\n", encoding=encoding)
    assert main(["serve", "--port", "0", "--api-key-file", str(keys)]) == 2
    assert f"{keys} has a token with more than ASCII" in capsys.readouterr().err


@pytest.mark.parametrize("engine", ["auto", "torch", "onnx"])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
def test_pickles_are_refused(tmp_path: Path, engine: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A checkpoint whose weights are a .bin is refused at the start, unread, whichever engine would read it."""
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / name).write_bytes(b"")
    assert main(["serve", "--port", "0", "--model", f"a={tmp_path}", "--engine", engine]) == 2
    assert re.search(rf"{re.escape(name)} is a pickle, which the server does not open", capsys.readouterr().err)
