"""Skewed attention gives what transformers' disentangled attention gives, at every length, shape and kind of head."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from rerank_nli.deberta import skew_attention

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LIMIT = 1e-4
V3 = {
    "vocab_size": 64,
    "num_hidden_layers": 2,
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
}
XSMALL = {"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 6, "pooler_hidden_size": 384}
SMALL = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "pooler_hidden_size": 768}
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "pooler_hidden_size": 64}


def _model(**settings: Any) -> Any:
    torch.manual_seed(0)
    width = settings["hidden_size"]
    config = transformers.DebertaV2Config(**{**V3, "initializer_range": 2.4 * width**-0.5, **settings})
    return transformers.DebertaV2ForSequenceClassification(config).eval()


def _batch(tokens: int) -> dict[str, Any]:
    """Three texts of so many tokens, a half and one less."""
    generator = torch.Generator().manual_seed(tokens)
    ids = torch.randint(1, V3["vocab_size"], (3, tokens), generator=generator)
    mask = torch.arange(tokens) < torch.tensor([[tokens], [tokens // 2 + 1], [tokens - 1]])
    return {"input_ids": ids * mask, "attention_mask": mask.long()}


def _farthest(model: Any, skewed: Any, tokens: int) -> float:
    with torch.inference_mode():
        ours, theirs = (some(**_batch(tokens)).logits for some in (skewed, model))
    assert theirs.std() > 0.1  # else equal logits would show little
    return float((ours - theirs).abs().max())


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize(("shape", "labels"), [(XSMALL, 3), (XSMALL, 2), (SMALL, 3), (SMALL, 2)])
def test_logits_of_true_widths(shape: dict[str, Any], labels: int, *, keep: bool) -> None:
    """At the widths of xsmall, small and base, from 8 tokens to 512, logits are those of transformers."""
    model = _model(**shape, num_labels=labels)
    skewed = skew_attention(copy.deepcopy(model), keep=keep)
    assert max(_farthest(model, skewed, tokens) for tokens in (8, 31, 64, 128, 512)) < LIMIT


@pytest.mark.parametrize(
    "settings",
    [
        {"pos_att_type": ["c2p"]},
        {"pos_att_type": ["p2c"]},
        {"pos_att_type": []},
        {"share_att_key": False},
        {"position_buckets": -1, "max_relative_positions": 24},
        {"norm_rel_ebd": "none"},
        {"conv_kernel_size": 3, "conv_act": "gelu"},
    ],
    ids=str,
)
def test_logits_of_other_settings(settings: dict[str, Any]) -> None:
    """One term or none, keys of their own, no buckets and distances beyond the table: DeBERTa-v2 has them all."""
    model = _model(**TINY, **settings)
    skewed = skew_attention(copy.deepcopy(model), keep=True)
    assert max(_farthest(model, skewed, tokens) for tokens in (2, 9, 40, 300)) < LIMIT


def test_half_precision() -> None:
    """In bfloat16 the logits stay as near to fp32 as transformers' own do."""
    model = _model(**TINY)
    half = copy.deepcopy(model).bfloat16()
    skewed = skew_attention(copy.deepcopy(half), keep=True)
    with torch.inference_mode():
        batch = _batch(40)
        exact = model(**batch).logits
        theirs, ours = ((some(**batch).logits.float() - exact).abs().max() for some in (half, skewed))
    assert ours < 2 * theirs + 1e-3


def test_other_models_stay() -> None:
    """A model that is no DeBERTa-v2, or has no relative attention, is left as it is."""
    bert = transformers.BertForSequenceClassification(
        transformers.BertConfig(vocab_size=64, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    )
    absolute = _model(**TINY, relative_attention=False)
    for model in (bert, absolute):
        modules = [type(module) for module in model.modules()]
        assert skew_attention(model, keep=True) is model
        assert [type(module) for module in model.modules()] == modules
