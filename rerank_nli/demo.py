"""The whole job on one screen: retrieve with a bi-encoder and FAISS, rerank and filter by entailment, judge."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rerank_nli.encoders import encoder, unit_vectors
from rerank_nli.errors import InputError, ModelNotFoundError, counted, require
from rerank_nli.rows import read_rows
from rerank_nli.scores import KINDS
from rerank_nli.windows import asks

if TYPE_CHECKING:
    from collections.abc import Callable

    from rerank_nli.reranker import NLIReranker
    from rerank_nli.types import Filtered, RankedPassage, Verdict

__all__ = ["CORPUS", "QUERIES", "Answer", "Passage", "Retriever", "answer", "read_corpus", "render"]

CORPUS = Path(__file__).parent / "demo_corpus" / "passages.jsonl"
QUERIES = CORPUS.with_name("queries.jsonl")
_TEXT_FILES = (".txt", ".md")
_HALF = 0.5  # more likely than not
_BAR = 18  # characters of a probability bar
_EXCERPT = 200  # characters of a passage that are shown


class Passage(NamedTuple):
    """A passage of a corpus."""

    id: str
    text: str


def read_corpus(path: str | Path) -> list[Passage]:
    """Read passages from JSON lines, a BEIR folder, a text file, or a folder of text files.

    Args:
        path: .jsonl or .jsonl.gz with "text" and perhaps "_id" or "id" and "title"; a folder with corpus.jsonl(.gz); a
            .txt or .md file, a passage for each paragraph; a folder of those, a passage for each file.

    Raises:
        ModelNotFoundError: nothing is there.
        InputError: it is none of these, or holds no passage; the message names the line.
    """
    path = Path(os.path.expanduser(path))  # noqa: PTH111 - pathlib fails where there is no such user
    if path.is_dir():
        beir = [path / name for name in ("corpus.jsonl", "corpus.jsonl.gz") if (path / name).is_file()]
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in _TEXT_FILES and file.is_file())
        whole = ((file.relative_to(path).as_posix(), _text(file)) for file in files)
        passages = _json_lines(beir[0]) if beir else [Passage(name, text) for name, text in whole if text.strip()]
    elif not path.is_file():
        message = f"no such corpus: {path}"
        raise ModelNotFoundError(message)
    elif path.name.endswith((".jsonl", ".jsonl.gz")):
        passages = _json_lines(path)
    elif path.suffix.lower() in _TEXT_FILES:
        paragraphs = (paragraph.strip() for paragraph in re.split(r"\n\s*\n", _text(path)))
        passages = [Passage(f"{path.name}:{i}", text) for i, text in enumerate(p for p in paragraphs if p)]
    else:
        message = f"{path}: expected .jsonl, .jsonl.gz, .txt, .md, or a folder with corpus.jsonl or text files"
        raise InputError(message)
    if not passages:
        message = f"{path} holds no passages"
        raise InputError(message)
    return passages


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"{path} is not UTF-8 ({error}): save it in that encoding"
        raise InputError(message) from error


def _json_lines(path: Path) -> list[Passage]:
    return [_json_passage(path, number, row) for number, row in read_rows(path)]


def _json_passage(path: Path, number: int, row: dict[str, Any]) -> Passage:
    if not isinstance(row.get("text"), str):
        message = f'{path}, row {number}: expected an object with a "text", got {row!r:.80}'
        raise InputError(message)
    found = next((row[name] for name in ("_id", "id") if row.get(name) is not None), number)
    return Passage(str(found), f"{row['title']}\n\n{row['text']}" if row.get("title") else row["text"])


class Retriever:
    """First-stage retrieval: a bi-encoder and a FAISS index over inner products of unit vectors.

    Args:
        passages: the corpus.
        model: "static" is the bundled one; else any model that sentence-transformers can load, or a function that makes
            (n, d) vectors of n texts, as `NLIReranker.embed` does.

    Raises:
        MissingExtraError: faiss-cpu, model2vec or sentence-transformers is not installed.
        DamagedModelError: a file of the bundled model is not the one that was made.
        ModelNotFoundError: no such model.
    """

    def __init__(self, passages: list[Passage], model: str | Callable[[list[str]], Any] = "static") -> None:
        faiss = require("faiss", "demo")
        self._encode = encoder(model) if isinstance(model, str) else partial(unit_vectors, model)
        vectors = self._encode([passage.text for passage in passages])  # (n, d)
        self._index = faiss.IndexFlatIP(vectors.shape[1])
        self._index.add(vectors)

    def search(self, query: str, k: int) -> list[tuple[int, float]]:
        """Position and cosine of the k passages nearest to the query, nearest first.

        Raises:
            InputError: k is no count.
        """
        counted("top_k", k)
        scores, found = self._index.search(self._encode([query]), k)
        return [(int(i), float(s)) for i, s in zip(found[0], scores[0], strict=True) if i >= 0]


class Answer(NamedTuple):
    """What one query brought: the filter's two sides, and a verdict where the model knows contradiction."""

    query: str
    filtered: Filtered
    verdict: Verdict | None

    def to_dict(self) -> dict[str, Any]:
        """The answer as JSON types."""
        verdict = None if self.verdict is None else {"label": self.verdict.label, "confidence": self.verdict.confidence}
        return {"query": self.query, "verdict": verdict, **self.filtered.to_dict()}


