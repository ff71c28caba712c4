"""DeBERTa's disentangled attention (He et al. 2021, equation 4) without gathers: the same numbers, sooner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rerank_nli.errors import require

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["skew_attention"]


def skew_attention(model: Any, *, keep: bool) -> Any:  # noqa: ANN401 - torch is optional
    """Give a DeBERTa-v2 or -v3 of transformers another attention, in place; leave any other model as it is.

    What position adds to the score of tokens i and j hangs on i - j and on one of the two tokens. With the vectors of
    positions laid out by distance, both terms are products with the 2S - 1 of them that S tokens have, read with each
    row shifted by one more than the last; their sum is the bias of ordinary attention.

    Args:
        model: in the dtype and on the device that it will run with.
        keep: compute the position vectors now, for good; else anew in each pass, where a runtime that reads the graph
            finds that they are constants, and the file need not hold them.

    Returns:
        The model.
    """
    torch = require("torch", "torch")
    config = model.config
    if config.model_type != "deberta-v2" or not getattr(config, "relative_attention", False):
        return model
    encoder = model.base_model.encoder

    class SkewedAttention(torch.nn.Module):  # type: ignore[misc, name-defined]
        """The attention of one layer, called as transformers' own."""

        def __init__(self, own: Any, rows: Tensor) -> None:  # noqa: ANN401
            super().__init__()
            self.own, self.heads, self.rows = own, own.num_attention_heads, rows
            terms = 1 + sum(term in own.pos_att_type for term in ("c2p", "p2c"))
            self.scale = float((own.attention_head_size * terms) ** -0.5)
            self.kept = self._positions(encoder.get_rel_embedding()) if keep else None

        def _positions(self, embeddings: Tensor) -> list[Tensor | None]:
            """Keys by distance, the largest first, and queries, the smallest first: (heads, d, 2L - 1), or None."""
            own, shared, vectors = self.own, self.own.share_att_key, []
            for term, rows in (("c2p", self.rows), ("p2c", self.rows.flip(0))):
                if term in own.pos_att_type:
                    side = "key" if term == "c2p" else "query"
                    project = getattr(own, f"{side}_proj" if shared else f"pos_{side}_proj")
                    vectors.append(project(embeddings)[rows].unflatten(-1, (self.heads, -1)).permute(1, 2, 0))
                else:
                    vectors.append(None)
            return vectors

        def forward(
            self, hidden_states: Tensor, attention_mask: Tensor, *_: object, rel_embeddings: Tensor, **__: object
        ) -> tuple[Tensor, None]:
            own, tokens = self.own, hidden_states.shape[1]
            q, k, v = (
                project(hidden_states).unflatten(-1, (self.heads, -1)).transpose(1, 2)
                for project in (own.query_proj, own.key_proj, own.value_proj)
            )  # (m, heads, S, d)
            near = slice(len(self.rows) // 2 + 1 - tokens, len(self.rows) // 2 + tokens)  # distances among S tokens
            keys, queries = self.kept or self._positions(rel_embeddings)
            # The first token is never padding, so its row of the mask tells which tokens are none.
            bias = torch.zeros((), dtype=q.dtype, device=q.device)
            bias = bias.masked_fill(~attention_mask[:, :, :1].bool(), torch.finfo(q.dtype).min)  # (m, 1, 1, S)
            if keys is not None:
                bias = bias + _skewed((q * self.scale) @ keys[..., near])
            if queries is not None:
                bias = bias + _skewed((k * self.scale) @ queries[..., near]).transpose(-1, -2)
            mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=self.scale)
            return mixed.transpose(1, 2).flatten(2), None

    with torch.inference_mode():
        rows = _rows(torch, encoder, config.max_position_embeddings)
        for layer in encoder.layer:
            layer.attention.self = SkewedAttention(layer.attention.self, rows)
    encoder.get_rel_pos = lambda *_: None  # nobody asks for it any more
    return model


def _rows(torch: Any, encoder: Any, longest: int) -> Tensor:  # noqa: ANN401
    """(2L - 1,) the row in the table of positions of each distance, from L - 1 down to 1 - L."""
    table = encoder.rel_embeddings.weight
    buckets = encoder.get_rel_pos(torch.empty((1, longest, 1), device=table.device))[0]  # (L, L), of i - j
    by_distance = torch.cat([buckets[:, 0].flip(0), buckets[0, 1:]])
    rows: Tensor = (by_distance + len(table) // 2).clamp(0, len(table) - 1)
    return rows


def _skewed(by_distance: Tensor) -> Tensor:
    """(…, S, 2S - 1) → (…, S, S): of row i what stands from S - 1 - i on.

    Read as one line, without its first S - 1 numbers and in rows of 2S - 2, each row begins where it should.
    """
    tokens = by_distance.shape[-2]
    line = by_distance.flatten(-2)[..., tokens - 1 : -1]
    return line.unflatten(-1, (tokens, 2 * tokens - 2))[..., :tokens]
