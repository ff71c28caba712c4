"""Which layers of a model learn, and at what share of the rate."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from rerank_nli.errors import InputError

if TYPE_CHECKING:
    from rerank_nli.recipe import Recipe

__all__ = ["by_layer"]


def by_layer(model: Any, recipe: Recipe) -> list[dict[str, Any]]:  # noqa: ANN401 - torch is optional
    """Parameters that learn, as an optimizer's groups, each with its share of the rate; biases and norms do not decay.

    Those of the layers that stay as they are no longer ask for a gradient.

    Raises:
        InputError: more frozen layers than there are.
    """
    config = model.config
    named = (getattr(config, name, 0) for name in ("decoder_layers", "num_decoder_layers"))  # of BART, of T5
    decoder = max(named) if config.is_encoder_decoder else 0
    depth = config.num_hidden_layers + decoder
    heights = {name: _height(name, depth, decoder) for name, _ in model.named_parameters()}
    told = set(heights.values()) - {0, depth + 1} == set(range(1, depth + 1))
    if recipe.frozen > (depth if told else 0):
        found = f"{depth} layers" if told else "no layers that can be told by their names"
        message = f"frozen={recipe.frozen}, but the base has {found}"
        raise InputError(message)
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        height = heights[name]
        if recipe.frozen and height <= recipe.frozen:
            parameter.requires_grad = False
            continue
        below, matrix = max(0, depth - height), parameter.ndim > 1
        decay = {"weight_decay": recipe.weight_decay if matrix else 0.0, "scale": recipe.layer_decay**below}
        groups.setdefault((below, matrix), {"params": [], **decay})["params"].append(parameter)
    return list(groups.values())


def _height(name: str, depth: int, decoder: int) -> int:
    """The layer of a parameter, from 1; 0 is of embeddings and what all layers share, depth + 1 of the head."""
    number = re.search(r"\b(?:block|layers?)\.(\d+)\.", name)  # in a block of T5, layers have numbers of their own
    if number:
        return int(number[1]) + 1 + (depth - decoder if ".decoder." in name else 0)
    shared = r"embed|shared|relative_attention_bias|deberta\.encoder\.(LayerNorm|conv)\."
    return 0 if re.search(shared, name) else depth + 1
