"""A queue's gauges for Prometheus."""

from __future__ import annotations

from s4raw.metrics import Gauge
from s4raw.queue.entries import Gauges
from s4raw.queue.upkeep import age


def measured(gauges: Gauges, prefix: str, what: str) -> list[Gauge]:
    """How a queue is; names begin with ``prefix``, and ``what`` is what it holds, as ``Files``."""
    return [
        Gauge(f"{prefix}_{name}", text, number, kind)
        for name, text, number, kind in (
            ("queue_entries", f"{what} in the queue.", gauges.entries, "gauge"),
            ("queue_bytes", f"{what} in the queue, in bytes.", gauges.size, "gauge"),
            ("queue_oldest_seconds", "How long the oldest has waited.", age(gauges.oldest_ns), "gauge"),
            ("queue_parked", f"{what} that nobody tries to deliver any more.", gauges.parked, "gauge"),
            ("in_flight", f"{what} on their way.", gauges.in_flight, "gauge"),
            ("attempts_total", "Attempts to deliver.", gauges.attempts, "counter"),
            ("failures_total", "Attempts to deliver that failed.", gauges.failures, "counter"),
            ("delivered_total", f"{what} that were stored and left the queue.", gauges.delivered, "counter"),
            ("dropped_total", f"{what} that were thrown away.", gauges.dropped, "counter"),
        )
    ]
