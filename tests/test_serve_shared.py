"""The engine that many threads share: rows come back to whom they belong, merged, in turn, and only while wanted."""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from bounds import INT8, difference
from serving import CLAIM, PASSAGES, PATIENCE, Held, in_thread, until
from texts import neutral_sentences

from rerank_nli import FunctionEngine, InputError, NLIReranker, load
from rerank_nli.shared_engine import CancelledError, DeadlineError, Merged, SharedEngine, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rerank_nli.engines import Pairs

SENTENCES = neutral_sentences()


@pytest.fixture
def shared() -> Iterator[Callable[..., SharedEngine]]:
    """Makes shared engines over a function, and closes them."""
    made: list[SharedEngine] = []

    def make(function: Any, **options: Any) -> SharedEngine:
        made.append(SharedEngine(FunctionEngine(function), **options))
        return made[-1]

    yield make
    for engine in made:
        if isinstance(engine.engine, FunctionEngine) and isinstance(engine.engine.fn, Held):
            engine.engine.fn.open.set()
        engine.close()


def lengths(pairs: list[tuple[str, str]]) -> list[list[float]]:
    """Logits that tell which pair they are of."""
    return [[len(premise), len(hypothesis), 0.0] for premise, hypothesis in pairs]


def of(engine: SharedEngine, *premises: str) -> Pairs:
    """Pairs as the engine takes them."""
    query, *read = engine.tokenize(["q", *premises])
    return [(premise, query) for premise in read]


def test_closed(shared: Callable[..., SharedEngine]) -> None:
    """What is asked of an engine after it was closed is refused, not left to wait."""
    engine = shared(lengths)
    pairs = of(engine, "a")
    engine.close()
    with pytest.raises(InputError, match="this engine is closed"):
        engine.logits(pairs)


def test_an_engine_like_the_one_inside() -> None:
    """All that the scorer asks of an engine is that of the engine inside."""
    inside = load()
    engine = SharedEngine(inside)
    for name in ("name", "labels", "max_length", "special", "window", "temperature", "precision", "fingerprint"):
        assert getattr(engine, name) == getattr(inside, name)
    assert engine.calibration is inside.calibration
    engine.close()


def test_every_verb(bundled: NLIReranker) -> None:
    """Verbs over a shared engine, from many threads at once, give what they give alone."""
    engine = SharedEngine(load())
    reranker = NLIReranker(engine, cache_size=0)
    lists = [SENTENCES[i : i + 6] for i in range(0, 48, 6)]
    with ThreadPoolExecutor(8) as threads:
        ranked = list(threads.map(lambda some: reranker.rank(CLAIM, some), lists))
        verdicts = list(threads.map(lambda claim: reranker.verify(claim, PASSAGES, 0.5), [CLAIM, *SENTENCES[:7]]))
    engine.close()
    for some, ranking in zip(lists, ranked, strict=True):
        alone = {p.index: p for p in bundled.rank(CLAIM, some)}
        assert INT8.holds([difference(p, alone[p.index], "entailment") for p in ranking])
    assert [v.label for v in verdicts] == [bundled.verify(c, PASSAGES, 0.5).label for c in (CLAIM, *SENTENCES[:7])]


def test_merged(shared: Callable[..., SharedEngine]) -> None:
    """Calls that wait while a batch is scored are scored together, and each gets its own rows."""
    function, seen = Held(), list[Merged]()
    engine = shared(function, seen=seen.append)
    calls = [in_thread(lambda: engine.logits(of(engine, "first")))]
    until(lambda: function.begun)
    texts = ["a", "a b", "a b c", "a b c d"]
    calls += [in_thread(lambda text=text: engine.logits(of(engine, text, "x"))) for text in texts]  # type: ignore[misc]
    until(lambda: engine.waiting == 4)
    function.open.set()
    for thread, _ in calls:
        thread.join(PATIENCE)
    for words, (_, results) in enumerate(calls[1:], 1):
        np.testing.assert_array_equal(results[0], [[words, 1, 0], [1, 1, 0]])
    assert seen == [Merged(1, [(1, 2)]), Merged(4, [(8, 22)])]


def test_budget(shared: Callable[..., SharedEngine]) -> None:
    """What is scored together is cut into batches of the token budget."""
    function = Held()
    engine = shared(function, batch_tokens=8, wait_ms=0)
    calls = [in_thread(lambda: engine.logits(of(engine, "first")))]
    until(lambda: function.begun)
    calls += [in_thread(lambda: engine.logits(of(engine, "a", "b", "c"))) for _ in range(4)]
    until(lambda: engine.waiting == 4)
    function.open.set()
    for thread, _ in calls:
        thread.join(PATIENCE)
    assert max(map(len, function.begun)) <= 8 // 2
    assert sum(map(len, function.begun)) == 1 + 4 * 3


