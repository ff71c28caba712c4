"""Scores for columns of texts: what a table, or a part of one, gains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rerank_nli.errors import InputError
from rerank_nli.inputs import listed
from rerank_nli.labels import COLUMNS
from rerank_nli.pairs import SIDES

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from rerank_nli.reranker import NLIReranker

__all__ = ["columns_of", "gained", "require_new", "score_columns"]

_ROLES = (("premise", "hypothesis"), ("query", "passages"), ("query", "passage"))
_NAMES = (*((SIDES[0], side) for side in SIDES), *((role, role) for role in _ROLES[1:]))


def columns_of(names: Collection[str], chosen: Mapping[str, str] | None = None) -> dict[str, str]:
    """Which column holds the premise and the hypothesis, or the query and its passage or passages.

    Args:
        names: of all columns.
        chosen: {role: column}, where columns have names of their own.

    Raises:
        InputError: no such columns, or roles that do not belong together.
    """
    there = ", ".join(map(str, names)) or "none"
    if chosen is not None:
        if set(chosen) not in map(set, _ROLES):
            wanted = " or ".join(" and ".join(roles) for roles in _ROLES)
            message = f"columns were chosen for {', '.join(chosen) or 'nothing'}: expected {wanted}"
            raise InputError(message)
        missing = [name for name in chosen.values() if name not in names]
        if missing:
            message = f"there is no column {', '.join(map(repr, missing))}: there are {there}"
            raise InputError(message)
        return dict(chosen)
    for roles, found in _NAMES:
        if set(found) <= set(names):
            return dict(zip(roles, found, strict=True))
    wanted = " or ".join(" and ".join(found) for _, found in _NAMES)
    message = f"expected the columns {wanted}, got {there}: say which they are"
    raise InputError(message)


def gained(roles: Collection[str]) -> tuple[str, ...]:
    """The columns that `score_columns` gives for such roles."""
    return COLUMNS if "premise" in roles else ("score", *COLUMNS)


def require_new(names: Collection[str], new: Collection[str]) -> None:
    """Refuse new columns whose names are taken.

    Raises:
        InputError: they are.
    """
    taken = [name for name in new if name in names]
    if taken:
        message = f"there is a column {', '.join(map(repr, taken))} already: give the new ones a prefix"
        raise InputError(message)


def score_columns(
    reranker: NLIReranker,
    table: Any,  # noqa: ANN401 - of several libraries
    columns: Mapping[str, str] | None = None,
    prefix: str = "",
) -> dict[str, list[Any]]:
    """Score the rows of a table, with the numbers of `predict` or `rank_many`.

    Args:
        reranker: what scores; its settings act on queries, not on pairs.
        table: n rows with the columns "premise" and "hypothesis" (or the names that NLI data has for them), "query" and
            "passage", or "query" and "passages", a list in each row: a mapping of columns, a DataFrame, a pyarrow
            table. It is not changed.
        columns: {role: column}, where columns have other names.
        prefix: of the new columns' names.

    Returns:
        The new columns, n numbers each: "entailment", "neutral" and "contradiction", with a query "score" before them;
        for "passages" n lists, in the order of the passages. None is what a model of two labels does not tell.

    Raises:
        InputError: such columns are missing, of several lengths, or there already; and as `rank_many`.
        InputTypeError, QueryTooLongError: as `predict` and `rank_many`.
    """
    names = getattr(table, "column_names", None) or list(table)
    roles = columns_of(names, columns)
    new = {name: prefix + name for name in gained(roles)}
    require_new(names, list(new.values()))
    asked = {role: _listed(name, table[name]) for role, name in roles.items()}
    if len({len(column) for column in asked.values()}) > 1:
        lengths = ", ".join(f"{roles[role]!r} {len(column)}" for role, column in asked.items())
        message = f"columns have different numbers of rows: {lengths}"
        raise InputError(message)
    if "premise" in asked:
        rows = reranker.predict(list(zip(asked["premise"], asked["hypothesis"], strict=True)), output="dicts")
        return {new[name]: [row[name] for row in rows] for name in new}
    lists = asked["passages"] if "passages" in asked else [[passage] for passage in asked["passage"]]
    ranked = [sorted(ranking, key=lambda p: p.index) for ranking in reranker.rank_many(asked["query"], lists)]
    scores = {new[name]: [[getattr(p, name) for p in row] for row in ranked] for name in new}
    return scores if "passages" in asked else {name: [row[0] for row in column] for name, column in scores.items()}


def _listed(name: str, column: Any) -> list[Any]:  # noqa: ANN401
    return listed(f"column {name!r}", column.to_pylist() if hasattr(column, "to_pylist") else column)
