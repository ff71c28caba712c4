"""NLIRerank and EvidenceFilter on nodes: scores, order, what stays untouched, what is refused."""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import (
    Document,
    ImageNode,
    IndexNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeWithScore,
    QueryBundle,
    TextNode,
)
from llama_index.postprocessor.rerank_nli import EvidenceFilter, NLIRerank
from shared_cases import CASES, Case
from stated_nodes import CLAIM, failing, ids, nodes_of, stated, stating

from rerank_nli import (
    CalibrationError,
    FunctionEngine,
    Fusion,
    InputError,
    InputTypeError,
    ModelNotFoundError,
    NLIReranker,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

THREE = ("e=0.2,c=0.1", "e=0.9,c=0.05", "e=0.5,c=0.4")
PARTLY_SCORED: list[list[float | None]] = [[0.9, None, 0.8], [0.9, math.nan, 0.8], [0.9, math.inf, 0.8]]


@pytest.mark.parametrize("postprocessor", [NLIRerank, EvidenceFilter])
def test_class(postprocessor: type[BaseNodePostprocessor]) -> None:
    """BaseNodePostprocessor is among the bases of both, and the class name is the class's."""
    assert BaseNodePostprocessor in postprocessor.__mro__
    assert postprocessor.class_name() == postprocessor.__name__


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_scores_of_nli_reranker(case: Case, bundled: NLIReranker) -> None:
    """Order and scores are those of NLIReranker for the same settings, plain and async."""
    reranker = NLIReranker(bundled.engine, **case.settings)
    expected = case.expected(reranker)
    nodes = nodes_of(*case.texts, scores=case.retrieval_scores)
    rerank = NLIRerank(
        top_n=case.top_n,
        threshold=case.threshold,
        keep=case.keep,
        fuse=case.fuse,
        reranker=NLIReranker(reranker.engine, **case.settings),
    )
    reranked = rerank.postprocess_nodes(nodes, query_str=case.query)
    assert ids(reranked) == [f"n{index}" for index, _ in expected]
    assert [node.score for node in reranked] == pytest.approx([score for _, score in expected], abs=1e-6)
    assert asyncio.run(rerank.apostprocess_nodes(nodes, query_str=case.query)) == reranked


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_filter_of_nli_reranker(case: Case, bundled: NLIReranker) -> None:
    """EvidenceFilter keeps what NLIReranker keeps, in the order and with the scores that came in, plain and async."""
    reranker = NLIReranker(bundled.engine, **case.settings)
    expected = case._replace(top_n=None, retrieval_scores=None, fuse=None).expected(reranker)
    nodes = nodes_of(*case.texts, scores=case.retrieval_scores)
    evidence = EvidenceFilter(threshold=case.threshold, keep=case.keep, reranker=reranker)
    kept = evidence.postprocess_nodes(nodes, query_str=case.query)
    assert kept == [nodes[i] for i in sorted(index for index, _ in expected)]
    assert asyncio.run(evidence.apostprocess_nodes(nodes, query_str=case.query)) == kept


BY_FIELDS = [case for case in CASES if set(case.settings) & set(NLIRerank.model_fields)]


@pytest.mark.parametrize("case", BY_FIELDS, ids=[case.name for case in BY_FIELDS])
def test_settings_of_the_model(case: Case, bundled: NLIReranker) -> None:
    """What is set in a field reaches the model: the scores are those of NLIReranker with the same setting."""
    expected = case.expected(NLIReranker(bundled.engine, **case.settings))
    rerank = NLIRerank(**case.settings, top_n=case.top_n, threshold=case.threshold)
    reranked = rerank.postprocess_nodes(nodes_of(*case.texts), query_str=case.query)
    assert ids(reranked) == [f"n{index}" for index, _ in expected]
    assert [node.score for node in reranked] == pytest.approx([score for _, score in expected], abs=1e-6)


def test_settings_of_loading(bundled: NLIReranker) -> None:
    """Labels and engine are those that the model is loaded with."""
    text, swapped = "The ferry sails at noon each day.", ["contradiction", "neutral", "entailment"]
    (node,) = NLIRerank(labels=swapped).postprocess_nodes(nodes_of(text), query_str=CLAIM)
    assert node.score == pytest.approx(NLIReranker(labels=swapped).rank(CLAIM, [text])[0].score, abs=1e-6)
    assert node.score != pytest.approx(bundled.rank(CLAIM, [text])[0].score, abs=0.1)
    with pytest.raises(InputError, match="unknown engine 'abacus'"):
        NLIRerank(engine="abacus").postprocess_nodes(nodes_of(text), query_str=CLAIM)


@pytest.mark.parametrize("made", [NLIRerank, EvidenceFilter])
def test_defaults(made: type[BaseNodePostprocessor]) -> None:
    """What NLIReranker has by the same name has the same default, but that NLIRerank by itself drops nothing."""
    theirs = {
        name: parameter.default
        for of in (NLIReranker, NLIReranker.filter, NLIReranker.rank)
        for name, parameter in inspect.signature(of).parameters.items()
    }
    ours = {name: field.default for name, field in made.model_fields.items() if name in theirs}
    assert {"model", "engine", "labels", "direction", "score", "keep", "threshold"} <= set(ours)
    theirs["alpha"] = None  # is left to it
    theirs["threshold"] = None if made is NLIRerank else theirs["threshold"]
    assert ours == {name: theirs[name] for name in ours}


@pytest.mark.parametrize(
    "postprocessor", [NLIRerank(reranker=stating(), keep_retrieval_score=True), EvidenceFilter(reranker=stating())]
)
def test_nodes_stay_as_they_are(postprocessor: BaseNodePostprocessor) -> None:
    """Nodes, scores and metadata that went in are unchanged; what comes out are new objects with the same ids."""
    nodes = nodes_of(*THREE, scores=[0.3, 0.2, 0.1])
    before = [node.model_dump() for node in nodes]
    results = postprocessor.postprocess_nodes(nodes, query_str=CLAIM)
    assert {"n1", "n2"} <= set(ids(results)) <= {"n0", "n1", "n2"}
    for result in results:
        result.score = -1.0
    assert [node.model_dump() for node in nodes] == before


def test_results_serialise() -> None:
    """Numbers are Python floats whatever a retriever set, and a result goes through JSON and comes back the same."""
    nodes = nodes_of(*THREE)
    for node, score in zip(nodes, np.array([0.5, 0.25, 0.125], dtype=np.float32), strict=True):
        node.score = score
    rerank = NLIRerank(reranker=stating(), fuse="rrf", keep_retrieval_score=True)
    for result in rerank.postprocess_nodes(nodes, query_str=CLAIM):
        assert type(result.score) is float
        assert type(result.metadata["retrieval_score"]) is float
        written = json.loads(result.to_json())
        assert written == json.loads(result.model_dump_json())
        assert written["score"] == result.score
        assert TextNode.from_dict(written["node"]) == result.node


def test_stale_scores_in_metadata_do_not_win() -> None:
    """A relevance_score or retrieval_score that metadata brings along has no part in the ranking."""
    nodes = nodes_of(*THREE)
    nodes[0].metadata.update(relevance_score=99.0, retrieval_score=99.0)
    assert ids(EvidenceFilter(reranker=stating()).postprocess_nodes(nodes, query_str=CLAIM)) == ["n1", "n2"]
    rerank = NLIRerank(reranker=stating(), keep_retrieval_score=True)
    reranked = rerank.postprocess_nodes(nodes, query_str=CLAIM)
    assert ids(reranked) == ["n1", "n2", "n0"]
    assert reranked[2].metadata == {"relevance_score": 99.0, "retrieval_score": None}


@pytest.mark.parametrize("scores", [None, [0.4, 0.1, 0.9], *PARTLY_SCORED])
def test_best_first_by_the_score_that_is_written(scores: list[float | None] | None) -> None:
    """Whatever retrieval scores nodes bring, they come back best first by the score that stands on them."""
    nodes = nodes_of(*THREE, scores=scores)
    reranked = NLIRerank(reranker=stating()).postprocess_nodes(nodes, query_str=CLAIM)
    assert ids(reranked) == ["n1", "n2", "n0"]
    assert [node.score for node in reranked] == pytest.approx([0.9, 0.5, 0.2], abs=1e-6)


def test_fusion_orders_and_entailment_scores() -> None:
    """With `fuse` retrieval scores take part in the order, while the score and the threshold know entailment only."""
    nodes = nodes_of("e=0.2,c=0.1", "e=0.9,c=0.05", "e=0.6,c=0.3", scores=[0.4, 0.1, 0.9])
    expected = stating().rank(CLAIM, [n.text for n in nodes], retrieval_scores=[0.4, 0.1, 0.9], fuse="linear")
    fused = NLIRerank(reranker=stating(), fuse="linear").postprocess_nodes(nodes, query_str=CLAIM)
    assert ids(fused) == [f"n{passage.index}" for passage in expected]
    # min-max of the scores 0, 1, 0.571 and of the retrieval scores 0.375, 0, 1: means 0.188, 0.5, 0.786
    half = NLIRerank(reranker=stating(), fuse="linear", alpha=0.5).postprocess_nodes(nodes, query_str=CLAIM)
    assert ids(half) == ["n2", "n1", "n0"]
    assert [node.score for node in half] == pytest.approx([0.6, 0.9, 0.2], abs=1e-6)
    strict = NLIRerank(reranker=stating(), fuse="linear", alpha=0.5, threshold=0.55)
    assert ids(strict.postprocess_nodes(nodes, query_str=CLAIM)) == ["n2", "n1"]


def test_a_learned_fusion(bundled: NLIReranker, tmp_path: Path) -> None:
    """`fuse` takes the file of a Fusion for the model that the settings name; a file of anything else is refused."""
    path, other = tmp_path / "fusion.json", tmp_path / "other.json"
    Fusion([1.0, 4.0, 0.0, -2.0], 0.0, bundled.calibration_key).save(path)
    other.write_text("{}")
    nodes = nodes_of("The ferry left at noon.", "The ferry never left.", "The ferry is red.", scores=[1.0, 3.0, 2.0])
    texts = [node.text for node in nodes]
    expected = bundled.rank("The ferry left.", texts, retrieval_scores=[1.0, 3.0, 2.0], fuse=path)
    fused = NLIRerank(fuse=str(path)).postprocess_nodes(nodes, query_str="The ferry left.")
    assert ids(fused) == [f"n{passage.index}" for passage in expected]
    with pytest.raises(CalibrationError, match="fitted for"):
        NLIRerank(fuse=str(path), score="margin").postprocess_nodes(nodes, query_str="The ferry left.")
    with pytest.raises(ValueError, match="holds no fusion"):
        NLIRerank(fuse=str(other))


def test_alpha_weighs() -> None:
    """alpha=1 ranks by entailment, alpha=0 by retrieval; so it does for reciprocal ranks."""
    nodes = nodes_of(*THREE, scores=[0.9, 0.1, 0.5])
    for fuse in ("linear", "rrf"):
        by_score = NLIRerank(reranker=stating(), fuse=fuse, alpha=1.0).postprocess_nodes(nodes, query_str=CLAIM)
        by_retrieval = NLIRerank(reranker=stating(), fuse=fuse, alpha=0.0).postprocess_nodes(nodes, query_str=CLAIM)
        assert (ids(by_score), ids(by_retrieval)) == (["n1", "n2", "n0"], ["n0", "n2", "n1"])


@pytest.mark.parametrize("scores", PARTLY_SCORED)
def test_fusion_needs_every_retrieval_score(scores: list[float | None]) -> None:
    """A fusion of nodes that do not all bring a number is an error that names the first without."""
    rerank = NLIRerank(reranker=stating(), fuse="linear")
    with pytest.raises(InputError, match="retrieval score 1 must be a finite number"):
        rerank.postprocess_nodes(nodes_of(*THREE, scores=scores), query_str=CLAIM)


def test_keep_retrieval_score() -> None:
    """The old score stands in the metadata of a copied node, and neither prompt nor embedding shows it."""
    nodes = nodes_of(*THREE, scores=[0.3, 0.2, 0.1])
    plain = NLIRerank(reranker=stating()).postprocess_nodes(nodes, query_str=CLAIM)
    assert all(node.metadata == {} for node in plain)
    kept = NLIRerank(reranker=stating(), keep_retrieval_score=True).postprocess_nodes(nodes, query_str=CLAIM)
    assert {node.node_id: node.metadata["retrieval_score"] for node in kept} == {"n0": 0.3, "n1": 0.2, "n2": 0.1}
    for node in kept:
        for mode in (MetadataMode.LLM, MetadataMode.EMBED):
            assert node.get_content(mode) == node.get_content(MetadataMode.NONE)


def test_keep_retrieval_score_twice() -> None:
    """A second reranking keeps the score of the first, and what was hidden stays hidden, each key once."""
    nodes = nodes_of(*THREE, scores=[0.3, 0.2, 0.1])
    for node in nodes:
        node.node.excluded_llm_metadata_keys = ["path"]
    rerank = NLIRerank(reranker=stating(), keep_retrieval_score=True)
    once = rerank.postprocess_nodes(nodes, query_str=CLAIM)
    twice = rerank.postprocess_nodes(once, query_str=CLAIM)
    assert [node.metadata["retrieval_score"] for node in twice] == [node.score for node in once]
    for node in twice:
        assert node.node.excluded_llm_metadata_keys == ["path", "retrieval_score"]
        assert node.node.excluded_embed_metadata_keys == ["retrieval_score"]


@pytest.mark.parametrize(
    "node",
    [
        TextNode(text=THREE[1]),
        Document(text=THREE[1]),
        IndexNode(text=THREE[1], index_id="below", obj=object()),
        ImageNode(text=THREE[1], image_url="http://localhost/x.png"),
        Node(text_resource=MediaResource(text=THREE[1])),
    ],
    ids=lambda node: type(node).__name__,
)
def test_kinds_of_nodes(node: TextNode) -> None:
    """A copied node is of the class it was, with all that it holds."""
    (result,) = NLIRerank(reranker=stating(), keep_retrieval_score=True).postprocess_nodes(
        [NodeWithScore(node=node, score=0.4)], query_str=CLAIM
    )
    assert type(result.node) is type(node)
    assert result.node is not node
    assert result.score == pytest.approx(0.9, abs=1e-6)
    changed = {"metadata", "excluded_llm_metadata_keys", "excluded_embed_metadata_keys"}
    assert {k: v for k, v in vars(result.node).items() if k not in changed} == {
        k: v for k, v in vars(node).items() if k not in changed
    }


def test_a_node_without_text_has_the_least_score() -> None:
    """An image without a text is scored as a blank passage and kept in place."""
    nodes = [NodeWithScore(node=ImageNode(image_url="http://localhost/x.png")), *nodes_of(*THREE)]
    assert NLIRerank(reranker=stating()).postprocess_nodes(nodes, query_str=CLAIM)[-1].score == 0.0


@pytest.mark.parametrize(
    ("settings", "premise"),
    [
        ({}, "It sails."),
        ({"metadata_mode": "none"}, "It sails."),
        ({"metadata_mode": "llm"}, "port: Varnhem\n\nIt sails."),
    ],
)
def test_metadata_mode(settings: dict[str, Any], premise: str) -> None:
    """The model reads no metadata unless it is told to."""
    read: list[str] = []

    def fn(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        read.extend(premise for premise, _ in pairs)
        return stated(pairs)

    nodes = nodes_of("It sails.")
    nodes[0].metadata["port"] = "Varnhem"
    reranker = NLIReranker(FunctionEngine(fn))
    NLIRerank(reranker=reranker, **settings).postprocess_nodes(nodes, query_str=CLAIM)
    EvidenceFilter(reranker=NLIReranker(FunctionEngine(fn)), **settings).postprocess_nodes(nodes, query_str=CLAIM)
    assert read == [premise, premise]


@pytest.mark.parametrize("postprocessor", [NLIRerank(), EvidenceFilter()])
def test_no_query_and_no_nodes(postprocessor: BaseNodePostprocessor) -> None:
    """Without a query there is an error that says what to pass; without nodes nothing comes back."""
    for nodes in ([], nodes_of(*THREE)):
        with pytest.raises(ValueError, match=r"no query: pass query_bundle=.* or query_str=, got None"):
            postprocessor.postprocess_nodes(nodes)
        with pytest.raises(ValueError, match=r"no query: pass query_bundle=.* or query_str=, got None"):
            asyncio.run(postprocessor.apostprocess_nodes(nodes))
    assert postprocessor.postprocess_nodes([], QueryBundle(CLAIM)) == []
    assert asyncio.run(postprocessor.apostprocess_nodes([], QueryBundle(CLAIM))) == []


@pytest.mark.parametrize("postprocessor", [NLIRerank(reranker=stating()), EvidenceFilter(reranker=stating())])
def test_what_is_no_query_and_no_node(postprocessor: Any) -> None:
    """A text in place of a query bundle and a node without its NodeWithScore are refused, and the mend is named."""
    with pytest.raises(ValueError, match=f"or query_str=, got '{CLAIM}'"):
        postprocessor.postprocess_nodes(nodes_of(*THREE), CLAIM)
    for nodes in ([*nodes_of(THREE[0]), TextNode(text="x")], (node for node in [*nodes_of(THREE[0]), "x"])):
        with pytest.raises(InputTypeError, match=r"node 1 must be a NodeWithScore, got .*NodeWithScore\(node="):
            postprocessor.postprocess_nodes(nodes, query_str=CLAIM)
    assert ids(postprocessor.postprocess_nodes(iter(nodes_of(THREE[1])), query_str=CLAIM)) == ["n0"]


def test_a_blank_query_is_an_error() -> None:
    """A blank query is NLIReranker's error."""
    with pytest.raises(InputError, match="query 0 is blank"):
        NLIRerank(reranker=stating()).postprocess_nodes(nodes_of(*THREE), query_str=" ")


@pytest.mark.parametrize(("top_n", "count"), [(None, 3), (1, 1), (2, 2), (3, 3), (50, 3)])
def test_top_n(top_n: int | None, count: int) -> None:
    """top_n is the most that comes back; None is all."""
    reranked = NLIRerank(top_n=top_n, reranker=stating()).postprocess_nodes(nodes_of(*THREE), query_str=CLAIM)
    assert ids(reranked) == ["n1", "n2", "n0"][:count]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_n": 0}, "greater than or equal to 1"),
        ({"top_n": -1}, "greater than or equal to 1"),
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": -0.5}, "threshold"),
        ({"threshold": math.nan}, "threshold"),
        ({"keep": "neutral"}, "unknown keep 'neutral'"),
        ({"direction": "sideways"}, "unknown direction 'sideways'"),
        ({"score": "cosine"}, "unknown score 'cosine'"),
        ({"labels": ["yes", "no"]}, "cannot tell which output is which"),
        ({"labels": ["entailment", "not_entailment"], "score": "margin"}, "needs P\\(contradiction\\)"),
        ({"score": "margin", "keep": "evidence"}, "keep='evidence'"),
        ({"fuse": "borda"}, "unknown fuse 'borda'"),
        ({"fuse": "rrf", "alpha": 1.5}, "alpha=1.5"),
        ({"treshold": 0.5}, "treshold"),
        ({"model": "mini", "reranker": stating()}, "leave out model"),
        ({"score": "margin", "direction": "bidirectional", "reranker": stating()}, "leave out direction, score"),
    ],
    ids=str,
)
def test_settings_are_checked_at_once(settings: dict[str, Any], message: str) -> None:
    """What cannot work is refused when the postprocessor is made, before any model is opened."""
    with pytest.raises(ValueError, match=message):
        NLIRerank(**{"model": "no/such-model", **settings} if "reranker" not in settings else settings)


