"""The demo: corpora of every form, retrieval, and the one screen."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from rerank_nli import FunctionEngine, InputError, ModelNotFoundError, NLIReranker
from rerank_nli.demo import CORPUS, QUERIES, Passage, Retriever, answer, read_corpus, render

if TYPE_CHECKING:
    from pathlib import Path

QUERY_ROWS = [json.loads(line) for line in QUERIES.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def corpus() -> list[Passage]:
    return read_corpus(CORPUS)


@pytest.fixture(scope="module")
def retriever(corpus: list[Passage]) -> Retriever:
    return Retriever(corpus)


def test_the_corpus_is_as_large_as_promised(corpus: list[Passage]) -> None:
    """At least 200 passages in a dozen fields, and 30 queries, many with a contradicting look-alike."""
    fields = Counter(json.loads(line)["field"] for line in CORPUS.read_text(encoding="utf-8").splitlines())
    assert len(corpus) >= 200
    assert len(fields) >= 12
    assert len(QUERY_ROWS) >= 30
    assert sum(bool(row["refutes"]) for row in QUERY_ROWS) >= 15


def test_every_listed_passage_exists(corpus: list[Passage]) -> None:
    """A query names only passages of the corpus, each in one role."""
    ids = {passage.id for passage in corpus}
    assert len(ids) == len(corpus)
    for row in QUERY_ROWS:
        listed = [*row["supports"], *row["refutes"], *row["lookalikes"]]
        assert len(listed) == len(set(listed))
        assert set(listed) <= ids


def test_a_look_alike_is_dropped_and_the_support_kept(
    corpus: list[Passage], retriever: Retriever, bundled: NLIReranker
) -> None:
    """For the default query the contradicting look-alike is retrieved, reranked below the support, and dropped."""
    row = QUERY_ROWS[0]
    shown = answer(row["query"], corpus, retriever, bundled)
    assert set(row["supports"]) <= {p.id for p in shown.filtered.kept}
    assert set(row["refutes"]) <= {p.id for p in shown.filtered.dropped}
    assert shown.filtered.kept[0].id in row["supports"]


def test_nli_puts_support_first_more_often_than_the_retriever(
    corpus: list[Passage], retriever: Retriever, bundled: NLIReranker
) -> None:
    """Over the claims that a passage supports, NLI ranks such a passage first more often than the bi-encoder does."""
    before = after = 0
    for row in QUERY_ROWS:
        if row["kind"] == "claim" and row["supports"]:
            filtered = answer(row["query"], corpus, retriever, bundled).filtered
            ranked = [*filtered.kept, *filtered.dropped]
            before += min(ranked, key=lambda p: p.index).id in row["supports"]
            after += ranked[0].id in row["supports"]
    assert after > before


def test_the_screen_shows_bars_verdict_and_reasons(
    corpus: list[Passage], retriever: Retriever, bundled: NLIReranker
) -> None:
    """The rendering names the verdict, where each passage was, and why the dropped ones went, in 45 lines."""
    console = pytest.importorskip("rich.console").Console(width=110, record=True, file=None, force_terminal=False)
    shown = answer(QUERY_ROWS[0]["query"], corpus, retriever, bundled)
    with console.capture() as capture:
        console.print(render(shown))
    screen = capture.get()
    assert shown.verdict is not None
    assert f"{shown.verdict.label} ({shown.verdict.confidence:.2f})" in screen
    assert "dropped: score under 0.5" in screen
    assert "contradicts (" in screen
    assert "does not say" in screen
    assert screen.count("\n") <= 45


@pytest.mark.parametrize(
    ("premise_word", "headline"), [("yes", "answered by 2"), ("nothing", "not answered"), ("no", "not answered")]
)
def test_a_question_is_answered_or_not(corpus: list[Passage], premise_word: str, headline: str) -> None:
    """A question has no verdict: it is answered by the passages kept, or not answered."""

    def logits(pairs: list[tuple[str, str]]) -> list[list[float]]:
        row = {"yes": [9.0, 0.0, 0.0], "nothing": [0.0, 9.0, 0.0], "no": [0.0, 0.0, 9.0]}[premise_word]
        return [row for _ in pairs]

    passages = corpus[:2]
    shown = answer("Who is it?", passages, Retriever(passages), NLIReranker(FunctionEngine(logits)))
    assert headline in _plain(render(shown))


@pytest.mark.parametrize(
    ("for_it", "against_it", "headline"),
    [
        (3.0, 2.0, "supported (0.91), but also refuted (0.79)"),
        (2.0, 3.0, "refuted (0.91), but also supported (0.79)"),
        (3.0, 0.0, "supported (0.91)"),
    ],
)
def test_a_verdict_names_the_other_side(corpus: list[Passage], for_it: float, against_it: float, headline: str) -> None:
    """Where one passage supports a claim and another refutes it, the headline says how strong each side is."""
    passages = corpus[:2]

    def logits(pairs: list[tuple[str, str]]) -> list[list[float]]:
        return [[for_it, 0.0, 0.0] if premise == passages[0].text else [0.0, 0.0, against_it] for premise, _ in pairs]

    shown = answer("It rains.", passages, Retriever(passages), NLIReranker(FunctionEngine(logits)))
    first_line = _plain(render(shown)).partition("\n")[0]
    assert first_line.rstrip().endswith(headline)


def test_a_two_label_model_needs_no_verdict(corpus: list[Passage]) -> None:
    """With a two-label model the demo counts supporting passages instead of giving a verdict."""
    engine = FunctionEngine(lambda pairs: [[3.0, 0.0]] * len(pairs), labels=["entailment", "not_entailment"])
    shown = answer("It rains.", corpus[:3], Retriever(corpus[:3]), NLIReranker(engine))
    assert shown.verdict is None
    assert shown.to_dict()["verdict"] is None
    assert "3 support it" in _plain(render(shown))


def test_a_deciding_sentence_far_into_a_passage_is_shown(bundled: NLIReranker) -> None:
    """The excerpt of a long passage holds the deciding sentence, with an ellipsis on the side that was left out."""
    text = "The museum lists its donors on a wall. " * 30 + "The lift is out of order today."
    passages = [Passage("1", text), Passage("2", "It rains.")]
    screen = " ".join(_plain(render(answer("The lift does not work.", passages, Retriever(passages), bundled))).split())
    assert "out of order" in screen
    assert "…" in screen


def test_json_lines_with_titles_and_ids(tmp_path: Path) -> None:
    """BEIR rows keep their id, and a title stands before the text."""
    (tmp_path / "corpus.jsonl").write_text(
        '{"_id": "a", "title": "T", "text": "x"}\n\n{"text": "y"}\n', encoding="utf-8"
    )
    expected = [Passage("a", "T\n\nx"), Passage("3", "y")]
    assert read_corpus(tmp_path) == expected
    assert read_corpus(tmp_path / "corpus.jsonl") == expected


def test_compressed_json_lines(tmp_path: Path) -> None:
    """A .jsonl.gz file is read as it is."""
    with gzip.open(tmp_path / "c.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write('{"id": 7, "text": "é"}\n')
    assert read_corpus(tmp_path / "c.jsonl.gz") == [Passage("7", "é")]


def test_text_is_read_by_paragraph_and_a_folder_by_file(tmp_path: Path) -> None:
    """A text file gives a passage for each paragraph; a folder of text files one for each file."""
    (tmp_path / "a.txt").write_bytes(b"One.\r\n\r\nTwo\r\nlines.\r\n")
    (tmp_path / "b.md").write_text("# Three", encoding="utf-8")
    (tmp_path / "c.pdf").write_bytes(b"%")
    assert read_corpus(tmp_path / "a.txt") == [Passage("a.txt:0", "One."), Passage("a.txt:1", "Two\nlines.")]
    assert [passage.id for passage in read_corpus(tmp_path)] == ["a.txt", "b.md"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("c.jsonl", b'{"text": "x"}\n{"txt": "y"}\n', 'row 2: expected an object with a "text"'),
        ("c.jsonl", b'{"text": "x"}\n{"text"\n', "row 2: no JSON"),
        ("c.jsonl.gz", b"not gzip", "Not a gzipped file"),
        ("c.jsonl", b"", "holds no passages"),
        ("c.csv", b"a,b", "expected .jsonl"),
        ("c.txt", b" \n", "holds no passages"),
        ("c.txt", b"caf\xe9", "is not UTF-8"),
        ("c.jsonl", b'{"text": "caf\xe9"}', "'utf-8' codec can't decode"),
    ],
)
def test_a_corpus_that_cannot_be_read_is_one_error(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    """The error names the file and the line."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says) as error:
        read_corpus(tmp_path / name)
    assert name in str(error.value)


