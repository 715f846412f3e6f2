"""What is counted, for Prometheus; labels are names that the server itself knows, never what a client sent."""

from collections.abc import Iterator, MutableMapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from openlepton.serve.bodies import Held
from openlepton.serve.scheduler import Scheduler

TYPE = "text/plain; version=0.0.4; charset=utf-8"

GONE = 499
"""The status of an answer that nobody waits for."""

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Metrics:
    """The counters of one server.

    Args:
        scheduler: Asked for its state when somebody looks.
        held: Likewise.
    """

    def __init__(self, scheduler: Scheduler, held: Held) -> None:
        self._registry = CollectorRegistry()
        self._scheduler, self._held = scheduler, held
        self._answers = Counter(
            "openlepton_answers",
            "Answers by address and class of status.",
            ("address", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "openlepton_answer_seconds", "From the head of a request to its answer.", ("address",), buckets=_SECONDS,
            registry=self._registry,
        )  # fmt: skip
        self._run_seconds = Histogram(
            "openlepton_run_seconds", "Work on one item.", ("model",), buckets=_SECONDS, registry=self._registry
        )
        ProcessCollector(registry=self._registry)
        self._registry.register(self)

    def answered(self, scope: MutableMapping[str, Any], status: int, seconds: float) -> None:
        """Count an answer; `GONE` if the client hung up."""
        address = getattr(scope.get("route"), "path", "other")
        self._answers.labels(address, "gone" if status in (0, GONE) else f"{status // 100}xx").inc()
        self._seconds.labels(address).observe(seconds)

    def worked(self, model: str, seconds: float) -> None:
        """Count an item that was worked on."""
        self._run_seconds.labels(model).observe(seconds)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield what is not counted but looked up."""
        pool = self._scheduler.pool
        for name, text, value in (
            ("waiting_items", "Items that wait for a worker.", self._scheduler.waiting),
            ("workers", "Worker processes there should be.", pool.size),
            ("workers_alive", "Worker processes that are ready.", len(pool.workers)),
            ("busy_items", "Items, or groups of them, that are worked on.", self._scheduler.busy),
            ("held_bytes", "Bytes of bodies in memory.", self._held.now),
        ):
            yield GaugeMetricFamily(f"openlepton_{name}", text, value)
        yield CounterMetricFamily("openlepton_worker_restarts", "Workers that were replaced.", pool.restarts)
        items = CounterMetricFamily("openlepton_items", "Items by what became of them.", labels=("outcome",))
        for outcome, count in self._scheduler.counts.items():
            items.add_metric((outcome,), count)
        yield items