def test_a_ready_reranker_is_checked_too() -> None:
    """With a ready reranker of two labels, what needs the third is refused at once."""
    two = NLIReranker(FunctionEngine(lambda pairs: [[1.0, 0.0]] * len(pairs), labels=["entailment", "not_entailment"]))
    with pytest.raises(ValueError, match="needs P\\(contradiction\\)"):
        EvidenceFilter(reranker=two, keep="contradiction")


def test_the_model_is_opened_at_first_use(tmp_path: Any) -> None:
    """A model that does not exist is no error until a node is to be scored, and then it says where it looked."""
    rerank = NLIRerank(model=str(tmp_path / "nowhere"))
    assert rerank.postprocess_nodes([], query_str=CLAIM) == []
    with pytest.raises(ModelNotFoundError, match="nowhere"):
        rerank.postprocess_nodes(nodes_of(*THREE), query_str=CLAIM)
    with pytest.raises(ModelNotFoundError, match="nowhere"):
        asyncio.run(rerank.apostprocess_nodes(nodes_of(*THREE), query_str=CLAIM))


def test_a_model_may_be_a_path() -> None:
    """A model given as a path is the same as by its name, in serialised form too."""
    path: Any = Path("some") / "folder"
    assert NLIRerank(model=path).to_dict() == NLIRerank(model=str(path)).to_dict()


