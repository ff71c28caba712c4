"""The five checkpoints that users bring, at reduced size: transformers' own logits in both engines, and all verbs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from architectures import ARCHITECTURES, Architecture, build
from texts import CLAIMS, batch_logits, neutral_sentences

from rerank_nli import DamagedModelError, LabelError, ModelNotFoundError, NLIReranker, OnnxEngine, TorchEngine, load
from rerank_nli.batches import in_batches
from rerank_nli.checkpoints import cached, convert_tokenizer, read_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rerank_nli import Engine
    from rerank_nli.scores import FloatArray

TEXTS = neutral_sentences()
CLAIM = "The ferry to Saltholm carries eleven cars."
PAIRS = [
    ("a", "b"),
    ("Yes.", "No."),
    ("", "An empty premise."),
    ("The ferry is late.", CLAIM),
    ("  Two  spaces,\ta tab\nand a line. ", " Led by a space."),
    ("Le café de Zürich est fermé; ÆØÅ, naïve, Ωμέγα.", "Das Café ist zu."),
    ("北の港からフェリーが出る。 Паром идёт в порт.", "Паром идёт."),
    ("Prices: 3.50 + 4,20 = 7.70 (about 100 %) — see https://example.org/a?b=c#d", "It costs 7.70!"),
    *((premise, claim) for claim, *premises in CLAIMS for premise in premises),
    *((" ".join(TEXTS[start : start + count]), CLAIM) for start, count in [(0, 2), (5, 4), (9, 6), (20, 3), (31, 5)]),
]
LIMITS = {"torch": 1e-4, "onnx": 1e-3}
MARKS = ("<s>", "</s>", "<pad>", "<unk>", "<mask>", "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]")
# "ﬁ" is "fi" to SentencePiece, and wide letters are letters.
COMPATIBLE = ["The ﬁne ﬂour", "ｆｕｌｌ　ｗｉｄｔｈ", "  two  spaces\tand a\nline"]
CORRELATION = 0.95  # of logits with and without rounded activations: weights with so wide a spread enlarge it


@pytest.fixture(scope="module", params=ARCHITECTURES, ids=lambda architecture: architecture.short)
def architecture(request: pytest.FixtureRequest) -> Architecture:
    """Each of the five in turn."""
    return request.param


@pytest.fixture(scope="module")
def folder(architecture: Architecture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder."""
    return _built(architecture, tmp_path_factory)


@pytest.fixture(scope="module")
def sentence_pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with spm.model and no tokenizer.json."""
    return _built(ARCHITECTURES[0], tmp_path_factory)


@pytest.fixture(scope="module")
def byte_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with vocab.json and merges.txt and no tokenizer.json."""
    return _built(ARCHITECTURES[-1], tmp_path_factory)


