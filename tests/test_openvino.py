"""OpenVINO's engine gives the ONNX engine's logits, of IR and of ONNX files, in threads and in other processes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import re
import shutil
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from texts import batch_logits, mixed_pairs

from rerank_nli import DamagedModelError, InputError, ModelNotFoundError, NLIReranker, OpenVinoEngine, load
from rerank_nli.export import export

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rerank_nli import OnnxEngine
    from rerank_nli.scores import FloatArray

openvino = pytest.importorskip("openvino")
PAIRS = [(premise[: 12 + 9 * i], hypothesis[:20]) for i, (premise, hypothesis) in enumerate(mixed_pairs()[:9])]


@pytest.fixture(scope="module")
def ir(checkpoint: Path) -> OpenVinoEngine:
    """The checkpoint as OpenVINO's IR, which `load` makes in the cache."""
    pytest.importorskip("onnxscript")
    engine = load(checkpoint, engine="openvino")
    assert isinstance(engine, OpenVinoEngine)
    return engine


@pytest.fixture
def copied(ir: OpenVinoEngine, tmp_path: Path) -> Path:
    """The IR without its manifest, so that a damaged file is read."""
    folder = shutil.copytree(ir.folder, tmp_path / "copied")
    (folder / "manifest.json").unlink()
    return folder


LABELS = ["contradiction", "entailment", "neutral"]


def test_ir_gives_the_onnx_engines_logits(ir: OpenVinoEngine, exported: OnnxEngine) -> None:
    """An IR's logits of pairs of mixed length are the ONNX engine's to 1e-3, together and alone."""
    expected = batch_logits(exported, PAIRS)
    assert np.ptp(expected, axis=0).min() > 0.5
    assert batch_logits(ir, PAIRS) == pytest.approx(expected, abs=1e-3)
    alone = np.concatenate([batch_logits(ir, [pair]) for pair in PAIRS])
    assert alone == pytest.approx(expected, abs=1e-3)
    for name in ("labels", "max_length", "special", "temperature", "precision"):
        assert getattr(ir, name) == getattr(exported, name), name
    assert (ir.name, ir.file.name) == ("openvino", "openvino_model.xml")


def test_onnx_files_are_read(int8: Path, exported: OnnxEngine) -> None:
    """A folder of ONNX, a bundle with weights in int8 and a file alone give the logits of the ONNX engine in fp32."""
    for model in (exported.folder, exported.file):
        engine = OpenVinoEngine(model)
        assert engine.file == exported.file
        assert batch_logits(engine, PAIRS) == pytest.approx(batch_logits(exported, PAIRS), abs=1e-3)
        assert engine.fingerprint == exported.fingerprint
    fp32 = load(int8, dtype="fp32")
    bundle = load(int8, engine="openvino")
    assert batch_logits(bundle, PAIRS) == pytest.approx(batch_logits(fp32, PAIRS), abs=1e-3)
    assert (bundle.temperature, bundle.window, bundle.precision) == (1.25, 64, "fp32")
    assert bundle.fingerprint == fp32.fingerprint


def test_without_token_types(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """A RoBERTa, which has no token types, scores in IR as in torch."""
    pytest.importorskip("onnxscript")
    folder = make_checkpoint("RobertaForSequenceClassification", id2label={0: "entailment", 1: "not_entailment"})
    export(folder, tmp_path / "out", form="openvino")
    engine, torch = OpenVinoEngine(tmp_path / "out"), load(folder, engine="torch", device="cpu")
    assert engine.labels.binary
    assert batch_logits(engine, PAIRS) == pytest.approx(batch_logits(torch, PAIRS), abs=1e-3)


def test_load_takes_it(ir: OpenVinoEngine) -> None:
    """A folder that has nothing else opens in OpenVINO, as do its file and a folder openvino/ below the tokenizer."""
    for model in (ir.folder, str(ir.file)):
        engine = load(model)
        assert (engine.name, engine.fingerprint) == ("openvino", ir.fingerprint)
    assert load("mini").name == "onnx"


def test_in_its_usual_folder(copied: Path, ir: OpenVinoEngine) -> None:
    """A repository with openvino/ beside its tokenizer opens, and auto takes that if there is nothing else."""
    (copied / "openvino").mkdir()
    for file in copied.glob("openvino_model.*"):
        file.rename(copied / "openvino" / file.name)
    engine = load(copied, labels=LABELS)
    assert isinstance(engine, OpenVinoEngine)
    assert engine.folder == copied
    assert batch_logits(engine, PAIRS) == pytest.approx(batch_logits(ir, PAIRS), abs=1e-6)


def test_the_bundled_model_ranks_in_it(bundled: NLIReranker) -> None:
    """The bundled model ranks in OpenVINO as in ONNX Runtime."""
    passages = ["The library is shut on Sundays.", "The library opens at nine every day.", "Trams are green."]
    query = "The library is open on Sundays."
    ranking = NLIReranker(load("mini", engine="openvino")).rank(query, passages)
    expected = bundled.rank(query, passages)
    assert [p.index for p in ranking] == [p.index for p in expected]
    assert [p.score for p in ranking] == pytest.approx([p.score for p in expected], abs=0.1)  # fp32 against int8


def test_it_embeds(bundled: NLIReranker) -> None:
    """Texts become the vectors that they become with the ONNX engine."""
    texts = ["The ferry leaves at noon.", "", "At noon the ferry goes."]
    vectors = NLIReranker(load(engine="openvino")).embed(texts)
    np.testing.assert_array_equal(vectors, bundled.embed(texts))


def test_threads_share_an_engine(ir: OpenVinoEngine) -> None:
    """Eight threads that score at once get each the logits that one thread gets."""
    batches = [PAIRS[n : n + 3] for n in range(6)] * 4
    expected = [batch_logits(ir, batch) for batch in batches[:6]] * 4
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda batch: batch_logits(ir, batch), batches))
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_results_are_the_callers(ir: OpenVinoEngine) -> None:
    """What was returned does not change when the next batch is scored."""
    first = batch_logits(ir, PAIRS[:2])
    kept = first.copy()
    batch_logits(ir, PAIRS[2:4])
    assert (first == kept).all()


