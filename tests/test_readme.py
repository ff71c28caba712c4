"""What README and CONTRIBUTING show is run as it stands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
SHELL = [line for block in re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL) for line in block.splitlines()]


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_python_runs(code: str) -> None:
    """A Python block of the README runs, and what it asserts holds."""
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 - it is our own text


@pytest.mark.skipif(os.name == "nt", reason="the shell lines are written for sh")
@pytest.mark.parametrize("line", [line for line in SHELL if "rerank-nli " in line and "pip install" not in line])
def test_shell_line_runs(line: str, tmp_path: Path) -> None:
    """A command line of the README runs and prints something."""
    folder = Path(sys.executable).parent
    assert shutil.which("rerank-nli", path=str(folder))
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    result = subprocess.run(
        ["/bin/sh", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout


def test_the_two_commands_are_there() -> None:
    """The README names `make demo` and `make test`, and the Makefile has them."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("demo", "test"):
        assert f"make {target}" in README
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_pictures_and_links_exist() -> None:
    """Every file that the README points at is in the repository."""
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_figures_are_those_measured() -> None:
    """The README's tables are the committed outputs of the benchmarks."""
    results = ROOT / "benchmarks" / "results"
    summary = json.loads((results / "demo_corpus.json").read_text(encoding="utf-8"))["summary"]
    for name, figure in summary["claim"].items():
        assert name == "queries" or f"| {name} | {figure} |" in README, name
    for name, figures in json.loads((results / "accuracy.json").read_text(encoding="utf-8"))["sets"].items():
        assert f"| {name} | {figures['rows']:,} | {figures['accuracy']:.1%} | {figures['ECE']:.3f} |" in README, name


def test_figures_are_of_the_bundled_weights() -> None:
    """Every benchmark of the NLI model was run on the weights that are bundled, and the model card says the same."""
    bundled = json.loads((ROOT / "rerank_nli/mini/nli/manifest.json").read_text(encoding="utf-8"))
    for name in ("accuracy", "demo_corpus", "templates", "windows"):
        result = json.loads((ROOT / f"benchmarks/results/{name}.json").read_text(encoding="utf-8"))
        assert result["fingerprint"] == bundled["files"]["model.onnx"], name
        if name == "accuracy":
            assert result["temperature"] == bundled["temperature"]
            for dataset, figures in result["sets"].items():
                assert bundled["scores"][f"{dataset} accuracy"] == figures["accuracy"]
