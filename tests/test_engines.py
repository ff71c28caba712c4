"""Engines: the logits of the reference implementation, whatever file they come from, and clear errors otherwise."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from texts import batch_logits

import rerank_nli
from rerank_nli import (
    DamagedModelError,
    FunctionEngine,
    InputError,
    InputTypeError,
    LabelError,
    ModelNotFoundError,
    NLIReranker,
    OnnxEngine,
    TorchEngine,
    load,
)
from rerank_nli.checkpoints import max_length, read_json
from rerank_nli.manifest import sha256
from rerank_nli.onnx_engine import BUNDLED

if TYPE_CHECKING:
    from collections.abc import Callable

    from rerank_nli.scores import FloatArray

PAIRS = [
    ("A cat sleeps on the mat.", "The cat sleeps."),
    ("The quick brown fox jumps over a lazy dog, and nobody sees it!", "No cat."),
    ("Does it rain? No: sun.", "It rains on the quick brown fox."),
    ("a", "b"),
]
# Premise, hypothesis, and what a reader of English would say.
OWN_SENTENCES = [
    ("The ferry to Saltholm leaves at noon and takes eleven cars.", "The ferry carries cars.", "entailment"),
    ("Marta sold her violin last year and bought a cello.", "Marta never sold her violin.", "contradiction"),
    ("The bakery opens at six and sells rye bread.", "The baker has three brothers.", "neutral"),
    ("All four windows of the shed are broken.", "A window of the shed is broken.", "entailment"),
]
BAKERY = ["Rye grows in the north.", "The bakery sells rye bread.", "The bakery sells no bread at all."]
WITHIN = {**os.environ, "PYTHONPATH": str(Path(rerank_nli.__file__).parent.parent)}


def _reference(folder: Path, pairs: list[tuple[str, str]]) -> FloatArray:
    """Transformers' own logits, one pair at a time and so without padding."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    rows = []
    for premise, hypothesis in pairs:
        encoding = tokenizer.encode(premise, hypothesis)
        types = {"token_type_ids": torch.tensor([encoding.type_ids])} if model.config.type_vocab_size > 1 else {}
        with torch.no_grad():
            rows.append(model(input_ids=torch.tensor([encoding.ids]), **types).logits[0].numpy())
    return np.stack(rows)


def _run(program: str, *arguments: str, **environment: str) -> str:
    """What a program prints in a process of its own."""
    finished = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True, text=True, env={**WITHIN, **environment}, timeout=120, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.fixture
