"""Does the server keep up, and does it stay well? Run: python benchmarks/load.py (the `serve` extra, aiohttp).

Throughput: 64 clients at once, a request of 100 passages each, and beside it the same rankings by `rank_many` in this
process while the server is idle, in turns; nothing is remembered. Overload: requests of 20 passages come for a minute
three times as fast as they can be answered, whether or not those before were; the queue is as long as what is answered
in three seconds. Afterwards lone requests come four times a second, until one is answered as quickly as before.
Soak: 100,000 requests of mixed size from 32 clients, most to a function that takes no time and a part to the bundled
model; each answer is held against the library's own scores. Memory is the server's resident set, from /proc.

It takes about 12 minutes on two cores, which the clients share with the server.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
from load_server import by_sum
from quantization import processor

from rerank_nli import FunctionEngine, NLIReranker, load
from rerank_nli.demo import CORPUS, read_corpus

if TYPE_CHECKING:
    from collections.abc import Iterator

RESULT = Path(__file__).parent / "results" / "load.json"
CLIENTS, PASSAGES = 64, 100
WARM = 4  # clients of the turn that is not counted
ROUNDS = 2
OVER, SECONDS, QUEUED = 3, 60.0, 3.0  # times the capacity, for so long, with so many seconds' work in the queue
PROBE = 0.25
NORMAL = 1.5  # times the latency of before
SOAK, SOAKING, SLOW_EVERY = 100_000, 32, 50  # requests, clients, and one request of so many goes to the bundled model
NEAR = 1e-2  # of scores in int8; most are far nearer
MB = 2**20
TEXTS = [passage.text for passage in read_corpus(CORPUS)]


class Asked(NamedTuple):
    """A request, and the scores that the library gives."""

    body: dict[str, Any]
    scores: list[float]


class Server:
    """A process that serves."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self.process, self.url = process, url

    def rss(self) -> float:
        """MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        return int(found[1]) * 1024 / MB if found else 0.0


@contextmanager
def served(*command: str) -> Iterator[Server]:
    """A server's process, once it answers; "PORT" is put in."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = [word.replace("PORT", str(port)) for word in command]
    process = subprocess.Popen([sys.executable, *own], stderr=subprocess.DEVNULL)  # noqa: S603
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield Server(process, f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(30)


def serve(*options: str) -> Any:  # noqa: ANN401 - a context of Server
    return served("-c", "from rerank_nli.cli import main; main()", "serve", "--port", "PORT", *options)


def asks(count: int, passages: int, seed: int) -> list[dict[str, Any]]:
    """Requests that have no passage in common: each text bears a number of its own."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    return [
        {
            "query": f"{rng.choice(TEXTS)[:80]} ({seed}.{number})",
            "documents": [f"{rng.choice(TEXTS)} {seed}.{number}.{i}" for i in range(passages)],
        }
        for number in range(count)
    ]


def client(limit: int = 0) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=limit)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=600))


async def post(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> tuple[int, Any, float]:
    """Status, answer and seconds."""
    started = time.perf_counter()
    async with session.post(f"{url}/v1/rerank", json=body) as response:
        answer = await response.json()
        return response.status, answer, time.perf_counter() - started


async def at_once(url: str, bodies: list[dict[str, Any]]) -> float:
    """Seconds until all are answered."""
    async with client() as session:
        started = time.perf_counter()
        answers = await asyncio.gather(*(post(session, url, body) for body in bodies))
        seconds = time.perf_counter() - started
    if {status for status, _, _ in answers} != {200}:
        message = f"not all were answered: {Counter(status for status, _, _ in answers)}"
        raise SystemExit(message)
    return seconds


def throughput(clients: int, passages: int, rounds: int) -> dict[str, Any]:
    """Pairs a second of the server and of the library, in turns; the first turn of each is not counted."""
    reranker = NLIReranker(cache_size=0)
    taken: dict[str, list[float]] = {"server": [], "library": []}
    with serve("--cache-size", "0") as server:
        for number in range(rounds + 1):
            bodies = asks(clients if number else WARM, passages, number)
            taken["server"].append(asyncio.run(at_once(server.url, bodies)))
            started = time.perf_counter()
            reranker.rank_many([b["query"] for b in bodies], [b["documents"] for b in bodies])
            taken["library"].append(time.perf_counter() - started)
            print(f"round {number}: { ({name: round(s[-1], 1) for name, s in taken.items()}) }", flush=True)
    pairs = clients * passages
    ratios = [a / b for a, b in zip(taken["library"][1:], taken["server"][1:], strict=True)]
    return {
        "clients": clients,
        "passages of each": passages,
        "pairs/s": {name: round(pairs / median(seconds[1:]), 1) for name, seconds in taken.items()},
        "s": {name: [round(s, 2) for s in seconds[1:]] for name, seconds in taken.items()},
        "server / library": [round(r, 3) for r in (median(ratios), min(ratios), max(ratios))],
    }


async def alone(url: str, bodies: list[dict[str, Any]]) -> list[float]:
    """Seconds of each, one after the other."""
    async with client() as session:
        return [(await post(session, url, body))[2] for body in bodies]


async def storm(server: Server, rate: float, seconds: float, usual: float) -> dict[str, Any]:
    """Send at a rate whatever comes back; then probe until all is as before."""
    statuses: Counter[int | str] = Counter()
    latencies: list[float] = []
    memory: list[float] = []
    bodies = itertools.cycle(asks(400, 20, 99))
    async with client() as session:

        async def one() -> None:
            try:
                status, _, taken = await post(session, server.url, next(bodies))
            except aiohttp.ClientError as error:
                statuses[type(error).__name__] += 1
                return
            statuses[status] += 1
            if status == 200:  # noqa: PLR2004
                latencies.append(taken)

        tasks: list[asyncio.Task[None]] = []
        start = time.perf_counter()
        while (now := time.perf_counter() - start) < seconds:
            due = int(now * rate) + 1
            tasks += [asyncio.create_task(one()) for _ in range(due - len(tasks))]
            if len(memory) <= now:  # once a second
                memory.append(server.rss())
            await asyncio.sleep(0.01)
        over = time.perf_counter()
        probes: list[float] = []
        while not probes or probes[-1] > NORMAL * usual:
            status, _, taken = await post(session, server.url, asks(1, 20, 10_000 + len(probes))[0])
            probes.append(taken if status == 200 else float("inf"))  # noqa: PLR2004
            back = time.perf_counter() - over
            await asyncio.sleep(PROBE)
        await asyncio.gather(*tasks)
    middle = len(memory) // 2
    return {
        "sent": len(tasks),
        "answers": {str(status): count for status, count in sorted(statuses.items(), key=str)},
        "answered within s, median and most": [round(median(latencies), 2), round(max(latencies), 2)],
        "memory MB, first half and second": [round(median(m), 1) for m in (memory[:middle], memory[middle:])],
        "s after it until one took as long as before": round(back, 2),
        "alive": server.process.poll() is None,
    }


def overload(seconds: float) -> dict[str, Any]:
    """What becomes of a server that is asked three times as much as it can answer."""
    with serve("--cache-size", "0") as server:
        asyncio.run(alone(server.url, asks(3, 20, 0)))
        usual = median(asyncio.run(alone(server.url, asks(10, 20, 1))))
        capacity = CLIENTS / asyncio.run(at_once(server.url, asks(CLIENTS, 20, 2)))
    queue = max(2, round(QUEUED * capacity))
    with serve("--cache-size", "0", "--queue", str(queue)) as server:
        asyncio.run(alone(server.url, asks(3, 20, 3)))
        found = asyncio.run(storm(server, OVER * capacity, seconds, usual))
    return {
        "passages of each": 20,
        "requests/s that can be answered": round(capacity, 1),
        "queue": queue,
        "seconds": seconds,
        "alone, s": round(usual, 3),
        **found,
    }


def pool() -> dict[str, list[Asked]]:
    """Requests of mixed size for both models, with what the library says."""
    rng = random.Random(7)  # noqa: S311 - no secret
    found: dict[str, list[Asked]] = {}
    rerankers = {"fast": NLIReranker(FunctionEngine(by_sum)), "mini": NLIReranker(load())}
    for name, most, count in (("fast", 40, 500), ("mini", 10, 100)):
        bodies = [asks(1, rng.randint(1, most), 1000 + number)[0] for number in range(count)]
        rankings = rerankers[name].rank_many([b["query"] for b in bodies], [b["documents"] for b in bodies])
        scores = [[p.score for p in sorted(ranking, key=attrgetter("index"))] for ranking in rankings]
        found[name] = [Asked(body | {"model": name}, own) for body, own in zip(bodies, scores, strict=True)]
    return found


async def soaked(server: Server, asked: dict[str, list[Asked]], count: int) -> dict[str, Any]:
    """Ask over and over, and hold each answer against the library's."""
    numbers = iter(range(count))
    statuses: Counter[str] = Counter()
    wrong, farthest = 0, 0.0
    memory: list[float] = []
    async with client() as session:

        async def ask() -> None:
            nonlocal wrong, farthest
            for number in numbers:
                name = "mini" if number % SLOW_EVERY == 0 else "fast"
                one = asked[name][number // (SLOW_EVERY if name == "mini" else 1) % len(asked[name])]
                status, answer, _ = await post(session, server.url, one.body)
                statuses[f"{name} {status}"] += 1
                scores = {row["index"]: row["relevance_score"] for row in answer.get("results", [])}
                apart = max((abs(scores.get(i, 9.0) - s) for i, s in enumerate(one.scores)), default=0.0)
                farthest = max(farthest, apart)
                wrong += apart > NEAR or len(scores) != len(one.scores)
                if number % (count // 100) == 0:
                    memory.append(server.rss())

        started = time.perf_counter()
        await asyncio.gather(*(ask() for _ in range(SOAKING)))
        seconds = time.perf_counter() - started
    warm = len(memory) // 20  # the first requests fill caches and buffers
    return {
        "requests": count,
        "s": round(seconds, 1),
        "answers": dict(sorted(statuses.items())),
        "other scores than the library's": wrong,
        "largest difference": float(f"{farthest:.1e}"),
        "memory MB, after a twentieth and at the end": [round(memory[warm], 1), round(memory[-1], 1)],
        "growth MB": round(max(memory[-5:]) - memory[warm], 1),
    }


def soak(count: int) -> dict[str, Any]:
    """Many requests, answered as the library would."""
    asked = pool()
    with served(str(Path(__file__).with_name("load_server.py")), "PORT") as server:
        return asyncio.run(soaked(server, asked, count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a trial with tiny sizes, not kept but in --out")
    parser.add_argument("--out", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    quick = arguments.quick
    result = {
        "processor": processor(),
        "throughput": throughput(8 if quick else CLIENTS, 10 if quick else PASSAGES, 1 if quick else ROUNDS),
        "overload": overload(5.0 if quick else SECONDS),
        "soak": soak(2_000 if quick else SOAK),
    }
    said = json.dumps(result, indent=1)
    print(said)
    out = arguments.out or (None if quick else RESULT)
    if out:
        out.write_text(said + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
