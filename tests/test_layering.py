"""The package's shape: who may import whom, what is exported, and how light the import is."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest

import rerank_nli

PACKAGE = Path(rerank_nli.__file__).parent
INTEGRATIONS = Path(__file__).parents[1] / "integrations"
ADAPTERS = sorted(path.parent.name for path in INTEGRATIONS.glob("*/pyproject.toml"))
# A file imports only from files above it in this list.
ORDER = (
    *("errors", "types"),
    *("labels", "manifest", "scores", "windows", "fitted", "calibration", "fusion", "deberta"),
    *("thresholds", "guarantees"),
    *("files", "unpack", "checkpoints", "quantize", "export"),
    *(
        "batches",
        "cache",
        "engines",
        "onnx_engine",
        "torch_engine",
        "openvino_engine",
        "loading",
        "embedding",
        "throughput",
        "shared_engine",
    ),
    "scorer",
    *("rows", "inputs", "pairs", "budget", "ranking", "prediction", "grounding", "coverage", "conflicts", "samples"),
    *("classification", "encoders", "label_sets", "label_inputs", "label_scores"),
    *("judging", "reranker", "zeroshot", "languages"),
    *("columns", "workers", "tables", "jobs"),
    *("evaluate", "calibrate", "agreement"),
    *("examples", "recipe", "heads", "layers", "train", "tune", "demo", "catalogue"),
    *("server_forms", "server_limits", "server_models", "server_metrics", "server_requests"),
    *("server_answers", "server_pages", "server"),
    *("cli_options", "cli_serving", "cli_training", "cli_tuning", "cli_models", "cli_scoring", "cli"),
)
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")
HEAVY = ("torch", "transformers", "onnxruntime", "openvino", "sentence_transformers", "pandas", "sklearn", "onnx")


def _tree(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))


def _imported(module: str) -> set[str]:
    """Names after "rerank_nli." of what a file imports anywhere in it, "" for the package itself."""
    found: set[str] = set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names if name.name.split(".")[0] == "rerank_nli"}
        elif isinstance(node, ast.ImportFrom):
            source = "rerank_nli" + f".{node.module}" * bool(node.module) if node.level else str(node.module)
            if source == "rerank_nli":
                found |= {f"rerank_nli.{a.name}" if a.name in MODULES else "rerank_nli" for a in node.names}
            elif source.startswith("rerank_nli."):
                found.add(source)
    return {name.removeprefix("rerank_nli").removeprefix(".") for name in found}


@pytest.mark.parametrize("module", MODULES)
def test_order(module: str) -> None:
    """A file imports only from files above it, and never from the package itself."""
    assert module in ORDER, f"{module}.py has no place in the order: add it to ORDER at its level"
    assert _imported(module) <= set(ORDER[: ORDER.index(module)])


def test_init_only_re_exports() -> None:
    """`__init__` holds imports from its own files, `__all__` and `__version__`, and nothing else."""
    docstring, *rest = _tree("__init__").body
    assert isinstance(docstring, ast.Expr)
    targets: list[str] = []
    for node in rest:
        if isinstance(node, ast.ImportFrom):
            assert str(node.module).startswith("rerank_nli.")
        else:
            assert isinstance(node, ast.Assign)
            targets += [target.id for target in node.targets if isinstance(target, ast.Name)]
    assert targets == ["__all__", "__version__"]


@pytest.mark.parametrize("module", ["rerank_nli", *(f"rerank_nli.{name}" for name in MODULES)])
def test_all_is_sorted_and_true(module: str) -> None:
    """A public module lists what it exports, constants, classes and functions sorted each, and has all of it."""
    listed = importlib.import_module(module).__all__
    assert list(listed) == sorted(set(listed), key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    assert [name for name in listed if not hasattr(importlib.import_module(module), name)] == []


@pytest.mark.parametrize("name", rerank_nli.__all__)
def test_exported_names_are_documented(name: str) -> None:
    """What the package exports has a docstring of its own, and so have its public methods."""
    exported = getattr(rerank_nli, name)
    assert exported.__dict__.get("__doc__") if inspect.isclass(exported) else exported.__doc__
    methods = {k: v for k, v in vars(exported).items() if not k.startswith("_") and inspect.isfunction(v)}
    assert [k for k, method in methods.items() if not method.__doc__] == []


@pytest.mark.parametrize(
    "module", sorted({*MODULES, "__init__"} - {name for name in MODULES if name.startswith("cli")})
)
def test_only_the_command_line_prints(module: str) -> None:
    """No file but those of the command line calls print."""
    calls = (node.func for node in ast.walk(_tree(module)) if isinstance(node, ast.Call))
    assert [call.lineno for call in calls if isinstance(call, ast.Name) and call.id == "print"] == []


def test_import_is_light() -> None:
    """`import rerank_nli` loads no runtime, no torch and no table library."""
    program = "import sys, rerank_nli; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    loaded = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, env=environment
    )
    names = loaded.stdout.split()
    assert "numpy" in names
    assert [name for name in HEAVY if name in names] == []


def _taken(source: str) -> set[str]:
    """What a program takes from rerank_nli, anywhere in it: names of the package, "module.name" from below it."""
    nodes = list(ast.walk(ast.parse(source)))
    found, aliases = set(), set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and not node.level:
            found |= {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
            aliases |= {name.asname or name.name for name in node.names if name.name == "rerank_nli"}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)  # for importlib, or to be patched
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            found.add(f"rerank_nli.{node.attr}")
    return {ours[1] for name in found if (ours := re.fullmatch(r"rerank_nli\.([\w.*]+)", name))}


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_adapters_use_public_names(adapter: str) -> None:
    """An adapter, its tests and its examples take from rerank_nli what the package exports, and nothing else."""
    taken = {path: _taken(path.read_text(encoding="utf-8")) for path in (INTEGRATIONS / adapter).rglob("*.py")}
    assert {"NLIReranker"} <= set().union(*taken.values())
    public = {*rerank_nli.__all__, "__all__", "__file__", "__version__"}
    assert {path: sorted(names - public) for path, names in taken.items() if names - public} == {}


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("from rerank_nli import NLIReranker, load as open", {"NLIReranker", "load"}),
        ("from rerank_nli import _private", {"_private"}),
        ("from rerank_nli import *", {"*"}),
        ("from rerank_nli.scorer import Scorer", {"scorer.Scorer"}),
        ("def f():\n    from rerank_nli import scorer", {"scorer"}),
        ("import rerank_nli.scorer", {"scorer"}),
        ("import rerank_nli.scorer as s", {"scorer"}),
        ("import rerank_nli as r\nr.scores.KINDS", {"scores"}),
        ("import_module('rerank_nli.scorer')", {"scorer"}),
        ("from langchain_rerank_nli.rerank import NLIRerank", set()),
        ("from .rerank_nli import NLIRerank", set()),
    ],
)
def test_what_is_taken_is_seen(source: str, names: set[str]) -> None:
    """Each way to take a name from rerank_nli is seen, and its look-alikes are not."""
    assert _taken(source) == names


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_extra_names_each_adapter(adapter: str) -> None:
    """The extra that is called as an adapter's folder brings that adapter's distribution."""
    project = (INTEGRATIONS / adapter / "pyproject.toml").read_text(encoding="utf-8")
    (name,) = re.findall(r'^name = "(.+)"$', project, flags=re.MULTILINE)
    extra = adapter.replace("_", "-")
    assert f"{name}; extra == '{extra}'" in [line.replace('"', "'") for line in requires("rerank-nli") or []]
