"""One engine for the calls of many threads: what they ask for at the same time is scored together.

A call belongs to a piece of work with a deadline, and what nobody waits for any more is not scored.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from rerank_nli.batches import in_batches
from rerank_nli.errors import InputError, RerankNLIError, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rerank_nli.calibration import Calibration
    from rerank_nli.engines import Engine, Pairs
    from rerank_nli.scores import FloatArray
    from rerank_nli.windows import Tokens

__all__ = ["CancelledError", "DeadlineError", "Merged", "SharedEngine", "Work"]

_FEW = 1 / 8  # of a batch's tokens: with more than that, it is not worth waiting for what might come

_LATE = "the deadline passed before all was scored: send less at once, or allow more time"


class DeadlineError(RerankNLIError):
    """The deadline of a piece of work has passed; what was left of it is not scored."""


class CancelledError(RerankNLIError):
    """Nobody waits for a piece of work any more; what was left of it is not scored."""


@dataclass(slots=True)
class Work:
    """What one caller waits for, over any number of calls.

    Attributes:
        deadline: on the clock of time.monotonic.
        cancelled: set it, from any thread, to have what is left dropped.
        pairs, tokens: how much was scored for it.
    """

    deadline: float = math.inf
    cancelled: bool = False
    pairs: int = 0
    tokens: int = 0

    @contextmanager
    def current(self) -> Iterator[Work]:
        """Have the calls made inside, in this context, belong to this work."""
        token = _CURRENT.set(self)
        try:
            yield self
        finally:
            _CURRENT.reset(token)

    def require_wanted(self) -> None:
        """Go on only if somebody waits.

        Raises:
            CancelledError, DeadlineError: nobody does.
        """
        if self.cancelled:
            message = "cancelled: nobody waits for this any more"
            raise CancelledError(message)
        if time.monotonic() >= self.deadline:
            raise DeadlineError(_LATE)


_CURRENT: ContextVar[Work] = ContextVar("work")


class Merged(NamedTuple):
    """What was scored together.

    Attributes:
        calls: how many calls it came from.
        batches: pairs and tokens of each batch that the engine took.
    """

    calls: int
    batches: list[tuple[int, int]]


@dataclass(slots=True, eq=False)
class _Call:
    """Pairs that one thread waits for."""

    pairs: Pairs
    work: Work
    tokens: int
    rows: Future[FloatArray] = field(default_factory=Future)

    def still_wanted(self) -> bool:
        """Whether somebody waits for it; if not, whoever asked is told."""
        try:
            self.work.require_wanted()
        except RerankNLIError as error:
            self.settle(error)
            return False
        return True

    def settle(self, outcome: FloatArray | Exception) -> None:
        """Hand rows or an error to the thread that waits, if it still does."""
        if not self.rows.set_running_or_notify_cancel():
            return
        if isinstance(outcome, Exception):
            self.rows.set_exception(outcome)
        else:
            self.rows.set_result(outcome)


class SharedEngine:
    """An Engine over another: calls of many threads wait in a line, and one thread scores what waits, together.

    Each call waits its turn, so that what asks for much, batch by batch, holds nobody up for longer than a batch. An
    error of the engine goes to the calls that it is of.

    Args:
        engine: what scores.
        batch_tokens: most tokens of a batch, for each batch that the engine takes at a time.
        wait_ms: how long to wait for more where less waits than an eighth of a batch.
        seen: is told of what was scored, from the scoring thread.
    """

    def __init__(
        self,
        engine: Engine,
        batch_tokens: int = 4_096,
        wait_ms: float = 2.0,
        seen: Callable[[Merged], None] = lambda _: None,
    ) -> None:
        self.engine = engine
        self.name, self.labels, self.precision = engine.name, engine.labels, engine.precision
        self.max_length, self.special, self.window = engine.max_length, engine.special, engine.window
        self.temperature = engine.temperature
        self._batch_tokens = counted("batch_tokens", batch_tokens)
        self._parallel: int = getattr(engine, "parallel", 1)
        self._wait, self._seen = wait_ms / 1000, seen
        self._line: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._closed, self._lock = False, threading.Lock()
        self._thread = threading.Thread(target=self._score_all, name="rerank-nli scoring", daemon=True)
        self._thread.start()

    @property
    def calibration(self) -> Calibration | None:
        """What came with the model, if anything did."""
        return self.engine.calibration

    @property
    def fingerprint(self) -> str:
        """What tells these weights from others."""
        return self.engine.fingerprint

    @property
    def waiting(self) -> int:
        """How many calls wait to be scored."""
        return self._line.qsize()

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """Token ids and character offsets of each text, whole, in the caller's own thread."""
        work = _CURRENT.get(None)
        if work is not None:
            work.require_wanted()
        return self.engine.tokenize(texts)

    def logits(self, pairs: Pairs) -> FloatArray:
        """(m, C) for one batch of (premise, hypothesis), scored with what others ask for.

        Raises:
            CancelledError, DeadlineError: nobody waits for the work any more.
            InputError: the engine is closed.
        """
        work = _CURRENT.get(None) or Work()
        work.require_wanted()
        call = _Call(pairs, work, sum(map(self._tokens, pairs)))
        with self._lock:
            if self._closed:
                message = "this engine is closed and scores no more: make another"
                raise InputError(message)
            self._line.put(call)
        left = None if work.deadline == math.inf else max(0.0, work.deadline - time.monotonic())
        try:
            return call.rows.result(left)
        except FutureTimeoutError:
            if not call.rows.cancel():  # they have just come, or the engine's own error is of this kind
                return call.rows.result()
        raise DeadlineError(_LATE)

    def close(self) -> None:
        """Stop, after what waits has been scored."""
        with self._lock:  # so that no call comes after the end
            self._closed = True
            self._line.put(None)
        self._thread.join()

    def _tokens(self, pair: tuple[Tokens, Tokens]) -> int:
        return self.special + len(pair[0]) + len(pair[1])

    def _score_all(self) -> None:
        while (first := self._line.get()) is not None:
            calls = self._with_others(first)
            wanted = [call for call in calls if call is not None and call.still_wanted()]
            if wanted:
                self._score(wanted)
            if calls[-1] is None:
                return

    def _with_others(self, first: _Call) -> list[_Call | None]:
        """The first call and those after it, up to the budget; where they are few, a little while is given to more."""
        calls: list[_Call | None] = [first]
        budget, tokens = self._batch_tokens * self._parallel, first.tokens
        end = time.monotonic() + self._wait
        while tokens < budget:
            try:
                patience = end - time.monotonic() if tokens < budget * _FEW else 0.0
                call = self._line.get(timeout=max(0.0, patience))
            except queue.Empty:
                break
            calls.append(call)
            if call is None:
                break
            tokens += call.tokens
        return calls

    def _score(self, calls: Sequence[_Call]) -> None:
        """Score calls together; where that fails, each alone, so that an error reaches whom it is of."""
        batches: list[tuple[int, int]] = []

        def logits(batch: Pairs) -> FloatArray:
            rows = self.engine.logits(batch)
            batches.append((len(batch), sum(map(self._tokens, batch))))
            return rows

        pairs = [pair for call in calls for pair in call.pairs]
        try:
            rows = in_batches(pairs, logits, self._batch_tokens, self.special, self._parallel)
        except Exception as error:  # noqa: BLE001 - whatever an engine raises is its callers' to see
            if len(calls) > 1:
                for call in calls:
                    self._score([call])
            else:
                calls[0].settle(error)
            return
        start = 0
        for call in calls:
            call.work.pairs += len(call.pairs)
            call.work.tokens += call.tokens
            call.settle(rows[start : start + len(call.pairs)])
            start += len(call.pairs)
        self._seen(Merged(len(calls), batches))
