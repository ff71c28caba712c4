"""The five checkpoints that users bring, with random weights: published configuration, tokenizer files and labels."""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["ARCHITECTURES", "Architecture", "build"]

_THREE = ("contradiction", "entailment", "neutral")
_XNLI = ("contradiction", "neutral", "entailment")
_DEBERTA = {
    "architectures": ["DebertaV2ForSequenceClassification"],
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-07,
    "max_position_embeddings": 512,
    "max_relative_positions": -1,
    "model_type": "deberta-v2",
    "norm_rel_ebd": "layer_norm",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 0,
    "pooler_dropout": 0,
    "pooler_hidden_act": "gelu",
    "pooler_hidden_size": 768,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "position_buckets": 256,
    "relative_attention": True,
    "share_att_key": True,
    "type_vocab_size": 0,
    "vocab_size": 128100,
}
_XLM_ROBERTA = {
    "architectures": ["XLMRobertaForSequenceClassification"],
    "attention_probs_dropout_prob": 0.1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 1024,
    "initializer_range": 0.02,
    "intermediate_size": 4096,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 514,
    "model_type": "xlm-roberta",
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "pad_token_id": 1,
    "type_vocab_size": 1,
    "vocab_size": 250002,
}
_BART = {
    "activation_dropout": 0.0,
    "activation_function": "gelu",
    "architectures": ["BartForSequenceClassification"],
    "attention_dropout": 0.1,
    "bos_token_id": 0,
    "classifier_dropout": 0.0,
    "d_model": 1024,
    "decoder_attention_heads": 16,
    "decoder_ffn_dim": 4096,
    "decoder_layerdrop": 0.0,
    "decoder_layers": 3,
    "dropout": 0.1,
    "encoder_attention_heads": 16,
    "encoder_ffn_dim": 4096,
    "encoder_layerdrop": 0.0,
    "encoder_layers": 12,
    "eos_token_id": 2,
    "init_std": 0.02,
    "is_encoder_decoder": True,
    "max_position_embeddings": 1024,
    "model_type": "bart",
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "scale_embedding": False,
    "vocab_size": 50265,
}
_ENCODER = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "num_hidden_layers": 2}
_SMALL = {
    "deberta-v2": {**_ENCODER, "pooler_hidden_size": 64},
    "xlm-roberta": _ENCODER,
    "bart": {
        "d_model": 64,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "num_hidden_layers": 2,
        **{f"{side}_attention_heads": 2 for side in ("encoder", "decoder")},
        **{f"{side}_ffn_dim": 128 for side in ("encoder", "decoder")},
    },
}
_GAIN = 2.4  # standard deviation of random weights times √width: so large that different pairs get different logits
_MARKS = {
    "deberta-v2": {"bos": "[CLS]", "eos": "[SEP]", "unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]"},
    "xlm-roberta": {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "sep": "</s>", "pad": "<pad>", "cls": "<s>"},
}
_MARKS["bart"] = _MARKS["xlm-roberta"]


@dataclass(frozen=True, slots=True)
class Architecture:
    """A checkpoint: what its config.json says, and which files it has.

    Attributes:
        name: its Hub id, or what it was made of.
        config: its config.json, without the names of its outputs.
        names: of its outputs, as id2label has them.
        files: of its tokenizer and weights.
        labels: to pass where `names` say nothing.
        max_length: most tokens of a pair.
    """

    name: str
    config: Mapping[str, Any]
    names: tuple[str, ...]
    files: tuple[str, ...]
    labels: tuple[str, ...] | None = field(default=None, kw_only=True)
    max_length: int = field(default=512, kw_only=True)

    @property
    def short(self) -> str:
        """The name without its owner."""
        return self.name.rpartition("/")[2]


ARCHITECTURES = (
    Architecture(
        "cross-encoder/nli-deberta-v3-small",
        {**_DEBERTA, "num_hidden_layers": 6},
        _THREE,
        ("spm.model", "model.safetensors"),
    ),
    Architecture(
        "fine-tuned nli-deberta-v3-base",
        _DEBERTA,
        ("LABEL_0", "LABEL_1"),
        ("tokenizer.json", "model.safetensors"),
        labels=("not_entailment", "entailment"),
    ),
    Architecture(
        "MoritzLaurer/deberta-v3-xsmall-zeroshot-v1.1-all-33",
        {
            **_DEBERTA,
            "hidden_size": 384,
            "intermediate_size": 1536,
            "num_attention_heads": 6,
            "pooler_hidden_size": 384,
        },
        ("entailment", "not_entailment"),
        ("spm.model", "tokenizer.json", "model.safetensors"),
    ),
    Architecture(
        "joeddav/xlm-roberta-large-xnli",
        _XLM_ROBERTA,
        _XNLI,
        ("sentencepiece.bpe.model", "model.safetensors"),
    ),
    Architecture(
        "valhalla/distilbart-mnli-12-3",
        _BART,
        _XNLI,
        ("vocab.json", "merges.txt", "pytorch_model.bin"),
        max_length=1024,
    ),
)


