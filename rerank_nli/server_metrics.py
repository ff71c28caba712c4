"""What the server counts of itself, as Prometheus reads it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client.core import Metric

    from rerank_nli.server_limits import Gate
    from rerank_nli.server_models import Models
    from rerank_nli.shared_engine import Merged
    from rerank_nli.types import RankedPassage

__all__ = ["Metrics", "State"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_PAIRS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_TOKENS = (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 65_536)
_WINDOWS = (0, 1, 2, 3, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of one server, apart from those of any other in the same process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter = partial(Counter, namespace="rerank_nli", registry=self.registry)
        histogram = partial(Histogram, namespace="rerank_nli", registry=self.registry)
        self._requests = counter("requests", "Requests answered.", ["route", "status"])
        self._seconds = histogram(
            "request_seconds", "From a request's arrival to its answer.", ["route"], buckets=_SECONDS
        )
        self._passages = histogram("passages", "Passages of a request.", ["model"], buckets=_PAIRS)
        self._windows = histogram("windows", "Windows of a passage.", ["model"], buckets=_WINDOWS)
        self._calls = histogram(
            "merged_calls", "Calls, of any requests, that were scored together.", ["model"], buckets=_PAIRS
        )
        self._batch_pairs = histogram("batch_pairs", "Pairs of a batch.", ["model"], buckets=_PAIRS)
        self._batch_tokens = histogram("batch_tokens", "Tokens of a batch.", ["model"], buckets=_TOKENS)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self._requests.labels(route, status).inc()
        self._seconds.labels(route).observe(seconds)

    def merged(self, model: str, what: Merged) -> None:
        """Count what was scored together."""
        self._calls.labels(model).observe(what.calls)
        for pairs, tokens in what.batches:
            self._batch_pairs.labels(model).observe(pairs)
            self._batch_tokens.labels(model).observe(tokens)

    def asked(self, model: str, passages: int) -> None:
        """Count the passages of a request."""
        self._passages.labels(model).observe(passages)

    def ranked(self, model: str, passages: Iterable[RankedPassage]) -> None:
        """Count the windows of passages."""
        windows = self._windows.labels(model)
        for passage in passages:
            windows.observe(passage.windows)


class State:
    """What is read off the server whenever somebody asks."""

    def __init__(self, gate: Gate, models: Models) -> None:
        self._gate, self._models = gate, models

    def collect(self) -> Iterator[Metric]:
        """The gauges, and what the models have counted themselves."""
        yield GaugeMetricFamily("rerank_nli_requests_inside", "Requests worked on or waiting.", self._gate.inside)
        yield GaugeMetricFamily("rerank_nli_requests_waiting", "Requests waiting for a thread.", self._gate.waiting)
        calls = GaugeMetricFamily("rerank_nli_calls_waiting", "Calls waiting to be scored.", labels=["model"])
        hits = CounterMetricFamily("rerank_nli_cache_hits", "Pairs whose logits were remembered.", labels=["model"])
        asked = CounterMetricFamily("rerank_nli_pairs", "Pairs asked for, remembered or not.", labels=["model"])
        for name, waiting, (found, total) in self._models.counts():
            calls.add_metric([name], waiting)
            hits.add_metric([name], found)
            asked.add_metric([name], total)
        yield from (calls, hits, asked)