def copied(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint that a test may spoil."""
    return shutil.copytree(checkpoint, tmp_path / "copied")


@pytest.fixture(scope="session")
def torch_engine(checkpoint: Path) -> TorchEngine:
    """The checkpoint in PyTorch, on the CPU whatever there is."""
    return TorchEngine(checkpoint, device="cpu")


@pytest.fixture(scope="session")
def roberta(make_checkpoint: Callable[..., Path]) -> Path:
    """A RoBERTa with two outputs without names: pad id 1, no token types, 514 positions."""
    folder = make_checkpoint("RobertaForSequenceClassification", num_labels=2)
    config = read_json(folder / "config.json")  # transformers leaves such names out, but many checkpoints have them
    config["id2label"] = {"0": "LABEL_0", "1": "LABEL_1"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


TWO = ["not_entailment", "entailment"]


# The bundled model


def test_bundled_model_reads_plain_sentences(bundled: NLIReranker) -> None:
    """The bundled model labels four sentence pairs as a reader would, those entailed past the default threshold."""
    pairs = [(premise, hypothesis) for premise, hypothesis, _ in OWN_SENTENCES]
    assert bundled.predict(pairs, output="labels") == [label for _, _, label in OWN_SENTENCES]
    entailment = bundled.predict(pairs)[:, 0]
    assert entailment[[0, 3]].min() > 0.5
    assert entailment[[1, 2]].max() < 0.3


def test_bundled_model_ranks_plain_sentences(bundled: NLIReranker) -> None:
    """The bundled model puts the passage that entails first, above 0.8, and one about other things last."""
    ranking = bundled.rank("Bread is sold at the bakery.", BAKERY)
    assert [p.index for p in ranking] == [1, 2, 0]
    assert ranking[0].score > 0.8
    assert ranking[2].score < 0.1


@pytest.mark.parametrize(
    "dtype",
    [
        "fp32",
        pytest.param("int8", marks=pytest.mark.xfail(reason="rounded activations make 0.51 entailment of this denial")),
    ],
)
def test_bundled_model_tells_a_denial(dtype: str) -> None:
    """The bundled model calls a passage that denies the claim a contradiction."""
    ranking = NLIReranker(load("mini", dtype=dtype)).rank("Bread is sold at the bakery.", BAKERY)
    denying = next(p for p in ranking if p.index == 2)
    assert (denying.contradiction or 0) > max(denying.entailment, denying.neutral or 0)


def test_special_tokens_in_a_text_are_text(bundled: NLIReranker) -> None:
    """The text [SEP] in a passage is read as its characters and does not end the premise."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(BUNDLED / "tokenizer.json"))
    separators = {tokenizer.token_to_id(token) for token in ("[SEP]", "[CLS]", "[PAD]", "</s>", "<s>")} - {None}
    text = "It rained. [SEP] [CLS] [PAD] </s> <s> It snowed."
    tokens = bundled.engine.tokenize([text])[0]
    assert separators
    assert separators.isdisjoint(tokens.ids.tolist())
    assert "".join(text[a:b] for a, b in tokens.spans).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize(
    "text",
    [
        "\ud800",
        "a\udfffb",
        "\x00",
        "a\x00b",
        "مرحبا بالعالم",
        "\u202eabc\u202c",
        "👩‍👩‍👧 🏳️‍🌈",
        "é" * 3,
        "\u200b",
        "ﬁ",
    ],
)
def test_odd_texts_are_scored(bundled: NLIReranker, text: str) -> None:
    """Lone surrogates, NUL, right-to-left text and emoji give finite logits and spans inside the text."""
    tokens = bundled.engine.tokenize([text])[0]
    assert all(0 <= a <= b <= len(text) for a, b in tokens.spans)
    assert tokens.text == text
    assert np.isfinite(batch_logits(bundled.engine, [(text, "It rained."), ("It rained.", text)])).all()


@given(text=st.text(st.characters(), max_size=60))
@settings(max_examples=200)
def test_tokens_are_in_order(bundled: NLIReranker, text: str) -> None:
    """In any text the tokens' spans lie inside it and never go back."""
    tokens = bundled.engine.tokenize([text])[0]
    assert tokens.ids.shape == (len(tokens),)
    assert tokens.spans.shape == (len(tokens), 2)
    assert (np.diff(tokens.spans[:, 0]) >= 0).all()
    assert (tokens.spans[:, 0] <= tokens.spans[:, 1]).all()
    assert all(0 <= edge <= len(text) for edge in tokens.spans.ravel())


def test_onnx_engine_survives_pickle(bundled: NLIReranker) -> None:
    """A pickled ONNX engine comes back with its labels, its threads and the same logits."""
    engine = OnnxEngine(labels=["neutral", "entailment", "contradiction"], threads=1)
    again = pickle.loads(pickle.dumps(engine))  # noqa: S301 - made on this line
    assert again.labels == engine.labels != bundled.engine.labels
    assert again.threads == 1
    assert again.fingerprint == engine.fingerprint
    assert batch_logits(again, PAIRS) == pytest.approx(batch_logits(engine, PAIRS), abs=1e-5)


def test_bundled_engine_is_complete(bundled: NLIReranker) -> None:
    """The bundled engine knows what the scorer asks of it: manifest, special tokens, precision and fingerprint."""
    engine = bundled.engine
    manifest = json.loads((BUNDLED / "manifest.json").read_text(encoding="utf-8"))
    assert (engine.name, engine.max_length, engine.special) == ("onnx", 512, 3)
    assert engine.precision == manifest["precision"] == "int8"
    assert engine.temperature == manifest["temperature"]
    assert engine.window == manifest["window"]
    assert engine.fingerprint == sha256(BUNDLED / "model_int8.onnx", BUNDLED / "model.onnx_data")


def test_bundled_model_is_onnx_only() -> None:
    """The bundled model asked for in torch is an error that says what it is."""
    with pytest.raises(InputError, match="the bundled model is an ONNX file"):
        load("mini", engine="torch")


# Functions


def test_function_engine_gives_texts_and_takes_logits() -> None:
    """A function gets the texts of premise and hypothesis and its rows come back as float32."""
    seen: list[tuple[str, str]] = []

    def fn(texts: list[tuple[str, str]]) -> list[list[float]]:
        seen.extend(texts)
        return [[float(len(a)), float(len(b))] for a, b in texts]

    engine = FunctionEngine(fn, labels=TWO)
    rows = batch_logits(engine, [("one two", "x"), ("", "yy")])
    assert seen == [("one two", "x"), ("", "yy")]
    assert rows.tolist() == [[7, 1], [0, 2]]
    assert rows.dtype == np.float32
    assert engine.labels.columns == (1, None, None)


@pytest.mark.parametrize("returned", [[[0.0, 1.0]], [0.0, 1.0, 2.0], [[0.0, 1.0, 2.0]] * 3, 1.0])
def test_function_of_another_shape(returned: Any) -> None:
    """A function that returns another shape than (m, C) is an error that states both."""
    with pytest.raises(InputTypeError, match=r"returned shape .* for 2 pairs: expected \(2, 3\)"):
        batch_logits(FunctionEngine(lambda _: returned), PAIRS[:2])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Two  words\n", ["Two", "words"]),
        ("他走了。Ok", ["他", "走", "了", "。Ok"]),
        ("แมว ok", ["แ", "ม", "ว", "ok"]),
        ("고양이가 잔다", ["고양이가", "잔다"]),
        ("", []),
    ],
)
def test_function_engine_counts_words(text: str, words: list[str]) -> None:
    """Tokens of a function's texts are words, and single characters where a script has no spaces."""
    tokens = FunctionEngine(lambda _: []).tokenize([text])[0]
    assert [text[a:b] for a, b in tokens.spans] == words


