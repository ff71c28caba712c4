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
from rerank_nli.cli import main
from rerank_nli.export import export
from rerank_nli.files import this_processor
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


@pytest.mark.parametrize("dtype", ["fp32", "int8"])
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


def test_a_function_engine_is_checked_at_once() -> None:
    """What is no function, and a length that is none, are refused before the first pair."""
    with pytest.raises(InputTypeError, match="fn is 'mini': expected a function"):
        FunctionEngine("mini")  # type: ignore[arg-type]
    for length in ("512", 0, 1.5):
        with pytest.raises(InputError, match=f"max_length={length!r}: expected a whole number"):
            FunctionEngine(lambda _: [], max_length=length)  # type: ignore[arg-type]


@pytest.mark.parametrize("returned", [[[0.0, 1.0]], [0.0, 1.0, 2.0], [[0.0, 1.0, 2.0]] * 3, 1.0])
def test_function_of_another_shape(returned: Any) -> None:
    """A function that returns another shape than (m, C) is an error that states both."""
    with pytest.raises(InputTypeError, match=r"returned shape .* for 2 pairs: expected \(2, 3\)"):
        batch_logits(FunctionEngine(lambda _: returned), PAIRS[:2])


@pytest.mark.parametrize("returned", [[[0.0, 1.0], [0.0]], [{"entailment": 1.0}] * 2, [["a", "b", "c"]] * 2])
def test_function_of_no_numbers(returned: Any) -> None:
    """A function that returns no array of numbers is an error that states what was expected."""
    with pytest.raises(InputTypeError, match=r"returned no array of numbers for 2 pairs .*: expected \(2, 3\)"):
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
    assert max_length(tmp_path, {"max_position_embeddings": 514, "model_type": "mpnet", "pad_token_id": 1}) == 512
    assert max_length(tmp_path, {"n_positions": 1024}) == 1024
    assert max_length(tmp_path, {"max_position_embeddings": -1}) == max_length(tmp_path, {}) == 512
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


@pytest.fixture
def made(checkpoint: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a small classifier of another kind beside the checkpoint's tokenizer."""
    transformers = pytest.importorskip("transformers")
    size = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))["vocab_size"]

    def make(kind: str, **config: Any) -> Path:
        names = dict(enumerate(("contradiction", "entailment", "neutral")))
        model = transformers.AutoModelForSequenceClassification.from_config(
            transformers.AutoConfig.for_model(kind, vocab_size=size, id2label=names, **config)
        )
        model.save_pretrained(tmp_path / kind)
        shutil.copy(checkpoint / "tokenizer.json", tmp_path / kind)
        return tmp_path / kind

    return make


_NARROW = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 1}


@pytest.mark.parametrize(("dtype", "tolerance"), [("bf16", 0.05), ("fp16", 0.01)])
def test_the_first_deberta_in_half_precision(made: Callable[..., Path], dtype: str, tolerance: float) -> None:
    """A DeBERTa whose biases transformers leaves in fp32 computes in one precision, near that of fp32."""
    folder = made("deberta", relative_attention=True, pos_att_type=["c2p", "p2c"], **_NARROW)
    rows = batch_logits(TorchEngine(folder, device="cpu", dtype=dtype), PAIRS)
    assert rows == pytest.approx(batch_logits(TorchEngine(folder, device="cpu"), PAIRS), abs=tolerance)


def test_a_decoder_without_padding(made: Callable[..., Path]) -> None:
    """A decoder whose config names no padding is an error that says what to add, and with it one that scores."""
    folder = made("gpt2", n_embd=32, n_layer=1, n_head=2, n_positions=64)
    with pytest.raises(InputError, match=r"config\.json names no pad_token_id: add the number"):
        batch_logits(TorchEngine(folder, device="cpu"), PAIRS)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "pad_token_id": 0}), encoding="utf-8")
    engine = TorchEngine(folder, device="cpu")
    alone = [batch_logits(engine, [pair])[0] for pair in PAIRS]
    assert batch_logits(engine, PAIRS) == pytest.approx(np.array(alone), abs=1e-5)


def test_what_cannot_be_traced(made: Callable[..., Path], tmp_path: Path) -> None:
    """An architecture that PyTorch cannot trace is one line that says what works, and leaves nothing."""
    pytest.importorskip("onnxscript")
    folder = made("longformer", attention_window=[8], max_position_embeddings=66, **_NARROW)
    with pytest.raises(InputError, match=r"^PyTorch cannot trace longformer for ONNX: use engine='torch'"):
        export(folder, tmp_path / "out", form="fp32")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["longformer"]


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


