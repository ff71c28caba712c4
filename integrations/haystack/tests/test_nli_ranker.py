"""NLIRanker by itself."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from graded import CLAIM, documents, graded, logits, places
from haystack import Document
from haystack.dataclasses import ByteStream
from haystack.utils import ComponentDevice, Device, DeviceMap
from haystack_integrations.components.rankers.rerank_nli import NLIRanker
from pydantic import TypeAdapter
from shared_cases import CASES, Case

import rerank_nli
from rerank_nli import (
    CalibrationError,
    FunctionEngine,
    Fusion,
    InputError,
    InputTypeError,
    LabelError,
    ModelNotFoundError,
    NLIReranker,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

MINI = Path(rerank_nli.__file__).parent / "mini" / "nli"


@pytest.mark.integration
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_scores_are_nlirerankers(case: Case, bundled: NLIReranker) -> None:
    """Settings given to the component rank, drop and score as the same settings given to NLIReranker."""
    made_of = case.settings or {"reranker": bundled}  # the defaults need no second model
    ranker = NLIRanker(**made_of, top_k=case.top_n, threshold=case.threshold, keep=case.keep, fuse=case.fuse)
    scores = case.retrieval_scores or [None] * len(case.texts)
    given = [
        Document(content=text, score=score, meta={"place": i})
        for i, (text, score) in enumerate(zip(case.texts, scores, strict=True))
    ]
    found = ranker.run(case.query, given)["documents"]
    expected = case.expected(NLIReranker(bundled.engine, **case.settings))
    assert places(found) == [place for place, _ in expected]
    assert [document.score for document in found] == pytest.approx([score for _, score in expected], abs=1e-6)


@pytest.mark.parametrize("scores", [(), (9.0, 1.0, 5.0), (None, 1.0, 5.0), (float("nan"), 1.0, float("inf"))])
def test_best_first(scores: Sequence[float | None]) -> None:
    """Documents come out by the entailment score that is written on them, whatever score they came with."""
    found = NLIRanker(reranker=graded()).run(CLAIM, documents(0.2, 0.9, 0.5, scores=scores))["documents"]
    assert places(found) == [1, 2, 0]
    assert [document.score for document in found] == pytest.approx([0.9, 0.5, 0.2], abs=1e-6)


def test_meta_says_why() -> None:
    """Meta gains the probabilities and the characters that decided, beside what was in it."""
    given = Document(content="entails 0.7 refutes 0.1", meta={"source": "log", "pages": [1, 2]})
    found = NLIRanker(reranker=graded()).run(CLAIM, [given])["documents"][0]
    assert found.meta["source"] == "log"
    assert found.meta["pages"] == [1, 2]
    assert found.meta["nli_entailment"] == pytest.approx(0.7, abs=1e-6)
    assert found.meta["nli_neutral"] == pytest.approx(0.2, abs=1e-6)
    assert found.meta["nli_contradiction"] == pytest.approx(0.1, abs=1e-6)
    assert found.meta["nli_span"] == [0, len("entails 0.7 refutes 0.1")]


def test_results_are_plain() -> None:
    """Scores and probabilities are Python floats, and the documents serialise with json and pydantic alike."""
    of_a_retriever: Any = np.float32(1.5)
    given = documents(0.2, 0.9, scores=[of_a_retriever, 2])
    found = NLIRanker(fuse="linear", reranker=graded()).run(CLAIM, given)["documents"]
    numbers = ("nli_entailment", "nli_neutral", "nli_contradiction", "nli_relative", "retrieval_score")
    for document in found:
        assert {type(document.score), *(type(document.meta[name]) for name in numbers)} == {float}
    rows = [document.to_dict() for document in found]
    assert json.loads(json.dumps(rows)) == rows
    assert json.loads(TypeAdapter(list[dict[str, Any]]).dump_json(rows)) == rows


def test_the_input_stays_as_it_was() -> None:
    """Documents and their meta are not changed; the copies keep the id that was made of them, blob and embedding."""
    blob = ByteStream(b"\x00", mime_type="image/png")
    given = [Document(content="entails 0.9", meta={"a": {"b": 1}}, blob=blob, embedding=[0.5, 0.25], score=3.0)]
    before = copy.deepcopy(given)
    found = NLIRanker(reranker=graded()).run(CLAIM, given)["documents"][0]
    assert given == before
    assert found is not given[0]
    assert found.meta is not given[0].meta
    assert (found.id, found.content, found.blob, found.embedding) == (given[0].id, "entails 0.9", blob, [0.5, 0.25])


def test_stale_scores_never_win() -> None:
    """What an earlier ranker left in score and meta neither orders the documents nor survives as ours."""
    stale = {"relevance_score": 99.0, "nli_entailment": 99.0, "nli_span": [7, 8], "nli_relative": 99.0}
    given = [
        Document(content="entails 0.1", meta={**stale, "retrieval_score": 99.0, "place": 0}),
        Document(content="entails 0.2", meta={**stale, "score": 99.0, "place": 1}, score=99.0),
        Document(content="entails 0.8", meta={"place": 2, "relevance_score": 0.0}, score=0.0),
    ]
    found = NLIRanker(reranker=graded()).run(CLAIM, given)["documents"]
    assert places(found) == [2, 1, 0]
    assert [document.score for document in found] == pytest.approx([0.8, 0.2, 0.1], abs=1e-6)
    assert [document.meta["retrieval_score"] for document in found] == [0.0, 99.0, None]
    for document in found:
        assert document.meta["nli_entailment"] == document.score
        assert document.meta["nli_span"] == [0, len("entails 0.1")]
        assert document.meta["nli_relative"] is None


def test_retrieval_scores_are_fused() -> None:
    """`fuse="linear"` orders by the weighted sum of entailment and retrieval score; score stays entailment."""
    given = documents(0.9, 0.7, 0.1, scores=[1.0, 4.0, 5.0])
    found = NLIRanker(fuse="linear", alpha=0.6, reranker=graded()).run(CLAIM, given)["documents"]
    fused = [0.6 * (e - 0.1) / (0.9 - 0.1) + 0.4 * (r - 1) / (5 - 1) for e, r in ((0.9, 1), (0.7, 4), (0.1, 5))]
    assert places(found) == [1, 0, 2]
    assert [d.meta["nli_relative"] for d in found] == pytest.approx([fused[i] for i in (1, 0, 2)], abs=1e-6)
    assert [d.score for d in found] == pytest.approx([0.7, 0.9, 0.1], abs=1e-6)
    assert [d.meta["retrieval_score"] for d in found] == [4.0, 1.0, 5.0]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"fuse": "linear", "alpha": 1.0}, [0, 1, 2]),
        ({"fuse": "linear", "alpha": 0.0}, [2, 1, 0]),
        ({"fuse": "rrf", "alpha": 1.0}, [0, 1, 2]),
        ({"fuse": "rrf", "alpha": 0.0}, [2, 1, 0]),
    ],
)
def test_alpha_weighs_the_two_sides(settings: dict[str, Any], expected: list[int]) -> None:
    """`alpha` of 1 orders by entailment alone, of 0 by the retrieval scores alone."""
    given = documents(0.9, 0.7, 0.1, scores=[1.0, 4.0, 5.0])
    assert places(NLIRanker(reranker=graded(), **settings).run(CLAIM, given)["documents"]) == expected


@pytest.mark.integration
def test_a_learned_fusion(bundled: NLIReranker, tmp_path: Path) -> None:
    """`fuse=` takes the file of a Fusion for the model that the settings name; a file of anything else is refused."""
    path, other = tmp_path / "fusion.json", tmp_path / "other.json"
    Fusion([1.0, 4.0, 0.0, -2.0], 0.0, bundled.calibration_key).save(path)
    other.write_text("{}")
    texts = ["The ferry left at noon.", "The ferry never left.", "The ferry is red."]
    given = [Document(content=text, score=score) for text, score in zip(texts, (1.0, 3.0, 2.0), strict=True)]
    expected = bundled.rank("The ferry left.", texts, retrieval_scores=[1.0, 3.0, 2.0], fuse=path)
    found = NLIRanker(fuse=str(path)).run("The ferry left.", given)["documents"]
    assert [document.content for document in found] == [passage.text for passage in expected]
    assert [d.meta["nli_relative"] for d in found] == pytest.approx([p.relative for p in expected], abs=1e-6)
    with pytest.raises(CalibrationError, match="fitted for"):
        NLIRanker(fuse=str(path), score="margin").run("The ferry left.", given)
    with pytest.raises(CalibrationError, match="holds no fusion"):
        NLIRanker(fuse=str(other))


@pytest.mark.parametrize("score", [None, float("nan")])
def test_fusion_needs_every_score(score: float | None) -> None:
    """A document without a score that could be fused is an error that says which."""
    with pytest.raises(InputError, match="retrieval score 1 must be a finite number"):
        NLIRanker(fuse="linear", reranker=graded()).run(CLAIM, documents(0.2, 0.9, scores=[9.0, score]))


def test_the_threshold_reads_entailment_alone() -> None:
    """A retrieval score lifts no document over the threshold."""
    given = documents(0.4, 0.6, scores=[100.0, 0.0])
    ranker = NLIRanker(threshold=0.5, fuse="linear", alpha=0.0, reranker=graded())
    assert places(ranker.run(CLAIM, given)["documents"]) == [1]


def test_keep_contradiction() -> None:
    """`keep="contradiction"` keeps what refutes, strongest first, and still writes the entailment score."""
    given = documents((0.1, 0.6), (0.7, 0.1), (0.05, 0.9))
    found = NLIRanker(threshold=0.5, keep="contradiction", reranker=graded()).run(CLAIM, given)["documents"]
    assert places(found) == [2, 0]
    assert [document.score for document in found] == pytest.approx([0.05, 0.1], abs=1e-6)


@pytest.mark.parametrize(
    ("of_init", "of_run", "expected"),
    [(None, None, 3), (2, None, 2), (2, 3, 3), (None, 1, 1), (2, 1, 1), (99, None, 3), (1, 99, 3)],
)
def test_top_k(of_init: int | None, of_run: int | None, expected: int) -> None:
    """`top_k` of run goes before that of init, None is all, and more than there are is all."""
    ranker = NLIRanker(top_k=of_init, reranker=graded())
    assert len(ranker.run(CLAIM, documents(0.1, 0.2, 0.3), top_k=of_run)["documents"]) == expected


def test_top_k_of_zero_is_an_error() -> None:
    """`top_k=0` is refused by init and by run, even where there is no document."""
    with pytest.raises(InputError, match="top_k=0"):
        NLIRanker(top_k=0)
    with pytest.raises(InputError, match="top_k=0"):
        NLIRanker(reranker=graded()).run(CLAIM, [], top_k=0)


def test_no_documents() -> None:
    """An empty list gives an empty list."""
    assert NLIRanker(reranker=graded()).run(CLAIM, []) == {"documents": []}


@pytest.mark.parametrize("query", [None, 7, ["a claim"]])
def test_no_query(query: Any) -> None:
    """What is no text in place of a query is an error that says so, with documents and without."""
    for given in (documents(0.5), []):
        with pytest.raises(InputTypeError, match=re.escape(f"must be a text, got {query!r}")):
            NLIRanker(reranker=graded()).run(query, given)


def test_a_document_is_a_document() -> None:
    """A text in place of a Document is an error that names its index and the mend."""
    given: Any = [Document(content="entails 0.5"), "entails 0.6"]
    with pytest.raises(InputTypeError, match=r"document 1 must be a Document, got 'entails 0\.6': make one"):
        NLIRanker(reranker=graded()).run(CLAIM, given)


def test_the_same_text_stays_twice() -> None:
    """Two documents with the same text, but ids of their own, stay two, side by side, with one score."""
    given = [Document(id=name, content=f"entails {e}") for name, e in (("a", 0.6), ("b", 0.9), ("c", 0.6))]
    found = NLIRanker(reranker=graded()).run(CLAIM, given)["documents"]
    assert [document.id for document in found] == ["b", "a", "c"]
    assert found[1].score == found[2].score


def test_the_same_document_comes_out_once() -> None:
    """Of documents with one id, as two retrievers bring them, the one with the highest score is taken."""
    scores = (None, 2.0, 3.0, 1.0)
    given = [Document(content="entails 0.6", score=score) for score in scores] + [Document(content="entails 0.9")]
    found = NLIRanker(top_k=2, reranker=graded()).run(CLAIM, given)["documents"]
    assert [document.id for document in found] == [given[-1].id, given[0].id]
    assert [document.meta["retrieval_score"] for document in found] == [None, 3.0]


def test_documents_without_text_come_last() -> None:
    """Documents with an empty, a blank or no text get the lowest score and no error."""
    image = Document(blob=ByteStream(b"\x00"), meta={"place": 0})
    blank = [Document(content=text, meta={"place": i}) for i, text in enumerate(("", "  "), 1)]
    found = NLIRanker(reranker=graded()).run(CLAIM, [image, *blank, Document(content="x", meta={"place": 3})])
    assert places(found["documents"]) == [3, 0, 1, 2]
    assert [document.score for document in found["documents"][1:]] == [0.0, 0.0, 0.0]
    assert found["documents"][1].content is None


def test_a_thousand_documents() -> None:
    """1,000 documents come out in order, each once."""
    entailments = [0.001 + (i * 617 % 1000) / 1100 for i in range(1000)]
    given = [Document(content=f"entails {e:.4f}", meta={"place": i}) for i, e in enumerate(entailments)]
    found = NLIRanker(reranker=graded()).run(CLAIM, given)["documents"]
    assert places(found) == sorted(range(1000), key=lambda i: -entailments[i])


def test_threads_get_what_one_gets() -> None:
    """8 threads through one component get what one thread gets."""
    ranker = NLIRanker(reranker=graded(cache_size=3))
    lists = [documents(*(0.1 + (i * k % 17) / 20 for k in range(1, 6))) for i in range(64)]
    expected = [ranker.run(CLAIM, given) for given in lists]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda given: ranker.run(CLAIM, given), lists)) == expected


def test_errors_of_the_engine_come_out() -> None:
    """What an engine raises reaches the caller of run and of run_async, and the next call works."""
    broken = True

    def fn(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        if broken:
            message = "the model is out of order"
            raise RuntimeError(message)
        return logits(pairs)

    ranker = NLIRanker(reranker=NLIReranker(FunctionEngine(fn)))
    with pytest.raises(RuntimeError, match="out of order"):
        ranker.run(CLAIM, documents(0.5))
    with pytest.raises(RuntimeError, match="out of order"):
        asyncio.run(ranker.run_async(CLAIM, documents(0.5)))
    broken = False
    assert places(ranker.run(CLAIM, documents(0.5))["documents"]) == [0]


def test_two_labels() -> None:
    """A model with two labels ranks, leaves neutral and contradiction None, and cannot keep contradictions."""
    engine = FunctionEngine(lambda pairs: [[1.0, 0.0] for _ in pairs], ["entailment", "not_entailment"])
    found = NLIRanker(reranker=NLIReranker(engine)).run(CLAIM, documents(0.5))["documents"][0]
    assert found.meta["nli_entailment"] > 0.5
    assert (found.meta["nli_neutral"], found.meta["nli_contradiction"]) == (None, None)
    with pytest.raises(LabelError, match="contradiction"):
        NLIRanker(keep="contradiction", reranker=NLIReranker(engine))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 1.5}, "threshold 1.5"),
        ({"threshold": -2.0, "score": "margin"}, "threshold -2.0"),
        ({"keep": "support"}, "unknown keep 'support'"),
        ({"direction": "up"}, "unknown direction 'up'"),
        ({"score": "cosine"}, "unknown score 'cosine'"),
        ({"normalize": "none"}, "unknown normalize 'none'"),
        ({"fuse": "sum"}, "unknown fuse 'sum'"),
        ({"fuse": "linear", "alpha": 2.0}, "alpha=2.0"),
        ({"top_k": True}, "top_k=True"),
        ({"keep": "evidence", "score": "margin"}, "keep='evidence'"),
    ],
)
def test_settings_are_checked_at_once(settings: dict[str, Any], message: str) -> None:
    """A setting that cannot be used is refused when the component is made, before any model is looked for."""
    with pytest.raises(InputError, match=re.escape(message)):
        NLIRanker("/no/such/model", **settings)


@pytest.mark.parametrize(
    "settings", [{"model": "folder"}, {"direction": "bidirectional"}, {"device": ComponentDevice.from_str("cpu")}]
)
def test_a_reranker_stands_alone(settings: dict[str, Any]) -> None:
    """`reranker=` beside a setting of the model is an error that names the setting."""
    with pytest.raises(InputError, match=f"leave out {next(iter(settings))}"):
        NLIRanker(reranker=graded(), **settings)


def test_a_reranker_is_an_nlireranker() -> None:
    """Something else in place of a ready reranker is an error that says where it belongs."""
    name: Any = "mini"
    with pytest.raises(InputTypeError, match="got 'mini': a model's name goes to model="):
        NLIRanker(reranker=name)


def test_devices_are_checked_at_once() -> None:
    """A device map, which one model cannot be spread over here, and a plain text are refused by init."""
    device_map = ComponentDevice.from_multiple(DeviceMap({"a": Device.cpu(), "b": Device.gpu(0)}))
    with pytest.raises(ValueError, match="single device"):
        NLIRanker(device=device_map)
    name: Any = "cpu"
    with pytest.raises(ValueError, match="Invalid component device type 'str'"):
        NLIRanker(device=name)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"device": ComponentDevice.from_str("cuda:1"), "engine": "onnx"}, InputError, "device='cuda:1'"),
        ({"engine": "torch"}, InputError, "the bundled model is an ONNX file"),
        ({"engine": "tpu"}, InputError, "unknown engine 'tpu'"),
        ({"labels": ["up", "down", "strange"]}, LabelError, "strange"),
        ({"model": "/no/such/model"}, ModelNotFoundError, "/no/such/model"),
    ],
)
def test_loading_settings_reach_load(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    """Model, device, engine and labels are used at warm-up, not before, and what `load` raises comes out of it."""
    ranker = NLIRanker(**settings)
    with pytest.raises(error, match=message):
        ranker.warm_up()


@pytest.mark.integration
def test_a_device_that_is_there_is_used() -> None:
    """`device` of the CPU loads the bundled model and ranks."""
    ranker = NLIRanker(device=ComponentDevice.from_str("cpu"))
    (found,) = ranker.run("A cat sleeps.", [Document(content="A cat is asleep.")])["documents"]
    assert found.meta["nli_entailment"] > 0.5


@pytest.mark.integration
def test_a_component_is_copied_and_pickled(bundled: NLIReranker) -> None:
    """Before and after the model is loaded, a component survives deepcopy and pickle, as Haystack's own do."""
    given = [Document(content="A cat is asleep.")]
    for ranker in (NLIRanker(), NLIRanker(reranker=bundled)):
        expected = ranker.run("A cat sleeps.", given)
        assert copy.deepcopy(ranker).run("A cat sleeps.", given) == expected
        again = pickle.loads(pickle.dumps(ranker))  # noqa: S301 - our own
        assert again.run("A cat sleeps.", given) == expected


