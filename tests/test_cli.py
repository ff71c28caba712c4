"""The command line, run as a user would, on the bundled model."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from rerank_nli.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PASSAGES = 'A tabby cat is asleep on the mat.\n{"id": "b", "text": "No cat is asleep."}\n\nThe mat is blue.\n'


@pytest.fixture
def passages(tmp_path: Path) -> str:
    file = tmp_path / "passages.txt"
    file.write_text(PASSAGES, encoding="utf-8")
    return str(file)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(arguments)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_rank_shows_the_best_first(capsys: pytest.CaptureFixture[str], passages: str) -> None:
    """`rank --query` prints a row for each passage, the entailing one first."""
    status, out, err = run(capsys, "rank", "--query", "A cat is sleeping.", passages)
    rows = out.splitlines()
    assert (status, err, len(rows)) == (0, "", 1 + 3)
    assert "tabby" in rows[1]


def test_rank_reads_json_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --query each line of stdin is a record and each line of stdout its ranking."""
    record = {"query": "A cat is sleeping.", "passages": ["No cat is asleep.", "A cat is asleep."]}
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{json.dumps(record)}\n\n{json.dumps(record)}\n"))
    status, out, _ = run(capsys, "rank", "--top-k", "1")
    rankings = [json.loads(line) for line in out.splitlines()]
    assert (status, len(rankings)) == (0, 2)
    assert [p["index"] for p in rankings[0]["passages"]] == [1]


def test_filter_reports_both_sides(capsys: pytest.CaptureFixture[str], passages: str) -> None:
    """`filter --json` gives kept and dropped, and ids survive."""
    status, out, _ = run(capsys, "filter", "--json", "--query", "A cat is sleeping.", passages)
    filtered = json.loads(out)
    assert status == 0
    assert [p["index"] for p in filtered["kept"]["passages"]] == [0]
    assert {p["id"] for p in filtered["dropped"]["passages"]} == {"b", None}
    status, out, _ = run(capsys, "filter", "--query", "A cat is sleeping.", passages)
    assert out.startswith("kept 1, dropped 2\n")


@pytest.mark.parametrize("keep", ["contradiction", "evidence"])
def test_filter_shows_what_it_compared(capsys: pytest.CaptureFixture[str], tmp_path: Path, keep: str) -> None:
    """What is kept for its contradiction is shown with that, and with the words that contradict; an id may be 0."""
    long = "The harbour was built in 1871. " * 12
    passage = {"id": 0, "text": f"A cat is asleep. {long} No cat is asleep, they are all awake."}
    file = tmp_path / "one.jsonl"
    file.write_text(json.dumps(passage), encoding="utf-8")
    query = "There is no sleeping cat here."
    _, out, _ = run(capsys, "filter", "--json", "--keep", keep, "--query", query, str(file))
    (kept,) = json.loads(out)["kept"]["passages"]
    compared = kept["refutation"] if keep == "contradiction" else max(kept["refutation"], kept["score"])
    span = kept["refutation_span"] if compared == kept["refutation"] else kept["span"]
    _, out, _ = run(capsys, "filter", "--keep", keep, "--query", query, str(file))
    assert out.splitlines()[2].split(maxsplit=3) == [
        *(f"{compared:.4f}", "0", "0"),
        passage["text"][slice(*span)],  # type: ignore[index]
    ]


def test_verify_gives_label_and_evidence(capsys: pytest.CaptureFixture[str], passages: str) -> None:
    """`verify` prints the verdict, then the evidence for and against."""
    status, out, _ = run(capsys, "verify", "--claim", "The mat is red.", passages)
    assert status == 0
    assert out.startswith("refuted (")
    assert "  - " in out
    assert "The mat is blue." in out


def test_check_judges_each_sentence(capsys: pytest.CaptureFixture[str], passages: str) -> None:
    """`check` prints a verdict for each sentence and the share that is supported."""
    status, out, _ = run(capsys, "check", "--answer", "The mat is blue. The mat is in Peru.", passages)
    assert status == 0
    assert "supported (" in out
    assert "groundedness 0.5000" in out