def _built(architecture: Architecture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    pytest.importorskip("sentencepiece")
    folder = tmp_path_factory.mktemp("checkpoint")
    build(architecture, folder, TEXTS)
    return folder


@pytest.fixture(scope="module")
def reference(folder: Path) -> FloatArray:
    """Transformers' own logits: its tokenizer on two texts, one pair at a time and so without padding."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        rows = [model(**tokenizer(*pair, return_tensors="pt")).logits[0].numpy() for pair in PAIRS]
    return np.stack(rows)


@pytest.fixture(scope="module")
def torch_engine(architecture: Architecture, folder: Path) -> TorchEngine:
    """It in PyTorch."""
    return TorchEngine(folder, architecture.labels, device="cpu")


@pytest.fixture(scope="module")
def onnx_engine(architecture: Architecture, folder: Path) -> OnnxEngine:
    """It in ONNX Runtime, by the export that `load` makes in the cache."""
    pytest.importorskip("onnxscript")
    engine = load(folder, engine="onnx", labels=architecture.labels)
    assert isinstance(engine, OnnxEngine)
    return engine


@pytest.fixture(params=["torch", "onnx"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Both engines in turn."""
    return request.getfixturevalue(f"{request.param}_engine")


def _logits(engine: Engine, pairs: Sequence[tuple[str, str]], batch_tokens: int = 4096) -> FloatArray:
    first, second = (engine.tokenize(side) for side in zip(*pairs, strict=True))
    return in_batches(list(zip(first, second, strict=True)), engine.logits, batch_tokens, engine.special)


def _special(folder: Path) -> set[int]:
    tokenizer, _ = read_tokenizer(folder, {})
    return {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}


# Loading


def test_the_files_are_those_of_the_hub(architecture: Architecture, folder: Path) -> None:
    """A folder has its architecture's files for tokenizer and weights, and no other."""
    kinds = ("*.safetensors", "*.bin", "*.model", "tokenizer.json", "vocab.json", "merges.txt")
    assert sorted(path.name for kind in kinds for path in folder.glob(kind)) == sorted(architecture.files)


def test_columns(architecture: Architecture, engine: Engine) -> None:
    """The columns follow the names of the outputs, and the length is the one that the positions allow."""
    names = architecture.labels or architecture.names
    assert engine.labels.names == names
    entailment, neutral, contradiction = engine.labels.columns
    assert names[entailment] == "entailment"
    if len(names) == 3:
        assert [names[i] for i in (neutral, contradiction) if i is not None] == ["neutral", "contradiction"]
    else:
        assert (neutral, contradiction) == (None, None)
    assert engine.max_length == architecture.max_length
    assert engine.special == (3 if architecture.config["model_type"] == "deberta-v2" else 4)


def test_unnamed_outputs_need_names() -> None:
    """Of the five only the one with LABEL_0 and LABEL_1 needs labels."""
    assert [a.short for a in ARCHITECTURES if a.labels] == ["fine-tuned nli-deberta-v3-base"]


def test_without_names_no_columns(architecture: Architecture, folder: Path) -> None:
    """A checkpoint loads without labels where its outputs have names, and else says what to pass."""
    if architecture.labels is None:
        assert TorchEngine(folder, device="cpu").labels.names == architecture.names
    else:
        with pytest.raises(LabelError, match="labels="):
            TorchEngine(folder, device="cpu")


def test_no_token_types(onnx_engine: OnnxEngine) -> None:
    """None of the five takes token types, and the graph asks for none."""
    graph = pytest.importorskip("onnx").load(str(onnx_engine.file)).graph
    assert [wanted.name for wanted in graph.input] == ["input_ids", "attention_mask"]


def test_padding_is_the_checkpoints(architecture: Architecture, engine: Engine) -> None:
    """A batch is padded with the checkpoint's own id, in a bundle without config.json too."""
    assert isinstance(engine, TorchEngine | OnnxEngine)
    short, long = engine.tokenize(["a", TEXTS[0]])
    arrays = engine._template.arrays([(short, short), (long, long)])
    padded = arrays["attention_mask"] == 0
    assert padded.any()
    assert set(arrays["input_ids"][padded]) == {architecture.config["pad_token_id"]}


# Logits


def test_logits_spread(reference: FloatArray) -> None:
    """Random weights give pairs logits of their own: a standard deviation of 0.5 or more in each column."""
    assert reference.std(axis=0).min() >= 0.5


@pytest.mark.parametrize("batch_tokens", [1, 4096], ids=["single", "batched"])
def test_logits_are_transformers(engine: Engine, reference: FloatArray, batch_tokens: int) -> None:
    """A pair's logits are transformers' own, alone and among longer pairs: within 1e-4 in torch, 1e-3 in ONNX."""
    np.testing.assert_allclose(_logits(engine, PAIRS, batch_tokens), reference, rtol=0, atol=LIMITS[engine.name])


def test_the_longest_pair(architecture: Architecture, torch_engine: TorchEngine, onnx_engine: OnnxEngine) -> None:
    """A pair of as many tokens as the checkpoint takes has the same logits in both engines."""
    words, claim = torch_engine.tokenize([" ".join(TEXTS), CLAIM])
    room = architecture.max_length - torch_engine.special - len(claim)
    premise = replace(words, ids=words.ids[:room], spans=words.spans[:room])
    assert len(premise) + len(claim) + torch_engine.special == architecture.max_length
    pairs = [(premise, claim), (claim, claim)]
    np.testing.assert_allclose(onnx_engine.logits(pairs), torch_engine.logits(pairs), rtol=0, atol=1e-3)


def test_special_tokens_in_a_text_are_text(folder: Path, torch_engine: TorchEngine) -> None:
    """No text has a special token, whatever it says, so that each pair has as many as any other."""
    special = _special(folder) - {3}  # signs that the vocabulary has not are unknown
    for mark in MARKS:
        for tokens in torch_engine.tokenize([mark, f"The word {mark} is text", f"a{mark}b"]):
            assert special.isdisjoint(tokens.ids), tokens.text


@pytest.mark.usefixtures("architecture")
def test_marks_do_not_move_the_end(engine: Engine) -> None:
    """A premise with the end mark in it is scored in a batch as it is alone."""
    pairs = [("The word </s> ends a text.", "[SEP] and </s> are marks."), (TEXTS[0], CLAIM)]
    np.testing.assert_allclose(_logits(engine, pairs), _logits(engine, pairs, 1), rtol=0, atol=LIMITS[engine.name])


def test_marks_are_text_as_transformers_reads_text(byte_pairs: Path) -> None:
    """Byte pairs of a text with marks in it are those of transformers where it is told to split special tokens."""
    reference = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(byte_pairs, split_special_tokens=True)
    tokenizer, _ = read_tokenizer(byte_pairs, {})
    for mark in MARKS:
        text = f"The word {mark} is text"
        own, expected = tokenizer.encode(text, add_special_tokens=False), reference(text, add_special_tokens=False)
        assert own.ids == expected["input_ids"]


# Verbs


def test_predict(engine: Engine, reference: FloatArray) -> None:
    """Probabilities are the softmax of transformers' logits, in the order entailment, neutral, contradiction."""
    raised = np.exp(reference - reference.max(axis=1, keepdims=True))
    p = raised / raised.sum(axis=1, keepdims=True)
    found = NLIReranker(engine).predict(PAIRS)
    for own, column in zip(found.T, engine.labels.columns, strict=True):
        expected = np.full(len(PAIRS), np.nan) if column is None else p[:, column]
        np.testing.assert_allclose(own, expected, atol=LIMITS[engine.name])


def test_rank_and_filter(engine: Engine, reference: FloatArray) -> None:
    """Passages are ranked by P(entailment) of transformers' logits, and the filter keeps those from a threshold on."""
    columns = list(engine.labels.columns)
    raised = np.exp(reference - reference.max(axis=1, keepdims=True))
    p = (raised / raised.sum(axis=1, keepdims=True))[-5:, columns[0]]
    passages = [premise for premise, _ in PAIRS[-5:]]
    reranker = NLIReranker(engine, template=None)
    ranking = reranker.rank(CLAIM, passages)
    assert [found.score for found in ranking] == pytest.approx(sorted(p, reverse=True), abs=1e-3)
    assert [p[found.index] for found in ranking] == pytest.approx(sorted(p, reverse=True), abs=1e-3)
    threshold = float(np.sort(p)[1:3].mean())
    filtered = reranker.filter(CLAIM, passages, threshold=threshold)
    assert sorted(found.index for found in filtered.kept) == np.flatnonzero(p > threshold).tolist()
    assert sorted(found.index for found in filtered.dropped) == np.flatnonzero(p < threshold).tolist()


def test_two_labels_have_no_contradiction(architecture: Architecture, torch_engine: TorchEngine) -> None:
    """What needs P(contradiction) works with three labels, and with two it is refused."""
    reranker = NLIReranker(torch_engine)
    passages = [premise for premise, _ in PAIRS[8:12]]
    if len(architecture.names) == 3:
        assert reranker.filter(CLAIM, passages, threshold=0.0, keep="contradiction").kept
        assert reranker.verify(CLAIM, passages).label in ("supported", "refuted", "insufficient")
        return
    for refused in (
        lambda: reranker.filter(CLAIM, passages, keep="contradiction"),
        lambda: NLIReranker(torch_engine, score="margin"),
        lambda: NLIReranker(torch_engine, score="entailment_vs_contradiction"),
    ):
        with pytest.raises(LabelError, match="two labels"):
            refused()


# Tokenizers


def test_pieces_are_those_of_sentencepiece(architecture: Architecture, folder: Path, torch_engine: TorchEngine) -> None:
    """A text is cut as SentencePiece itself cuts it, with signs that it takes for others among them."""
    models = list(folder.glob("*.model"))
    if not models:
        pytest.skip("no SentencePiece model among the files")
    pieces = pytest.importorskip("sentencepiece").SentencePieceProcessor(str(models[0]))
    shift = 1 if architecture.config["model_type"] == "xlm-roberta" else 0  # fairseq has one more before them
    for text in [*COMPATIBLE, *TEXTS[:20]]:
        assert torch_engine.tokenize([text])[0].ids.tolist() == [piece + shift for piece in pieces.encode(text)]


def test_a_damaged_sentencepiece_model(sentence_pieces: Path, tmp_path: Path) -> None:
    """A SentencePiece model that cannot be read is an error that names it."""
    spoiled = shutil.copytree(sentence_pieces, tmp_path / "spoiled")
    (spoiled / "spm.model").write_bytes(b"no model")
    with pytest.raises(DamagedModelError, match=r"spm\.model cannot be read as a SentencePiece model"):
        TorchEngine(spoiled, device="cpu")


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_a_damaged_vocabulary(byte_pairs: Path, tmp_path: Path, name: str) -> None:
    """A vocabulary that is git-lfs' note of where it is, is an error of one line that names the folder."""
    spoiled = shutil.copytree(byte_pairs, tmp_path / "spoiled")
    (spoiled / name).write_text("version https://git-lfs.github.com/spec/v1\nsize 12345\n", encoding="utf-8")
    with pytest.raises(ModelNotFoundError, match=r"spoiled holds no tokenizer that can be read \(") as caught:
        TorchEngine(spoiled, device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "tokenizer_config.json"])