def _constant(texts: list[tuple[str, str]]) -> list[list[float]]:
    return [[0.0, 1.0, 2.0] for _ in texts]


class _Callable:
    def __call__(self, texts: list[tuple[str, str]]) -> list[list[float]]:
        return _constant(texts)


def test_function_engine_is_named_after_its_function() -> None:
    """A function's fingerprint is its module and name, an object's that of its class."""
    assert FunctionEngine(_constant).fingerprint == f"{__name__}._constant"
    assert FunctionEngine(_Callable()).fingerprint == f"{__name__}._Callable"


# PyTorch and ONNX against transformers


def test_torch_logits_are_transformers_own(torch_engine: TorchEngine, checkpoint: Path) -> None:
    """The torch engine's logits, padded and batched, are those of transformers pair by pair."""
    expected = _reference(checkpoint, PAIRS)
    assert np.ptp(expected, axis=0).min() > 0.1  # the pairs differ, so that the comparison says something
    assert batch_logits(torch_engine, PAIRS) == pytest.approx(expected, abs=1e-5)
    assert torch_engine.labels.columns == (1, 2, 0)
    assert torch_engine.max_length == 128


def test_onnx_logits_are_transformers_own(exported: OnnxEngine, checkpoint: Path) -> None:
    """An fp32 export gives transformers' logits to 1e-4, with the same columns and length."""
    assert batch_logits(exported, PAIRS) == pytest.approx(_reference(checkpoint, PAIRS), abs=1e-4)
    assert exported.labels.columns == (1, 2, 0)
    assert exported.max_length == 128


def test_a_pair_of_full_length(torch_engine: TorchEngine, exported: OnnxEngine, checkpoint: Path) -> None:
    """A pair that fills all 128 positions is scored, by both engines as by transformers."""
    words = 128 - 3 - 1
    pair = ("cat " * words, "mat")
    assert len(torch_engine.tokenize([pair[0]])[0]) == words
    for engine in (torch_engine, exported):
        assert batch_logits(engine, [pair]) == pytest.approx(_reference(checkpoint, [pair]), abs=1e-4)


def test_roberta_padding_does_not_change_scores(roberta: Path) -> None:
    """A checkpoint with pad id 1 and no token types scores a pair the same alone, in a batch and in transformers."""
    engine = TorchEngine(roberta, TWO, device="cpu")
    together = batch_logits(engine, PAIRS)
    assert together == pytest.approx(np.concatenate([batch_logits(engine, [pair]) for pair in PAIRS]), abs=1e-5)
    assert together == pytest.approx(_reference(roberta, PAIRS), abs=1e-5)
    assert np.ptp(together, axis=0).min() > 0.1


def test_roberta_counts_positions_after_padding(roberta: Path, tmp_path: Path) -> None:
    """514 positions are 512 tokens, also where config.json has no pad id, unless the tokenizer takes fewer."""
    assert TorchEngine(roberta, TWO, device="cpu").max_length == 512
    config = read_json(roberta / "config.json")
    assert config["max_position_embeddings"] == 514
    assert max_length(tmp_path, {**config, "pad_token_id": None}) == 512
    assert max_length(tmp_path, {**config, "model_type": "bert"}) == 514
    assert max_length(tmp_path, {}) == 512
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 256}', encoding="utf-8")
    assert max_length(tmp_path, config) == 256
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 1e30}', encoding="utf-8")
    assert max_length(tmp_path, config) == 512