@pytest.mark.parametrize("output", ["dicts", "array", "logits", "labels"])
def test_predict_streams_pairs(capsys: pytest.CaptureFixture[str], tmp_path: Path, output: str) -> None:
    """`predict` prints one JSON line for each pair, in order."""
    pair = {"premise": "A cat sleeps.", "hypothesis": "A cat sleeps."}
    file = tmp_path / "pairs.jsonl"
    file.write_text(f"{json.dumps(pair)}\n{json.dumps({**pair, 'hypothesis': 'No cat sleeps.'})}\n", encoding="utf-8")
    status, out, _ = run(capsys, "predict", "--output", output, str(file))
    first, second = (json.loads(line) for line in out.splitlines())
    assert status == 0
    expected = {
        "labels": [first, second] == ["entailment", "contradiction"],
        "dicts": output == "dicts" and first["entailment"] > 0.5 > second["entailment"],
        "array": output == "array" and first[0] > 0.5 > second[0],
        "logits": output == "logits" and first[0] > first[2] and second[0] < second[2],
    }
    assert expected[output]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rank", "--query", " ", "FILE"], "blank"),
        (["rank", "--query", "x", "no/such/file"], "no/such/file"),
        (["rank", "--query", "x", "--top-k", "0", "FILE"], "top_k=0"),
        (["filter", "--query", "x", "--threshold", "2", "FILE"], "0..1"),
        (["rank", "--template", "nothing", "--query", "x", "FILE"], "{query}"),
        (["rank", "FILE"], "line 1"),
        (["rank", "--model", "./absent", "--query", "x", "FILE"], "absent"),
        (["demo", "--corpus", "FILE"], "--query"),
        (["export", "no-such-folder", "-o", "out"], "'no-such-folder' is no folder here"),
        (["export", "./absent", "-o", "out"], "no such folder: absent"),
    ],
)
def test_bad_input_is_one_line(
    capsys: pytest.CaptureFixture[str], passages: str, arguments: list[str], says: str
) -> None:
    """Bad input ends in status 2 and one line on stderr that says what was wrong."""
    status, out, err = run(capsys, *(passages if a == "FILE" else a for a in arguments))
    assert (status, out) == (2, "")
    assert err.startswith("rerank-nli: ")
    assert err.count("\n") == 1
    assert says in err


@pytest.mark.parametrize(
    "line",
    [
        *("[1]", "{}", "nonsense", '{"query": "x"}'),
        *('{"query": "x", "passages": ["y", null]}', '{"query": " ", "passages": ["y"]}'),
    ],
)
def test_a_bad_record_names_its_line(capsys: pytest.CaptureFixture[str], tmp_path: Path, line: str) -> None:
    """What came before a bad record is printed; the error names the record's line."""
    file = tmp_path / "records.jsonl"
    file.write_text('{"query": "A cat.", "candidates": ["A cat."]}\n' + line + "\n", encoding="utf-8")
    status, out, err = run(capsys, "rank", str(file))
    assert (status, out.count("\n")) == (2, 1)
    assert "line 2" in err


