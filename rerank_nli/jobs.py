"""A scoring job: a file of rows in, the same rows with their scores out; killed, it goes on where it was.

Finished parts stand in a folder beside the output until that is whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rerank_nli import inputs
from rerank_nli.columns import columns_of, gained, require_new
from rerank_nli.errors import InputError, InputTypeError, QueryTooLongError
from rerank_nli.manifest import sha256
from rerank_nli.rows import as_cell, as_json, form_of, read_rows, write_rows
from rerank_nli.scorer import FEWEST_TOKENS
from rerank_nli.tables import merged_schema, require_writable, schema_of, write_table
from rerank_nli.workers import Part, in_turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import BinaryIO

    from rerank_nli.reranker import NLIReranker
    from rerank_nli.workers import Spread

__all__ = ["score_file"]

_PAIRS = 2048  # of a part: as many as the scorer takes at once, so that parts have the scores of one call
_JOB = "job.json"
_DENSE = 4  # most tokens that one character makes


class _Look(NamedTuple):
    """What is known once all rows were read.

    Attributes:
        rows: how many.
        roles: {role: column}.
        names: of the columns.
        schema: for an output in Parquet.
    """

    rows: int
    roles: dict[str, str]
    names: list[str]
    schema: Any


def score_file(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    reranker: NLIReranker,
    *,
    columns: Mapping[str, str] | None = None,
    prefix: str = "",
    spread: Spread | None = None,
    report: Callable[[int, int], None] | None = None,
) -> int:
    """Score the rows of a file into another: .jsonl, .csv (either with .gz) or .parquet (needs the `parquet` extra).

    All rows are read and checked before the first is scored. Then each part of 2,048 pairs is kept as it is done, in
    the folder OUT.parts: the same call goes on where one was ended. Memory holds a few parts. The output is there
    whole or not at all.

    Args:
        source: rows with "premise" and "hypothesis" (or the names that NLI data has for them), "query" and "passage",
            or "query" and "passages".
        out: a file that is not there yet. Its rows are those of the source in their order, with all their columns and
            those that `score_columns` gives.
        reranker: what scores, made with cache_size=0: what it remembers from part to part would be lost with a kill,
            and rounding then differs.
        columns: {role: column}, where columns have other names.
        prefix: of the new columns' names.
        spread: where parts are scored; None is here.
        report: is told how many rows are scored, and of how many.

    Returns:
        How many rows there are.

    Raises:
        InputError: a row that cannot be scored or written, by its number; no rows; columns that are missing, or there
            already; a folder with the parts of another job; an output that is there.
        MissingExtraError: Parquet without pyarrow.
        OSError: something cannot be read or written; finished parts are kept.
    """
    source, out = Path(source), Path(out)
    _require_free(out)
    content = sha256(source)
    look = _look(source, out, reranker, columns, prefix)
    names = {name: prefix + name for name in gained(look.roles)}
    about = _about(reranker, input=content, columns=look.roles)
    folder = out.with_name(f"{out.name}.parts")
    with _alone(folder):
        _claim(folder, about)
        _score_missing(source, folder, look, spread or in_turn(reranker), report or (lambda *_: None))
        if sha256(source) != content:
            message = f"{source} was changed while it was scored: delete {folder}, and start again"
            raise InputError(message)
        scores = ({names[name]: value for name, value in row.items()} for row in _scores(folder, look.rows))
        with _whole(out, folder) as file:
            if form_of(out) == ".parquet":
                write_table(file, source, look.schema, list(names.values()), scores, lists="passages" in look.roles)
            else:
                rows = (row | new for (_, row), new in zip(read_rows(source), scores, strict=True))
                write_rows(file, out, [*look.names, *names.values()], rows)
        shutil.rmtree(folder)
    return look.rows


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other jobs off these parts; a killed one leaves them free."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder.with_name(f"{folder.name}.lock"), blocking=False)
    try:
        with lock:
            try:
                _require_free(folder.with_name(folder.name.removesuffix(".parts")))  # another may have ended meanwhile
                yield
            finally:
                with contextlib.suppress(OSError):
                    Path(lock.lock_file).unlink()
    except Timeout as error:
        message = f"another process works on {folder}: wait for it, or give another output"
        raise InputError(message) from error


def _require_free(out: Path) -> None:
    form_of(out)
    if out.exists():
        message = f"{out} is there already: delete it, or give another name"
        raise InputError(message)
    inputs.require_folder(out)


def _look(source: Path, out: Path, reranker: NLIReranker, chosen: Mapping[str, str] | None, prefix: str) -> _Look:
    """Read all rows, and refuse what could not be scored or written: not after days of work."""
    table, to_table = (form_of(path) == ".parquet" for path in (source, out))
    written = None if to_table else as_cell if form_of(out) == ".csv" else as_json
    require_room = _room_of(reranker)
    schema = schema_of(source) if table and to_table else None
    roles: dict[str, str] = {}
    names: dict[str, None] = {}
    count = 0
    numbered = read_rows(source)
    while chunk := list(islice(numbered, _PAIRS)):
        number: int | str = 0
        try:
            for number, row in chunk:  # noqa: B007 - the error names it
                roles = roles or columns_of(row, chosen)
                asked = _asked(row, roles)
                require_room(asked)
                require_new(row, [prefix + name for name in gained(roles)])
                if written is not None:
                    for value in (*row, *row.values()):
                        written(value)
            if to_table and not table:
                number = f"{chunk[0][0]} to {chunk[-1][0]}"
                schema = merged_schema(schema, [row for _, row in chunk])
        except (InputError, InputTypeError) as error:
            message = f"{source}, row {number}: {error}"
            raise InputError(message) from error
        count += len(chunk)
        names |= dict.fromkeys(chain.from_iterable(row for _, row in chunk))
    if not count:
        message = f"{source} holds no rows"
        raise InputError(message)
    if to_table and not table:
        require_writable(source, schema)
    return _Look(count, roles, list(names), schema)


def _asked(row: Mapping[str, Any], roles: Mapping[str, str]) -> dict[str, Any]:
    """What a row asks, by role, checked."""
    asked: dict[str, Any] = {role: row.get(name) for role, name in roles.items()}
    if "passages" in asked:
        asked["passages"] = inputs.listed("passages", inputs.in_cell("passages", asked["passages"]))
        for index, passage in enumerate(asked["passages"]):
            inputs.text_and_id(f"passage {index}", passage)
    for role in ("premise", "passage", "hypothesis", "query"):
        if role in asked and not isinstance(asked[role], str):
            message = f"{roles[role]} is {asked[role]!r:.60}: expected a text"
            raise InputTypeError(message)
    if "query" in asked:
        inputs.worded(roles["query"], asked["query"])
    return asked


def _room_of(reranker: NLIReranker) -> Callable[[Mapping[str, Any]], None]:
    """What refuses a row whose query or hypothesis leaves no room for a passage or premise, or says nothing."""
    engine = reranker.engine
    most = engine.max_length - engine.special - FEWEST_TOKENS

    @lru_cache(_PAIRS)  # neighbours often share one
    def require_rankable(query: str) -> None:
        reranker.rank(query, [])

    def require_room(asked: Mapping[str, Any]) -> None:
        if "query" in asked:
            require_rankable(asked["query"])
            return
        hypothesis = asked["hypothesis"]
        if len(hypothesis) > most // _DENSE and (tokens := len(engine.tokenize([hypothesis])[0])) > most:
            room = f"and the model takes {most} beside a premise"
            message = f"{hypothesis!r:.60} takes {tokens} tokens, {room}: shorten it"
            raise QueryTooLongError(message)

    return require_room


def _about(reranker: NLIReranker, **of_job: Any) -> dict[str, Any]:  # noqa: ANN401
    """All that the scores hang on, as JSON has it."""
    from importlib.metadata import version  # slow to import

    # of a premise that the model takes whole no window is made unless one is asked for
    window = reranker._scorer.window if "premise" in of_job["columns"] else None  # noqa: SLF001
    of_job |= {"engine": reranker.engine.name, "rerank-nli": version("rerank-nli"), "window of premises": window}
    return dict(json.loads(json.dumps({"pairs of a part": _PAIRS, **of_job, **reranker.settings})))


def _claim(folder: Path, about: Mapping[str, Any]) -> None:
    """Have a folder for the parts, new or with those of the same job."""
    card = folder / _JOB
    if card.is_file():
        held = _mapping(card)
        changed = {name: (held.get(name), value) for name, value in about.items() if held.get(name) != value}
        if changed:
            other = "; ".join(f"{name} {then!r:.40}, now {now!r:.40}" for name, (then, now) in changed.items())
            message = f"{folder} holds parts of another job ({other}): delete it, or give another output"
            raise InputError(message)
        return
    if folder.exists() and not all(path.suffix == ".tmp" for path in folder.iterdir()):
        message = f"{folder} is in the way, and no job of ours: rename it, or give another output"
        raise InputError(message)
    folder.mkdir(exist_ok=True)
    with _whole(card, folder) as file:
        file.write(json.dumps(about, indent=2).encode())


def _score_missing(source: Path, folder: Path, look: _Look, spread: Spread, report: Callable[[int, int], None]) -> None:
    done = 0

    def missing() -> Iterator[Part]:
        nonlocal done
        for part in _parts(source, look.roles):
            if _file(folder, part.first, part.end).is_file():
                done += part.end - part.first
            else:
                report(done, look.rows)
                yield part

    with contextlib.closing(spread(missing())) as scored:  # whatever scores ends with this
        for part, scores in scored:
            with _whole(_file(folder, part.first, part.end), folder) as file:
                file.write(json.dumps(scores).encode())
            done += part.end - part.first
            report(done, look.rows)


def _parts(source: Path, roles: Mapping[str, str]) -> Iterator[Part]:
    """Runs of rows with at most 2,048 pairs, or one row with more."""
    first, pairs = 0, 0
    held: list[dict[str, Any]] = []
    for _, row in read_rows(source):
        asked = _asked(row, roles)
        count = len(asked["passages"]) if "passages" in asked else 1
        if held and pairs + count > _PAIRS:
            yield _part(first, held)
            first, pairs, held = first + len(held), 0, []
        held.append(asked)
        pairs += count
    yield _part(first, held)


def _part(first: int, asked: Sequence[Mapping[str, Any]]) -> Part:
    return Part(first, first + len(asked), {role: [row[role] for row in asked] for role in asked[0]})


def _file(folder: Path, first: int, end: int) -> Path:
    return folder / f"{first:012d}-{end:012d}.json"


def _scores(folder: Path, rows: int) -> Iterator[dict[str, Any]]:
    """What each row gained, in order, from parts that follow each other from the first row to the last."""
    first = 0
    for path in sorted(folder.glob("[0-9]*-[0-9]*.json")):
        columns = _mapping(path)
        values = list(zip(*columns.values(), strict=True))
        start, end = map(int, path.stem.split("-"))
        if start != first or len(values) != end - start:
            break
        first = end
        yield from (dict(zip(columns, row, strict=True)) for row in values)
    if first != rows:
        message = f"{folder} was changed: row {first + 1} is missing or not alone; delete it, and start again"
        raise InputError(message)


def _mapping(path: Path) -> dict[str, Any]:
    """What a file of ours holds; nothing, where it was damaged."""
    try:
        return dict(json.loads(path.read_bytes()))
    except (TypeError, ValueError):
        return {}


@contextlib.contextmanager
def _whole(path: Path, folder: Path) -> Iterator[BinaryIO]:
    """A file that gets its name once all of it is on the disk."""
    partial = folder / f"{path.name}.{os.getpid()}.tmp"
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        if os.name != "nt":
            for changed in {path.parent, folder}:
                _sync(changed)
    except OSError as error:
        message = f"{error.strerror}; finished parts are kept, so mend that and run the same again"
        raise OSError(error.errno, message, str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Let a new name outlast a loss of power."""
    entry = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(entry)
    finally:
        os.close(entry)