def test_labels_of_nameless_outputs(roberta: Path) -> None:
    """LABEL_0 and LABEL_1 are an error that says to pass labels=, and with it two-label scores come out."""
    with pytest.raises(LabelError, match=r"\['LABEL_0', 'LABEL_1'\]: pass labels="):
        load(roberta)
    reranker = NLIReranker(load(roberta, labels=TWO, engine="torch"))
    expected = _reference(roberta, PAIRS)
    odds = np.exp(expected[:, 1] - expected[:, 0])
    p = reranker.predict(PAIRS)
    assert p[:, 0] == pytest.approx(odds / (1 + odds), abs=1e-5)
    assert np.isnan(p[:, 1:]).all()
    assert reranker.rank("A cat sleeps.", ["A cat."])[0].contradiction is None
    with pytest.raises(LabelError, match="three-label checkpoint"):
        reranker.verify("A cat sleeps.", ["A cat."])


def test_roberta_exports_with_its_own_length(roberta: Path) -> None:
    """An export of 514 positions takes 512 tokens, keeps given labels, and scores a full pair as transformers does."""
    pytest.importorskip("onnxscript")
    engine = load(roberta, engine="onnx", labels=TWO)
    assert isinstance(engine, OnnxEngine)
    assert engine.max_length == 512
    assert engine.labels.columns == (1, None, None)
    word = "cat " * 600
    tokens = engine.tokenize([word])[0]
    full = (word[: tokens.spans[512 - 4 - 1, 1]], "a")
    assert len(engine.tokenize([full[0]])[0]) + 1 + engine.special in (512, 513)
    full = (word[: tokens.spans[512 - 4 - 2, 1]], "a")
    assert len(engine.tokenize([full[0]])[0]) + 1 + engine.special == 512
    pairs = [*PAIRS, full]
    assert batch_logits(engine, pairs) == pytest.approx(_reference(roberta, pairs), abs=1e-4)
    with pytest.raises(LabelError, match="LABEL_0"):  # what another call passed is not remembered
        load(roberta, engine="onnx")


@pytest.mark.parametrize(("dtype", "tolerance"), [("bf16", 0.4), ("fp16", 0.05)])
def test_half_precision(checkpoint: Path, torch_engine: TorchEngine, dtype: str, tolerance: float) -> None:
    """Half precision comes back as float32, near fp32, and says what it is."""
    engine = TorchEngine(checkpoint, device="cpu", dtype=dtype)
    rows = batch_logits(engine, PAIRS)
    assert engine.precision == dtype
    assert rows.dtype == np.float32
    assert rows == pytest.approx(batch_logits(torch_engine, PAIRS), abs=tolerance)
    assert (rows != batch_logits(torch_engine, PAIRS)).any()


def test_torch_engine_survives_pickle(torch_engine: TorchEngine) -> None:
    """A pickled torch engine comes back with its settings and the same logits."""
    again = pickle.loads(pickle.dumps(torch_engine))  # noqa: S301 - made on this line
    assert (again.device, again.precision, again.labels) == ("cpu", "fp32", torch_engine.labels)
    assert again.fingerprint == torch_engine.fingerprint
    assert (batch_logits(again, PAIRS) == batch_logits(torch_engine, PAIRS)).all()


def test_threads_of_torch(checkpoint: Path) -> None:
    """threads= sets torch's threads, and the logits do not change."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    try:
        engine = TorchEngine(checkpoint, device="cpu", threads=1)
        assert torch.get_num_threads() == 1
        assert batch_logits(engine, PAIRS) == pytest.approx(_reference(checkpoint, PAIRS), abs=1e-5)
    finally:
        torch.set_num_threads(before)


def test_given_labels_move_columns(checkpoint: Path) -> None:
    """labels= goes before the checkpoint's own names, and another number of them is an error."""
    assert load(checkpoint, labels=["entailment", "neutral", "contradiction"], device="cpu").labels.columns == (0, 1, 2)
    with pytest.raises(LabelError, match="has 2 names, but the checkpoint has 3 outputs"):
        load(checkpoint, labels=TWO)


# What load finds


def test_load_picks_an_engine(checkpoint: Path, exported: OnnxEngine) -> None:
    """A folder of weights is torch's, a folder or file of ONNX is ONNX Runtime's, by text, Path or "~"."""
    assert load(checkpoint, device="cpu").name == "torch"
    for model in (exported.folder, str(exported.folder), exported.file, str(exported.file)):
        engine = load(model)
        assert isinstance(engine, OnnxEngine)
        assert engine.file == exported.file
        assert engine.labels == exported.labels
    assert isinstance(load("mini"), OnnxEngine)


