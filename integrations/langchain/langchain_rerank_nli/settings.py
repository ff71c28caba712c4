"""What the components share: settings checked when given, the reranker made of them at first use, input read."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.documents import Document
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from rerank_nli import Engine, FunctionEngine, InputError, InputTypeError, NLIReranker, load

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Model", "passages", "read"]

_LOADING = threading.Lock()  # one for all: a lock of its own would keep a component from being copied and pickled
_SETTINGS = {"model", "direction", "score", "score_kind", "normalize"}  # of the fields, those that make a reranker


class Model(BaseModel):
    """Settings of a reranker, or a ready one; what is None is left to NLIReranker's own default.

    Args:
        model: "mini", a folder or a Hub id; None is the bundled model.
        reranker: a ready one, in place of model settings.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", protected_namespaces=())

    model: str | Path | None = None
    reranker: NLIReranker | None = Field(default=None, repr=False)

    _loaded: tuple[dict[str, Any], NLIReranker] | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _check(self) -> Self:
        settings = self._settings()
        if self.reranker is None:  # a reranker without weights knows the same rules
            self._check_with(NLIReranker(**{**settings, "model": FunctionEngine(list)}))
        elif settings:
            message = f"reranker= has its settings already: leave out {', '.join(sorted(settings))}"
            raise InputError(message)
        else:
            self._check_with(self.reranker)
        return self

    def _check_with(self, reranker: NLIReranker) -> None:
        """Raise what a call would raise for settings of the component's own, if it has any."""

    def _settings(self) -> dict[str, Any]:
        return self.model_dump(include=_SETTINGS, by_alias=True, exclude_none=True)

    def _ready(self) -> NLIReranker:
        """The reranker, loaded once for the settings as they are now, whichever thread asks first."""
        if self.reranker is not None:
            return self.reranker
        settings, loaded = self._settings(), self._loaded
        if loaded is None or loaded[0] != settings:
            with _LOADING:
                loaded = self._loaded  # by another thread, perhaps
                if loaded is None or loaded[0] != settings:
                    name = str(settings.pop("model", "mini"))
                    engine = _opened(name, _found(name))
                    self._loaded = loaded = (self._settings(), NLIReranker(engine, **settings))
        return loaded[1]


@lru_cache(maxsize=2)  # with a setting that is given at run time, LangChain makes a component anew for each call
def _opened(name: str, _: object) -> Engine:
    return load(name)


def _found(name: str) -> tuple[tuple[str, int, int], ...]:
    """What there is now under the name of a folder or file, so that other weights are another model."""
    found: list[tuple[str, int, int]] = []
    if name in ("mini", ""):
        return ()
    path = Path(os.path.expanduser(name))  # noqa: PTH111 - pathlib fails where there is no such user
    for file in (path, *sorted(path.glob("*")), *sorted(path.glob("onnx/*"))):
        with suppress(OSError):  # it is not there, or not any more
            state = file.stat()
            found.append((str(file.absolute()), state.st_mtime_ns, state.st_size))
    return tuple(found)


def read(given: Mapping[str, Any], *names: str) -> tuple[Any, ...]:
    """What a chain hands over under these names."""
    if not isinstance(given, Mapping) or not set(names) <= set(given):
        found = f"the keys {list(given)}" if isinstance(given, Mapping) else f"{given!r:.80}"
        message = f"expected a mapping with {' and '.join(map(repr, names))}, got {found}"
        raise InputTypeError(message)
    return tuple(given[name] for name in names)


def passages(documents: Sequence[Document]) -> list[tuple[str | None, str]]:
    """Id and text of each document; what is none is refused."""
    if not isinstance(documents, Sequence):
        message = f"documents must be a list of Documents, got {documents!r:.80}"
        raise InputTypeError(message)
    for index, document in enumerate(documents):
        if not isinstance(document, Document):
            message = f"document {index} must be a Document, got {document!r:.80}"
            raise InputTypeError(message)
    return [(document.id, document.page_content) for document in documents]
