"""What README and CONTRIBUTING show is run as it stands."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rerank_nli import NLIReranker, load
from rerank_nli.scores import ALPHA

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
SHELL = [line for block in re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL) for line in block.splitlines()]
ADAPTERS = {
    "langchain": "langchain_rerank_nli",
    "llama_index": "llama_index.postprocessor.rerank_nli",
    "haystack": "haystack_integrations.components.rankers.rerank_nli",
    "ray": "rerank_nli_ray",
}
STAGES = ("BM25", "all-MiniLM-L6-v2 cosine", "bundled retriever")
NLI = "NLI passage_entails_query, entailment"
NAMES = {"BM25": "BM25", STAGES[1]: "cosine of all-MiniLM-L6-v2", STAGES[2]: STAGES[2], NLI: "NLI alone"}
NAMES |= {f"{stage} + NLI, learned": f"{NAMES[stage]} + NLI, learned" for stage in STAGES}  # as the page has them
# their line | ours | the module that ours is imported from
COMING_FROM = re.findall(r"^\| .+ \| `(.+)` \| `([\w.]+)` \|$", README, flags=re.MULTILINE)


@pytest.fixture(autouse=True)
def _no_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAYSTACK_TELEMETRY_ENABLED", "False")  # Haystack reads it at import


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_python_runs(code: str) -> None:
    """A Python block of the README runs, and what it asserts holds."""
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 - it is our own text


@pytest.mark.parametrize("folder", sorted(path.parent.name for path in ROOT.glob("integrations/*/pyproject.toml")))
def test_an_adapter_is_shown_in_six_lines(folder: str) -> None:
    """The README has one block of code for each adapter, of six lines."""
    (code,) = (code for code in PYTHON if f"from {ADAPTERS[folder]} import" in code)
    assert len([line for line in code.splitlines() if line]) == 6


@pytest.mark.parametrize(("line", "module"), COMING_FROM)
def test_our_line_does_what_theirs_did(line: str, module: str) -> None:
    """What stands in place of another reranker's line gives the order and the number that it says."""
    from langchain_classic.retrievers.document_compressors import CrossEncoderReranker
    from langchain_core.documents import Document
    from llama_index.core.schema import NodeWithScore, TextNode

    query, ids = "The kettle is red.", [7, 8, 9, 10]
    docs = ["The kettle is blue.", "It holds 1.7 litres.", "The red kettle holds water.", "It was made in Leeds."]
    passages = [{"id": key, "text": text, "meta": {}} for key, text in zip(ids, docs, strict=True)]
    given = {"query": query, "ids": ids, "docs": docs, "passages": passages}
    names = {**vars(importlib.import_module(module)), "CrossEncoderReranker": CrossEncoderReranker, **given}
    made: Any = eval(line, names)  # noqa: S307 - it is our own text
    if module == ADAPTERS["langchain"]:
        found = [d.page_content for d in made.compress_documents([Document(text) for text in docs], query)]
    elif module == ADAPTERS["llama_index"]:
        nodes = [NodeWithScore(node=TextNode(text=text)) for text in docs]
        found = [node.text for node in made.postprocess_nodes(nodes, query_str=query)]
    else:
        found = [p.text for p in made]
        assert [p.id for p in made] == [ids[p.index] for p in made]
    expected = [p.text for p in NLIReranker().rank(query, docs)]
    assert found == expected[: 1 if "threshold" in line else 3 if "=3" in line else 4]
    assert found[0] == "The red kettle holds water."


def test_the_lines_of_each_reranker_are_there() -> None:
    """The table has a line for each reranker that people come from."""
    theirs = [line.split(" | ")[0] for line in README.splitlines() if line.endswith("rerank_nli` |")]
    assert len(theirs) == len(COMING_FROM)
    for name in ("CrossEncoderReranker", "FlashrankRerank", "SentenceTransformerRerank", "Ranker()", "Reranker("):
        assert any(f"`{name}" in line for line in theirs), name


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


def test_evidence_is_what_was_measured() -> None:
    """The README's figures on evidence are those of the committed benchmark."""
    sets = json.loads((ROOT / "benchmarks/results/evidence.json").read_text(encoding="utf-8"))["sets"]
    for name, row in sets["SciFact, 100 retrieved"]["rows"].items():
        cited, support = (row[f"nDCG@10, {aim}"][0] for aim in ("cited", "support"))
        if name in STAGES or name.endswith((f"linear {ALPHA:g}", "learned")) or name == NLI:
            assert f" | {cited:.3f} | {support:.3f} |" in README, name
    for name in (*STAGES, NLI):
        row = sets["SciFact, cited abstracts"]["rows"][name]
        figures = (row[f"AUROC, support against {other}"][0] for other in ("refutation", "no evidence"))
        assert " | {:.3f} | {:.3f} |".format(*figures) in README, name