def test_onnx_in_its_usual_folder(exported: OnnxEngine, checkpoint: Path, tmp_path: Path) -> None:
    """onnx/model.onnx below config and tokenizer, as on the Hub, is found by folder and by file, and pickles."""
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(checkpoint / name, tmp_path)
    (tmp_path / "onnx").mkdir()
    shutil.copy(exported.file, tmp_path / "onnx" / "model.onnx")
    shutil.copy(exported.file, tmp_path / "other.onnx")
    for model in (tmp_path, tmp_path / "onnx" / "model.onnx", tmp_path / "other.onnx"):
        engine = pickle.loads(pickle.dumps(load(model, engine="onnx")))  # noqa: S301 - made on this line
        assert engine.folder == tmp_path
        assert engine.max_length == 128
        assert engine.precision == "fp32"
        assert batch_logits(engine, PAIRS) == pytest.approx(batch_logits(exported, PAIRS), abs=1e-6)


def test_weights_beside_the_graph_are_told_apart(exported: OnnxEngine, checkpoint: Path, tmp_path: Path) -> None:
    """Weights in a file beside the graph count for the fingerprint."""
    for file in (checkpoint / "config.json", checkpoint / "tokenizer.json", exported.file):
        shutil.copy(file, tmp_path)
    prints = [OnnxEngine(tmp_path).fingerprint]
    for content in (b"one", b"two"):
        (tmp_path / "model.onnx_data").write_bytes(content)
        prints.append(OnnxEngine(tmp_path).fingerprint)
    assert prints[0] == exported.fingerprint
    assert len(set(prints)) == 3


