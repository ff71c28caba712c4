"""Rows of a file, one by one and as mappings: JSON lines, CSV and Parquet, read and written."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import zlib
from collections.abc import Mapping
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from rerank_nli.errors import InputError, require

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

__all__ = ["FORMS", "as_cell", "as_json", "form_of", "read_rows", "without_nan", "write_rows"]

FORMS = (".jsonl", ".csv", ".parquet")
_BATCH = 2048  # rows of Parquet that are held at a time
_CELL = 2**26  # most characters of a cell of CSV: Python's own limit is less than a list of passages takes


def form_of(path: Path) -> str:
    """Which of FORMS a file's name says that it has; .gz goes with those that are text.

    Raises:
        InputError: none of them.
    """
    packed = path.suffix == ".gz"
    form = path.with_suffix("").suffix if packed else path.suffix
    if form not in FORMS or (form == ".parquet" and packed):
        message = f"{path}: expected {', '.join(FORMS)}, the first two with or without .gz"
        raise InputError(message)
    return form


# by csv, gzip and pyarrow, whose dates may lie beyond Python's, and whose lists may be too long to read in one go
_UNREADABLE = (csv.Error, gzip.BadGzipFile, zlib.error, OverflowError, NotImplementedError)


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a file with their numbers, those of its lines where it has lines, NaN as None, within lists too.

    Blank lines of JSON are passed over. Memory holds a few rows, however many there are.

    Raises:
        InputError: something that is no row; the message names file and row.
        MissingExtraError: Parquet needs pyarrow.
        OSError: the file cannot be opened.
    """
    numbered = _READ[form_of(path)](path)
    number = 0
    try:
        for number, row in numbered:
            yield number, _object(row)
    except (*_UNREADABLE, TypeError, ValueError, EOFError) as error:
        message = f"{path}{f', row {number}' if number else ''}: {error}"
        raise InputError(message) from error


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    with _text(path) as file:
        yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())


def _csv(path: Path) -> Iterator[tuple[int, Any]]:
    csv.field_size_limit(max(_CELL, csv.field_size_limit()))
    with _text(path) as file:
        reader = csv.DictReader(file)
        _once(reader.fieldnames or ())
        yield from ((reader.line_num, row) for row in reader)


def _parquet(path: Path) -> Iterator[tuple[int, Any]]:
    with require("pyarrow.parquet", "parquet").ParquetFile(path) as file:
        _once(file.schema_arrow.names)
        batches = file.iter_batches(_BATCH)
        yield from enumerate((row for batch in batches for row in batch.to_pylist()), 1)


_READ = {".jsonl": _json_lines, ".csv": _csv, ".parquet": _parquet}


@contextmanager
def _text(path: Path) -> Iterator[io.TextIOBase]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        yield file


def _once(names: Sequence[str]) -> None:
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        message = f"two columns are called {twice!r}: rename one"
        raise InputError(message)


def _object(row: Any) -> dict[str, Any]:  # noqa: ANN401
    """A row as a mapping, from JSON or from a table."""
    try:
        row = json.loads(row) if isinstance(row, str) else row
    except (ValueError, RecursionError) as error:
        message = f"no JSON: {row:.60}"
        raise InputError(message) from error
    if not isinstance(row, Mapping):
        message = f"expected an object, got {row!r:.60}"
        raise InputError(message)
    if None in row:
        message = f"it has more cells than the header, which names {len(row) - 1}"
        raise InputError(message)
    return {name: without_nan(value) for name, value in row.items()}


def without_nan(value: Any) -> Any:  # noqa: ANN401
    """NaN as None, which JSON has, within lists and mappings too."""
    if isinstance(value, list):
        return [without_nan(one) for one in value]
    if isinstance(value, dict):
        return {name: without_nan(one) for name, one in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def write_rows(file: BinaryIO, path: Path, names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSON lines or CSV, packed where the path ends in .gz; equal rows are equal bytes.

    Args:
        file: where they go.
        path: whose name says the form.
        names: the columns of CSV; a row may lack some.
        rows: any number of them.
    """
    packed: Any = gzip.GzipFile("", "wb", fileobj=file, mtime=0) if path.suffix == ".gz" else file
    text = io.TextIOWrapper(packed, "utf-8", "backslashreplace", newline="")  # half a surrogate pair is no UTF-8
    if form_of(path) == ".csv":
        cells = csv.DictWriter(text, names)  # whose line ends have a lone \r in a text put between quotes too
        cells.writeheader()
        cells.writerows({name: as_cell(value) for name, value in row.items()} for row in rows)
    else:
        text.writelines(f"{as_json(row)}\n" for row in rows)
    text.flush()
    text.detach()
    if packed is not file:
        packed.close()


def as_cell(value: Any) -> str:  # noqa: ANN401
    """A value as a cell of CSV: a text as it is, nothing for None, all else as JSON.

    Raises:
        InputError: a value that has no such form.
    """
    if not isinstance(value, str):
        return "" if value is None else as_json(value)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        message = f"{value!r:.60} holds half of a surrogate pair, which CSV has no form for: write .jsonl"
        raise InputError(message) from error
    return value


def as_json(value: Any) -> str:  # noqa: ANN401
    """A value as JSON; dates and decimals, which a table may hold, as text.

    Raises:
        InputError: a value that JSON has no form for.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    except InputError:  # of a kind that JSON has not
        raise
    except ValueError as error:
        message = f"{value!r:.60} has no form in JSON ({error}): write .parquet"
        raise InputError(message) from error


def _plain(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, Decimal):
        return str(value)
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    message = f"{value!r:.60} has no form in JSON or CSV: write .parquet"
    raise InputError(message)