@pytest.mark.integration
def test_the_model_is_loaded_once(tmp_path: Path) -> None:
    """After the first warm-up the model's folder is not read again, by warm_up or by run."""
    folder = tmp_path / "model"
    shutil.copytree(MINI, folder)
    ranker = NLIRanker(str(folder))
    ranker.warm_up()
    shutil.rmtree(folder)
    ranker.warm_up()
    assert len(ranker.run("A cat sleeps.", [Document(content="A cat is asleep.")])["documents"]) == 1


@pytest.mark.integration
def test_a_setting_that_is_changed() -> None:
    """It counts for what comes after, before the model is loaded and then too, as it does when it is saved."""
    given, changed = [Document(content="A cat is asleep.")], NLIRanker()
    for score in ("margin", "logit"):
        changed.score = score
        assert changed.run("A cat sleeps.", given) == NLIRanker(score=score).run("A cat sleeps.", given)
        assert NLIRanker.from_dict(changed.to_dict()).score == score


@pytest.mark.integration
def test_threads_load_one_model() -> None:
    """Threads that warm up at the same time share one reranker."""
    ranker = NLIRanker()
    together = threading.Barrier(4)

    def warm(_: int) -> int:
        together.wait(timeout=30)
        return id(ranker._loaded())

    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(warm, range(4)))) == 1
