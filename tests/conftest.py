"""What all tests share: no network, no file outside pytest's own folders, and two real models."""

from __future__ import annotations

import gc
import os
import tempfile
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from texts import CARD

from rerank_nli import NLIReranker, OnnxEngine, load
from rerank_nli.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def pytest_configure(config: pytest.Config) -> None:
    """Point every cache at a folder that goes away, before huggingface_hub reads its settings."""
    hypothesis.settings.register_profile("tests", deadline=None)  # other work on the machine is no failure
    hypothesis.settings.load_profile("tests")
    scratch = tempfile.TemporaryDirectory(prefix="rerank-nli-tests-")
    config.add_cleanup(scratch.cleanup)
    os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE"  # "auto" means the same on every machine
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_CACHE"] = os.path.join(scratch.name, "hub")  # noqa: PTH118
    os.environ["RERANK_NLI_CACHE"] = os.path.join(scratch.name, "own")  # noqa: PTH118


@pytest.fixture(scope="session")
def bundled() -> NLIReranker:
    """The bundled model with the default settings."""
    return NLIReranker()


@pytest.fixture(scope="module")
def untidy_clients() -> Iterator[None]:
    """For clients that leave sockets open: those are collected before another module's tests would be blamed."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a Hugging Face folder of an architecture, with random weights and further settings of its config."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")

    def make(architecture: str, **settings: Any) -> Path:
        folder = tmp_path_factory.mktemp(architecture.lower())
        kind = "roberta" if architecture.startswith("Roberta") else "bert"
        tokenizer = _byte_pairs() if kind == "roberta" else _word_pieces()
        tokenizer.save(str(folder / "tokenizer.json"))
        own = {"max_position_embeddings": 514, "type_vocab_size": 1} if kind == "roberta" else {}
        config = transformers.AutoConfig.for_model(
            kind,
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            # a wide range, so that different texts get different logits
            **{"initializer_range": 0.3, "max_position_embeddings": 128, **own, **settings},
        )
        torch.manual_seed(0)
        getattr(transformers, architecture)(config).save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def checkpoint(make_checkpoint: Callable[..., Path]) -> Path:
    """A BERT of two layers and 128 positions with the outputs contradiction, entailment, neutral."""
    names = ("contradiction", "entailment", "neutral")
    return make_checkpoint("BertForSequenceClassification", id2label=dict(enumerate(names)))


@pytest.fixture(scope="session")
def exported(checkpoint: Path) -> OnnxEngine:
    """The checkpoint as an fp32 ONNX bundle, which `load` makes in the cache."""
    pytest.importorskip("onnxscript")
    engine = load(checkpoint, engine="onnx")
    assert isinstance(engine, OnnxEngine)
    return engine


@pytest.fixture(scope="session")
def int8(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint as an int8 bundle with a card."""
    pytest.importorskip("onnxscript")
    from rerank_nli.export import export

    out = tmp_path_factory.mktemp("bundles") / "below" / "int8"
    assert export(checkpoint, out, card=CARD) == Manifest.read(out)
    return out


@pytest.fixture(scope="session")
def graph(exported: OnnxEngine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint as others publish it in fp32: a file of ONNX with the weights in it."""
    onnx = pytest.importorskip("onnx")
    file = tmp_path_factory.mktemp("graph") / "model.onnx"
    onnx.save(onnx.load(str(exported.file)), str(file))
    return file


@pytest.fixture(scope="session")
def dynamic(graph: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint as others publish it in int8: activations rounded with one scale for a whole batch."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    model = pytest.importorskip("onnx").load(str(graph))
    del model.graph.value_info[:]  # the quantizer turns matrices around and leaves their shapes here as they were
    file = tmp_path_factory.mktemp("dynamic") / "graph.onnx"
    quantization.quantize_dynamic(model, file, weight_type=quantization.QuantType.QUInt8)
    return file


_CORPUS = (
    "The quick brown fox jumps over a lazy dog. A cat sleeps on the mat, and nobody sees it! Does it rain? No: sun."
)


def _word_pieces() -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator([_CORPUS], trainers.WordPieceTrainer(special_tokens=special, show_progress=False))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def _byte_pairs() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        special_tokens=["<s>", "<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        vocab_size=300,
        show_progress=False,
    )
    tokenizer.train_from_iterator([_CORPUS], trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer
