"""How much the server takes on: how many requests at a time, how large, for how long, and from whom."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import math
import threading
import time
from base64 import b64decode
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.exceptions import HTTPException

from rerank_nli.errors import RerankNLIError
from rerank_nli.shared_engine import CancelledError, DeadlineError, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.requests import Request

__all__ = ["CLIENT_GONE", "Gate", "Limits", "RefusalError", "is_authorized"]

CLIENT_GONE = 499  # no status that anyone reads: it stands in the log
_LONGEST_WAIT = 60  # seconds that Retry-After asks for at most
_INERTIA = 0.9  # of the mean time that a request takes

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server takes on.

    Attributes:
        queue: most requests that are worked on or wait; those beyond it get 429.
        threads: how many of them are worked on at a time.
        deadline: seconds from the arrival of a request to its answer; after it, 504.
        body_bytes: most bytes of a body; beyond it, 413.
        bodies_bytes: most bytes of all bodies that the server holds at a time; beyond it, 429.
        passages: most passages of a request, or for a check pairs of statement and passage; beyond it, 413.
        characters: most characters of one text; beyond it, 413. A tokenizer reads a text in one go, and lets nothing
            else go on meanwhile: about 2 seconds for a million.
        keys: tokens of which a request must bring one; without any, all may ask.
    """

    queue: int = 256
    threads: int = 32
    deadline: float = 300.0
    body_bytes: int = 64 * 2**20
    bodies_bytes: int = 256 * 2**20
    passages: int = 10_000
    characters: int = 200_000
    keys: tuple[str, ...] = ()

    def require_short(self, texts: Any) -> None:  # noqa: ANN401 - what JSON has
        """Refuse a text that would take the tokenizer too long.

        Args:
            texts: texts, or lists of them, to any depth; objects are passed over, of which not all is read.

        Raises:
            RefusalError: one is too long.
        """
        waiting = [texts]
        while waiting:
            one = waiting.pop()
            if isinstance(one, str):
                self.require_length(len(one), one)
            if isinstance(one, list):
                waiting += one

    def require_length(self, length: int, text: str) -> None:
        """Refuse what would have so many characters, and is or begins as a text.

        Raises:
            RefusalError: they are too many.
        """
        if length > self.characters:
            message = (
                f"a text has {length} characters, more than the {self.characters} that this server reads at once: "
                f"split it (it begins {text[:40]!r})"
            )
            raise RefusalError(413, message)


class RefusalError(HTTPException, RerankNLIError):
    """A request that is not answered, and why."""

    def __init__(self, status: int, message: str, *, retry_after: int | None = None) -> None:
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        super().__init__(status, message, headers)


class Gate:
    """Lets requests in up to a limit, has each worked on in a thread, and says when nobody waits for one any more."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.stopping = False
        self._threads = ThreadPoolExecutor(limits.threads, thread_name_prefix="rerank-nli request")
        self._lock = threading.Lock()
        self._inside = self._working = 0
        self.held = 0  # bytes of bodies that are here, counted by the event loop alone
        self._seconds = 0.0  # that a request takes, about

    @property
    def inside(self) -> int:
        """Requests that are worked on or wait."""
        return self._inside

    @property
    def waiting(self) -> int:
        """Requests that wait for a thread."""
        return self._inside - self._working

    def stop(self) -> None:
        """Let nobody in any more; who is inside goes on."""
        self.stopping = True

    def close(self) -> None:
        """End the threads, once their work is done."""
        self._threads.shutdown()

    def require_open(self) -> None:
        """Refuse what cannot be let in now.

        Raises:
            RefusalError: the server stops, or it is full.
        """
        if self.stopping:
            message = "the server is stopping: ask another, or later"
            raise RefusalError(503, message, retry_after=self._retry_after())
        if self._inside >= self.limits.queue:
            message = f"the server has {self._inside} requests to answer and takes no more at a time: ask again later"
            raise RefusalError(429, message, retry_after=self._retry_after())

    def hold(self, size: int) -> None:
        """Note that so many bytes more of a body are held, or fewer if below 0.

        Raises:
            RefusalError: they are more than the server holds; they are noted in any case, to be given back.
        """
        self.held += size
        if size > 0 and self.held > self.limits.bodies_bytes:
            message = (
                f"all bodies together have more than the {self.limits.bodies_bytes} bytes that this server holds at a "
                "time: ask again later"
            )
            raise RefusalError(429, message, retry_after=self._retry_after())

    async def run(self, request: Request, arrived: float, call: Callable[[Work], _Result]) -> _Result:
        """What a call returns, made in a thread while somebody waits for it.

        Args:
            request: read to its end; if its client leaves, what is left is dropped.
            arrived: when, on the clock of time.monotonic.
            call: is given the work that its scoring belongs to.

        Raises:
            RefusalError: the gate is shut, the deadline passes or the client leaves.
        """
        self.require_open()
        work = Work(deadline=arrived + self.limits.deadline)
        calls = [call]  # to be taken once; what nobody waits for is let go, though its turn is yet to come
        done = self._begin(work, calls)
        gone = asyncio.ensure_future(_disconnected(request))
        either: tuple[asyncio.Future[Any], ...] = (done, gone)
        try:
            left = max(0.0, work.deadline - time.monotonic())
            await asyncio.wait(either, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if done.done():
                return done.result()
            if gone.done():
                raise RefusalError(CLIENT_GONE, "the client has left")
            raise self._too_late()
        except (DeadlineError, CancelledError) as error:
            raise self._too_late() from error
        finally:
            work.cancelled = True
            calls.clear()
            for awaited in either:
                awaited.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await gone

    def _begin(self, work: Work, calls: list[Callable[[Work], _Result]]) -> asyncio.Future[_Result]:
        with self._lock:
            self._inside += 1

        def working() -> _Result:
            began = time.monotonic()
            with self._lock:
                self._working += 1
            try:
                with work.current():
                    work.require_wanted()
                    return calls.pop()(work)
            finally:
                with self._lock:
                    self._working -= 1
                    self._seconds += (1 - _INERTIA) * (time.monotonic() - began - self._seconds)

        def leave(_: Future[_Result]) -> None:
            with self._lock:
                self._inside -= 1

        submitted = self._threads.submit(working)
        submitted.add_done_callback(leave)
        return asyncio.wrap_future(submitted)

    def _too_late(self) -> RefusalError:
        message = (
            f"the deadline of {self.limits.deadline:g} seconds passed, and what was left is not scored: "
            "send fewer or shorter passages at once, or ask again later"
        )
        return RefusalError(504, message)

    def _retry_after(self) -> int:
        """Seconds until about half of what waits is done."""
        turns = self._inside / self.limits.threads / 2
        return min(_LONGEST_WAIT, max(1, math.ceil(turns * self._seconds)))


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def is_authorized(header: str, keys: Sequence[str]) -> bool:
    """Whether an Authorization header brings one of the keys, as a bearer token or as the password of a browser's form.

    Each key is compared in a time that does not tell where it differs.

    >>> is_authorized("Bearer sesame", ["sesame"]), is_authorized("Bearer nonsense", ["sesame"])
    (True, False)
    """
    scheme, _, given = header.partition(" ")
    given = given.strip()
    if scheme.lower() == "basic":
        try:
            given = b64decode(given, validate=True).decode().partition(":")[2]
        except ValueError:  # no base64, or no UTF-8 in it
            return False
    elif scheme.lower() != "bearer":
        return False
    return sum(hmac.compare_digest(given.encode("utf-8", "replace"), key.encode()) for key in keys) > 0
