"""What training starts from: a head of other labels knows entailment as the head did that it was made from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from rerank_nli import DamagedModelError, InputError, LabelError
from rerank_nli.checkpoints import read_classifier
from rerank_nli.heads import open_base
from rerank_nli.labels import Labels
from rerank_nli.scores import probabilities

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

THREE = ("contradiction", "entailment", "neutral")
TWO = ("not_entailment", "entailment")
WIDE: dict[str, Any] = {"initializer_range": 0.5, "init_std": 0.5}  # so that different texts get different logits
ENCODER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
BART = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
BART |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "bert": ENCODER,
    "roberta": {**ENCODER, "type_vocab_size": 1},
    "xlm-roberta": {**ENCODER, "type_vocab_size": 1},
    "deberta-v2": {**ENCODER, "pooler_hidden_size": 16, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "bart": BART,
    "distilbert": {"dim": 16, "hidden_dim": 32, "n_layers": 2, "n_heads": 2},
}
# what training must stand: also those whose bodies name their parts otherwise
TRAINED = {**ARCHITECTURES, "albert": {**ENCODER, "embedding_size": 8}, "mpnet": ENCODER, "electra": ENCODER}


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a classifier's folder of an architecture, with random weights and the outputs named."""

    def made(names: tuple[str, ...] = THREE, kind: str = "bert") -> Path:
        folder = tmp_path_factory.mktemp(kind)
        named = {"id2label": dict(enumerate(names)), "label2id": {name: n for n, name in enumerate(names)}}
        config = transformers.AutoConfig.for_model(kind, vocab_size=50, **TRAINED[kind], **WIDE, **named)
        torch.manual_seed(0)
        model = transformers.AutoModelForSequenceClassification.from_config(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("bias") and len(parameter) == len(names):
                    parameter.copy_(torch.arange(len(names)) / 4)  # a new head's are all 0, and would hide a mistake
        model.save_pretrained(folder)
        return folder

    return made


def _logits(model: Any) -> Any:
    """(40, C) for pairs that end as BART wants it."""
    ids = torch.randint(5, 50, (40, 8), generator=torch.Generator().manual_seed(1))
    ids[:, -1] = 2
    with torch.no_grad():
        return model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.numpy()


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_two_labels_from_three(make: Callable[..., Path], kind: str) -> None:
    """Entailment keeps its row, not_entailment gets the mean of the others plus ln 2, wherever the head is."""
    base = make(kind=kind)
    contradiction, entailment, neutral = _logits(read_classifier(base, "fp32", "train")).T
    assert entailment.std() > 0.1
    model, labels = open_base(base, TWO, 0.1)
    assert labels == Labels.of(TWO)
    expected = np.stack([(neutral + contradiction) / 2 + np.log(2), entailment], axis=1)
    np.testing.assert_allclose(_logits(model), expected, atol=1e-5)


@pytest.mark.parametrize("kind", TRAINED)
def test_every_architecture_trains(make: Callable[..., Path], kind: str) -> None:
    """Every layer gets a gradient, each step a new mask, and a model that is not training none."""
    model, _ = open_base(make(kind=kind), None, 0.3)
    ids = torch.full((4, 8), 2)
    ids[:, :-1] = torch.randint(5, 50, (4, 7), generator=torch.Generator().manual_seed(1))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    model.train()
    first, second = (model(**inputs).logits for _ in range(2))
    assert (first - second).abs().max() > 1e-3
    first.sum().backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if ".layer" in n and "rel_embeddings" not in n)
    torch.testing.assert_close(model.eval()(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize("kind", TRAINED)
def test_no_dropout_within_attention(make: Callable[..., Path], kind: str) -> None:
    """Nothing is dropped of the probabilities of attention: at a rate of nearly 1 they still add up to 1."""
    model, _ = open_base(make(kind=kind), None, 0.99)
    ids = torch.full((2, 8), 2)
    out = model.train()(input_ids=ids, attention_mask=torch.ones_like(ids), output_attentions=True)
    found = out.attentions if hasattr(out, "attentions") and out.attentions else out.encoder_attentions
    for attention in found:
        torch.testing.assert_close(attention.sum(dim=-1), torch.ones_like(attention.sum(dim=-1)))


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_three_labels_from_two(make: Callable[..., Path], kind: str) -> None:
    """P(entailment) stays what it was, and what is left is shared by neutral and contradiction alike."""
    base = make(TWO, kind)
    before = probabilities(_logits(read_classifier(base, "fp32", "train")), Labels.of(TWO))
    model, labels = open_base(base, THREE, 0.1)
    after = probabilities(_logits(model), labels)
    np.testing.assert_allclose(after[:, 0], before[:, 0], atol=1e-5)
    np.testing.assert_allclose(after[:, 1], (1 - before[:, 0]) / 2, atol=1e-5)


def test_how_near_two_labels_come_to_three(make: Callable[..., Path], tmp_path: Path) -> None:
    """P(entailment) is never below that of three, as ln(eⁿ + eᶜ) ≥ (n + c)/2 + ln 2, and equal where n = c."""
    base = make()
    three = probabilities(_logits(read_classifier(base, "fp32", "train")), Labels.of(THREE))[:, 0]
    model, labels = open_base(base, TWO, 0.1)
    two = probabilities(_logits(model), labels)[:, 0]
    assert (two >= three - 1e-5).all()
    assert two.max() - two.min() > 0.5
    model.save_pretrained(tmp_path / "two")
    alike, _ = open_base(tmp_path / "two", THREE, 0.1)  # its neutral and contradiction are the same
    alike.save_pretrained(tmp_path / "three")
    again, labels = open_base(tmp_path / "three", TWO, 0.1)
    np.testing.assert_allclose(probabilities(_logits(again), labels)[:, 0], two, atol=1e-5)


@pytest.mark.parametrize(("names", "asked"), [(THREE, ("entailment", "neutral", "contradiction")), (TWO, TWO[::-1])])
def test_outputs_move_by_their_names(make: Callable[..., Path], names: tuple[str, ...], asked: tuple[str, ...]) -> None:
    """The same labels in another order are the same head with its rows in that order."""
    base = make(names)
    before = _logits(read_classifier(base, "fp32", "train"))
    model, _ = open_base(base, asked, 0.1)
    np.testing.assert_allclose(_logits(model), before[:, [names.index(name) for name in asked]], atol=1e-5)


def test_names_that_say_nothing(make: Callable[..., Path]) -> None:
    """As many labels as LABEL_0, LABEL_1 … name a head as it is; without any, or with fewer, nothing can be told."""
    base = make(("LABEL_0", "LABEL_1"))
    before = _logits(read_classifier(base, "fp32", "train"))
    model, labels = open_base(base, TWO, 0.1)
    assert (labels.names, model.config.id2label) == (TWO, {0: "not_entailment", 1: "entailment"})
    np.testing.assert_allclose(_logits(model), before, atol=1e-5)
    with pytest.raises(LabelError, match="cannot tell which output is which"):
        open_base(base, None, 0.1)
    with pytest.raises(LabelError, match=r"'LABEL_1'\].*can start from: write their names into id2label"):
        open_base(base, THREE, 0.1)


@pytest.mark.parametrize(
    ("names", "message"), [(("relevance",), "a head with one output"), (tuple("abcde"), "a head with 5 outputs")]
)
def test_heads_of_other_tasks(make: Callable[..., Path], names: tuple[str, ...], message: str) -> None:
    """A reranker of relevance and a classifier of topics are no bases, whatever labels are asked for."""
    for labels in (None, TWO, THREE):
        with pytest.raises(LabelError, match=message):
            open_base(make(names), labels, 0.1)


def test_labels_that_cannot_be(make: Callable[..., Path], make_checkpoint: Callable[..., Path]) -> None:
    """Labels that no head of NLI has are refused, of a classifier and of an encoder."""
    for base in (make(), make_checkpoint("BertModel")):
        for labels in (("entailment", "neutral"), ("yes", "no")):
            with pytest.raises(LabelError, match="cannot tell which output is which"):
                open_base(base, labels, 0.1)


def test_a_saved_head_reads_back(make: Callable[..., Path], tmp_path: Path) -> None:
    """What is saved is a checkpoint of two labels like any other, and the base's files stay as they were."""
    base = make()
    files = {path: path.read_bytes() for path in base.iterdir()}
    model, _ = open_base(base, TWO, 0.1)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["id2label"] == dict(zip("01", TWO, strict=True))
    np.testing.assert_allclose(_logits(read_classifier(tmp_path, "fp32", "train")), _logits(model), atol=1e-5)
    assert {path: path.read_bytes() for path in base.iterdir()} == files


def test_encoders_that_lack_a_layer(make_checkpoint: Callable[..., Path]) -> None:
    """An encoder without all its weights is refused: random ones would take their place."""
    safetensors = pytest.importorskip("safetensors.torch")
    base = make_checkpoint("BertModel")
    weights = safetensors.load_file(base / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    safetensors.save_file(weights, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(DamagedModelError, match=r"incomplete \(1 missing, as .*encoder.layer.1.output.dense.weight\)"):
        open_base(base, None, 0.1)


def test_damaged_encoders(make_checkpoint: Callable[..., Path]) -> None:
    """An encoder whose weights break off is refused, and the message names its folder."""
    base = make_checkpoint("BertModel")
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match=f"{base} holds no encoder that can be trained"):
        open_base(base, None, 0.1)