def test_shards_are_told_apart(copied: Path, checkpoint: Path) -> None:
    """A sharded checkpoint gives the same logits, and another shard under the same index is another model."""
    from safetensors.numpy import load_file, save_file

    weights = load_file(copied / "model.safetensors")
    names = sorted(weights)
    shards = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, part in shards.items():
        save_file({name: weights[name] for name in part}, copied / file, metadata={"format": "pt"})
    (copied / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {name: file for file, part in shards.items() for name in part}}
    (copied / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    engine = TorchEngine(copied, device="cpu")
    fingerprint = engine.fingerprint
    assert batch_logits(engine, PAIRS) == pytest.approx(_reference(checkpoint, PAIRS), abs=1e-5)
    changed = {name: weights[name] * 2 for name in shards["model-2.safetensors"]}
    save_file(changed, copied / "model-2.safetensors", metadata={"format": "pt"})
    assert TorchEngine(copied, device="cpu").fingerprint != fingerprint


def test_export_goes_to_the_cache_only(exported: OnnxEngine, checkpoint: Path) -> None:
    """engine="onnx" leaves the model's folder as it was, and a second load takes the file made by the first."""
    assert sorted(path.name for path in checkpoint.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert Path(os.environ["RERANK_NLI_CACHE"]) in exported.file.parents
    made = exported.file.stat().st_mtime_ns
    again = load(checkpoint, engine="onnx")
    assert isinstance(again, OnnxEngine)
    assert (again.file, again.file.stat().st_mtime_ns) == (exported.file, made)


@pytest.mark.filterwarnings("ignore:Deprecated in 0.9.0:DeprecationWarning")  # transformers calls tokenizers so
def test_the_cache_has_a_usual_place(monkeypatch: pytest.MonkeyPatch, copied: Path, tmp_path: Path) -> None:
    """Without RERANK_NLI_CACHE the cache is below XDG_CACHE_HOME, or else below ~/.cache."""
    _only_vocabulary(copied)
    monkeypatch.delenv("RERANK_NLI_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    TorchEngine(copied, device="cpu")
    assert [path.name for path in (tmp_path / "xdg" / "rerank-nli").glob("*/*")] == ["tokenizer.json"]
    monkeypatch.delenv("XDG_CACHE_HOME")
    TorchEngine(copied, device="cpu")
    assert [path.name for path in (tmp_path / "home/.cache/rerank-nli").glob("*/*")] == ["tokenizer.json"]


@pytest.mark.parametrize("what", ["export", "tokenizer"])
def test_an_unusable_cache(monkeypatch: pytest.MonkeyPatch, copied: Path, tmp_path: Path, what: str) -> None:
    """A cache that cannot be written to is one error that names the place and the variable to set."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("RERANK_NLI_CACHE", str(tmp_path / "file" / "cache"))
    if what == "tokenizer":
        _only_vocabulary(copied)
    with pytest.raises(ModelNotFoundError, match="RERANK_NLI_CACHE") as caught:
        load(copied, engine="onnx" if what == "export" else "torch", device="cpu")
    assert str(tmp_path / "file" / "cache") in str(caught.value)


# Tokenizers


def _only_vocabulary(folder: Path) -> None:
    """Leave vocab.txt in place of tokenizer.json."""
    vocabulary = read_json(folder / "tokenizer.json")["model"]["vocab"]
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.get)), encoding="utf-8")
    (folder / "tokenizer.json").unlink()


@pytest.mark.filterwarnings("ignore:Deprecated in 0.9.0:DeprecationWarning")  # transformers calls tokenizers so
def test_a_vocabulary_is_converted_in_the_cache(copied: Path, torch_engine: TorchEngine) -> None:
    """A folder with vocab.txt alone gives the same logits, and nothing is written to it."""
    _only_vocabulary(copied)
    before = sorted(path.name for path in copied.iterdir())
    assert batch_logits(TorchEngine(copied, device="cpu"), PAIRS) == pytest.approx(
        batch_logits(torch_engine, PAIRS), abs=1e-5
    )
    assert sorted(path.name for path in copied.iterdir()) == before


def test_a_vocabulary_that_cannot_be_read(copied: Path) -> None:
    """A tokenizer that transformers cannot convert is an error that says to add tokenizer.json."""
    (copied / "tokenizer.json").unlink()
    (copied / "tokenizer.model").write_bytes(b"no sentencepiece")
    (copied / "config.json").write_text(
        json.dumps({**read_json(copied / "config.json"), "model_type": "nothing-known"}), encoding="utf-8"
    )
    with pytest.raises(ModelNotFoundError, match=r"holds no tokenizer that can be read.*add its tokenizer.json"):
        TorchEngine(copied, device="cpu")


def test_no_tokenizer(copied: Path) -> None:
    """A folder without any tokenizer is an error that lists what was looked for."""
    (copied / "tokenizer.json").unlink()
    with pytest.raises(ModelNotFoundError, match=r"no tokenizer\.json, nor one of vocab\.txt, spm\.model.*add"):
        TorchEngine(copied, device="cpu")


def test_truncation_and_padding_of_a_tokenizer_are_cleared(copied: Path, torch_engine: TorchEngine) -> None:
    """A tokenizer.json that would cut and pad its texts does neither, and the logits stay what they were."""
    from tokenizers import Tokenizer

    path = str(copied / "tokenizer.json")
    tokenizer = Tokenizer.from_file(path)
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=64, pad_id=0, pad_token="[PAD]")  # noqa: S106
    tokenizer.save(path)
    assert len(Tokenizer.from_file(path).encode(PAIRS[1][0]).ids) == 64
    engine = TorchEngine(copied, device="cpu")
    assert [len(t) for t in engine.tokenize(list(PAIRS[1]))] == [len(t) for t in torch_engine.tokenize(list(PAIRS[1]))]
    assert (batch_logits(engine, PAIRS) == batch_logits(torch_engine, PAIRS)).all()


# What is missing, damaged or meant to harm


def test_no_such_folder(tmp_path: Path) -> None:
    """A folder or file that is not there is an error that names it, and is not looked for on the Hub."""
    for model in (
        tmp_path / "none",
        str(tmp_path / "none"),
        "./none",
        "~/no/such",
        tmp_path / "none.onnx",
        "a b",
        "a/b/c",
    ):
        with pytest.raises(ModelNotFoundError, match=r"^no such folder: "):
            load(model)
    with pytest.raises(ModelNotFoundError, match=r"none of none\.onnx \(it has: \[\]\)"):
        OnnxEngine(tmp_path / "none.onnx")


@pytest.mark.parametrize("model", [None, 3, b"mini", ["mini"]])
def test_not_a_model(model: Any) -> None:
    """Anything but a text or Path is a type error that shows it."""
    with pytest.raises(InputTypeError, match="a model is a folder, a Hub id or 'mini', got"):
        load(model)


@pytest.mark.parametrize("engine", ["onnx", "torch", "auto"])
def test_an_empty_folder(tmp_path: Path, engine: str) -> None:
    """A folder without a model is an error that lists what was looked for and what is there."""
    (tmp_path / "notes.md").write_text("", encoding="utf-8")
    with pytest.raises(ModelNotFoundError, match=r"has none of model\..* \(it has: \['notes\.md'\]\)"):
        load(tmp_path, engine=engine)


def test_unknown_names(checkpoint: Path, exported: OnnxEngine) -> None:
    """Unknown engines, types and devices are errors that say what there is."""
    with pytest.raises(InputError, match=r"'tensorrt'.*'auto', 'onnx', 'torch'"):
        load(checkpoint, engine="tensorrt")
    with pytest.raises(InputError, match=r"'int4'.*'auto', 'fp32', 'bf16', 'fp16', 'int8'"):
        load(checkpoint, dtype="int4")
    with pytest.raises(InputError, match="device='nowhere' cannot be used here"):
        load(checkpoint, device="nowhere")
    with pytest.raises(InputError, match="device='cuda', dtype='auto': the ONNX engine computes in fp32 or int8"):
        load(exported.folder, device="cuda")
    with pytest.raises(InputError, match="dtype='fp16'"):
        load(exported.folder, dtype="fp16")


def test_a_hub_id_that_is_not_in_the_cache() -> None:
    """A Hub id that cannot be fetched is one error that names it and the cache that was looked in."""
    with pytest.raises(ModelNotFoundError) as caught:
        load("someone/nowhere-to-be-found")
    assert "'someone/nowhere-to-be-found' is no folder here" in str(caught.value)
    assert os.environ["HF_HUB_CACHE"] in str(caught.value)
    assert "\n" not in str(caught.value)


def _hub_folder(name: str, files: list[Path]) -> Path:
    """Files as the Hub's cache would hold them: refs, blobs, and a snapshot that points to those."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    root = Path(os.environ["HF_HUB_CACHE"]) / f"models--{name.replace('/', '--')}"
    snapshot = root / "snapshots" / commit
    for folder in (root / "refs", root / "blobs", snapshot):
        folder.mkdir(parents=True)
    (root / "refs" / "main").write_text(commit, encoding="utf-8")
    for file in files:
        shutil.copy(file, root / "blobs" / file.name)
        (snapshot / file.name).symlink_to(root / "blobs" / file.name)
    return snapshot


@pytest.mark.skipif(sys.platform == "win32", reason="the cache has no links there")
def test_a_hub_id_in_the_cache(exported: OnnxEngine, checkpoint: Path) -> None:
    """A Hub id is found in the Hub's cache without a network, by branch and by commit."""
    files = [checkpoint / "config.json", checkpoint / "tokenizer.json", exported.file]
    snapshot = _hub_folder("someone/cached", files)
    for revision in (None, "main", snapshot.name):
        engine = load("someone/cached", revision=revision)
        assert isinstance(engine, OnnxEngine)
        assert engine.folder == snapshot
        assert batch_logits(engine, PAIRS) == pytest.approx(batch_logits(exported, PAIRS), abs=1e-6)
    with pytest.raises(ModelNotFoundError, match="someone/cached"):
        load("someone/cached", revision="no-such-branch")


@pytest.mark.skipif(sys.platform == "win32", reason="the cache has no links there")
def test_a_hub_id_without_a_model(checkpoint: Path) -> None:
    """A cached Hub id without weights is an error that lists what is there."""
    _hub_folder("someone/empty", [checkpoint / "config.json"])
    with pytest.raises(ModelNotFoundError, match=r"it has: \['config\.json'\]"):
        load("someone/empty")


def test_another_cache_by_environment(tmp_path: Path) -> None:
    """The error names the cache that HF_HUB_CACHE set, in a process of its own."""
    program = "from rerank_nli import load\ntry: load('a/b')\nexcept FileNotFoundError as error: print(error)"
    assert str(tmp_path / "hub") in _run(program, HF_HUB_CACHE=str(tmp_path / "hub"))


def test_truncated_weights(copied: Path) -> None:
    """Half a safetensors file is an error that names the folder."""
    path = copied / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DamagedModelError, match=re.escape(f"the weights in {copied} cannot be read")):
        load(copied, device="cpu")


@pytest.mark.xfail(reason="the torch engine leaves weights that are missing at random values")
def test_missing_weights(copied: Path) -> None:
    """A checkpoint that lacks a layer is an error: random numbers would take its place."""
    from safetensors.numpy import load_file, save_file

    path = copied / "model.safetensors"
    save_file({k: v for k, v in load_file(path).items() if "layer.1" not in k}, path, metadata={"format": "pt"})
    with pytest.raises(DamagedModelError, match="missing"):
        load(copied, device="cpu")


@pytest.mark.parametrize("names", [TWO, ["entailment", "neutral", "contradiction"]])
def test_not_a_classifier(make_checkpoint: Callable[..., Path], names: list[str]) -> None:
    """A masked language model with labels= is an error: its head would be made of random numbers."""
    folder = make_checkpoint("BertForMaskedLM")
    with pytest.raises(InputError, match=r"holds \['BertForMaskedLM'\], not a sequence classifier"):
        load(folder, labels=names)
    with pytest.raises(InputError, match="not a sequence classifier"):
        load(folder, labels=names, engine="onnx")


def test_a_relevance_reranker(make_checkpoint: Callable[..., Path]) -> None:
    """A checkpoint with one output is refused by its own name, and with labels= by their number."""
    folder = make_checkpoint("BertForSequenceClassification", id2label={0: "LABEL_0"})
    with pytest.raises(LabelError, match="relevance reranker"):
        load(folder)
    with pytest.raises(LabelError, match="has 2 names, but the checkpoint has 1 outputs"):
        load(folder, labels=TWO)


def test_labels_of_another_number_than_outputs(
    make_checkpoint: Callable[..., Path], exported: OnnxEngine, checkpoint: Path, tmp_path: Path
) -> None:
    """Where the config names no labels, another number of them than of outputs is an error in both engines."""
    with pytest.raises(InputError, match="has 2 outputs, but 3 labels"):
        TorchEngine(make_checkpoint("BertForSequenceClassification", num_labels=2), ["entailed", "neutral", "refuted"])
    shutil.copy(exported.file, tmp_path)
    shutil.copy(checkpoint / "tokenizer.json", tmp_path)
    with pytest.raises(InputError, match="has 3 outputs, but 2 labels"):
        OnnxEngine(tmp_path, TWO)


def test_other_errors_of_a_runtime_are_passed_on(torch_engine: TorchEngine, exported: OnnxEngine) -> None:
    """A pair longer than the model's positions, which no scorer makes, raises the runtime's own error."""
    pair = ("cat " * 200, "mat")
    with pytest.raises(RuntimeError, match="must match"):
        batch_logits(torch_engine, [pair])
    with pytest.raises(Exception, match="ONNXRuntimeError"):
        batch_logits(exported, [pair])


@pytest.mark.parametrize("content", [b"", b"not a graph", None])
def test_damaged_onnx(exported: OnnxEngine, checkpoint: Path, tmp_path: Path, content: bytes | None) -> None:
    """An ONNX file that is empty, something else, or cut short is an error that names it."""
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(checkpoint / name, tmp_path)
    whole = exported.file.read_bytes()
    (tmp_path / "model.onnx").write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(DamagedModelError, match=re.escape(f"{tmp_path / 'model.onnx'} cannot be read as ONNX")):
        load(tmp_path)


def test_a_bundle_that_was_changed(exported: OnnxEngine, tmp_path: Path) -> None:
    """A bundle whose file is not the one in its manifest is not opened."""
    bundle = shutil.copytree(exported.folder, tmp_path / "bundle")
    with (bundle / "model.onnx").open("ab") as file:
        file.write(b" ")
    with pytest.raises(DamagedModelError, match=r"model.onnx is damaged"):
        load(bundle)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json"])
@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_damaged_text_files(copied: Path, name: str, engine: str) -> None:
    """A JSON file that is cut short is an error that names it."""
    (copied / name).write_text('{"a":', encoding="utf-8")
    with pytest.raises(DamagedModelError, match=re.escape(str(copied / name))):
        load(copied, engine=engine, device="cpu")


def test_bin_weights(copied: Path, torch_engine: TorchEngine) -> None:
    """Weights in pytorch_model.bin give the same logits."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    torch.save(load_file(copied / "model.safetensors"), copied / "pytorch_model.bin")
    (copied / "model.safetensors").unlink()
    engine = load(copied, device="cpu")
    assert (batch_logits(engine, PAIRS) == batch_logits(torch_engine, PAIRS)).all()
    assert engine.fingerprint != torch_engine.fingerprint


class _Harm:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "harm")


def test_a_bin_file_that_would_run_code(copied: Path, tmp_path: Path) -> None:
    """A pickle that would run code is refused as damaged, by both engines, and the code does not run."""
    torch = pytest.importorskip("torch")
    (copied / "model.safetensors").unlink()
    torch.save({"classifier.bias": _Harm(tmp_path / "ran")}, copied / "pytorch_model.bin")
    for engine in ("torch", "onnx"):
        with pytest.raises(DamagedModelError, match=re.escape(f"the weights in {copied}")):
            load(copied, engine=engine, device="cpu")
    assert not (tmp_path / "ran").exists()
    torch.load(copied / "pytorch_model.bin", weights_only=False)
    assert (tmp_path / "ran").exists()  # so it would have run


def test_loading_prints_nothing(checkpoint: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Loading in torch writes nothing, neither bars nor warnings."""
    load(checkpoint, device="cpu")
    assert capfd.readouterr() == ("", "")