def answer(
    query: str,
    passages: list[Passage],
    retriever: Retriever,
    reranker: NLIReranker,
    top_k: int = 10,
    threshold: float = 0.5,
) -> Answer:
    """Retrieve top_k passages for the query, put them in order by retrieval and entailment, filter them and judge."""
    found = retriever.search(query, top_k)
    candidates = [passages[i] for i, _ in found]
    cosines = [cosine for _, cosine in found]
    filtered = reranker.filter(query, candidates, threshold, retrieval_scores=cosines, fuse="linear")
    filtered = replace(filtered, kept=reranker.pinpoint(filtered.kept), dropped=reranker.pinpoint(filtered.dropped))
    binary = reranker.engine.labels.binary
    judged = threshold if KINDS[filtered.kept.score_kind].is_probability else _HALF
    return Answer(query, filtered, None if binary else reranker.verify(query, candidates, judged))


def render(shown: Answer) -> Any:  # noqa: ANN401 - rich is optional
    """A rich renderable: order before and after, probabilities as bars, evidence, verdict, why others went."""
    require("rich", "demo")
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), expand=True)
    for title, options in (
        ("now", {"justify": "right"}),
        ("was", {"justify": "right"}),
        ("█ entails ▓ contradicts", {"width": _BAR + 5}),
        ("passage, with the deciding words", {"ratio": 1}),
    ):
        table.add_column(title, header_style="dim", **options)
    kept, dropped = shown.filtered.kept, shown.filtered.dropped
    for rank, passage in enumerate((*kept, *dropped), 1):
        if rank == len(kept) + 1:
            table.add_row("", "", "", Text(f"── dropped: score under {shown.filtered.threshold:g} ──", style="dim"))
        inside = rank <= len(kept)
        table.add_row(
            Text(str(rank), style="bold" if inside else "dim"),
            Text(f"{passage.index + 1}", style="dim"),
            _bar(passage),
            Text.assemble(_excerpt(passage, inside=inside), ("" if inside else f" {_why(passage)}", "italic yellow")),
        )
    return Group(Text.assemble(("“", "dim"), (shown.query, "bold"), ("”  ", "dim"), _headline(shown)), "", table)


def _headline(shown: Answer) -> tuple[str, str]:
    if asks(shown.query):
        count = len(shown.filtered.kept)
        return (f"answered by {count}", "bold green") if count else ("not answered", "bold yellow")
    if shown.verdict is None:
        return f"{len(shown.filtered.kept)} support it", "bold"
    verdict = shown.verdict
    text = f"{verdict.label} ({verdict.confidence:.2f})"
    if verdict.supporting and verdict.refuting:  # a retriever brings both sides of what is disputed
        support, refutation = verdict.supporting[0].score, verdict.refuting[0].refutation
        other = f"supported ({support:.2f})" if verdict.label == "refuted" else f"refuted ({refutation:.2f})"
        text += f", but also {other}"
    color = {"supported": "green", "refuted": "red", "insufficient": "yellow"}[verdict.label]
    return text, f"bold {color}"


def _bar(passage: RankedPassage) -> Any:  # noqa: ANN401
    from rich.text import Text

    bar = Text(f"{passage.score:.2f} ")
    yes, no = (round((p or 0.0) * _BAR) for p in (passage.entailment, passage.contradiction))
    bar.append("█" * yes, style="green")
    bar.append("░" * (_BAR - yes - no), style="bright_black")  # the rest is neutral
    return bar.append("▓" * no, style="red")


def _contradicts(passage: RankedPassage) -> bool:
    return passage.refutation is not None and passage.refutation >= _HALF


def _why(passage: RankedPassage) -> str:
    return f"contradicts ({passage.refutation:.2f})" if _contradicts(passage) else "does not say"


def _excerpt(passage: RankedPassage, *, inside: bool) -> Any:  # noqa: ANN401
    from rich.text import Text

    refutes = not inside and _contradicts(passage)
    span = (passage.refutation_span if refutes else None) or passage.span
    room = max(0, _EXCERPT - (span.end - span.start))
    start = max(0, min(span.start - room // 2, len(passage.text) - _EXCERPT))
    if start:  # begin with a whole word
        start = passage.text.find(" ", start, span.start) + 1 or span.start
    end = min(len(passage.text), max(start + _EXCERPT, span.start + _EXCERPT))
    text = Text("" if start == 0 else "… ", style="" if inside else "dim")
    text.append(_one_line(passage.text[start : span.start]))
    style = "black on green" if inside else "not dim red" if refutes else ""
    text.append(_one_line(passage.text[span.start : min(span.end, end)]), style=style)
    text.append(_one_line(passage.text[span.end : end]))
    return text.append("" if end == len(passage.text) else " …")


def _one_line(text: str) -> str:
    return "".join(" " if c.isspace() else c for c in text)
