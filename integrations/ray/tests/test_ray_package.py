"""The package's shape: what it exports, what the wheel holds, and that its README runs."""

from __future__ import annotations

import inspect
import re
import runpy
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rerank_nli_ray

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", rerank_nli_ray.__all__)
def test_exported_names_are_documented(name: str) -> None:
    """What the package exports has a docstring of its own, and so have its public methods."""
    exported = getattr(rerank_nli_ray, name)
    assert exported.__doc__
    if inspect.isclass(exported):
        methods = {k: m for k, m in vars(exported).items() if inspect.isfunction(m) and k != "__init__"}
        assert set(methods) == {"__call__", "scores"}
        assert [k for k, method in methods.items() if not method.__doc__] == []


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL), ids=["map_batches"])
def test_the_readme_runs(code: str, cluster: str) -> None:
    """A Python block of the README runs, and what it asserts holds."""
    assert cluster
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 - it is our own text


def test_the_example_keeps_what_backs_a_claim(cluster: str, tmp_path: Path) -> None:
    """The example runs, and of its three rows keeps the one whose passage backs its claim."""
    assert cluster
    example = runpy.run_path(str(ROOT / "examples" / "evidence_in_parquet.py"))
    pq.write_table(pa.Table.from_pylist(example["ROWS"]), tmp_path / "rows.parquet")
    example["backed"](tmp_path / "rows.parquet", tmp_path / "backed")
    assert pq.read_table(tmp_path / "backed")["text"].to_pylist() == ["At noon the ferry leaves the harbour."]


def test_importing_is_light() -> None:
    """Import loads no runtime to compute a model with."""
    program = "import sys, ray; before = set(sys.modules); import rerank_nli_ray; print(*set(sys.modules) - before)"
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    loaded = set(ran.stdout.split())
    assert "rerank_nli" in loaded
    assert loaded & {"onnxruntime", "torch", "transformers", "tokenizers.tokenizers"} == set()


def test_the_wheel(tmp_path: Path) -> None:
    """A wheel holds the modules, the mark that they are typed, the licence and metadata, and nothing else."""
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [wheel] = tmp_path.iterdir()
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [info] = {name.split("/")[0] for name in names} - {"rerank_nli_ray"}
        metadata = archive.read(f"{info}/METADATA").decode()
    modules = {f"rerank_nli_ray/{path.name}" for path in (ROOT / "rerank_nli_ray").glob("*.py")}
    about = {f"{info}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "licenses/LICENSE")}
    assert names == modules | about | {"rerank_nli_ray/py.typed"}
    assert "License-Expression: Apache-2.0\n" in metadata
