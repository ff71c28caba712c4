"""One reranker in many threads, in an event loop, and in other processes; its cache.

Pickle, fork and spawn stand in test_laws.py.
"""

from __future__ import annotations

import asyncio
import itertools
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from operator import methodcaller
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from bounds import INT8, difference
from hypothesis import given
from hypothesis import strategies as st
from texts import keyword, neutral_sentences, stated, stating

from rerank_nli import FunctionEngine, InputError, InputTypeError, NLIReranker, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CLAIM = "The ferry sails at noon."
ANSWER = "They SUPPORT it. They REFUTE it. It rains."
SENTENCES = neutral_sentences()


@pytest.fixture
def eager_switching() -> Iterator[None]:
    """Let threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def mixed_calls(sentences: Sequence[str]) -> list[Callable[[NLIReranker], Any]]:
    """Calls of every verb over overlapping texts."""
    calls: list[Callable[[NLIReranker], Any]] = []
    for i in range(0, len(sentences) - 3, 2):
        some = [*sentences[i : i + 3], ANSWER]
        calls += [
            methodcaller("rank", CLAIM, some),
            methodcaller("filter", some[0], some, 0.3),
            methodcaller("verify", CLAIM, some),
            methodcaller("check", ANSWER, some[:2]),
            methodcaller("predict", [(premise, CLAIM) for premise in some], output="dicts"),
            methodcaller("rank_many", [CLAIM, some[1]], [some, some[:1]]),
        ]
    return calls


@pytest.mark.usefixtures("eager_switching")
@pytest.mark.parametrize("cache_size", [0, 5, 10_000])
def test_sixteen_threads_get_what_one_gets(cache_size: int) -> None:
    """16 threads with mixed calls through one reranker get what one thread gets, with any cache."""
    calls = mixed_calls(SENTENCES[:60])
    alone = NLIReranker(FunctionEngine(keyword), window=6)
    shared = NLIReranker(FunctionEngine(keyword), window=6, cache_size=cache_size)
    expected = [call(alone) for call in calls]
    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(lambda call: call(shared), calls)) == expected


def calls_of_mixed_length() -> list[tuple[str, list[str]]]:
    """400 queries with passages: mostly one of 3 to 8 words, of every 20 one with three, of every 40 one windowed."""
    calls = []
    for i in range(400):
        words = SENTENCES[i % 120].split()
        start, count = i // 120, 3 + i % 6
        short = " ".join(words[start : start + count])
        if i % 40 == 7:
            passages = [" ".join(SENTENCES[i % 100 : i % 100 + 6 + i // 100])]
        elif i % 20 == 3:
            passages = [short, SENTENCES[(i + 7) % 120], ""]
        else:
            passages = [short]
        calls.append((f"Nobody saw it {i % 7} times.", passages))
    return calls


@pytest.mark.parametrize(("cache_size", "count"), [(0, 1_500), (150, 10_000)])
def test_sixteen_threads_share_the_bundled_model(cache_size: int, count: int) -> None:
    """10,000 calls by 16 threads through one reranker of the bundled model score as each does in a single thread."""
    calls = calls_of_mixed_length()
    alone = NLIReranker(load(threads=1), cache_size=0)
    shared = NLIReranker(load(threads=1), cache_size=cache_size)
    expected = [{p.index: p for p in alone.rank(*call)} for call in calls]
    assert {p.windows for by_index in expected for p in by_index.values()} >= {0, 1, 2}
    asked = np.random.default_rng(0).integers(len(calls), size=count).tolist()
    differences: list[float] = []
    with ThreadPoolExecutor(16) as threads:
        for i, ranking in zip(asked, threads.map(lambda i: shared.rank(*calls[i]), asked), strict=True):
            assert {p.index for p in ranking} == set(expected[i])
            differences += [difference(p, expected[i][p.index], "entailment") for p in ranking]
    assert len(differences) > count
    assert INT8.holds(differences)


def test_threads_tokenize_alike(bundled: NLIReranker) -> None:
    """8 threads that tokenize texts of very different length at once get the tokens that one gets."""
    texts = [" ".join(SENTENCES[: 1 + i % 40]) for i in range(160)]
    expected = [bundled.engine.tokenize([text])[0].ids.tolist() for text in texts]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda text: bundled.engine.tokenize([text])[0].ids.tolist(), texts))
    assert found == expected


@pytest.mark.usefixtures("eager_switching")
def test_a_cache_shared_by_threads_stays_bounded() -> None:
    """8 threads that fill a cache of 7 pairs leave at most 7 in it."""
    asked: list[int] = []

    def fn(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        asked.append(len(pairs))
        return stated(pairs)

    shared = NLIReranker(FunctionEngine(fn), cache_size=7)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda i: shared.rank(f"claim {i % 50}", SENTENCES[:5]), range(200)))
    before = sum(asked)
    for i in range(50):
        shared.rank(f"claim {i}", SENTENCES[:5])
    assert sum(asked) - before >= 50 * 5 - 7


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(0, 10))
def test_a_cache_never_scores_what_it_holds(numbers: list[int], size: int) -> None:
    """The engine is asked exactly for what a cache of the last-used pairs does not hold."""
    asked: list[str] = []

    def fn(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        asked.extend(premise for premise, _ in pairs)
        return stated(pairs)

    reranker = NLIReranker(FunctionEngine(fn), cache_size=size)
    held: list[str] = []
    expected: list[str] = []
    for number in numbers:
        passage = f"passage {number}"
        reranker.rank(CLAIM, [passage])
        if passage in held:
            held.remove(passage)
        else:
            expected.append(passage)
        held = [*held, passage][-size:] if size else []
    assert asked == expected


VERBS: list[tuple[str, tuple[Any, ...]]] = [
    ("rank", (CLAIM, ["They SUPPORT it.", "They REFUTE it."], 1)),
    ("filter", (CLAIM, ["They SUPPORT it.", "They REFUTE it."], 0.7)),
    ("verify", (CLAIM, ["They SUPPORT it.", "They REFUTE it."])),
    ("check", (ANSWER, ["They SUPPORT it.", "They REFUTE it."])),
]


@pytest.mark.parametrize(("verb", "args"), VERBS, ids=[verb for verb, _ in VERBS])
def test_the_loop_goes_on_while_the_model_works(verb: str, args: tuple[Any, ...]) -> None:
    """The event loop runs other things while the model is at work, and the result is the plain verb's."""
    ticked = threading.Event()

    def waits_for_the_loop(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        if not ticked.wait(timeout=30):
            message = "the event loop stood still while the model worked"
            raise AssertionError(message)
        return keyword(pairs)

    async def main() -> Any:
        task = asyncio.ensure_future(getattr(NLIReranker(FunctionEngine(waits_for_the_loop)), f"a{verb}")(*args))
        for _ in range(10):
            await asyncio.sleep(0)
        ticked.set()
        return await task

    assert asyncio.run(main()) == getattr(NLIReranker(FunctionEngine(keyword)), verb)(*args)


def test_the_loop_ticks_while_the_bundled_model_ranks(bundled: NLIReranker) -> None:
    """While the bundled model ranks 500 passages the event loop goes round throughout, never still for a quarter."""
    passages = [f"{SENTENCES[i % 120][:30]} {i}." for i in range(500)]
    fresh = NLIReranker(bundled.engine, cache_size=0)

    async def main() -> tuple[Any, list[float]]:
        loop = asyncio.get_running_loop()
        ticks = [loop.time()]
        task = asyncio.ensure_future(fresh.arank(CLAIM, passages, top_k=3))

        def tick() -> None:
            ticks.append(loop.time())
            if not task.done():
                loop.call_later(0.001, tick)

        tick()
        ranking = await task
        return ranking, [*ticks, loop.time()]

    ranking, ticks = asyncio.run(main())
    assert len(set(passages)) == 500
    assert [p.index for p in ranking] == [p.index for p in fresh.rank(CLAIM, passages, top_k=3)]
    assert len(ticks) > 20
    assert max(b - a for a, b in itertools.pairwise(ticks)) < (ticks[-1] - ticks[0]) / 4


def test_many_at_once_in_one_loop() -> None:
    """Gathered calls each get their own result."""
    reranker = NLIReranker(stating())

    async def main() -> list[Any]:
        return await asyncio.gather(
            *(reranker.arank(f"claim {i}", [f"e=0.{10 + i},c=0.1", "e=0.05,c=0.1"]) for i in range(20))
        )

    rankings = asyncio.run(main())
    assert [ranking.query for ranking in rankings] == [f"claim {i}" for i in range(20)]
    assert [ranking[0].score for ranking in rankings] == pytest.approx([0.1 + i / 100 for i in range(20)], abs=1e-6)


def test_errors_come_out_of_the_loop() -> None:
    """An error of an awaited call is the plain verb's error."""
    reranker = NLIReranker(stating())
    with pytest.raises(InputTypeError, match="passage 0 must be a text"):
        asyncio.run(reranker.arank(CLAIM, [None]))
    with pytest.raises(InputError, match="top_k=0"):
        asyncio.run(reranker.afilter(CLAIM, ["x"], top_k=0))


def test_the_bundled_reranker_pickles_small(bundled: NLIReranker) -> None:
    """A bundled reranker is pickled without its cache and weights, and comes back with the same weights."""
    bundled.rank(CLAIM, SENTENCES[:3])
    pickled = pickle.dumps(bundled)
    assert len(pickled) < 100_000
    again = pickle.loads(pickled)  # noqa: S301 - written above
    assert again.engine.fingerprint == bundled.engine.fingerprint