def test_onnx_in_its_usual_folder(graph: Path, exported: OnnxEngine, checkpoint: Path, tmp_path: Path) -> None:
    """onnx/model.onnx below config and tokenizer, as on the Hub, is found by folder and by file, and pickles."""
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(checkpoint / name, tmp_path)
    (tmp_path / "onnx").mkdir()
    shutil.copy(graph, tmp_path / "onnx" / "model.onnx")
    shutil.copy(graph, tmp_path / "other.onnx")
    for model in (tmp_path, tmp_path / "onnx" / "model.onnx", tmp_path / "other.onnx"):
        engine = pickle.loads(pickle.dumps(load(model, engine="onnx")))  # noqa: S301 - made on this line
        assert engine.folder == tmp_path
        assert engine.max_length == 128
        assert engine.precision == "fp32"
        assert batch_logits(engine, PAIRS) == pytest.approx(batch_logits(exported, PAIRS), abs=1e-6)


def test_weights_beside_the_graph_are_told_apart(
    graph: Path, exported: OnnxEngine, checkpoint: Path, tmp_path: Path
) -> None:
    """Weights in a file that the graph names count for the fingerprint, and those of another graph do not."""
    onnx = pytest.importorskip("onnx")
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(checkpoint / name, tmp_path)
    prints = [sha256(graph)]
    for beside in ("model.onnx_data", "model.onnx.data", "weights.bin"):
        model = onnx.load(str(graph))
        onnx.save(model, str(tmp_path / "model.onnx"), save_as_external_data=True, location=beside)
        engine = OnnxEngine(tmp_path)
        assert batch_logits(engine, PAIRS) == pytest.approx(batch_logits(exported, PAIRS), abs=1e-6)
        prints.append(engine.fingerprint)
    content = np.fromfile(tmp_path / beside, dtype=np.uint8)
    content[-1] ^= 1
    content.tofile(tmp_path / beside)
    prints.append(OnnxEngine(tmp_path).fingerprint)
    assert len(set(prints)) == 5
    (tmp_path / "model_O4.onnx_data").write_bytes(b"of another graph")
    assert OnnxEngine(tmp_path).fingerprint == prints[-1]


# Graphs of others in int8


def _published(graph: Path, checkpoint: Path, folder: Path, graphs: dict[str, Path]) -> Path:
    """A folder as sentence-transformers publishes it: weights, config, tokenizer, and graphs in onnx/."""
    shutil.copytree(checkpoint, folder)
    for name, file in {"onnx/model.onnx": graph, **graphs}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(file, folder / name)
    return folder


@pytest.mark.skipif(not this_processor(), reason="no graph is made for this processor")
@pytest.mark.parametrize("place", ["", "onnx/"])
def test_a_graph_made_for_this_processor(
    graph: Path, checkpoint: Path, dynamic: Path, tmp_path: Path, place: str
) -> None:
    """The int8 graph that is made for this processor is taken by auto and by int8, the fp32 one by fp32."""
    own = place + this_processor()[0]
    graphs = {own: dynamic, "model_int8.onnx": graph, "onnx/model_qint8_other.onnx": graph}
    folder = _published(graph, checkpoint, tmp_path / "published", graphs)
    for engine, dtype in (("auto", "auto"), ("auto", "int8"), ("onnx", "auto"), ("onnx", "int8")):
        opened = load(folder, engine=engine, dtype=dtype, device="cpu")
        assert isinstance(opened, OnnxEngine)
        assert (opened.file, opened.precision, opened.folder) == (folder / own, "int8", folder)
    fp32 = load(folder, dtype="fp32", device="cpu")
    assert isinstance(fp32, OnnxEngine)
    assert (fp32.file, fp32.precision) == (folder / "onnx" / "model.onnx", "fp32")


def test_a_graph_made_for_another_processor(graph: Path, checkpoint: Path, dynamic: Path, tmp_path: Path) -> None:
    """An int8 graph for other processors is taken by its name only; auto takes fp32 before one that is for any."""
    kinds = ("qint8_avx512_vnni", "qint8_avx512", "quint8_avx2", "qint8_arm64")
    others = [f"onnx/model_{kind}.onnx" for kind in kinds if f"model_{kind}.onnx" not in this_processor()]
    graphs = {**dict.fromkeys(others, dynamic), "onnx/model_quantized.onnx": dynamic}
    folder = _published(graph, checkpoint, tmp_path / "published", graphs)
    opened = [load(folder, dtype=dtype, device="cpu") for dtype in ("auto", "int8")]
    assert all(isinstance(engine, OnnxEngine) for engine in opened)
    assert [(e.file.name, e.precision) for e in opened if isinstance(e, OnnxEngine)] == [
        ("model.onnx", "fp32"),
        ("model_quantized.onnx", "int8"),
    ]
    assert load(folder / others[0]).precision == "int8"
    (folder / "onnx" / "model.onnx").unlink()
    assert load(folder, device="cpu").name == "torch"
    (folder / "model.safetensors").unlink()
    assert load(folder).precision == "int8"