def test_a_missing_corpus_is_named(tmp_path: Path) -> None:
    """A path that is not there is an error that names it."""
    with pytest.raises(ModelNotFoundError, match="no such corpus"):
        read_corpus(tmp_path / "absent.jsonl")


def test_an_unknown_retriever_is_refused(tmp_path: Path) -> None:
    """A retriever that cannot be loaded is an error that says what would work."""
    pytest.importorskip("sentence_transformers")
    with pytest.raises(ModelNotFoundError, match="use 'static'"):
        Retriever([Passage("1", "x")], str(tmp_path))


def _plain(renderable: object) -> str:
    console = pytest.importorskip("rich.console").Console(width=110, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable)
    return str(capture.get())


def test_a_corpus_of_odd_but_readable_files(tmp_path: Path) -> None:
    """A byte-order mark, blank files, upper-case endings, null ids and folders with a text file's name do no harm."""
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "blank.txt").write_text(" \n", encoding="utf-8")
    (tmp_path / "A.TXT").write_bytes("\ufeffOne.\r\n \r\nTwo.".encode())
    assert read_corpus(tmp_path) == [Passage("A.TXT", "One.\n \nTwo.")]
    assert [passage.text for passage in read_corpus(tmp_path / "A.TXT")] == ["One.", "Two."]
    (tmp_path / "c.jsonl").write_bytes('\ufeff\n\n{"_id": null, "id": "b", "text": "x"}\n'.encode())
    assert read_corpus(tmp_path / "c.jsonl") == [Passage("b", "x")]


def test_a_damaged_archive_is_one_error(tmp_path: Path) -> None:
    """A .gz file that is cut short or changed inside is an error that names it."""
    packed = gzip.compress(b'{"text": "some words that compress badly 4f9a"}\n' * 50)
    for name, content in (("cut", packed[:-20]), ("changed", packed[:40] + b"\x00\xff\x13" + packed[43:])):
        (tmp_path / f"{name}.jsonl.gz").write_bytes(content)
        with pytest.raises(InputError, match=name):
            read_corpus(tmp_path / f"{name}.jsonl.gz")


def test_a_claim_may_start_with_an_interrogative(corpus: list[Passage]) -> None:
    """A statement that begins with "When" gets a verdict; only a question mark asks."""
    engine = FunctionEngine(lambda pairs: [[3.0, 0.0, 0.0]] * len(pairs))
    shown = answer("When water freezes, it expands.", corpus[:2], Retriever(corpus[:2]), NLIReranker(engine))
    assert "supported (" in _plain(render(shown))
