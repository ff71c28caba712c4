"""Parquet from rows: what schema they have, and how a table gains columns."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from rerank_nli.errors import InputError, require
from rerank_nli.rows import form_of, read_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["merged_schema", "require_writable", "schema_of", "write_table"]

_GROUP = 32_768  # rows that are held and written at a time


def schema_of(path: Path) -> Any:  # noqa: ANN401 - pyarrow is an extra
    """The schema of a Parquet file.

    Raises:
        InputError: it is none.
        MissingExtraError: Parquet needs pyarrow.
    """
    try:
        with require("pyarrow.parquet", "parquet").ParquetFile(path) as file:
            return file.schema_arrow
    except ValueError as error:  # pyarrow's own errors are of this kind
        message = f"{path}: {error}"
        raise InputError(message) from error


def merged_schema(schema: Any, rows: Sequence[Mapping[str, Any]]) -> Any:  # noqa: ANN401
    """A schema for these rows and for those that another, or None, was for.

    Raises:
        InputError: a column with values of two kinds, or of none of Parquet's.
        MissingExtraError: Parquet needs pyarrow.
    """
    pa = require("pyarrow", "parquet")
    merged = pa.schema([]) if schema is None else schema
    for name in dict.fromkeys(name for row in rows for name in row):
        try:
            found = pa.schema([(name, pa.array([row.get(name) for row in rows]).type)])
            merged = pa.unify_schemas([merged, found], promote_options="permissive")
        except (TypeError, ValueError, OverflowError) as error:  # noqa: PERF203 - it names the column
            message = f"column {name!r} holds values that are not of one kind of Parquet's ({error}): write .jsonl"
            raise InputError(message) from error
    return merged


def require_writable(source: Path, schema: Any) -> None:  # noqa: ANN401
    """Refuse rows that Parquet cannot hold in this schema, by writing them to nowhere.

    Raises:
        InputError: something in them; the message names the file.
        MissingExtraError: Parquet needs pyarrow.
    """
    try:
        write_table(require("pyarrow", "parquet").MockOutputStream(), source, schema, (), iter(()), lists=False)
    except (TypeError, ValueError, OverflowError, NotImplementedError) as error:
        message = f"{source} cannot be written as Parquet ({error}): write .jsonl"
        raise InputError(message) from error


def write_table(
    file: Any,  # noqa: ANN401 - of Python's or of pyarrow's
    source: Path,
    own: Any,  # noqa: ANN401
    names: Sequence[str],
    gained: Iterator[Mapping[str, Any]],
    *,
    lists: bool,
) -> None:
    """Write the rows of a file as Parquet, each with what it gains.

    Args:
        file: where they go.
        source: .jsonl, .csv or .parquet, whose columns keep their kinds.
        own: its schema.
        names: of the new columns.
        gained: their values, for each row.
        lists: whether these are lists of numbers, else they are numbers.
    """
    pa = require("pyarrow", "parquet")
    kind = pa.list_(pa.float64()) if lists else pa.float64()
    fields = [pa.field(name, kind) for name in names]
    schema = pa.schema([*own, *fields], own.metadata)
    with require("pyarrow.parquet", "parquet").ParquetWriter(file, schema) as writer:
        for table in _tables(source, own):
            rows = list(islice(gained, len(table)))
            new = [pa.array([row[field.name] for row in rows], field.type) for field in fields]
            writer.write_table(pa.Table.from_arrays([*table.columns, *new], schema=schema))


def _tables(source: Path, schema: Any) -> Iterator[Any]:  # noqa: ANN401
    pa = require("pyarrow", "parquet")
    if form_of(source) == ".parquet":
        with require("pyarrow.parquet", "parquet").ParquetFile(source) as file:
            yield from (pa.Table.from_batches([batch]) for batch in file.iter_batches(_GROUP))
        return
    rows = (row for _, row in read_rows(source))
    while chunk := list(islice(rows, _GROUP)):
        yield pa.Table.from_pylist(chunk, schema)