def test_a_record_keeps_its_id(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The id of a record comes back with its answer; a record without one gets none."""
    file = tmp_path / "records.jsonl"
    file.write_text('{"id": 7, "query": "A cat.", "passages": ["A cat."]}\n\n{"query": "A", "passages": ["A"]}\n')
    status, out, _ = run(capsys, "rank", str(file))
    assert status == 0
    first, second = map(json.loads, out.splitlines())
    assert (first["id"], first["query"], "id" in second) == (7, "A cat.", False)


def test_demo_prints_one_screen(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`demo` shows the default query; --svg keeps the screen as a picture."""
    picture = tmp_path / "screen.svg"
    status, out, _ = run(capsys, "demo", "--svg", str(picture))
    assert status == 0
    assert re.search(r"(supported|refuted) \(0\.\d\d\)", out)
    assert picture.read_text(encoding="utf-8").startswith("<svg")
    beside_json = tmp_path / "other.svg"
    status, out, _ = run(capsys, "demo", "--json", "--svg", str(beside_json))
    assert (status, out.count("\n")) == (0, 1)
    assert json.loads(out)["verdict"]
    assert beside_json.read_text(encoding="utf-8").startswith("<svg")


def test_demo_takes_a_corpus_and_a_query(capsys: pytest.CaptureFixture[str], passages: str) -> None:
    """`demo --corpus --query --json` gives the answer as JSON over the user's own texts."""
    status, out, _ = run(capsys, "demo", "--corpus", passages, "--query", "A cat is sleeping.", "--json")
    shown = json.loads(out)
    assert status == 0
    assert shown["query"] == "A cat is sleeping."
    assert len(shown["kept"]["passages"]) + len(shown["dropped"]["passages"]) == 2  # two paragraphs


def test_doctor_lists_versions_and_engines(capsys: pytest.CaptureFixture[str]) -> None:
    """`doctor` names versions, the engines that can run, and what auto takes."""
    status, out, _ = run(capsys, "doctor")
    assert status == 0
    assert "onnxruntime" in out
    assert "auto takes onnx" in out


def test_doctor_probes_the_labels(capsys: pytest.CaptureFixture[str]) -> None:
    """`doctor mini` passes on the bundled model."""
    status, out, _ = run(capsys, "doctor", "mini")
    assert (status, out.count("ok  "), "FAIL" in out) == (0, 3, False)


def test_doctor_finds_labels_in_the_wrong_order(capsys: pytest.CaptureFixture[str]) -> None:
    """With the labels given in a wrong order the probe fails with status 1 and says so."""
    status, out, _ = run(capsys, "doctor", "mini", "--labels", "contradiction,neutral,entailment")
    assert status == 1
    assert "FAIL" in out
    assert "--labels" in out


def test_export_makes_a_bundle_that_ranks(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, checkpoint: Path, passages: str
) -> None:
    """`export` writes a bundle, reports its distance from the source, and the bundle ranks."""
    card = tmp_path / "card.json"
    card.write_text('{"name": "tiny", "version": "2", "temperature": 1.5}', encoding="utf-8")
    out_folder = tmp_path / "bundle"
    arguments = ["export", str(checkpoint), "-o", str(out_folder), "--card", str(card)]
    status, out, _ = run(capsys, *arguments, "--tolerance", "1")  # weights are random, and rounding tells more
    assert status == 0
    assert re.search(r"MB, int8, labels contradiction, entailment, neutral, made in \d+\.\d minutes", out)
    assert re.search(r"against the source: logits differ by .* rank correlation 0\.\d+, .* \(\d+ pairs\)\n", out)
    assert json.loads((out_folder / "manifest.json").read_text(encoding="utf-8"))["temperature"] == 1.5
    assert run(capsys, "rank", "--model", str(out_folder), "--query", "A cat.", passages)[0] == 0
    status, _, err = run(capsys, "export", str(checkpoint), "-o", str(out_folder))
    assert (status, "exists" in err) == (2, True)


def test_export_is_held_against_given_pairs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, checkpoint: Path
) -> None:
    """`export --pairs` checks with a file's pairs, whose labels may be numbers of outputs or missing."""
    rows = [{"premise": f"A cat sees {n} dogs.", "hypothesis": "Dogs.", "label": n % 3} for n in range(20)]
    rows += [{"premise": "A fox jumps.", "hypothesis": "A dog jumps."}]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    arguments = ["export", str(checkpoint), "-o", str(tmp_path / "out"), "--form", "safetensors", "--pairs", str(file)]
    status, out, _ = run(capsys, *arguments)
    assert (status, "(21 pairs), accuracy 0." in out, "(20)" in out) == (0, True, True)


def test_interrupting_leaves_no_traceback(tmp_path: Path) -> None:
    """Ctrl-C while records are awaited ends with status 130 and nothing on stderr."""
    if os.name == "nt":
        pytest.skip("Windows has no SIGINT for one process")
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", "from rerank_nli.cli import main; raise SystemExit(main(['rank']))"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    assert process.stdin
    assert process.stdout
    process.stdin.write('{"query": "A cat.", "passages": ["A cat."]}\n')
    process.stdin.flush()
    assert process.stdout.readline().startswith("{")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    """`rerank-nli … | head -1` ends quietly."""
    if os.name == "nt":
        pytest.skip("no sh on Windows")
    records = tmp_path / "records.jsonl"
    records.write_text('{"query": "A cat.", "passages": ["A cat."]}\n' * 300, encoding="utf-8")
    code = "from rerank_nli.cli import main; raise SystemExit(main())"
    command = f"{sys.executable} -c '{code}' rank {records} | head -1"
    result = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False, timeout=120)
    assert (result.stdout.count("\n"), result.stderr) == (1, "")


