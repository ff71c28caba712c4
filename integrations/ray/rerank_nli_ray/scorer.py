"""NLIScorer: a model that lives in an actor and scores the batches of a Ray dataset."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import ray

from rerank_nli import Engine, InputError, NLIReranker, load, score_columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["NLIScorer"]


class NLIScorer:
    """A callable for `ray.data.Dataset.map_batches`, which is given the class: each actor loads the model once.

    A batch has the columns "premise" and "hypothesis" (or the names that NLI data has for them), "query" and "passage",
    or "query" and "passages", a list in each row. It comes back as it was, with "entailment", "neutral" and
    "contradiction" and, with a query, "score". What a model of two labels does not tell is NaN in "numpy" and "pandas"
    batches, and null in "pyarrow" ones.

    Args:
        model: "mini" (the bundled one), a folder that every node has, a Hub id, or an Engine that pickles.
        columns: {role: column}, where columns have other names.
        prefix: of the new columns' names.
        threads: of the model; None is as many as the CPUs that Ray gave the actor.
        fingerprint: of the weights: an actor that finds others under that name refuses to start. None takes any.
        precision: that "auto" should come to: an actor that would compute in another refuses too. None takes any.
        engine: as `rerank_nli.load`.
        device: as `rerank_nli.load`; "auto" is the actor's GPU, if Ray gave it one.
        dtype: as `rerank_nli.load`.
        revision: as `rerank_nli.load`.
        labels: as `rerank_nli.load`.
        **settings: of `NLIReranker`: direction, score, template and so on.

    Raises:
        InputError: the weights are not those of the fingerprint, or settings for loading came with an Engine; and as
            `rerank_nli.load` and `NLIReranker`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Engine = "mini",
        *,
        columns: Mapping[str, str] | None = None,
        prefix: str = "",
        threads: int | None = None,
        fingerprint: str | None = None,
        precision: str | None = None,
        engine: str = "auto",
        device: str = "auto",
        dtype: str = "auto",
        revision: str | None = None,
        labels: Sequence[str] | None = None,
        **settings: Any,  # noqa: ANN401
    ) -> None:
        own = {"engine": engine, "dtype": dtype, "revision": revision, "labels": labels}
        if isinstance(model, str | os.PathLike):
            device = "cpu" if device == "auto" and _without_gpu() else device
            model = load(model, threads=threads or _threads(), device=device, **own)  # type: ignore[arg-type]
        elif given := [name for name, value in own.items() if value not in (None, "auto")]:
            message = f"{', '.join(given)}: for loading a model, and model= is an Engine: give them to load()"
            raise InputError(message)
        if fingerprint not in (None, model.fingerprint):
            message = f"the weights here are {model.fingerprint:.16}…, not {fingerprint:.16}…: give nodes one model"
            raise InputError(message)
        if precision not in (None, model.precision):
            message = f"the model computes in {model.precision} here, not in {precision}: say engine and dtype"
            raise InputError(message)
        self.reranker = NLIReranker(model, **{"cache_size": 0, **settings})
        self.columns, self.prefix = columns, prefix

    def __call__(self, batch: Any) -> Any:  # noqa: ANN401 - what came in, in its own kind
        """The batch with its new columns: a dict of arrays, a DataFrame or a pyarrow table."""
        new = self.scores(batch)
        names = self.columns or getattr(batch, "column_names", None) or list(batch)
        lists = f"{self.prefix}score" in new and "passages" in names
        if hasattr(batch, "append_column"):
            import pyarrow as pa  # the batch is one of its tables

            kind = pa.list_(pa.float64()) if lists else pa.float64()
            for name, column in new.items():
                batch = batch.append_column(name, pa.array(column, kind))
            return batch
        if not lists:
            made: dict[str, Any] = {name: np.array(column, dtype=np.float64) for name, column in new.items()}
        elif hasattr(batch, "assign"):  # of lists a dataset makes lists, of arrays tensors
            made = {name: [np.array(row, dtype=np.float64).tolist() for row in column] for name, column in new.items()}
        else:
            made = {name: _arrays(column) for name, column in new.items()}
        return batch.assign(**made) if hasattr(batch, "assign") else {**batch, **made}

    def scores(self, batch: Any) -> dict[str, list[Any]]:  # noqa: ANN401
        """The new columns alone, as lists."""
        return score_columns(self.reranker, batch, self.columns, self.prefix)


def _arrays(column: list[Any]) -> Any:  # noqa: ANN401
    """(n,) arrays of their own lengths."""
    lists = np.empty(len(column), dtype=object)
    lists[:] = [np.array(value, dtype=np.float64) for value in column]
    return lists


def _in_actor() -> bool:
    return ray.is_initialized() and ray.get_runtime_context().get_actor_id() is not None


def _threads() -> int | None:
    """As many as the CPUs of this actor, if it is one."""
    if not _in_actor():
        return None
    return max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))


def _without_gpu() -> bool:
    """Whether this is an actor that has no GPU: it may see those of others."""
    return _in_actor() and not ray.get_runtime_context().get_accelerator_ids().get("GPU")