def build(
    architecture: Architecture,
    folder: Path,
    texts: Iterable[str],
    *,
    small: bool = True,
    vocab_size: int = 400,
    spm: Path | None = None,
) -> None:
    """Write a checkpoint's folder, with the files that it has on the Hub.

    Args:
        architecture: one of the five.
        folder: an empty folder.
        texts: what its tokenizer is trained on.
        small: two narrow layers over the tokenizer's own vocabulary, instead of the true shape.
        vocab_size: pieces of that tokenizer.
        spm: a SentencePiece model to take instead, for DeBERTa.
    """
    import torch
    import transformers

    kind = architecture.config["model_type"]
    pieces = _write_tokenizer(architecture, folder, texts, vocab_size, spm)
    config = {**architecture.config, **({**_SMALL[kind], "vocab_size": pieces} if small else {})}
    config["id2label"] = {str(i): name for i, name in enumerate(architecture.names)}
    config["label2id"] = {name: i for i, name in enumerate(architecture.names)}
    width = config["d_model" if kind == "bart" else "hidden_size"]
    spread = {"init_std" if kind == "bart" else "initializer_range": _GAIN / math.sqrt(width)}
    torch.manual_seed(0)
    random = transformers.AutoConfig.for_model(**{**config, **spread})
    model = transformers.AutoModelForSequenceClassification.from_config(random, dtype=torch.float32)
    if "pytorch_model.bin" in architecture.files:
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    else:
        model.save_pretrained(folder)
    _write_json(folder / "config.json", config)
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(architecture))


def _tokenizer_config(architecture: Architecture) -> dict[str, Any]:
    kind = architecture.config["model_type"]
    marks = {f"{name}_token": mark for name, mark in _MARKS[kind].items()}
    marks["mask_token"] = "[MASK]" if kind == "deberta-v2" else "<mask>"
    own: dict[str, dict[str, Any]] = {
        "deberta-v2": {"do_lower_case": False, "split_by_punct": False, "tokenizer_class": "DebertaV2Tokenizer"},
        "xlm-roberta": {"tokenizer_class": "XLMRobertaTokenizer"},
        "bart": {"tokenizer_class": "BartTokenizer"},
    }
    return {**marks, **own[kind], "model_max_length": architecture.max_length}


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def _write_tokenizer(
    architecture: Architecture, folder: Path, texts: Iterable[str], vocab_size: int, spm: Path | None
) -> int:
    """The tokenizer's files; how many ids it has."""
    kind = architecture.config["model_type"]
    if kind == "bart":
        return _write_byte_pairs(folder, texts, vocab_size)
    model = _sentence_pieces(texts, vocab_size, kind) if spm is None or kind != "deberta-v2" else spm.read_bytes()
    path = folder / ("spm.model" if kind == "deberta-v2" else "sentencepiece.bpe.model")
    path.write_bytes(model)
    import sentencepiece

    pieces = int(sentencepiece.SentencePieceProcessor(model_proto=model).get_piece_size())
    if kind == "xlm-roberta":
        return pieces + 2  # fairseq has one more before them, and the mask after them
    _write_json(folder / "added_tokens.json", {"[MASK]": pieces})
    _write_json(folder / "config.json", {"model_type": kind})
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(architecture))
    if "tokenizer.json" in architecture.files:
        _write_fast(folder, model)
    if "spm.model" not in architecture.files:
        path.unlink()
    return pieces + 1


def _sentence_pieces(texts: Iterable[str], vocab_size: int, kind: str) -> bytes:
    """A small SentencePiece model, its first pieces as those of the kind."""
    import sentencepiece

    written = io.BytesIO()
    marks = _MARKS[kind]
    first: dict[str, Any] = {f"{name}_piece": marks[name] for name in ("pad", "bos", "eos", "unk")}
    ids: dict[str, Any] = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3} if kind == "deberta-v2" else {}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=written,
        model_type="unigram",
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        character_coverage=1.0,
        byte_fallback=kind == "deberta-v2",
        minloglevel=2,
        **first,
        **ids,
    )
    return written.getvalue()


def _write_fast(folder: Path, model: bytes) -> None:
    """tokenizer.json as transformers 4 wrote it: with SentencePiece's own table of characters."""
    import transformers
    from sentencepiece import sentencepiece_model_pb2
    from tokenizers import Regex, normalizers

    proto: Any = sentencepiece_model_pb2
    table = proto.ModelProto.FromString(model).normalizer_spec.precompiled_charsmap
    fast = transformers.AutoTokenizer.from_pretrained(folder).backend_tokenizer
    fast.normalizer = normalizers.Sequence(
        [normalizers.Strip(), normalizers.Precompiled(table), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    fast.save(str(folder / "tokenizer.json"))


def _write_byte_pairs(folder: Path, texts: Iterable[str], vocab_size: int) -> int:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        vocab_size=vocab_size,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.model.save(str(folder))
    return int(tokenizer.get_vocab_size())
