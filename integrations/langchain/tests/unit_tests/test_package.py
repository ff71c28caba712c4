"""The package's shape: what it exports, what it imports, and how light it is."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import langchain_rerank_nli
import pytest

import rerank_nli

ROOT = Path(__file__).parents[2]
PACKAGE = Path(langchain_rerank_nli.__file__).parent
HEAVY = ("langchain_classic", "langchain_community", "onnxruntime", "tokenizers.tokenizers", "torch", "transformers")


@pytest.mark.parametrize("name", langchain_rerank_nli.__all__)
def test_exported_names_are_documented(name: str) -> None:
    """What the package exports has a docstring of its own, and so have its public methods."""
    exported = getattr(langchain_rerank_nli, name)
    methods = [m for k, m in vars(exported).items() if not k.startswith("_") and inspect.isfunction(m)]
    assert exported.__dict__.get("__doc__")
    assert [m.__name__ for m in methods if not m.__doc__] == []


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.name)
def test_imports(path: Path) -> None:
    """A file imports public names of rerank_nli only, and nothing of langchain but langchain_core."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not [name.name for name in node.names if name.name.split(".")[0].startswith(("rerank", "langchain"))]
        elif isinstance(node, ast.ImportFrom) and node.module:
            root = node.module.split(".")[0]
            assert root in ("langchain_core", "langchain_rerank_nli") or not root.startswith("langchain")
            if root == "rerank_nli":
                assert node.module == "rerank_nli"
                assert {name.name for name in node.names} <= set(rerank_nli.__all__)


def test_making_one_is_light() -> None:
    """Import and construction load no runtime, no model and no more of langchain than its core."""
    program = "import sys, langchain_rerank_nli as l; l.NLIRerank(); l.NLIGroundedness(); print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert "langchain_core" in ran.stdout.split()
    assert [name for name in HEAVY if name in ran.stdout.split()] == []


def test_the_wheel(tmp_path: Path) -> None:
    """A wheel holds the modules, the mark that they are typed, the licence and metadata, and nothing else."""
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [wheel] = tmp_path.iterdir()
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [info] = {name.split("/")[0] for name in names} - {"langchain_rerank_nli"}
        metadata = archive.read(f"{info}/METADATA").decode()
    modules = {f"langchain_rerank_nli/{path.name}" for path in (ROOT / "langchain_rerank_nli").glob("*.py")}
    about = {f"{info}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "licenses/LICENSE")}
    assert names == modules | about | {"langchain_rerank_nli/py.typed"}
    assert "License-Expression: Apache-2.0\n" in metadata