def test_the_cache_follows_the_tokenizer(byte_pairs: Path, tmp_path: Path, name: str) -> None:
    """What the cache holds of a folder is made anew when a file of its tokenizer changes, and only then."""
    folder = shutil.copytree(byte_pairs, tmp_path / "changed")
    first = cached(folder, [], None, "made", Path.touch)
    assert cached(folder, [], None, "made", Path.touch) == first
    with (folder / name).open("a", encoding="utf-8") as file:
        file.write("\n")
    assert cached(folder, [], None, "made", Path.touch) != first


def test_deberta_reads_one_mark_between_texts(byte_pairs: Path, tmp_path: Path) -> None:
    """The first DeBERTa's vocabulary is read as it was trained with, one [SEP] between premise and hypothesis."""
    tokenizers = pytest.importorskip("tokenizers")
    folder = shutil.copytree(byte_pairs, tmp_path / "deberta")
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    marks = {"<s>": "[CLS]", "</s>": "[SEP]", "<pad>": "[PAD]", "<unk>": "[UNK]", "<mask>": "[MASK]"}
    named = {marks.get(token, token): number for token, number in vocabulary.items()}
    (folder / "vocab.json").write_text(json.dumps(named), encoding="utf-8")
    (folder / "config.json").write_text('{"model_type": "deberta"}', encoding="utf-8")
    (folder / "tokenizer_config.json").write_text("{}", encoding="utf-8")
    convert_tokenizer(folder, tmp_path / "tokenizer.json")
    read = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("a", "b")
    assert [token for token in read.tokens if token.startswith("[")] == ["[CLS]", "[SEP]", "[SEP]"]
    assert read.tokens[-1] == "[SEP]"
    assert read.type_ids == [0] * (read.tokens.index("[SEP]") + 1) + [1] * (
        len(read.tokens) - read.tokens.index("[SEP]") - 1
    )