def test_settings_can_be_set_anew() -> None:
    """A field that is assigned after first use counts from then on, those of the model included."""
    nodes = nodes_of("No ferry sails at noon.", "The ferry sails at noon.")
    rerank = NLIRerank()
    first = rerank.postprocess_nodes(nodes, query_str=CLAIM)
    rerank.score, rerank.top_n = "margin", 1
    (again,) = rerank.postprocess_nodes(nodes, query_str=CLAIM)
    (expected,) = NLIRerank(score="margin", top_n=1).postprocess_nodes(nodes, query_str=CLAIM)
    assert (len(first), again.score) == (2, expected.score)
    assert again.score != first[0].score
    rerank.top_n = 0
    with pytest.raises(InputError, match="top_k=0"):
        rerank.postprocess_nodes(nodes, query_str=CLAIM)


def test_duplicates_and_blanks() -> None:
    """The same node twice comes back twice, and a blank one is kept with the least score."""
    (twice,) = nodes_of(THREE[1])
    (blank,) = nodes_of(" ")
    reranked = NLIRerank(reranker=stating()).postprocess_nodes([blank, twice, twice], query_str=CLAIM)
    assert [node.score for node in reranked] == pytest.approx([0.9, 0.9, 0.0], abs=1e-6)
    assert reranked[0] is not reranked[1]
    assert EvidenceFilter(reranker=stating()).postprocess_nodes([blank, twice, twice], query_str=CLAIM) == [twice] * 2


