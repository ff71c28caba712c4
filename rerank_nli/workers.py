"""Where the parts of a large input are scored: in this process or in several."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TYPE_CHECKING, Any, NamedTuple

from rerank_nli.columns import score_columns
from rerank_nli.errors import InputError, RerankNLIError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from rerank_nli.reranker import NLIReranker

    Scores = dict[str, list[Any]]
    Spread = Callable[[Iterable["Part"]], Generator[tuple["Part", Scores]]]

__all__ = ["Part", "in_processes", "in_turn", "threads_each"]

_AHEAD = 2  # parts for each process that are read and not yet scored: while one is scored, the next one waits


class Part(NamedTuple):
    """Rows that are scored together.

    Attributes:
        first: number of the first row, from 0.
        end: number of the row after the last.
        columns: of texts, as `score_columns` takes them.
    """

    first: int
    end: int
    columns: dict[str, list[Any]]


def in_turn(reranker: NLIReranker) -> Spread:
    """Parts are scored here, one after the other."""
    return lambda parts: ((part, _scored(reranker, part)) for part in parts)


def in_processes(reranker: NLIReranker, count: int) -> Spread:
    """Parts are scored in several processes, each with a copy of the reranker, and come back as they are done.

    The processes end with this one, however it ends.

    Args:
        reranker: one that pickles, whose engine has `threads_each(count)` threads.
        count: processes.

    Raises:
        ChildProcessError: one of them was ended from outside.
    """

    def spread(parts: Iterable[Part]) -> Generator[tuple[Part, Scores]]:
        import multiprocessing  # slow to import, and seldom needed
        from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor

        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(count, context, initializer=_start, initargs=(reranker,))
        running: dict[Future[Scores], Part] = {}
        try:
            for part in parts:
                running[pool.submit(_score, part)] = part
                if len(running) >= _AHEAD * count:
                    yield from _done(running)
            while running:
                yield from _done(running)
        except BrokenProcessPool as error:
            message = (
                "a process that scores was ended from outside, or had no memory: what is scored is kept, so run the "
                "same again, perhaps with fewer processes"
            )
            raise ChildProcessError(message) from error
        finally:
            pool.shutdown(cancel_futures=True)

    return spread


def threads_each(count: int) -> int:
    """Threads of each process, so that all together have no more than there are processors for this one."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable // count)


def _scored(reranker: NLIReranker, part: Part) -> Scores:
    try:
        return score_columns(reranker, part.columns)
    except RerankNLIError as error:
        message = f"rows {part.first + 1} to {part.end}: {error}"
        raise InputError(message) from error


def _done(running: dict[Future[Scores], Part]) -> Iterator[tuple[Part, Scores]]:
    for future in wait(running, return_when=FIRST_COMPLETED).done:
        yield running.pop(future), future.result()


_reranker: NLIReranker  # of a process that scores for another


def _start(reranker: NLIReranker) -> None:
    global _reranker  # noqa: PLW0603 - an initializer has no other place
    _reranker = reranker
    signal.signal(signal.SIGINT, lambda *_: os._exit(1))  # Ctrl-C reaches all, and one of them speaks
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    from multiprocessing import parent_process

    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # it was killed: nobody waits for what is being scored


def _score(part: Part) -> Scores:
    return _scored(_reranker, part)