def piped(arguments: list[str], text: bytes, **environment: str) -> subprocess.CompletedProcess[bytes]:
    code = "import sys; from rerank_nli.cli import main; raise SystemExit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, input=text, capture_output=True, check=False, env={**os.environ, **environment})


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_pipes_speak_utf8(encoding: str) -> None:
    """Whatever the system's encoding, text comes in and goes out as UTF-8."""
    record = json.dumps({"query": "Ein Kätzchen schläft → 猫.", "passages": ["猫が寝ている。"]}, ensure_ascii=False)
    result = piped(["rank"], b"\xef\xbb\xbf" + record.encode(), PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert result.returncode == 0, result.stderr
    ranking = json.loads(result.stdout.decode("utf-8"))
    assert ranking["query"] == "Ein Kätzchen schläft → 猫."
    assert ranking["passages"][0]["text"] == "猫が寝ている。"


def test_a_lone_surrogate_comes_out_as_json() -> None:
    """Text that UTF-8 cannot hold is escaped as JSON escapes it."""
    result = piped(["rank"], rb'{"query": "A cat.", "passages": ["A \ud800 cat."]}')
    assert json.loads(result.stdout)["passages"][0]["text"] == "A \ud800 cat."


@pytest.mark.parametrize(
    ("arguments", "text", "says"),
    [
        (["rank"], b'{"query": "caf\xe9", "passages": []}\n', "is not UTF-8"),
        (["rank", "--query", "x"], b'{"id": "no text"}\n', "line 1"),
        (["rank", "--query", "x"], b'{"text": "broken\n', "line 1"),
        (["predict"], b"[" * 100_000, "line 1"),
        (["predict"], b'\n{"premise": "x"}\n', "line 2 must be (premise, hypothesis)"),
        (["demo", "--top-k", "0"], b"", "top_k=0"),
        (["rank", "--top-k", "0"], b'{"query": "x", "passages": []}\n', "rerank-nli: top_k=0"),
        (["filter", "--threshold", "7"], b"", "rerank-nli: threshold 7.0"),
        (["rank", "--query", "x", "--threads", "-3"], b"y\n", "threads=-3"),
        (["rank", "--query", "x", "--revision", "main"], b"y\n", "revision='main'"),
        (["rank", "--query", "x", "--dtype", "banana"], b"y\n", "banana"),
        (["rank", "--query", "x", "--device", "cuda"], b"y\n", "device='cuda'"),
    ],
)
def test_odd_input_leaves_no_traceback(arguments: list[str], text: bytes, says: str) -> None:
    """Bytes and options of every wrong kind end in status 2 and one line."""
    result = piped(arguments, text)
    message = result.stderr.decode("utf-8")
    assert (result.returncode, message.count("\n")) == (2, 1), message
    assert says in message


def test_a_card_that_is_no_json_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, checkpoint: Path
) -> None:
    """A damaged card is named, and nothing is exported."""
    card = tmp_path / "card.json"
    card.write_text("{", encoding="utf-8")
    status, _, err = run(capsys, "export", str(checkpoint), "-o", str(tmp_path / "out"), "--card", str(card))
    assert (status, "card.json" in err, (tmp_path / "out").exists()) == (2, True, False)


def test_a_two_label_model_prints_json(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, make_checkpoint: Callable[..., Path]
) -> None:
    """What a two-label model does not know is null: JSON has no NaN."""
    folder = make_checkpoint("BertForSequenceClassification", id2label={0: "entailment", 1: "not_entailment"})
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"premise": "A cat.", "hypothesis": "A cat."}\n', encoding="utf-8")
    status, out, _ = run(capsys, "predict", "--model", str(folder), "--output", "array", str(pairs))
    assert (status, json.loads(out)[1:]) == (0, [None, None])


@pytest.mark.parametrize("option", ["--direction", "--combine", "--score", "--normalize", "--pool", "--calibration"])
def test_a_verdict_takes_no_option_that_it_ignores(capsys: pytest.CaptureFixture[str], option: str) -> None:
    """What has no part in a verdict is refused by `verify` and `check`."""
    for verb, name in (("verify", "--claim"), ("check", "--answer")):
        with pytest.raises(SystemExit, match="2"):
            main([verb, name, "x", option, "max"])
        assert f"unrecognized arguments: {option}" in capsys.readouterr().err


