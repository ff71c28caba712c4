"""What both components share: settings that are checked at once, and a model that is loaded once, when it is needed."""

import asyncio
import os
import threading
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from haystack import Document, default_from_dict, default_to_dict
from haystack.core.errors import SerializationError
from haystack.utils import ComponentDevice

from rerank_nli import Filtered, FunctionEngine, InputError, InputTypeError, NLIReranker, RankedPassage, load

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Judging", "judged_meta", "unique"]

_LOADING = ("model", "device", "engine", "labels")
_SCORING = ("direction", "score", "normalize")
_LOCK = threading.Lock()  # one for all: a component with a lock of its own could not be copied


@dataclass(kw_only=True, eq=False, repr=False)
class Judging:
    """The settings of both components, and the reranker that is made of them."""

    model: str | os.PathLike[str] = field(default="mini", kw_only=False)
    device: ComponentDevice | None = None
    engine: str = "auto"
    labels: list[str] | None = None
    top_k: int | None = None
    threshold: float | str | None = None
    keep: str = "entailment"
    direction: str = "passage_entails_query"
    score: str = "entailment"
    reranker: NLIReranker | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be used, before any model is looked for."""
        if not isinstance(self.reranker, NLIReranker | None):
            message = f"reranker= must be an NLIReranker, got {self.reranker!r:.80}: a model's name goes to model="
            raise InputTypeError(message)
        of_model = [f for f in fields(self) if f.name in (*_LOADING, *_SCORING)]
        given = [f.name for f in of_model if getattr(self, f.name) != f.default]
        if self.reranker is not None and given:
            message = f"reranker= brings its own model and settings: leave out {', '.join(given)}, or reranker="
            raise InputError(message)
        if self.device is not None:  # a device map, or no ComponentDevice, is refused here, not at load
            ComponentDevice.resolve_device(self.device).to_torch_str()
        if isinstance(self.model, os.PathLike):
            self.model = os.fspath(self.model)  # a Path could not be saved
        self._made: tuple[dict[str, Any], NLIReranker] | None = None
        # No document and an engine that is never asked: names and ranges are checked without a model.
        never = FunctionEngine(lambda _: [])
        self._judge(self.reranker or NLIReranker(never, **self._set(_SCORING)), "a query", [], None)

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
        if self.reranker is not None:
            message = "a component made with reranker= cannot be serialized: give model= and the settings instead"
            raise SerializationError(message)
        return default_to_dict(self, **{f.name: getattr(self, f.name) for f in fields(self) if f.name != "reranker"})

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Self":
        """The component with these settings, its model not yet loaded."""
        return default_from_dict(cls, data)

    def _loaded(self) -> NLIReranker:
        """The reranker that was given, or that of the settings as they are now; who has one waits for no other."""
        if self.reranker is not None:
            return self.reranker
        settings, made = self._set((*_LOADING, *_SCORING)), self._made
        if made is None or made[0] != settings:
            with _LOCK:
                made = self._made  # by another thread, perhaps
                if made is None or made[0] != settings:
                    device = "auto" if self.device is None else self.device.to_torch_str()
                    model = load(self.model, engine=self.engine, device=device, labels=self.labels)
                    made = self._made = settings, NLIReranker(model, **self._set(_SCORING))
        return made[1]

    def _set(self, names: tuple[str, ...]) -> dict[str, Any]:
        """The settings of these names that this kind of component has."""
        return {name: getattr(self, name) for name in names if hasattr(self, name)}

    def _fusion(self, documents: list[Document]) -> dict[str, Any]:  # noqa: ARG002 - NLIRanker reads their scores
        return {}

    def _judge(self, reranker: NLIReranker, query: str, documents: list[Document], top_k: int | None) -> Filtered:
        return reranker.filter(
            query,
            [document.content or "" for document in documents],  # an image's document has none
            self.threshold,
            self.keep,
            self.top_k if top_k is None else top_k,
            **self._fusion(documents),
        )


def judged_meta(document: Document, passage: RankedPassage) -> dict[str, Any]:
    """A copy of the document's meta, with the probabilities and the span that decided."""
    row = passage.to_dict()
    return document.meta | {f"nli_{name}": row[name] for name in ("entailment", "neutral", "contradiction", "span")}


def unique(documents: list[Document]) -> list[Document]:
    """Each id once, in its first place, with the highest score it came with: as Haystack's own rankers take them."""
    best: dict[str, Document] = {}
    for index, document in enumerate(documents):
        if not isinstance(document, Document):
            message = f"document {index} must be a Document, got {document!r:.80}: make one by Document(content=…)"
            raise InputTypeError(message)
        other = best.get(document.id)
        if other is None or _score(document) > _score(other):
            best[document.id] = document
    return list(best.values())


def _score(document: Document) -> float:
    return float("-inf") if document.score is None else document.score