@pytest.mark.parametrize("name", ["model_quantized.onnx", "model_quint8_avx2.onnx", "graph.onnx"])
def test_int8_of_others_scores_each_pair_on_its_own(
    graph: Path, exported: OnnxEngine, checkpoint: Path, dynamic: Path, tmp_path: Path, name: str
) -> None:
    """A graph that rounds with one scale for a batch, whatever its name, scores a pair the same in any company."""
    folder = _published(graph, checkpoint, tmp_path / "published", {name: dynamic})
    engine = OnnxEngine(folder / name)
    assert engine.precision == "int8"
    alone = np.concatenate([batch_logits(engine, [pair]) for pair in PAIRS])
    assert (batch_logits(engine, PAIRS) == alone).all()
    assert (batch_logits(engine, PAIRS[::-1]) == alone[::-1]).all()
    assert alone == pytest.approx(batch_logits(exported, PAIRS), abs=1)
    assert (alone != batch_logits(exported, PAIRS)).any()
    session = pytest.importorskip("onnxruntime").InferenceSession(folder / name)
    arrays = engine._template.arrays([(engine.tokenize([a])[0], engine.tokenize([b])[0]) for a, b in PAIRS])
    together = session.run(None, arrays)[0]
    assert (together != alone).any()  # what the runtime alone would give depends on the batch


@pytest.mark.parametrize(("dtype", "name"), [("fp32", "model.onnx"), ("int8", "model_quantized.onnx")])
def test_doctor_names_the_file(
    graph: Path, checkpoint: Path, dynamic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    dtype: str, name: str,
) -> None:  # fmt: skip
    """`doctor` says which file was opened, and what it computes in."""
    folder = _published(graph, checkpoint, tmp_path / "published", {"onnx/model_quantized.onnx": dynamic})
    main(["doctor", str(folder), "--dtype", dtype, "--device", "cpu"])
    assert re.search(rf"onnx engine in {dtype} \(auto: .*\), {re.escape(name)}, 128 tokens", capsys.readouterr().out)


def test_fp32_of_others_is_scored_in_batches(
    graph: Path, exported: OnnxEngine, checkpoint: Path, tmp_path: Path
) -> None:
    """A graph in fp32 gets a whole batch at once: only rounding needs pairs to be apart."""
    folder = _published(graph, checkpoint, tmp_path / "published", {})
    engine = OnnxEngine(folder)
    assert not engine._alone
    assert batch_logits(engine, PAIRS) == pytest.approx(batch_logits(exported, PAIRS), abs=1e-6)


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


def test_a_cross_encoder_of_sentence_transformers(
    copied: Path, torch_engine: TorchEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What sentence-transformers saved opens with the same logits, also where sentence-transformers is not there."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    (copied / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64, "pad_token": "[PAD]"}),
        encoding="utf-8",
    )
    sentence_transformers.CrossEncoder(str(copied), device="cpu").save_pretrained(str(tmp_path / "saved"))
    assert (tmp_path / "saved" / "modules.json").is_file()
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    engine = load(tmp_path / "saved", device="cpu")
    assert isinstance(engine, TorchEngine)
    assert (engine.max_length, engine.labels) == (64, torch_engine.labels)
    assert batch_logits(engine, PAIRS) == pytest.approx(batch_logits(torch_engine, PAIRS), abs=1e-6)


def test_several_devices_share_the_batches(torch_engine: TorchEngine, checkpoint: Path) -> None:
    """Devices between commas score alike together, also after pickling; one that is not there is named."""
    engine = TorchEngine(checkpoint, device="cpu, cpu,cpu")
    claim = "A cat sleeps on the mat."
    passages = [f"The cat {verb} on mat {i}." for i in range(40) for verb in ("sleeps", "sees nobody")]
    expected = NLIReranker(torch_engine).rank(claim, passages)
    for several in (engine, pickle.loads(pickle.dumps(engine))):  # noqa: S301 - our own bytes
        assert (several.device, several.parallel) == ("cpu,cpu,cpu", 3)
        ranking = NLIReranker(several, batch_tokens=64).rank(claim, passages)
        assert {p.index: p.score for p in ranking} == pytest.approx({p.index: p.score for p in expected}, abs=1e-5)
    with pytest.raises(InputError, match="device='abacus' cannot be used here"):
        load(checkpoint, engine="torch", device="cpu,abacus")


def test_attention_is_the_fast_one(torch_engine: TorchEngine) -> None:
    """In torch attention is computed by the fused operator where the architecture has it."""
    assert torch_engine._models[0].config._attn_implementation == "sdpa"


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
    _only_vocabulary(copied)
    (copied / "config.json").write_text(
        json.dumps({**read_json(copied / "config.json"), "model_type": "nothing-known"}), encoding="utf-8"
    )
    with pytest.raises(ModelNotFoundError, match=r"holds no tokenizer that can be read.*add its tokenizer.json"):
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
