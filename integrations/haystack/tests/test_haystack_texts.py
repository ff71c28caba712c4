"""The README's code and the examples run as they stand."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

FOLDER = Path(__file__).parents[1]
README = (FOLDER / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_python_runs(code: str) -> None:
    """A Python block of the README runs, and what it asserts holds."""
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 - it is our own text


def printed(example: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines that an example prints."""
    runpy.run_path(str(FOLDER / "examples" / example), run_name="__main__")
    return capsys.readouterr().out.splitlines()


def test_rag_cites_the_document_that_answers(capsys: pytest.CaptureFixture[str]) -> None:
    """The RAG example answers from the document about climbing, and cites that one alone."""
    answer, *cited = printed("rag_with_citations.py", capsys)
    assert answer == "Visitors may climb the lighthouse on Skerry Point from April to September. [1]"
    assert [
        line.endswith(": Visitors may climb the lighthouse on Skerry Point from April to September.") for line in cited
    ] == [True]


def test_fact_checking_tells_support_from_refutation(capsys: pytest.CaptureFixture[str]) -> None:
    """The fact-checking example puts two reports on either side, and the one about the town hall on neither."""
    lines = printed("fact_checking.py", capsys)
    against = lines.index("against:")
    assert sorted(line.split(" (")[0].strip() for line in lines[1:against]) == [
        "After the May flood, no lorry was allowed to cross the Marlow bridge.",
        "The Marlow bridge was closed to lorries after the flood in May.",
    ]
    assert sorted(line.split(" (")[0].strip() for line in lines[against + 1 :]) == [
        "Lorries crossed the Marlow bridge on every day after the flood.",
        "The Marlow bridge stayed open to all lorries after the flood in May.",
    ]


def test_the_right_answer_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    """The answer-ranking example names the composer first, with the document that says so."""
    best, *others = printed("qa_answers.py", capsys)
    assert "Ilse Brandt: The sonata in the drawer was composed by Ilse Brandt" in best
    assert len(others) == 2