def test_the_page_on_evidence_is_what_was_measured() -> None:
    """The tables of docs/evidence.md are the committed benchmark's, and each set has its paragraph."""
    page = (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8")
    measured = json.loads((ROOT / "benchmarks/results/evidence.json").read_text(encoding="utf-8"))
    for half, by_weight in measured["weight of NLI"].items():
        assert f"| {half} queries | {' | '.join(f'{value:.3f}' for value in by_weight.values())} |" in page
    orders = {"SciFact, 100 retrieved": ("cited", "support"), "FM2": ("evidence", "support")}
    joined = json.loads((ROOT / "benchmarks/results/joined.json").read_text(encoding="utf-8"))["sets"]
    for name, found in joined.items():
        for how, figures in found["verdicts"].items():
            assert f"| {name} | {how} | {figures['accuracy'][0]:.3f} | {figures['macro-F1'][0]:.3f} |" in page
    for name, found in measured["sets"].items():
        assert f"\n## {name.split(',')[0]} (" in page
        rows = found["rows"]
        for row in NAMES if name in orders else ():
            first, second = (rows[row][f"nDCG@10, {aim}"][0] for aim in orders[name])
            assert f"| {NAMES[row]} | {first:.3f} | {second:.3f} |" in page, name
        if "ECE" in rows[NLI]:
            columns = ("ECE", "ECE, fitted on the other half", "ECE, if the fit were true")
            plain, fitted, chance = (rows[NLI][column][0] for column in columns)
            shipped = rows["NLI, calibrated as shipped"]["ECE"][0]
            assert f"| {name} | {plain:.3f} | {shipped:.3f} | {fitted:.3f} | {chance:.3f} |" in page, name
        for what, promised in found.items():
            if what.startswith("recall"):
                kept = f"{promised['mean recall']:.3f} | {promised['halves with at least 0.9']:.2f}"
                assert f"| {name} | {promised['claims of a half with support']} | {kept} |" in page, name


def test_calibration_is_what_was_measured() -> None:
    """The README's table of the shipped calibration is the committed benchmark's."""
    found = json.loads((ROOT / "benchmarks/results/calibration.json").read_text(encoding="utf-8"))
    for name, figures in found["precisions"]["int8"]["sets"].items():
        row = " | ".join(f"{figures[when][what][0]:.3f}" for what in ("ece", "brier") for when in figures)
        assert f"| {name} | {row} |" in README, name


def test_forms_are_what_was_measured() -> None:
    """The README's table of forms is the committed benchmark's."""
    forms = json.loads((ROOT / "benchmarks/results/quantization.json").read_text(encoding="utf-8"))["forms"]
    sets = [key for key, of in forms["fp32"].items() if isinstance(of, dict)]
    for name, row in forms.items():
        whole = " | ".join(str(row[key]["accuracy"]) if key in row else "" for key in sets)
        assert (
            f"| {name} | {row['MB']} | {row['accuracy']} | {whole} | {row['ONNX Runtime pairs/s']:.0f} |" in README
        ), name
    int8 = forms["int8 weights, int8 compute by token"]
    assert max(abs(int8[key]["accuracy"] - forms["fp32"][key]["accuracy"]) for key in sets) <= 0.5


def test_speeds_are_what_was_measured() -> None:
    """Each row of the README's table of speeds has the committed benchmark's medians."""
    measured = json.loads((ROOT / "benchmarks/results/speed.json").read_text(encoding="utf-8"))
    workloads = [
        row["libraries"] for model in ("MiniLM", "DeBERTa-v3-small") for row in measured[model]["workloads"].values()
    ]
    for kind, scores in measured["MiniLM"]["scores"].items():
        if kind != "pairs that fit":
            cells = [(one[kind]["pairs/s"][0], one[kind]["ratio"][0]) if kind in one else None for one in workloads]
            shown = " | ".join("{:.0f}, {:.2f}".format(*cell) if cell else "–" for cell in cells)
            assert f"| {shown} | {scores['Kendall tau']:.3f} |" in README, kind


def test_figures_are_of_the_bundled_weights() -> None:
    """Every benchmark of the NLI model was run on the weights that are bundled, and the model card says the same."""
    bundled = json.loads((ROOT / "rerank_nli/mini/nli/manifest.json").read_text(encoding="utf-8"))
    fingerprint = load().fingerprint
    for name in (
        "accuracy",
        "calibration",
        "cascade",
        "demo_corpus",
        "evidence",
        "growth",
        "joined",
        "templates",
        "windows",
    ):
        result = json.loads((ROOT / f"benchmarks/results/{name}.json").read_text(encoding="utf-8"))
        assert result["fingerprint"] == fingerprint, name
        if name == "cascade":
            assert result["weight of NLI"] == ALPHA
        if name == "accuracy":
            assert result["temperature"] == bundled["temperature"]
            for dataset, figures in result["sets"].items():
                assert bundled["scores"][f"{dataset} accuracy"] == figures["accuracy"]