_KEPT: list[OpenVinoEngine] = []


def _score(engine: OpenVinoEngine) -> FloatArray:
    return batch_logits(engine, PAIRS[:3])


def _score_kept() -> FloatArray:
    return _score(_KEPT[0])


def test_it_pickles(ir: OpenVinoEngine) -> None:
    """An engine pickles with its settings, and its copy scores the same."""
    engine = OpenVinoEngine(ir.folder, threads=1)
    other = pickle.loads(pickle.dumps(engine))  # noqa: S301 - just made
    assert (other.threads, other.precision, other.file) == (1, "fp32", engine.file)
    assert batch_logits(other, PAIRS) == pytest.approx(batch_logits(ir, PAIRS), abs=1e-5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_it_survives_a_fork(ir: OpenVinoEngine) -> None:
    """An engine that has scored scores the same in a forked process."""
    expected = _score(ir)
    _KEPT[:] = [ir]  # inherited, where pickling would open it anew
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        assert pool.submit(_score_kept).result(60) == pytest.approx(expected, abs=1e-5)


def test_bf16_where_the_processor_has_it(ir: OpenVinoEngine) -> None:
    """bf16 is computed on request where the processor has it, and refused where it has not."""
    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        engine = load(ir.folder, dtype="bf16")
        assert engine.precision == "bf16"
        difference = np.abs(batch_logits(engine, PAIRS) - batch_logits(ir, PAIRS)).max()
        assert 0 < difference < 0.5
    else:
        with pytest.raises(InputError, match="this processor has no bf16; use dtype='fp32'"):
            load(ir.folder, dtype="bf16")


@pytest.mark.parametrize("settings", [{"dtype": "int8"}, {"dtype": "fp16"}, {"device": "cuda"}])
def test_what_it_has_not(ir: OpenVinoEngine, settings: dict[str, Any]) -> None:
    """Another dtype or device is refused with what there is."""
    with pytest.raises(InputError, match="OpenVINO engine computes in fp32 or bf16 on the CPU; use engine='torch'"):
        load(ir.folder, engine="openvino", **settings)


def test_bad_threads(ir: OpenVinoEngine) -> None:
    """A number of threads below 1 is refused."""
    with pytest.raises(InputError, match="threads=0"):
        OpenVinoEngine(ir.folder, threads=0)


@pytest.mark.parametrize("spoil", ["half graph", "no graph", "half weights", "no weights"])
def test_damaged_ir(copied: Path, capfd: pytest.CaptureFixture[str], spoil: str) -> None:
    """A graph or weights that are cut or missing are an error that names the file, and nothing is printed."""
    file = copied / ("openvino_model.xml" if "graph" in spoil else "openvino_model.bin")
    whole = file.read_bytes()
    if spoil.startswith("half"):
        file.write_bytes(whole[: len(whole) // 2])
    else:
        file.unlink()
    error = ModelNotFoundError if spoil == "no graph" else DamagedModelError
    with pytest.raises(error, match=re.escape(str(copied))):
        OpenVinoEngine(copied, LABELS)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("content", [b"<!doctype html>", b"", b"junk"])
def test_damaged_onnx(exported: OnnxEngine, tmp_path: Path, capfd: pytest.CaptureFixture[str], content: bytes) -> None:
    """An ONNX file of junk is an error that names it, and nothing is printed."""
    shutil.copy(exported.folder / "tokenizer.json", tmp_path)
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(DamagedModelError, match=re.escape(str(tmp_path / "model.onnx"))):
        OpenVinoEngine(tmp_path, LABELS)
    assert capfd.readouterr() == ("", "")


def test_other_outputs_than_labels(copied: Path) -> None:
    """Two labels for three outputs are refused, with both numbers."""
    with pytest.raises(InputError, match="has 3 outputs, but 2 labels"):
        OpenVinoEngine(copied, ["entailment", "not_entailment"])


def test_what_rounds_by_batch(dynamic: Path, exported: OnnxEngine, tmp_path: Path) -> None:
    """A graph with one scale for a whole batch is refused: the ONNX engine gives it single pairs."""
    shutil.copy(exported.folder / "tokenizer.json", tmp_path)
    for file in dynamic.parent.glob("graph.onnx*"):
        shutil.copy(file, tmp_path)
    with pytest.raises(InputError, match="one scale for a whole batch: use engine='onnx'"):
        OpenVinoEngine(tmp_path / "graph.onnx", LABELS)