def test_doctor_passes_over_a_damaged_installation(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A distribution without metadata, as a broken installation leaves it, is no concern of `doctor`."""
    (tmp_path / "broken-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    status, out, _ = run(capsys, "doctor")
    assert (status, "  numpy " in out) == (0, True)


def test_doctor_finds_what_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    """No core dependency shows as missing, and the choice of engine has its precision and its reason."""
    _, out, _ = run(capsys, "doctor", "mini")
    for package in ("numpy", "tokenizers", "onnxruntime", "huggingface-hub"):
        assert f"  {package} is not" not in out
    assert "mini: onnx engine in int8 (auto: int8 is the fastest that there is" in out


@pytest.mark.parametrize(("score", "threshold"), [("logit", "2"), ("margin", "-0.5")])
def test_demo_takes_every_score_kind(capsys: pytest.CaptureFixture[str], score: str, threshold: str) -> None:
    """The filter's threshold lies in the score's range; the verdict keeps its own."""
    status, out, _ = run(capsys, "demo", "--json", "--score", score, "--threshold", threshold)
    assert (status, json.loads(out)["threshold"]) == (0, float(threshold))


def test_classify_gives_labels_line_by_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`classify` prints score, label and text of each line; a record may bring its own labels; `-` abstains."""
    file = tmp_path / "texts.txt"
    own = {"text": "A loaf of rye, please!", "labels": ["a court of law", "bread"]}
    file.write_text(f"The striker scored twice in the match.\n\n{json.dumps(own)}\n", encoding="utf-8")
    status, out, _ = run(capsys, "classify", "--labels", "sports, politics", str(file))
    assert (status, [line.split()[1] for line in out.splitlines()]) == (0, ["sports", "bread"])
    status, out, _ = run(capsys, "classify", "--labels", "sports,politics", "--threshold", "0.999", str(file))
    assert (status, [line.split()[1] for line in out.splitlines()]) == (0, ["-", "-"])


def test_classify_prints_json_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`classify --json` prints every label's score, numbered through a long input, in the order it came in."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("The striker scored twice.\n" * 300 + "Parliament passed a law.\n"))
    settings = ("--labels", "sports,politics", "--multi-label", "--template", "On {label}.", "--template", "{label}")
    status, out, _ = run(capsys, "classify", "--json", *settings, "--outputs", "entailment,neutral,contradiction")
    rows = [json.loads(line) for line in out.splitlines()]
    assert (status, [row["index"] for row in rows]) == (0, list(range(301)))
    assert rows[0]["scores"] == rows[299]["scores"]
    assert list(rows[300]["scores"]) == ["politics", "sports"]
    assert sum(rows[300]["scores"].values()) != pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("line", "arguments", "says"),
    [
        ("x", [], 'line 2 brings no "labels": give --labels'),
        ("x", ["--labels", "a,,b"], "--labels: label 1 must be a text that is not blank"),
        ("x", ["--labels", "a,b,a"], "--labels: labels 0 and 2 are both 'a'"),
        ("x", ["--labels", "a,b", "--threshold", "2"], "threshold 2.0: expected a number in 0..1"),
        ("x", ["--labels", "a,b", "--template", "nothing"], "has no {label}"),
        ('{"labels": ["a"]}', ["--labels", "a,b"], "line 2: expected an object with 'text'"),
        ('{"text": 3}', ["--labels", "a,b"], 'line 2: "text" must be a text, got 3'),
        ('{"text": "x", "labels": "a"}', [], "line 2: labels must be a list of them, got 'a'"),
        ('{"text": "x", "labels": []}', [], "line 2: labels: there is none"),
        ('{"text": "x", "labels": [["a", "b"]]}', [], "line 2: label 0 must be a text that is not blank"),
    ],
)
def test_classify_names_the_line_of_bad_input(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, line: str, arguments: list[str], says: str
) -> None:
    """What `classify` cannot use ends in status 2 and one line that says where it stands."""
    file = tmp_path / "texts.jsonl"
    file.write_text(f'{{"text": "fine", "labels": ["a", "b"]}}\n{line}\n', encoding="utf-8")
    status, out, err = run(capsys, "classify", *arguments, str(file))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert says in err