def test_a_thousand_nodes() -> None:
    """1,000 nodes come back in the order of what they state."""
    nodes = nodes_of(*(f"e={0.0005 + (i * 7919 % 1000) / 1100:.4f},c=0.001" for i in range(1000)))
    wanted = sorted(range(1000), key=lambda i: -(i * 7919 % 1000))
    reranked = NLIRerank(reranker=stating()).postprocess_nodes(nodes, query_str=CLAIM)
    assert ids(reranked) == [f"n{i}" for i in wanted]
    half = EvidenceFilter(reranker=stating()).postprocess_nodes(nodes, query_str=CLAIM)
    assert ids(half) == [f"n{i}" for i in range(1000) if 0.0005 + (i * 7919 % 1000) / 1100 >= 0.5]


def test_two_threads_open_one_model() -> None:
    """Two threads that use a fresh postprocessor at once get one model between them, and the same result."""
    rerank = NLIRerank()
    nodes = nodes_of("No ferry sails at noon.", "The ferry sails at noon.", "It rains.")
    together = threading.Barrier(2)

    def run(_: int) -> tuple[list[NodeWithScore], NLIReranker]:
        together.wait(timeout=60)
        return rerank.postprocess_nodes(nodes, query_str=CLAIM), rerank._ready()

    with ThreadPoolExecutor(2) as threads:
        (one, model_of_one), (other, model_of_other) = threads.map(run, range(2))
    assert model_of_one is model_of_other
    assert one == other == NLIRerank().postprocess_nodes(nodes, query_str=CLAIM)


