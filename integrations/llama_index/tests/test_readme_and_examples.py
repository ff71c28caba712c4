"""What the README shows and what lies in examples/ runs as it stands, offline."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def printed(name: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines that an example prints."""
    runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_readme(code: str) -> None:
    """A Python block of the README runs, and what it asserts holds."""
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 - it is our own text


def test_readme_has_code() -> None:
    """The README has Python code to run, and the name to install is this distribution's."""
    assert PYTHON
    name = re.search(r'^name = "(.*)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert name is not None
    assert f"pip install {name[1]}\n" in README


def test_rag_with_citations(capsys: pytest.CaptureFixture[str]) -> None:
    """A sentence of the answer that a node states is cited with it, and one that none states is marked."""
    built, closed = printed("rag_with_citations", capsys)
    assert built.endswith("[history]")
    assert closed.endswith("[no source says so]")


def test_fact_checking(capsys: pytest.CaptureFixture[str]) -> None:
    """Evidence for and against the claim is kept, and what only touches its topic is not."""
    evidence, supporting, refuting, verdict = printed("fact_checking", capsys)
    assert set(evidence.split()[1:]) == {"website", "sign"}
    assert (supporting, refuting, verdict) == ("supporting: website", "refuting: sign", "verdict: supported")


def test_qa_answers(capsys: pytest.CaptureFixture[str]) -> None:
    """The right answer comes first, with the node that states it."""
    lines = printed("qa_answers", capsys)
    assert len(lines) == 3
    assert lines[0].endswith("Ines Halloran [programme]")