def test_in_turn(shared: Callable[..., SharedEngine]) -> None:
    """A call waits for those before it in the line, and not for what their callers ask for afterwards."""
    function = Held()
    engine = shared(function, batch_tokens=2, wait_ms=0)
    large, _ = in_thread(lambda: [engine.logits(of(engine, f"large{i}")) for i in range(50)])
    until(lambda: function.begun)
    small, _ = in_thread(lambda: engine.logits(of(engine, "small")))
    until(lambda: engine.waiting == 1)
    function.open.set()
    for thread in (large, small):
        thread.join(PATIENCE)
    assert [batch[0] for batch in function.begun][:2] == ["large0", "small"]
    assert len(function.begun) == 51


@pytest.mark.parametrize("error", [ValueError("bad luck"), TimeoutError("too slow"), MemoryError()])
def test_errors_to_their_callers(shared: Callable[..., SharedEngine], error: Exception) -> None:
    """An error of the engine reaches the call that it is of, and no other that was scored with it."""
    function = Held()

    def picky(pairs: list[tuple[str, str]]) -> list[list[float]]:
        rows = function(pairs)
        if any(premise == "bad" for premise, _ in pairs):
            raise error
        return rows

    engine = shared(picky)

    def ask(text: str) -> Any:
        try:
            return engine.logits(of(engine, text)).tolist()
        except Exception as caught:  # noqa: BLE001 - whichever it is
            return caught

    calls = [in_thread(lambda: ask("first"))]
    until(lambda: function.begun)
    calls += [in_thread(lambda text=text: ask(text)) for text in ("good", "bad", "fine")]  # type: ignore[misc]
    until(lambda: engine.waiting == 3)
    function.open.set()
    for thread, _ in calls:
        thread.join(PATIENCE)
    results = [results[0] for _, results in calls]
    assert results[:2] + results[3:] == [[[1.0, 1.0, 0.0]]] * 3
    assert results[2] is error


def test_halved(shared: Callable[..., SharedEngine]) -> None:
    """A batch that does not fit into memory is halved until it does."""
    sizes = []

    def small_memory(pairs: list[tuple[str, str]]) -> list[list[float]]:
        sizes.append(len(pairs))
        if len(pairs) > 2:
            raise MemoryError
        return lengths(pairs)

    engine = shared(small_memory)
    rows = engine.logits(of(engine, *("a" * n for n in range(1, 8))))
    assert rows[:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert sizes[0] == 7


def test_cancelled(shared: Callable[..., SharedEngine]) -> None:
    """A cancelled work's pairs are dropped where they wait, and its caller gets an error, as with whatever it asks."""
    function, work, errors = Held(), Work(), list[Exception]()
    engine = shared(function)
    first, _ = in_thread(lambda: engine.logits(of(engine, "first")))
    until(lambda: function.begun)

    def ask() -> None:
        with work.current():
            with pytest.raises(CancelledError) as waited:
                engine.logits(pairs)
            with pytest.raises(CancelledError) as next_one:
                engine.tokenize(["more"])
        errors.extend([waited.value, next_one.value])

    pairs = of(engine, "dropped")
    second, _ = in_thread(ask)
    until(lambda: engine.waiting == 1)
    work.cancelled = True
    function.open.set()
    for thread in (first, second):
        thread.join(PATIENCE)
    assert len(errors) == 2
    assert function.seen == {"first"}
    assert work.pairs == 0


def test_deadline(shared: Callable[..., SharedEngine]) -> None:
    """Past its deadline a caller waits no longer, and what it asked for is not scored."""
    function = Held()
    engine = shared(function)
    first, _ = in_thread(lambda: engine.logits(of(engine, "first")))
    until(lambda: function.begun)
    with Work(deadline=time.monotonic() + 0.05).current(), pytest.raises(DeadlineError, match="deadline passed"):
        engine.logits(of(engine, "late"))
    function.open.set()
    first.join(PATIENCE)
    engine.logits(of(engine, "next"))
    assert function.seen == {"first", "next"}


def test_what_work_took(shared: Callable[..., SharedEngine]) -> None:
    """A work knows how many pairs and tokens were scored for it, and its verbs in other threads none of another's."""
    engine = shared(lengths)
    works = [Work(), Work()]

    def ask(work: Work, times: int) -> None:
        with work.current():
            for _ in range(times):
                engine.logits(of(engine, "a b", "c"))

    threads = [threading.Thread(target=ask, args=(work, times)) for work, times in zip(works, (1, 3), strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert [(work.pairs, work.tokens) for work in works] == [(2, 5), (6, 15)]
    assert [work.deadline for work in works] == [math.inf] * 2
