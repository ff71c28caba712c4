"""What the README shows and the examples do, as they stand."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
PRINTED = {
    "answer_ranking": [r"\?  Bees have five eyes\.", r"\?  Bees dance to tell", r"\?  Bees make honey from nectar\."],
    "fact_checking": [r"^supports: The city council voted", r"^refutes:  The tram line will be closed"],
    "rag_with_citations": [
        r"^50% grounded: .*1911\. \[history\.md\] .*London\. \[(refuted|insufficient)\]$",
        r"^100% grounded: .*1911\. \[history\.md\] .*Leeds\. \[telescope\.md\]$",
    ],
}


def test_the_readme_runs() -> None:
    """The README's Python runs from top to bottom, and what it asserts holds."""
    shared: dict[str, object] = {}
    for block in PYTHON:
        exec(compile(block, "README.md", "exec"), shared)  # noqa: S102 - it is our own text
    assert len(PYTHON) == 3


def test_every_example_is_run() -> None:
    """There is an expectation for each example."""
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == set(PRINTED)


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_runs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An example prints, line by line, what it is there to show."""
    runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(PRINTED[name])
    assert [line for line, wanted in zip(lines, PRINTED[name], strict=True) if not re.search(wanted, line)] == []
