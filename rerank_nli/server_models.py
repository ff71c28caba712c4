"""The models that a server has, by name; none is ever opened by a request."""

from __future__ import annotations

import threading
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any

from rerank_nli.errors import InputError
from rerank_nli.loading import load, located
from rerank_nli.reranker import NLIReranker
from rerank_nli.shared_engine import SharedEngine

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping

    from rerank_nli.engines import Engine
    from rerank_nli.shared_engine import Merged

__all__ = ["Models", "UnknownModelError", "open_safely"]

_UNSAID = "default/not-specified"  # by a client of Infinity that names no model
_VARIANTS = 32  # rerankers with settings of requests' own that are kept: small, as they share engine and memory


class UnknownModelError(InputError):
    """No model has this name."""


def open_safely(model: str | os.PathLike[str], **options: Any) -> Engine:  # noqa: ANN401 - those of `load`
    """`load`, but weights that could hold a program are refused.

    Raises:
        InputError: what would be opened is a .bin file; and as `load`.
    """
    how = {name: options[name] for name in ("engine", "device", "dtype", "revision") if name in options}
    _, file = located(model, **how)
    if ".bin" in file.name:
        message = (
            f"{file} is a pickle, which the server does not open: give it safetensors, or make a bundle with "
            "`rerank-nli export`"
        )
        raise InputError(message)
    return load(model, **options)


class Models:
    """Rerankers by the name of their model and by their settings, over one shared engine for each model.

    Args:
        engines: by name; the first is the default.
        seen: is told of what is scored together, with the model's name.
        batch_tokens: most tokens of a batch.
        wait_ms: how long a small batch waits for more.
        cache_size: pairs whose logits are remembered, of each model.
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        seen: Callable[[str, Merged], None],
        *,
        batch_tokens: int,
        wait_ms: float,
        cache_size: int,
    ) -> None:
        if not engines:
            message = "a server needs a model: give one at least"
            raise InputError(message)
        self._batch_tokens = batch_tokens
        self._shared = {
            name: SharedEngine(engine, batch_tokens, wait_ms, partial(seen, name)) for name, engine in engines.items()
        }
        self._plain = {
            name: NLIReranker(engine, batch_tokens=batch_tokens, cache_size=cache_size)
            for name, engine in self._shared.items()
        }
        self._variants: OrderedDict[tuple[Any, ...], NLIReranker] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def batch_tokens(self) -> int:
        """Tokens of a batch, with padding."""
        return self._batch_tokens

    @property
    def names(self) -> list[str]:
        """The models' names, the default first."""
        return list(self._plain)

    def name(self, asked: str | None) -> str:
        """The name of the model that a request means.

        Raises:
            UnknownModelError: there is none of that name.
        """
        if asked in (None, _UNSAID):
            return self.names[0]
        if asked not in self._plain:
            message = f"there is no model {asked[:100]!r} here: there is {', '.join(map(repr, self.names))}"
            raise UnknownModelError(message)
        return asked

    def reranker(self, name: str, **settings: Any) -> NLIReranker:  # noqa: ANN401 - those of NLIReranker
        """The reranker of a model with these settings; what is None has its default."""
        given = {key: value for key, value in settings.items() if value is not None}
        if not given:
            return self._plain[name]
        key = (name, *sorted(given.items()))
        with self._lock:
            if key not in self._variants:
                self._variants[key] = self._plain[name].with_settings(batch_tokens=self._batch_tokens, **given)
            self._variants.move_to_end(key)
            while len(self._variants) > _VARIANTS:
                self._variants.popitem(last=False)
            return self._variants[key]

    def counts(self) -> Iterator[tuple[str, int, tuple[int, int]]]:
        """Of each model its name, the calls that wait, and how many pairs it remembered of how many."""
        for name, engine in self._shared.items():
            yield name, engine.waiting, self._plain[name].remembered

    def close(self) -> None:
        """End the scoring threads."""
        for engine in self._shared.values():
            engine.close()
