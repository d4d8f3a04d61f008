"""What Prometheus is told."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Counters of one service, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("msta_requests", "Answered.", ["route", "status"], registry=self.registry)
        self.seconds = Histogram(
            "msta_seconds", "By stage: decode, compute, request.", ["stage"], buckets=_SECONDS, registry=self.registry
        )
        self.batch = Histogram("msta_batch_clips", "Together.", buckets=(1, 2, 4, 8, 16, 32), registry=self.registry)
        self.losses = Counter("msta_workers_replaced", "Decoders.", ["why"], registry=self.registry)

    def watch(self, name: str, what: str, value: Callable[[], float]) -> None:
        """Read ``value`` at every scrape."""
        Gauge(name, what, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self.registry)
