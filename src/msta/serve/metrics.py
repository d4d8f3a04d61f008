"""Metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The metrics of one service, in their own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("msta_requests", "Answered requests.", ["route", "status"], registry=self.registry)
        self.seconds = Histogram(
            "msta_seconds",
            "Seconds by stage: decode, compute, request.",
            ["stage"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batch = Histogram(
            "msta_batch_clips", "Clips computed together.", buckets=(1, 2, 4, 8, 16, 32), registry=self.registry
        )
        self.losses = Counter(
            "msta_workers_replaced", "Decoding processes that were replaced.", ["why"], registry=self.registry
        )

    def watch(self, name: str, what: str, value: Callable[[], float]) -> None:
        """Call ``value`` at every scrape."""
        Gauge(name, what, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self.registry)
