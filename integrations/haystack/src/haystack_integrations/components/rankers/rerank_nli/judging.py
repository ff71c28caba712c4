"""What both components share: settings that are checked at once, and a model that is loaded once, when it is needed."""

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from haystack import Document, default_from_dict, default_to_dict
from haystack.core.errors import SerializationError
from haystack.utils import ComponentDevice

from rerank_nli import Filtered, FunctionEngine, InputError, NLIReranker, RankedPassage, load

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Judging", "judged_meta"]

# What a reranker is made of, so that `reranker=` stands in its place, with the defaults.
_LOADING: dict[str, Any] = {"model": "mini", "device": None, "engine": "auto", "labels": None}
_SCORING: dict[str, Any] = {"direction": "passage_entails_query", "score": "entailment", "normalize": None}


class Judging:
    """Holds the settings and the reranker, and asks it.

    `@component` makes its class anew, so that `super()` would not find this one: hence `_configure` in place of an
    `__init__`.
    """

    def _configure(self, reranker: NLIReranker | None, **settings: Any) -> None:  # noqa: ANN401
        made_of = {**_LOADING, **_SCORING}
        given = [name for name, value in settings.items() if name in made_of and value != made_of[name]]
        if reranker is not None and given:
            message = f"reranker= brings its own model and settings: leave out {', '.join(given)}, or reranker="
            raise InputError(message)
        if settings["device"] is not None:  # a device map, or no ComponentDevice, is refused here, not at load
            ComponentDevice.resolve_device(settings["device"]).to_torch_str()
        self._settings = settings
        self._scoring = {name: settings[name] for name in _SCORING if name in settings}
        self._given = self._reranker = reranker
        self._loading = threading.Lock()
        # No document and an engine that is never asked: names and ranges are checked without a model.
        self._judge(reranker or NLIReranker(FunctionEngine(lambda _: []), **self._scoring), "a query", [], None)

    def warm_up(self) -> None:
        """Load the model, unless that has been done; `run` does it where nobody did."""
        self._loaded()

    async def warm_up_async(self) -> None:
        """`warm_up` in a thread: the event loop goes on."""
        await asyncio.to_thread(self.warm_up)

    def to_dict(self) -> dict[str, Any]:
        """The settings as basic types.

        Raises:
            SerializationError: the component was made with `reranker=`, whose model cannot be named.
        """
        if self._given is not None:
            message = "a component made with reranker= cannot be serialized: give model= and the settings instead"
            raise SerializationError(message)
        return default_to_dict(self, **self._settings)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Self":
        """The component with these settings, its model not yet loaded."""
        return default_from_dict(cls, data)

    def _loaded(self) -> NLIReranker:
        with self._loading:
            if self._reranker is None:
                how = {name: self._settings[name] for name in _LOADING}
                how["device"] = "auto" if how["device"] is None else how["device"].to_torch_str()
                self._reranker = NLIReranker(load(**how), **self._scoring)
            return self._reranker

    def _judge(self, reranker: NLIReranker, query: str, documents: list[Document], top_k: int | None) -> Filtered:
        settings, fusion = self._settings, {}
        retrieval_scores = [document.score for document in documents]
        if settings.get("fuse") is not None and None not in retrieval_scores:
            fusion = {name: settings[name] for name in ("fuse", "alpha") if settings[name] is not None}
            fusion["retrieval_scores"] = retrieval_scores
        return reranker.filter(
            query,
            [document.content or "" for document in documents],  # an image's document has none
            settings["threshold"],
            settings["keep"],
            settings["top_k"] if top_k is None else top_k,
            **fusion,
        )


def judged_meta(document: Document, passage: RankedPassage) -> dict[str, Any]:
    """A copy of the document's meta, with the probabilities and the span that decided."""
    row = passage.to_dict()
    return document.meta | {f"nli_{name}": row[name] for name in ("entailment", "neutral", "contradiction", "span")}
