"""NLIRerank and EvidenceFilter: NLIReranker's `filter`, between a LlamaIndex retriever and what follows it."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from llama_index.core.bridge.pydantic import BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]  # it is re-exported
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from pydantic.json_schema import SkipJsonSchema  # noqa: TC002 - pydantic reads the annotation

from rerank_nli import FunctionEngine, InputError, InputTypeError, NLIReranker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

__all__ = ["EvidenceFilter", "NLIRerank"]

dispatcher = get_dispatcher(__name__)

_LOADING = threading.Lock()  # of the module, so that postprocessors copy and pickle as they are
_SETTINGS = ("model", "engine", "labels", "direction", "score")  # what a reranker is made of
_RETRIEVAL_SCORE = "retrieval_score"
_HIDDEN_FROM = ("excluded_llm_metadata_keys", "excluded_embed_metadata_keys")


class _Entailment(BaseNodePostprocessor):
    """What both have in common: the settings, the reranker made of them, and the call."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    threshold: float | Literal["auto"] | None = None
    keep: str = "entailment"
    metadata_mode: MetadataMode = MetadataMode.NONE
    model: Annotated[str, BeforeValidator(os.fspath)] = "mini"
    engine: str = "auto"
    labels: list[str] | None = None
    direction: str = "passage_entails_query"
    score: str = "entailment"
    reranker: SkipJsonSchema[NLIReranker | None] = Field(default=None, exclude=True, repr=False)

    _loaded: tuple[dict[str, Any], NLIReranker] | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _check(self) -> Self:
        reranker = self.reranker
        if reranker is None:
            # Names and ranges are checked on a model that is never asked; the real one is opened at first use.
            never = FunctionEngine(list) if self.labels is None else FunctionEngine(list, self.labels)
            reranker = NLIReranker(never, direction=self.direction, score=self.score)
        elif given := [name for name in _SETTINGS if name in self.model_fields_set]:
            message = f"reranker= brings its own settings: leave it out, or leave out {', '.join(given)}"
            raise InputError(message)
        self._kept(reranker, "a query", [])
        return self

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401 - as in BaseComponent
        """The public fields, from which `from_dict` makes the same postprocessor.

        Raises:
            InputError: it holds a ready reranker, which no fields describe.
        """
        if self.reranker is not None:
            message = "a ready reranker cannot be written out: give its settings in place of reranker="
            raise InputError(message)
        return super().to_dict(**kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        """What was set; a model that was loaded stays behind, and callbacks belong to their process."""
        arguments = {name: getattr(self, name) for name in self.model_fields_set - {"callback_manager"}}
        return partial(type(self), **arguments), ()

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        nodes, query = _checked(nodes, query_bundle)
        if not nodes:
            return []
        with self._reported(nodes, query) as kept:
            kept.extend(self._kept(self._ready(), query.query_str, nodes))
        return kept

    @dispatcher.span
    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        nodes, query = _checked(nodes, query_bundle)
        if not nodes:
            return []
        with self._reported(nodes, query) as kept:  # here, not in the thread: listeners stay in theirs
            kept.extend(await asyncio.to_thread(lambda: self._kept(self._ready(), query.query_str, nodes)))
        return kept

    def _kept(self, reranker: NLIReranker, query: str, nodes: list[NodeWithScore]) -> list[NodeWithScore]:
        raise NotImplementedError

    def _reported(self, nodes: list[NodeWithScore], query: QueryBundle) -> AbstractContextManager[list[NodeWithScore]]:  # noqa: ARG002
        """Takes what is kept, and tells those who listen."""
        return nullcontext([])

    def _texts(self, nodes: list[NodeWithScore]) -> list[str]:
        return [node.node.get_content(metadata_mode=self.metadata_mode) for node in nodes]

    def _ready(self) -> NLIReranker:
        """The reranker that was given, or the one that the settings describe, loaded once."""
        if self.reranker is not None:
            return self.reranker
        settings = {name: getattr(self, name) for name in _SETTINGS}  # they can be set anew, and then it is, too
        loaded = self._loaded
        if loaded is None or loaded[0] != settings:
            with _LOADING:
                loaded = self._loaded  # perhaps another thread was faster
                if loaded is None or loaded[0] != settings:
                    loaded = self._loaded = settings, NLIReranker(**settings)
        return loaded[1]


class NLIRerank(_Entailment):
    """Orders nodes by whether they entail the query, best first, and drops what does not pass the threshold.

    The score written to a node is that of the entailment alone, in the range of its kind; order and threshold read
    nothing else unless they are told to. Nodes that come in stay as they are.

    Args:
        top_n: most nodes to return; None is all.
        threshold: in the range of the score kind; None keeps all.
        keep: what is compared with it: "entailment" (the score), "contradiction", or "evidence", the larger of the two;
            with the last two, nodes are ordered by what was compared.
        fuse: "linear", "rrf" or the file of a Fusion orders by scores and retrieval scores together, and then every
            node must bring one.
        alpha: weight of the entailment in the fusion, 0..1; None is NLIReranker's own.
        keep_retrieval_score: put the old score into `metadata["retrieval_score"]` of a copied node, where neither
            language model nor embedding reads it.
        metadata_mode: which metadata is read with the text; any but NONE spoils what the text itself says.
        model: "mini" (the bundled one), a folder or a Hub id, opened at first use.
        engine, labels, direction, score: as NLIReranker.
        reranker: a ready NLIReranker in place of the model and its settings.
        callback_manager: as in every LlamaIndex postprocessor.

    Raises:
        ValueError: an unknown name, a value out of range, or a reranker beside settings for one.
    """

    top_n: int | None = Field(default=None, ge=1)
    fuse: str | None = None
    alpha: float | None = None
    keep_retrieval_score: bool = False

    @classmethod
    def class_name(cls) -> str:
        """The name in serialised form."""
        return "NLIRerank"

    def _kept(self, reranker: NLIReranker, query: str, nodes: list[NodeWithScore]) -> list[NodeWithScore]:
        fusion: dict[str, Any] = {}
        if self.fuse is not None:
            fusion = {"fuse": self.fuse, "retrieval_scores": [node.score for node in nodes]}
            fusion |= {} if self.alpha is None else {"alpha": self.alpha}
        kept = reranker.filter(query, self._texts(nodes), self.threshold, self.keep, self.top_n, **fusion).kept
        return [self._rescored(nodes[passage.index], passage.score) for passage in kept]

    def _rescored(self, found: NodeWithScore, score: float) -> NodeWithScore:
        node = found.node
        if self.keep_retrieval_score:
            old = None if found.score is None else float(found.score)  # some retrievers bring NumPy's
            hidden = {name: [*dict.fromkeys([*getattr(node, name), _RETRIEVAL_SCORE])] for name in _HIDDEN_FROM}
            node = node.model_copy(update={"metadata": {**node.metadata, _RETRIEVAL_SCORE: old}, **hidden})
        return found.model_copy(update={"node": node, "score": score})

    @contextmanager
    def _reported(self, nodes: list[NodeWithScore], query: QueryBundle) -> Iterator[list[NodeWithScore]]:
        kept: list[NodeWithScore] = []
        top_n = len(nodes) if self.top_n is None else self.top_n
        model = self.model if self.reranker is None else self.reranker.engine.name
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: model,
            EventPayload.QUERY_STR: query.query_str,
            EventPayload.TOP_K: top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            dispatcher.event(ReRankStartEvent(query=query, nodes=nodes, top_n=top_n, model_name=model))
            try:
                yield kept
            finally:
                dispatcher.event(ReRankEndEvent(nodes=kept))
            event.on_end(payload={EventPayload.NODES: kept})


class EvidenceFilter(_Entailment):
    """Drops nodes that do not pass the threshold; the others keep their order and their scores.

    Args:
        threshold: in the range of the score kind; "auto" is that of the reranker's guarantee, or 0.5; None keeps all.
        keep: what is compared with it: "entailment" (the score), "contradiction", or "evidence", the larger of the two.
        metadata_mode, model, engine, labels, direction, score, reranker, callback_manager: as NLIRerank.

    Raises:
        ValueError: as NLIRerank.
    """

    threshold: float | Literal["auto"] | None = "auto"

    @classmethod
    def class_name(cls) -> str:
        """The name in serialised form."""
        return "EvidenceFilter"

    def _kept(self, reranker: NLIReranker, query: str, nodes: list[NodeWithScore]) -> list[NodeWithScore]:
        kept = reranker.filter(query, self._texts(nodes), self.threshold, self.keep).kept
        return [nodes[index].model_copy() for index in sorted(passage.index for passage in kept)]


def _checked(nodes: list[NodeWithScore], query_bundle: QueryBundle | None) -> tuple[list[NodeWithScore], QueryBundle]:
    if not isinstance(query_bundle, QueryBundle):
        message = f"no query: pass query_bundle=QueryBundle(…) or query_str=, got {query_bundle!r:.80}"
        raise InputError(message)
    nodes = list(nodes)
    for index, node in enumerate(nodes):
        if not isinstance(node, NodeWithScore):
            message = f"node {index} must be a NodeWithScore, got {node!r:.80}: NodeWithScore(node=…) makes it one"
            raise InputTypeError(message)
    return nodes, query_bundle
