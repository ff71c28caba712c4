"""Postprocessors as fields, JSON, pickles and copies; the package as it is laid out."""

from __future__ import annotations

import copy
import importlib
import pickle
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler
from llama_index.postprocessor.rerank_nli import EvidenceFilter, NLIRerank
from stated_nodes import CLAIM, nodes_of, stated, stating

from rerank_nli import FunctionEngine, NLIReranker

if TYPE_CHECKING:
    from llama_index.core.schema import NodeWithScore

ROOT = Path(__file__).parent.parent
OTHER_THAN_DEFAULT: dict[str, Any] = {
    "threshold": 0.25,
    "keep": "evidence",
    "metadata_mode": "llm",
    "engine": "onnx",
    "labels": ["contradiction", "entailment", "neutral"],
    "direction": "bidirectional",
    "score": "entailment_vs_contradiction",
    "model": "org/name",
}
OF_RERANK: dict[str, Any] = {"top_n": 4, "fuse": "rrf", "alpha": 0.3, "keep_retrieval_score": True}
NODES = nodes_of("No ferry sails at noon.", "The ferry sails at noon.", "It rains.")


def scored(postprocessor: NLIRerank | EvidenceFilter) -> list[NodeWithScore]:
    """What it makes of three nodes."""
    return postprocessor.postprocess_nodes(NODES, query_str=CLAIM)


@pytest.mark.parametrize(
    ("made", "fields"),
    [
        (NLIRerank, {**OTHER_THAN_DEFAULT, **OF_RERANK}),
        (EvidenceFilter, OTHER_THAN_DEFAULT),
    ],
)
def test_fields_rebuild_it(made: type[NLIRerank | EvidenceFilter], fields: dict[str, Any]) -> None:
    """Every public field goes through to_dict, JSON and from_dict, and makes the same postprocessor."""
    postprocessor = made(**fields)
    written = postprocessor.to_dict()
    assert written == {**fields, "class_name": made.__name__}
    assert made.from_dict(written).to_dict() == written
    assert made.from_json(postprocessor.to_json()).to_dict() == written
    assert set(fields) == set(made.model_fields) - {"reranker", "callback_manager"}


def test_defaults_rebuild_a_working_one() -> None:
    """A postprocessor with its defaults, written and read, scores alike."""
    rerank = NLIRerank(top_n=2)
    expected = scored(rerank)
    assert scored(NLIRerank.from_json(rerank.to_json())) == expected


@pytest.mark.parametrize("made", [NLIRerank, EvidenceFilter])
def test_json_schema(made: type[NLIRerank | EvidenceFilter]) -> None:
    """The JSON schema knows the settings, and no object that JSON cannot hold."""
    properties = made.model_json_schema()["properties"]
    assert {"model", "threshold", "keep", "metadata_mode"} <= set(properties)
    assert "reranker" not in properties


def test_a_ready_reranker_is_not_written() -> None:
    """A postprocessor that holds a ready reranker says that fields cannot describe it."""
    with pytest.raises(ValueError, match="give its settings in place of reranker="):
        NLIRerank(reranker=stating()).to_dict()
    with pytest.raises(ValueError, match="give its settings in place of reranker="):
        EvidenceFilter(reranker=stating()).to_json()


def test_pickles_leave_the_model_out() -> None:
    """A pickle of a used postprocessor holds settings only, and what comes out of it scores alike."""
    rerank = NLIRerank(top_n=2, score="margin")
    expected = scored(rerank)
    pickled = pickle.dumps(rerank)
    assert len(pickled) < 1000
    again = pickle.loads(pickled)  # noqa: S301 - written above
    assert again.to_dict() == rerank.to_dict()
    assert again._loaded is None
    assert scored(again) == expected


def test_a_ready_reranker_is_pickled_as_it_pickles_itself() -> None:
    """A ready reranker travels with its postprocessor; one that cannot is an error, never another model."""
    expected = scored(NLIRerank(reranker=NLIReranker(FunctionEngine(stated)), threshold=0.0))
    rerank = pickle.loads(pickle.dumps(NLIRerank(reranker=stating(), threshold=0.0)))  # noqa: S301 - written on this line
    assert rerank.reranker.engine.name == "function"
    assert scored(rerank) == expected
    local = NLIRerank(reranker=NLIReranker(FunctionEngine(lambda pairs: stated(pairs))))  # noqa: PLW0108 - a local one
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(local)


def test_callbacks_are_not_pickled() -> None:
    """Callbacks, which an engine sets and which may hold anything, stay where they are."""
    handler = LlamaDebugHandler(print_trace_on_end=False)
    rerank = NLIRerank(reranker=stating())
    rerank.callback_manager = CallbackManager([handler])
    again = pickle.loads(pickle.dumps(rerank))  # noqa: S301 - written on this line
    assert again.callback_manager.handlers == []
    assert rerank.callback_manager.handlers == [handler]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_copies(copied: Any) -> None:
    """A copy of a used postprocessor scores alike, and what is set on it stays on it."""
    rerank = NLIRerank(top_n=2)
    expected = scored(rerank)
    again = copied(rerank)
    assert scored(again) == expected
    again.top_n = 1
    assert (len(scored(again)), len(scored(rerank))) == (1, 2)


def test_namespace() -> None:
    """The folders above the package belong to no one, so that other integrations fit beside it; types are declared."""
    package = ROOT / "llama_index" / "postprocessor" / "rerank_nli"
    assert (package / "py.typed").is_file()
    for above in (package.parent, package.parent.parent):
        assert not (above / "__init__.py").exists()


def test_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel holds the package with its type marker, the licence and its own records, and nothing else."""
    backend = pytest.importorskip("hatchling.build")
    monkeypatch.chdir(ROOT)
    with zipfile.ZipFile(tmp_path / backend.build_wheel(str(tmp_path))) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        records = {name.partition(".dist-info/")[2] for name in set(wheel.namelist()) - names}
    package = "llama_index/postprocessor/rerank_nli"
    assert names == {f"{package}/{name}" for name in ("__init__.py", "base.py", "py.typed")}
    assert records == {"METADATA", "RECORD", "WHEEL", "licenses/LICENSE"}


def test_llamahub() -> None:
    """The entry for LlamaHub names a module that can be imported and every class in it."""
    tomllib = pytest.importorskip("tomllib")
    entry = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["llamahub"]
    module = importlib.import_module(entry["import_path"])
    assert sorted(entry["class_authors"]) == sorted(module.__all__)
