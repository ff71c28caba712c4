"""Bi-encoders by name: texts as unit vectors, whose inner products are cosines."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rerank_nli.checkpoints import readable
from rerank_nli.errors import DamagedModelError, InputTypeError, ModelNotFoundError, require
from rerank_nli.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Callable

    from rerank_nli.scores import FloatArray

__all__ = ["encoder", "unit_vectors"]

_STATIC = Path(__file__).parent / "mini" / "retriever"


def encoder(name: str = "static") -> Callable[[list[str]], FloatArray]:
    """What turns n texts into (n, d) unit vectors.

    Args:
        name: "static" is the bundled one (needs the `demo` extra); else any model that sentence-transformers can load.

    Raises:
        MissingExtraError: model2vec or sentence-transformers is not installed.
        DamagedModelError: a file of the bundled model is not the one that was made.
        ModelNotFoundError: no such model.
    """
    return partial(unit_vectors, _static() if name == "static" else _sentence_transformer(name))


def unit_vectors(encode: Callable[[list[str]], Any], texts: list[str]) -> FloatArray:
    """What `encode` makes of n texts, as float32 (n, d) of length 1; zeros stay zeros.

    Raises:
        InputTypeError: it does not return n vectors of finite numbers.
    """
    returned = encode([readable(text) for text in texts])
    try:
        vectors = np.asarray(returned, dtype=np.float32)
    except (TypeError, ValueError) as error:
        message = f"the encoder returned no array of numbers for {len(texts)} texts ({error})"
        raise InputTypeError(message) from error
    if vectors.ndim != 2 or len(vectors) != len(texts):  # noqa: PLR2004
        message = f"the encoder returned shape {vectors.shape} for {len(texts)} texts: expected ({len(texts)}, d)"
        raise InputTypeError(message)
    if not np.isfinite(vectors).all():
        message = f"the encoder returned numbers that are not finite for {len(texts)} texts"
        raise InputTypeError(message)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _static() -> Callable[[list[str]], Any]:
    model2vec = require("model2vec", "demo")
    try:
        if Manifest.read(_STATIC) is None:
            raise FileNotFoundError(_STATIC)
        static = model2vec.StaticModel.from_pretrained(str(_STATIC))
    except (OSError, ValueError) as error:
        message = f"the bundled retriever cannot be read ({error}): install rerank-nli again"
        raise DamagedModelError(message) from error
    # No text is cut, and no other process is started.
    return partial(static.encode, max_length=None, use_multiprocessing=False)


def _sentence_transformer(name: str) -> Callable[[list[str]], Any]:
    sentence_transformers = require("sentence_transformers", "torch")
    try:
        return partial(sentence_transformers.SentenceTransformer(name).encode, show_progress_bar=False)
    except Exception as error:
        first_line = str(error).partition("\n")[0]
        message = f"{name!r} cannot be loaded as a bi-encoder ({first_line}): use 'static', a folder or a Hub id"
        raise ModelNotFoundError(message) from error
