"""The package's shape: what the wheel holds, whose the namespaces are, and how light it is."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from haystack_integrations.components.rankers import rerank_nli

ROOT = Path(__file__).parents[1]
SPACES = ("haystack_integrations", "haystack_integrations.components", "haystack_integrations.components.rankers")


@pytest.mark.parametrize("name", rerank_nli.__all__)
def test_exported_names_are_documented(name: str) -> None:
    """What the package exports has a docstring of its own, and so have its public methods."""
    exported = getattr(rerank_nli, name)
    methods = {k: m for k, m in inspect.getmembers(exported, inspect.isroutine) if not k.startswith("_")}
    assert exported.__dict__.get("__doc__")
    assert {"run", "run_async", "warm_up", "warm_up_async", "to_dict", "from_dict"} <= set(methods)
    assert [k for k, method in methods.items() if not method.__doc__] == []


def test_making_one_is_light() -> None:
    """Import and construction load no model, and no runtime to compute one with."""
    program = (
        "import sys, haystack; before = set(sys.modules)\n"  # Haystack itself loads torch where it is installed
        "from haystack_integrations.components.rankers.rerank_nli import EvidenceFilter, NLIRanker\n"
        "NLIRanker(); EvidenceFilter(); print(*set(sys.modules) - before)"
    )
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    loaded = set(ran.stdout.split())
    assert "rerank_nli" in loaded
    assert loaded & {"onnxruntime", "torch", "transformers"} == set()


@pytest.mark.parametrize("name", SPACES)
def test_the_namespaces_are_shared(name: str) -> None:
    """The packages above the module belong to no distribution, so that other integrations fit beside it."""
    assert importlib.import_module(name).__file__ is None


def test_the_wheel(tmp_path: Path) -> None:
    """A wheel holds the modules, the mark that they are typed, the licence and metadata, and nothing else."""
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [wheel] = tmp_path.iterdir()
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [info] = {name.split("/")[0] for name in names} - {"haystack_integrations"}
        metadata = archive.read(f"{info}/METADATA").decode()
    folder = ROOT / "src" / "haystack_integrations" / "components" / "rankers" / "rerank_nli"
    ours = [*folder.glob("*.py"), folder / "py.typed"]
    about = {f"{info}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "licenses/LICENSE")}
    assert names == {path.relative_to(ROOT / "src").as_posix() for path in ours} | about
    assert "License-Expression: Apache-2.0\n" in metadata