@pytest.mark.parametrize("postprocessor", [NLIRerank, EvidenceFilter])
def test_errors_of_the_engine_reach_the_caller(postprocessor: type[NLIRerank | EvidenceFilter]) -> None:
    """What an engine raises is what the caller sees, plain and async."""
    broken = postprocessor(reranker=NLIReranker(FunctionEngine(failing)))
    with pytest.raises(RuntimeError, match="no power for 3 pairs"):
        broken.postprocess_nodes(nodes_of(*THREE), query_str=CLAIM)
    with pytest.raises(RuntimeError, match="no power for 3 pairs"):
        asyncio.run(broken.apostprocess_nodes(nodes_of(*THREE), query_str=CLAIM))


@pytest.mark.parametrize("postprocessor", [NLIRerank, EvidenceFilter])
def test_the_loop_goes_on_while_the_engine_works(postprocessor: type[NLIRerank | EvidenceFilter]) -> None:
    """The event loop runs other things while the engine is at work."""
    ticked = threading.Event()

    def waits_for_the_loop(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        if not ticked.wait(timeout=30):
            message = "the event loop stood still while the engine worked"
            raise AssertionError(message)
        return stated(pairs)

    async def main() -> list[NodeWithScore]:
        waiting = postprocessor(reranker=NLIReranker(FunctionEngine(waits_for_the_loop)))
        task = asyncio.ensure_future(waiting.apostprocess_nodes(nodes_of(*THREE), query_str=CLAIM))
        for _ in range(10):
            await asyncio.sleep(0)
        ticked.set()
        return await task

    plain = postprocessor(reranker=stating()).postprocess_nodes(nodes_of(*THREE), query_str=CLAIM)
    assert asyncio.run(main()) == plain


def test_the_loop_ticks_while_500_nodes_are_scored() -> None:
    """While the bundled model is opened and scores 500 nodes, the event loop goes round again and again."""
    nodes = nodes_of(*(f"Ferry {i} sails at noon." for i in range(500)))
    rerank = NLIRerank(top_n=3)

    async def main() -> tuple[list[NodeWithScore], int]:
        ticks = 0
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(rerank.apostprocess_nodes(nodes, query_str=CLAIM))

        def tick() -> None:
            nonlocal ticks
            ticks += 1
            if not task.done():
                loop.call_later(0.001, tick)

        tick()
        return await task, ticks

    reranked, ticks = asyncio.run(main())
    assert reranked == rerank.postprocess_nodes(nodes, query_str=CLAIM)
    assert ticks > 10  # a loop that stood still would have made two: before and after


def test_many_at_once_in_one_loop() -> None:
    """Gathered calls each get their own result."""
    rerank = NLIRerank(reranker=stating(), top_n=1)

    async def main() -> list[list[NodeWithScore]]:
        lists = (nodes_of(f"e=0.{10 + i},c=0.1", "e=0.05,c=0.1") for i in range(20))
        return await asyncio.gather(*(rerank.apostprocess_nodes(nodes, query_str=CLAIM) for nodes in lists))

    assert [node.score for (node,) in asyncio.run(main())] == pytest.approx(
        [0.1 + i / 100 for i in range(20)], abs=1e-6
    )