def test_sentencepiece_is_asked_for(sentence_pieces: Path, tmp_path: Path) -> None:
    """Without sentencepiece, a folder that has nothing but spm.model says what to install."""
    program = (
        "import sys; sys.modules['sentencepiece'] = None\n"
        "from pathlib import Path; from rerank_nli.checkpoints import convert_tokenizer\n"
        "convert_tokenizer(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    arguments = [sys.executable, "-c", program, str(sentence_pieces), str(tmp_path / "tokenizer.json")]
    finished = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    assert "MissingExtraError: sentencepiece" in finished.stderr
    assert "pip install 'rerank-nli[torch]'" in finished.stderr


def test_reading_a_tokenizer_prints_nothing(
    sentence_pieces: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A tokenizer is converted without a word on the terminal."""
    convert_tokenizer(sentence_pieces, tmp_path / "tokenizer.json")
    assert capfd.readouterr() == ("", "")


# ONNX


def test_large_and_int8_graphs(architecture: Architecture, onnx_engine: OnnxEngine, tmp_path: Path) -> None:
    """Weights over the limit of one file stand beside it with the same logits, and int8 weights are made of them."""
    onnx, ir = pytest.importorskip("onnx"), pytest.importorskip("onnx_ir")
    from rerank_nli.export import _save_graph
    from rerank_nli.quantize import DATA, store_int8

    names, graph = list(architecture.labels or architecture.names), tmp_path / "model.onnx"
    shutil.copy(onnx_engine.folder / "tokenizer.json", tmp_path)
    _save_graph(ir.load(onnx_engine.file), graph, largest=10_000)
    before, exact = onnx.load(str(graph)), batch_logits(onnx_engine, PAIRS)
    whole = (tmp_path / DATA).stat().st_size
    assert whole > 10_000
    np.testing.assert_array_equal(batch_logits(OnnxEngine(graph, names), PAIRS), exact)
    store_int8(tmp_path)
    assert (tmp_path / DATA).stat().st_size < whole / 2
    rows, rounded = (batch_logits(OnnxEngine(tmp_path / n, names), PAIRS) for n in ("model.onnx", "model_int8.onnx"))
    assert np.abs(rows - exact).max() > 1e-3
    _round_weights(onnx, before, onnx.load(str(graph)))
    (tmp_path / DATA).unlink()
    onnx.save(before, str(graph))
    np.testing.assert_allclose(rows, batch_logits(OnnxEngine(graph, names), PAIRS), rtol=0, atol=1e-3)
    assert min(np.corrcoef(rows[:, i], rounded[:, i])[0, 1] for i in range(len(names))) > CORRELATION


def _round_weights(onnx: Any, before: Any, after: Any) -> None:
    """Give an fp32 graph the weights that another stores in int8, as fp32 numbers."""
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in after.graph.initializer}
    by_column = {n.output[0] for n in after.graph.node if n.op_type == "DequantizeLinear" and n.attribute[0].i == 1}
    for tensor in before.graph.initializer:
        if f"{tensor.name}.int8" in stored:
            scale = np.expand_dims(stored[f"{tensor.name}.scale"], 0 if tensor.name in by_column else 1)
            tensor.CopyFrom(onnx.numpy_helper.from_array(stored[f"{tensor.name}.int8"] * scale, tensor.name))
